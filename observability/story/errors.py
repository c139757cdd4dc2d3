"""What keeps a story from being told."""

from local.errors import LocalError


class StoryError(LocalError):
    """One clear sentence that says what is wrong and, where it helps, what to do."""


class LoginNeeded(StoryError):
    """The gateway wants to know who is there."""
