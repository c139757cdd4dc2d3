"""A story in words and lines for people, or as JSON for programs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from observability.story.spans import DEEPEST
from observability.story.text import SHORT, clean, one_line, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from observability.story.backends import Line
    from observability.story.spans import Place, Span, Trace
    from observability.story.telling import Chapter, Story

_BAR = 24
_MOST_SPANS = 10_000
_MOST_MISSING = 10


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
                if (more := len(chapter.trace.spans) - _MOST_SPANS) > 0:
                    console.print(f"And {more} more spans, which JSON=1 shows too.")
            console.print()
            if chapter.lines:
                console.print(Text(f"Its {len(chapter.lines)} log lines", style="bold"))
                console.print(_lines(chapter))
                console.print()
        if story.missing:
            console.print(Text(f"Not there (yet): {_missing(story.missing)}.", style="yellow"))
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
                    "depth": place.depth,
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
    told = {"order": story.row, "traces": traces, "missing": story.missing, "errors": story.errors}
    return json.dumps(plain(told), indent=2, allow_nan=False)


def _row(row: dict[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for column, value in row.items():
        table.add_row(Text(f"  {clean(column, SHORT)}"), Text(one_line(value)))
    return table


def _title(trace: Trace) -> str:
    if not trace.spans:
        return f"Trace {trace.trace_id}"
    services = len({span.service for span in trace.spans})
    first = next(trace.tree())[0]
    return (
        f"Trace {trace.trace_id}: {clean(first.name, SHORT)}, {len(trace.spans)} spans of {services} services,"
        f" {trace.duration / 1e3:.1f} ms from {_iso(trace.start)}"
    )


def _tree(trace: Trace) -> Table:
    table = _table(("ms", "took"), ("", "span", ""))
    for span, place in islice(trace.tree(), _MOST_SPANS):
        start = span.start - trace.start
        style = "red" if span.failed else ""
        table.add_row(
            f"{start / 1e3:.1f}",
            f"{span.duration / 1e3:.1f}",
            Text(_bar(start, span.duration, trace.duration), style="red" if span.failed else "cyan"),
            Text.assemble(
                _branches(place),
                (clean(span.service, SHORT), "bold"),
                f" {clean(span.name, SHORT)}",
                (f" {clean(span.kind, SHORT)}", "dim"),
            ),
            Text(_details(span), style=style),
        )
    return table


def _lines(chapter: Chapter) -> Table:
    table = _table(("ms",), ("service", "level", "event", ""))
    for line in chapter.lines:
        fields = "  ".join(f"{clean(name, SHORT)}={one_line(value)}" for name, value in line.fields.items())
        style = "red" if line.level in {"error", "critical"} else ""
        table.add_row(
            f"{_offset(chapter, line):.1f}" if chapter.trace.spans else _iso(line.time // 1000),
            *(Text(clean(text, SHORT), style=style) for text in (line.service, line.level, line.event)),
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
    table.columns[-1].min_width = 30
    return table


def _branches(place: Place) -> str:
    if not place.last:
        return ""
    above = "".join("   " if last else "│  " for last in place.last[:-1])
    if place.depth > DEEPEST:
        above = f"⋯ {place.depth} "
    return above + ("└─ " if place.last[-1] else "├─ ")


def _bar(start: int, duration: int, whole: int) -> str:
    before = min(_BAR - 1, start * _BAR // max(whole, 1))
    length = max(1, round(duration * _BAR / max(whole, 1)))
    return " " * before + "━" * min(length, _BAR - before)


def _details(span: Span) -> str:
    said = ["ERROR"] if span.failed else []
    for key in ("error.type", "http.response.status_code", "db.response.status_code"):
        if (value := clean(span.tags.get(key, ""))) and value not in said:
            said.append(value)
    if resent := span.tags.get("http.request.resend_count"):
        said.append(f"sent again {clean(resent)} times")
    said += [
        f"{clean(key.removeprefix('shop.'), SHORT)}={clean(value)}"
        for key, value in span.tags.items()
        if key.startswith("shop.")
    ]
    return " ".join(said)


def _missing(names: Sequence[str]) -> str:
    more = [f"and {len(names) - _MOST_MISSING} more"] if len(names) > _MOST_MISSING else []
    return "; ".join([*(clean(name, 2 * SHORT) for name in names[:_MOST_MISSING]), *more])


def _offset(chapter: Chapter, line: Line) -> float:
    start = chapter.trace.start * 1000 if chapter.trace.spans else chapter.lines[0].time
    return round((line.time - start) / 1e6, 3)


def _iso(microseconds: int) -> str:
    try:
        moment = datetime.fromtimestamp(microseconds / 1e6, UTC)
    except (ValueError, OverflowError, OSError):  # no year that the calendar has
        return f"{microseconds} µs after 1970"
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
