"""The recordings themselves: what is kept is given again, what is not is missed aloud, and times can be moved."""

import gzip
import random

import pytest
from werkzeug import Response

from tests.conformance import payloads, recordings
from tests.conformance.recordings import Later, Recorder, Recording
from tests.fixtures.services import Client

ODD = b'{"b": 1.50,\n "a": "\xe2\x80\xa8<"}\n'


@pytest.fixture
def recording(tmp_path, monkeypatch):
    """A recording in the making, of a Jaeger that need not be there."""
    monkeypatch.setattr(recordings, "FOLDER", tmp_path)
    monkeypatch.setattr(recordings, "option", {"record": True})
    monkeypatch.setenv("JAEGER_URL", "http://127.0.0.1:9")
    return Recording("jaeger")


@pytest.fixture
def played(recording, peer, monkeypatch):
    """Asks a server, and then the recording of that: the answers of both, as (status, type, body)."""
    server = peer()
    client = Client(server.root)
    client.session.mount("http://", Recorder(recording))

    def ask(*requests, again=None):
        real = [client(*arguments, **more) for arguments, more in requests]
        recording.write()
        monkeypatch.setattr(recordings, "option", {"record": False})
        player = Recording("jaeger").player()
        given = [player.api(*arguments, **more) for arguments, more in again or requests]
        return [
            [(one.status_code, one.headers.get("Content-Type"), one) for one in answers] for answers in (real, given)
        ]

    yield server, ask
    client.session.close()


def test_what_was_recorded_is_answered_again(played):
    server, ask = played
    server.expect_request("/json", query_string="a=1&a=2&b=").respond_with_data(ODD, content_type="application/json")
    server.expect_request("/text", method="POST").respond_with_data("no", 400, content_type="text/plain; charset=utf-8")
    server.expect_request("/bytes").respond_with_data(b"\xff\x00", content_type="application/x-protobuf")
    server.expect_request("/none").respond_with_response(Response(status=204))
    real, given = ask(
        (("GET", "/json"), {"params": {"a": [1, 2], "b": ""}}),
        (("POST", "/text"), {"data": {"query": "{"}}),
        (("GET", "/bytes"), {}),
        (("GET", "/none"), {}),
    )
    assert [one[:2] for one in given] == [one[:2] for one in real]
    assert [one[0] for one in given] == [200, 400, 200, 204]
    assert list(given[0][2].json().items()) == [("b", 1.5), ("a", "\u2028<")]
    assert given[1][2].text == "no"
    assert given[2][2].content == b"\xff\x00"


def test_of_answers_to_the_same_question_the_last_is_kept(played):
    server, ask = played
    server.expect_ordered_request("/").respond_with_data("not yet")
    server.expect_ordered_request("/").respond_with_data("now")
    _, given = ask((("GET", "/"), {}), (("GET", "/"), {}))
    assert [one[2].text for one in given] == ["now", "now"]


def test_a_body_is_the_same_however_it_is_compressed(played):
    server, ask = played
    server.expect_request("/", method="POST").respond_with_data("taken")
    once, again = ({"data": gzip.compress(b"spans" * 99, level), "headers": {}} for level in (1, 9))
    assert once["data"] != again["data"]
    _, given = ask((("POST", "/"), once), again=[(("POST", "/"), again)])
    assert given[0][2].text == "taken"


@pytest.mark.parametrize(
    "other",
    [
        (("GET", "/other"), {"params": {"a": 1}}),
        (("GET", "/"), {"params": {"a": 2}}),
        (("POST", "/"), {"params": {"a": 1}}),
        (("GET", "/"), {"params": {"a": 1}, "data": b"body"}),
        (("GET", "/"), {"params": {"a": 1}, "headers": {"X-Loki-Response-Encoding-Flags": "categorize-labels"}}),
    ],
    ids=str,
)
def test_what_was_not_recorded_fails_and_says_what_to_do(played, other):
    server, ask = played
    server.expect_request("/").respond_with_data("known")
    with pytest.raises(pytest.fail.Exception, match="not recorded: run with --record where there is a real jaeger"):
        ask((("GET", "/"), {"params": {"a": 1}}), again=[other])


def test_times_are_moved_in_each_unit_and_nothing_else(recording):
    recording.start = start = 1_700_000_000 * 10**9
    later = Later(recording)
    by = recordings.just_now() - start
    for unit in (1, 10**3, 10**6, 10**9):
        text = f"/api/traces/{'1' * 32}?start={start // unit}&end={start // unit + 5}&limit=99999999999&old=1600000000"
        moved = text.replace(str(start // unit), str((start + by) // unit))
        moved = moved.replace(str(start // unit + 5), str((start + by) // unit + 5))
        assert later.moved(text) == moved != text
    assert later.moved(f"{start // 10**9}.25") == f"{(start + by) // 10**9}.25"


def test_a_message_is_moved_whole(recording):
    recording.start = 1_700_000_000 * 10**9
    by = recordings.just_now() - recording.start
    make = payloads.attribute_types
    ids = [random.Random("same") for _ in range(2)]
    [here] = make(start=recording.start, ids=ids[0]).requests()
    [there] = make(start=recording.start + by, ids=ids[1]).requests()
    assert Later(recording).message(here) == there
