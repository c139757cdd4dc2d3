"""Which colour a value has, wherever it is drawn.

Grafana gives all other series a colour by their name, so that these too look the same in each panel.
"""

from __future__ import annotations

import re

from grafana_foundation_sdk.models.dashboard import (
    DashboardFieldConfigSourceOverrides,
    DynamicConfigValue,
    FieldColorModeId,
    MatcherConfig,
)

_SERVICES = {
    "nginx": "purple",
    "auth-service": "yellow",
    "user-service": "super-light-orange",
    "product-service": "light-blue",
    "order-service": "blue",
    "payment-service": "light-purple",
}

COLOURS: dict[str, dict[str, str]] = {
    "job": _SERVICES,
    "peer_service": _SERVICES,
    "status": {"PAID": "green", "DECLINED": "dark-orange", "PENDING": "light-blue"},
    "outcome": {
        "PAID": "green",
        "ok": "green",
        "succeeded": "green",
        "DECLINED": "dark-orange",
        "expected": "dark-orange",
        "rejected": "dark-orange",
        "UNAVAILABLE": "dark-red",
        "unavailable": "dark-red",
        "failed": "dark-red",
        "error": "dark-red",
    },
    "level": {
        "debug": "light-purple",
        "info": "light-blue",
        "warning": "yellow",
        "error": "red",
        "critical": "dark-red",
    },
    # What comes later wins: first the class, then what is worth telling apart in it.
    "http_response_status_code": {
        "2..": "green",
        "3..": "blue",
        "4..": "yellow",
        "5..": "dark-red",
        "401": "purple",
        "402": "dark-orange",
        "403": "light-purple",
        "404": "light-blue",
        "429": "orange",
    },
}
"""Label -> what its value looks like, as a regular expression -> colour."""

Override = DashboardFieldConfigSourceOverrides


def overrides(legend: str) -> list[Override]:
    """Give the colours of series with such a legend, which begins with the label that decides."""
    begins = re.match(r"\{\{(\w+)\}\}", legend)
    if not begins or begins[1] not in COLOURS:
        return []
    # Several series may have the same value, if there is more in the legend than that.
    mode = FieldColorModeId.FIXED if begins[0] == legend else FieldColorModeId.SHADES
    return [painted(rf"/^{value}(?![\w-])/", color, mode) for value, color in COLOURS[begins[1]].items()]


def painted(pattern: str, color: str, mode: FieldColorModeId = FieldColorModeId.FIXED) -> Override:
    """Give series whose name looks so a colour."""
    return override(pattern, {"color": {"mode": mode, "fixedColor": color}})


def override(name: str, properties: dict[str, object]) -> Override:
    """Change what fields of a name, or of a pattern between slashes, look like."""
    kind = "byRegexp" if name.startswith("/") else "byName"
    return DashboardFieldConfigSourceOverrides(
        matcher=MatcherConfig(id_val=kind, options=name),
        properties=[DynamicConfigValue(id_val=key, value=value) for key, value in properties.items()],
    )
