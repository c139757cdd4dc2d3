"""A trace as a user's request: how its time was divided, and where a failure began."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from observability.story.critical import critical_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from observability.story.spans import Span, Trace

_NO_ANSWER_BELOW = frozenset(("502", "504"))
_CLIENT_ERROR = re.compile(r"4\d\d")
_AT_ONCE = 3000
"""Microseconds. A caller that fails within this time after an answer failed because of the answer."""


class Operation(NamedTuple):
    """A kind of span."""

    service: str
    name: str
    kind: str = "server"


def operation(span: Span) -> Operation:
    """Return the kind of a span."""
    return Operation(span.service, span.name, span.kind)


@dataclass(frozen=True)
class Origin:
    """Where a failure began."""

    operation: Operation
    error: str
    """The error according to the span: an exception's type or a status."""
    unanswered: bool = False
    """Whether it is a call without an answer, so that the fault is in the called service or the network."""
    peer: str = ""
    """The called service."""
    unusable: bool = False
    """Whether the call was answered, and the caller failed because of the answer."""


@dataclass(frozen=True)
class Call:
    """A call to another service, and when that service handled it. Times are in microseconds."""

    failed: bool
    duration: int
    answered: bool
    """Whether there is a span of the called service."""
    callee_failed: bool = False
    before: int = 0
    """The time from the call's start to the start of that span."""
    after: int = 0
    """The time from that span's end to the call's end; negative if the caller did not wait."""


@dataclass(frozen=True)
class Request:
    """A trace, seen from its first span."""

    trace: Trace

    @cached_property
    def root(self) -> Span:
        """The first span."""
        return next(self.trace.tree())[0]

    @cached_property
    def journey(self) -> Operation:
        """The kind of request."""
        return operation(self.root)

    @cached_property
    def children(self) -> dict[str, list[Span]]:
        """The child spans of each span, by its id."""
        found: dict[str, list[Span]] = defaultdict(list)
        for span in self.trace.spans:
            found[span.parent_id].append(span)
        return found

    @cached_property
    def own(self) -> dict[Operation, int]:
        """For each operation, the microseconds during which the request waited for it and for none of its children."""
        path = critical_path(self.trace)
        found: dict[Operation, int] = defaultdict(int)
        for span in self.trace.spans:
            for begin, end in path.get(id(span), ()):
                found[operation(span)] += end - begin
        return dict(found)

    @cached_property
    def operations(self) -> frozenset[Operation]:
        """All kinds of spans in it."""
        return frozenset(map(operation, self.trace.spans))

    @cached_property
    def services(self) -> frozenset[str]:
        """All services in it."""
        return frozenset(span.service for span in self.trace.spans)

    @property
    def status(self) -> str:
        """The status that the user got, or an empty text."""
        return str(self.root.tags.get("http.response.status_code", ""))

    def below(self, service: str, name: str, above: str) -> bool:
        """Return whether a span of this kind has an ancestor of this other service."""
        known = {span.span_id: span for span in self.trace.spans}
        for span in self.trace.spans:
            if (span.service, span.name) == (service, name):
                seen, top = set[str](), known.get(span.parent_id)
                while top is not None and top.span_id not in seen:
                    if top.service == above:
                        return True
                    seen.add(top.span_id)
                    top = known.get(top.parent_id)
        return False

    def calls(self, span: Span) -> bool:
        """Return whether a span is a call to another service, so that its own time is spent between the two."""
        below = self.children.get(span.span_id, ())
        return ("peer.service" in span.tags and span.kind == "client") or any(
            child.kind == "server" and child.service != span.service for child in below
        )

    def calls_of(self, caller: str, name: str) -> list[Call]:
        """Return the calls of a service whose spans have this name."""
        found = []
        for span in self.trace.spans:
            if (span.service, span.name) == (caller, name) and self.calls(span):
                below = [one for one in self.children.get(span.span_id, ()) if one.kind == "server"]
                if not below:
                    found.append(Call(span.failed, span.duration, answered=False))
                    continue
                last = max(below, key=lambda one: one.start + one.duration)
                after = span.start + span.duration - last.start - last.duration
                before = below[0].start - span.start
                found.append(
                    Call(
                        span.failed, span.duration, answered=True, callee_failed=last.failed, before=before, after=after
                    )
                )
        return found

    @cached_property
    def edges(self) -> dict[Operation, str]:
        """The operations that are calls, with the called service."""
        found = {}
        for span in self.trace.spans:
            if self.calls(span):
                below = [one.service for one in self.children.get(span.span_id, ()) if one.kind == "server"]
                found[operation(span)] = below[0] if below else str(span.tags.get("peer.service", ""))
        return found

    @cached_property
    def origins(self) -> list[Origin]:
        """Where its failures began: failed spans without failed children, those that made other spans fail first."""
        failed = [span for span in self.trace.spans if span.failed]
        above = {span.parent_id for span in failed}
        leaves = [span for span in failed if span.span_id not in above]
        if self.root.failed:  # failures that callers handled are not why the request failed
            last = self._led_to_failure()
            leaves = [last, *(leaf for leaf in leaves if leaf is not last)]
        return [self._origin(span) for span in leaves]

    def _led_to_failure(self) -> Span:
        span, seen = self.root, set[int]()
        while id(span) not in seen:
            seen.add(id(span))
            failed = [child for child in self.children.get(span.span_id, ()) if child.failed]
            if not failed:
                break
            span = max(failed, key=lambda child: child.start + child.duration)
        return span

    def _origin(self, span: Span) -> Origin:
        error = str(span.tags.get("db.response.status_code") or span.tags.get("error.type") or "error")
        below = [child for child in self.children.get(span.span_id, ()) if child.kind == "server"]
        peer = str(span.tags.get("peer.service") or (below[0].service if below else ""))
        if span.kind == "internal" and (call := self._answered_last(span)):
            return Origin(operation(call), error, peer=self.edges[operation(call)], unusable=True)
        answered = bool(below) or bool(_CLIENT_ERROR.fullmatch(error))
        proxy = span.kind == "server" and error in _NO_ANSWER_BELOW
        return Origin(operation(span), error, proxy or (bool(peer) and not answered), peer)

    def _answered_last(self, span: Span) -> Span | None:
        """Return the call after whose answer a span ended at once, if there is one."""
        last = max(self.children.get(span.span_id, ()), key=lambda child: child.start + child.duration, default=None)
        if last is None or last.kind != "client" or operation(last) not in self.edges:
            return None
        after = span.start + span.duration - last.start - last.duration
        answered = any(child.kind == "server" and not child.failed for child in self.children.get(last.span_id, ()))
        return last if answered and not last.failed and 0 <= after <= _AT_ONCE else None


def of(traces: Sequence[Trace]) -> list[Request]:
    """Return the requests of all traces that have spans."""
    return [Request(trace) for trace in traces if trace.spans]
