"""Periodic background work, in a thread, until the process ends."""

import threading
from collections.abc import Callable

from servicekit.telemetry import logs


class Periodic:
    """Calls a function periodically. If a call fails, this is logged, and the next one is made as usual.

    Args:
        name: The thread's name, and the field `task` of its log lines; also an attribute.
        interval_seconds: The pause between two calls.
        work: The function. It gets a function that says whether the process is about to end, so that long work can
            stop early.
    """

    def __init__(self, name: str, interval_seconds: float, work: Callable[[Callable[[], bool]], None]) -> None:
        self.name = name
        self._interval = interval_seconds
        self._work = work
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_seconds: float = 5.0) -> bool:
        """Ask the thread to end after the current call, and wait for it; False if it still runs."""
        self._stopping.set()
        if not self.started:  # it was created after the others were started
            return True
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    @property
    def started(self) -> bool:
        """Whether `start` was called."""
        return self._thread.ident is not None

    def run_once(self) -> None:
        """Call the function once now, in the caller's thread."""
        try:
            self._work(self._stopping.is_set)
        except Exception as error:  # noqa: BLE001  # whatever fails, the task has to go on
            logs.get_logger().error("task.failed", task=self.name, exc_info=error)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            self.run_once()
