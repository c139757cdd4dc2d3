"""The telemetry of user-service's own work."""

from prometheus_client import Counter

from servicekit.telemetry import logs
from servicekit.telemetry.metrics import Metrics
from servicekit.telemetry.tracing import Tracer, Work


class Signals:
    """Log events, metrics and spans, with methods named after business events."""

    def __init__(self, metrics: Metrics, tracer: Tracer) -> None:
        self._log = logs.get_logger()
        self._tracer = tracer
        self._registrations = Counter("users_registered_total", "Users registered.", registry=metrics.registry)

    def password_verifying(self) -> Work:
        """A password is about to be checked, which is slow on purpose. User and result are not recorded."""
        return self._tracer.span("verify password")

    def user_registered(self, user_id: int) -> None:
        """A user was registered. Only the id is recorded, because the name is personal."""
        self._registrations.inc()
        self._log.info("user.registered", user_id=user_id)
