"""What somebody prints, line by line, without the messages of tracebacks."""

import io
import threading
from collections.abc import Callable
from typing import Literal, TextIO


class _Writing(threading.local):
    """Where a thread is in what it prints: threads must not mix theirs."""

    rest = ""  # of a line, until its end comes
    inside: Literal["text", "frames", "message"] = "text"


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
        *lines, writing.rest = (writing.rest + text).split("\n")
        if len(writing.rest) > self._max_line:
            lines.append(writing.rest)
            writing.rest = ""
        for line in lines:
            if (told := self._without_message(line)).strip():
                self._tell(told)
        if writing.inside == "message" and not writing.rest:
            writing.inside = "text"  # a message of many lines is written at once
        return len(text)

    def writable(self) -> bool:
        """See `io.TextIOBase`."""
        return True

    def fileno(self) -> int:
        """Return that of the stream itself, for who hands it on to a child process."""
        return self.replaced.fileno()

    def _without_message(self, line: str) -> str:
        """Keep the frames and the type of a traceback: what the exception says may be a row or an input."""
        writing = self._writing
        if line.endswith("Traceback (most recent call last):"):
            writing.inside = "frames"
        elif writing.inside == "message":
            return ""
        elif writing.inside == "frames" and not line.startswith(" "):
            writing.inside = "message"
            return line.partition(":")[0]
        return line
