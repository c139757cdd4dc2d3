"""How the supervisor waits: for what parts write, for calls, and for signals."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from supervisor import poller

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

GULP_SECONDS = 0.02
"""How long a part's output is left in its pipe. A pipe holds 64 KB: a part has to write 3 MB/s to be held up."""


class Poller(poller.PollPoller):  # type: ignore[misc]  # supervisor has no types
    """Waits as supervisor's own does, but for three things.

    - What parts write is read at most every `GULP_SECONDS`. Read line by line, the lines of an order cost more here
      than in the services. Calls and signals do not wait for that.
    - A signal ends the wait, so that a part's end is seen at once. Without that it would be seen when its last pipe is
      closed, which its children may hold, or up to a second later.
    - While the stack is being stopped, parts that are stopped already are not waited for.

    Args:
        supervisord: The `Supervisor` whose loop this is.
    """

    def __init__(self, supervisord: Any) -> None:
        super().__init__(supervisord.options)
        self._supervisord = supervisord
        self._next_gulp = 0.0
        self._woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self.register_readable(self._woken)

    def poll(self, timeout: float) -> tuple[list[int], list[int]]:
        """Give the descriptors to be read and written, empty lists after the timeout or a signal."""
        if self._nothing_to_stop():
            timeout = 0
        outputs = self.readables & self._supervisord.get_process_map().keys()
        if outputs and (pause := self._next_gulp - time.monotonic()) > 0:
            readable, writable = self._poll_without(outputs, min(pause, timeout))
            if readable or writable or pause > timeout:
                return self._without_signals(readable), writable
        readable, writable = super().poll(timeout)
        if not outputs.isdisjoint(readable):
            self._next_gulp = time.monotonic() + GULP_SECONDS
        return self._without_signals(readable), writable

    def _poll_without(self, left_out: AbstractSet[int], timeout: float) -> tuple[list[int], list[int]]:
        for descriptor in left_out:
            self.unregister_readable(descriptor)
        found: tuple[list[int], list[int]] = super().poll(timeout)
        for descriptor in left_out:
            self.register_readable(descriptor)
        return found

    def _without_signals(self, readable: list[int]) -> list[int]:
        """Forget the signals that came: their handlers have run."""
        if self._woken in readable:
            readable.remove(self._woken)
            with contextlib.suppress(BlockingIOError):
                while os.read(self._woken, 512):
                    pass
        return readable

    def _nothing_to_stop(self) -> bool:
        groups = self._supervisord.stop_groups  # None until it is being stopped
        return bool(groups) and not groups[-1].get_unstopped_processes()
