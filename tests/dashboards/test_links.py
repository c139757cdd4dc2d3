"""Every link leads to something: what Grafana makes of it is asked of a running shop.

Of the links of data sources, of Jaeger's page, of panels, of alerts and of runbooks.
"""

import json
import re
import time
import urllib.parse

import pytest
import yaml

from tests.dashboards.links import (
    GRAFANA,
    OBSERVABILITY,
    answers,
    from_exemplar,
    from_line,
    interpolated,
    of_jaegers_page,
    rows_of_calls,
    sources,
    to_logs,
    to_metrics,
)
from tests.dashboards.reading import SERVICES, chosen, load, panels, resolved
from tests.fixtures.services import Client, eventually

BOARDS = load()
RUNBOOKS = {file.stem: json.loads(file.read_text()) for file in (GRAFANA / "provisioning" / "runbooks").glob("*.json")}
SOURCES = sources()
PATH = "/orders/"
SAID = {"nginx", "order-service", "payment-service"}


class Shop:
    """A shop in which an order was placed, and what there is of it.

    Attributes:
        trace: The order's, as Jaeger gives it.
    """

    def __init__(self, stack):
        self.backends = [Client(url) for url in (stack.prometheus_url, stack.loki_url, stack.jaeger_url)]
        self.prometheus, self.loki, self.jaeger = self.backends
        self._gateway, self._token = stack.gateway, stack.login()
        answer = self.buy()
        found = self.jaeger
        path = f"/api/traces/{answer.headers['traceresponse'].split('-')[1]}"
        eventually(lambda: found.get(path).status_code == 200 and self._settled(found.get(path)), 30)
        [self.trace] = found.get(path).json()["data"]

    def buy(self):
        """Place an order; the answer."""
        answer = self._gateway.post(PATH, {"product_id": 1}, self._token)
        assert answer.status_code == 201
        return answer

    def jobs(self, click):
        """Whose metrics a click shows."""
        return {series["metric"]["job"] for series in answers(click, *self.backends)}

    @staticmethod
    def _settled(answer):
        [trace] = answer.json()["data"]
        return {process["serviceName"] for process in trace["processes"].values()} >= {"nginx", "payment-service"}

    def says(self, click, seconds=30):
        """Wait until there is an answer to a click: metrics are scraped every five seconds."""
        return eventually(lambda: answers(click, *self.backends), seconds, pause=0.5)


@pytest.fixture(scope="module")
def shop(stack):
    shop = Shop(stack)
    yield shop
    for client in shop.backends:
        client.session.close()


# Between the signals


def test_every_span_leads_to_the_log_lines_of_its_trace(shop):
    for span in shop.trace["spans"]:
        click = to_logs(SOURCES["jaeger"], shop.trace, span)
        said = eventually(lambda click=click: {json.loads(line)["service"] for line in shop.says(click)} >= SAID, 10)
        assert said, click


def test_every_span_leads_to_metrics_and_a_request_to_those_of_its_route(shop):
    for span in shop.trace["spans"]:
        clicks = to_metrics(SOURCES["jaeger"], shop.trace, span)
        assert len(clicks) == 2
        for click in clicks:
            served_by = {"nginx", "order-service"} if span["operationName"] == "POST /orders/" else set()
            assert eventually(lambda click=click, jobs=served_by: jobs <= shop.jobs(click) != set(), 30, pause=0.5)
            assert not served_by or shop.jobs(click) == served_by, click


def test_every_exemplar_opens_its_trace(shop):
    now = time.time()
    query = {"query": 'http_server_request_duration_seconds_bucket{http_route="/orders/"}', "end": now + 60}
    found = eventually(
        lambda: [
            one["labels"]
            for series in shop.prometheus.get("/api/v1/query_exemplars", params={**query, "start": now - 300}).json()[
                "data"
            ]
            for one in series["exemplars"]
        ],
        30,
    )
    for labels in found:
        [click] = from_exemplar(SOURCES["prometheus"], labels, int(now * 1000))
        [trace] = shop.says(click)
        assert trace["traceID"] == labels["trace_id"]


def test_an_exemplar_opens_its_trace_for_as_long_as_jaeger_keeps_it():
    now = 1_800_000_000_000
    [click] = from_exemplar(SOURCES["prometheus"], {"trace_id": "0" * 32}, now)
    jaeger = yaml.safe_load((OBSERVABILITY / "jaeger" / "config.yaml").read_text())
    kept = jaeger["extensions"]["jaeger_storage"]["backends"]["main"]["badger"]["ttl"]["spans"]
    assert (now - click.start, click.end) == (int(kept.removesuffix("h")) * 3_600_000, now)


def test_a_log_line_leads_to_its_trace(shop):
    query = {"query": f'{{service_name="order-service"}} | trace_id="{shop.trace["traceID"]}"', "limit": 1}
    [stream] = eventually(lambda: shop.loki.get("/loki/api/v1/query_range", params=query).json()["data"]["result"], 10)
    [click] = from_line(SOURCES["loki"], stream["stream"])
    [trace] = shop.says(click)
    assert trace["traceID"] == shop.trace["traceID"]


def test_jaegers_page_leads_to_the_log_lines_of_a_trace(shop):
    [click] = of_jaegers_page(shop.trace, int(time.time() * 1000))
    assert {json.loads(line)["trace_id"] for line in shop.says(click)} == {shop.trace["traceID"]}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("{key: service.namespace, value: service_namespace}", "{key: service.name, value: service_name}"),
        ("trace_id = ", "traceid = "),
    ],
)
def test_a_link_from_a_trace_that_leads_nowhere_is_seen(shop, right, wrong):
    text = (GRAFANA / "provisioning" / "datasources" / "datasources.yaml").read_text()
    jaeger = sources(text.replace(right, wrong))["jaeger"]
    click = to_logs(jaeger, shop.trace, shop.trace["spans"][0])
    with pytest.raises(AssertionError):
        shop.says(click, seconds=1)


def test_a_link_from_an_exemplar_that_jaegers_data_source_does_not_answer_is_seen(shop):
    destination = {"name": "trace_id", "datasourceUid": "jaeger"}
    prometheus = {"jsonData": {"exemplarTraceIdDestinations": [destination]}}
    [click] = from_exemplar(prometheus, {"trace_id": shop.trace["traceID"]}, 0)
    assert answers(click, *shop.backends) is None


# Of panels


def links_of(panel):
    """All links of a panel's data: (address, words)."""
    config = panel.get("fieldConfig", {})
    found = list(config.get("defaults", {}).get("links", []))
    for override in config.get("overrides", []):
        found += [link for one in override["properties"] if one["id"] == "links" for link in one["value"]]
    return [(link["url"], link["title"]) for link in found]


LINKED = [
    pytest.param(uid, panel, id=f"{uid}: {panel['title']}")
    for uid, board in BOARDS.items()
    for panel in panels(board)
    if links_of(panel)
]


@pytest.mark.parametrize(("uid", "panel"), LINKED)
def test_each_line_and_each_row_leads_to_a_dashboard_that_can_show_it(shop, uid, panel):
    def rows():
        shop.buy()  # panels show the last minute
        return list(rows_of(shop, BOARDS[uid], panel))

    for row in eventually(rows, 40, pause=1) if has_rows(panel) else ALERTS:
        known = {"__data": {"fields": row}, "__field": {"labels": row}, "__url_time_range": "from=now-30m&to=now"}
        for url, words in links_of(panel):
            assert leads_somewhere(interpolated(url, known)), (url, row)
            assert "$" not in interpolated(words, known), (words, row)


CALLS = [
    {"parent": "nginx", "child": "order-service", "callCount": 2},
    {"parent": "nginx", "child": "auth-service", "callCount": 1},
]


def test_each_service_of_the_map_leads_to_its_dashboard():
    [panel] = [one for board in BOARDS.values() for one in panels(board) if one["type"] == "nodeGraph"]
    [override] = panel["fieldConfig"]["overrides"]
    [(url, words)] = links_of(panel)
    rows = [{"__data": {"fields": row}} for row in rows_of_calls(CALLS, override["matcher"])]
    assert [interpolated(words, row) for row in rows] == ["Open auth-service", "Open nginx", "Open order-service"]
    assert [re.search(r"var-service=([^&]+)", interpolated(url, row))[1] for row in rows] == [
        "auth-service",
        "nginx",
        "order-service",
    ]


@pytest.mark.parametrize("name", ["Title", "name", "service"])
def test_a_link_of_a_field_that_the_map_does_not_have_is_seen(name):
    assert rows_of_calls(CALLS, {"id": "byName", "options": name}) == []


def has_rows(panel):
    """Whether a healthy shop has some: it has no alert."""
    return "ALERTS" not in json.dumps(panel["targets"])


ALERTS = [
    {"alertname": rule["alert"], "alert": rule["alert"]}
    for file in (OBSERVABILITY / "prometheus" / "rules").glob("*.yml")
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
] + [{"alertname": "none", "alert": "none"}]


def rows_of(shop, board, panel):
    """The labels of what a panel shows, under the names that they have there."""
    renamed = {}
    for transformation in panel.get("transformations", []):
        renamed |= transformation["options"].get("renameByName", {})
    for target in panel["targets"]:
        if target["datasource"]["type"] == "jaeger":
            calls = shop.jaeger.get("/api/dependencies").json()["data"]
            for override in panel["fieldConfig"]["overrides"]:
                yield from rows_of_calls(calls, override["matcher"])
            continue
        expr = resolved(target["expr"], chosen(board))
        answer = shop.prometheus.get("/api/v1/query", params={"query": expr})
        assert answer.status_code == 200, answer.text
        for series in answer.json()["data"]["result"]:
            yield {renamed.get(name, name): value for name, value in series["metric"].items()}


def leads_somewhere(url):
    address = urllib.parse.urlsplit(url)
    uid = address.path.removeprefix("/d/")
    if uid in RUNBOOKS:
        return True
    if uid not in BOARDS or "$" in url:
        return False
    variables = {name.removeprefix("var-"): value for name, value in urllib.parse.parse_qsl(address.query)}
    variables = {name: value for name, value in variables.items() if name not in {"from", "to"}}
    return variables.keys() <= chosen(BOARDS[uid]).keys() and variables.get("service", "nginx") in SERVICES


# Of runbooks


def test_there_is_a_runbook_in_grafana_for_each_alert_and_for_no_other():
    assert {f"runbook-{alert['alertname']}" for alert in ALERTS} == set(RUNBOOKS)


@pytest.mark.parametrize("uid", RUNBOOKS)
def test_a_runbook_says_what_its_page_says_and_its_links_lead_somewhere(uid):
    board = RUNBOOKS[uid]
    assert board["uid"] == uid
    [panel] = board["panels"]
    text = panel["options"]["content"]
    page = OBSERVABILITY.parent / "docs" / "runbooks" / f"{'README' if uid == 'runbook-none' else uid[8:]}.md"
    for heading in re.findall(r"^#+ .+$", page.read_text(), re.MULTILINE):
        assert heading in text
    for link in [*re.findall(r"\]\(([^)]+)\)", text), *(link["url"] for link in board["links"])]:
        assert leads_somewhere(link) or link.startswith("https://"), link
