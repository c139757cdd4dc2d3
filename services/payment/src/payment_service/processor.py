"""The simulated payment processor, in place of a bank.

It declines amounts above a limit, so that you can cause a decline on purpose. Its faults are in `faults.py`.
"""

from payment_service.domain import Charge, Outcome
from payment_service.settings import ProcessorSettings


class Processor:
    """Decides charges.

    Args:
        settings: The limit on the amount.
    """

    def __init__(self, settings: ProcessorSettings) -> None:
        self._settings = settings

    def decide(self, key: str, charge: Charge) -> tuple[Outcome, str | None]:  # noqa: ARG002  # a bank would need it
        """Return a charge's outcome, and the reason if it is declined.

        Args:
            key: The charge's idempotency key.
            charge: The charge.

        Raises:
            ProcessorDown: It does not answer. Only `faults.Processor` raises this.
        """
        if charge.amount_minor > self._settings.payment_limit_minor:
            return Outcome.DECLINED, "amount_over_limit"
        return Outcome.PAID, None
