"""Passes on printed text line by line, without the messages of tracebacks."""

import inspect
import io
import threading
import traceback
from collections.abc import Callable
from typing import TextIO

from servicekit.telemetry.stacktrace import Stacktrace


class _Writing(threading.local):
    """What one thread has printed of a line, kept apart so that lines of different threads do not mix."""

    def __init__(self) -> None:
        self.rest = ""  # the unfinished line
        self.by_traceback = False
        self.cut = Stacktrace()


class Printed(io.TextIOBase):
    """Replaces `sys.stdout` or `sys.stderr`, and passes on each line that is written.

    Args:
        replaced: The stream that it replaces.
        tell: Is called with each line.
        max_line: A longer line is passed on in pieces of about this many characters.
    """

    def __init__(self, replaced: TextIO, tell: Callable[[str], None], max_line: int) -> None:
        self.replaced = replaced
        self._tell = tell
        self._max_line = max_line
        self._writing = _Writing()

    def write(self, text: str) -> int:
        """See `io.TextIOBase`."""
        writing = self._writing
        if (by_traceback := _is_traceback()) is not writing.by_traceback:
            # Python's `traceback` module writes the message, and each line of a note, in a separate call. Without
            # frames, it writes no heading either.
            writing.by_traceback = by_traceback
            writing.cut = Stacktrace("frames" if by_traceback else "text")
        *lines, writing.rest = (writing.rest + text).split("\n")
        if len(writing.rest) > self._max_line:
            lines.append(writing.rest)
            writing.rest = ""
        for line in lines:
            if (told := writing.cut.keep(line)).strip():
                self._tell(told)
        if writing.cut.inside == "message" and text.endswith("\n") and not by_traceback:
            writing.cut = Stacktrace()  # a message of several lines is written in one call
        return len(text)

    def writable(self) -> bool:
        """See `io.TextIOBase`."""
        return True

    def fileno(self) -> int:
        """Return the replaced stream's descriptor, for callers that pass it to a child process."""
        return self.replaced.fileno()


def _is_traceback() -> bool:
    """Whether the caller is Python's module `traceback`."""
    frame = inspect.currentframe()
    for _ in range(2):
        frame = frame and frame.f_back
    return frame is not None and frame.f_globals is vars(traceback)
