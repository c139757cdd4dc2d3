"""Reading a log file as it grows: half lines, lines that are too long, truncation, another file with the same inode.

Which files are read, and where it is kept how far they are read, is for those who use this: `embedded.tail` keeps it in
the database beside the lines, `gateway.follow` in a small file.
"""

import os
from dataclasses import dataclass
from pathlib import Path

_HEAD = 256  # bytes at a file's start that tell it from a later one with the same inode
_CHUNK_LINES = 4  # of the greatest length


@dataclass(frozen=True)
class Place:
    """Where in a file the next line begins, or, while a line that is too long is passed over, its rest.

    Attributes:
        offset: In bytes.
        skipping: Whether this is inside a line that is too long.
        head: How the file begins, as far as it is read.
    """

    offset: int = 0
    skipping: bool = False
    head: bytes = b""


@dataclass(frozen=True)
class Lines:
    """Whole lines without their ends.

    Attributes:
        lines: The lines. One that is too long is cut, and its rest is passed over.
        cut: How many were too long.
        more: Whether there is more to read at once.
        end: Where reading goes on after them.
    """

    lines: list[bytes]
    cut: int
    more: bool
    end: Place


class LineFile:
    """An open log file, and how far it is read.

    Args:
        path: The file.
        max_line: The longest line, in bytes.

    Attributes:
        identity: Its device and inode.
        place: Where the next `read` begins; who has taken care of what was read puts it further.

    Raises:
        OSError: It is not there, or cannot be read.
    """

    def __init__(self, path: Path, max_line: int) -> None:
        self._file = path.open("rb", buffering=0)
        status = os.fstat(self._file.fileno())
        self._max_line = max_line
        self._chunk = _CHUNK_LINES * max_line
        self.identity = (status.st_dev, status.st_ino)
        self.place = Place()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def resume(self, place: Place) -> None:
        """Go on at a place, or at the start if that is not in this file: it was cut, or is another."""
        size = os.fstat(self._file.fileno()).st_size
        here = place.offset <= size and self._at(0, len(place.head)) == place.head
        self.place = place if here else Place()

    def read(self, *, final: bool = False) -> Lines | None:
        """Read the next lines; None if there is no whole one yet.

        Args:
            final: Nothing more will come, so that the file's end is the end of a line.
        """
        self.resume(self.place)
        place = self.place
        chunk = self._at(place.offset, self._chunk)
        ended = final and 0 < len(chunk) < self._chunk
        lines, cut, rest, skipping = self._split(chunk + b"\n" if ended else chunk, skipping=place.skipping)
        offset = place.offset + len(chunk) - len(rest)
        if offset == place.offset:
            return None
        head = place.head if len(place.head) == _HEAD else self._at(0, min(_HEAD, offset))
        return Lines(lines, cut, len(chunk) == self._chunk, Place(offset, skipping, head))

    def _at(self, offset: int, count: int) -> bytes:
        return os.pread(self._file.fileno(), count, offset)

    def _split(self, chunk: bytes, *, skipping: bool) -> tuple[list[bytes], int, bytes, bool]:
        """Give the whole lines, how many were cut, what is left for later, and whether what comes next is skipped."""
        *lines, rest = chunk.split(b"\n")
        if skipping and lines:
            del lines[0]
        elif skipping:
            return [], 0, b"", True  # of a line that is too long only its end is of interest
        if not lines and len(rest) >= self._chunk:
            return [rest[: self._max_line]], 1, b"", True
        cut = 0
        for index, line in enumerate(lines):
            if len(line) > self._max_line:
                lines[index] = line[: self._max_line]
                cut += 1
        return lines, cut, rest, False


def identity(path: Path) -> tuple[int, int] | None:
    """Which file is at a path now: its device and inode; None if there is none that can be seen."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
