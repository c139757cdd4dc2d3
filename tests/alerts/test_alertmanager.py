"""Alertmanager with this project's configuration: what it sends, what it groups, what it keeps to itself."""

import re
import subprocess
import time
from datetime import UTC, datetime, timedelta

import pytest
import requests
import yaml

from tests.alerts.runbooks import PAGES
from tests.fixtures.alertmanager import FOLDER
from tests.fixtures.services import eventually

CONFIGURATION = yaml.safe_load((FOLDER / "alertmanager.yml").read_text())


def told_only(receiver, *names):
    """Wait until it was told of these, then for as long as a message that should not come would have taken."""
    eventually(lambda: receiver.told() >= set(names), 10)
    time.sleep(1.5)
    return receiver.told() == set(names)


def post(root, *alerts, over=False):
    """Tell it of alerts as Prometheus does: dicts of labels."""
    now = datetime.now(UTC)
    ends = now if over else now + timedelta(minutes=5)
    body = [
        {"labels": labels, "annotations": {"summary": "s"}, "startsAt": now.isoformat()} | {"endsAt": ends.isoformat()}
        for labels in alerts
    ]
    requests.post(f"{root}/api/v2/alerts", json=body, timeout=5).raise_for_status()


def alert(name, severity="page", **labels):
    return {"alertname": name, "severity": severity, **labels}


def test_amtool_finds_nothing_wrong_with_the_configuration(programs):
    done = subprocess.run(
        [programs[1], "check-config", FOLDER / "alertmanager.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tree = [programs[1], "config", "routes", "test", f"--config.file={FOLDER / 'alertmanager.yml'}", "severity=ticket"]
    assert subprocess.run(tree, capture_output=True, text=True, check=True).stdout.strip() == "webhook"


def test_what_is_kept_back_is_alerts_that_exist():
    for rule in CONFIGURATION["inhibit_rules"]:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            if named := re.fullmatch(r'alertname=~?"(.+)"', matcher):
                assert set(named[1].split("|")) <= set(PAGES)


def test_a_dead_database_is_told_and_what_follows_from_it_is_not_until_it_is_over(start, receiver):
    root = start(ALERT_WEBHOOK_URL=receiver.url)
    follows = [
        alert("ErrorSpike", http_route="/orders/"),
        alert("DatabasePoolWaits", "ticket", job="order-service"),
        alert("OrderAvailabilityBurn", sloth_slo="order-availability"),
    ]
    post(root, alert("DatabaseDown"), *follows, alert("TelemetryDown", "ticket", job="loki"))
    assert told_only(receiver, "DatabaseDown", "TelemetryDown")
    post(root, alert("DatabaseDown"), over=True)
    eventually(lambda: "DatabaseDown" in receiver.told("resolved"), 10)
    eventually(lambda: receiver.told() >= {"ErrorSpike", "DatabasePoolWaits", "OrderAvailabilityBurn"}, 10)


def test_a_dead_database_silences_no_error_of_the_catalogue(start, receiver):
    root = start(ALERT_WEBHOOK_URL=receiver.url)
    post(root, alert("DatabaseDown"))
    post(root, *(alert("ErrorSpike", job="nginx", http_route=route) for route in ("/orders/{order_id}", "/products/")))
    eventually(lambda: "ErrorSpike" in receiver.told(), 10)
    assert told_only(receiver, "DatabaseDown", "ErrorSpike")
    told = [one["labels"] for message in receiver.messages for one in message["alerts"]]
    assert [one["http_route"] for one in told if one["alertname"] == "ErrorSpike"] == ["/products/"]


def test_a_service_that_logins_need_is_told_and_not_the_budget_that_it_burns(start, receiver):
    root = start(ALERT_WEBHOOK_URL=receiver.url)
    post(root, alert("ServiceDown", job="auth-service"), alert("LoginAvailabilityBurn", sloth_slo="login-availability"))
    assert told_only(receiver, "ServiceDown")


def test_services_that_are_down_are_one_message_and_a_page_needs_no_ticket(start, receiver):
    root = start(ALERT_WEBHOOK_URL=receiver.url)
    slo = {"sloth_slo": "order-latency"}
    post(root, alert("OrderLatencyBurn", **slo), alert("OrderLatencyBurn", "ticket", **slo))
    post(root, alert("OrderFreshnessBurn", "ticket", sloth_slo="order-freshness"))
    post(root, alert("ServiceDown", job="user-service"), alert("ServiceDown", job="order-service"))
    post(
        root, alert("ErrorSpike", http_route="/orders/"), alert("OrderAvailabilityBurn", sloth_slo="order-availability")
    )
    assert told_only(receiver, "OrderLatencyBurn", "OrderFreshnessBurn", "ServiceDown")
    messages = {(one["groupLabels"]["alertname"], one["groupLabels"]["severity"]): one for one in receiver.messages}
    assert {one["labels"]["job"] for one in messages["ServiceDown", "page"]["alerts"]} == {
        "user-service",
        "order-service",
    }
    assert ("OrderLatencyBurn", "ticket") not in messages


OWN_ROUTES = {
    "auth-service": ["/auth/login", "/auth/validate", "/auth/.well-known/jwks.json"],
    "user-service": ["/users", "/users/", "/users/{user_id}", "/auth/login"],
    "product-service": ["/products", "/products/", "/products/{product_id}", "/orders/"],
    "order-service": ["/orders", "/orders/", "/orders/{order_id}"],
    "payment-service": ["/payments/{payment_id}"],
}


@pytest.mark.parametrize("service", OWN_ROUTES)
def test_a_service_that_is_down_silences_the_errors_of_what_needs_it_and_no_others(start, receiver, service):
    root = start(ALERT_WEBHOOK_URL=receiver.url)
    routes = {route for routes in OWN_ROUTES.values() for route in routes} | {"/"}
    post(root, alert("ServiceDown", job=service))
    post(root, *(alert("ErrorSpike", job="nginx", http_route=route) for route in sorted(routes)))

    def told_routes():
        return {
            one["labels"]["http_route"]
            for message in receiver.messages
            for one in message["alerts"]
            if one["labels"]["alertname"] == "ErrorSpike"
        }

    eventually(lambda: told_routes() >= routes - set(OWN_ROUTES[service]), 10)
    told_only(receiver, "ServiceDown", "ErrorSpike")
    assert told_routes() == routes - set(OWN_ROUTES[service])


def test_a_dead_gateway_is_told_and_that_there_is_no_traffic_is_not(start, receiver):
    root = start(ALERT_WEBHOOK_URL=receiver.url)
    post(root, alert("GatewayDown"), alert("NoTraffic"))
    assert told_only(receiver, "GatewayDown")


OWN = """
route:
  receiver: morning
  group_by: [alertname]
  group_wait: 1s
  routes: [{matchers: [severity="page"], receiver: on-call}]
receivers:
  - name: on-call
    webhook_configs: [{url: "URL&to=on-call"}]
  - name: morning
    webhook_configs: [{url: "URL&to=morning"}]
"""


def test_a_file_of_ones_own_says_who_is_told_and_what_is_kept_back_stays(start, receiver):
    root = start(OWN.replace("URL", receiver.url), ALERT_WEBHOOK_URL="http://127.0.0.1:9/unused")
    post(
        root, alert("DatabaseDown"), alert("DatabasePoolWaits", "ticket"), alert("TelemetryDown", "ticket", job="loki")
    )
    assert told_only(receiver, "DatabaseDown", "TelemetryDown")
    assert {(one["receiver"], one["groupLabels"]["alertname"]) for one in receiver.messages} == {
        ("on-call", "DatabaseDown"),
        ("morning", "TelemetryDown"),
    }


def test_the_example_for_mail_slack_and_pagerduty_is_well_formed_and_sends_each_severity_its_way(
    start, programs, tmp_path
):
    start((FOLDER / "receivers.example.yml").read_text().replace("/etc/alertmanager/secrets", str(tmp_path)))
    made = tmp_path / "made.yml"
    subprocess.run([programs[1], "check-config", made], capture_output=True, check=True)
    assert yaml.safe_load(made.read_text())["inhibit_rules"] == CONFIGURATION["inhibit_rules"]
    for severity, told in (("page", "who-is-on-call"), ("ticket", "somebody-in-the-morning")):
        tree = [programs[1], "config", "routes", "test", f"--config.file={made}", f"severity={severity}"]
        assert subprocess.run(tree, capture_output=True, text=True, check=True).stdout.strip() == told


def test_a_file_of_ones_own_may_begin_as_yaml_files_do_and_what_does_not_count_is_told(start, receiver, tmp_path):
    root = start("---\n" + OWN.replace("URL", receiver.url), ALERT_WEBHOOK_URL="http://127.0.0.1:9/unused")
    post(root, alert("ServiceDown", job="order-service"))
    assert told_only(receiver, "ServiceDown")
    assert "ALERT_WEBHOOK_URL does not" in (tmp_path / "log").read_text()


def test_an_empty_file_of_ones_own_is_none(start, receiver):
    root = start("", ALERT_WEBHOOK_URL=receiver.url)
    post(root, alert("ServiceDown", job="order-service"))
    assert told_only(receiver, "ServiceDown")


def test_a_dead_collector_is_told_and_the_spans_that_it_costs_are_not(start, receiver):
    root = start(ALERT_WEBHOOK_URL=receiver.url)
    post(root, alert("TelemetryDown", "ticket", job="collector"), alert("SpansDropped", "ticket", job="order-service"))
    post(
        root,
        alert("TelemetryQueueNearlyFull", "ticket", job="order-service"),
        alert("LogLinesLost", "ticket", job="nginx"),
    )
    assert told_only(receiver, "TelemetryDown", "LogLinesLost")


def test_without_a_receiver_alerts_are_seen_and_sent_nowhere(start, programs, tmp_path):
    root = start()
    post(root, alert("ServiceDown", job="order-service"))
    seen = eventually(lambda: requests.get(f"{root}/api/v2/alerts", timeout=5).json(), 10)
    assert [one["labels"]["alertname"] for one in seen] == ["ServiceDown"]
    assert "webhook_configs" not in (tmp_path / "made.yml").read_text()
    subprocess.run([programs[1], "check-config", tmp_path / "made.yml"], capture_output=True, check=True)
