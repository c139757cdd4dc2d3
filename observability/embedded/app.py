"""The wiring: one file, its stores, and three HTTP servers in one process."""


from flask import Flask

from observability.embedded.database import MEGABYTE, Database
from observability.embedded.settings import BackendSettings

_LOOP_SECONDS = 0.2  # between two looks at whether to stop


class PortInUse(RuntimeError):  # noqa: N818  # it is said of the port
    """A port cannot be listened on. The message says which, and what to do."""


class Backend:
    """All of the embedded backend.

    Args:
        settings: Its settings.
    """

    def __init__(self, settings: BackendSettings) -> None:
        self._settings = settings
        self.database = Database(
            settings.embedded_database,
            max_bytes=settings.max_database_mb * MEGABYTE,
            max_age_seconds=settings.retention_hours * 3600,
            queue_bytes=settings.queue_mb * MEGABYTE,
        )

    def apps(self) -> dict[str, Flask]:
        """Give the app of each port, by the name of the port's setting."""
        return {}
