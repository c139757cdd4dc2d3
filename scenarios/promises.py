"""The signals that a scenario promises, and how each is looked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import requests

from scenarios.outcome import BEFORE, Check

if TYPE_CHECKING:
    from collections.abc import Callable

    from scenarios.asking import Telemetry
    from scenarios.describing import Log, Panel, Scenario, Trace

    Alerts = dict[str, tuple[str, float]]

_CHANGED = 1.5
"""The factor by which a panel's highest value has to rise or fall, so that people notice it."""

_SLOW_TO_CALM = "Burn"


class Promises:
    """The signals that a scenario promises.

    Create it before the fault is switched on, because it records the signals that are there already.

    Args:
        scenario: The scenario.
        telemetry: The shop's telemetry.

    Attributes:
        checks: A check for each promise.
    """

    def __init__(self, scenario: Scenario, telemetry: Telemetry) -> None:
        signals = scenario.signals
        self._telemetry = telemetry
        self._service = scenario.truth.service
        self._levels = {each: self._level(each) for each in map(_key, signals.panels)}
        self._before = set(telemetry.alerts())
        self._looks: list[tuple[Check, Callable[[float, Alerts], str]]] = [
            *((Check("alert", each), self._alert(each)) for each in signals.alerts),
            *((Check("trace", _span(each)), self._trace(each)) for each in signals.traces),
            *((Check("log", _line(each)), self._log(each)) for each in signals.logs),
            *((Check("metric", each), self._metric(each)) for each in signals.metrics),
            *((Check("panel", f"{each.dashboard}: {each.title}"), self._panel(each)) for each in signals.panels),
        ]
        self.checks = [check for check, _ in self._looks]
        for check in self.checks:
            if check.kind == "alert" and check.what in self._before and is_slow(check.what):
                check.found, check.binding = BEFORE, False

    def look(self, since: float, alerts: Alerts | None) -> list[tuple[Check, str]]:
        """Look for all signals that were not seen yet.

        Args:
            since: The time at which the fault began (Unix time).
            alerts: The current alerts; None if they could not be fetched.

        Returns:
            The signals that were seen for the first time.
        """
        seen = []
        self._before &= self._before if alerts is None else alerts.keys()  # one that has ended may fire again
        for check, look in self._looks:
            if check.kept:
                continue
            try:
                found = look(since, alerts or {})
            except requests.RequestException as error:
                if check.binding:
                    check.found = f"({type(error).__name__})"  # the fault may be the reason
                continue
            if found:
                seen.append((check, found))
        return seen

    def _alert(self, name: str) -> Callable[[float, Alerts], str]:
        def look(since: float, alerts: Alerts) -> str:
            state, active = alerts.get(name, ("", 0.0))
            return state if active >= since and name not in self._before else ""

        return look

    def _trace(self, wanted: Trace) -> Callable[[float, Alerts], str]:
        return lambda since, _: self._telemetry.trace(wanted, since) or ""

    def _log(self, wanted: Log) -> Callable[[float, Alerts], str]:
        def look(since: float, _: Alerts) -> str:
            count = self._telemetry.lines(wanted, since)
            return f"{count} lines" if count >= wanted.least else ""

        return look

    def _metric(self, expression: str) -> Callable[[float, Alerts], str]:
        return lambda *_: ", ".join(f"{value:.3g}" for value in self._telemetry.query(expression)[:3])

    def _panel(self, panel: Panel) -> Callable[[float, Alerts], str]:
        def look(*_: Any) -> str:
            level, before = self._level(_key(panel)), self._levels[_key(panel)] or 0.0
            if level is None:  # an empty panel has not fallen
                return ""
            changed = level > before * _CHANGED or level < before / _CHANGED
            return f"{before:.3g} before, {level:.3g} now" if changed else ""

        return look

    def _level(self, key: tuple[str, str]) -> float | None:
        return self._telemetry.level(*key, self._service)


def noise(scenario: Scenario, telemetry: Telemetry) -> list[str]:
    """Return the scenario's alerts and metrics that show already; without the fault, there should be none.

    Alerts about budgets are left out, because they look back for too long to wait for them.
    """
    alerts = telemetry.alerts()
    return [name for name in scenario.signals.alerts if name in alerts and not is_slow(name)] + [
        expression for expression in scenario.signals.metrics if telemetry.query(expression)
    ]


def is_slow(alert: str) -> bool:
    """Whether an alert is about a budget, so that it looks back for five minutes or more."""
    return alert.endswith(_SLOW_TO_CALM)


def _key(panel: Panel) -> tuple[str, str]:
    return panel.dashboard, panel.title


def _span(trace: Trace) -> str:
    over = f" over {trace.over * 1000:.0f} ms" if trace.over else ""
    ahead = f" beginning {trace.ahead:.0f} s ahead" if trace.ahead else ""
    attributes = "".join(f" {name}={value}" for name, value in trace.attributes.items())
    return f"{trace.service} {trace.operation}{over}{ahead}{attributes}"


def _line(log: Log) -> str:
    where = "".join(f" {name}={value}" for name, value in log.where.items())
    return f"{log.service} {log.event}{where}"
