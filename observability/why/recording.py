"""Records the backends' results, so that the analysis can be repeated without the backends."""

from __future__ import annotations

import gzip
import json
import lzma
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from observability.story.apis import Jaeger, Loki, Prometheus
from observability.story.errors import StoryError
from observability.why.gather import SECONDS, Backends, NotAsked, gather, within

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from observability.story.window import Window
    from observability.why.evidence import Evidence


_T = TypeVar("_T")
_FLAG_EVENTS = "flags."


@dataclass
class Recording:
    """The queries about a certain time, and their results."""

    at: float
    since: float | None = None
    root: str = ""
    """Jaeger's root URL, which is part of the queries."""
    answers: dict[str, Any] = field(default_factory=dict)
    """Results by query. The result of a search is the ids of its traces."""
    traces: dict[str, Any] = field(default_factory=dict)
    """Jaeger's traces by id, each only once even if several searches found it."""

    def evidence(self) -> Evidence:
        """Return the evidence, from these results alone."""
        none = _Asking(self, None)
        apis = Backends(
            _JaegerAgain(self.root, asking=none), _LokiAgain("", asking=none), _PrometheusAgain("", asking=none)
        )
        apis.clock = lambda: self.at
        return gather(apis, self.at, self.since, patience=float("inf"))

    def write(self, path: Path) -> None:
        """Write it to a file, compressed by gzip, or by xz (slower and smaller) if the name ends with it."""
        told = {"at": self.at, "since": self.since, "root": self.root, "answers": self.answers, "traces": self.traces}
        text = json.dumps(told, separators=(",", ":")).encode()
        # No time in gzip's header, so that equal recordings give equal files.
        path.write_bytes(lzma.compress(text) if path.suffix == ".xz" else gzip.compress(text, mtime=0))


def read(path: Path) -> Recording:
    """Read a recording from a file, compressed by gzip or xz."""
    unpack = lzma.decompress if path.suffix == ".xz" else gzip.decompress
    return Recording(**json.loads(unpack(path.read_bytes())))


def record(apis: Backends, at: float, since: float | None = None) -> tuple[Recording, Evidence]:
    """Query these backends for all evidence, within the time of a complete analysis, and keep the results."""
    kept = Recording(at, since, apis.jaeger.root)
    asking = _Asking(kept, apis)
    heard = Backends(
        _JaegerAgain(apis.jaeger.root, seconds=apis.jaeger.seconds, asking=asking),
        _LokiAgain(apis.loki.root, seconds=apis.loki.seconds, asking=asking),
        _PrometheusAgain(apis.prometheus.root, apis.prometheus.seconds, asking=asking),
    )
    with within(SECONDS):
        return kept, gather(heard, at, since)


@dataclass
class _Asking:
    """Sends queries and keeps the results; without backends, returns the kept results."""

    kept: Recording
    apis: Backends | None

    def __call__(self, question: list[Any], ask: Callable[[], _T], *, traces: bool = False) -> _T:
        key = json.dumps(question, sort_keys=True)
        if self.apis is None:
            return cast("_T", self._again(key, traces=traces))
        try:
            answer = ask()
        except StoryError as error:
            self.kept.answers[key] = {"error": str(error)}
            raise
        self.kept.answers[key] = self._ids(cast("Any", answer)) if traces else answer
        return answer

    def _ids(self, found: Sequence[dict[str, Any]]) -> list[str]:
        """Store traces by id, and return the ids. If a trace has grown meanwhile, the last version is kept."""
        for trace in found:
            known = self.kept.traces.get(trace["traceID"], {"spans": ()})
            if len(trace["spans"]) >= len(known["spans"]):
                self.kept.traces[trace["traceID"]] = trace
        return [trace["traceID"] for trace in found]

    def _slower(self, fields: dict[str, str]) -> list[str] | None:
        """Answer a search for slow requests from a recorded one with another limit; limits depend on other results."""
        if not (least := fields.pop("minDuration", "")):
            return None
        for question, answer in self.kept.answers.items():
            kind, *asked = json.loads(question)
            if kind == "search" and asked[0].pop("minDuration", "") and asked[0] == fields and isinstance(answer, list):
                return [one for one in answer if _has_slower(self.kept.traces[one], fields["operation"], least)]
        return None

    def _again(self, key: str, *, traces: bool) -> Any:
        answer = self.kept.answers.get(key)
        if answer is None and traces:
            answer = self._slower(json.loads(key)[1])
        if answer is None:
            raise NotAsked("Not all was asked: it took too long.")
        if isinstance(answer, dict) and "error" in answer:
            raise StoryError(answer["error"])
        return [self.kept.traces[one] for one in answer] if traces else answer


@dataclass(frozen=True)
class _JaegerAgain(Jaeger):
    asking: _Asking = field(kw_only=True)

    def services(self) -> list[str]:
        return self.asking(["services"], lambda: Jaeger.services(self))

    def search(self, fields: Mapping[str, str]) -> list[dict[str, Any]]:
        return self.asking(["search", dict(fields)], lambda: Jaeger.search(self, fields), traces=True)


@dataclass(frozen=True)
class _LokiAgain(Loki):
    asking: _Asking = field(kw_only=True)

    def count(self, query: str, at: float) -> list[dict[str, Any]]:
        return self.asking(["count", query, at], lambda: Loki.count(self, query, at))


@dataclass(frozen=True)
class _PrometheusAgain(Prometheus):
    asking: _Asking = field(kw_only=True)

    def now(self, query: str, at: float | None = None) -> list[dict[str, Any]]:
        return self.asking(["now", query, at], lambda: Prometheus.now(self, query, at))

    def over(self, query: str, window: Window, step: int) -> list[dict[str, Any]]:
        asked = ["over", query, window.start, window.end, step]
        return self.asking(asked, lambda: Prometheus.over(self, query, window, step))

    def alerts(self) -> list[dict[str, Any]]:
        return self.asking(["alerts"], lambda: Prometheus.alerts(self))

    def rules(self) -> dict[str, str]:
        return self.asking(["rules"], lambda: Prometheus.rules(self))


def _has_slower(trace: Mapping[str, Any], operation: str, least: str) -> bool:
    limit = int(least.removesuffix("us"))
    return any(span["operationName"] == operation and span["duration"] >= limit for span in trace["spans"])


def without_flags(kept: Recording) -> None:
    """Remove what reveals a simulated fault, since a real fault has no flag: flags on spans and in the log."""
    for trace in kept.traces.values():
        for span in trace["spans"]:
            span["tags"] = [tag for tag in span.get("tags") or () if not _is_flag(tag)]
            span["logs"] = [
                event for event in span.get("logs") or () if not any(_is_flag(one) for one in event.get("fields") or ())
            ]
    for question, answer in kept.answers.items():
        if json.loads(question)[0] == "count" and isinstance(answer, list):
            kept.answers[question] = [
                one for one in answer if not one["metric"].get("event", "").startswith(_FLAG_EVENTS)
            ]


def _is_flag(tag: Mapping[str, Any]) -> bool:
    return str(tag.get("key")).startswith("feature_flag.")
