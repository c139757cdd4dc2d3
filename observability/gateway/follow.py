"""Following the access log: rotation, and restarts. How a file is read is said in receiving/lines.py."""

from collections.abc import Callable, Sequence
from pathlib import Path

import orjson

from observability.receiving.lines import LineFile, Place, identity
from servicekit.telemetry import logs

_MAX_LINE = 64 * 1024  # what is longer is no line of ours


class Follower:
    """Reads a file as it grows.

    How far it came is noted in a state file, at most a chunk late: after a crash some lines are read again rather than
    lost. A trace without its root is a hole; a span that comes twice has the same id, and counters begin at 0 anyway.

    Args:
        path: The log. It need not exist yet. Whoever rotates it may rename it or truncate it.
        state: Where to note how far it was read. Without it, reading begins at the start.
        take: Is given lines, without their ends.

    Attributes:
        healthy: Whether reading worked the last time. A file that is not there yet is no failure.
    """

    def __init__(self, path: Path, state: Path, take: Callable[[Sequence[bytes]], None]) -> None:
        self._path = path
        self._state = state
        self._take = take
        self._file: LineFile | None = None
        self._resumed = False
        self._noted = b""
        self._abandoned = False
        self._unsaved = False
        self.healthy = True

    def read(self, stopping: Callable[[], bool]) -> None:
        """Read all that is there."""
        try:
            while self._step() and not stopping():
                self._note()
            self._note()
        except OSError as error:
            if self.healthy:
                logs.get_logger().error("log.unreadable", exc_info=error)
            self.healthy = False
        except Exception:
            self.healthy = False
            raise
        else:
            self.healthy = True

    def abandon(self) -> None:
        """Note nothing from now on: lines that somebody still takes are read again after a restart."""
        self._abandoned = True

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _step(self) -> bool:
        """Read a chunk, or see to a rotation; False when there is nothing to do."""
        file = self._file or self._open()
        if file is None:
            return False
        if self._read(file):
            return True
        if identity(self._path) in {None, file.identity}:  # none: between a rename and the new file
            return False
        while self._read(file):  # what was written just before it was renamed
            pass
        self.close()
        return True

    def _read(self, file: LineFile) -> bool:
        found = file.read()
        if found is None:
            return False
        file.place = found.end
        if found.lines:
            self._take(found.lines)
        return True

    def _open(self) -> LineFile | None:
        try:
            self._file = LineFile(self._path, _MAX_LINE)
        except FileNotFoundError:
            return None
        if not self._resumed:
            inode, place = self._remembered()
            if inode == self._file.identity[1]:
                self._file.resume(place)
        self._resumed = True
        return self._file

    def _remembered(self) -> tuple[int, Place]:
        try:
            noted = orjson.loads(self._state.read_bytes())
            head = str(noted.get("head", "")).encode("latin-1")
            return int(noted["inode"]), Place(int(noted["offset"]), bool(noted.get("skipping")), head)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return 0, Place()  # the first start, or something else than our file

    def _note(self) -> None:
        if self._file is None or self._abandoned:
            return
        place = self._file.place
        noted = orjson.dumps(
            {
                "inode": self._file.identity[1],
                "offset": place.offset,
                "skipping": place.skipping,
                "head": place.head.decode("latin-1"),  # any bytes
            }
        )
        if noted == self._noted:
            return
        self._noted = noted
        fresh = self._state.with_name(self._state.name + ".new")
        try:
            fresh.write_bytes(noted)
            fresh.replace(self._state)
        except OSError as error:  # a full disk: reading goes on
            if not self._unsaved:  # else it would be said ten times a second
                logs.get_logger().warning("position.unsaved", exc_info=error)
            self._unsaved = True
        else:
            self._unsaved = False
