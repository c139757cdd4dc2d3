"""Finds causes in the results of the backends, with confidence and reasons."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from observability.story.critical import compare
from observability.story.text import clean
from observability.why import alerting, attributes, changes, normal, signals
from observability.why.answer import Answer, Attribute, Cause, Pair, Reason
from observability.why.blame import SLOWER, Blame
from observability.why.evidence import Journey
from observability.why.gather import recent
from observability.why.statistics import median

if TYPE_CHECKING:
    from collections.abc import Sequence

    from observability.why.evidence import Evidence
    from observability.why.requests import Request
    from observability.why.signals import Finding
    from observability.why.suspects import Place, Suspect

_MOST_CAUSES = 5
_MOST_ATTRIBUTES = 5
_MOST_ROWS = 8
_OVER_SECONDS = 25.0
_OVER_GOOD = 12
_RANGE = re.compile(r"(?:\[|rate)(\d+)([smhdw])\b")
"""Matches how far an expression looks back, also in names of recording rules such as `ratio_rate5m`."""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_TABLES = {"pool": "DatabasePoolNearLimit", "pool waits": "DatabasePoolWaits", "pool timeouts": "DatabasePoolWaits"}
_IN_VAIN = 500_000
_LATE, _LATE_SHARE = 20_000, 0.25
"""An answer is late if it took more microseconds than this, and more than this share of the call's waiting time."""
_STOPS_ALL = {"processor", "garbage"}
"""Signals that a service is slow in everything, also in its calls to others."""
_OF_SPANS = {"spans lost", "spans waiting"}
_NO_RUNBOOK = "docs/runbooks/README.md"


class Diagnosis:
    """One analysis of the evidence.

    Args:
        evidence: The results of the backends' queries.
    """

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._findings = _findings(evidence)
        self._busy = {one.service for one in self._findings if one.signal.name in _STOPS_ALL}
        self._blame = Blame(evidence, self._busy)
        self.suspects = self._blame.suspects()
        journeys = evidence.journeys.values()
        self._now = [request for journey in journeys for request in journey.now.requests]
        self._before = [request for journey in journeys for request in journey.usual]
        self._gone = changes.gone(evidence)
        self._starting = changes.starting(evidence)
        self._restarts = changes.restarts(evidence)
        self._versions = changes.versions(evidence, self._now, self._before)
        self._events = changes.new_events(evidence)
        self.first: Suspect | None = None
        """The suspect of the first cause; None if bad requests did not lead to this cause."""

    def answer(self) -> Answer:
        """Return the answer."""
        evidence = self._evidence
        self._resolve_processors()
        pairs = [(self._cause(suspect), suspect) for suspect in self.suspects]
        pairs.sort(key=lambda pair: -pair[0].impact)
        causes = [cause for cause, _ in pairs]
        over = bool(causes) and all(self._is_over(suspect) for suspect in self.suspects)
        causes += [cause for cause in self._alone() if not any(_same(cause, other) for other in causes)]
        self.first = pairs[0][1] if pairs and causes[0] is pairs[0][0] else None
        alerts = [alerting.told(one, evidence) for one in alerting.newest_first(evidence.alerts)]
        for cause in causes:
            cause.runbook = self._runbook(cause)
            cause.attributes = cause.attributes[:_MOST_ATTRIBUTES]
        state = "well"
        if causes:
            state = "over" if over and len(causes) == len(pairs) else "wrong"
        elif firing := [one for one in alerts if one["state"] == "firing"]:
            state = "over" if all(map(self._looks_back, firing)) else "unexplained"
        return Answer(
            state=state,
            at=_iso(evidence.at),
            since=_iso(evidence.since),
            causes=causes[:_MOST_CAUSES],
            alerts=alerts,
            notes=self._notes(causes, alerts),
            pair=self._pair(),
            not_looked_at=list(evidence.missing),
        )

    # --- causes that make requests bad

    def _cause(self, suspect: Suspect) -> Cause:
        place = suspect.place
        bad = list(suspect.bad.values())
        found = self._apart(bad)
        asked = [one for one in found if not attributes.is_result(one.key)]
        if place.service in self._busy and place.database:  # everything in it is slow, not only its statements
            own = [one for one in suspect.behind if one.place.service == place.service and not one.place.database]
            suspect.place = place = own[0].place if own else place
        elsewhere, results, because = self._elsewhere(suspect)
        place = elsewhere or place
        results += [
            Attribute(
                key=key, value=value, bad=count / max(len(bad), 1), service=place.service, operation=place.operation
            )
            for (key, value), count in sorted(suspect.errors.items(), key=lambda one: -one[1])
        ]
        findings = [
            one
            for one in self._findings
            if one.service == place.service or (place.database and one.service == signals.DATABASE)
        ]
        because += self._reasons(suspect, asked)
        because += [Reason(says=one.says, query=one.signal.query) for one in findings]
        independent = len(findings) > 0
        for event, rate, before in self._events:
            service, level, name, about = event
            if place.service in {service, about}:
                independent = True
                detail = f" ({about})" if about else ""
                because.append(
                    Reason(
                        says=f"{service} logs {name}{detail} ({level}) {rate:.2f} times a second; before {before:.2f}.",
                        query=self._evidence.query_of(event),
                    )
                )
        for seen in (self._gone, self._restarts, self._versions):
            if place.service in seen:
                independent = True
                because.append(seen[place.service])
        confidence = (1 - min(suspect.chance * 100, 0.5)) * (0.6 + 0.4 * self._share(suspect))
        kind = suspect.kind
        if any(one.signal.kind == "saturation" and one.signal.name == "processor" for one in findings):
            kind = "saturation"
        if any(one.key == "service.version" for one in asked[:1]):
            kind = "change"
        return Cause(
            service=place.service,
            operation=place.operation,
            kind=kind,
            attributes=[*asked, *results],
            confidence=round(min(1 - (1 - confidence) * (0.5 if independent else 1), 0.99), 2),
            impact=round(suspect.lost, 3),
            because=because,
        )

    def _elsewhere(self, suspect: Suspect) -> tuple[Place | None, list[Attribute], list[Reason]]:
        """If the caller, not the callee, is to blame for failed calls, return its place, attributes and reasons."""
        place = suspect.place
        caller = replace(place, service=place.caller, waits=False)
        misdirected = None if place.service in self._gone else changes.misdirected(suspect, self._before)
        if misdirected:
            says = f"{place.caller} calls {place.service} at {misdirected.key}={misdirected.value}, where it did not"
            says += " before, and nobody answers there."
            reason = Reason(says=says, query=suspect.queries[0] if suspect.queries else "")
            return caller, [misdirected], [reason]
        if on_the_way := self._lost_on_the_way(suspect):
            return caller, [], [on_the_way]
        return None, [], []

    def _lost_on_the_way(self, suspect: Suspect) -> Reason | None:
        """Return a reason if the network between two services is to blame.

        The called service may be the reason for the time before its span begins. But the network is the reason if its
        answer arrives late or never, or if calls do not reach a service that is well.
        """
        place, query = suspect.place, suspect.queries[0] if suspect.queries else ""
        if not place.waits or not place.caller:
            return None
        calls = [call for request in suspect.bad.values() for call in request.calls_of(place.caller, place.operation)]
        answered = [call for call in calls if call.answered]
        late = [call for call in answered if call.after > max(_LATE, _LATE_SHARE * (call.before + call.after))]
        lost = [call for call in answered if call.failed and not call.callee_failed and call.after >= 0]
        # Only calls that waited count. A refused connection fails at once, and means that nothing listens there.
        waited = suspect.failed and max((call.duration for call in calls), default=0) > _IN_VAIN
        if suspect.slow > suspect.failed and len(late) > len(calls) / 2:
            text = f"the answers of {len(late)} of {len(calls)} are long on their way, in the middle"
            text += f" {median(call.after for call in late) / 1e3:.0f} ms"
        elif suspect.failed and len(lost) > len(calls) / 4:
            text = f"{place.service} answered {len(lost)} of {len(calls)} well, and the answer was lost on its way"
        elif waited and not answered and self._is_well(place.service):
            text = f"none of {len(calls)} reached {place.service}, and by its own metrics that is well"
        else:
            return None
        return Reason(
            says=f"Of {place.caller}'s calls {place.operation}, {text}: the network between them.", query=query
        )

    def _is_well(self, service: str) -> bool:
        """Return whether a service's own metrics say that it is up, was not restarted, and lacks no resources."""
        told = any(one.labels.get("job") == service for one in self._evidence.up)
        lacks = any(one.service == service for one in self._findings)
        return told and not lacks and service not in self._gone and service not in self._restarts

    def _apart(self, bad: Sequence[Request]) -> list[Attribute]:
        """Compare bad requests with good ones of the same kind: those since the first bad one, or earlier ones."""
        if not bad:
            return []
        kinds = {request.journey for request in bad}
        first = min(request.root.start for request in bad)
        journeys = [journey for key, journey in self._evidence.journeys.items() if key in kinds]
        good = [
            request
            for journey in journeys
            for request in journey.now.requests
            if request.trace.trace_id not in self._blame.bad_ids
            and request.root.start >= first - 1e6
            and request.root.duration <= journey.threshold
            and not request.root.failed
        ]
        if len(good) >= normal.ENOUGH:
            return attributes.apart(bad, good)
        good = [
            request
            for journey in journeys
            for request in journey.usual
            if request.root.duration <= journey.threshold and not request.root.failed
        ]
        # All replicas may be new since then, so an instance id says nothing.
        return [one for one in attributes.apart(bad, good) if one.key != "service.instance.id"]

    def _share(self, suspect: Suspect) -> float:
        """Return the suspect's share of the time that users lose."""
        lost = sum(one.lost for one in self.suspects)
        return suspect.lost / lost if lost else 0.0

    def _reasons(self, suspect: Suspect, asked: Sequence[Attribute]) -> list[Reason]:
        place, query = suspect.place, suspect.queries[0] if suspect.queries else ""
        seconds = self._evidence.at - recent(self._evidence)
        found = []
        where = f"{place.service}'s {place.operation}"
        kinds = Counter(request.journey for request in suspect.bad.values())
        what = ", ".join(kind.name for kind, _ in kinds.most_common(3))
        if suspect.slow:
            if place.waits:
                text = f"the time goes between {place.caller}'s call {place.operation} and {place.service}"
            else:
                text = f"the time goes in {where} itself"
            found.append(
                Reason(
                    says=f"{suspect.slow} requests of the last {seconds:.0f} s are slow, and {text}:"
                    f" {suspect.excess / 1e3:.0f} ms longer than usual on the critical path ({what}).",
                    query=query,
                )
            )
        if suspect.failed:
            text = f"no answer of {place.service} to {place.operation}" if place.waits else f"in {where}"
            origins = [origin for request in suspect.bad.values() for origin in request.origins]
            if place.waits and any(one.unusable and one.peer == place.service for one in origins):
                text = f"in {place.caller}, which cannot use {place.service}'s answer to {place.operation}"
            errors = ", ".join(f"{key}={value}" for key, value in list(suspect.errors)[:2])
            said = f": {errors}" if errors else ""
            found.append(
                Reason(
                    says=f"{suspect.failed} requests of the last {seconds:.0f} s fail, and the failure begins"
                    f" {text}{said} ({what}); before {suspect.before}.",
                    query=suspect.queries[-1] if suspect.queries else "",
                )
            )
        if suspect.changed:
            status = Counter(request.status for request in suspect.bad.values()).most_common(1)[0][0]
            found.append(
                Reason(
                    says=f"{suspect.changed} requests are answered {status}, and fewer were before; the deepest span"
                    f" that differs is {where} ({what}).",
                    query=query,
                )
            )
        found += [
            Reason(
                says=f"{one.bad:.0%} of the bad have {one.key}={one.value} ({one.service}"
                f"{' ' + one.operation if one.operation else ''}), and {one.good:.0%} of the good.",
                query=query,
            )
            for one in asked[:3]
        ]
        found += [
            Reason(
                says=f"Requests also wait for {one.place.service}, which waits for this ({len(one.bad)} of them).",
                query=one.queries[0] if one.queries else query,
            )
            for one in suspect.behind
        ]
        return found

    def _resolve_processors(self) -> None:
        """Blame a service without processor time also for slow calls to it, and for its own slow calls."""
        for service in self._busy:
            those = [
                one
                for one in self.suspects
                if service in {one.place.service, one.place.caller if one.place.waits else ""} and one.slow
            ]
            own = [one for one in those if one.place.service == service]
            if not own or len(those) < 2:  # noqa: PLR2004
                continue
            first = max(own, key=lambda one: one.lost)
            for other in those:
                if other is not first:
                    first.take(other)
                    first.behind.append(other)
                    self.suspects.remove(other)
        callers = Counter(one.place.caller for one in self.suspects if one.place.waits and one.slow)
        for caller, count in callers.items():
            if count >= 2 and len({s.place.service for s in self.suspects if s.place.caller == caller}) >= 2:  # noqa: PLR2004
                those = [one for one in self.suspects if one.place.waits and one.place.caller == caller and one.slow]
                own = [one for one in self.suspects if one.place.service == caller and not one.place.waits]
                if own and own[0].lost >= max(one.lost for one in those):
                    for one in those:
                        own[0].take(one)
                        own[0].behind.append(one)
                        self.suspects.remove(one)

    # --- causes without bad requests

    def _alone(self) -> list[Cause]:
        evidence, found = self._evidence, list[Cause]()
        for job, no_answer in self._gone.items():
            if job in self._starting:
                continue
            kind = "telemetry" if changes.is_of_telemetry(job) else "errors"
            attribute = Attribute(key="up", value="0", bad=1, service=job)
            found.append(Cause(service=job, kind=kind, attributes=[attribute], confidence=0.9, because=[no_answer]))
        if reason := changes.gateway_gone(evidence):
            attribute = Attribute(key="gateway_up", value="0", bad=1, service="nginx")
            found.append(
                Cause(service="nginx", kind="errors", attributes=[attribute], confidence=0.95, because=[reason])
            )
        if skewed := changes.skewed(evidence, self._now, self._before):
            found.append(skewed)
        for one in self._findings:
            if one.signal.alone:
                reasons, operation = [Reason(says=one.says, query=one.signal.query)], one.signal.name
                if one.signal.name in _OF_SPANS and (many := changes.multiplied(evidence, self._before, one.service)):
                    operation = many[0]
                    reasons.append(many[1])
                attribute = Attribute(key=one.signal.name, value=f"{one.now:.3g}", bad=1, service=one.service)
                found.append(
                    Cause(
                        service=one.service,
                        operation=operation,
                        kind=one.signal.kind,
                        attributes=[attribute],
                        confidence=0.6,
                        because=reasons,
                    )
                )
        now = sum(journey.now.rate for journey in evidence.journeys.values())
        before = sum(journey.rate_before for journey in evidence.journeys.values())
        found += changes.flood(evidence, now, before)
        if "Jaeger" not in " ".join(evidence.missing):
            found += changes.silent(evidence, self._now, self._before)
        # A part of the telemetry that needs more memory comes last, because users do not feel it.
        found.sort(key=lambda one: one.kind == "saturation" and changes.is_of_telemetry(one.service))
        return found

    # --- everything except the causes

    def _looks_back(self, alert: dict[str, object]) -> bool:
        """Return whether an alert may fire for past trouble, because it looks further back than this analysis."""
        back = max((int(n) * _SECONDS[unit] for n, unit in _RANGE.findall(str(alert["query"]))), default=0)
        enough = len(self._now) >= _OVER_GOOD and not self._evidence.missing
        return enough and back > self._evidence.at - recent(self._evidence)

    def _is_over(self, suspect: Suspect) -> bool:
        """Return whether the last bad request is some time ago, and enough good ones of the same kind followed."""
        last = max((request.root.start for request in suspect.bad.values()), default=0) / 1e6
        if last > self._evidence.at - _OVER_SECONDS:
            return False
        kinds = {request.journey for request in suspect.bad.values()}
        good = [
            request
            for kind in kinds
            if kind in self._evidence.journeys
            for request in self._evidence.journeys[kind].now.requests
            if request.root.start / 1e6 > last and request.trace.trace_id not in self._blame.bad_ids
        ]
        return len(good) >= _OVER_GOOD and last + _OVER_SECONDS < self._evidence.at

    def _notes(self, causes: Sequence[Cause], alerts: Sequence[dict[str, object]]) -> list[Reason]:
        evidence, named = self._evidence, {cause.service for cause in causes}
        notes, told = list[Reason](), {reason.says for cause in causes for reason in cause.because}
        journeys = evidence.journeys.values()
        busiest = max(journeys, key=lambda one: len(one.now.requests), default=Journey())
        slowest = max(journeys, key=lambda one: len(one.slow_now.requests), default=Journey())
        if not self._now and not evidence.missing:
            query = next(iter(evidence.probes.values()), evidence.services_query)
            others = ", or of any other service" if evidence.probes else ", of no service"
            says = f"Nobody has asked the shop for anything: there is no trace of these minutes{others}."
            notes.append(Reason(says=says, query=query))
        elif self._now and not any(one.enough for one in self._blame.usual.values()):
            notes.append(
                Reason(
                    says="Too little was asked for before to say what is usual: only failures can be seen.",
                    query=next((one.query for one in busiest.before if one.query), busiest.now.query),
                )
            )
        back = {str(one["name"]): one for one in alerts if one["state"] == "firing" and self._looks_back(one)}
        for name, one in back.items() if not causes else ():
            says = f"{clean(name)} still fires: it looks back for longer than what was looked at, and that is well."
            notes.append(Reason(says=says, query=str(one["query"])))
        if self._blame.machine_is_busy and len(self._blame.jittery) > 1:
            notes.append(
                Reason(
                    says=f"Requests are slow now and then in {', '.join(sorted(self._blame.jittery))} alike:"
                    " the machine is busy. Only what has become several times as slow is named.",
                    query=slowest.slow_now.query,
                )
            )
        if self._blame.slower > SLOWER:
            notes.append(
                Reason(
                    says=f"Everything takes {self._blame.slower:.1f} times as long as before, evenly: the machine has"
                    " less time for it, or there is more load. That is taken out of what follows.",
                    query=busiest.now.query,
                )
            )
        for seen in (self._starting, self._restarts, self._versions):
            notes += [reason for service, reason in seen.items() if service not in named]
        notes += [
            Reason(says=one.says, query=one.signal.query)
            for one in self._findings
            if one.service not in named and not one.signal.alone and one.says not in told
        ]
        for event, rate, _ in self._events[:5]:
            if not {event[0], event[3]} & named:
                says = f"{event[0]} logs {event[2]} as {event[1]} {rate:.2f} times a second; before hardly ever."
                notes.append(Reason(says=says, query=evidence.query_of(event)))
        return notes

    def _pair(self) -> Pair | None:
        if not self.first or not self.first.bad:
            return None
        usual = Counter(request.status for request in self.first.bad.values()).most_common(1)[0][0]
        those = [request for request in self.first.bad.values() if request.status == usual]
        bad = sorted(those, key=lambda request: request.root.duration)[len(those) // 2]
        journey = self._evidence.journeys.get(bad.journey)
        if not journey:
            return None
        good = [
            request
            for request in (*journey.now.requests, *journey.usual)
            if request.trace.trace_id not in self._blame.bad_ids
            and request.root.duration <= journey.threshold
            and not request.root.failed
        ]
        if not good:
            return None
        alike = [request for request in good if (request.status == bad.status) == (self.first.kind == "latency")]
        good = alike or good
        middle = median(request.root.duration for request in good)
        best = min(good, key=lambda request: abs(request.root.duration - middle))
        rows = [
            {
                "service": row.service,
                "operation": row.name,
                "count": list(row.counts),
                "own_ms": [time / 1e3 for time in row.times],
                "errors": list(row.errors),
            }
            for row in compare(best.trace, bad.trace)
            if row.counts[0] != row.counts[1] or row.errors[0] != row.errors[1] or abs(row.change) >= 1000  # noqa: PLR2004
        ]
        traces = self._evidence.services_query.removesuffix("services") + "traces/"
        names = best.trace.trace_id, bad.trace.trace_id
        return Pair(bad=names[1], good=names[0], rows=rows[:_MOST_ROWS], queries=[traces + name for name in names])

    def _runbook(self, cause: Cause) -> str:
        """Return the runbook of an alert about this cause, else of any firing alert."""
        about = [one for one in self._evidence.alerts if cause.service in (one.get("labels") or {}).values()]
        newest = sorted(self._evidence.alerts, key=lambda one: str(one.get("activeAt")), reverse=True)
        for one in (*about, *newest):
            url = str((one.get("annotations") or {}).get("runbook_url", ""))
            if found := alerting.RUNBOOK.search(url) or alerting.RUNBOOK.search(f"docs/runbooks/{_name(one)}.md"):
                return found[0]
        for finding in self._findings:
            if finding.service == cause.service and finding.signal.name in _TABLES:
                return f"docs/runbooks/{_TABLES[finding.signal.name]}.md"
        return _NO_RUNBOOK


def diagnose(evidence: Evidence) -> Answer:
    """Analyse the evidence and return the answer."""
    return Diagnosis(evidence).answer()


def _findings(evidence: Evidence) -> list[Finding]:
    found = []
    begin = max(recent(evidence), evidence.at - 75)
    for signal, series in evidence.signals:
        for one in series:
            now = one.between(begin, evidence.at + 1)
            finding = signals.judge(signal, one.labels, now, one.between(evidence.before, evidence.since))
            if finding:
                found.append(finding)
    return found


def _same(cause: Cause, other: Cause) -> bool:
    return cause.service == other.service and (cause.kind != "telemetry" or cause.operation == other.operation)


def _name(alert: dict[str, object]) -> str:
    labels = alert.get("labels")
    return str(labels.get("alertname", "")) if isinstance(labels, dict) else ""


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
