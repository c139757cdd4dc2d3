"""A run without a fault, in which naming a cause is a false alarm."""

from __future__ import annotations

from scenarios.describing import Effect, Load, Scenario, Signals, Truth

NAME = "health"

# No file could describe this scenario: it switches nothing on, and ends after a fixed time.
HEALTH = Scenario.model_construct(
    name=NAME,
    kind=NAME,
    teaches="Nothing is wrong.",
    switch=None,
    load=Load(),
    effect=Effect.model_construct(measure="p95", query=None, before=0.4, during=0.0, felt="nothing"),
    signals=Signals.model_construct(alerts=[], traces=[], logs=[], metrics=[], panels=[]),
    truth=Truth.model_construct(service=None, operation=None, attribute=None),
    runbook=None,
    patience=0.0,
)
