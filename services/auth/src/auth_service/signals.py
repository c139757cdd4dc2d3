"""The telemetry of auth-service's own work."""

from prometheus_client import Counter

from servicekit.telemetry import logs
from servicekit.telemetry.metrics import Metrics

_OUTCOMES = ("succeeded", "rejected", "unavailable")


class Signals:
    """Log events and metrics, with methods named after business events."""

    def __init__(self, metrics: Metrics) -> None:
        self._log = logs.get_logger()
        self._logins = Counter("logins_total", "Logins by outcome.", ["outcome"], registry=metrics.registry)
        for outcome in _OUTCOMES:
            self._logins.labels(outcome)

    def login_succeeded(self, user_id: int) -> None:
        """A user got a token."""
        self._logins.labels("succeeded").inc()
        self._log.info("login.succeeded", user_id=user_id)

    def login_rejected(self) -> None:
        """The credentials were wrong. The username is not logged, since people type passwords into its field."""
        self._logins.labels("rejected").inc()
        self._log.info("login.rejected")

    def login_unavailable(self) -> None:
        """The credentials could not be checked."""
        self._logins.labels("unavailable").inc()
        self._log.warning("login.unavailable")
