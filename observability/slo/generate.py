"""Writes Prometheus' rules for the SLOs: `make slo`.

They are those that Sloth makes of the same files (`sloth generate --disable-optimized-rules`), by name, label and
arithmetic, but for the least number of events that a page needs (least-events.yaml). Sloth itself is a Go program that
this project does not want to require.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
RULES = HERE.parent / "prometheus" / "rules" / "slo.yml"
_HEAD = "# Written by `make slo` from observability/slo: change it there.\n"
_SECONDS = {"m": 60, "h": 3600, "d": 86400}
_SHORTEST = "5m"

Rule = dict[str, Any]


def rules(
    specification: dict[str, Any], windows: dict[str, Any], least: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Give the rule groups, three for each SLO: its error ratios, what else is known of it, its alerts.

    Args:
        specification: The SLOs, in Sloth's form `prometheus/v1`.
        windows: When to alert, in Sloth's form `AlertWindows`.
        least: How many bad events a page needs: `least-events.yaml`.
    """
    groups: list[dict[str, Any]] = []
    for slo in specification["slos"]:
        made = _Slo(specification["service"], specification.get("labels", {}), slo, windows["spec"], least or {})
        for kind, setting, group in (
            ("sli-recordings", "slierror", made.ratios()),
            ("meta-recordings", "metadata", made.metadata()),
            ("alerts", "alert", made.alerts()),
        ):
            interval = slo.get("interval", {}).get(setting)
            head = {"name": f"sloth-slo-{kind}-{made.id}", **({"interval": interval} if interval else {})}
            groups.append({**head, "rules": group})
    return {"groups": groups}


class _Slo:
    def __init__(
        self,
        service: str,
        labels: dict[str, str],
        slo: dict[str, Any],
        windows: dict[str, Any],
        least: dict[str, Any],
    ) -> None:
        self.id = f"{service}-{slo['name']}"
        self._slo = slo
        self._windows = windows
        self._least = least
        self._period: str = windows["sloPeriod"]
        self._names = {"sloth_id": self.id, "sloth_service": service, "sloth_slo": slo["name"]}
        self._labels = {**labels, **self._names}
        self._budget = round(1 - slo["objective"] / 100, 10)

    def ratios(self) -> list[Rule]:
        """Share of errors in each window that an alert looks at, and in the whole period."""
        used = {pair[name] for _, pair in self._pairs() for name in ("shortWindow", "longWindow")}
        return [
            {
                "record": f"slo:sli_error:ratio_rate{window}",
                "expr": self._ratio().replace("{{.window}}", window),
                "labels": {**self._labels, "sloth_window": window},
            }
            for window in sorted({*used, _SHORTEST, self._period}, key=_seconds)
        ]

    def _ratio(self) -> str:
        sli = self._slo["sli"]
        if "raw" in sli:
            return f"({sli['raw']['error_ratio_query'].strip()})"
        return f"({sli['events']['error_query'].strip()})\n/\n({sli['events']['total_query'].strip()})"

    def metadata(self) -> list[Rule]:
        """The objective, the budget, how fast it burns, and what is left of it."""

        def burn_rate(window: str) -> str:
            return f"{self._errors(window)}\n/ on(sloth_id, sloth_slo, sloth_service) group_left\n" + self._series(
                "slo:error_budget:ratio"
            )

        objective = round(self._slo["objective"] / 100, 10)
        known = {
            "slo:objective:ratio": f"vector({objective})",
            "slo:error_budget:ratio": f"vector(1-{objective})",
            "slo:time_period:days": f"vector({_seconds(self._period) // _SECONDS['d']})",
            "slo:current_burn_rate:ratio": burn_rate(_SHORTEST),
            "slo:period_burn_rate:ratio": burn_rate(self._period),
            "slo:period_error_budget_remaining:ratio": "1 - " + self._series("slo:period_burn_rate:ratio"),
        }
        about = {"sloth_mode": "observability/slo", "sloth_spec": "prometheus/v1", "sloth_version": "none"}
        return [
            *({"record": name, "expr": text, "labels": self._labels} for name, text in known.items()),
            {
                "record": "sloth_slo_info",
                "expr": "vector(1)",
                "labels": {**self._labels, **about, "sloth_objective": str(self._slo["objective"])},
            },
        ]

    def alerts(self) -> list[Rule]:
        """One for each severity that is not switched off; both have the SLO's name, as Sloth has it."""
        alerting = self._slo["alerting"]
        made: list[Rule] = []
        for severity in ("page", "ticket"):
            wanted = alerting[f"{severity}_alert"]
            if wanted.get("disable"):
                continue
            pairs = [self._burns(pair, severity) for kind, pair in self._pairs() if kind == severity]
            title = f"({severity}) {{{{$labels.sloth_service}}}} {{{{$labels.sloth_slo}}}}"
            made.append(
                {
                    "alert": alerting["name"],
                    "expr": "\nor\n".join(pairs),
                    "labels": {
                        "sloth_severity": severity,
                        **alerting.get("labels", {}),
                        **wanted.get("labels", {}),
                    },
                    "annotations": {
                        "title": f"{title} SLO error budget burn rate is too fast.",
                        **alerting.get("annotations", {}),
                        **wanted.get("annotations", {}),
                    },
                }
            )
        return made

    def _burns(self, pair: dict[str, Any], severity: str) -> str:
        spent = pair["errorBudgetPercent"] / 100
        factor = round(spent * _seconds(self._period) / _seconds(pair["longWindow"]), 10)
        limit = f"({factor:g} * {self._budget:g})"
        # `without`: the window that is over the limit is no label of the alert, which would end and begin anew with it.
        short, long = (
            f"max({self._errors(pair[name])} > {limit}) without (sloth_window)"
            for name in ("shortWindow", "longWindow")
        )
        return f"(\n  {short}\n  and\n  {long}\n{self._enough(pair['longWindow']) if severity == 'page' else ''})"

    def _enough(self, window: str) -> str:
        bad = self._least.get("bad_events", {}).get(self._slo["name"])
        if bad is None:
            return ""
        # Half an event less: a rate is an estimate.
        limit = self._least["least"] - 0.5
        return f"  and on ()\n  sum_over_time({bad}[{window}]) * {self._least['each_seconds']} >= {limit:g}\n"

    def _pairs(self) -> list[tuple[str, dict[str, Any]]]:
        return [
            (severity, self._windows[severity][speed]) for severity in ("page", "ticket") for speed in ("quick", "slow")
        ]

    def _errors(self, window: str) -> str:
        return self._series(f"slo:sli_error:ratio_rate{window}")

    def _series(self, name: str) -> str:
        return name + "{" + ", ".join(f'{label}="{value}"' for label, value in self._names.items()) + "}"


def _seconds(window: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([mhd])", window).groups()  # type: ignore[union-attr]
    return int(number) * _SECONDS[unit]


class _Dumper(yaml.SafeDumper):
    """Writes queries as blocks, and repeats what is the same instead of pointing at it."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def file() -> str:
    """Give the rules' file as it should be."""
    specification, windows, least = (
        yaml.safe_load((HERE / name).read_text(encoding="utf-8"))
        for name in ("shop.yaml", "windows-7d.yaml", "least-events.yaml")
    )
    return _HEAD + yaml.dump(rules(specification, windows, least), Dumper=_Dumper, sort_keys=False, width=1000)


if __name__ == "__main__":
    RULES.write_text(file(), encoding="utf-8")
    sys.stdout.write(f"wrote {RULES}\n")
