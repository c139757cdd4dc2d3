"""docs/observability.md leads from the alert to the row: its commands and queries are run, in their order."""

import os
import re
import subprocess
import time

import pytest

from observability.contract import load as load_contract
from tests.dashboards.names import Names
from tests.dashboards.reading import load, of_panels
from tests.fixtures.ports import is_free
from tests.fixtures.services import Client, eventually
from tests.fixtures.stack import PROJECT, LocalStack

PAGE = (PROJECT / "docs" / "observability.md").read_text()
EXAMPLE = PAGE.partition("## An example: ")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", EXAMPLE, re.MULTILINE | re.DOTALL)
PORTS = {"8080": "GATEWAY", "9090": "PROMETHEUS"}


def blocks(kind):
    return [text.strip() for tag, text in BLOCKS if tag == kind]


def commands(block):
    return [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]


BREAK, BUY, EXEMPLAR, STORY, REPAIR = blocks("console")
ALERT, CALLS, STATEMENTS = blocks("promql")
LINES, SETTLED = blocks("logql")
(ROW,) = blocks("sql")


def test_its_queries_are_those_of_the_dashboard():
    panel = {
        query.expr for query in of_panels(load()) if query.place.startswith("order-path: What an order waits for, p99")
    }
    assert {CALLS, STATEMENTS} == panel


def test_the_panels_that_it_names_are_there():
    titles = {query.place.partition(": ")[2].rpartition(",")[0] for query in of_panels(load())}
    named = {
        "Alerts that fire",
        "What an order waits for, p99",
        "How long placing an order takes",
        "Charges by outcome",
        "Waiting",
        "What it waits for",
    }
    assert all(any(title.startswith(name) for title in titles) for name in named)
    assert all(f"*{name}*" in PAGE for name in named)


def test_every_link_of_the_page_leads_somewhere():
    for link in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (PROJECT / "docs" / link).exists(), link


def test_its_queries_name_nothing_that_the_contract_does_not_have():
    names = Names(load_contract())
    for query in (ALERT, CALLS, STATEMENTS):
        assert names.faults(query) == []
    for query in (LINES, SETTLED):
        assert names.logql_faults(query.replace("$TRACE", "0" * 32)) == []


class Reader:
    """Somebody who types what the page says, at a shop on other ports."""

    def __init__(self, shop):
        self._shop = shop
        self.known = {}

    def types(self, block):
        """Type the commands, but for those that start and stop the shop; what was printed."""
        script = "\n".join(command for command in commands(block) if not re.search(r"make (up|down)", command))
        for port, name in PORTS.items():
            script = script.replace(f"localhost:{port}", f"127.0.0.1:{self._shop.ports[name]}")
        assert "localhost:" not in script
        keep = "".join(f'\necho "{name}=${name}"' for name in ("TOKEN", "TRACE"))
        environment = {
            **os.environ,
            "RUN_DIR": str(self._shop.run_dir),
            **{f"{name}_PORT": str(port) for name, port in self._shop.ports.items()},
            **self.known,
        }
        done = subprocess.run(
            ["bash", "-c", script + keep],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        self.known |= dict(re.findall(r"^(TOKEN|TRACE)=(.+)$", done.stdout, re.MULTILINE))
        return done.stdout

    def asks(self, client, path, query, **parameters):
        for name, value in self.known.items():
            query = query.replace(f"${name}", value)
        answer = client.get(path, params={"query": query, **parameters})
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]["result"]


@pytest.fixture
def slow_shop(tmp_path):
    """The shop with the fault that the page sets."""
    assert commands(BREAK) == ["make up", "make fault payment-slow=on"]
    shop = LocalStack(tmp_path / "stack")
    shop.up()
    Reader(shop).types(BREAK)
    token = shop.login()
    # It counts within a second.
    eventually(lambda: shop.gateway.post("/orders/", {"product_id": 1}, token=token).elapsed.total_seconds() > 0.7)
    yield shop
    shop.down()
    assert is_free(shop.ports["GATEWAY"])


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_from_the_alert_to_the_row_and_back_to_health(slow_shop):
    reader = Reader(slow_shop)
    prometheus, loki = Client(slow_shop.prometheus_url), Client(slow_shop.loki_url)

    def promql(query):
        return [(one["metric"], float(one["value"][1])) for one in reader.asks(prometheus, "/api/v1/query", query)]

    def lines(query):
        since = int((time.time() - 600) * 1e9)
        found = reader.asks(loki, "/loki/api/v1/query_range", query, start=since)
        return [(stream["stream"], line) for stream in found for _, line in stream["values"]]

    # Customers feel it.
    felt = reader.types(BUY)
    assert len(re.findall(r"^201 after (?:0\.[89]|[1-9]\.)\d* s$", felt, re.MULTILINE)) == 20, felt
    # The alert fires, and its dashboard is the one that the page goes to.
    alerts = eventually(lambda: [labels["alertname"] for labels, _ in promql(ALERT)], 90, pause=1)
    assert alerts == ["OrderLatencyBurn"]
    [rule] = [
        rule
        for group in prometheus.get("/api/v1/rules").json()["data"]["groups"]
        for rule in group["rules"]
        if rule["name"] == "OrderLatencyBurn" and rule["labels"]["severity"] == "page"
    ]
    assert rule["annotations"]["dashboard_url"].endswith("/d/order-path")
    table = next(query for query in of_panels(load()) if query.place.startswith("overview: Alerts that fire"))
    assert "OrderLatencyBurn" in {labels.get("alertname") for labels, _ in promql(table.expr)}
    # The dashboard says who is waited for.
    reader.types(BUY)  # the alert took its time, and the panel shows the last minute
    waits = eventually(lambda: _slow(promql(CALLS), "peer_service"), 30, pause=1)
    assert waits == {"payment-service"}
    assert not _slow(promql(STATEMENTS), "db_query_summary")
    # The exemplar leads to a trace, whose slow span has no slow child.
    reader.types(EXEMPLAR)
    assert re.fullmatch("[0-9a-f]{32}", reader.known["TRACE"])
    story = reader.types(STORY)
    assert "payment-service decide charge" in _slow_spans(story)[-1], story
    # The log lines say which order.
    services = {labels["service_name"] for labels, _ in lines(LINES)}
    assert services == {"nginx", "order-service", "product-service", "payment-service"}
    [(labels, _)] = lines(SETTLED)
    # The row says what became of it.
    [(status, payment, took)] = slow_shop.query(ROW.replace("$ORDER", labels["order_id"]))
    assert (status, bool(payment)) == ("PAID", True)
    assert 0.75 < took.total_seconds() < 3
    # Repaired, it is fast again.
    assert commands(REPAIR) == ["make fault payment-slow=off"]
    reader.types(REPAIR)

    def well_again():
        reader.types(BUY)
        found = promql(CALLS)
        return found and not _slow(found, "peer_service")

    eventually(well_again, 120, pause=3)
    prometheus.session.close()
    loki.session.close()


def _slow(found, label):
    return {labels[label] for labels, seconds in found if seconds > 0.5}


def _slow_spans(story):
    """The lines of a trace's tree, parents first, with what took more than 750 ms."""
    timed = [(re.match(r" *[\d.]+ +([\d.]+) ", line), line) for line in story.splitlines()]
    return [line for took, line in timed if took and float(took[1]) > 750]
