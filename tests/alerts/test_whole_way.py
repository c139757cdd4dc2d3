"""An alert's whole way: a fault in the shop, Prometheus, Alertmanager, the request that somebody gets."""

import contextlib
import shutil
import subprocess

import pytest
import yaml

from local import prometheus
from tests.alerts.conftest import Crowd, Saboteur
from tests.fixtures.ports import free_port
from tests.fixtures.services import Client, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

OTHER_ROUTE = "/payments/{payment_id}"
"""One that needs none of the services that are stopped here."""


@pytest.fixture
def watching(shop, tmp_path):
    """Run a second Prometheus on the shop, which tells an Alertmanager: `watching(root)` gives a client of it."""
    with contextlib.ExitStack() as stack:

        def run(alertmanager):
            conf = tmp_path / "prometheus"
            shutil.copytree(shop.run_dir / "conf" / "prometheus", conf)
            patience(conf / "rules" / "alerts.yml", ServiceDown={"keep_firing_for": "90s"}, ErrorSpike={"for": "15s"})
            address = alertmanager.removeprefix("http://")
            with (conf / "local.yml").open("a") as file:
                file.write(f"\nalerting: {{alertmanagers: [{{static_configs: [{{targets: ['{address}']}}]}}]}}\n")
            port = free_port()
            command = prometheus.command(prometheus.find(), conf / "local.yml", tmp_path / "data", port)
            with (tmp_path / "prometheus.log").open("wb") as log:
                process = subprocess.Popen(command, stdout=log, stderr=log)
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
            client = Client(f"http://127.0.0.1:{port}")
            stack.callback(client.session.close)
            return client

        yield run


def patience(rules, **changes):
    """Bring back the order of things, which ALERT_FOR has taken away: a cause is told first, and lasts longer."""
    document = yaml.safe_load(rules.read_text())
    for rule in (rule for group in document["groups"] for rule in group["rules"]):
        rule.update(changes.get(rule["alert"], {}))
    rules.write_text(yaml.safe_dump(document))


def firing(client):
    """(name, what it is about) of each alert that fires."""
    with contextlib.suppress(OSError):
        alerts = client.get("/api/v1/alerts").json()["data"]["alerts"]
        return {key(one) for one in alerts if one["state"] == "firing"}
    return set()


def key(alert):
    labels = alert["labels"]
    return labels["alertname"], labels.get("http_route", labels["job"] if labels["alertname"] == "ServiceDown" else "")


def told(receiver, status):
    """What the receiver was told of, in this state."""
    return {key(one) for message in list(receiver.messages) for one in message["alerts"] if one["status"] == status}


def test_a_fault_becomes_one_request_without_what_follows_from_it_and_another_when_it_is_over(
    shop, start, receiver, watching
):
    """Two services are stopped: their routes fail, which goes without saying; what fails beside them is said."""
    watched = watching(start(ALERT_WEBHOOK_URL=receiver.url))
    broken = Saboteur(shop)
    services = {("ServiceDown", "product-service"), ("ServiceDown", "user-service")}
    follows, beside = ("ErrorSpike", "/products/{product_id}"), ("ErrorSpike", OTHER_ROUTE)
    with Crowd(shop, 4, 0.2, ("GET", "/products/1", None)):
        eventually(lambda: (shop.run_dir / "logs" / "nginx.log").stat().st_size > 0)
        with (
            broken.stopped("product-service"),
            broken.stopped("user-service"),
            broken.failing_requests(OTHER_ROUTE),
        ):
            eventually(lambda: firing(watched) >= {*services, follows, beside}, 100, pause=0.5)
            eventually(lambda: told(receiver, "firing") >= {*services, beside}, 30)
        eventually(lambda: told(receiver, "resolved") >= services, 180, pause=0.5)
        eventually(lambda: not firing(watched) & {*services, follows, beside}, 120, pause=0.5)
    assert follows not in told(receiver, "firing")
    down = [one for one in receiver.messages if one["groupLabels"] == {"alertname": "ServiceDown", "severity": "page"}]
    together = [message for message in down if {key(one) for one in message["alerts"]} == services]
    assert together  # one request for both; when they end apart, the last one has only one of them
    (alert,) = [one for one in together[-1]["alerts"] if one["labels"]["job"] == "product-service"]
    assert alert["annotations"]["runbook_url"] == "docs/runbooks/ServiceDown.md"
    assert alert["annotations"]["summary"] == "Customers get errors from all that needs product-service."
