"""What keeps a load test from being made."""


class LoadError(Exception):
    """It cannot go on. The message is a sentence for the person who wants it."""
