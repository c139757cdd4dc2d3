"""Finds attribute values that bad requests have more often than good ones, as Honeycomb's BubbleUp does."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from observability.story.text import SHORT, clean
from observability.why.answer import Attribute
from observability.why.statistics import adjusted, fisher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from observability.why.requests import Request

Value = tuple[str, str, str, str]
"""Service, operation, key and value. A resource attribute has an empty operation."""

_RESULT = re.compile(
    r"(^|.*[._])(status|status_code|outcome|type|error|resend_count)$|^(error|exception|otel\.status).*"
)
"""Keys of results of a request, which are symptoms and not causes."""
_SAME = re.compile(
    r"(otel|telemetry|internal|server|network|url|span|db|jaeger)\..*|http\.(request\.method|route)|peer\.service"
)
"""Keys that are the same for all spans of an operation, or that name the called machine."""
_OF_PROCESS = ("service.version", "service.instance.id", "host.name", "k8s.pod.name", "k8s.node.name", "container.id")
_FLAG = "feature_flag."
_SURE = 0.01
_APART, _COVERED = 0.25, 0.4
_MOST_VALUES = 200


def values(request: Request) -> set[Value]:
    """Return all attribute values of a trace that may distinguish it."""
    found: set[Value] = set()
    for span in request.trace.spans:
        for key, value in span.tags.items():
            if not _SAME.fullmatch(key):
                found.add((span.service, span.name, key, clean(value, SHORT)))
        for key in _OF_PROCESS:
            if key in span.resource:
                found.add((span.service, "", key, clean(span.resource[key], SHORT)))
        for event in span.events:
            fields = {one.get("key"): one.get("value") for one in event.get("fields") or ()}
            if f"{_FLAG}key" in fields:
                variant = fields.get(f"{_FLAG}result.variant", fields.get(f"{_FLAG}result.value", ""))
                flag = f"{_FLAG}{clean(fields[f'{_FLAG}key'], SHORT)}"
                found.add((span.service, span.name, flag, clean(variant, SHORT)))
    return found


def is_result(key: str) -> bool:
    """Return whether a key describes the result of a request, not the request itself."""
    return _RESULT.fullmatch(key) is not None


def apart(bad: Sequence[Request], good: Sequence[Request]) -> list[Attribute]:
    """Return the values that bad requests have more often than good ones, the most significant first.

    For each key, only requests that have a span with this key are compared. If only bad requests have a key, it is a
    result of the failure.
    """
    if not bad or not good:
        return []
    among_bad, among_good = _count(bad), _count(good)
    keys_bad, keys_good = _keys(bad), _keys(good)
    tried: list[tuple[Value, int, int, int, int]] = []
    for value, hits in among_bad.most_common(_MOST_VALUES * 10):
        of, other_of = keys_bad[value[:3]], keys_good[value[:3]]
        if other_of >= 3 and hits >= max(3, _COVERED * len(bad)):  # noqa: PLR2004
            tried.append((value, hits, of, among_good[value], other_of))
    tried = tried[:_MOST_VALUES]
    chances = adjusted([fisher(*numbers) for _, *numbers in tried])
    found = []
    for (value, hits, of, others, other_of), chance in zip(tried, chances, strict=True):
        service, operation, key, text = value
        if chance < _SURE and hits / of - others / other_of >= _APART:
            one = Attribute(
                key=key, value=text, bad=hits / of, good=others / other_of, service=service, operation=operation
            )
            found.append((hits / len(bad) - others / other_of, one))
    # If only one replica has a release, both attributes differ, and the release explains more.
    found.sort(key=lambda one: (-round(one[0], 2), one[1].key in _OF_PROCESS[1:]))
    return list({(attribute.key, attribute.value): attribute for _, attribute in reversed(found)}.values())[::-1]


def _count(those: Sequence[Request]) -> Counter[Value]:
    return Counter(value for request in those for value in values(request))


def _keys(those: Sequence[Request]) -> Counter[tuple[str, str, str]]:
    return Counter(key for request in those for key in {value[:3] for value in values(request)})
