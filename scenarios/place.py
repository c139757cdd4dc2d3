"""The addresses of the shop and its telemetry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from local.settings import Settings


@dataclass(frozen=True)
class Place:
    """A running shop.

    Attributes:
        flags: The file of its feature flags.
        gateway: The root of its API.
        jaeger: The root of Jaeger's API.
        loki: The root of Loki's API.
        prometheus: The root of Prometheus' API.
        stack: The local stack; None if the shop runs in Docker Compose.
    """

    flags: Path
    gateway: str
    jaeger: str
    loki: str
    prometheus: str
    stack: Settings | None
