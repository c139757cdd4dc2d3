"""Formats an answer as text for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from observability.story.text import SHORT, clean, one_line
from observability.why import words
from observability.why.alerting import FIRING
from observability.why.answer import Reason

if TYPE_CHECKING:
    from rich.console import Console

    from observability.why.answer import Answer, Cause, Pair


def for_people(answer: Answer, console: Console) -> str:
    """Return an answer as the console prints it. Colours repeat what the text says."""
    with console.capture() as printed:
        console.print(Text(words.headline(answer), style="bold"))
        console.print(f"Looked at {clean(answer.since)} to {clean(answer.at)}, in {answer.seconds:.1f} s.")
        for number, cause in enumerate(answer.causes, 1):
            console.print()
            _cause(console, number, cause)
        if answer.pair:
            console.print()
            _pair(console, answer.pair)
        if answer.lines:
            console.print()
            console.print(Text("What the bad one logged", style="bold"))
            for line in answer.lines:
                console.print(Text(_line(line)))
            _query(console, answer.lines_query)
        _rest(console, answer)
    return "\n".join(line.rstrip() for line in printed.get().splitlines()).strip() + "\n"


def _cause(console: Console, number: int, cause: Cause) -> None:
    console.print(
        Text(f"{number}. {words.name(cause)}: {clean(cause.kind)}, {words.sure(cause.confidence)}", style="bold")
    )
    for attribute in cause.attributes[:3]:
        where = clean(f"{attribute.service} {attribute.operation}".strip(), SHORT)
        console.print(Text(f"   {clean(attribute.key, SHORT)}={clean(attribute.value, SHORT)}  ({where})"))
    for reason in (cause.loss, *cause.because):
        if reason:
            _reason(console, reason)
    console.print(Text(f"   Runbook: {clean(cause.runbook)}"))


def _reason(console: Console, reason: Reason) -> None:
    console.print(Text(f"   - {clean(reason.says)}"))
    _query(console, reason.query)


def _query(console: Console, query: str) -> None:
    console.print(Text(f"     {clean(query)}", style="dim"), soft_wrap=True)


def _pair(console: Console, pair: Pair) -> None:
    console.print(Text(f"A good trace, {clean(pair.good)}, beside a bad one, {clean(pair.bad)}", style="bold"))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    table.add_column("operation", overflow="fold")
    for column in ("good ms", "bad ms", "good spans", "bad spans", "good errors", "bad errors"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in pair.rows:
        table.add_row(
            Text(clean(f"{row['service']} {row['operation']}", 2 * SHORT)),
            *(f"{value:.1f}" for value in row["own_ms"]),
            *(str(value) for value in (*row["count"], *row["errors"])),
        )
    console.print(table)
    for query in pair.queries:
        _query(console, query)
    console.print(Text("ms is an operation's own time, without what is below it. `make story TRACE=...` shows all."))


def _line(line: dict[str, Any]) -> str:
    try:
        moment = datetime.fromtimestamp(line["time"] / 1e9, UTC).strftime("%H:%M:%S.%f")[:-3]
    except (ValueError, OverflowError, OSError):
        moment = str(line["time"])
    fields = "  ".join(f"{clean(name, SHORT)}={one_line(value)}" for name, value in line["fields"].items())
    text = f"  {moment}  {clean(line['service'], SHORT)}  {clean(line['level'], SHORT)}  {clean(line['event'], SHORT)}"
    return f"{text}  {clean(fields, 300)}"


def _alert(console: Console, alert: dict[str, Any]) -> None:
    text = f"{clean(alert['name'], SHORT)}: {clean(alert['state'], SHORT)} since {clean(alert['since'], SHORT)}"
    if alert["runbook"]:
        text += f", {clean(alert['runbook'], SHORT)}"
    console.print(Text(f"  {text}"))
    if alert["summary"]:
        when = "" if alert["state"] == FIRING else "If it fires: "
        console.print(Text(f"   {when}{clean(alert['summary'])}"))
    if alert["says"]:
        _reason(console, Reason(says=alert["says"], query=alert["measure"]))
    elif alert["query"]:
        _query(console, alert["query"])


def _rest(console: Console, answer: Answer) -> None:
    if answer.alerts:
        console.print()
        console.print(Text("Alerts", style="bold"))
        for alert in answer.alerts:
            _alert(console, alert)
    if answer.notes:
        console.print()
        console.print(Text("Also seen", style="bold"))
        for note in answer.notes:
            _reason(console, note)
    if answer.not_looked_at:
        console.print()
        console.print(Text("Not looked at", style="bold yellow"))
        for missing in answer.not_looked_at:
            console.print(Text(f"  {clean(missing)}"))
