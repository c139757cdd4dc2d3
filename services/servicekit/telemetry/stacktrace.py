"""Cuts formatted exceptions, line by line: frames and types are kept, what exceptions say and quote is not.

What an exception says may be a row or somebody's input. A SyntaxError quotes what could not be parsed, before its type;
notes and the exceptions of a group follow it.
"""

import re
from typing import Literal

_HEAD = "Traceback (most recent call last):"
_WHOLE_HEAD = re.compile(r"( *[+|] )?(Exception Group )?" + re.escape(_HEAD))
_MARGIN = re.compile(r" *\| ")  # of the lines of a group
_FRAME = re.compile(r"""  File "(?P<file>[^"]*)", line \d+, in [\w.<> '-]+""")
_REPEATED = re.compile(r"  \[Previous line repeated \d+ more times?\]")
_TYPE = re.compile(r"(?:[\w.]|<locals>)*")
_BETWEEN = frozenset({
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
})  # fmt: skip


class Stacktrace:
    """Cuts lines, among which there may be formatted exceptions.

    Args:
        inside: What comes first: any text, or an exception, which need not have a head.

    Attributes:
        inside: What the next line belongs to.
    """

    def __init__(self, inside: Literal["text", "frames"] = "text") -> None:
        self.inside: Literal["text", "frames", "quote", "message"] = inside
        self._has_margin = inside == "frames"
        self._source_follows = False

    def keep(self, line: str) -> str:
        """Return what may be kept of a line."""
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
                self._source_follows = not frame["file"].startswith("<")  # what has no file may be anybody's code
                return line
            if line.startswith("    "):
                return line if source_follows else ""  # else what marks a part of it
            if _REPEATED.fullmatch(line):
                return line
        if line.startswith(" "):
            self.inside = "quote"
            return ""
        kind = _TYPE.match(line)[0]  # type: ignore[index]  # it may be empty, and always matches
        if self.inside == "quote" and not kind.endswith("Error"):
            kind = ""  # a further line of what is quoted
        self.inside = "message"
        return kind


def cut_stacktrace(text: str) -> str:
    """Return the frames of a formatted exception, and its type.

    Whatever follows the first exception's type is left out: nobody can tell a message of many lines from what Python
    writes after it.
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
