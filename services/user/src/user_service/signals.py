"""What user-service tells the outside about its work."""

from prometheus_client import Counter

from servicekit import logs
from servicekit.metrics import Metrics


class Signals:
    """Log events and metrics, named as the business names them."""

    def __init__(self, metrics: Metrics) -> None:
        self._log = logs.get_logger()
        self._registrations = Counter("users_registered_total", "Users registered.", registry=metrics.registry)

    def user_registered(self, user_id: int) -> None:
        """There is a new user: known by the id, the name is personal."""
        self._registrations.inc()
        self._log.info("user.registered", user_id=user_id)
