"""A log line as a query sees it."""

from __future__ import annotations

ERROR = "__error__"
ERROR_DETAILS = "__error_details__"
EXTRACTED = "_extracted"  # what Loki appends when a line has a field of the name of a label


class Line:
    """A line on its way through the stages, and its labels by where they come from.

    `stream` and `metadata` are shared between lines: they are replaced, never changed.
    """

    __slots__ = ("error", "error_details", "metadata", "parsed", "stream", "text", "timestamp", "value")

    def __init__(self, timestamp: int, text: str, stream: dict[str, str], metadata: dict[str, str]) -> None:
        self.timestamp = timestamp
        self.text = text
        self.stream = stream
        self.metadata = metadata
        self.parsed: dict[str, str] = {}
        self.error = ""
        self.error_details = ""
        self.value: float | None = None

    def get(self, name: str) -> str | None:
        """Give a label's value, None when there is no such label."""
        if name == ERROR:
            return self.error or None
        if name == ERROR_DETAILS:
            return self.error_details or None
        value = self.parsed.get(name)
        if value is None:
            value = self.metadata.get(name)
        return self.stream.get(name) if value is None else value

    def extract(self, name: str, value: str, *, replace: bool = False) -> None:
        """Add a label found in the line; the first of a name stays, and the line's own labels do."""
        if name in self.stream or name in self.metadata:
            name += EXTRACTED
        if replace or name not in self.parsed:
            self.parsed[name] = value

    def set(self, name: str, value: str) -> None:
        """Set a label, whatever it was."""
        self.delete(name)
        self.parsed[name] = value

    def delete(self, name: str) -> None:
        """Take a label away."""
        if name == ERROR:
            self.error = ""
        elif name == ERROR_DETAILS:
            self.error_details = ""
        else:
            self.parsed.pop(name, None)
            if name in self.metadata:
                self.metadata = {key: value for key, value in self.metadata.items() if key != name}
            if name in self.stream:
                self.stream = {key: value for key, value in self.stream.items() if key != name}

    def fail(self, error: str, details: str = "") -> None:
        """Note that a stage could not do its work on this line."""
        self.error, self.error_details = error, details

    def added(self) -> dict[str, str]:
        """Give the labels that stages have added, with the error."""
        if not self.error and not self.error_details:
            return self.parsed
        errors = {ERROR: self.error, ERROR_DETAILS: self.error_details}
        return self.parsed | {name: value for name, value in errors.items() if value}

    def labels(self) -> dict[str, str]:
        """Give all labels."""
        return {**self.stream, **self.metadata, **self.added()}
