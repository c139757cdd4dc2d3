"""Ctrl-C, and the end of child processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PATIENCE_SECONDS = 10.0


def end_at_ctrl_c() -> None:
    """Let Ctrl-C end this process at once and without a word: what is right until all is imported.

    A shell starts background jobs with SIGINT ignored (nohup and CI do too), and programs inherit that. So all that is
    started by hand says which it wants.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def hear_ctrl_c() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, however this process was started; its children start with the default."""
    if threading.current_thread() is threading.main_thread():  # no other may
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def child(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run a child while a block runs, and end it then if it has not ended; `options` are Popen's."""
    with start(command, **options) as process:
        try:
            yield process
        finally:
            end(process)


def start(command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """Start a child; `options` are Popen's.

    A Ctrl-C that comes before the child is known here would leave it running: it counts afterwards.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        return subprocess.Popen(command, **options)
    pressed: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: pressed.append(number))
    try:
        process = subprocess.Popen(command, **options)
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        end(process)
        raise KeyboardInterrupt
    return process


def end(process: subprocess.Popen[Any], patience_seconds: float | None = None) -> int:
    """End a child: ask it to, and kill it when it has not ended in time. A leader is killed with its process group.

    Returns:
        Its exit status.
    """
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_SECONDS if patience_seconds is None else patience_seconds)
    if process.returncode is None:
        kill(process)
    return process.wait(PATIENCE_SECONDS)


def kill(process: subprocess.Popen[Any]) -> None:
    """Kill a child, and, when it leads a process group, whatever is in that."""
    with contextlib.suppress(ProcessLookupError):
        if os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
