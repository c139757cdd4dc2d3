"""Writes Prometheus' samples as OpenMetrics with timestamps, for `promtool tsdb create-blocks-from`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client import Metric
from prometheus_client.openmetrics.exposition import ALLOWUTF8, generate_latest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import BinaryIO

    from scenarios.dataset.gathering import Gathering

_EOF = b"# EOF\n"
_PARTS = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count"), "counter": ("_total",)}
_INNER = ("le", "quantile")
"""Labels that distinguish the samples of one histogram or summary."""


@dataclass(frozen=True)
class Family:
    """Metrics that belong together, such as the parts of a histogram."""

    name: str
    kind: str
    says: str
    members: Sequence[str]


def write(gathering: Gathering, file: BinaryIO) -> None:
    """Write all metrics, one family after the other."""
    for family in families(gathering.metrics(), gathering.types()):
        series = [one for name in family.members for one in gathering.samples(name)]
        if series:
            file.write(text(family, series).removesuffix(_EOF))
    file.write(_EOF)


def families(names: Iterable[str], types: Mapping[str, tuple[str, str]]) -> Iterator[Family]:
    """Group metrics into families. If the type is missing, or does not fit the name, it is `unknown`."""
    left = set(names)
    for told, (kind, says) in sorted(types.items()):
        base = told.removesuffix("_total") if kind == "counter" else told
        members = [base + part for part in _PARTS.get(kind, ("",)) if base + part in left]
        if kind in {"gauge", *_PARTS} and members:
            left -= set(members)
            yield Family(base, kind, says, members)
    for name in sorted(left):
        yield Family(name, "unknown", "", [name])


def text(family: Family, series: Iterable[Mapping[str, Any]]) -> bytes:
    """Return a family as text, sorted by labels, then by time, with a histogram's buckets in order."""
    metric = Metric(family.name, family.says, family.kind)
    groups: dict[tuple[tuple[str, str], ...], list[tuple[float, int, float, str, dict[str, str], float]]]
    groups = defaultdict(list)
    for one in series:
        labels = dict(one["metric"])
        name = labels.pop("__name__")
        bound = next((float(labels[inner]) for inner in _INNER if inner in labels), 0.0)
        group = tuple(sorted((key, value) for key, value in labels.items() if key not in _INNER))
        rank = family.members.index(name)
        groups[group] += [(float(at), rank, bound, name, labels, float(value)) for at, value in one["values"]]
    for samples in groups.values():
        for at, _, _, name, labels, value in sorted(samples, key=lambda sample: sample[:3]):
            metric.add_sample(name, labels, value, at)
    # The other escapings remove the colons from the names of recording rules.
    made: bytes = generate_latest(_One(metric), escaping=ALLOWUTF8)  # type: ignore[no-untyped-call]
    return made


@dataclass(frozen=True)
class _One:
    """A registry with one family."""

    metric: Metric

    def collect(self) -> Iterator[Metric]:
        yield self.metric
