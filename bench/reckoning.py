"""docs/capacity.md's tables: what 1,000 and 100,000 orders a second need, and what ends first on the way there.

All is reckoned from `capacity.json`, `stores.json` and `cluster.json` in docs/performance, which were measured, and
from the numbers in deploy/kubernetes.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from bench.report import BUSY, Rendered, amount
from local.settings import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable

RATES = (1_000, 100_000)
NODE_CORES, NODE_GB = 16, 64
"""The node that is reckoned with. Nobody measured one of this size."""
NODE_SHARE = 0.9
"""Of a node, what the shop may ask for: the rest is the kubelet's, the network plugin's and the agent's."""
PRIMARY_CORES = 32
"""Of a database server, before it becomes two."""
LAST_ID = 2**31 - 1
"""Of `orders.orders.id`, a SERIAL."""
TRACE_HOURS, LOG_HOURS, METRIC_DAYS = 48, 72, 15
"""How long Compose's Jaeger, Loki and Prometheus keep what they have."""

_DAY = 86_400
_KUBERNETES = PROJECT / "deploy" / "kubernetes"
_SCALED = ("nginx", "order-service", "payment-service", "product-service")
_POOLED = ("order-service", "payment-service")


@dataclass(frozen=True)
class Order:
    """What one order was measured to take and to leave.

    Attributes:
        cpu_ms: Processor time, by part.
        each: Bytes, spans and lines, by kind.
        series: Of Prometheus, with one pod of each service.
    """

    cpu_ms: dict[str, float]
    each: dict[str, float]
    series: float

    @classmethod
    def measured(cls, result: dict[str, Any]) -> Order:
        """Take it from the results of `python -m bench capacity`: `capacity`, and the backends of `stores`."""
        local, real = result["full"], result["backends"]
        costs = {part: real["parts_cpu_ms"][part] for part in ("collector", "jaeger")}
        return cls({**local["parts_cpu_ms"], **costs}, {**local["each"], **real["each"]}, local["series"])

    def pods(self, part: str, rate: float) -> int:
        """Reckon how many pods a part needs, each with one core."""
        return max(1, math.ceil(self.cores(part, rate)))

    def cores(self, part: str, rate: float) -> float:
        """Reckon how many cores a part needs."""
        return self.cpu_ms[part] * rate / 1000 / BUSY

    def ends_at(self, part: str, cores: float) -> float:
        """Reckon how many orders a second a part can take with so many cores."""
        return cores * BUSY * 1000 / self.cpu_ms[part]


def manifests(name: str, *kinds: str) -> dict[str, Any]:
    """Read the objects of a file or a folder below deploy/kubernetes, by name."""
    path = _KUBERNETES / name
    files = sorted(path.rglob("*.yaml")) if path.is_dir() else [path]
    return {
        each["metadata"]["name"]: each
        for file in files
        for each in yaml.safe_load_all(file.read_text(encoding="utf-8"))
        if isinstance(each, dict) and each.get("kind") in kinds
    }


def measured(result: dict[str, Any], _cluster: dict[str, Any] | None) -> Rendered:
    """Tabulate what is reckoned from."""
    order = Order.measured(result)
    rows = [[f"CPU, {part}", f"{order.cpu_ms[part]:.2f} ms", "measured"] for part in (*_SCALED, "order-db")]
    rows += [[f"CPU, {part}", f"{order.cpu_ms[part]:.2f} ms", "measured"] for part in ("collector", "jaeger")]
    names = {
        "database_bytes": "PostgreSQL, with indexes",
        "jaeger_bytes": "Jaeger, every trace, on Badger's disk",
        "loki_bytes": "Loki, chunks and index",
        "log_bytes": "log lines as written",
    }
    rows += [[name, f"{order.each[key]:,.0f} bytes", "measured"] for key, name in names.items()]
    rows += [
        ["spans", f"{order.each['spans']:.1f}", "measured"],
        ["log lines", f"{order.each['log_lines']:.1f}", "measured"],
    ]
    return Rendered("What one order takes and leaves", ["what", "of one order", "how it is known"], rows)


def needs(result: dict[str, Any], cluster: dict[str, Any] | None) -> Rendered:
    """Tabulate what so many orders a second need."""
    order = Order.measured(result)
    pool, share = _pool(), _share_kept()
    deployments = manifests("base", "Deployment")
    asked = {part: _mebibytes(deployments[part]) for part in _SCALED}
    rows: list[list[str]] = []

    def line(name: str, of_rate: Callable[[int], str], formula: str) -> None:
        rows.append([name, *map(of_rate, RATES), formula])

    def cores(rate: int) -> float:
        return sum(order.cores(part, rate) for part in (*_SCALED, "collector", "jaeger"))

    def memory(rate: int) -> float:
        return sum(order.pods(part, rate) * asked[part] for part in _SCALED) / 1024

    def nodes(rate: int) -> int:
        return math.ceil(max(cores(rate) / (NODE_CORES * NODE_SHARE), memory(rate) / (NODE_GB * NODE_SHARE)))

    def connections(rate: int) -> int:
        return sum(order.pods(part, rate) for part in _POOLED) * pool

    def primaries(rate: int) -> int:
        return math.ceil(order.cores("order-db", rate) / PRIMARY_CORES)

    for part in _SCALED:
        formula = f"{order.cpu_ms[part]:.2f} ms x rate / {BUSY:.0%} of one core"
        line(f"pods of {part}", lambda rate, part=part: f"{order.pods(part, rate):,}", formula)  # type: ignore[misc]
    line("cores of those, the Collector and Jaeger", lambda rate: f"{cores(rate):,.0f}", "the same, summed up")
    line("memory of those pods", lambda rate: f"{memory(rate):,.0f} GiB", "pods x what each asks for")
    line(
        f"nodes of {NODE_CORES} cores and {NODE_GB} GB",
        lambda rate: f"{nodes(rate):,}",
        f"cores or memory, what is more, / {NODE_SHARE:.0%} of a node; without the database's",
    )
    line(
        "PostgreSQL, cores",
        lambda rate: f"{order.cores('order-db', rate):,.0f}",
        f"{order.cpu_ms['order-db']:.2f} ms x rate / {BUSY:.0%}",
    )
    line(
        f"PostgreSQL, primaries of {PRIMARY_CORES} cores",
        lambda rate: f"{primaries(rate):,}",
        "cores / the size; each with two standbys. Commits, and who waits for the disk, are not in it",
    )
    line("commits/s", lambda rate: f"{3 * rate:,}", "3 an order")
    line(
        "connections without a pooler",
        lambda rate: f"{connections(rate):,}",
        f"{pool} x pods of order- and payment-service",
    )
    if cluster:
        held = statistics.median(turn["database_ms"] for turn in cluster["turns"])
        line(
            "of these busy at once",
            lambda rate: f"{math.ceil(held * rate / 1000 / BUSY):,}",
            f"{held:.1f} ms an order on a full machine x rate / {BUSY:.0%}: what a pooler has to hold",
        )
    line(
        "days until `orders.id` ends",
        lambda rate: f"{LAST_ID / rate / _DAY:,.1f}",
        "2^31 - 1 / rate: it is a SERIAL, 32 bits",
    )
    line("rows of orders, a day", lambda rate: f"{rate * _DAY / 1e6:,.0f} million", "rate x 86,400")
    line(
        "PostgreSQL, an hour",
        lambda rate: amount(order.each["database_bytes"] * rate * 3600),
        "for the size of a partition",
    )
    for name, key, factor in (
        ("PostgreSQL, a day", "database_bytes", 1.0),
        ("Jaeger, a day, every trace", "jaeger_bytes", 1.0),
        (f"Jaeger, a day, with {share:.0%} of the traces", "jaeger_bytes", share),
        ("Loki, a day", "loki_bytes", 1.0),
    ):
        size = order.each[key] * factor
        line(name, lambda rate, size=size: amount(size * rate * _DAY), f"{size:,.0f} bytes x rate x 86,400")  # type: ignore[misc]
    kept = order.each["jaeger_bytes"] * share * TRACE_HOURS / 24 + order.each["loki_bytes"] * LOG_HOURS / 24
    line(
        "Jaeger and Loki, all they keep",
        lambda rate: amount(kept * rate * _DAY),
        f"{share:.0%} of the traces for {TRACE_HOURS} h, lines for {LOG_HOURS} h, one copy of each",
    )
    line(
        "Prometheus, series",
        lambda rate: f"{order.series * order.pods('order-service', rate):,.0f}",
        f"{order.series:,.0f} with one pod of each service, x pods of order-service: too many rather than too few",
    )
    line("spans/s", lambda rate: f"{order.each['spans'] * rate:,.0f}", f"{order.each['spans']:.1f} x rate")
    line("log lines/s", lambda rate: f"{order.each['log_lines'] * rate:,.0f}", f"{order.each['log_lines']:.1f} x rate")
    head = ["what", *(f"{rate:,} orders/s" for rate in RATES), "reckoned as"]
    return Rendered("What so many orders a second need (all reckoned)", head, rows)


def ends(result: dict[str, Any], _cluster: dict[str, Any] | None) -> Rendered:
    """Tabulate which part ends at which rate, the first one first."""
    order = Order.measured(result)
    scalers = manifests("components/autoscaling", "HorizontalPodAutoscaler")
    found: list[tuple[float, str, str, str]] = []

    def end(part: str, what: str, cores: float, then: str) -> None:
        formula = f"{cores:g} cores x {BUSY:.0%} / {order.cpu_ms[part]:.2f} ms"
        found.append((order.ends_at(part, cores), what, formula, then))

    end("embedded-backend", "the embedded backend, one process", 1, "Jaeger and Loki")
    end("jaeger", "Jaeger in one pod, every trace", 1, "tail sampling; Jaeger's collectors apart, on OpenSearch")
    end(
        "collector",
        "the Collector in one pod",
        _cpu("components/telemetry/stack", "collector"),
        "`tail-sampling`: several behind a layer that balances",
    )
    end("order-db", "PostgreSQL in `local`", _cpu("components/postgres", "order-db"), "CloudNativePG on larger nodes")
    for part in _SCALED:
        end(part, f"one pod of {part}", 1, "more pods: the autoscaler makes them")
        most = scalers[part]["spec"]["maxReplicas"]
        end(
            part,
            f"{most} pods of {part}, the autoscaler's most",
            most,
            "a greater `maxReplicas`, and the connections that go with it",
        )
    end("order-db", f"one primary of {PRIMARY_CORES} cores", PRIMARY_CORES, "shards by user")
    rows = [[f"{rate:,.0f}", what, formula, then] for rate, what, formula, then in sorted(found)]
    return Rendered(
        "What ends first (all reckoned)", ["orders/s", "what ends there", "reckoned as", "what comes after it"], rows
    )


TABLES = {"reckoned-basis": measured, "reckoned-needs": needs, "reckoned-ends": ends}
"""By the name of their block in the page."""


def _cpu(folder: str, name: str) -> float:
    """Read how many cores a workload's container may have at most."""
    workload = manifests(folder, "Deployment", "StatefulSet")[name]
    return float(workload["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])


def _mebibytes(workload: dict[str, Any]) -> float:
    asked: str = workload["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["memory"]
    return float(asked.removesuffix("Mi"))


def _pool() -> int:
    """Read how many connections a pod holds in production."""
    text = (_KUBERNETES / "overlays" / "production" / "kustomization.yaml").read_text(encoding="utf-8")
    generators = yaml.safe_load(text)["configMapGenerator"]
    literals = dict(one.split("=", 1) for generator in generators for one in generator["literals"])
    return int(literals["DATABASE_POOL_SIZE"])


def _share_kept() -> float:
    """Read which share of the traces tail sampling keeps, beside errors and slow ones."""
    text = (PROJECT / "observability" / "collector" / "tail-sampling.yaml").read_text(encoding="utf-8")
    policies = yaml.safe_load(text)["processors"]["tail_sampling"]["policies"]
    (percentage,) = [one["probabilistic"]["sampling_percentage"] for one in policies if "probabilistic" in one]
    return float(percentage) / 100
