"""Traces that are no tidy tree, and text that is made to harm the terminal it is shown on."""

import json
import random
import re
import time
import unicodedata

import pytest

from observability.story.spans import Trace, parse
from tests.story.conftest import ROW, TRACE, line, span


def some(number, parent=0, name=None, start=0, duration=5, **tags):
    return span(number, parent, "shop", name or f"span {number}", "internal", start, duration, **tags)


def tree(said):
    """The names that are shown, each with what is drawn before its service."""
    rows = re.findall(r"^ *-?[\d.]+ +-?[\d.]+ +━+ +(\D*?(?:⋯ \d+ .*?)?)shop (.*?) internal", said, re.MULTILINE)
    return [(name, drawn.rstrip()) for drawn, name in rows]


@pytest.mark.parametrize(
    ("spans", "shown"),
    [
        ([some(1, 1)], [("span 1", "")]),
        ([some(1, 2), some(2, 1, start=1)], [("span 1", ""), ("span 2", "└─")]),
        (
            [some(1, 3), some(2, 1, start=1), some(3, 2, start=2), some(4, 2, start=3)],
            [("span 1", ""), ("span 2", "└─"), ("span 3", "├─"), ("span 4", "└─")],
        ),
        ([some(9, 1), some(1, 2, start=1), some(2, 1, start=2)], [("span 1", ""), ("span 9", "├─"), ("span 2", "└─")]),
        ([some(1, 7), some(2, 8, start=1)], [("span 1", ""), ("span 2", "")]),
        ([some(1), some(2, start=1), some(3, 2, start=2)], [("span 1", ""), ("span 2", ""), ("span 3", "└─")]),
        (
            [some(1), some(1, name="same id", start=1), some(2, 1, start=2)],
            [("span 1", ""), ("span 2", "└─"), ("same id", "")],
        ),
        ([some(1), some(2, 1), some(2, 1, name="same id")], [("span 1", ""), ("span 2", "├─"), ("same id", "└─")]),
        ([some(1), some(2, 1, start=-5)], [("span 1", ""), ("span 2", "└─")]),
        ([some(1, duration=0)], [("span 1", "")]),
        ([some(1, duration=-5), some(2, 1, duration=0)], [("span 1", ""), ("span 2", "└─")]),
    ],
    ids=[
        "its own parent",
        "a circle of two",
        "a circle of three with a child",
        "a circle below an earlier child of it",
        "orphans",
        "two roots",
        "two roots with one id",
        "two children with one id",
        "a child before its parent",
        "no duration",
        "a negative duration",
    ],
)
def test_each_span_is_shown_once_whatever_the_spans_say_of_their_parents(tell, shop, spans, shown):
    shop.spans, shop.lines = spans, []
    status, said, err = tell("--trace", TRACE)
    assert (status, err) == (0, "")
    assert tree(said) == shown
    status, said, err = tell("--trace", TRACE, "--json")
    assert [one["name"] for one in json.loads(said)["traces"][0]["spans"]] == [name for name, _ in shown]


@pytest.mark.parametrize("seed", range(200))
def test_no_set_of_spans_loses_or_repeats_one(seed):
    chance = random.Random(seed)
    count = chance.randrange(1, 12)
    numbers = [chance.randrange(1, count + 1) for _ in range(count)]
    spans = [some(number, chance.choice([0, 99, *numbers]), start=chance.randrange(9)) for number in numbers]
    trace = parse({"traceID": TRACE, "spans": spans, "processes": {"shop": {"serviceName": "shop"}}})
    assert sorted(id(one) for one, _ in trace.tree()) == sorted(id(one) for one in trace.spans)


@pytest.mark.parametrize("chain", [True, False], ids=["a chain", "all below one"])
def test_ten_thousand_spans_are_shown_in_bounded_time_and_room(tell, shop, chain):
    shop.spans = [some(number, (number - 1) * chain or number > 1, start=number / 10) for number in range(1, 10_001)]
    shop.lines = []
    began = time.monotonic()
    status, said, err = tell("--trace", TRACE)
    assert (status, err) == (0, "")
    assert time.monotonic() - began < 60
    assert len(said) < 1_500_000
    shown = tree(said)
    assert [name for name, _ in shown] == [f"span {number}" for number in range(1, 10_001)]
    if chain:
        assert shown[5_000][1] == "⋯ 5000 └─"


def test_of_more_spans_the_number_is_told(tell, shop, monkeypatch):
    monkeypatch.setattr("observability.story.show._MOST_SPANS", 3)
    assert "And 3 more spans, which JSON=1 shows too." in tell("--order", "7")[1]


def test_of_many_missing_spans_the_number_is_told(tell, shop):
    shop.spans = [some(number, 100 + number) for number in range(1, 31)]
    assert "; and 20 more." in tell("--trace", TRACE)[1]


def test_clocks_that_are_years_apart_are_no_reason_to_ask_for_the_lines_of_years(tell, shop):
    year = 365 * 86_400_000
    shop.spans = [some(1), some(2, 1, start=-5 * year), some(3, 1, start=50 * year)]
    shop.lines = [line(1, "shop", "first.said", -5 * year), line(1, "shop", "last.said", 50 * year)]
    status, said, err = tell("--trace", TRACE)
    assert (status, err) == (0, "")
    assert "first.said" in said
    assert "last.said" in said
    for asked in (path for path in shop.asked if path.startswith("/loki")):
        start, end = (int(re.search(rf"{name}=(\d+)", asked)[1]) / 1e9 for name in ("start", "end"))
        assert end - start < 3 * 86_400


@pytest.mark.parametrize("start", [0, 10**17], ids=["1970", "no year that the calendar has"])
def test_a_time_that_cannot_be_is_shown_as_what_it_is(tell, shop, start):
    shop.spans = [{**some(1), "startTime": start}]
    shop.lines = []
    status, said, err = tell("--trace", TRACE)
    assert status == 0, err
    assert "span 1" in said
    assert json.loads(tell("--trace", TRACE, "--json")[1])["traces"][0]["spans"][0]["name"] == "span 1"


EVIL = {
    "escape": "\x1b]0;title\x07\x1b[31mred",
    "8-bit CSI": "\x9b31mred",
    "8-bit OSC": "\x9d0;title\x9c",
    "C0": "".join(map(chr, range(32))),
    "DEL": "a\x7fb",
    "C1": "".join(map(chr, range(0x80, 0xA0))),
    "embeddings": "a\u202a\u202b\u202c\u202d\u202eb",
    "isolates": "a\u2066\u2067\u2068\u2069b",
    "marks": "a\u200e\u200f\u061cb",
    "zero width": "a\u200b\u200c\u200d\u2060\ufeffb",
    "newlines": "a\nFORGED\r\nFORGED\rFORGED\u2028FORGED\u2029FORGED\x85FORGED",
    "lone surrogates": "a\ud800b\udfffc",
    "tags": "a\U000e0041\U000e007fb",
    "markup": "[red]a[/red][/] :smile:",
}
HARMLESS = set("\n")


def assert_harmless(said):
    bad = {each for each in said if unicodedata.category(each) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}}
    assert bad <= HARMLESS, bad


@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL)
def test_no_text_of_others_reaches_the_terminal_as_it_is(tell, shop, evil):
    spans = [
        {**span(1, 0, f"order{evil}", f"POST{evil}", f"kind{evil}", 0, 9), "service": f"order{evil}"},
        span(2, 1, "order-service", "x", "client", 1, 2, **{f"shop.{evil}": evil, "error.type": evil, "error": True}),
        span(3, 1, "order-service", "y", "client", 1, 2, **{"peer.service": evil, "http.request.resend_count": evil}),
    ]
    shop.spans = spans
    shop.lines = [line(1, f"order{evil}", evil, 9, **{f"field{evil}": evil, "level": evil, "nested": {evil: [evil]}})]
    shop.lines.append((shop.lines[0][0], f"no JSON {evil}".encode(errors="replace").decode()))
    shop.row_file.write_text(json.dumps({**ROW, "product": {"name": evil}, "idempotency_key": evil, evil: 1}))
    for arguments in (("--order", "7"), ("--trace", TRACE)):
        status, said, err = tell(*arguments)
        assert status == 0, err
        assert_harmless(said)
        assert_harmless(err)
        assert not re.search(r"^\s*FORGED", said + err, re.MULTILINE)
    status, said, _ = tell("--order", "7", "--json")
    assert status == 0
    assert said.isascii()
    assert_harmless(said)
    story = json.loads(said)
    assert story["order"]["idempotency_key"] == evil
    assert story["traces"][0]["spans"][0]["name"] == f"POST{evil}"


def test_what_is_hidden_is_shown_as_an_escape(tell, shop):
    shop.spans[1]["operationName"] = "a\x1b[31m\u202e\u200b\nb"
    assert r"order-service a\x1b[31m\u202e\u200b\nb server" in tell("--order", "7")[1]


def test_text_in_other_scripts_is_shown_as_it_is(tell, shop):
    shop.spans[1]["operationName"] = "注文 é é 🫖 שלום"
    assert "order-service 注文 é é 🫖 שלום server" in tell("--order", "7")[1]


def test_what_a_backend_answers_to_an_error_is_no_more_trusted(tell, shop):
    shop.server.clear()
    shop.server.expect_request(re.compile(".*")).respond_with_data("no\x1b[31m\u202e way", 500)
    status, _, err = tell("--order", "7")
    assert status == 1
    assert_harmless(err)
    assert r"no\x1b[31m\u202e way" in err


def test_absurdly_long_text_is_cut_with_its_length(tell, shop):
    shop.spans[1]["operationName"] = "n" * 1_000_000
    shop.lines[0] = line(1, "nginx", "e" * 500_000, 99, field="f" * 500_000)
    status, said, _ = tell("--order", "7")
    assert status == 0
    assert len(said) < 20_000
    assert "product-service" in said
    assert "(500,000 characters)" in said.replace("\n", "")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_json_has_no_numbers_that_json_does_not_know(tell, shop, number):
    at, text = shop.lines[0]
    shop.lines[0] = (at, text[:-1] + f', "ratio": {number}}}')
    shop.spans[1]["tags"].append({"key": "ratio", "type": "float64", "value": float(number)})

    def refuse(constant):
        raise AssertionError(constant)

    story = json.loads(tell("--order", "7", "--json")[1], parse_constant=refuse)
    assert story["traces"][0]["spans"][1]["attributes"]["ratio"] == str(float(number))
    assert tell("--order", "7")[0] == 0


@pytest.mark.parametrize("depth", [100, 900, 100_000])
def test_a_line_that_is_nested_deeply_is_told(tell, shop, depth):
    at, text = shop.lines[0]
    shop.lines[0] = (at, text[:-1] + ', "deep": ' + "[" * depth + "]" * depth + "}")
    shop._query = None  # which reads the lines
    lines = [[str(at), text] for at, text in shop.lines]
    result = [{"stream": {"service_name": "nginx"}, "values": lines}]
    shop.server.clear()
    shop.server.expect_request(re.compile("/api/traces.*")).respond_with_json({"data": []})
    shop.server.expect_request("/loki/api/v1/query_range").respond_with_json({"data": {"result": result}})
    for more in ((), ("--json",)):
        status, said, err = tell("--order", "7", *more)
        assert (status, err) == (0, "")
        assert "order.created" in said


@pytest.mark.parametrize("value", ["seven", "7.5", "", "-1", "99999999999999999999", True, None, [7], "\u0667"])
def test_an_order_id_that_is_none_is_an_attribute_like_others(tell, shop, value):
    shop.spans = [some(1, shop__order__id=value)]
    shop.lines = []
    status, said, err = tell("--trace", TRACE)
    assert (status, err) == (0, "")
    assert "span 1" in said


@pytest.mark.parametrize(
    "change",
    [{"traceparent": "no-such"}, {"traceparent": f"00-{TRACE}-0000000000000002-zz"}, {"created_at": "infinity"}],
)
def test_a_row_that_somebody_wrote_by_hand_is_told(tell, shop, change):
    shop.row_file.write_text(json.dumps({**ROW, **change}))
    status, said, err = tell("--order", "7")
    assert (status, err) == (0, "")
    assert re.search(r"^  status +PAID$", said, re.MULTILINE)


def test_a_span_without_tags_or_a_process_is_told(tell, shop):
    shop.spans = [{**some(1), "tags": None, "processID": "p9"}]
    shop.lines = []
    assert "unknown span 1 internal" in tell("--trace", TRACE)[1]


def test_an_empty_trace_has_no_length():
    assert (Trace(TRACE).start, Trace(TRACE).duration) == (0, 0)
