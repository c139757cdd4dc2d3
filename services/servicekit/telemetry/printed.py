"""What somebody prints, line by line, without the messages of tracebacks."""

import inspect
import io
import threading
import traceback
from collections.abc import Callable
from typing import TextIO

from servicekit.telemetry.stacktrace import Stacktrace


class _Writing(threading.local):
    """Where a thread is in what it prints: threads must not mix theirs."""

    def __init__(self) -> None:
        self.rest = ""  # of a line, until its end comes
        self.by_traceback = False
        self.cut = Stacktrace()


class Printed(io.TextIOBase):
    """Stands in for `sys.stdout` or `sys.stderr`, and hands on each line that is written.

    Args:
        replaced: The stream that it stands in for.
        tell: Takes a line.
        max_line: A line without end is handed on in pieces of about this many characters.
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
            # Python's module writes a message, and each line of a note, by itself; without frames also without a head.
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
            writing.cut = Stacktrace()  # a message of many lines is written at once
        return len(text)

    def writable(self) -> bool:
        """See `io.TextIOBase`."""
        return True

    def fileno(self) -> int:
        """Return that of the stream itself, for who hands it on to a child process."""
        return self.replaced.fileno()


def _is_traceback() -> bool:
    """Whether Python's module `traceback` prints."""
    frame = inspect.currentframe()
    for _ in range(2):
        frame = frame and frame.f_back
    return frame is not None and frame.f_globals is vars(traceback)
