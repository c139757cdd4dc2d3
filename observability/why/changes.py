"""Finds changes (restarts, versions, parts that are down) and problems of the telemetry itself."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from observability.why import signals
from observability.why.answer import Attribute, Cause, Reason
from observability.why.gather import recent
from observability.why.statistics import median

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from observability.why.evidence import Event, Evidence, Series
    from observability.why.requests import Request
    from observability.why.suspects import Place, Suspect

_TELEMETRY = frozenset(("embedded-backend", "collector", "jaeger", "loki", "alertmanager", "prometheus", "nginx"))
"""Prometheus' jobs that users do not need; `nginx` is the job of gateway-telemetry."""
_SKEW = 20_000
"""Microseconds by which a child may lie outside of its parent before its clock counts as wrong."""
_SHARE, _FEWEST = 0.5, 8
_FLOOD, _FLOOD_TIMES, _LINES_PER_REQUEST_TIMES = 20.0, 6.0, 4.0
_DOWN_SECONDS, _DOWN_POINTS = 45, 2
"""A part is down if its newest points of these seconds are 0. One alone, a single scrape, may be 0 by chance."""
_START_SECONDS = 120
"""Seconds after Prometheus' own start in which another part may not have been started yet."""
_OLD_SECONDS = 15
"""Seconds after Prometheus' own start in which a point may still have a value from before it."""
_SPANS_OF_ONE = 30


def gone(evidence: Evidence) -> dict[str, Reason]:
    """Return the parts that Prometheus cannot reach now, but reached at some time before."""
    found = {}
    for one in evidence.up:
        job = one.labels.get("job", "")
        # A part of the telemetry needs one point only, if a backend did not answer `make why` either.
        enough = 1 if _is_missed(job, evidence) else _DOWN_POINTS
        if any(one.between(evidence.before, evidence.at)) and not any(_newest(one, evidence)[-enough:]):
            found[job] = Reason(says=f"No replica of {job} answers Prometheus now.", query=signals.UP)
    return found


def gateway_gone(evidence: Evidence) -> Reason | None:
    """Return a reason if the gateway itself does not answer."""
    for one in evidence.gateway_up:
        values = _newest(one, evidence)
        if len(values) == _DOWN_POINTS and not any(values) and not _may_start(one, evidence):
            return Reason(says="The gateway does not answer its own health check.", query=signals.GATEWAY_UP)
    return None


def starting(evidence: Evidence) -> dict[str, Reason]:
    """Return the parts that have not answered yet since Prometheus was started, a moment ago.

    They may be down, or not started yet. After `make down` and `make up` Prometheus still has the values from before,
    so a part that is just being started looks like one that has just stopped.
    """
    found = {}
    for one in evidence.up:
        job = one.labels.get("job", "")
        if not _is_missed(job, evidence) and _may_start(one, evidence) and not any(_newest(one, evidence)):
            says = f"{job} has not answered Prometheus since that was started, a moment ago: it may still be starting."
            found[job] = Reason(says=says, query=signals.UP)
    return found


def _is_missed(job: str, evidence: Evidence) -> bool:
    """Return whether a part may be the reason why a backend did not answer `make why`."""
    return bool(evidence.missing) and is_of_telemetry(job)


def _newest(one: Series, evidence: Evidence) -> list[float]:
    return one.between(evidence.at - _DOWN_SECONDS, evidence.at + 1)[-_DOWN_POINTS:]


def _may_start(one: Series, evidence: Evidence) -> bool:
    started = [value for each in evidence.started if each.labels.get("job") == "prometheus" for _, value in each.points]
    start = max(started, default=0.0)
    return evidence.at - start < _START_SECONDS and not any(one.between(start + _OLD_SECONDS, evidence.at))


def restarts(evidence: Evidence) -> dict[str, Reason]:
    """Return the services that were started since the trouble may have begun."""
    begin = recent(evidence)
    found: dict[str, Reason] = {}
    starts: dict[str, set[float]] = defaultdict(set)
    for one in evidence.started:
        starts[one.labels.get("job", "")] |= {value for _, value in one.points}
    for job, times in starts.items():
        late = [time for time in times if begin - 60 <= time <= evidence.at]
        if late and len(times) > len(late):
            ago = evidence.at - max(late)
            often = f"{len(late)} times, last " if len(late) > 1 else ""
            found[job] = Reason(says=f"{job} was started anew {often}{ago:.0f} s ago.", query=signals.STARTED)
    return found


def versions(evidence: Evidence, now: Iterable[Request], before: Iterable[Request]) -> dict[str, Reason]:
    """Return the services that run a version now that they did not run before."""
    seen_now, seen_before = _versions(now), _versions(before)
    found = {}
    for service, those in seen_now.items():
        new = those - seen_before.get(service, those)
        if new:
            had = ", ".join(sorted(seen_before[service]))
            found[service] = Reason(
                says=f"{service} runs version {', '.join(sorted(new))} now; before {had}.",
                query=evidence.probes.get(service, ""),
            )
    return found


def skewed(evidence: Evidence, now: list[Request], before: list[Request]) -> Cause | None:
    """Return the service whose clock is wrong: its spans begin before their parent, or after it has ended."""

    def offsets(those: list[Request]) -> dict[str, list[float]]:
        found: dict[str, list[float]] = defaultdict(list)
        for request in those:
            spans = {span.span_id: span for span in request.trace.spans}
            for span in request.trace.spans:
                above = spans.get(span.parent_id)
                if above is not None and above.service != span.service:
                    early = above.start - span.start
                    late = span.start - (above.start + above.duration) if not above.failed else 0
                    found[span.service].append(max(early, late, 0))
        return found

    usual = offsets(before)
    worst: tuple[float, str] | None = None
    for service, found in offsets(now).items():
        off = [each for each in found if each > _SKEW]
        often_before = [each for each in usual.get(service, ()) if each > _SKEW]
        if len(off) < max(_FEWEST, _SHARE * len(found)) or len(often_before) > _SHARE * len(usual.get(service, ())):
            continue
        worst = max(worst or (0, ""), (len(off) / len(found) * median(off), service))
    if not worst:
        return None
    service = worst[1]
    amount = median(each for each in offsets(now)[service] if each > _SKEW) / 1e6
    return Cause(
        service=service,
        operation="clock",
        kind="telemetry",
        attributes=[Attribute(key="clock.offset_s", value=f"{amount:.3f}", bad=1, service=service)],
        confidence=0.9,
        because=[
            Reason(
                says=f"Spans of {service} begin {amount:.2f} s before those that called them, or after these ended:"
                " its clock is off. Times within its traces are wrong.",
                query=evidence.probes.get(service, ""),
            )
        ],
    )


def flood(evidence: Evidence, requests_now: float, requests_before: float) -> list[Cause]:
    """Return the log events that became many times as frequent, while requests did not."""
    more = max(requests_now / requests_before, 1) if requests_before else 1.0
    found = []
    for event, rate in evidence.events_now.items():
        before = evidence.events_before.get(event, 0.0)
        if rate < _FLOOD or rate < before * _FLOOD_TIMES * more:
            continue
        if requests_now and rate < requests_now * _LINES_PER_REQUEST_TIMES:
            continue
        service, _, name, _ = event
        found.append(
            Cause(
                service=service,
                operation="logs",
                kind="telemetry",
                attributes=[Attribute(key="event", value=name, bad=1, service=service)],
                confidence=0.7,
                because=[
                    Reason(
                        says=f"{service} logs {name} {rate:.0f} times a second; before {before:.1f} times.",
                        query=evidence.query_of(event),
                    )
                ],
            )
        )
    return found


def silent(evidence: Evidence, now: list[Request], before: list[Request]) -> list[Cause]:
    """Return the services whose spans are missing although calls to them succeeded."""
    found = []
    usual = dict(_answered(before))
    for (caller, name, service), (missing, of) in _answered(now).items():
        was, was_of = usual.get((caller, name, service), (0, 0))
        if of >= _FEWEST and missing / of > 0.2 and (not was_of or was / was_of < 0.02):  # noqa: PLR2004
            found.append(
                Cause(
                    service=service,
                    operation=name,
                    kind="telemetry",
                    attributes=[Attribute(key="spans missing", value=f"{missing / of:.0%}", bad=missing / of)],
                    confidence=0.7,
                    because=[
                        Reason(
                            says=f"{missing} of {of} calls of {caller} to {service} ({name}) were answered well, and"
                            f" {service} has no span of them; before {was} of {was_of}.",
                            query=evidence.probes.get(caller, ""),
                        )
                    ],
                )
            )
    return found


def misdirected(suspect: Suspect, before: Iterable[Request]) -> Attribute | None:
    """Return the address of failed calls if all go to one that was not called before. Then the caller is to blame."""
    place = suspect.place
    called = Counter(one for request in suspect.bad.values() for one in _addresses(request, place))
    usual = {one for request in before for one in _addresses(request, place)}
    if not place.caller or not suspect.failed or not called or not usual or usual & called.keys():
        return None
    [((host, port), count)] = called.most_common(1)
    key, value = ("server.port", port) if any(host == other for other, _ in usual) else ("server.address", host)
    return Attribute(key=key, value=value, bad=count / called.total(), service=place.caller, operation=place.operation)


def _addresses(request: Request, place: Place) -> set[tuple[str, str]]:
    return {
        (str(span.tags["server.address"]), str(span.tags.get("server.port", "")))
        for span in request.trace.spans
        if (span.service, span.name, span.kind) == (place.caller, place.operation, "client")
        and "server.address" in span.tags
    }


def multiplied(evidence: Evidence, before: Sequence[Request], service: str) -> tuple[str, Reason] | None:
    """Return the operation of a service that has many spans in a request, and many times as many as before."""
    now = [request for journey in evidence.journeys.values() for request in journey.now.requests] + evidence.probed
    counts, usual = _spans_of(now, service), _spans_of(before, service)
    if not counts:
        return None
    name, count = counts.most_common(1)[0]
    each = count / max(sum(service in request.services for request in now), 1)
    was = usual[name] / max(sum(service in request.services for request in before), 1)
    if each < _SPANS_OF_ONE or each < _FLOOD_TIMES * was:
        return None
    says = f"A request has {each:.0f} spans of {service}'s {name}; before {was:.1f}."
    return name, Reason(says=says, query=evidence.probes.get(service, ""))


def _spans_of(those: Sequence[Request], service: str) -> Counter[str]:
    return Counter(span.name for request in those for span in request.trace.spans if span.service == service)


def new_events(evidence: Evidence) -> list[tuple[Event, float, float]]:
    """Return the events of warnings and errors that are new, or many times as frequent as before."""
    found = []
    for event, rate in evidence.events_now.items():
        before = evidence.events_before.get(event, 0.0)
        count = rate * (evidence.at - recent(evidence))
        if event[1] in {"warning", "error", "critical"} and count >= 3 and rate > 4 * before:  # noqa: PLR2004
            found.append((event, rate, before))
    return sorted(found, key=lambda one: -one[1])


def is_of_telemetry(job: str) -> bool:
    """Return whether this part belongs to the telemetry, so that users do not need it."""
    return job in _TELEMETRY


def _versions(those: Iterable[Request]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for request in those:
        for span in request.trace.spans:
            if "service.version" in span.resource:
                found[span.service].add(str(span.resource["service.version"]))
    return found


def _answered(those: list[Request]) -> dict[tuple[str, str, str], tuple[int, int]]:
    of: Counter[tuple[str, str, str]] = Counter()
    missing: Counter[tuple[str, str, str]] = Counter()
    for request in those:
        for span in request.trace.spans:
            if span.kind == "client" and "peer.service" in span.tags and not span.failed:
                key = (span.service, span.name, str(span.tags["peer.service"]))
                of[key] += 1
                missing[key] += not request.children.get(span.span_id)
    return {key: (missing[key], count) for key, count in of.items()}
