"""What ends a measurement with a sentence instead of a traceback."""


class BenchError(Exception):
    """One clear sentence that says what is wrong and what to do."""
