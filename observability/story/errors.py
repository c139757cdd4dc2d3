"""What keeps a story from being told."""


class StoryError(Exception):
    """One clear sentence that says what is wrong and, where it helps, what to do."""
