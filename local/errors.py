"""What the runner says to a person instead of a traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class LocalError(Exception):
    """One clear sentence that says what is wrong and what to do.

    The command line prints it without a traceback and ends with status 1.
    """


class StepError(LocalError):
    """A part or a task failed, and its log says more.

    Args:
        message: One clear sentence.
        log: The log.
    """

    def __init__(self, message: str, log: Path) -> None:
        super().__init__(message)
        self.log = log
