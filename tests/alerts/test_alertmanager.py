"""Alertmanager with this project's configuration: what it sends, what it groups, what it keeps to itself."""

import json
import re
import shutil
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
import yaml

from local import debian, processes
from tests.alerts.runbooks import PAGES
from tests.fixtures.ports import free_port
from tests.fixtures.services import eventually

FOLDER = Path(__file__).parents[2] / "observability" / "alertmanager"
OVERLAY = FOLDER.parents[1] / "docker-compose.observability.yml"
CONFIGURATION = yaml.safe_load((FOLDER / "alertmanager.yml").read_text())


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """alertmanager and amtool: those on the PATH, or the distribution's."""
    if found := shutil.which("alertmanager"):
        return Path(found), shutil.which("amtool")
    if not shutil.which("apt-get"):
        pytest.skip("no alertmanager here, and no apt")
    program = debian.fetch("prometheus-alertmanager", "usr/bin/prometheus-alertmanager")
    # Debian's wants its templates in /usr/share, where an unpacked package is not: it gets a /usr/share of its own.
    wrapper = tmp_path_factory.mktemp("bin") / "alertmanager"
    share = program.parents[1] / "share"
    wrapper.write_text(
        f"""#!/bin/sh\nexec unshare --user --map-root-user --mount"""
        f""" sh -c 'mount --bind "{share}" /usr/share && exec "{program}" "$@"' sh "$@"\n"""
    )
    wrapper.chmod(0o755)
    return wrapper, program.with_name("amtool")


class Receiver:
    """Somebody's webhook.

    Attributes:
        messages: What it was sent.
    """

    def __init__(self):
        self.messages = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                receiver.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/alerts?a=1&b=|"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def told(self, status="firing"):
        """The names of the alerts that it was told of, in this state."""
        return {
            one["labels"]["alertname"]
            for message in self.messages
            for one in message["alerts"]
            if one["status"] == status
        }


def told_only(receiver, *names):
    """Wait until it was told of these, then for as long as a message that should not come would have taken."""
    eventually(lambda: receiver.told() >= set(names), 10)
    time.sleep(1.5)
    return receiver.told() == set(names)


@pytest.fixture
def receiver():
    running = Receiver()
    yield running
    running.stop()


@pytest.fixture
def start(programs, tmp_path):
    """Start Alertmanager as Compose does, on a free port: `start(ALERT_WEBHOOK_URL=...)` gives its root."""
    started = []

    def run(**environment):
        folder = tmp_path / "alertmanager"
        shutil.copytree(FOLDER, folder)
        text = (folder / "alertmanager.yml").read_text()
        text = re.sub(r"group_wait: 10s ", "group_wait: 1s ", text)
        text = re.sub(r"group_interval: 1m ", "group_interval: 1s ", text)
        assert text.count(": 1s ") == 2
        (folder / "alertmanager.yml").write_text(text)
        root = f"http://127.0.0.1:{free_port()}"
        overlay = yaml.safe_load(OVERLAY.read_text())["services"]["alertmanager"]
        arguments = [argument.replace("=/alertmanager", f"={tmp_path}/data") for argument in overlay["command"]]
        command = ["/bin/sh", folder / "start.sh", *arguments, f"--web.listen-address={root.removeprefix('http://')}"]
        made = {"ALERTMANAGER": programs[0], "ALERTMANAGER_MADE": tmp_path / "made.yml", "PATH": "/usr/bin:/bin"}
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                command, env={name: str(value) for name, value in (made | environment).items()}, stdout=log, stderr=log
            )
        started.append(process)

        def ready():
            assert process.poll() is None, (tmp_path / "log").read_text()
            try:
                return requests.get(f"{root}/-/ready", timeout=2).ok
            except requests.ConnectionError:
                return False

        eventually(ready, 20)
        return root

    yield run
    for process in started:
        processes.end(process)


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
