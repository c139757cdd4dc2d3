"""The run on the terminal while it goes on."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TextColumn

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from rich.console import Console

_LINE_EVERY = 5.0
"""Seconds between lines where there is no terminal to draw on."""


class Watch:
    """Shows what `stats.History` writes: a bar on a terminal, else a line now and then."""

    def __init__(self, console: Console, history: Path, seconds: float | None) -> None:
        self._console, self._history, self._seconds = console, history, seconds
        self._read = 0
        self._next_line = time.monotonic() + _LINE_EVERY
        columns = [BarColumn(20)] if seconds else []
        self._bar = Progress(*columns, TextColumn("{task.description}"), console=console, transient=True)
        self._task = self._bar.add_task("waiting for the first request", total=seconds)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def look(self) -> None:
        """Show what is new."""
        line = self._last_line()
        if line is None:
            return
        text = _text(line)
        if self._console.is_terminal:
            completed = min(line["seconds"], self._seconds or line["seconds"])
            self._bar.update(self._task, completed=completed, description=text)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_EVERY
            self._console.print(text)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text)

    def _last_line(self) -> dict[str, Any] | None:
        if not self._history.exists():
            return None
        with self._history.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        lines = whole.splitlines()
        last: dict[str, Any] | None = json.loads(lines[-1]) if lines else None
        return last


def _text(line: dict[str, Any]) -> str:
    p95 = "-" if line["order_p95_ms"] is None else f"{line['order_p95_ms']:.0f} ms"
    return (
        f"{line['seconds']:4.0f} s  {line['users']} users  {line['rate']:.0f} requests/s"
        f"  {line['order_rate']:.0f} orders/s, p95 {p95}  {line['failures']} failed"
    )
