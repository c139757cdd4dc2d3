"""Loki's API: the same requests to the embedded backend and to the real Loki, and the same answers from both.

The real Loki is its recording, and one that is there; see recordings/README.md.

The differences that are known, and in docs/embedded-logql.md, are in DIFFERENCES: each is one that no query of Grafana,
of `make story`, or of our tests can see. One that disappears fails its test, so that the table stays true.
"""

import json
import re

import pytest
import requests
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from tests.conformance.payloads import attributes, log_request, value
from tests.conformance.recordings import Recording
from tests.fixtures.services import eventually

pytestmark = [pytest.mark.xdist_group("conformance"), pytest.mark.timeout(300)]

SECOND = 10**9
RECORDING = Recording("loki")
START = RECORDING.start
LOGS = "/loki/api/v1"
CATEGORIZE = {"X-Loki-Response-Encoding-Flags": "categorize-labels"}

ORDER = '{service_name="order-service"}'
PAYMENT = '{service_name="payment-service"}'
EDGE = '{service_name="edge"}'
TRACE = f"{2:032x}"

EDGES = [
    '{"a":1,"b":"x","service_name":"zz","m":"line","1x":"d","é":"y","f":1.50,"big":12345678901234567890,"exp":1E5}',
    '{"n":{"a":{"b":1,"arr":[1,2]},"e":{},"z":null},"s":"a\\u0000b\\ud83d\\ude00","t":true,"x.y-z":"u","sp ace":"x"}',
    '{"q":"\\"quoted\\""}',
    '{"a":"x"} trailing',
    "[1,2]",
    'a=1 a=2 b="x y" c= d="q\\"z" e=5ms size=2KB flag',
    "plain ERROR failed",
    "5",
    "{}",
    '  {"a":"after spaces"}',
    "ünïcode | back\\slash \"quotes\" 'single' tab\there",
]


def order_lines():
    """Lines as the order-service's, two to a trace."""
    records = []
    for number in range(10):
        trace_id, span_id = (number // 2 + 1).to_bytes(16, "big"), (number + 1).to_bytes(8, "big")
        level = "info" if number % 3 else "error"
        line = {
            "timestamp": "2026-11-22T12:00:00.000000Z",
            "level": level,
            "service": "order-service",
            "event": "order.created" if number % 2 else "request.completed",
            "trace_id": trace_id.hex(),
            "span_id": span_id.hex(),
            "duration_ms": number * 1.5,
            "took": f"{number * 10}ms",
            "size": f"{number}KB",
            "order": {"id": number, "items": [1, 2]},
        }
        text = json.dumps(line, separators=(",", ":"))
        records.append((START + number * SECOND, level, text, trace_id, span_id))
    return log_request("order-service", records)


def payment_lines():
    """Lines that are no JSON, of a record with as little as possible."""
    message = log_request("payment-service", [])
    for number in range(4):
        message.resource_logs[0].scope_logs[0].log_records.add(
            time_unix_nano=START + number * 2 * SECOND,
            body=value(f'level=info msg="charge decided" amount={number * 100} took={number}ms'),
        )
    return message


def edge_lines():
    """Lines and records of every odd kind."""
    message = ExportLogsServiceRequest()
    batch = message.resource_logs.add()
    batch.resource.attributes.extend(
        attributes({"service.name": "edge", "host.name": "h1", "service.instance.id": "i"})
    )
    group = batch.scope_logs.add()
    group.scope.name, group.scope.version = "scope", "1"
    group.scope.attributes.extend(attributes({"scope.attribute": "x"}))
    for number, line in enumerate(EDGES):
        group.log_records.add(time_unix_nano=START + number * SECOND, body=value(line))
    rich = group.log_records.add(
        time_unix_nano=START + 20 * SECOND,
        observed_time_unix_nano=START + 1,
        severity_text="WARN",
        severity_number=13,
        flags=1,
        dropped_attributes_count=2,
        trace_id=bytes(15) + b"\x07",
        span_id=bytes(7) + b"\x07",
        body=value("rich"),
    )
    rich.attributes.extend(attributes({"a.b": "c", "flag": True, "count": 3, "share": 1.5, "m": "metadata"}))
    group.log_records.add(observed_time_unix_nano=START + 21 * SECOND, body=value("only observed"))
    mapped = group.log_records.add(time_unix_nano=START + 22 * SECOND)
    mapped.body.kvlist_value.values.add(key="m").value.string_value = "in a map"
    nameless = message.resource_logs.add().scope_logs.add()
    nameless.log_records.add(time_unix_nano=START, body=value("nobody's"))
    return message


@pytest.fixture(scope="module")
def sent(embedded, real_loki):
    """Every line, sent to both, twice as by a sender that had no answer, and searchable in both."""
    for message in (order_lines(), payment_lines(), edge_lines(), order_lines()):
        for otlp in (embedded.otlp, real_loki.otlp):
            assert otlp.send("logs", message).status_code in {200, 204}
    for api in (embedded.loki, real_loki.api):
        for selector, count in ((ORDER, 10), (PAYMENT, 4), (EDGE, len(EDGES) + 3)):
            eventually(lambda api=api, s=selector, n=count: len(lines_of(ask(api, "query_range", s))) == n)


def ask(api, path, query=None, headers=None, method="GET", **params):
    """Ask; by default for the time of the test's lines."""
    if query is not None:
        params["query"] = query
    if path == "query":
        params = {"time": START + 30 * SECOND, **params}
    elif path != "labels" or params:
        params = {"start": START - 10 * SECOND, "end": START + 60 * SECOND, "limit": 1000, **params}
    params = {name: given for name, given in params.items() if given is not None}
    where = {"params": params} if method == "GET" else {"data": params}
    return api(method, f"{LOGS}/{path}", headers=headers, **where)


def lines_of(answer):
    assert answer.status_code == 200, answer.text
    return [line for stream in answer.json()["data"]["result"] for line in stream["values"]]


@pytest.fixture
def both(embedded, real_loki, sent):
    """Ask both the same; the two answers in a form that can be compared."""

    def ask_both(path, query=None, **params):
        return [comparable(ask(api, path, query, **params)) for api in (embedded.loki, real_loki.api)]

    return ask_both


@pytest.fixture
def agreed(both):
    """Ask both, and fail unless they answer the same; the status."""

    def ask_both(path, query=None, **params):
        mine, real = both(path, query, **params)
        assert mine == real
        return mine[0]

    return ask_both


def comparable(answer):
    """What has to be equal: the order of streams and of keys is not, nor is what is said about the query's work."""
    kind = answer.headers["Content-Type"].replace(" ", "").lower()
    if answer.status_code != 200:
        return answer.status_code, kind, comparable_error(answer.text)
    body = answer.json()
    if not isinstance(body.get("data"), dict):
        if isinstance(body.get("data"), list):
            body["data"].sort(key=lambda item: json.dumps(item, sort_keys=True))
        return answer.status_code, kind, body
    data = body["data"]
    data.pop("stats")
    if data["resultType"] in {"matrix", "vector"}:
        for row in data["result"]:
            for point in row.get("values") or [row["value"]]:
                point[1] = comparable_number(point[1])
    if data["resultType"] in {"streams", "matrix"}:
        data["result"].sort(key=lambda row: json.dumps(row.get("stream") or row.get("metric"), sort_keys=True))
    return answer.status_code, kind, body


def comparable_number(text):
    """The last digits of a mean depend on the order of its series, which Loki leaves open."""
    return f"{float(text):.12g}" if len(text) > 14 and "." in text else text


def comparable_error(text):
    """Loki counts lines from 0 after a range, and lists more of what it expected."""
    text = re.sub(r", expecting .*", "", text.strip()).replace("at line 0,", "at line 1,")
    text = re.sub(r"query length: \S+,", "query length:", text)
    if text.startswith("pipeline error"):
        return text.split(" for series", 1)[0]
    return text


LOG_QUERIES = [
    # `make story`, Grafana's links from a trace, and the same with what a person adds
    f'{ORDER} | trace_id="{TRACE}"',
    f'{ORDER} | trace_id = "{TRACE}"',
    f'{{service_name="order-service"}} | json | trace_id="{TRACE}"',
    f'{ORDER} | trace_id="{TRACE}" | json',
    f'{{service_name=~".+"}} | trace_id = "{TRACE}"',
    f'{{service_namespace="shop"}} | trace_id="{TRACE}" | json | event="order.created"',
    f'{ORDER} |= "{TRACE}"',
    f'{ORDER} | trace_id="{TRACE}" or trace_id="{1:032x}"',
    f'{ORDER} | trace_id="{TRACE}" and level="error"',
    f'{ORDER} | trace_id!="{TRACE}"',
    f'{ORDER} | json | trace_id_extracted="{TRACE}"',
    f'{ORDER} | trace_id="nothing"',
    f'{ORDER} | level="error"',
    f'{ORDER} | severity_text="error" | json | line_format "{{{{.event}}}} {{{{.duration_ms}}}}"',
    # selectors
    ORDER,
    PAYMENT,
    EDGE,
    '{service_name="nobody"}',
    '{service_name="unknown_service"}',
    '{service_name=~"order.*|payment-.*"}',
    '{service_name=~"order"}',
    '{service_name=~"(?i)ORDER-SERVICE"}',
    '{service_name!="order-service", service_namespace="shop"}',
    '{service_name=~".+", service_name!~"order.*|edge"}',
    '{service_name="order-service", nothing=""}',
    '{service_name="order-service", service_name="payment-service"}',
    "{service_name=`order-service`}",
    '{ service_name = "order-service" } # a comment',
    '{sum="x"}',
    # line filters
    f'{ORDER} |= "order.created"',
    f'{ORDER} != "order.created"',
    f'{ORDER} |= `"event":"order`',
    f'{ORDER} |~ "order\\\\.(created|paid)"',
    f'{ORDER} !~ "(?i)ORDER.CREATED"',
    f'{ORDER} |= "order.created" |= "info" != "20ms"',
    f'{EDGE} |= "ERROR" or "trailing"',
    f'{EDGE} != "ERROR" or "trailing"',
    f'{EDGE} |~ "^5$" or "rich"',
    f'{EDGE} |= ""',
    f'{EDGE} != ""',
    f'{EDGE} |~ ""',
    f'{EDGE} |= "back\\\\slash \\"quotes\\""',
    f'{EDGE} |= "\\u00fcn"',
    # parsers
    f"{ORDER} | json",
    f"{EDGE} | json",
    f'{EDGE} | json | __error__=""',
    f'{EDGE} | json | __error__!=""',
    f'{EDGE} | json | __error__="JSONParserErr"',
    f"{ORDER} | json | json",
    f'{ORDER} | json id="order.id", first="order.items[0]", all="order.items", none="order.nothing", event',
    f'{ORDER} | json q="[\\"order\\"].id"',
    f'{EDGE} | json m, x="a", service_name="b"',
    f"{PAYMENT} | logfmt",
    f"{EDGE} | logfmt",
    f"{PAYMENT} | logfmt --keep-empty",
    f'{PAYMENT} | logfmt cost="amount", msg, nothing',
    f"{EDGE} | logfmt a",
    f"{PAYMENT} | logfmt | json",
    f'{PAYMENT} | regexp "amount=(?P<cost>\\\\d+) took=(?P<took>\\\\S+)"',
    f'{EDGE} | regexp "(?P<a>.)(?P<m>.)"',
    # label filters
    f"{PAYMENT} | logfmt | amount > 100",
    f"{PAYMENT} | logfmt | amount >= 100 and amount < 300",
    f"{PAYMENT} | logfmt | amount == 100 or amount = 300",
    f"{PAYMENT} | logfmt | amount != 100",
    f"{PAYMENT} | logfmt | amount > -1",
    f"{PAYMENT} | logfmt | took > 1ms",
    f"{PAYMENT} | logfmt | took <= 0.001s",
    f"{ORDER} | json | size > 2KB",
    f"{ORDER} | json | size >= 8KiB",
    f"{ORDER} | json | duration_ms > 4.5 | took < 1h30m",
    f"{PAYMENT} | logfmt | amount > 0, took < 3ms",
    f"{PAYMENT} | logfmt | amount > 0 took < 3ms",
    f'{PAYMENT} | logfmt | (amount > 100 or took = 0s) and msg =~ "charge.*"',
    f'{PAYMENT} | logfmt | amount="9", msg="x" or took="1ms"',
    f'{PAYMENT} | logfmt | amount="9" and msg="x" or took="1ms"',
    f'{PAYMENT} | logfmt | took="1ms" or msg="x", amount="9"',
    f"{PAYMENT} | logfmt | msg > 1",
    f'{PAYMENT} | logfmt | msg > 1 | __error__=""',
    f"{PAYMENT} | logfmt | nothing > 1",
    f'{PAYMENT} | logfmt | nothing=""',
    f'{PAYMENT} | logfmt | nothing!="x"',
    f"{EDGE} | json | a > 0",
    f'{EDGE} | json | a = 1 or b = "x"',
    f'{EDGE} | json | m_extracted="line"',
    f'{EDGE} | host_name="h1" | m=~"meta.*"',
    # formats
    f'{PAYMENT} | logfmt | line_format "{{{{.msg}}}}: {{{{ .amount }}}} {{{{.nothing}}}}"',
    f'{EDGE} | line_format "[{{{{__line__}}}}]" |= "[5]"',
    f'{PAYMENT} | logfmt | label_format cost=amount, text="{{{{.msg}}}}!"',
    f"{EDGE} | label_format x=m",
    f'{PAYMENT} | label_format service_name="x"',
    f"{ORDER} | drop trace_id, span_id, service_name",
    f'{ORDER} | drop level="error"',
    f"{ORDER} | keep level, service_name",
    f'{ORDER} | json | keep level=~"inf.*", event',
    f"{EDGE} | json | drop __error__",
    f"{EDGE} | json | drop __error__, __error_details__",
    f"{EDGE} | json | keep a",
]

METRIC_QUERIES = [
    f"sum(count_over_time({ORDER}[10s]))",
    f"sum by (level) (count_over_time({ORDER}[10s]))",
    f"sum by (level, detected_level) (count_over_time({ORDER} | drop __error__ [10s]))",  # Grafana's histogram
    f"count_over_time({PAYMENT}[5s])",
    f"count_over_time({ORDER} | drop trace_id, span_id, observed_timestamp [10s])",
    'sum by (service_name) (rate({service_namespace="shop"}[1m]))',
    'sum(rate({service_name=~".+"} |= "created" [30s])) by (service_name)',
    f'sum by (event) (count_over_time({ORDER} | json | __error__="" [10s]))',
    f"sum(count_over_time({EDGE} | json [10s]))",
    f"sum by (a) (count_over_time({EDGE} | json | drop __error__ [10s]))",
    f"bytes_over_time({PAYMENT}[5s])",
    f"bytes_rate({PAYMENT}[5s])",
    f"sum without (service_name) (count_over_time({PAYMENT}[10s]))",
    f"sum(count_over_time({ORDER}[10s] offset 10s))",
    f"sum(count_over_time({ORDER}[10s] offset -10s))",
    f"sum(count_over_time({ORDER}[1h30m]))",
    f"count_over_time(({PAYMENT})[5s])",
    f'count_over_time({PAYMENT}[5s] |= "amount=1")',
    'absent_over_time({service_name="nobody", a=~"x"}[10s])',
    f"absent_over_time({PAYMENT}[10s])",
    f"sum_over_time({PAYMENT} | logfmt | unwrap amount [10s])",
    f"sum(sum_over_time({PAYMENT} | logfmt | unwrap amount [10s]))",
    f"avg_over_time({PAYMENT} | logfmt | unwrap amount [10s]) by (service_name)",
    f"min_over_time({PAYMENT} | logfmt | unwrap amount [10s]) by (service_name)",
    f"max_over_time({PAYMENT} | logfmt | unwrap amount | amount > 0 [10s]) by (service_name)",
    f"max_over_time({PAYMENT} | logfmt | unwrap amount [10s]) by ()",
    f"first_over_time({PAYMENT} | logfmt | unwrap amount [10s]) by (service_name)",
    f"last_over_time({PAYMENT} | logfmt | unwrap amount [10s]) by (service_name)",
    f"stddev_over_time({PAYMENT} | logfmt | unwrap amount [10s]) by (service_name)",
    f"stdvar_over_time({PAYMENT} | logfmt | unwrap amount [10s]) by (service_name)",
    f"quantile_over_time(0.5, {PAYMENT} | logfmt | unwrap amount [10s]) by (service_name)",
    f"quantile_over_time(0.99, {ORDER} | json | unwrap duration(took) [1m]) by (service_name)",
    f"avg_over_time({ORDER} | json | unwrap duration_ms [1m]) by (event)",
    f"max_over_time({ORDER} | json | unwrap bytes(size) [10s]) by (level)",
    f'sum(sum_over_time({PAYMENT} | logfmt | unwrap msg | __error__="" [10s]))',
    f"sum(sum_over_time({PAYMENT} | logfmt | unwrap nothing [10s]))",
    f"rate({PAYMENT} | logfmt | unwrap amount [10s])",
    f"sum(count_over_time({ORDER}[10s])) or vector(0)",
    'sum(count_over_time({service_name="nobody"}[10s])) or vector(0)',
    f'sum(count_over_time({ORDER}[10s])) / sum(count_over_time({{service_name=~".+"}}[10s]))',
    f'sum(count_over_time({ORDER} |= "error" [1m])) / sum(count_over_time({ORDER}[1m])) * 100',
    f"sum(count_over_time({ORDER}[10s])) > 5",
    f"sum(count_over_time({ORDER}[10s])) > bool 5",
    f"5 < sum(count_over_time({ORDER}[10s]))",
    f"-1 * sum(count_over_time({ORDER}[10s]))",
    f"topk(1, sum by (level) (count_over_time({ORDER}[10s])))",
    f"bottomk(1, sum by (level) (count_over_time({ORDER}[10s])))",
    f"topk by (service_name) (1, sum by (service_name, level) (count_over_time({ORDER}[10s])))",
    'avg(sum by (service_name) (count_over_time({service_name=~".+"}[10s])))',
    f"min(sum by (level) (count_over_time({ORDER}[10s])))",
    f"max(sum by (level) (count_over_time({ORDER}[10s])))",
    f"count(sum by (level) (count_over_time({ORDER}[10s])))",
    f"stddev(sum by (level) (count_over_time({ORDER}[10s])))",
    "1",
    "2 * 3 + 4 ^ 2 ^ 0.5 % 5",
    "1 - -1",
    "1/0",
    "0.1 + 0.2",
    "1e300 * 1e10",
    "1e-7",
    "1e22",
    "5 == 5",
    "1 > bool 2",
    "vector(3) + 1",
    f"SUM BY (level) (COUNT_OVER_TIME({ORDER}[10s]))",
]

BY_LEVEL = f"sum by (level) (count_over_time({ORDER}[1m]))"
BY_BOTH = f"sum by (service_name, level) (count_over_time({ORDER}[1m]))"
BY_SERVICE = 'sum by (service_name) (count_over_time({service_name=~".+"}[1m]))'
OF_ORDER = f"sum by (service_name) (count_over_time({ORDER}[1m]))"

INSTANT_QUERIES = [
    f"sum(count_over_time({ORDER}[1m]))",
    f"sum by (level) (count_over_time({ORDER}[1m]))",
    'topk(2, sum by (service_name) (count_over_time({service_name=~".+"}[1m])))',
    'sort(sum by (service_name) (count_over_time({service_name=~"order-service|payment-service"}[1m])))',
    'sort_desc(sum by (service_name) (count_over_time({service_name=~".+"}[1m])))',
    f"sum by (nothing) (count_over_time({ORDER}[1m]))",
    f"sum(count_over_time({ORDER}[1m])) - sum(count_over_time({PAYMENT}[1m]))",
    f"{BY_BOTH} * on (level) {BY_LEVEL}",
    f"{BY_BOTH} / ignoring (service_name) {BY_LEVEL}",
    f"{BY_SERVICE} and {OF_ORDER}",
    f"{BY_SERVICE} unless {OF_ORDER}",
    f"{OF_ORDER} or {BY_SERVICE}",
    f"{BY_SERVICE} == {OF_ORDER}",
    f"sum(count_over_time({ORDER}[1m])) == {OF_ORDER}",
    "vector(1)",
]

WRONG_QUERIES = [
    "",
    "   ",
    "{",
    "{}",
    "foo",
    '"foo"',
    "@",
    '{service_name=~".*"}',
    '{service_name!="a"}',
    '{service_name="order-service"',
    '{service_name="order-service",}',
    "{service_name=order}",
    "{service_name='order'}",
    '{service_name="ord',
    '{service_name="\\x"}',
    '{"service_name"="order-service"}',
    '{a.b="c"}',
    '{json="x"}',
    '{service_name=~"("}',
    f"{ORDER} |= ",
    f"{ORDER}\n|= 5",
    f'{ORDER} |~ "("',
    f'{ORDER} |~ "["',
    f'{ORDER} |~ "*"',
    f"{ORDER} | json | foo",
    f"{ORDER} | json | foo >",
    f'{ORDER} | service_name=~"("',
    f"{ORDER} | by > 1",
    f'{ORDER} | = "b"',
    f"{ORDER} | json a=",
    f"{ORDER} | label_format a",
    f"{ORDER} | drop",
    f"{ORDER} | keep",
    f"{ORDER} | unwrap x",
    f"{ORDER} }}",
    f"{ORDER} $",
    f"{ORDER}[5m]",
    f"count_over_time({ORDER})",
    f"count_over_time({ORDER}[5x])",
    f"count_over_time({ORDER}[60])",
    f"count_over_time({ORDER}[0.5m])",
    f"count_over_time({ORDER}[5m)",
    f"count_over_time({ORDER}[5m]",
    f"count_over_time({ORDER}[5m]) +",
    f"sum by x (rate({ORDER}[1m]))",
    f"sum(rate({ORDER}[1m])) by",
    f"rate({ORDER})",
    f"foo({ORDER}[1m])",
    f"rate({ORDER}[1m]) by (x)",
    f"sum_over_time({ORDER}[5m])",
    f"count_over_time({ORDER} | unwrap x [5m])",
    f"sum_over_time({ORDER} | unwrap x [5m]) by (x)",
    f"quantile_over_time({ORDER} | unwrap x [5m])",
    f"topk(count_over_time({ORDER}[5m]))",
    f"topk(0, count_over_time({ORDER}[5m]))",
    f"sum(2, count_over_time({ORDER}[5m]))",
    f"count_over_time({ORDER}[5m]) or on(x) 3",
    f"sum by (event) (count_over_time({EDGE} | json [10s]))",
    f"sum(sum_over_time({PAYMENT} | logfmt | unwrap msg [10s]))",
    f"count_over_time({ORDER}[1y])",
]


@pytest.mark.parametrize("query", LOG_QUERIES)
def test_a_log_query_finds_the_same_lines_with_the_same_labels(agreed, query):
    assert agreed("query_range", query) == 200


@pytest.mark.parametrize("query", LOG_QUERIES)
def test_labels_are_told_apart_by_where_they_come_from(agreed, query):
    """Grafana asks so, and shows them so."""
    agreed("query_range", query, headers=CATEGORIZE)


@pytest.mark.parametrize("query", METRIC_QUERIES)
def test_a_metric_query_has_the_same_points(agreed, query):
    assert agreed("query_range", query, start=START, end=START + 30 * SECOND, step="10") == 200


@pytest.mark.parametrize("query", INSTANT_QUERIES)
def test_an_instant_query_has_the_same_values(agreed, query):
    assert agreed("query", query) == 200


@pytest.mark.parametrize("query", WRONG_QUERIES)
def test_a_wrong_query_is_refused_with_the_same_words(agreed, query):
    assert agreed("query_range", query, start=START, end=START + 30 * SECOND, step="10") == 400


@pytest.mark.parametrize(
    "params",
    [
        {"limit": "3"},
        {"limit": "3", "direction": "forward"},
        {"limit": "3", "direction": "FORWARD"},
        {"direction": "forward", "start": START + 3 * SECOND, "end": START + 5 * SECOND},
        {"direction": "forward", "start": START + 3 * SECOND, "end": START + 3 * SECOND + 1},
        {"start": START, "end": START},
        {"interval": "3s", "direction": "forward"},
        {"start": None, "end": None, "since": "1h"},
        {"start": None, "end": None},
        {"start": str(START // SECOND), "end": str(START // SECOND + 4)},
        {"start": f"{START / SECOND:.1f}", "end": f"{START / SECOND + 2.5:.1f}"},
        {"start": "2026-01-01T00:00:00.5Z", "end": "2026-01-01T02:00:00+01:00"},
        {"limit": None},
        {"limit": "x"},
        {"limit": "0"},
        {"limit": "-1"},
        {"limit": "5001"},
        {"limit": "5000"},
        {"start": "abc"},
        {"end": "2026-11-22"},
        {"start": START, "end": START - 1},
        {"start": START - 31 * 86400 * SECOND},
        {"direction": "up"},
        {"step": "x"},
        {"step": "0"},
        {"step": "-1"},
        {"step": "0.0001"},
        {"interval": "x"},
        {"start": None, "end": None, "since": "abc"},
    ],
    ids=str,
)
def test_the_parameters_of_a_query_mean_the_same(agreed, params):
    agreed("query_range", ORDER, **params)


@pytest.mark.parametrize(
    "params",
    [
        {"start": START + 1_500_000_000, "end": START + 13_700_000_000, "step": "5s"},
        {"start": START + 1_500_000_000, "end": START + 13_700_000_000, "step": "2.5"},
        {"start": START, "end": START + 60 * SECOND, "step": "1m30s"},
        {"start": START, "end": START + 600 * SECOND, "step": None},
        {"start": START, "end": START + 11_001 * SECOND, "step": "1"},
    ],
    ids=str,
)
def test_the_steps_of_a_metric_are_at_the_same_times(agreed, params):
    agreed("query_range", f"sum(count_over_time({ORDER}[10s]))", **params)


@pytest.mark.parametrize("time_", [START // SECOND + 30, f"{START // SECOND + 30}.25", "abc"])
def test_the_time_of_an_instant_query_means_the_same(agreed, time_):
    agreed("query", f"sum(count_over_time({ORDER}[1m]))", time=time_)


@pytest.mark.parametrize("query", [ORDER, "{", f"sum(rate({EDGE} | json | a > 0 [1m]))"])
def test_an_instant_query_is_refused_with_the_same_words(agreed, query):
    assert agreed("query", query) == 400


def test_a_form_may_carry_the_query(agreed):
    assert agreed("query_range", ORDER, method="POST") == 200


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("labels", {}),
        ("labels", {"query": ORDER, "start": START - SECOND, "end": START + 60 * SECOND}),
        ("label/service_name/values", {}),
        ("label/service_name/values", {"query": '{service_name=~"order.*"}'}),
        ("label/service_name/values", {"query": "{foo"}),
        ("label/nothing/values", {}),
        ("label/trace_id/values", {}),
        ("series", {}),
        ("series", {"match[]": ORDER}),
        ("series", {"match[]": [ORDER, PAYMENT]}),
        ("series", {"match": '{service_namespace="shop"}'}),
        ("series", {"match[]": "{x"}),
        ("series", {"match[]": f'{ORDER} |= "x"'}),
        ("index/stats", {"query": f"{ORDER} | json"}),
    ],
    ids=str,
)
def test_labels_and_series_are_the_same(agreed, path, params):
    agreed(path, **params)


def test_it_is_ready(embedded, real_loki):
    answers = [api.get("/ready") for api in (embedded.loki, real_loki.api)]
    assert [answer.text for answer in answers] == ["ready\n", "ready\n"]


def test_it_says_what_it_was_built_from_in_the_same_fields(embedded, real_loki):
    mine, real = (api.get(f"{LOGS}/status/buildinfo") for api in (embedded.loki, real_loki.api))
    assert mine.status_code == real.status_code == 200
    assert mine.json().keys() == real.json().keys()


# --- differences ---

DIFFERENCES = {
    "a group of streams for an arithmetic operation": ("query_range", f"{ORDER} + 1"),
    "a number is no vector": ("query_range", "sum(1)"),
    "pattern": ("query_range", f'{PAYMENT} | pattern "level=<l> <_>"'),
    "unpack": ("query_range", f"{ORDER} | unpack"),
    "decolorize": ("query_range", f"{ORDER} | decolorize"),
    "ip": ("query_range", f'{ORDER} | host = ip("10.0.0.0/8")'),
    "pattern filters": ("query_range", f'{ORDER} |> "<_>order<_>"'),
    "templates": ("query_range", f'{ORDER} | line_format "{{{{ .level | ToUpper }}}}"'),
    "pattern filters, negated": ("query_range", f'{ORDER} !> "<_>order<_>"'),
    "rate_counter": ("query_range", f"rate_counter({PAYMENT} | logfmt | unwrap amount [1m])"),
    "approx_topk": ("query", f"approx_topk(1, {BY_SERVICE})"),
    "group_right": (
        "query",
        f"{BY_LEVEL} / on (level) group_right sum by (level, event) (count_over_time({ORDER} | json [1m]))",
    ),
    "a long query": ("query_range", f'{ORDER} != "{"x" * 17_000}"'),
    "label_replace": ("query_range", f'label_replace(rate({ORDER}[1m]), "a", "$1", "level", "(.*)")'),
    "group_left": (
        "query",
        f"sum by (level, event) (count_over_time({ORDER} | json [1m])) / on (level) group_left {BY_LEVEL}",
    ),
    "time of a number": ("query", "1 + 1"),
}


@pytest.fixture(scope="module")
def oddities(embedded, real_loki, sent):
    for service, line in (
        ("spaced", '{"o": {"a": 1}}'),
        ("broken", '{"a":"x","b":nope}'),
        ("repeated", '{"a":1,"a":2}'),
    ):
        message = log_request(service, [(START, "info", line, bytes(16), bytes(8))])
        for otlp, api in ((embedded.otlp, embedded.loki), (real_loki.otlp, real_loki.api)):
            otlp.send("logs", message)
            eventually(lambda api=api, s=service: lines_of(ask(api, "query_range", f'{{service_name="{s}"}}')))


ODD_LINES = [
    '{service_name="spaced"} | json o',
    '{service_name="broken"} | json',
    '{service_name="repeated"} | json',
    f"{EDGE} | logfmt --strict",
]


@pytest.mark.parametrize("query", ODD_LINES)
def test_an_odd_line_is_read_alike(agreed, oddities, query):
    assert agreed("query_range", query) == 200


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_known_difference_is_still_one(both, oddities, name):
    path, query = DIFFERENCES[name]
    mine, real = both(path, query)
    assert mine != real
    assert mine[0] in {200, 400}
    if mine[0] == 400 and real[0] == 200:
        assert "not supported by the embedded backend" in mine[2] or name == "a long query"


def test_the_differences_that_the_others_overlook_are_still_there(embedded, real_loki, sent):
    mine, real = (ask(api, "query_range", f"{ORDER}[5m]").text for api in (embedded.loki, real_loki.api))
    assert (mine.split(",")[0], real.split(",")[0]) == ("parse error at line 1", "parse error at line 0")
    mine, real = (ask(api, "query_range", '{service_name="a"').text for api in (embedded.loki, real_loki.api))
    assert mine != real
    mine, real = (set(ask(api, "query_range", ORDER).json()["data"]["stats"]) for api in (embedded.loki, real_loki.api))
    assert mine == {"summary"}
    assert mine < real or real_loki.is_recorded  # a recording has no `stats`
    mine, real = (ask(api, "index/stats", ORDER).json()["entries"] for api in (embedded.loki, real_loki.api))
    assert (mine, real) == (10, 0)
    mine, real = (ask(api, "index/volume", ORDER).json()["data"] for api in (embedded.loki, real_loki.api))
    assert mine["resultType"] == real["resultType"] == "vector"
    [mine], [real] = mine["result"], real["result"]
    assert mine["metric"] == real["metric"] == {"service_name": "order-service"}
    assert 0 < int(mine["value"][1]) < int(real["value"][1])


def test_what_is_not_there_says_what_is(embedded):
    for method, path in (("GET", "tail"), ("GET", "patterns"), ("DELETE", "delete")):
        answer = requests.request(method, f"{embedded.loki.root}{LOGS}/{path}", timeout=10)
        assert answer.status_code == 404
        assert "not part of the embedded backend" in answer.text
