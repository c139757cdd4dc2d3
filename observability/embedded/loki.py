"""Loki's HTTP API, the part of it that Grafana, the story, the tests and curl use; by the logs in the SQLite file."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from flask import Blueprint, Response, request
from werkzeug.exceptions import HTTPException

from observability.embedded import units
from observability.embedded.database import Timeout
from observability.embedded.logql.ast import LogQLError, LogQuery, Metric
from observability.embedded.logql.engine import Clock, Evaluation, Key, Series, Steps, TimeLimit, reach, select_lines
from observability.embedded.logql.parse import parse, parse_selector
from observability.embedded.logs import LogStore, Reader
from observability.embedded.lokiparameters import (
    MAX_POINTS,
    Refused,
    check_length,
    is_any,
    read_duration,
    read_limit,
    read_time,
    read_time_range,
    selector_of_group,
)
from servicekit.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from observability.embedded.logql.ast import Matcher
    from observability.embedded.logql.line import Line
    from observability.embedded.logs import Volume

_T = TypeVar("_T")

PREFIX = "/loki/api/v1"

QUERY_SECONDS = 20.0
"""What a query may take."""

_PARALLEL = 4  # queries at once: Python computes one at a time anyway
_WAIT_SECONDS = 5.0  # for a turn
_DEFAULT_POINTS = 250  # of a range query without a step
_SECOND = 1_000_000_000
_CATEGORIZE = "categorize-labels"
_NOT_HERE = (
    "{} is not part of the embedded backend: it answers query_range, query, labels, label/<name>/values, series, "
    "index/stats, index/volume, status/buildinfo and /ready, and takes push. Run the real Loki for the rest "
    "(docs/compose.md)."
)


@dataclass(frozen=True)
class _Answer:
    kind: str
    result: Any
    clock: Clock
    entries: int


def blueprint(store: LogStore, *, query_seconds: float = QUERY_SECONDS) -> Blueprint:
    """Make the API of a store."""
    api = Blueprint("loki", __name__)
    parse("1")  # makes the parser, which takes a quarter of a second: the first query should not wait for that
    routes = _Routes(store, query_seconds)
    views: dict[str, Callable[..., Response]] = {
        f"{PREFIX}/query_range": routes.query_range,
        f"{PREFIX}/query": routes.query,
        f"{PREFIX}/labels": routes.labels,
        f"{PREFIX}/label": routes.labels,
        f"{PREFIX}/label/<name>/values": routes.label_values,
        f"{PREFIX}/series": routes.series,
        f"{PREFIX}/index/stats": routes.index_stats,
        f"{PREFIX}/index/volume": routes.index_volume,
    }
    for rule, view in views.items():
        api.add_url_rule(rule, view.__name__ + rule, view, methods=["GET", "POST"])
    api.add_url_rule(f"{PREFIX}/status/buildinfo", view_func=_build_info)
    api.add_url_rule("/ready", view_func=_ready)
    api.add_url_rule("/loki/<path:rest>", view_func=_not_here, methods=["GET", "POST", "PUT", "DELETE"])

    for error in (Refused, LogQLError, TimeLimit, Timeout, RecursionError):
        api.register_error_handler(error, _refusal)
    api.register_error_handler(HTTPException, _refusal_by_flask)
    api.register_error_handler(Exception, _failure)
    return api


def _refusal(error: Exception) -> Response:
    match error:
        case Refused():
            status, message = error.status, str(error)
        case TimeLimit() | Timeout():
            status = 504
            message = (
                "Request timed out, decrease the duration of the request or add more label matchers (prefer exact "
                "match over regex match) to reduce the amount of data processed."
            )
        case RecursionError():
            status, message = 400, "parse error : the query is nested too deeply"
        case _:
            status, message = 400, str(error)
    return _error(status, message)


def _refusal_by_flask(error: HTTPException) -> Response:
    return _error(error.code or 500, str(error.description))


def _failure(error: Exception) -> Response:
    get_logger().error("request.failed", path=request.path, exc_info=error)
    return _error(500, "internal error: the embedded backend's log says more")


def _error(status: int, message: str) -> Response:
    return Response(f"{message}\n", status, content_type="text/plain; charset=utf-8")


class _Routes:
    """The views, with what they look at."""

    def __init__(self, store: LogStore, query_seconds: float) -> None:
        self._store = store
        self._seconds = query_seconds
        self._turns = threading.BoundedSemaphore(_PARALLEL)

    def query_range(self) -> Response:
        query = parse(request.values.get("query", ""))
        start, end = read_time_range()
        direction = request.values.get("direction", "backward").lower()
        if direction not in {"backward", "forward"}:
            raise Refused(400, f"invalid direction '{request.values['direction']}'")
        limit = read_limit()
        step = read_duration("step")
        if step is None:
            step = max((end - start) // _DEFAULT_POINTS // _SECOND, 1) * _SECOND
        if step <= 0:
            raise Refused(400, "zero or negative query resolution step widths are not accepted. Try a positive integer")
        interval = read_duration("interval") or 0
        if interval < 0:
            raise Refused(400, "interval must be >= 0")
        if (end - start) // step > MAX_POINTS:
            raise Refused(
                400,
                f"exceeded maximum resolution of {MAX_POINTS:,} points per time series. Try increasing the value of "
                "the step parameter",
            )
        if isinstance(query, LogQuery):
            return self._answer(
                lambda reader, clock: _streams(
                    select_lines(
                        reader,
                        query,
                        start,
                        end,
                        limit=limit,
                        backward=direction == "backward",
                        interval=interval,
                        clock=clock,
                    ),
                    clock,
                )
            )
        # Loki moves the times onto multiples of the step, so that the same query asked later has the same points.
        steps = Steps(start // step * step, -(-end // step) * step, step)
        check_length(steps.end - steps.start + reach(query))
        return self._answer(lambda reader, clock: _matrix(_evaluate(reader, query, steps, clock), steps, clock))

    def query(self) -> Response:
        query = parse(request.values.get("query", ""))
        now = read_time("time") if request.values.get("time") else time.time_ns()
        read_limit()
        if isinstance(query, LogQuery):
            raise Refused(
                400,
                "log queries are not supported as an instant query type, please change your query to a range query "
                "type",
            )
        steps = Steps(now, now, _SECOND)
        return self._answer(lambda reader, clock: _vector(query, _evaluate(reader, query, steps, clock), now, clock))

    def labels(self) -> Response:
        names = {name for labels in self._matching() for name in labels}
        return _json({"status": "success", **({"data": sorted(names)} if names else {})})

    def label_values(self, name: str) -> Response:
        values = {labels[name] for labels in self._matching() if name in labels}
        return _json({"status": "success", **({"data": sorted(values)} if values else {})})

    def series(self) -> Response:
        selectors = {*request.values.getlist("match[]"), *request.values.getlist("match")}
        start, end = read_time_range()
        if len(selectors) == 1 and is_any(*selectors):
            selectors = set()
        parsed = [selector_of_group(selector) for selector in sorted(selectors)]
        return _json({"status": "success", "data": self._read(lambda reader: reader.series(parsed, start, end))})

    def index_stats(self) -> Response:
        volumes = self._volumes(parse_selector(request.values.get("query", "")))
        return _json(
            {
                "streams": len(volumes),
                "chunks": len(volumes),
                "bytes": sum(volume.bytes for volume in volumes),
                "entries": sum(volume.entries for volume in volumes),
            }
        )

    def index_volume(self) -> Response:
        """How many bytes, by the labels that the selector names or `targetLabels` lists."""
        query = request.values.get("query", "")
        selector = () if is_any(query) else parse_selector(query)
        names = {name for name in request.values.get("targetLabels", "").split(",") if name}
        names = names or {matcher.name for matcher in selector}
        _, end = read_time_range()
        sums: dict[Key, int] = {}
        for volume in self._volumes(selector):
            wanted = names or volume.labels.keys()  # of all streams: each by itself
            key = tuple(sorted((name, volume.labels[name]) for name in wanted if name in volume.labels))
            sums[key] = sums.get(key, 0) + volume.bytes
        ordered = sorted(sums.items(), key=lambda item: (-item[1], item[0]))[: read_limit()]
        result = [{"metric": dict(key), "value": [_seconds(end), str(size)]} for key, size in ordered]
        return _success(_Answer("vector", result, Clock(), len(result)), 0)

    def _volumes(self, selector: tuple[Matcher, ...]) -> list[Volume]:
        start, end = read_time_range()
        return self._read(lambda reader: reader.volumes(selector, start, end))

    def _matching(self) -> list[dict[str, str]]:
        start, end = read_time_range()
        query = request.values.get("query")
        selectors: list[tuple[Matcher, ...]] = [parse_selector(query)] if query else []
        return self._read(lambda reader: reader.series(selectors, start, end))

    def _read(self, look: Callable[[Reader], _T]) -> _T:
        if not self._turns.acquire(timeout=_WAIT_SECONDS):
            raise Refused(429, "too many outstanding requests")
        try:
            with self._store.database.read(self._seconds) as connection:
                return look(Reader(connection))
        finally:
            self._turns.release()

    def _answer(self, compute: Callable[[Reader, Clock], _Answer]) -> Response:
        began = time.monotonic()
        clock = Clock(began + self._seconds)
        answer = self._read(lambda reader: compute(reader, clock))
        return _success(answer, time.monotonic() - began)


def _ready() -> Response:
    return Response("ready\n", content_type="text/plain; charset=utf-8")


def _build_info() -> Response:
    names = ("revision", "branch", "buildUser", "buildDate", "goVersion")
    return _json({"version": "embedded-backend", **dict.fromkeys(names, "")})


def _not_here(rest: str) -> Response:
    raise Refused(404, _NOT_HERE.format(f"/loki/{rest}"))


# --- answers ---


def _evaluate(reader: Reader, metric: Metric, steps: Steps, clock: Clock) -> Series | float:
    return Evaluation(reader, steps, clock).run(metric)


def _streams(lines: Iterable[Line], clock: Clock) -> _Answer:
    categorize = _CATEGORIZE in request.headers.get("X-Loki-Response-Encoding-Flags", "")
    streams: dict[Key, list[list[Any]]] = {}
    count = 0
    for line in lines:
        value: list[Any] = [str(line.timestamp), line.text]
        if categorize:
            labels = line.stream
            parts = {"structuredMetadata": line.metadata, "parsed": line.added()}
            value.append({name: part for name, part in parts.items() if part})
        else:
            labels = line.labels()
        streams.setdefault(tuple(sorted(labels.items())), []).append(value)
        count += 1
    result = [{"stream": dict(key), "values": values} for key, values in sorted(streams.items())]
    return _Answer("streams", result, clock, count)


def _matrix(result: Series | float, steps: Steps, clock: Clock) -> _Answer:
    series: Series = {(): [result] * len(steps)} if isinstance(result, float) else result
    times = [_seconds(at) for at in steps]
    rows = [
        {
            "metric": dict(key),
            "values": [
                [at, units.format_number(point)] for at, point in zip(times, points, strict=True) if point is not None
            ],
        }
        for key, points in sorted(series.items())
    ]
    return _Answer("matrix", rows, clock, len(rows))


def _vector(query: Metric, result: Series | float, now: int, clock: Clock) -> _Answer:
    if isinstance(result, float):
        return _Answer("scalar", [_seconds(now), units.format_number(result)], clock, 1)
    ordered = sorted(result.items())
    operation = getattr(query, "operation", "")
    if operation in {"topk", "sort_desc", "bottomk", "sort"}:
        ordered.sort(key=lambda item: item[1][0] or 0.0, reverse=operation in {"topk", "sort_desc"})
    rows = [
        {"metric": dict(key), "value": [_seconds(now), units.format_number(points[0])]}
        for key, points in ordered
        if points[0] is not None
    ]
    return _Answer("vector", rows, clock, len(rows))


def _seconds(nanoseconds: int) -> float | int:
    milliseconds = nanoseconds // 1_000_000
    return milliseconds // 1000 if milliseconds % 1000 == 0 else milliseconds / 1000


def _success(answer: _Answer, seconds: float) -> Response:
    statistics = answer.clock.statistics
    data: dict[str, Any] = {"resultType": answer.kind}
    if answer.kind == "streams" and _CATEGORIZE in request.headers.get("X-Loki-Response-Encoding-Flags", ""):
        data["encodingFlags"] = [_CATEGORIZE]
    data["result"] = answer.result
    data["stats"] = {
        "summary": {
            "bytesProcessedPerSecond": int(statistics.bytes / seconds) if seconds else 0,
            "linesProcessedPerSecond": int(statistics.lines / seconds) if seconds else 0,
            "totalBytesProcessed": statistics.bytes,
            "totalLinesProcessed": statistics.lines,
            "execTime": seconds,
            "queueTime": 0,
            "subqueries": 0,
            "totalEntriesReturned": answer.entries,
            "splits": 0,
            "shards": 0,
            "totalPostFilterLines": statistics.kept,
            "totalStructuredMetadataBytesProcessed": 0,
        }
    }
    return _json({"status": "success", "data": data})


def _json(body: Any) -> Response:
    return Response(orjson.dumps(body), content_type="application/json; charset=UTF-8")
