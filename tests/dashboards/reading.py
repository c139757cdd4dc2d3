"""What is in the dashboards' files: every query, of panels, annotations and variables, ready to be asked."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

FOLDER = Path(__file__).parents[2] / "observability" / "grafana" / "dashboards"
SERVICES = ("auth-service", "nginx", "order-service", "payment-service", "product-service", "user-service")


def of_grafana():
    """What Grafana puts in for its own variables when it shows half an hour: no point is nearer to the next than that.

    Its documentation: $__rate_interval is max($__interval + scrape interval, 4 * scrape interval), and the scrape
    interval is the data source's `timeInterval`.
    """
    sources = yaml.safe_load((FOLDER.parent / "provisioning" / "datasources" / "datasources.yaml").read_text())
    [scrape] = [one["jsonData"]["timeInterval"] for one in sources["datasources"] if one["type"] == "prometheus"]
    seconds = int(scrape.removesuffix("s"))
    interval = max(seconds, 30 * 60 // MOST_POINTS)
    rate = max(interval + seconds, 4 * seconds)
    return {"__rate_interval": _duration(rate), "__interval": _duration(interval), "__range": "30m", "__auto": "1m"}


def _duration(seconds):
    return f"{seconds}s" if seconds % 60 else f"{seconds // 60}m"


MOST_POINTS = 1000  # about a panel's width in pixels
GRAFANAS = of_grafana()


@dataclass(frozen=True)
class Query:
    """One query, as Grafana sends it.

    Attributes:
        place: Where it is: `dashboard: panel, letter`.
        source: The data source: `prometheus`, `loki` or `jaeger`.
        fields: What the file has, with values instead of variables.
        service: Which of the services is chosen, if the query depends on it.
    """

    place: str
    source: str
    fields: dict
    service: str | None = None

    @property
    def expr(self):
        return self.fields["expr"]

    @property
    def dashboard(self):
        return self.place.partition(":")[0]

    def __str__(self):
        return self.place + (f", {self.service}" if self.service else "")


def load():
    """The dashboards: uid -> its JSON."""
    return {file.stem: json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))}


def panels(dashboard):
    """Its panels, those of collapsed rows too; not the rows."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def chosen(dashboard):
    """What its variables are when nobody has changed them, but for `service`, which can be any."""
    found = {}
    for variable in dashboard["templating"]["list"]:
        value = variable["current"].get("value", "")
        found[variable["name"]] = variable["allValue"] if value in ("$__all", ["$__all"]) else value
    return found


def resolved(text, values):
    """The text with values for its variables; a variable without one stays, and is a fault; `$1` is PromQL's.

    As Grafana's plugins for Loki and Prometheus do: what several may be chosen of, here a list, is escaped for a
    regular expression in quotes; the custom value for all is not; another text is if `${name:regex}` asks for it.
    """
    known = {**GRAFANAS, **values}

    def value(found):
        of_name = known.get(found[1] or found[3], found[0])
        if isinstance(of_name, list):
            return "|".join(re.sub(r"[$^*{}\[\]+?.()|]", r"\\\\\g<0>", one.replace("\\", "\\" * 4)) for one in of_name)
        return re.sub(r"[\\^$*+?.()|\[\]{}/]", r"\\\g<0>", of_name) if found[2] else of_name

    return re.sub(r"\$(?:\{(\w+)(:regex)?\}|([a-zA-Z_]\w*))", value, text)


def of_panels(boards):
    """Every query of every panel; where it depends on the service, once for each."""
    for uid, dashboard in boards.items():
        for panel in panels(dashboard):
            for target in panel.get("targets", []):
                place = f"{uid}: {panel['title']}, {target['refId']}"
                depends = "$service" in json.dumps(target)
                for service in SERVICES if depends else [None]:
                    # On a machine with nothing else to do, product-service is never slower than the default of 10 ms.
                    values = {**chosen(dashboard), "slower_than": "1ms", "service": service}
                    fields = {
                        key: resolved(value, values) if isinstance(value, str) else value
                        for key, value in target.items()
                        if key != "legendFormat"
                    }
                    yield Query(place, target["datasource"]["type"], fields, service)


def of_annotations(boards):
    """Every query of every annotation."""
    for uid, dashboard in boards.items():
        for annotation in dashboard["annotations"]["list"]:
            place = f"{uid}: annotation {annotation['name']}"
            fields = {"expr": resolved(annotation["expr"], chosen(dashboard))}
            yield Query(place, annotation["datasource"]["type"], fields)
