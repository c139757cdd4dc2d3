"""Finds the operation that made each request bad, and the operations that do so more often than before."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from observability.story.text import clean
from observability.why import normal
from observability.why.attributes import apart, is_result
from observability.why.gather import SLICES, recent
from observability.why.statistics import adjusted, fisher, mean, median
from observability.why.suspects import Place, Suspect, together

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from observability.why.evidence import Evidence, Journey, Sample
    from observability.why.normal import Normal
    from observability.why.requests import Operation, Origin, Request

FAILURE_SECONDS = 3.0
"""Seconds that a failed request counts as, in addition to the extra time that it took."""
HALF_FAILURE_SECONDS = 1.0
"""The least seconds that a request counts as if it succeeded although a part of it failed, such as an unpaid order."""
_AS_BAD = 0.4
_SURE = 3e-4
_FEWEST = 4
_APART = 3.0
"""A slow service is the cause only if its share of slow requests is this many times that of the others. On a busy
machine its extra time has to be so, too."""
_SLOW_SHARE = 0.02
"""The share of a journey's requests below which slow ones count as chance."""
_LEAST_WEIGHT = 5000
"""Microseconds of extra time, on average over a journey's requests, below which slow ones count as chance."""
_TIMES_AS_MANY = 3.0
_TIMES_AS_SLOW = 3.0
"""How many times its usual time the extra time has to be, if the place was slow nearly as often in an earlier slice, or
if the machine is busy."""
_MANY = 0.2
"""The share of failed requests that counts as unusual even if there is nothing to compare with."""
_JITTERY, SLOWER = 3, 1.5
"""The machine is busy if this many services became slow at once, or if everything is this many times as slow."""
_SHIFT_SURE, _SHIFT, _SHIFT_TIMES, _SHIFT_OF = 1e-4, 0.1, 2.5, 20
_SQLSTATE = re.compile(r"[0-9A-Z]{5}")
_LEAST_MICROSECONDS = 20_000
_REFUSED = 400


@dataclass
class _Tally:
    """The requests that one place made bad in one way, now and before."""

    place: Place
    how: str
    now: dict[str, Request] = field(default_factory=dict)
    before: list[float] = field(default_factory=lambda: [0.0] * SLICES)
    """Their number in each slice of the time before; estimated if a search did not return all traces."""
    seconds_now: float = 0.0
    excess: list[float] = field(default_factory=list)
    ratio: list[float] = field(default_factory=list)
    """For each request, the service's extra time divided by its usual time."""
    lost: list[float] = field(default_factory=list)
    errors: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    query: str = ""


class Blame:
    """Finds the suspects among the places that made requests bad.

    Args:
        evidence: The results of the backends' queries.
        busy: Services that are slow in everything, because they lack processor time or collect garbage.
    """

    def __init__(self, evidence: Evidence, busy: Collection[str] = ()) -> None:
        self._evidence, self._busy = evidence, set(busy)
        self.usual: dict[Operation, Normal] = {
            key: normal.normal(journey) for key, journey in evidence.journeys.items()
        }
        self.slower = normal.pace(evidence.journeys, self.usual)
        self._length = max((evidence.since - evidence.before) / SLICES, 1)
        self._tallies: dict[tuple[Place, str], _Tally] = {}
        self.jittery: dict[str, float] = {}
        """Services with more slow requests than before, and how much slower they are."""
        self.bad_ids: set[str] = set()
        """Ids of all bad traces, also of insignificant ones, so that they are not used as good examples."""

    def suspects(self) -> list[Suspect]:
        """Return the places that make more requests bad than before."""
        self._failures()
        self._slow()
        self._shifts()
        tallies = [tally for tally in self._tallies.values() if len(tally.now) >= _FEWEST]
        tests = [self._test(tally) for tally in tallies]
        chances = adjusted([chance for chance, _ in tests])
        new = [tally for tally in self._slow_ones() if self._is_new(tally)]
        even, even_of_new = self._even(self._slow_ones()), self._even(new)
        for tally, chance, (_, times) in zip(tallies, chances, tests, strict=True):
            if tally.how == "slow" and chance <= _SURE and times >= _TIMES_AS_MANY:
                service = tally.place.service
                self.jittery[service] = max(self.jittery.get(service, 0), self._weight(tally))
        found: dict[Place, Suspect] = {}
        for tally, chance, (_, times) in zip(tallies, chances, tests, strict=True):
            alike = even_of_new if tally in new else even
            if tally.how == "slow" and (self._is_chance(tally) or tally.place.service in alike):
                continue
            if chance > _SURE or times < _TIMES_AS_MANY:
                continue
            if tally.how == "slow" and median(tally.ratio) < _TIMES_AS_SLOW and not self._is_new(tally):
                continue  # a long computation is sometimes a little slower on a machine with other work
            if self.machine_is_busy and tally.how == "slow" and not self._stands_out(tally):
                continue
            suspect = self._suspect(tally, chance)
            if tally.place in found:
                found[tally.place].take(suspect)
            else:
                found[tally.place] = suspect
        return together(list(found.values()), dead=self._database_is_dead(found.values()))

    @property
    def machine_is_busy(self) -> bool:
        """Whether several services became slow at once, or all of them to the same degree."""
        return len(self.jittery) >= _JITTERY or self.slower > SLOWER

    def _stands_out(self, tally: _Tally) -> bool:
        """Return whether it costs far more than other services, which are also slow on a busy machine."""
        if self._busy & {tally.place.service, tally.place.caller}:
            return True  # the service itself uses up its processor
        others = [weight for service, weight in self.jittery.items() if service != tally.place.service] or [0]
        return self._weight(tally) >= _APART * median(others) and median(tally.ratio) >= _TIMES_AS_SLOW

    def _is_chance(self, tally: _Tally) -> bool:
        """Return whether so few requests are slow, or by so little, that users do not feel it."""
        return self._share(tally) < _SLOW_SHARE or self._weight(tally) < _LEAST_WEIGHT

    def _weight(self, tally: _Tally) -> float:
        """Return the extra time that it causes, on average over all requests."""
        return self._share(tally) * median(tally.excess)

    def _database_is_dead(self, suspects: Iterable[Suspect]) -> bool:
        """Return whether no statement has succeeded since statements began to fail."""
        failed = [request for one in suspects if one.place.database and one.failed for request in one.bad.values()]
        if not failed:
            return False
        first = min(request.root.start for request in failed)
        asked = [request for journey in self._evidence.journeys.values() for request in journey.now.requests]
        statements = [
            span
            for request in asked
            for span in request.trace.spans
            if "db.system.name" in span.tags and span.start > first
        ]
        return sum(not span.failed for span in statements) <= 0.1 * len(statements)

    def _suspect(self, tally: _Tally, chance: float) -> Suspect:
        rate = len(tally.now) / max(tally.seconds_now, 1)
        return Suspect(
            place=tally.place,
            bad=dict(tally.now),
            rate=rate,
            lost=rate * mean(tally.lost),
            failed=len(tally.now) if tally.how == "failed" else 0,
            slow=len(tally.now) if tally.how == "slow" else 0,
            changed=len(tally.now) if tally.how == "changed" else 0,
            chance=chance,
            excess=median(tally.excess),
            errors=dict(tally.errors),
            queries=[tally.query] if tally.query else [],
            before=round(sum(tally.before)),
        )

    def _test(self, tally: _Tally) -> tuple[float, float]:
        """Return the probability that the increase is chance, and the ratio of the bad shares now and before."""
        journeys = {request.journey for request in tally.now.values()}
        known = [self._evidence.journeys[one] for one in journeys if one in self._evidence.journeys]
        now = sum(journey.now.rate for journey in known) * tally.seconds_now
        hits, of = len(tally.now), max(round(now), len(tally.now))
        asked = [self._asked(journeys, index) for index in range(SLICES)]
        # The trouble may have begun earlier, so the last slices before it are left out if they are as bad.
        first = SLICES
        while first > 2 and tally.before[first - 1] >= _AS_BAD * hits / max(of, 1) * max(asked[first - 1], 1):  # noqa: PLR2004
            first -= 1
        parts = [part for part in zip(asked[:first], tally.before[:first], strict=True) if part[0]]
        # The worst slices are left out, because an earlier outage is not usual.
        parts.sort(key=lambda part: part[1] / part[0])
        parts = parts[: len(parts) - (len(parts) + 1) // 4]
        before, others = sum(part[0] for part in parts), sum(part[1] for part in parts)
        if before < normal.ENOUGH:  # nothing to compare with: count only failures that users saw, or frequent ones
            felt = tally.how == "failed" and (
                hits > _MANY * of or all(request.root.failed for request in tally.now.values())
            )
            return (1e-6, float("inf")) if felt else (1.0, 0.0)
        other_of = max(round(before), round(others))
        share, other = hits / of, others / other_of
        return fisher(hits, of, round(others), other_of), share / other if other else float("inf")

    def _slow_ones(self) -> list[_Tally]:
        return [tally for tally in self._tallies.values() if tally.how == "slow" and tally.now]

    def _is_new(self, tally: _Tally) -> bool:
        """Return whether the bad share is so many times that of the worst earlier slice.

        On a machine that was busy before, some earlier slice is about as bad.
        """
        journeys = {request.journey for request in tally.now.values()}
        asked = [self._asked(journeys, index) for index in range(SLICES)]
        worst = max(count / max(of, 1) for count, of in zip(tally.before, asked, strict=True))
        return self._share(tally) >= _TIMES_AS_MANY * worst

    def _asked(self, journeys: Iterable[Operation], index: int) -> float:
        """Return the number of requests of these kinds in a slice of the time before."""
        known = [self._evidence.journeys[one] for one in journeys if one in self._evidence.journeys]
        return sum(journey.before[index].rate for journey in known) * self._length

    def _even(self, slow: Iterable[_Tally]) -> set[str]:
        """Return the services that are not much slower than most others.

        On a machine that is busy with other work, all services have some slow requests, and none is the cause. Services
        that use up their own processor are not returned.
        """
        seen = {service for journey in self._evidence.journeys.values() for one in journey.now.requests[:20]
                for service in one.services if service != one.root.service}  # fmt: skip
        shares = dict.fromkeys(seen, 0.0)
        for tally in slow:
            shares[tally.place.service] = max(shares.get(tally.place.service, 0), self._share(tally))
        found = set()
        for service, share in shares.items():
            others = sorted(other for name, other in shares.items() if name != service)
            if len(others) > 1 and share < _APART * others[(len(others) - 1) // 2] and service not in self._busy:
                found.add(service)
        return found

    def _share(self, tally: _Tally) -> float:
        """Return the share of bad requests in the journey that has the highest share."""
        counts: dict[Operation, int] = defaultdict(int)
        for request in tally.now.values():
            counts[request.journey] += 1
        rates = {one: self._evidence.journeys[one].now.rate for one in counts if one in self._evidence.journeys}
        return max((counts[one] / max(tally.seconds_now * rate, 1) for one, rate in rates.items()), default=0.0)

    def _slice(self, request: Request) -> int:
        """Return the index of the slice of the time before in which a request began."""
        return min(max(int((request.root.start / 1e6 - self._evidence.before) / self._length), 0), SLICES - 1)

    def _tally(self, place: Place, how: str) -> _Tally:
        return self._tallies.setdefault((place, how), _Tally(place, how))

    # --- failed

    def _failures(self) -> None:
        evidence = self._evidence
        for service, found in evidence.failed_now.items():
            for sample in [found] if found.seconds >= evidence.at - recent(evidence) - 1 else self._newest(found):
                for request, origin, place in self._failed_of(service, sample.requests):
                    tally = self._tally(place, "failed")
                    tally.now[request.trace.trace_id] = request
                    tally.seconds_now = max(tally.seconds_now, sample.seconds)
                    tally.query = found.query
                    tally.errors[_error_key(origin), origin.error] += 1
                    tally.lost.append(self._lost(request))
                    self.bad_ids.add(request.trace.trace_id)
        for service, sample in evidence.failed_before.items():
            if self._is_whole(sample):
                for request, _, place in self._failed_of(service, sample.requests):
                    self._tally(place, "failed").before[self._slice(request)] += 1
                continue
            for journey in evidence.journeys.values():
                for index, part in enumerate(journey.before):
                    for _, _, place in self._failed_of(service, part.requests):
                        self._tally(place, "failed").before[index] += self._stands_for(part)

    def _newest(self, found: Sample) -> list[Sample]:
        """Return the newest requests of each kind, for the case that there are too many failed ones to fetch all.

        Otherwise failed background work, which may be more frequent, would hide the failed requests of users.
        """
        journeys = [journey.now for journey in self._evidence.journeys.values()]
        failed = any(span.failed for sample in journeys for one in sample.requests for span in one.trace.spans)
        return journeys if failed else [found]

    def _is_whole(self, sample: Sample) -> bool:
        """Return whether a search in the time before returned all traces."""
        return sample.seconds >= SLICES * self._length - 1

    def _stands_for(self, part: Sample) -> float:
        """Return how many requests of its slice each request of a sample represents."""
        return part.rate * self._length / max(len(part.requests), 1)

    def _failed_of(self, service: str, those: Sequence[Request]) -> Iterable[tuple[Request, Origin, Place]]:
        """Return the failures that began at this service, so that each failure is counted in only one sample."""
        for request in those:
            origins = request.origins[:1] if request.root.failed else request.origins
            for origin in origins:
                if is_mistake(request.status) and is_mistake(origin.error):
                    continue  # client errors are counted by status, relative to all requests
                if origin.operation.service == service:
                    yield request, origin, self._place(request, origin)

    def _place(self, request: Request, origin: Origin) -> Place:
        one = origin.operation
        if (origin.unanswered or origin.unusable) and origin.peer:
            return Place(origin.peer, one.name, waits=True, caller=one.service)
        if self._is_gateways(request, origin) and (missing := self._usually_below(request)):
            return Place(missing.service, missing.name, waits=True, caller=one.service)
        if one in request.edges and (found := self._slowest(request, 0)):  # the caller timed out: blame what was slow
            return found[0][0]
        if one.kind == "client" and origin.peer:
            return Place(origin.peer, one.name, waits=True, caller=one.service)
        return Place(one.service, one.name, database=is_database(request, one))

    @staticmethod
    def _is_gateways(request: Request, origin: Origin) -> bool:
        """Return whether the gateway got no answer; then the service that it usually calls is to blame."""
        alone = origin.operation == request.journey and not request.children.get(request.root.span_id)
        return alone and (origin.unanswered or origin.error == "503")

    def _usually_below(self, request: Request) -> Operation | None:
        journey = self._evidence.journeys.get(request.journey)
        if not journey:
            return None
        for other in [*journey.usual, *journey.now.requests]:
            below = other.children.get(other.root.span_id)
            if below and not other.root.failed:
                first = below[0]
                return type(other.journey)(first.service, first.name, first.kind)
        return None

    def _lost(self, request: Request) -> float:
        usual = self.usual.get(request.journey)
        longer = max(request.root.duration - (usual.duration if usual else 0), 0) / 1e6
        if request.root.failed:
            return FAILURE_SECONDS + min(longer, FAILURE_SECONDS)
        return max(min(longer, 2 * FAILURE_SECONDS) if usual and usual.enough else 0.0, HALF_FAILURE_SECONDS)

    # --- slow

    def _slow(self) -> None:
        evidence = self._evidence
        for journey in evidence.journeys.values():
            for request in journey.slow_now.requests:
                self.bad_ids.add(request.trace.trace_id)
                if request.root.failed:
                    continue
                for place, longer in self._slowest(request, journey.threshold):
                    tally = self._tally(place, "slow")
                    tally.now[request.trace.trace_id] = request
                    tally.seconds_now = max(tally.seconds_now, journey.slow_now.seconds)
                    tally.query = journey.slow_now.query
                    tally.excess.append(longer)
                    tally.ratio.append(longer / max(self._usual_of(request, place), 1))
                    tally.lost.append(min(longer / 1e6, 2 * FAILURE_SECONDS))
            if self._is_whole(journey.slow_before):
                seen = [(request, self._slice(request), 1.0) for request in journey.slow_before.requests]
            else:
                seen = [
                    (request, index, self._stands_for(part))
                    for index, part in enumerate(journey.before)
                    for request in part.requests
                    if request.root.duration >= journey.threshold
                ]
            for request, index, weight in seen:
                for place, _ in self._slowest(request, journey.threshold) if not request.root.failed else ():
                    self._tally(place, "slow").before[index] += weight

    def _excess(self, request: Request) -> dict[Place, float]:
        """Return the extra time of each place compared with its usual time, in microseconds."""
        usual = self.usual.get(request.journey)
        if not usual or not usual.enough:
            return {}
        edges, found = request.edges, dict[Place, float]()
        for one, own in request.own.items():
            longer = own - usual.own.get(one, 0) * self.slower
            if one in edges:
                place = Place(edges[one] or one.service, one.name, waits=True, caller=one.service)
            else:
                place = Place(one.service, one.name, database=is_database(request, one))
            found[place] = found.get(place, 0) + longer
        return found

    def _usual_of(self, request: Request, place: Place) -> float:
        """Return the usual time of a request in a service, or in calls to it, in microseconds."""
        usual = self.usual[request.journey].own
        return sum(
            usual.get(one, 0) * self.slower
            for one in request.own
            if (request.edges.get(one, "") or one.service if place.waits else one.service) == place.service
            and (one in request.edges) == place.waits
        )

    def _slowest(self, request: Request, threshold: float) -> list[tuple[Place, float]]:
        """Return the slowest place of the service with the most extra time, and that service's extra time.

        If the request would be slow even without it, a second place follows, and so on.
        """
        excess = {place: longer for place, longer in self._excess(request).items() if longer > 0}
        by_service: dict[tuple[str, bool], float] = defaultdict(float)
        for place, longer in excess.items():
            by_service[place.service, place.waits] += longer
        found, left = list[tuple[Place, float]](), float(request.root.duration)
        for worst in sorted(by_service, key=lambda one: -by_service[one]):
            if by_service[worst] < _LEAST_MICROSECONDS or (found and left < threshold):
                break
            places = (place for place in excess if (place.service, place.waits) == worst)
            found.append((max(places, key=lambda place: excess[place]), by_service[worst]))
            left -= by_service[worst]
        return found

    # --- other statuses than before

    def _shifts(self) -> None:
        for journey in self._evidence.journeys.values():
            now, before = _statuses(journey.now.requests), _statuses(journey.usual)
            of, other_of = len(journey.now.requests), len(journey.usual)
            if of < normal.ENOUGH or other_of < _SHIFT_OF:
                continue
            for status, those in now.items():
                if not status.isdigit() or int(status) < _REFUSED:
                    continue
                those = [one for one in those if not one.root.failed]  # noqa: PLW2901
                others = len(before.get(status, ()))
                share, other = len(those) / of, others / other_of
                sure = fisher(len(those), of, others, other_of) < _SHIFT_SURE
                if not sure or share - other < _SHIFT or share < other * _SHIFT_TIMES:
                    continue
                self._shift(journey, those)

    def _shift(self, journey: Journey, those: Sequence[Request]) -> None:
        """Blame the deepest span whose result differs from that in the other requests."""
        alike = [one for one in (*journey.now.requests, *journey.usual) if one.status != those[0].status]
        place, error = _deepest_difference(those, alike)
        tally = self._tally(place, "changed")
        tally.now |= {request.trace.trace_id: request for request in those}
        for index, part in enumerate(journey.before):
            same = sum(request.status == those[0].status for request in part.requests)
            tally.before[index] += same * self._stands_for(part)
        tally.seconds_now = max(tally.seconds_now, journey.now.seconds)
        tally.query = journey.now.query
        tally.errors[error] += len(those)
        tally.lost += [FAILURE_SECONDS] * len(those)
        self.bad_ids |= tally.now.keys()


def is_mistake(status: str) -> bool:
    """Return whether a status means a client error."""
    return status.startswith("4") and len(status) == 3  # noqa: PLR2004


def is_database(request: Request, one: Operation) -> bool:
    """Return whether an operation is a database statement."""
    return any("db.system.name" in span.tags and (span.service, span.name) == one[:2] for span in request.trace.spans)


def _statuses(those: Iterable[Request]) -> Mapping[str, list[Request]]:
    found: dict[str, list[Request]] = defaultdict(list)
    for request in those:
        found[request.status].append(request)
    return found


def _error_key(origin: Origin) -> str:
    return "db.response.status_code" if _SQLSTATE.fullmatch(origin.error) else "error.type"


def _deepest_difference(those: Sequence[Request], alike: Sequence[Request]) -> tuple[Place, tuple[str, str]]:
    root = those[0].root
    found = [
        one
        for one in apart(those, alike)
        if is_result(one.key) and one.bad > 0.8 and one.good < 0.2 and one.operation  # noqa: PLR2004
    ]
    depths = {(span.service, span.name): place.depth for span, place in those[0].trace.tree()}
    if not found:
        deepest = max(depths, key=lambda one: depths[one]) if len(depths) <= 2 else (root.service, root.name)  # noqa: PLR2004
        return Place(*deepest), ("http.response.status_code", clean(those[0].status))
    one = max(found, key=lambda each: (depths.get((each.service, each.operation), 0), each.bad - each.good))
    return Place(one.service, one.operation), (one.key, one.value)
