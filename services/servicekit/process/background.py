"""Work beside the requests: a thread that does something again and again until the process ends."""

import threading
from collections.abc import Callable

from servicekit.telemetry import logs


class Periodic:
    """Calls a function with pauses between.

    A round that fails is logged and the next one comes all the same.

    Args:
        name: The thread's name, and the field `task` of its log lines; stays as an attribute.
        interval_seconds: Pause between two rounds.
        work: A round. It is given a function that says whether the process is about to end, so that a long round can
            end early.
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
        """Ask it to end after the round at hand, and wait for that; False if it is still at it."""
        self._stopping.set()
        if not self.started:  # it was made when the others had begun
            return True
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    @property
    def started(self) -> bool:
        """Whether `start` was called."""
        return self._thread.ident is not None

    def run_once(self) -> None:
        """Do one round now, in the caller's thread."""
        try:
            self._work(self._stopping.is_set)
        except Exception as error:  # noqa: BLE001  # whatever it is, the task must live on
            logs.get_logger().error("task.failed", task=self.name, exc_info=error)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            self.run_once()
