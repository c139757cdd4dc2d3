"""What decides whether a run was good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loadtest.shapes import Limits

ORDER = ("POST", "/orders/")
"""The request that the limits of latency are about: placing an order that is to be paid."""

TOO_MANY = "answered with 429"
"""What an error says that is the gateway's: it has had too much of one address."""

KNEE = 0.9
"""The knee is where the fewest users make this share of the highest rate: more of them only wait longer."""


@dataclass(frozen=True)
class Verdict:
    """One limit, and what was measured."""

    name: str
    limit: str
    measured: str
    kept: bool


def judge(limits: Limits, result: dict[str, Any]) -> list[Verdict]:
    """Compare a run with its limits.

    Args:
        limits: None of them is a limit when it is None.
        result: What `stats.result` gave.
    """
    total, orders = result["total"], orders_of(result)
    failed = total["failures"] / total["count"] if total["count"] else 0.0
    verdicts = [Verdict("requests", "at least 1", f"{total['count']}", total["count"] > 0)]
    if limits.max_failed is not None:
        kept = failed <= limits.max_failed
        verdicts.append(Verdict("failed requests", f"at most {limits.max_failed:.2%}", f"{failed:.2%}", kept))
    for name, limit in (("p95", limits.p95_ms), ("p99", limits.p99_ms)):
        if limit is not None:
            kept = orders is not None and orders[name] <= limit
            measured = f"{orders[name]:.0f} ms" if orders else "no orders were made"
            verdicts.append(Verdict(f"{name} of orders", f"at most {limit:.0f} ms", measured, kept))
    if limits.min_rate is not None:
        kept = total["rate"] >= limits.min_rate
        text = f"at least {limits.min_rate:.1f}"
        verdicts.append(Verdict("requests a second", text, f"{total['rate']:.1f}", kept))
    if workers := result.get("workers"):
        began, ended = workers["began"], workers["ended"]
        verdicts.append(Verdict("load workers", f"{began} to the end", f"{ended}", ended >= began))
    return verdicts


def held_back(result: dict[str, Any]) -> str | None:
    """Say that the gateway let not all of the load pass, and why; None if it did.

    Args:
        result: What `stats.result` gave.
    """
    refused = sum(error["count"] for error in result["errors"] if TOO_MANY in error["error"])
    if not refused:
        return None
    return (
        f"The gateway refused {refused:,} requests (429): this machine is one address for it, and may have only so many"
        " requests in progress and logins a second. For a load test start the shop with higher limits:"
        " CLIENT_CONNECTIONS=10000 LOGIN_RATE=200r/s make up (or docker compose up -d)."
    )


def orders_of(result: dict[str, Any]) -> dict[str, Any] | None:
    """Find the entry of the orders; None when none was made."""
    return next((one for one in result["requests"] if (one["method"], one["name"]) == ORDER), None)


def knee(stages: list[dict[str, Any]]) -> int | None:
    """Find the knee of a ramp: the index of its stage; None when the rate still grew at its end."""
    best = max((stage["rate"] for stage in stages), default=0.0)
    enough = [index for index, stage in enumerate(stages[:-1]) if best and stage["rate"] >= KNEE * best]
    return enough[0] if enough else None
