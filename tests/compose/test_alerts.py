"""An alert's whole way in Docker Compose: two services are stopped, and somebody's webhook gets one request."""

import contextlib
import json
import re
import time

import pytest

from tests.compose.composed import SERVICES
from tests.fixtures.services import eventually

pytestmark = [pytest.mark.compose, pytest.mark.timeout(400)]

STOPPED = ("product-service", "user-service")
RULES = "observability/prometheus/rules/alerts.yml"
ALERTMANAGER = "observability/alertmanager/alertmanager.yml"

# Prints what it is sent, one request a line.
WEBHOOK = """
import http.server
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        print(self.rfile.read(int(self.headers["Content-Length"])).decode(), flush=True)
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("0.0.0.0", 8000), Receiver).serve_forever()
"""


class Webhook:
    """Somebody's receiver, in a container beside Alertmanager's."""

    def __init__(self, observed):
        self._observed = observed
        (network, *_) = observed.inspect("alertmanager")["NetworkSettings"]["Networks"]
        options = ["--network", network, "--network-alias", "webhook", "--entrypoint", "python"]
        self._id = observed.run("docker", "run", "-d", *options, "devopsmicroservices-init", "-c", WEBHOOK).strip()

    def messages(self):
        return [json.loads(line) for line in self._observed.run("docker", "logs", self._id).splitlines() if line]

    def told(self, status):
        """(name, job or route) of each alert that it was told of, in this state."""
        return {
            (one["labels"]["alertname"], one["labels"].get("http_route") or one["labels"].get("job"))
            for message in self.messages()
            for one in message["alerts"]
            if one["status"] == status
        }

    def remove(self):
        self._observed.run("docker", "rm", "--force", self._id)


@contextlib.contextmanager
def impatient(observed):
    """Rules and Alertmanager with seconds for minutes; a cause is still told first, and lasts longer."""
    files = {name: observed.clone / name for name in (RULES, ALERTMANAGER)}
    before = {name: file.read_text() for name, file in files.items()}
    text = re.sub(r"(?m)^( +for: ).+$", r"\g<1>20s", before[RULES])
    text = re.sub(r"(- alert: ServiceDown\n(?:.*\n)*?) +for: 20s", r"\g<1>        for: 5s", text, count=1)
    files[RULES].write_text(re.sub(r"(?m)^( +keep_firing_for: ).+$", r"\g<1>90s", text))
    text = before[ALERTMANAGER].replace("group_wait: 10s", "group_wait: 2s")
    files[ALERTMANAGER].write_text(text.replace("group_interval: 1m", "group_interval: 2s"))
    try:
        yield
    finally:
        for name, file in files.items():
            file.write_text(before[name])
        restart(observed)


def restart(observed, **environment):
    """Start Prometheus and Alertmanager anew, and wait until each service was scraped.

    One that stops before would be up for five minutes more: the new Prometheus does not know its target, so it ends no
    series, and goes on with the last sample of the old one.
    """
    command = ("up", "-d", "--no-deps", "--force-recreate", "--wait", "prometheus", "alertmanager")
    observed.compose(*command, seconds=120, **environment)
    scraped = f'count(timestamp(up{{job=~".+-service"}}) > {time.time()})'
    eventually(lambda: observed.metric(scraped) == [({}, len(SERVICES))], 60, pause=0.2)


def test_stopped_services_are_one_request_without_the_errors_that_follow_and_another_when_they_are_back(observed):
    webhook = Webhook(observed)
    services = {("ServiceDown", service) for service in STOPPED}
    follows = ("ErrorSpike", "/products/{product_id}")
    try:
        with impatient(observed):
            restart(observed, ALERT_WEBHOOK_URL="http://webhook:8000/alerts")
            observed.compose("stop", *STOPPED)
            try:

                def spikes():
                    observed.gateway.get("/products/1")
                    return observed.metric('ALERTS{alertname="ErrorSpike", alertstate="firing"}')

                eventually(spikes, 120, pause=0.2)
                eventually(lambda: webhook.told("firing") >= services, 60, pause=1)
            finally:
                observed.compose("start", *STOPPED)
            eventually(lambda: webhook.told("resolved") >= services, 180, pause=1)
        assert follows not in webhook.told("firing")
        down = [one for one in webhook.messages() if one["groupLabels"]["alertname"] == "ServiceDown"]
        assert any({one["labels"]["job"] for one in message["alerts"]} == set(STOPPED) for message in down)
    finally:
        webhook.remove()
        observed.wait_until_ready()


def test_a_dead_gateway_is_seen_from_outside_and_is_back(observed):
    assert eventually(lambda: observed.metric("max(gateway_up)"), 20) == [({}, 1.0)]
    observed.compose("stop", "nginx")
    try:
        eventually(lambda: observed.metric("max(gateway_up)") == [({}, 0.0)], 30, pause=0.5)
    finally:
        observed.compose("start", "nginx")
    eventually(lambda: observed.metric("max(gateway_up)") == [({}, 1.0)], 30, pause=0.5)
    observed.wait_until_ready()
