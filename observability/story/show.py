"""A story in words and lines for people, or as JSON for programs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from observability.story.backends import Line
    from observability.story.spans import Span, Trace
    from observability.story.telling import Chapter, Story

_BAR = 24


def for_people(story: Story, console: Console) -> str:
    """Give a story as the console would print it. Nothing in it is told by colour alone."""
    with console.capture() as printed:
        if story.row:
            console.print(Text(f"Order {story.row['id']}", style="bold"))
            console.print(_row(story.row))
            console.print()
        for chapter in story.chapters:
            console.print(Text(_title(chapter.trace), style="bold"))
            if not chapter.sampled:
                console.print("Its sender asked not to record it, so there are no spans.")
            if chapter.trace.spans:
                console.print(_tree(chapter.trace))
            console.print()
            if chapter.lines:
                console.print(Text(f"Its {len(chapter.lines)} log lines", style="bold"))
                console.print(_lines(chapter))
                console.print()
        if story.missing:
            console.print(Text(f"Not there (yet): {'; '.join(story.missing)}.", style="yellow"))
    return "\n".join(line.rstrip() for line in printed.get().splitlines()).strip() + "\n"


def for_programs(story: Story) -> str:
    """Give a story as JSON; times in milliseconds since the trace's start."""
    traces = [
        {
            "trace_id": chapter.trace.trace_id,
            "start": _iso(chapter.trace.start) if chapter.trace.spans else None,
            "duration_ms": chapter.trace.duration / 1e3,
            "sampled": chapter.sampled,
            "spans": [
                {
                    "span_id": span.span_id,
                    "parent_span_id": span.parent_id or None,
                    "depth": len(place),
                    "service": span.service,
                    "name": span.name,
                    "kind": span.kind,
                    "start_ms": (span.start - chapter.trace.start) / 1e3,
                    "duration_ms": span.duration / 1e3,
                    "error": span.failed,
                    "attributes": dict(span.tags),
                }
                for span, place in chapter.trace.tree()
            ],
            "log_lines": [
                {
                    "time_ms": _offset(chapter, line),
                    "service": line.service,
                    "level": line.level,
                    "event": line.event,
                    "span_id": line.span_id or None,
                    "fields": line.fields,
                }
                for line in chapter.lines
            ],
        }
        for chapter in story.chapters
    ]
    return json.dumps(
        {"order": story.row, "traces": traces, "missing": story.missing, "errors": story.errors}, indent=2
    )


def _row(row: dict[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for column, value in row.items():
        table.add_row(f"  {column}", Text(_value(value)))
    return table


def _title(trace: Trace) -> str:
    if not trace.spans:
        return f"Trace {trace.trace_id}"
    services = len({span.service for span in trace.spans})
    first = next(trace.tree())[0]
    return (
        f"Trace {trace.trace_id}: {first.name}, {len(trace.spans)} spans of {services} services,"
        f" {trace.duration / 1e3:.1f} ms from {_iso(trace.start)}"
    )


def _tree(trace: Trace) -> Table:
    table = _table(("ms", "took"), ("", "span", ""))
    for span, place in trace.tree():
        start = span.start - trace.start
        style = "red" if span.failed else ""
        table.add_row(
            f"{start / 1e3:.1f}",
            f"{span.duration / 1e3:.1f}",
            Text(_bar(start, span.duration, trace.duration), style="red" if span.failed else "cyan"),
            Text.assemble(_branches(place), (span.service, "bold"), f" {span.name}", (f" {span.kind}", "dim")),
            Text(_details(span), style=style),
        )
    return table


def _lines(chapter: Chapter) -> Table:
    table = _table(("ms",), ("service", "level", "event", ""))
    for line in chapter.lines:
        fields = "  ".join(f"{name}={_value(value)}" for name, value in line.fields.items())
        style = "red" if line.level in {"error", "critical"} else ""
        table.add_row(
            f"{_offset(chapter, line):.1f}" if chapter.trace.spans else _iso(line.time // 1000),
            *(Text(text, style=style) for text in (line.service, line.level, line.event)),
            Text(fields, style="dim"),
        )
    return table


def _table(numbers: Sequence[str], texts: Sequence[str]) -> Table:
    """Make a table whose last column takes what room there is, and breaks its lines."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    for column in texts:
        table.add_column(column, no_wrap=True)
    table.columns[-1].no_wrap = False
    table.columns[-1].overflow = "fold"
    return table


def _branches(place: tuple[bool, ...]) -> str:
    above = "".join("   " if last else "│  " for last in place[:-1])
    return above + ("└─ " if place[-1] else "├─ ") if place else ""


def _bar(start: int, duration: int, whole: int) -> str:
    before = min(_BAR - 1, start * _BAR // max(whole, 1))
    length = max(1, round(duration * _BAR / max(whole, 1)))
    return " " * before + "━" * min(length, _BAR - before)


def _details(span: Span) -> str:
    said = ["ERROR"] if span.failed else []
    for key in ("error.type", "http.response.status_code", "db.response.status_code"):
        if (value := str(span.tags.get(key, ""))) and value not in said:
            said.append(value)
    if resent := span.tags.get("http.request.resend_count"):
        said.append(f"sent again {resent} times")
    said += [f"{key.removeprefix('shop.')}={value}" for key, value in span.tags.items() if key.startswith("shop.")]
    return " ".join(said)


def _offset(chapter: Chapter, line: Line) -> float:
    start = chapter.trace.start * 1000 if chapter.trace.spans else chapter.lines[0].time
    return round((line.time - start) / 1e6, 3)


def _iso(microseconds: int) -> str:
    moment = datetime.fromtimestamp(microseconds / 1e6, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
