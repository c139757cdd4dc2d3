"""The supervisor's process (`python -m local.supervise RUN_DIR`), and what it has beside `supervisor` itself.

Added through its documented extension points, an RPC interface and events. Not documented are the fields for the wait
between two attempts (`_on_end`), and that the poller may be replaced: tests/local would show it if they changed.
- It never gives up. A port that somebody else holds for an hour must not end a stack; the wait between
  attempts grows to `MAX_WAIT` and stays there. Each wait is written to the log.
- What a killed process leaves behind goes with it. nginx's workers, for one, outlive a master that got
  SIGKILL, and keep its port so that no new master can start.
- It counts how often a part ended by itself.
- It reads what the parts write in gulps, and sees at once that one has ended (`local.poller`).
- A full disk costs log lines, which are counted, and not the stack (`local.logfile`).
- It ends, with its parts, when its folder is deleted or moved: nobody could find it any more to stop it.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from supervisor import events, loggers, supervisord

from local.logfile import LOST, LogFile
from local.poller import Poller
from local.supervision import PID_FILE, SOCKET

MAX_WAIT = 20
"""The longest wait between two attempts to start a part, in seconds."""


class Extension:
    """The RPC namespace `local`."""

    def __init__(self) -> None:
        """Listen to every change of a part's state."""
        self._ended: Counter[str] = Counter()
        for event in (
            events.ProcessStateExitedEvent,
            events.ProcessStateBackoffEvent,
            events.ProcessStateStoppedEvent,
        ):
            events.subscribe(event, self._on_end)
        events.subscribe(events.Tick5Event, self._on_tick)

    def ended(self) -> dict[str, int]:
        """Tell how often each part has ended without having been asked to."""
        return dict(self._ended)

    def lost_log_lines(self) -> int:
        """Tell how many log lines could not be written."""
        return LOST.lines

    def _on_tick(self, _event: events.Tick5Event) -> None:
        LOST.save()
        if not all(Path(sys.argv[1], name).exists() for name in (PID_FILE, SOCKET)):
            os.kill(os.getpid(), signal.SIGTERM)

    def _on_end(self, event: events.ProcessStateEvent) -> None:
        process = event.process
        if process.pid:  # 0 would be our own group
            # Each part leads a process group of its own. Its leader is dead, but not yet reaped here.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        if isinstance(event, events.ProcessStateStoppedEvent):
            return
        self._ended[process.config.name] += 1
        if isinstance(event, events.ProcessStateBackoffEvent):
            # Not documented: `backoff` counts the attempts in a row, `delay` is the time of the next one.
            process.backoff = min(process.backoff, MAX_WAIT)
            process.delay = time.time() + process.backoff
            say = process.config.options.logger.warn
            say(f"{process.config.name} ended right after its start: next attempt in {process.backoff} s")


class _Words(io.TextIOBase):
    """What supervisor prints beside its log, with no error when there is no room for it."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            os.write(2, text.encode())
        return len(text)


def extension(supervisord: Any) -> Extension:
    """Make the RPC interface, before the loop begins; the name stands in the generated configuration."""
    supervisord.options.poller = Poller(supervisord)
    return Extension()


if __name__ == "__main__":
    os.chdir(sys.argv[1])  # every path of the configuration is relative: no path needs quoting there
    LOST.save()
    loggers.RotatingFileHandler = LogFile
    sys.stdout = sys.stderr = _Words()
    supervisord.main(["-c", "conf/supervisord.conf"])
