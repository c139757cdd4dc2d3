"""The tables of docs/capacity.md: what 1,000 and 100,000 orders a second need and cost, and which limits come first.

Everything is calculated from the measurements `capacity.json`, `stores.json` and `cluster.json` in docs/performance,
and from the numbers in deploy/kubernetes and observability. The three measurements were made in different places, so
the cost of an order is a range from the smallest to the largest of them.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from bench.report import BUSY, SAMPLE_BYTES, SCRAPE_SECONDS, Rendered, amount
from local.settings import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RATES = (1_000, 100_000)
NODE_CORES, NODE_GB = 16, 64
"""The node that the calculation assumes. Nobody measured one of this size."""
NODE_SHARE = 0.9
"""The share of a node that the shop may request: the kubelet, the network plugin and the agent need the rest."""
PRIMARY_CORES = 32
"""The cores of the largest database server; if more are needed, there are several primaries."""
SERVERS = 3
"""PostgreSQL servers for each primary: the primary itself and two standbys."""
LAST_ID = 2**31 - 1
"""The largest `orders.orders.id`, which is a SERIAL."""
TRACE_HOURS, LOG_HOURS = 48, 72
"""How long Jaeger and Loki in Compose keep their data."""
TRACE_COPIES = 3
"""In OpenSearch: deploy/kubernetes/values/jaeger.yaml asks for two replicas of each shard."""
LOKI_MB = 4
"""Loki's default limit for each tenant, in MB a second (`ingestion_rate_mb`)."""
CORE_PRICE, DISK_PRICE, OBJECT_PRICE = 30.0, 0.10, 0.025
"""Assumed prices in USD a month: a core with 4 GB of memory, a GB of disk, a GB in an object store."""

_DAY = 86_400
_MONTH = 30
_KUBERNETES = PROJECT / "deploy" / "kubernetes"
_SCALED = ("nginx", "order-service", "payment-service", "product-service")
_POOLED = ("order-service", "payment-service")
_STORES = ("collector", "jaeger", "loki")
_RENEWED = ("payment-service", "product-service")
"""Services whose callers keep their connections."""


@dataclass(frozen=True)
class Order:
    """What one order uses and stores.

    Attributes:
        cpu_ms: Processor time, by part.
        each: Bytes, spans and lines, by kind.
        series: Series in Prometheus, with one pod of each service.
    """

    cpu_ms: dict[str, float]
    each: dict[str, float]
    series: float

    @classmethod
    def least_and_most(cls, result: dict[str, Any], cluster: dict[str, Any] | None) -> tuple[Order, Order]:
        """Take the smallest and the largest measured cost of each part."""
        costs = _costs(result, cluster)
        each = {**result["full"]["each"], **result["stores"]["backends"]["each"]}
        found = []
        for choose in (min, max):
            cpu = {part: choose(run[part] for run in costs if part in run) for run in costs for part in run}
            found.append(cls(cpu, each, result["full"]["series"]))
        return found[0], found[1]

    def pods(self, part: str, rate: float) -> int:
        """Calculate how many pods a part needs, each with one core."""
        return max(1, math.ceil(self.cores(part, rate)))

    def cores(self, part: str, rate: float) -> float:
        """Calculate how many cores a part needs."""
        return self.cpu_ms[part] * rate / 1000 / BUSY

    def all_cores(self, rate: float) -> float:
        """Calculate how many cores the shop, the Collector and Jaeger need together."""
        return sum(self.cores(part, rate) for part in (*_SCALED, "collector", "jaeger"))

    def nodes(self, rate: float) -> int:
        """Calculate how many nodes are needed for that."""
        cores, memory = self.all_cores(rate), self.memory(rate)
        return math.ceil(max(cores / (NODE_CORES * NODE_SHARE), memory / (NODE_GB * NODE_SHARE)))

    def memory(self, rate: float) -> float:
        """Calculate how many GiB of memory the shop's pods request."""
        deployments = manifests("base", "Deployment")
        return sum(self.pods(part, rate) * _mebibytes(deployments[part]) for part in _SCALED) / 1024

    def primaries(self, rate: float) -> int:
        """Calculate how many PostgreSQL primaries are needed."""
        return math.ceil(self.cores("order-db", rate) / PRIMARY_CORES)

    def metrics(self, rate: float) -> float:
        """Calculate how many series Prometheus has."""
        return self.series * self.pods("order-service", rate)

    def ends_at(self, part: str, cores: float) -> float:
        """Calculate how many orders a second a part can handle with this number of cores."""
        return cores * BUSY * 1000 / self.cpu_ms[part]


def _costs(result: dict[str, Any], cluster: dict[str, Any] | None) -> list[dict[str, float]]:
    """Give the processor time of an order, by part, on one machine, with the stores, and in the cluster."""
    local, real = result["full"]["parts_cpu_ms"], result["stores"]["backends"]["parts_cpu_ms"]
    ratio = local["order-service"] / real["order-service"]
    found = [{**local, **{part: real[part] * ratio for part in _STORES}}, real]
    return [*found, _in_cluster(cluster)] if cluster else found


def _in_cluster(cluster: dict[str, Any]) -> dict[str, float]:
    """Give the processor time of an order and of reading it once, by part: medians, with the fewest pods."""
    fewest = min(cluster["rows"], key=int)
    turns = [turn for turn in cluster["turns"] if turn["row"] == fewest]
    return {
        part: statistics.median(turn["cores"][part] * 1000 / _rate(turn) for turn in turns)
        for part in turns[0]["cores"]
    }


def _rate(turn: dict[str, Any]) -> float:
    """Give the orders a second of a whole ramp, from its first stage to its last."""
    return float(turn["orders"] / sum(stage["seconds"] for stage in turn["stages"]))


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


def measured(result: dict[str, Any], cluster: dict[str, Any] | None) -> Rendered:
    """Tabulate the measurements on which the calculations are based, and where they were made."""
    stores = result["stores"]
    runs = [result, stores, cluster] if cluster else [result, stores]
    costs = _costs(result, cluster)
    rates = [result["full"]["per_second"], stores["backends"]["per_second"]]
    if cluster:
        fewest = min(cluster["rows"], key=int)
        rates.append(statistics.median(_rate(turn) for turn in cluster["turns"] if turn["row"] == fewest))
    rows = [
        ["measured by", *(f"`{run['command']}`" for run in runs), ""],
        ["on", *(f"{run['machine']['cores']} cores, {run['machine']['cpu']}" for run in runs), ""],
        ["commit, day", *(f"{run['machine']['commit']}, {run['when']}" for run in runs), ""],
        ["orders/s during the run", *(f"{rate:,.0f}" for rate in rates), "cluster: the mean of a ramp with one pod"],
    ]
    ratio = f"{costs[0]['order-service']:.2f} / {costs[1]['order-service']:.2f}"
    calculated = f"measured with the stores; for one machine calculated: x {ratio}, the ratio of order-service"
    for part in (*_SCALED, "order-db", "embedded-backend", "gateway-telemetry", *_STORES):
        cells = [f"{_milliseconds(run[part])} ms" if part in run else "-" for run in costs]
        rows.append([f"CPU, {part}", *cells, calculated if part in _STORES else "measured"])
    for part in _POOLED:
        cells = [f"{run[part] / costs[0][part]:.2f}" for run in costs]
        rows.append([f"{part}, ratio to one machine", *cells, "calculated from the rows above"])
    blank = ["-"] * (len(costs) - 2)
    here, there = result["full"]["each"], stores["backends"]["each"]
    left = {
        "PostgreSQL, with indexes": [f"{here['database_bytes']:,.0f} bytes", "-"],
        "Jaeger with every trace, on disk (Badger)": ["-", f"{there['jaeger_bytes']:,.0f} bytes"],
        "Loki, chunks and index": ["-", f"{there['loki_bytes']:,.0f} bytes"],
        "log lines, uncompressed": [f"{here['log_bytes']:,.0f} bytes", "-"],
        "spans": [f"{here['spans']:.1f}", "-"],
        "log lines": [f"{here['log_lines']:.1f}", "-"],
    }
    rows += [[name, *cells, *blank, "measured"] for name, cells in left.items()]
    head = [
        "for one order",
        "one machine",
        "with the stores, older release",
        "cluster, with one read of the order",
        "source",
    ]
    if not cluster:
        head.pop(3)
    return Rendered("What one order uses and stores", head, rows)


def needs(result: dict[str, Any], cluster: dict[str, Any] | None) -> Rendered:
    """Tabulate what the shop needs at each order rate."""
    least, most = Order.least_and_most(result, cluster)
    pool, share = _pool(), _share_kept()
    rows: list[list[str]] = []

    def line(name: str, of_order: Callable[[Order, int], str], formula: str) -> None:
        rows.append([name, *(_between(of_order(least, rate), of_order(most, rate)) for rate in RATES), formula])

    def cost(part: str) -> str:
        return f"{_between(_milliseconds(least.cpu_ms[part]), _milliseconds(most.cpu_ms[part]))} ms"

    def connections(order: Order, rate: int) -> int:
        return sum(order.pods(part, rate) for part in _POOLED) * pool

    scalers = manifests("components/autoscaling", "HorizontalPodAutoscaler")
    asked = _asked_in_production()
    users = scalers["user-service"]["spec"]["maxReplicas"]

    def made(order: Order, part: str, rate: int) -> int:
        spec = scalers[part]["spec"]
        aim = spec["metrics"][0]["resource"]["target"]["averageUtilization"] / 100
        wanted = math.ceil(order.cpu_ms[part] * rate / 1000 / (asked * aim))
        return int(min(max(wanted, spec["minReplicas"]), spec["maxReplicas"]))

    def held(order: Order, rate: int) -> int:
        return int((sum(made(order, part, rate) for part in _POOLED) + users) * pool)

    for part in _SCALED:
        formula = f"{cost(part)} x rate / {BUSY:.0%} of one core"
        line(f"pods of {part}", lambda order, rate, part=part: f"{order.pods(part, rate):,}", formula)  # type: ignore[misc]
    line(
        "cores for these pods, the Collector and Jaeger",
        lambda order, rate: f"{order.all_cores(rate):,.0f}",
        "the sum, calculated in the same way, with every trace kept",
    )
    line("memory for these pods", lambda order, rate: f"{order.memory(rate):,.0f} GiB", "pods x memory request of each")
    line(
        f"nodes of {NODE_CORES} cores and {NODE_GB} GB",
        lambda order, rate: f"{order.nodes(rate):,}",
        f"cores or memory (whichever needs more nodes) / {NODE_SHARE:.0%} of a node; without the database",
    )
    line(
        "PostgreSQL, cores",
        lambda order, rate: f"{order.cores('order-db', rate):,.0f}",
        f"{cost('order-db')} x rate / {BUSY:.0%}",
    )
    line(
        f"PostgreSQL, primaries of {PRIMARY_CORES} cores",
        lambda order, rate: f"{order.primaries(rate):,}",
        f"cores / {PRIMARY_CORES}, rounded up; each primary also has two standbys."
        " Commits and waiting for the disk are not included",
    )
    line("commits/s", lambda _, rate: f"{3 * rate:,}", "3 per order")
    line(
        "connections, for these pods without a pooler",
        lambda order, rate: f"{connections(order, rate):,}",
        f"{pool} x pods of order- and payment-service",
    )
    line(
        "connections, for the pods that the autoscaler starts",
        lambda order, rate: f"{held(order, rate):,}",
        f"{pool} x (pods of order- and payment-service + {users} of user-service). The autoscaler starts pods until"
        f" they meet its CPU target (each requests {asked:g} cores), up to `maxReplicas`. The example's PostgreSQL"
        f" allows {_most_connections():,} connections",
    )
    line(
        "days until `orders.id` runs out",
        lambda _, rate: f"{LAST_ID / rate / _DAY:,.1f}",
        "(2^31 - 1) / rate: the column is a SERIAL of 32 bits",
    )
    line("rows of orders, a day", lambda _, rate: f"{rate * _DAY / 1e6:,.0f} million", "rate x 86,400")
    line(
        "PostgreSQL, an hour",
        lambda order, rate: amount(order.each["database_bytes"] * rate * 3600),
        f"{least.each['database_bytes']:,.0f} bytes x rate x 3,600: the size of a partition that holds one hour",
    )
    for name, key, factor in (
        ("PostgreSQL, a day", "database_bytes", 1.0),
        ("Jaeger, a day, every trace", "jaeger_bytes", 1.0),
        (f"Jaeger, a day, with {share:.0%} of the traces", "jaeger_bytes", share),
        ("Loki, a day", "loki_bytes", 1.0),
    ):
        size = least.each[key] * factor
        line(name, lambda _, rate, size=size: amount(size * rate * _DAY), f"{size:,.0f} bytes x rate x 86,400")  # type: ignore[misc]
    traces, logs = _kept(least, share)
    line(
        "Jaeger and Loki, all data kept",
        lambda _, rate: amount((traces + logs) * rate),
        f"{share:.0%} of the traces for {TRACE_HOURS} h, log lines for {LOG_HOURS} h, one copy of each",
    )
    line(
        "Prometheus, series",
        lambda order, rate: f"{order.metrics(rate):,.0f}",
        f"{least.series:,.0f} (with one pod of each service) x pods of order-service; an overestimate",
    )
    days, size = _retention()
    kept = [
        [f"{min(days, size / (order.metrics(rate) * _sampled())):,.1f}" for order in (most, least)] for rate in RATES
    ]
    formula = f"{days:g}, or fewer if {size / 2**30:g} GB are full earlier; {SAMPLE_BYTES} bytes for each series every"
    rows.append(["Prometheus, days of data kept", *(_between(*each) for each in kept), f"{formula} {SCRAPE_SECONDS} s"])
    line("spans/s", lambda order, rate: f"{order.each['spans'] * rate:,.0f}", f"{least.each['spans']:.1f} x rate")
    line(
        "log lines/s",
        lambda order, rate: f"{order.each['log_lines'] * rate:,.0f}",
        f"{least.each['log_lines']:.1f} x rate",
    )
    head = ["what", *(f"{rate:,} orders/s" for rate in RATES), "calculation"]
    return Rendered("What the shop needs at each order rate (all calculated)", head, rows)


def price(result: dict[str, Any], cluster: dict[str, Any] | None) -> Rendered:
    """Tabulate the cost of that for a month, at assumed prices."""
    least, most = Order.least_and_most(result, cluster)
    traces, logs = _kept(least, _share_kept())
    disk = least.each["database_bytes"] * _DAY * _MONTH * SERVERS / 1e9 * DISK_PRICE
    lines: list[tuple[str, Callable[[Order, int], float], str]] = [
        (
            "nodes",
            lambda order, rate: order.nodes(rate) * NODE_CORES * CORE_PRICE,
            f"nodes x {NODE_CORES} cores x {CORE_PRICE:g}",
        ),
        (
            "PostgreSQL, cores",
            lambda order, rate: math.ceil(order.cores("order-db", rate)) * SERVERS * CORE_PRICE,
            f"cores x {SERVERS} servers x {CORE_PRICE:g}",
        ),
        (
            "PostgreSQL, disk of one month's orders",
            lambda _, rate: disk * rate,
            f"GB of {_MONTH} days x {SERVERS} servers x {DISK_PRICE:g} a GB; each further month adds the same",
        ),
        (
            "Jaeger, disk",
            lambda _, rate: traces * rate * TRACE_COPIES / 1e9 * DISK_PRICE,
            f"GB kept x {TRACE_COPIES} copies x {DISK_PRICE:g} a GB",
        ),
        (
            "Loki, object store",
            lambda _, rate: logs * rate / 1e9 * OBJECT_PRICE,
            f"GB kept x {OBJECT_PRICE:g} a GB",
        ),
    ]
    lines.append(("all", lambda order, rate: sum(of_order(order, rate) for _, of_order, _ in lines[:-1]), "sum"))
    rows = [
        [name, *(_between(f"{of_order(least, rate):,.0f}", f"{of_order(most, rate):,.0f}") for rate in RATES), formula]
        for name, of_order, formula in lines
    ]
    head = ["USD a month", *(f"{rate:,} orders/s" for rate in RATES), "calculation"]
    return Rendered("What that costs, at assumed prices (all calculated)", head, rows)


def ends(result: dict[str, Any], cluster: dict[str, Any] | None) -> Rendered:
    """Tabulate the order rate at which each part reaches its limit, the lowest rate first."""
    least, most = Order.least_and_most(result, cluster)
    scalers = manifests("components/autoscaling", "HorizontalPodAutoscaler")
    found: list[tuple[float, float, str, str, str]] = []

    def end(part: str, what: str, cores: float, then: str) -> None:
        cost = _between(_milliseconds(least.cpu_ms[part]), _milliseconds(most.cpu_ms[part]))
        formula = f"{_count(cores)} x {BUSY:.0%} / {cost} ms"
        found.append((most.ends_at(part, cores), least.ends_at(part, cores), what, formula, then))

    end("embedded-backend", "the embedded backend, one process", 1, "use Jaeger and Loki")
    end(
        "jaeger",
        "Jaeger in one pod, every trace",
        1,
        "tail sampling; Jaeger's collectors in pods of their own, with OpenSearch",
    )
    end("loki", "Loki in one pod", 1, "three Lokis with an object store: `values/loki.yaml`")
    collector = _cpu("components/telemetry/stack", "collector")
    end("collector", "the Collector in one pod", collector, "`tail-sampling`: several behind a load-balancing layer")
    several = _tail_sampling_replicas()
    end(
        "collector",
        f"{several} Collectors of `tail-sampling`",
        collector * several,
        "increase `replicas` by hand: no autoscaler does it. Tail sampling costs more than was measured here",
    )
    gateway = _cpu("components/telemetry/stack", "gateway-telemetry")
    end("gateway-telemetry", "gateway-telemetry, one pod", gateway, "increase `replicas` by hand: not tried")
    end("order-db", "PostgreSQL in `local`", _cpu("components/postgres", "order-db"), "CloudNativePG on larger nodes")
    for part in _SCALED:
        then = "more pods: the autoscaler starts them"
        if part in _RENEWED:
            then += ". They get work when callers renew their connections, at least once a minute"
        end(part, f"one pod of {part}", 1, then)
        most_pods = scalers[part]["spec"]["maxReplicas"]
        end(
            part,
            f"{most_pods} pods of {part}, the autoscaler's maximum",
            most_pods,
            "a higher `maxReplicas`" + ", and enough database connections for it" * (part in _POOLED),
        )
    end("order-db", f"one primary of {PRIMARY_CORES} cores", PRIMARY_CORES, "shards by user")
    for where, megabytes in _loki_limits().items():
        rate = megabytes * 2**20 / least.each["log_bytes"]
        formula = f"{megabytes:g} MB/s / {least.each['log_bytes']:,.0f} bytes of uncompressed lines"
        what = f"Loki's limit for one tenant, {where}"
        found.append((rate, rate, what, formula, "a higher `ingestion_rate_mb`; Loki refuses lines above it"))
    rows = [
        [_between(f"{low:,.0f}", f"{high:,.0f}"), what, formula, then]
        for low, high, what, formula, then in sorted(found)
    ]
    agent = _cpu("components/telemetry/agent", "collector-agent")
    balancer = _cpu("components/tail-sampling/stack", "collector-balancer")
    unknown = "not measured"
    rows += [
        [unknown, "the agent on each node, which reads log files", f"at most {_count(agent)}", "a higher CPU limit"],
        [
            unknown,
            "the load-balancing layer for spans",
            f"at most {_count(balancer)} for each pod",
            "increase `replicas` by hand",
        ],
    ]
    return Rendered(
        "Which limit is reached first (all calculated)", ["orders/s", "limit", "calculation", "what to do then"], rows
    )


TABLES = {"reckoned-basis": measured, "reckoned-needs": needs, "reckoned-costs": price, "reckoned-ends": ends}
"""By the name of their block in the page."""


def _between(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _milliseconds(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"  # noqa: PLR2004


def _count(cores: float) -> str:
    return f"{cores:g} core{'s' * (cores != 1)}"


def _kept(order: Order, share: float) -> tuple[float, float]:
    """Calculate the bytes of traces and of log lines that are kept for each order a second."""
    return (
        order.each["jaeger_bytes"] * share * TRACE_HOURS * 3600,
        order.each["loki_bytes"] * LOG_HOURS * 3600,
    )


def _sampled() -> float:
    """Calculate the bytes that a series takes in Prometheus each day."""
    return SAMPLE_BYTES * _DAY / SCRAPE_SECONDS


def _cpu(folder: str, name: str) -> float:
    """Read how many cores a workload's container may have at most."""
    workload = manifests(folder, "Deployment", "StatefulSet", "DaemonSet")[name]
    container = workload["spec"]["template"]["spec"]["containers"][0]
    limit = str(container["resources"]["limits"]["cpu"])
    return _cores(limit)


def _cores(text: str) -> float:
    return float(text.removesuffix("m")) / 1000 if text.endswith("m") else float(text)


def _mebibytes(workload: dict[str, Any]) -> float:
    asked: str = workload["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["memory"]
    return float(asked.removesuffix("Mi"))


def _pool() -> int:
    """Read how many connections a pod holds in production."""
    generators = _read(_KUBERNETES / "overlays" / "production" / "kustomization.yaml")["configMapGenerator"]
    literals = dict(one.split("=", 1) for generator in generators for one in generator["literals"])
    return int(literals["DATABASE_POOL_SIZE"])


def _share_kept() -> float:
    """Read which share of the traces tail sampling keeps, beside errors and slow ones."""
    sampling = _read(PROJECT / "observability" / "collector" / "tail-sampling.yaml")
    policies = sampling["processors"]["tail_sampling"]["policies"]
    (percentage,) = [one["probabilistic"]["sampling_percentage"] for one in policies if "probabilistic" in one]
    return float(percentage) / 100


def _patches(name: str) -> dict[tuple[str, str], Any]:
    """Read the patches of a kustomization below deploy/kubernetes: their values, by target and path."""
    patches = _read(_KUBERNETES / name / "kustomization.yaml")["patches"]
    return {
        (each["target"].get("name") or each["target"]["labelSelector"], change["path"]): change.get("value")
        for each in patches
        for change in yaml.safe_load(each["patch"])
        if isinstance(change, dict)
    }


def _asked_in_production() -> float:
    """Read how many cores a service's pod requests in production."""
    path = "/spec/template/spec/containers/0/resources/requests/cpu"
    asked: str = _patches("overlays/production")["app.kubernetes.io/component=service", path]
    return _cores(asked)


def _tail_sampling_replicas() -> int:
    return int(_patches("components/tail-sampling")["collector", "/spec/replicas"])


def _most_connections() -> int:
    """Read how many connections the example's PostgreSQL allows."""
    database = manifests("examples/cloudnative-pg.yaml", "Cluster")
    (spec,) = (each["spec"] for each in database.values())
    return int(spec["postgresql"]["parameters"]["max_connections"])


def _retention() -> tuple[float, float]:
    """Read how many days and how many bytes Prometheus keeps in a cluster."""
    kept = _read(PROJECT / "observability" / "prometheus" / "kubernetes.yml")["storage"]["tsdb"]["retention"]
    return float(kept["time"].removesuffix("d")), float(kept["size"].removesuffix("GB")) * 2**30


def _loki_limits() -> dict[str, float]:
    """Read how many MB a second Loki accepts from a tenant, where it runs in a cluster."""
    limits = {
        "in `local-full`": _read(PROJECT / "observability" / "loki" / "config.yaml")["limits_config"],
        "with `values/loki.yaml`": _read(_KUBERNETES / "values" / "loki.yaml")["loki"]["limits_config"],
    }
    return {where: float(limit.get("ingestion_rate_mb", LOKI_MB)) for where, limit in limits.items()}


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))
