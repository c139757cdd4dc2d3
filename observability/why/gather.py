"""Queries Jaeger, Loki and Prometheus in parallel, and continues if one of them does not answer."""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

from local.errors import LocalError
from observability.story import backends
from observability.story.asking import Limits, limits
from observability.story.errors import StoryError
from observability.story.spans import parse
from observability.story.window import Window
from observability.why import alerting, normal, requests, signals
from observability.why.evidence import Evidence, Journey, Sample, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from observability.story.apis import Jaeger, Loki, Prometheus
    from observability.why.evidence import Event
    from observability.why.requests import Operation, Request

    Said = Callable[[str], None]

NOW_SECONDS = 120.0
BEFORE_SECONDS = 900.0
_LONGEST = 3600.0
_OLDEST_ALERT = 1200.0
"""Seconds. An alert that has been active for longer, such as one on a budget, is no sign of when the trouble began."""
_ASKED, _ENOUGH_BEFORE = "http_server_request_duration_seconds_count", 50
SLICES = 8
"""The number of slices of the time before. There are several, so that trouble in one does not count as usual."""
_PROBE, _PER_JOURNEY, _PER_SLICE, _BAD = 40, 80, 12, 60
_ENOUGH_OF_SLICES = 3 * _PER_SLICE
_MOST_JOURNEYS = 16
_MOST_ALERTS, _MOST_MEASURES = 5, 6
_STEP = 15
_EVENT_SECONDS, _BAD_EVENT_SECONDS = 30, 120
SECONDS, PATIENCE, PATIENCE_EACH = 7.0, 6.0, 2.5
"""The time limit for all queries, the seconds after which none is sent, and the time limit of each.

With the analysis, the answer then comes within ten seconds.
"""
_MAX_ANSWER = 8 * 1024 * 1024
_FAILURES, _SILENT, _FEW = 5, 2, 3
_WORKERS = 4
_DETAILS = ("dependency", "exception_type", "sqlstate", "reason", "error_type")
_T = TypeVar("_T")


class NotAsked(StoryError):
    """A recording does not have this answer, because time was up before the query was sent."""


@dataclass
class Backends:
    """The backends' addresses, and which of their queries failed."""

    jaeger: Jaeger
    loki: Loki
    prometheus: Prometheus
    missing: dict[str, str] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    answered: set[str] = field(default_factory=set)
    """The backends that have answered a query."""
    deadline: float = float("inf")
    clock: Callable[[], float] = time.time
    """Returns the current time; for a recording, the time at which it was made."""

    def attempt(self, who: str, make: Callable[[], _T], otherwise: _T) -> _T:
        """Send a query and return its result; return `otherwise` if it fails or the backend has failed too often."""
        if self.failures[who] >= (_FAILURES if who in self.answered else _SILENT):
            return otherwise
        if time.monotonic() > self.deadline:
            self.missing[f"{who} (time was up)"] = f"Not all of {who} was asked: it took too long."
            return otherwise
        try:
            answer = make()
        except NotAsked as error:
            self.missing[f"{who} (time was up)"] = str(error)
        except LocalError as error:
            self.failures[who] += 1
            self.missing[who] = str(error)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:  # not this API's form
            self.failures[who] += 1
            self.missing[who] = f"{who} gives an answer that makes no sense ({type(error).__name__})."
        else:
            self.answered.add(who)
            return answer
        return otherwise


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Limit the time of all queries and the size of their results. A timeout does not exclude a backend afterwards."""
    before = limits.set(Limits(time.monotonic() + seconds, _MAX_ANSWER, silent=None))
    try:
        yield
    finally:
        limits.reset(before)


class _Workers(ThreadPoolExecutor):
    """Threads with the same time and size limits as the thread that started them."""

    def submit(self, fn: Callable[..., _T], /, *args: Any, **options: Any) -> Future[_T]:
        """See ThreadPoolExecutor."""
        return super().submit(copy_context().run, fn, *args, **options)


def gather(
    apis: Backends, at: float, since: float | None, said: Said = lambda _: None, patience: float = PATIENCE
) -> Evidence:
    """Query the backends for all evidence.

    Args:
        apis: The backends.
        at: The time to analyse, in seconds since 1970.
        since: The time since which there may be trouble; by default two minutes before `at`, or the first alert.
        said: Is called with a description of each step.
        patience: Seconds after which no query is sent.
    """
    apis.deadline = time.monotonic() + patience
    said("asking Prometheus for alerts")
    alerts = apis.attempt("Prometheus", lambda: _alerts(apis, at), list[dict[str, Any]]())
    begin = max(since if since is not None else _begin(apis, at, alerts), at - _LONGEST)
    evidence = Evidence(at=at, since=begin, before=begin - BEFORE_SECONDS, alerts=alerts)
    with _Workers(_WORKERS) as workers:
        metrics = workers.submit(_metrics, apis, evidence)
        events = workers.submit(_events, apis, evidence)  # now, because later a frozen backend leaves no time
        _traces(apis, evidence, workers, said)
        said("asking Prometheus and Loki")
        metrics.result()
        events.result()
    evidence.missing = list(apis.missing.values())
    return evidence


def recent(evidence: Evidence) -> float:
    """Return the time since which bad requests are searched: the beginning, but at most some minutes ago."""
    return max(evidence.since, evidence.at - NOW_SECONDS)


def query_of(apis_root: str, fields: Mapping[str, str]) -> str:
    """Return a search as a URL for curl."""
    return f"{apis_root}/api/traces?{urlencode(fields)}"


def _begin(apis: Backends, at: float, alerts: Iterable[Mapping[str, Any]]) -> float:
    """Return since when there may be trouble: the first alert, if there is an earlier time to compare with."""
    active = [begin for alert in alerts if (begin := _active(alert, at) - 60) > at - _OLDEST_ALERT]
    begin = min([at - NOW_SECONDS, *active])
    if begin < at - NOW_SECONDS:
        query = f"sum(increase({_ASKED}[{int(BEFORE_SECONDS)}s]))"
        found = apis.attempt("Prometheus", lambda: apis.prometheus.now(query, begin), list[dict[str, Any]]())
        if not found or float(found[0]["value"][1]) < _ENOUGH_BEFORE:
            return at - NOW_SECONDS
    return begin


def _alerts(apis: Backends, at: float) -> list[dict[str, Any]]:
    """Return the alerts at a time. Prometheus does not store the annotations of past alerts."""
    if at > apis.clock() - _STEP:
        return [_checked(alert) for alert in apis.prometheus.alerts()]
    firing = apis.prometheus.now("ALERTS", at)
    begun = {frozenset(_labels(one)): one["value"][1] for one in apis.prometheus.now("ALERTS_FOR_STATE", at)}
    return [
        {
            "state": one["metric"].get("alertstate", ""),
            "labels": dict(_labels(one)),
            "activeAt": _iso(float(begun.get(frozenset(_labels(one)), at))),
        }
        for one in firing
    ]


def _checked(alert: Any) -> dict[str, Any]:
    if not isinstance(alert, dict) or not isinstance(alert.get("labels"), dict):
        raise TypeError("an alert has labels")
    return alert


def _labels(one: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in one["metric"].items() if name not in {"__name__", "alertstate"}]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _active(alert: Mapping[str, Any], at: float) -> float:
    try:
        return datetime.fromisoformat(str(alert.get("activeAt"))).timestamp()
    except ValueError:
        return at


def _search(apis: Backends, start: float, end: float, limit: int, **wanted: str) -> Sample:
    fields = {name: value for name, value in wanted.items() if value} | {
        "start": str(int(start * 1e6)),
        "end": str(int(end * 1e6)),
        "limit": str(limit),
    }
    found: list[Request] | None = apis.attempt(
        "Jaeger", lambda: requests.of([parse(one) for one in apis.jaeger.search(fields)]), None
    )
    if found is None:  # the search failed, so it covers no time
        return Sample(query=query_of(apis.jaeger.root, fields))
    seconds = end - start
    if len(found) >= limit:
        seconds = max(end - min(request.root.start for request in found) / 1e6, 0.001)
    return Sample(requests=found, seconds=seconds, query=query_of(apis.jaeger.root, fields))


def _traces(apis: Backends, evidence: Evidence, workers: ThreadPoolExecutor, said: Said) -> None:
    said("asking Jaeger for what is asked for")
    journeys = _journeys(apis, evidence, workers)
    said(f"asking Jaeger for {len(journeys)} kinds of requests, now and before")
    length = (evidence.since - evidence.before) / SLICES

    def newest(journey: Operation, start: float, end: float, limit: int) -> Sample:
        found = _search(apis, start, end, limit, service=journey.service, operation=journey.name)
        found.requests = [request for request in found.requests if request.journey == journey]
        return found

    def now(journey: Operation) -> Journey:
        found = newest(journey, recent(evidence), evidence.at, _PER_JOURNEY)
        return Journey(now=found, before=[Sample() for _ in range(SLICES)])

    def before(part: tuple[int, Operation], limit: int = _PER_SLICE) -> Sample:
        begin = evidence.before + length * part[0]
        return newest(part[1], begin, begin + length, limit)

    evidence.journeys = dict(zip(journeys, workers.map(now, journeys), strict=True))
    # Only journeys that occur now are searched in the time before. If time runs out, each has at least some samples.
    asked = [key for key, journey in evidence.journeys.items() if journey.now.requests]
    parts = [(index, key) for index in sorted(range(SLICES), key=_spread) for key in asked]
    for (index, key), found in zip(parts, workers.map(before, parts), strict=True):
        evidence.journeys[key].before[index] = found
    for key in asked:  # just after a start there are only one or two slices, so more is fetched of each
        samples = evidence.journeys[key].before
        cut = [index for index, found in enumerate(samples) if 0 < found.seconds < length]
        if cut and len(evidence.journeys[key].usual) < _ENOUGH_OF_SLICES:
            parts, more = [(index, key) for index in cut], partial(before, limit=SLICES * _PER_SLICE // len(cut))
            for index, found in zip(cut, workers.map(more, parts), strict=True):
                if found.seconds:
                    samples[index] = found
    said("asking Jaeger for slow ones")
    _slow(apis, evidence, workers)


def _spread(index: int) -> int:
    """Reverse the bits of a number. Sorted by this, the first few numbers are spread over the whole range."""
    return int(f"{index:0{SLICES.bit_length()}b}"[::-1], 2)


def _journeys(apis: Backends, evidence: Evidence, workers: ThreadPoolExecutor) -> list[Operation]:
    """Find all kinds of requests, frequent and rare ones, and fetch failed requests meanwhile."""
    at, now, before, since = evidence.at, recent(evidence), evidence.before, evidence.since

    def probe(service: str) -> Sample:
        found = _search(apis, now, at, _PROBE, service=service)
        # Traces with thousands of spans may take too long, so only a few are fetched.
        return found if found.seconds else _search(apis, now, at, _FEW, service=service)

    def failed(service: str) -> tuple[Sample, Sample]:
        tags = json.dumps({"error": "true"})
        return (
            _search(apis, now, at, _BAD, service=service, tags=tags),
            _search(apis, before, since, _BAD, service=service, tags=tags),
        )

    services = [str(one) for one in apis.attempt("Jaeger", apis.jaeger.services, list[str]())]
    probes, failures = list(workers.map(probe, services)), list(workers.map(failed, services))
    evidence.probed = [request for sample in probes for request in sample.requests]
    evidence.probes = {service: sample.query for service, sample in zip(services, probes, strict=True)}
    evidence.services_query = f"{apis.jaeger.root}/api/services"
    seen = Counter(request.journey for request in evidence.probed)
    for service, (failed_now, failed_before) in zip(services, failures, strict=True):
        evidence.failed_now[service], evidence.failed_before[service] = failed_now, failed_before
        seen.update({request.journey for request in failed_now.requests})
    return [journey for journey, _ in seen.most_common(_MOST_JOURNEYS)]


def _slow(apis: Backends, evidence: Evidence, workers: ThreadPoolExecutor) -> None:
    usual = {key: normal.normal(journey) for key, journey in evidence.journeys.items()}
    slower = normal.pace(evidence.journeys, usual)

    def search(key: Operation, start: float, end: float) -> Sample:
        least = evidence.journeys[key].threshold
        found = _search(apis, start, end, _BAD, service=key.service, operation=key.name, minDuration=f"{int(least)}us")
        found.requests = [one for one in found.requests if one.journey == key and one.root.duration >= least]
        return found

    def slow(key: Operation) -> None:
        one = evidence.journeys[key]
        one.threshold = normal.threshold(one.now.requests, one.usual, usual[key], slower)
        if one.threshold < float("inf"):
            one.slow_now = search(key, recent(evidence), evidence.at)
            one.slow_before = search(key, evidence.before, evidence.since)
            if not one.slow_now.seconds:  # the search failed
                late = [request for request in one.now.requests if request.root.duration >= one.threshold]
                one.slow_now = Sample(requests=late, seconds=one.now.seconds, query=one.now.query)

    list(workers.map(slow, evidence.journeys))


def _metrics(apis: Backends, evidence: Evidence) -> None:
    window = Window(evidence.before, evidence.at)

    def ask(query: str, *, always: bool) -> list[dict[str, Any]]:
        try:
            return apis.prometheus.over(query, window, _STEP)
        except NotAsked:
            if always:
                raise
            return []  # an older recording without this query

    def over(query: str, *, always: bool = True) -> list[Series]:
        found = apis.attempt("Prometheus", lambda: ask(query, always=always), list[dict[str, Any]]())
        return [
            Series(labels=one["metric"], points=[(float(when), float(value)) for when, value in one["values"]])
            for one in found
        ]

    evidence.up = over(signals.UP)
    evidence.gateway_up = over(signals.GATEWAY_UP)
    evidence.started = over(signals.STARTED)
    evidence.signals = [(signal, over(signal.query)) for signal in signals.SIGNALS]
    evidence.expressions = apis.attempt("Prometheus", apis.prometheus.rules, dict[str, str]())
    for alert in alerting.newest_first(evidence.alerts)[:_MOST_ALERTS]:
        expression = alerting.expression_of(alert, evidence.expressions)
        if expression and expression not in evidence.measured:
            measures = alerting.measures(expression)[:_MOST_MEASURES]
            evidence.measured[expression] = [(measure, over(measure.query, always=False)) for measure in measures]


def _events(apis: Backends, evidence: Evidence) -> None:
    """Count log lines by event: warnings and errors of the whole time, all lines in one minute now and one before."""
    fields = ", ".join(f'{name}="{name}"' for name in ("event", *_DETAILS))
    bad = (
        f"sum by (service_name, level, event, {', '.join(_DETAILS)}) (count_over_time("
        f'{{service_namespace="shop"}} | level=~"warning|error|critical" | json {fields} | __error__="" [SECONDSs]))'
    )
    usual = (
        "sum by (service_name, level, event) (count_over_time("
        '{service_namespace="shop"} | level=~"info|debug" | json event="event" | __error__="" [SECONDSs]))'
    )

    def count(query: str, end: float, seconds: float) -> dict[Event, float]:
        asked = query.replace("SECONDS", str(int(seconds)))
        found = apis.attempt("Loki", lambda: apis.loki.count(asked, end), list[dict[str, Any]]())
        counts: dict[Event, float] = {}
        for one in found:
            labels = one["metric"]
            detail = next((labels[name] for name in _DETAILS if labels.get(name)), "")
            key = (labels.get("service_name", ""), labels.get("level", ""), labels.get("event", ""), detail)
            counts[key] = counts.get(key, 0) + float(one["value"][1]) / int(seconds)
        return counts

    begin = recent(evidence)
    evidence.events_query = bad.replace("SECONDS", str(int(evidence.at - begin)))
    evidence.usual_events_query = usual.replace("SECONDS", str(_EVENT_SECONDS))
    middle = (evidence.before + evidence.since) / 2
    evidence.events_now = count(usual, evidence.at, _EVENT_SECONDS) | count(bad, evidence.at, evidence.at - begin)
    evidence.events_before = count(usual, middle, _EVENT_SECONDS) | count(bad, evidence.since, _BAD_EVENT_SECONDS)


def lines_of(apis: Backends, request: Request) -> list[backends.Line]:
    """Fetch the log lines of a trace from Loki."""
    trace = request.trace
    since, until = trace.start / 1e6 - 60, (trace.start + trace.duration) / 1e6 + 60
    return apis.attempt(
        "Loki", partial(backends.lines, apis.loki.root, trace.trace_id, since, until), list[backends.Line]()
    )
