"""Lines that are not clean: their labels are those that Loki 3.7.8 finds, and no line costs the query."""

import time

import pytest

from observability.embedded.logql import jsonline, logfmt
from tests.embedded.test_loki import Kept

# --- JSON in a line: the right values are of jsonparser, the library that Loki uses ---

NO_STRING = "Value is string, but can't find closing '\"' symbol"
NO_OBJECT = "Value looks like object, but can't find closing '}' symbol"
NO_ARRAY = "Value is array, but can't find closing ']' symbol"
NO_ESCAPE = "Encountered an invalid escape sequence in a string"
NO_COLON = "Malformed JSON error"
UNKNOWN = "Unknown value type"

JSON_LINES = [
    ('{"s":"a\tb","o":{"x":1}}', {"s": "a\tb", "o_x": "1"}, ""),
    ('{"s":"cut \\ud83d","o":{"x":1}}', {"s": "", "o_x": "1"}, ""),
    ('{"s":"\\ud83d\\ude00"}', {"s": "😀"}, ""),
    ('{"s":"a\ufffdb"}', {"s": "a b"}, ""),
    ('{"s":"\\u0000"}', {"s": "\0"}, ""),
    ('{"n":1e999,"m":-0,"k":01,"f":1.50}', {"n": "1e999", "m": "-0", "k": "01", "f": "1.50"}, ""),
    ('{"a":99999999999999999999999}', {"a": "99999999999999999999999"}, ""),
    ('{"a":1,"a":2}', {"a": "1"}, ""),
    ('{"a":null,"a":2}', {"a": "2"}, ""),
    ('{"a":{"x":1},"a":{"y":2}}', {"a_x": "1", "a_y": "2"}, ""),
    ('{"a":"x","b":nope}', {"a": "x"}, UNKNOWN),
    ('{"a":"x","b":NaN,"c":1}', {"a": "x"}, UNKNOWN),
    ('{"o":{"x":1,"y":nope},"a":1}', {"o_x": "1"}, UNKNOWN),
    ('{"a":"x"} trailing', {"a": "x"}, ""),
    ('{"a":"x",}', {"a": "x"}, ""),
    ('{"a":"x"', {"a": "x"}, NO_ARRAY),
    ('{"a":"x","b":{"c":1}', {"a": "x", "b_c": "1"}, NO_ARRAY),
    ('{"b":{"c":1', {}, NO_OBJECT),
    ('{"b":[1', {}, NO_ARRAY),
    ('{"a":"x","b":"open', {"a": "x"}, NO_STRING),
    ('{"a":"bad \\x escape","b":1}', {"a": "", "b": "1"}, ""),
    ('{"k\\ud83d":1}', {}, NO_ESCAPE),
    ('{"b":1,"k\\x":1}', {"b": "1"}, NO_ESCAPE),
    ('{"a":1 "b":2}', {"a": "1"}, NO_OBJECT),
    ('{"a" 1}', {}, NO_COLON),
    ("{a:1}", {}, NO_OBJECT),
    ("{", {}, NO_COLON),
    ("plain", {}, NO_OBJECT),
    ("", {}, NO_OBJECT),
    ('["a"]', {}, NO_OBJECT),
    ('{"":1,"  ":2,"b":[{"c":1}]}', {}, ""),
]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    kept = Kept(tmp_path_factory.mktemp("hostile") / "logs.sqlite")
    yield kept
    kept.database.stop()


def parsed(kept, line, stage):
    """The labels that a stage adds to a line, beside a healthy line whose labels must be found too."""
    labels = {"service_name": f"s{time.monotonic_ns()}"}
    kept.add('{"healthy":1}', line, labels=labels)
    query = f'{{service_name="{labels["service_name"]}"}} | {stage}'
    answer = kept.get("query_range", query=query, direction="forward")
    assert answer.status_code == 200, answer.text
    found = {}
    for stream in answer.json["data"]["result"]:
        for _, text in stream["values"]:
            found[text] = {name: value for name, value in stream["stream"].items() if name not in labels}
    assert '{"healthy":1}' in found
    return found[line]


@pytest.mark.parametrize(("line", "labels", "problem"), JSON_LINES, ids=[repr(case[0]) for case in JSON_LINES])
def test_json_finds_what_loki_finds(kept, line, labels, problem):
    error = {"__error__": "JSONParserErr", "__error_details__": problem} if problem else {}
    assert parsed(kept, line, "json") == {**labels, **error}


OF_PATHS = [
    ('{"o":{"x": 1,  "y":"a\\nb"},"s":"a\tb"}', "o", '{"x": 1,  "y":"a\\nb"}'),
    ('{"o":{"x":1},"s":"cut \\ud83d"}', "o", '{"x":1}'),
    ('{"o":{"x":1},"n":1e999}', "o", '{"x":1}'),
    ('{"o":{"x":1},"s":nope}', "o", '{"x":1}'),
    ('{"o":{"x":1}', "o", '{"x":1}'),
    ('{"o":{"x":"\\ud83d"}}', "o", '{"x":"\\ud83d"}'),
    ('{"o":{"x":1},"o":{"x":2}}', "o", '{"x":1}'),
    ('{"o":{"x":1},"o":{"x":2}}', "o.x", "1"),
    ('{"o":[1, "x\\ny"]}', "o", '[1, "x\ny"]'),
    ('{"o":[1,"x\\ny"],"s":nope}', "o[1]", "x\ny"),
    ('{"o":[nope,2]}', "o", "[nope,2]"),
    ('{"o":"cut \\ud83d"}', "o", ""),
    ('{"o":true}', "o", "true"),
    ('{"o":null}', "o", ""),
    ('{"o":1e999}', "o", "1e999"),
    ("[1]", "o", ""),
    ('"o"', "o.x", ""),
    ("{o:1}", "o", ""),
]


@pytest.mark.parametrize(("line", "path", "value"), OF_PATHS, ids=repr)
def test_json_by_a_path_gives_what_loki_gives(kept, line, path, value):
    assert parsed(kept, line, f'json v="{path}"')["v"] == value


@pytest.mark.parametrize(("line", "problem"), [('{"v":nope}', UNKNOWN), ('{"v":"open', NO_STRING)])
def test_json_by_a_path_says_what_is_wrong_there(kept, line, problem):
    found = parsed(kept, line, 'json v="v"')
    assert found == {"v": "", "__error__": "JSONParserErr", "__error_details__": problem}


@pytest.mark.parametrize("line", ["{trace}", '{{"trace_id":"{trace}","s":"a\tb"}}', '{{"trace":{{"id":"{trace}"}}}}'])
def test_a_trace_id_in_an_odd_line_is_found_after_json(kept, line):
    trace = f"{time.monotonic_ns():032x}"
    text = line.format(trace=trace)
    kept.add(text, "other")
    found = kept.lines(f'{{service_name="order-service"}} | json | trace_id="{trace}"')
    assert found == ([text] if "trace_id" in text or '"trace"' in text else [])


MONSTERS = {
    "deep": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "deep and broken": '{"a":' * 40_000 + "x" + "}" * 40_000,
    "never closed": '{"a":' * 50_000,
    "a long name around many": '{"' + "k" * 130_000 + '":{' + ",".join('"b":1' for _ in range(12_000)) + "}}",
    "quotes": '{"a":"' + '\\"' * 120_000,
    "backslashes": '{"a":"' + "\\" * 250_000,
    "brackets": '{"a":' + "[" * 250_000,
    "half pairs": "{" + ",".join('"b":"\\ud83d"' for _ in range(12_000)) + ",}",
    "equals": "=" * 250_000,
    "pairs": "a=1 " * 60_000,
}


@pytest.mark.parametrize("line", MONSTERS.values(), ids=MONSTERS)
def test_a_monstrous_line_is_parsed_soon(line):
    began = time.monotonic()
    jsonline.fields(line)
    jsonline.at_paths(line, [("a",), ("a", "a", 1), ("b1",)])
    list(logfmt.pairs(line))
    assert time.monotonic() - began < 10  # some 0.5 s at most; what is not linear takes minutes


# --- logfmt: the right values are of go-logfmt's grammar ---

LOGFMT_LINES = [
    ('uri=/x?id=7 status=200 user=""', {"status": "200"}, "logfmt syntax error at pos 10 : unexpected '='"),
    ('a="x y" b=1"2 c=3', {"a": "x y", "c": "3"}, "logfmt syntax error at pos 12 : unexpected '\"'"),
    ('"q"=1 k=2', {"k": "2"}, "logfmt syntax error at pos 1 : unexpected '\"'"),
    ("=x y=z", {"y": "z"}, "logfmt syntax error at pos 1 : unexpected '='"),
    ("a==b c=d", {"c": "d"}, "logfmt syntax error at pos 3 : unexpected '='"),
    ('a="open b=1', {}, "logfmt syntax error at pos 12 : unterminated quoted value"),
    ('a="\\x" b=2', {"b": "2"}, "logfmt syntax error at pos 7 : invalid quoted value"),
    ("é=ü x\ufffd=1 y=2", {"_": "ü", "y": "2"}, "logfmt syntax error at pos 11 : invalid key"),
    ('a="\\u00e9\\ud83d" b', {"a": "é "}, ""),
    ("a=b\ufffdc", {"a": "b c"}, ""),
    ('a="b"c=d', {"a": "b", "c": "d"}, ""),
    ("a='x y'", {"a": "'x"}, ""),
    ("a\tb=1\nc=2", {"b": "1", "c": "2"}, ""),
    ('a= b="" c=1', {"c": "1"}, ""),
    ("a= a=1 a=2", {"a": "1"}, ""),
    ('4x.y-z=1 m="\\"q\\\\\\n"', {"_4x_y_z": "1", "m": '"q\\\n'}, ""),
]


@pytest.mark.parametrize(("line", "labels", "problem"), LOGFMT_LINES, ids=[repr(case[0]) for case in LOGFMT_LINES])
def test_logfmt_leaves_out_what_is_no_pair(kept, line, labels, problem):
    assert parsed(kept, line, "logfmt") == labels


@pytest.mark.parametrize(("line", "labels", "problem"), LOGFMT_LINES, ids=[repr(case[0]) for case in LOGFMT_LINES])
def test_strict_logfmt_stops_at_what_is_no_pair_and_says_so(kept, line, labels, problem):
    found = parsed(kept, line, "logfmt --strict")
    if problem:
        assert found.pop("__error__") == "LogfmtParserErr"
        assert found.pop("__error_details__") == problem
    else:
        assert found == labels
    assert found.items() <= labels.items()


def test_empty_values_are_kept_when_asked_for(kept):
    assert parsed(kept, 'a= b="" c d=1', "logfmt --keep-empty") == {"a": "", "b": "", "c": "", "d": "1"}
    assert parsed(kept, 'a= b="" c d=1', 'logfmt x="a", y="d", z="none"') == {"x": "", "y": "1", "z": ""}


# --- all streams ---


def test_volume_takes_all_streams_each_by_its_labels(tmp_path):
    kept = Kept(tmp_path / "logs.sqlite")
    kept.add("x" * 10, labels={"service_name": "a", "zone": "z"})
    kept.add("x" * 20, labels={"service_name": "b"})
    for query in ("{}", "{ }"):
        answer = kept.get("index/volume", query=query)
        assert answer.status_code == 200
        assert [row["metric"] for row in answer.json["data"]["result"]] == [
            {"service_name": "b"},
            {"service_name": "a", "zone": "z"},
        ]
    targeted = kept.get("index/volume", query="{}", targetLabels="zone").json["data"]["result"]
    assert [row["metric"] for row in targeted] == [{}, {"zone": "z"}]
    kept.database.stop()


def test_series_takes_all_streams_alone_and_others_take_no_such_selector(kept):
    kept.add("x")
    everything = kept.get("series").json["data"]
    assert kept.get("series", match="{ }").json["data"] == everything != []
    answer = kept.client.get("/loki/api/v1/series", query_string={"match[]": ["{}", '{service_name="a"}']})
    assert (answer.status_code, answer.text) == (400, "0 matchers in group: {}\n")
    for path in ("index/stats", "labels", "query_range"):
        answer = kept.get(path, query="{}")
        assert answer.status_code == 400
        assert answer.text.startswith("parse error : queries require at least one")


def test_a_mistake_of_ours_is_an_error_in_lokis_form(kept, monkeypatch):
    monkeypatch.setattr("observability.embedded.loki.select_lines", lambda *_, **__: 1 / 0)
    answer = kept.get("query_range", query='{service_name="order-service"}')
    assert (answer.status_code, answer.content_type) == (500, "text/plain; charset=utf-8")
    assert "division" not in answer.text
    assert kept.client.patch("/loki/api/v1/query").status_code == 405


@pytest.mark.parametrize("line", ["[" + "1," * 120_000, '{"b":{"a":[' + "1," * 120_000], ids=["list", "in an object"])
def test_many_paths_of_a_broken_line_are_found_in_one_walk(line):
    paths = [(100_000 + number,) for number in range(120)]
    began = time.monotonic()
    found, _ = jsonline.at_paths(line, paths)
    jsonline.at_paths(line, [("b", "a", *path) for path in paths])
    assert time.monotonic() - began < 5  # 0.3 s; half a minute if each path walks
    assert found == (["1"] * 120 if line[0] == "[" else [None] * 120)
