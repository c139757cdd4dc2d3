"""Shortens formatted exceptions, line by line: keeps frames and types, removes messages and quoted text.

An exception's message may contain a database row or a user's input. A SyntaxError quotes the invalid text before its
type. Notes and the exceptions of a group come after it.
"""

import re
from typing import Literal

_HEAD = "Traceback (most recent call last):"
_WHOLE_HEAD = re.compile(r"( *[+|] )?(Exception Group )?" + re.escape(_HEAD))
_MARGIN = re.compile(r" *\| ")  # of the lines of an exception group
_FRAME = re.compile(r"""  File "(?P<file>[^"]*)", line \d+, in [\w.<> '-]+""")
_REPEATED = re.compile(r"  \[Previous line repeated \d+ more times?\]")
_TYPE = re.compile(r"(?:[\w.]|<locals>)*")
_BETWEEN = frozenset({
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
})  # fmt: skip


class Stacktrace:
    """Removes messages from lines that may contain formatted exceptions.

    Args:
        inside: What the first line belongs to: other text, or an exception, which may lack its heading.

    Attributes:
        inside: What the next line belongs to.
    """

    def __init__(self, inside: Literal["text", "frames"] = "text") -> None:
        self.inside: Literal["text", "frames", "quote", "message"] = inside
        self._has_margin = inside == "frames"
        self._source_follows = False

    def keep(self, line: str) -> str:
        """Return the part of a line that is kept."""
        if _WHOLE_HEAD.fullmatch(line) or (self.inside == "text" and line.endswith(_HEAD)):
            self._has_margin = line.startswith(" ")
            self.inside, self._source_follows = "frames", False
            return line
        if self.inside == "text":
            return line
        if self.inside == "message":
            return line if line.lstrip(" |") in _BETWEEN else ""
        margin = _MARGIN.match(line) if self._has_margin else None
        before, line = (margin[0], line[margin.end() :]) if margin else ("", line)
        kept = self._of_frames(line)
        return before + kept if kept else ""

    def _of_frames(self, line: str) -> str:
        source_follows, self._source_follows = self._source_follows, False
        if self.inside == "frames":
            if frame := _FRAME.fullmatch(line):
                self._source_follows = not frame["file"].startswith("<")  # code without a file may be user input
                return line
            if line.startswith("    "):
                return line if source_follows else ""  # otherwise it is a line of markers below the source
            if _REPEATED.fullmatch(line):
                return line
        if line.startswith(" "):
            self.inside = "quote"
            return ""
        kind = _TYPE.match(line)[0]  # type: ignore[index]  # the pattern always matches, if only an empty text
        if self.inside == "quote" and not kind.endswith("Error"):
            kind = ""  # another line of the quoted text
        self.inside = "message"
        return kind


def cut_stacktrace(text: str) -> str:
    """Return the frames of a formatted exception, and its type.

    Everything after the first exception's type is left out, because a message of several lines cannot be told from what
    Python writes after it.
    """
    head, *lines = text.split("\n")
    if not _WHOLE_HEAD.fullmatch(head):
        return ""
    cut = Stacktrace()
    kept = [cut.keep(head)]
    for line in lines:
        kept.append(cut.keep(line))
        if cut.inside == "message":
            break
    return "\n".join(filter(None, kept))
