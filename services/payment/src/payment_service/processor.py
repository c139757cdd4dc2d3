"""The simulated payment processor: what a bank would be, with faults that can be set.

It has one fixed rule, a limit on the amount, so that a decline can be shown on purpose. The faults are off unless set;
what each one teaches stands in `settings.py`.
"""

import hashlib
import time

from payment_service.domain import Charge, Outcome, ProcessorDown
from payment_service.settings import ProcessorSettings


class Processor:
    """Decides charges. The same key gets the same decision, so a charge may be asked for again."""

    def __init__(self, settings: ProcessorSettings) -> None:
        self._settings = settings

    @property
    def faults(self) -> dict[str, bool]:
        """Which of the faults are set."""
        return {
            "payment_latency": self._settings.payment_latency_ms > 0,
            "payment_declines": self._settings.payment_decline_share > 0,
            "payment_outage": self._settings.payment_outage,
        }

    def decide(self, key: str, charge: Charge) -> tuple[Outcome, str | None]:
        """Return a charge's outcome, and the reason if it is declined.

        Args:
            key: The charge's idempotency key.
            charge: What is to be charged.

        Raises:
            ProcessorDown: The outage is on.
        """
        settings = self._settings
        if settings.payment_latency_ms:
            time.sleep(settings.payment_latency_ms / 1000)
        if settings.payment_outage:
            raise ProcessorDown
        if charge.amount_minor > settings.payment_limit_minor:
            return Outcome.DECLINED, "amount_over_limit"
        if _share_of(key) < settings.payment_decline_share:
            return Outcome.DECLINED, "declined_by_bank"
        return Outcome.PAID, None


def _share_of(key: str) -> float:
    """Map a key to [0, 1), evenly and always to the same place."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") / 2**32
