"""What keeps a load test from being made."""

from local.errors import LocalError


class LoadError(LocalError):
    """It cannot go on. The message is a sentence for the person who wants it."""
