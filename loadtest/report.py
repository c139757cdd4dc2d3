"""The report of a run: tables, for the terminal and as a page of HTML, and all of it as JSON."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import jinja2
from rich.table import Table as RichTable
from rich.text import Text

from loadtest.limits import orders_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rich.console import Console

_SLOWEST_SHOWN = 10
_MEGABYTE = 2**20

_PAGE = jinja2.Environment(autoescape=True).from_string("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }
  table { border-collapse: collapse; margin: .5rem 0 1.5rem }
  caption { text-align: left; font-weight: 600; padding: .3rem 0; font-size: 1.1rem }
  th, td { border-bottom: 1px solid #d4d8dd; padding: .2rem .8rem .2rem 0; text-align: left }
  .number { text-align: right; font-variant-numeric: tabular-nums; padding-left: .8rem }
  .note { color: #57606a; margin-top: -1.2rem }
  .verdict { font-size: 1.2rem; border-left: .4rem solid; padding-left: .8rem }
  .good { border-color: #1a7f37 } .bad { border-color: #cf222e }
  code { font-size: .9em }
</style>
<h1>{{ title }}</h1>
<p class="verdict {{ "good" if good else "bad" }}">{{ verdict }}</p>
{% for note in notes %}<p>{{ note }}</p>
{% endfor %}
{% for table in tables %}
<table>
  <caption>{{ table.title }}</caption>
  {% for row in table.lines() %}
  {% set tag = "th" if loop.first else "td" %}
  <tr>
    {% for cell in row %}
    <{{ tag }}{% if loop.index0 not in table.words %} class="number"{% endif %}>{{ cell }}</{{ tag }}>
    {% endfor %}
  </tr>
  {% endfor %}
</table>
{% if table.note %}<p class="note">{{ table.note }}</p>{% endif %}
{% endfor %}
<p>Beside this: <a href="locust.html">Locust's own page</a> with its curves,
<a href="report.json">all of it as JSON</a>, <a href="requests.csv">the requests</a> and
<a href="locust_stats_history.csv">the run by the second</a> as CSV.</p>
</html>
""")


@dataclass(frozen=True)
class Table:
    """A table of the report."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    words: frozenset[int] = frozenset({0})
    """Columns of words; the others are numbers, which stand to the right."""
    note: str = ""

    def lines(self) -> Iterator[tuple[str, ...]]:
        """Give the heading, and the rows."""
        yield self.columns
        yield from self.rows


def write(folder: Path, report: dict[str, Any]) -> None:
    """Write the report as JSON, CSV and HTML."""
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    with (folder / "requests.csv").open("w", newline="", encoding="utf-8") as file:
        names = ["method", "name", "count", "failures", "rate", "p50", "p95", "p99", "max"]
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(report["requests"])
    page = _PAGE.render(
        title=_title(report),
        verdict=verdict(report),
        good=report["good"],
        notes=report["notes"],
        tables=list(tables(report)),
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def show(console: Console, report: dict[str, Any]) -> None:
    """Print the report."""
    for table in tables(report):
        shown = RichTable(title=table.title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
        for index, column in enumerate(table.columns):
            words = index in table.words
            shown.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=not words)
        for row in table.rows:
            shown.add_row(*(Text(cell) for cell in row))
        console.print(shown)
        if table.note:
            console.print(Text(table.note, style="dim"))
        console.print()
    for note in report["notes"]:
        console.print(Text(note))
    console.print(Text(verdict(report), style="bold green" if report["good"] else "bold red"))


def verdict(report: dict[str, Any]) -> str:
    """Say in a sentence how it went."""
    broken = [one["name"] for one in report["verdicts"] if not one["kept"]]
    books = report["books"]
    if books and not books["balanced"]:
        broken.append("the books")
    text = f"NOT GOOD: {', '.join(broken)}." if broken else "GOOD: all limits kept, the books are balanced."
    if not broken and books is None:
        text = "GOOD: all limits kept. The books were not checked."
    return f"{text} It was interrupted." if report["interrupted"] else text


def tables(report: dict[str, Any]) -> Iterator[Table]:
    """Give the tables, in the order in which they are read."""
    yield _requests(report)
    if report["errors"]:
        rows = [(one["method"], one["name"], one["error"], f"{one['count']:,}") for one in report["errors"]]
        yield Table("Errors by kind", ("method", "request", "error", "count"), rows, frozenset({0, 1, 2}))
    if len(report["stages"]) > 1:
        yield _stages(report)
    if report["server"]:
        yield _services(report)
        yield _orders(report)
    if report["slow"]:
        yield _slow(report)
    if report["books"]:
        yield _books(report["books"])
    rows = [(one["name"], one["limit"], one["measured"], _kept(one)) for one in report["verdicts"]]
    yield Table("Limits", ("", "limit", "measured", ""), rows, frozenset({0, 1, 2, 3}))


def _title(report: dict[str, Any]) -> str:
    began = datetime.fromtimestamp(report["began"], UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"Load test: {report['shape']}, up to {report['users']} users, {report['seconds']:.0f} s, {began} UTC"


def _requests(report: dict[str, Any]) -> Table:
    rows = [
        (one["method"], one["name"], *_numbers(one))
        for one in [*report["requests"], {**report["total"], "method": "", "name": "all"}]
    ]
    columns = ("method", "request", "count", "failed", "a second", "p50 ms", "p95 ms", "p99 ms", "max ms")
    note = "A name in brackets is of requests that are refused on purpose: an answer as expected is no failure."
    if report["generator_was_busy"]:
        note += " The load test's own process was at its limit: use PROCESSES, or believe these latencies less."
    return Table(_title(report), columns, rows, frozenset({0, 1}), note)


def _numbers(one: dict[str, Any]) -> tuple[str, ...]:
    times = (_ms(one[name]) for name in ("p50", "p95", "p99", "max"))
    return (f"{one['count']:,}", f"{one['failures']:,}", f"{one['rate']:.1f}", *times)


def _stages(report: dict[str, Any]) -> Table:
    rows = [
        (
            f"{one['users']}",
            f"{one['rate']:.1f}",
            f"{one['order_rate']:.1f}",
            *(_ms(one[name]) for name in ("p50", "p95", "p99")),
            f"{one['failures']:,}",
            "<- the knee" if index == report["knee"] else "",
        )
        for index, one in enumerate(report["stages"])
    ]
    columns = ("users", "requests/s", "orders/s", "p50 ms", "p95 ms", "p99 ms", "failed", "")
    note = (
        "" if report["knee"] is None else "The knee: 90 % of the highest rate; with more users they only wait longer."
    )
    return Table("By stages; latencies of orders", columns, rows, frozenset({7}), note)


def _services(report: dict[str, Any]) -> Table:
    rows = [
        (
            name,
            _number(one["rate"]),
            *(_number(one[f"{share}_ms"]) for share in ("p50", "p95", "p99")),
            _number(one["cores"], 2),
            _megabytes(one["memory_bytes_after_a_minute"]),
            _megabytes(one["memory_bytes"]),
        )
        for name, one in report["server"]["services"].items()
        if any(value is not None for value in one.values())
    ]
    columns = ("service", "requests/s", "p50 ms", "p95 ms", "p99 ms", "cores", "MB after a minute", "MB at the end")
    note = "From Prometheus, of the same time; percentiles are between the bounds of buckets. nginx tells no cores."
    note += f" The load test itself took {report['generator_cores']:.2f} cores."
    return Table("What the services saw", columns, rows, note=note)


def _orders(report: dict[str, Any]) -> Table:
    client = orders_of(report)
    rows = []
    if client:
        rows.append(
            ("client (Locust)", f"{client['rate']:.1f}", *(_ms(client[name]) for name in ("p50", "p95", "p99")))
        )
    rows += [
        (name, _number(one["rate"]), *(_number(one[f"{share}_ms"]) for share in ("p50", "p95", "p99")))
        for name, one in report["server"]["orders"].items()
    ]
    columns = ("seen by", "orders/s", "p50 ms", "p95 ms", "p99 ms")
    return Table("The same orders, seen from three places", columns, rows, note="Those that were placed: 201 and 202.")


def _slow(report: dict[str, Any]) -> Table:
    rows = [
        (
            _ms(one["ms"]),
            one["method"],
            one["name"],
            one["answer"],
            datetime.fromtimestamp(one["at"], UTC).strftime("%H:%M:%S"),
            f"make story TRACE={one['trace_id']}" if one["trace_id"] else "not traced",
        )
        for one in report["slow"][:_SLOWEST_SHOWN]
    ]
    columns = ("ms", "method", "request", "answer", "at (UTC)", "its trace")
    return Table("The slowest requests", columns, rows, frozenset({1, 2, 3, 4, 5}))


def _books(books: dict[str, Any]) -> Table:
    statuses = ", ".join(f"{count:,} {status}" for status, count in sorted(books["by_status"].items()))
    kept = ", ".join(f"{count:,} {status}" for status, count in sorted(books["unanswered_kept"].items()))
    rows = [
        ("orders that clients were told of", f"{books['told']:,}" + (f": {statuses}" if statuses else "")),
        ("settled after their answer", f"{books['settled_late']:,}"),
        ("orders without an answer", f"{books['unanswered']:,}" + (f"; in the database: {kept}" if kept else "")),
        ("wrong", f"{books['wrong']:,}"),
        *(("", example) for example in books["examples"]),
    ]
    note = "Each order once, with the status that was told, and one charge for what it costs."
    return Table("The books", ("", ""), rows, frozenset({0, 1}), note)


def _kept(one: dict[str, Any]) -> str:
    return "kept" if one["kept"] else "BROKEN"


def _ms(value: float | None) -> str:
    return _number(value, 0)


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _megabytes(value: float | None) -> str:
    return "-" if value is None else f"{value / _MEGABYTE:.0f}"
