"""What was measured, as tables: on the terminal, and as Markdown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from bench import figures
from bench.figures import Spread
from bench.machine import QUIET
from bench.rows import HEADLINE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

AIM_KEPT = 0.75
"""The least share of the throughput without telemetry that should be left with all three signals and every trace."""
AIM_COST = 1.35
"""The most processor time that an order should take then, as a multiple of that without telemetry."""
AIM_STOCK = 0.6
"""The most processor time that telemetry should add, as a share of what zero-code instrumentation adds."""

_SEEN_MS = 0.005  # a part that takes less has no column


@dataclass(frozen=True)
class Rendered:
    """A table; its first and last columns are words, the others numbers.

    Attributes:
        numbers_last: The last column is numbers, too.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers_last: bool = False

    def markdown(self) -> str:
        """Write it as Markdown."""
        rule = ["---" if self._is_words(number) else "---:" for number in range(len(self.head))]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (self.head, rule, *self.rows)) + "\n"

    def show(self, console: Console) -> None:
        """Print it."""
        table = Table(title=self.title, title_justify="left")
        for number, name in enumerate(self.head):
            table.add_column(name, justify="left" if self._is_words(number) else "right")
        for cells in self.rows:
            table.add_row(*cells)
        console.print(table)

    def _is_words(self, column: int) -> bool:
        return column == 0 or (column == len(self.head) - 1 and not self.numbers_last)


def comparison(result: dict[str, Any]) -> list[Rendered]:
    """Tabulate configurations: how fast, how dear, compared with the base; and where the processor time went."""
    turns, texts = result["turns"], result["rows"]
    base = result["base"]
    against = "tutorial" if "tutorial" in texts and base != "tutorial" else None
    head = [
        "configuration",
        "orders/s",
        f"ratio to `{base}`",
        "CPU ms per order",
        f"ratio to `{base}`",
        "p50 ms",
        "p99 ms",
        "what it is",
    ]
    if against:
        head.insert(3, "ratio to `tutorial`")
    rows = []
    for name, text in texts.items():
        speed, cost = (figures.by_round(turns, name, field) for field in ("per_second", "cpu_ms"))
        if not speed:
            continue
        latency = [figures.by_round(turns, name, field) for field in ("p50_ms", "p99_ms")]
        cells = [
            f"`{name}`",
            Spread.of([*speed.values()]).text(),
            _ratio(speed, figures.by_round(turns, base, "per_second")),
            Spread.of([*cost.values()]).text(2),
            _ratio(cost, figures.by_round(turns, base, "cpu_ms")),
            *(f"{_median([*values.values()]):.1f}" if values else "" for values in latency),
            text,
        ]
        if against:
            times = figures.ratios(speed, figures.by_round(turns, against, "per_second"))
            cells.insert(3, f"{times.median:.2f}" if times else "")
        rows.append(cells)
    return [Rendered("Throughput and cost", head, rows), parts(result)]


def parts(result: dict[str, Any]) -> Rendered:
    """Tabulate the processor time of an order by part, medians, in milliseconds."""
    turns, texts = result["turns"], result["rows"]
    names = list(dict.fromkeys(part for turn in turns for part in turn["parts_cpu_ms"]))
    names = [part for part in names if any(turn["parts_cpu_ms"].get(part, 0) > _SEEN_MS for turn in turns)]
    rows = []
    for name in texts:
        of_row = [turn for turn in turns if turn["row"] == name]
        if not of_row:
            continue
        medians = [
            Spread.of([turn["parts_cpu_ms"].get(part, 0.0) for turn in of_row]).median
            if any(part in turn["parts_cpu_ms"] for turn in of_row)
            else None
            for part in names
        ]
        whole = _median([turn["cpu_ms"] for turn in of_row])
        rows.append([f"`{name}`", *("" if value is None else f"{value:.2f}" for value in medians), f"{whole:.2f}"])
    return Rendered(
        "CPU ms per order, by part", ["configuration", *(part.removesuffix("-service") for part in names), "all"], rows
    )


def aims(result: dict[str, Any]) -> list[str]:
    """Say which targets are met."""
    turns = result["turns"]
    speed, cost = ({row: figures.by_round(turns, row, field) for row in HEADLINE} for field in ("per_second", "cpu_ms"))
    added = {
        row: {number: taken - cost["off"][number] for number, taken in cost[row].items() if number in cost["off"]}
        for row in ("default", "stock")
    }
    found = [
        ("of the throughput without telemetry", speed["default"], speed["off"], "at least", AIM_KEPT),
        ("times the processor time per order without telemetry", cost["default"], cost["off"], "at most", AIM_COST),
        (
            "of what zero-code instrumentation adds to the processor time per order",
            added["default"],
            added["stock"],
            "at most",
            AIM_STOCK,
        ),
    ]
    said = []
    for text, values, base, limit, aim in found:
        if ratio := figures.ratios(values, base):
            met = ratio.median >= aim if limit == "at least" else ratio.median <= aim
            said.append(f"{ratio.text(2)} {text}; target {limit} {aim}: {'met' if met else 'not met'}")
    return said


def growth(result: dict[str, Any]) -> list[Rendered]:
    """Tabulate the same under growing load, or with growing numbers: the speed, the latency, and what is busy."""
    turns, texts = result["turns"], result["rows"]
    names = list(dict.fromkeys(part for turn in turns for part in turn["parts_cpu_ms"]))
    head = [
        result["what"],
        "orders/s",
        "p50 ms",
        "p99 ms",
        "machine busy",
        "CPU ms per order",
        "busiest parts (share of one core)",
    ]
    rows = []
    for name, text in texts.items():
        of_row = [turn for turn in turns if turn["row"] == name]
        if not of_row:  # it ended before this one's turn
            continue
        busiest = sorted(
            ((_median([turn["parts_cpu_ms"].get(part, 0.0) * turn["per_second"] / 1000 for turn in of_row]), part))
            for part in names
        )[::-1][:4]
        rows.append([
            text,
            Spread.of([turn["per_second"] for turn in of_row]).text(),
            *(Spread.of([turn[field] for turn in of_row]).text(1) for field in ("p50_ms", "p99_ms")),
            f"{_median([turn['machine_busy'] for turn in of_row]):.0%}",
            Spread.of([turn["cpu_ms"] for turn in of_row]).text(2),
            ", ".join(f"{part} {share:.0%}" for share, part in busiest),
        ])  # fmt: skip
    return [Rendered(result["title"], head, rows)]


def cluster(result: dict[str, Any]) -> list[Rendered]:
    """Tabulate ramps in a cluster: the knee by pods of order-service, and the whole curve."""
    head = [
        "pods",
        "maximum orders/s",
        "users at the knee",
        "p50 ms at the knee",
        "p99 ms at the knee",
        "database ms per order",
        "failed orders",
        "busiest parts (cores)",
    ]
    users = list(dict.fromkeys(stage["users"] for turn in result["turns"] for stage in turn["stages"]))
    knees, curve = [], []
    for name in result["rows"]:
        of_row = [turn for turn in result["turns"] if turn["row"] == name]
        if not of_row:
            continue
        parts = {part for turn in of_row for part in turn["cores"]}
        busiest = sorted((_median([turn["cores"].get(part, 0.0) for turn in of_row]), part) for part in parts)
        knees.append([
            name,
            Spread.of([turn["per_second"] for turn in of_row]).text(),
            *(Spread.of([turn["knee"][field] for turn in of_row]).text() for field in ("users", "p50", "p99")),
            Spread.of([turn["database_ms"] for turn in of_row]).text(1),
            f"{sum(turn['failures'] for turn in of_row):,} of {sum(turn['orders'] for turn in of_row):,}",
            ", ".join(f"{part} {cores:.2f}" for cores, part in busiest[::-1][:3]),
        ])  # fmt: skip
        rates = [
            Spread.of([stage["order_rate"] for turn in of_row for stage in turn["stages"] if stage["users"] == count])
            for count in users
        ]
        curve.append([name, *(rate.text() for rate in rates)])
    return [
        Rendered("The knee: the smallest number of users that reaches 90 % of the maximum orders/s", head, knees),
        Rendered(
            "Orders/s by number of users", ["pods", *(_users(count) for count in users)], curve, numbers_last=True
        ),
    ]


def _users(count: int) -> str:
    return "1 user" if count == 1 else f"{count} users"


def budget(result: dict[str, Any]) -> list[Rendered]:
    """Tabulate start times and memory against the budget."""
    head = ["part", *(f"{text} (budget)" for text, _field, _digits in _BUDGET_FIELDS), "RSS MB after orders"]
    rows = [
        [
            part["name"],
            *(
                _against(part.get(field), part.get(f"{field}_budget"), digits)
                for _text, field, digits in _BUDGET_FIELDS
            ),
            f"{part['rss_mb']:.0f}" if "rss_mb" in part else "",
        ]
        for part in result["parts"]
    ]
    return [Rendered("Start time and memory", head, rows)]


_BUDGET_FIELDS = (
    ("start s", "start_seconds", 1),
    ("PSS MB at rest", "idle_mb", 0),
    ("PSS MB after orders", "loaded_mb", 0),
)


def steps(results: Sequence[dict[str, Any]]) -> Rendered:
    """Tabulate what each of some changes gave: comparisons of two configurations, without it and with it."""
    head = ["step", "orders/s", "CPU ms per order", "ratio of orders/s", "ratio of CPU", "conclusion"]
    rows = []
    for result in results:
        before, after = result["rows"]
        cells = [result["title"] or after]
        of_both = {
            field: [figures.by_round(result["turns"], row, field) for row in (before, after)]
            for field in ("per_second", "cpu_ms")
        }
        for field, digits in (("per_second", 0), ("cpu_ms", 2)):
            cells.append(" -> ".join(f"{_median([*values.values()]):,.{digits}f}" for values in of_both[field]))
        cells += [_ratio(of_second, of_first) for of_first, of_second in of_both.values()]
        rows.append([*cells, result["verdict"]])
    return Rendered("What each step saves", head, rows)


def switches(result: dict[str, Any]) -> list[Rendered]:
    """Tabulate what an order takes in all, and what its checks of switches that are off take of that."""
    turns = result["turns"]
    order, checks = (Spread.of([turn[name] for turn in turns]) for name in ("order_us", "checks_us"))
    part = Spread.of([turn["checks_us"] / turn["order_us"] * 100 for turn in turns])
    rows = [
        ["a whole order, in all parts", order.text(), ""],
        [f"its {len(result['asked'])} checks of switches that are off", checks.text(2), f"{part.text(3)} %"],
    ]
    return [Rendered("Processor time of an order", ["what", "microseconds", "of the whole"], rows)]


def switches_sentence(result: dict[str, Any]) -> str:
    """Say the same in words."""
    turns, count = result["turns"], len(result["asked"])
    order, checks = (_median([turn[name] for turn in turns]) for name in ("order_us", "checks_us"))
    part = _median([turn["checks_us"] / turn["order_us"] for turn in turns])
    where = ", on a busy machine" if result["machine"].get("busy_before", 0) > QUIET else ""
    return (
        f"With all faults off, a paid order checks {count} times whether one is on, in three services. That takes"
        f" {checks:.1f} µs of the {order:,.0f} µs of processor time that the order takes in all parts, {part:.3%}"
        f" (`{result['command']}`, {result['when']}{where})."
    )


def tables(result: dict[str, Any]) -> list[Rendered]:
    """Tabulate a result of any kind."""
    of_kind = {
        "comparison": comparison,
        "growth": growth,
        "budget": budget,
        "capacity": capacity,
        "stores": stores,
        "cluster": cluster,
        "switches": switches,
    }
    return of_kind[result["kind"]](result)


def remarks(result: dict[str, Any]) -> list[str]:
    """Say what is to be said about a result beside its tables."""
    said = aims(result) if result["kind"] == "comparison" else result.get("remarks", [])
    return [*said, *warnings(result)]


def markdown(result: dict[str, Any]) -> str:
    """Write a result as Markdown."""
    parts = [f"**{table.title}**\n\n{table.markdown()}" for table in tables(result)]
    if said := remarks(result):
        parts.append("".join(f"- {line}\n" for line in said))
    return "\n".join([*parts, machine_line(result) + "\n"])


RATES = (10, 1_000, 100_000)
"""Orders a second in the table of capacities."""
BUSY = 0.6
"""How busy a core may be on average: above this, waiting grows faster than work."""
LIMITER_MB = 160
"""The memory limit of our Collector (memory_limiter)."""
SAMPLE_BYTES = 1.5
"""The size of one sample in Prometheus' store: 1 to 2 bytes, according to its documentation."""
SCRAPE_SECONDS = 5
"""Between two samples of a series."""

_DAY = 86_400
_SHOP = ("nginx", "auth-service", "user-service", "product-service", "order-service", "payment-service")
_COMMITS = 3
_BUSY = f"at most {BUSY:.0%} busy"


def capacity(result: dict[str, Any]) -> list[Rendered]:
    """Tabulate what the shop needs at each order rate, calculated from the measured cost and size of one order."""
    local = result["full"]
    cpu_ms, each = local["parts_cpu_ms"], local["each"]
    table = _Needs(local["per_second"])

    def processes(part: str, rate: int) -> int:
        return max(1, math.ceil(float(cpu_ms[part]) * rate / 1000 / BUSY))

    def replicas(part: str) -> None:
        how = f"one process uses one core; {cpu_ms[part]:.2f} ms per order, {_BUSY}"
        table.line(f"replicas of {part}", lambda rate: f"{processes(part, rate):,}", how)

    def connections(rate: int) -> str:
        return f"{(processes('order-service', rate) + processes('payment-service', rate)) * local['pool']:,}"

    def samples(rate: int) -> str:
        stored = local["series"] * processes("order-service", rate) / SCRAPE_SECONDS * _DAY * SAMPLE_BYTES
        return amount(stored)

    table.cores("gateway and services", sum(cpu_ms.get(part, 0.0) for part in _SHOP))
    table.cores("PostgreSQL", cpu_ms["order-db"])
    for part in ("order-service", "payment-service", "product-service"):
        replicas(part)
    how = f"a pool of {local['pool']} for each replica of order- and payment-service"
    table.line("connections to PostgreSQL", connections, how)
    table.line("commits/s", lambda rate: f"{_COMMITS * rate:,}", f"{_COMMITS} per order")
    table.daily("PostgreSQL", each["database_bytes"], ", with indexes")
    table.line("spans/s", lambda rate: f"{each['spans'] * rate:,.0f}", f"{each['spans']:.1f} per order")
    table.daily("log lines, uncompressed", each["log_bytes"], f", in {each['log_lines']:.1f} lines")
    table.daily("embedded backend", each["embedded_bytes"], " for spans and log lines")
    table.line(
        "Prometheus, a day",
        samples,
        f"{local['series']:,.0f} series with one replica of each service, every {SCRAPE_SECONDS} s,"
        f" {SAMPLE_BYTES} bytes a sample; series grow with replicas",
    )
    return [table.titled("What the shop needs at each order rate")]


def stores(result: dict[str, Any]) -> list[Rendered]:
    """Tabulate what the Collector, Jaeger and Loki need at each order rate."""
    real = result["backends"]
    cost, memory, each = real["parts_cpu_ms"], real["memory_mb"], real["each"]
    table = _Needs(real["per_second"])

    def collector(rate: int) -> str:
        if rate <= real["per_second"]:
            return f"{memory['collector']:.0f} MB"
        return f"{math.ceil(cost['collector'] * rate / 1000 / BUSY) * LIMITER_MB:,} MB"

    table.daily("Jaeger (Badger)", each["jaeger_bytes"], " on disk")
    table.daily("Loki", each["loki_bytes"], " on disk, chunks and index")
    table.cores("Collector (traces)", cost["collector"])
    table.cores("Jaeger", cost["jaeger"])
    table.line(
        "Collector, memory",
        collector,
        f"measured at {real['per_second']:.0f} orders/s; above that, {LIMITER_MB} MB for each core (memory_limiter)",
    )
    return [table.titled("What the stores in Compose need at each order rate")]


class _Needs:
    """A table of what is needed at each order rate. Each cell says whether the rate is above the measured one."""

    def __init__(self, measured: float) -> None:
        self._measured = measured
        self._rows: list[list[str]] = []

    def titled(self, title: str) -> Rendered:
        head = ["what", *(f"{rate:,} orders/s" for rate in RATES), "basis"]
        return Rendered(f"{title} (m: within the measured range, c: calculated for a higher rate)", head, self._rows)

    def line(self, name: str, of_rate: Callable[[int], str], how: str) -> None:
        cells = (f"{of_rate(rate)} {'m' if rate <= self._measured else 'c'}" for rate in RATES)
        self._rows.append([name, *cells, how])

    def daily(self, name: str, size: float, how: str) -> None:
        self.line(f"{name}, a day", lambda rate: amount(size * rate * _DAY), f"{size:,.0f} bytes per order{how}")

    def cores(self, name: str, cost: float) -> None:
        self.line(f"cores, {name}", lambda rate: _cores(cost, rate), f"{cost:.2f} ms per order, {_BUSY}")


def _cores(milliseconds: float, rate: int) -> str:
    need = milliseconds * rate / 1000 / BUSY
    return f"{need:.1f}" if need < 10 else f"{need:,.0f}"  # noqa: PLR2004


def amount(size: float) -> str:
    """Say a number of bytes."""
    for unit in ("MB", "GB", "TB"):
        size /= 1e6 if unit == "MB" else 1e3
        if size < 1000:  # noqa: PLR2004
            break
    return f"{size:,.1f} {unit}"


def machine_line(result: dict[str, Any]) -> str:
    """Say where and with what this was measured."""
    machine = result["machine"]
    commits = " and ".join(dict.fromkeys(result.get("commits", {}).values())) or machine["commit"]
    versions = ", ".join(
        f"{name} {value}"
        for name, value in machine.items()
        if value and name not in ("cores", "cpu", "memory_gb", "kernel", "commit", "busy_before")
    )
    return (
        f"`{result['command']}` at commit {commits}, {result['when']}, on {machine['cores']} cores of"
        f" {machine['cpu']}, {machine['memory_gb']} GB, Linux {machine['kernel']}; {versions}."
    )


def warnings(result: dict[str, Any]) -> list[str]:
    """Say what is no measurement."""
    return ["Measured with --noisy, to try the command: the numbers say nothing."] if result.get("noisy") else []


def _ratio(values: dict[int, float], base: dict[int, float]) -> str:
    ratio = figures.ratios(values, base)
    return ratio.text(2) if ratio else ""


def _median(values: Sequence[float]) -> float:
    return Spread.of(values).median


def _against(value: float | None, limit: float | None, digits: int) -> str:
    if value is None:
        return "" if limit is None else f"not measured ({limit:g})"
    return f"{value:.{digits}f}" + (f" ({limit:g})" if limit is not None else "")
