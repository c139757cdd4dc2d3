"""What the runner says to a person instead of a traceback."""


class LocalError(Exception):
    """One clear sentence that says what is wrong and what to do.

    The command line prints it without a traceback and ends with status 1.
    """
