"""The light overlay: an order, the shop and its log lines are seen as in local mode, with the same pages."""

import contextlib
import re

import pytest
import requests

from tests.compose import browsing
from tests.compose.composed import LIGHT, SERVICES, SHIPPED
from tests.dashboards.reading import load
from tests.dashboards.shopping import Shopping
from tests.fixtures.services import eventually

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

BOARDS = [uid for uid, board in load().items() if "load" not in board["tags"]]
HEALTHY = {"Alerts that fire", "Alerts, over time", "Errors in the logs", "Slowest traces with an order's INSERT"}
"""Panels that have nothing to show where all is well, and fast."""


@pytest.fixture(scope="module")
def busy(light):
    """With people in the shop."""
    people = Shopping(light.gateway.root)
    yield light
    people.stop()


def test_everything_is_healthy_and_only_this_machine_reaches_it(light):
    assert light.unhealthy() == []
    published = {
        service: {
            (binding["HostIp"], int(binding["HostPort"]))
            for bindings in light.inspect(service)["NetworkSettings"]["Ports"].values()
            for binding in bindings or []
        }
        for service in LIGHT
    }
    ports = {"collector": {24224}, "embedded-backend": {4318, 16686, 3100}, "prometheus": {9090}, "console": {3000}}
    assert published == {service: {("127.0.0.1", port) for port in ports.get(service, ())} for service in LIGHT}


def test_the_console_places_an_order_and_shows_all_of_it_within_two_seconds(light):
    browsing.order(light.console_url)  # the services fetch their keys, and more
    assert min(browsing.order(light.console_url)[1] for _ in range(3)) < 2


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 400),
        ({"Host": "evil.example:3000", "Origin": "http://evil.example:3000"}, 400),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:8080"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_behind_its_published_port_the_console_answers_its_own_pages_only(light, headers, status):
    answer = requests.post(f"{light.console_url}/orders/", {"product_id": 1}, headers=headers, timeout=10)
    assert answer.status_code == status


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_console_is_the_same_by_name_and_by_address(light, host):
    browsing.order(f"http://{host}:3000")


def test_what_is_copied_from_a_trace_works_on_this_machine(light):
    page, _ = browsing.order(light.console_url)
    trace = re.search(r"/traces/([0-9a-f]{32})", requests.get(page, timeout=10).text)[1]
    shown = requests.get(f"{light.console_url}/traces/{trace}", timeout=10).text
    copied = re.search(r"curl (?:&#39;)?(http[^\s&\"]+)", shown)[1]
    assert copied.startswith(f"{light.jaeger_url}/")
    assert requests.get(copied, timeout=10).json()["data"][0]["traceID"] == trace


def test_the_health_checks_look_at_its_backends(light):
    shown = light.health_checks("-k", "trace or prometheus")  # the rest is the shop's, whatever watches it
    assert "passed" in shown
    assert "Not looked at" not in shown


# Before `busy` lets people in: for them an order that stays PENDING is a failure.
def test_the_consoles_page_switches_where_it_may_write_and_says_so_where_it_may_not(light, token, switch):
    page, own = f"{light.console_url}/faults", {"Origin": light.console_url}
    folder = light.clone / "scenarios" / "flags"
    folder.chmod(0o755)
    if folder.stat().st_uid != 10010:
        assert "CONSOLE_USER" in requests.get(page, timeout=10).text
    folder.chmod(0o777)
    wanted = {"name": "payment-down", "state": "on"}
    assert requests.post(page, wanted, headers=own, timeout=10).status_code == 200
    eventually(lambda: light.placed(token)[0] == 202, 10)
    assert "fault on: " in requests.get(light.console_url, timeout=10).text
    assert "On: nothing" in switch("all=off")  # whoever wrote the file last
    eventually(lambda: light.placed(token)[0] == 201, 10)


@pytest.mark.parametrize("uid", BOARDS)
def test_each_panel_of_a_dashboard_has_data(busy, uid):
    with contextlib.suppress(AssertionError):  # what is missing is said below
        eventually(lambda: browsing.empty_panels(busy.console_url, uid) <= HEALTHY, 60, pause=1)
    assert browsing.empty_panels(busy.console_url, uid) <= HEALTHY


def test_the_overview_knows_that_all_parts_are_up_and_who_calls_whom(busy):
    def shown():
        page = browsing.text(f"{busy.console_url}/", range="5m")
        return all(part in page for part in (*SERVICES, "nginx")) and "DOWN" not in page and "req/s" in page

    eventually(shown, 30, pause=1)


def test_log_lines_come_from_each_container_of_the_shop(busy):
    def streams():
        return {labels["service_name"] for labels, _ in busy.lines('{service_namespace="shop"}')}

    eventually(lambda: streams() >= {*SERVICES, "nginx"}, 20, pause=0.5)
    assert streams() <= set(SHIPPED)
    shown = browsing.text(f"{busy.console_url}/logs", q='{service_name="order-service"} | json | event="order.settled"')
    assert "order.settled" in shown


def test_all_that_is_scraped_is_up_and_each_rule_can_be_evaluated(busy):
    wanted = {*SERVICES, "nginx", "collector", "embedded-backend", "prometheus"}

    def up():
        return {(labels["job"], labels["service_name"], number) for labels, number in busy.metric("up")}

    eventually(lambda: up() == {(job, job, 1.0) for job in wanted}, 60, pause=0.5)
    rules = busy.ask(f"{busy.prometheus_url}/api/v1/rules")["data"]["groups"]
    assert {rule["health"] for group in rules for rule in group["rules"]} <= {"ok"}
