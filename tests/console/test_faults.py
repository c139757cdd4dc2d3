"""The page that switches faults."""

import re

import pytest
from werkzeug import Response

from scenarios import describing, flags
from tests.console.conftest import HOSTILE


def state(file, name):
    return next(flag.state for flag in flags.read(file) if flag.name == name)


def test_each_fault_is_there_with_what_it_does_its_state_and_its_variants(page, flags_file):
    flags.switch(flags_file, "payment-slow", "strong")
    text = page("/faults")
    rows = {re.search("<b>(.*?)</b>", row)[1]: row for row in text.split("<tr")[1:] if "<b>" in row}
    for flag in flags.read(flags_file):
        row = rows[flag.name]
        assert flag.kind in row
        assert flag.description.replace("'", "&#39;") in row
        buttons = re.findall(r'<button name="state" value="(.*?)" aria-pressed="(.*?)"', row)
        assert [name for name, _ in buttons] == ["off", *flag.variants]
        assert [name for name, pressed in buttons if pressed == "true"] == [flag.state]
    assert "strong</span>" in rows["payment-slow"]


def test_each_scenario_is_there_and_leads_to_its_runbook(page, console):
    text = page("/faults")
    for scenario in map(describing.read, describing.names()):
        place = text.index(f"make scenario NAME={scenario.name}</code>")
        if scenario.runbook:
            link = f"/runbooks/{scenario.runbook}"
            assert f'<a href="{link}">' in text[place : place + 200]
            assert console().get(link).status_code == 200


def test_a_fault_is_switched_and_named_at_the_top_of_each_page_while_it_is_on(console, page, flags_file):
    assert "fault on" not in page("/orders/")
    for wanted in ("on", "strong", "off"):
        answer = console().post("/faults", data={"name": "payment-slow", "state": wanted})
        assert (answer.status_code, answer.location) == (303, "/faults")
        assert state(flags_file, "payment-slow") == wanted
        for path in ("/", "/orders/", "/help", "/faults"):
            assert bool(re.search("fault on: <a [^>]*>payment-slow</a></p>", page(path))) == (wanted != "off")


def test_all_are_switched_off_at_once(console, page, flags_file):
    flags.change(flags_file, {"payment-slow": "on", "cpu-burn": "strong"})
    assert "payment-slow</a>, <a" in page("/")
    assert console().post("/faults", data={"all": ""}).status_code == 303
    assert flags_file.read_text() == flags.DEFAULT.read_text()
    assert "Switch all off" not in page("/faults")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"name": "paymnt-slow", "state": "on"}, "payment-slow"),
        ({"name": "payment-slow", "state": "sometimes"}, "it can be off, on"),
        ({"name": "payment-slow"}, "it can be off, on"),
        ({}, "There is no fault"),
        ({"name": HOSTILE, "state": HOSTILE}, "There is no fault"),
    ],
)
def test_what_cannot_be_is_said_and_changes_nothing(console, flags_file, data, says):
    before = flags_file.read_text()
    answer = console().post("/faults", data=data)
    assert answer.status_code == 400
    assert says in answer.text
    assert "<img" not in answer.text
    assert flags_file.read_text() == before


def test_without_a_file_of_flags_the_page_says_how_to_get_one(console):
    client = console(flags_file=None)
    text = client.get("/faults").text
    assert "make up" in text
    assert "FLAGS_FILE" in text
    assert "<button name" not in text
    assert client.post("/faults", data={"name": "payment-slow", "state": "on"}).status_code == 404


@pytest.mark.parametrize("text", ["", "{", "[]", '{"flags": {"a": {}}}', '{"flags": {"a": 7}}', "\udcff"])
def test_a_file_that_will_not_do_is_told_there_and_ends_no_page(console, page, flags_file, text):
    flags_file.write_text(text, errors="surrogateescape")
    assert "is no file of flags" in page("/faults")
    assert "fault on" not in page("/orders/")
    assert console().post("/faults", data={"name": "payment-slow", "state": "on"}).status_code == 400


def test_a_file_that_is_gone_is_told_there(page, flags_file):
    flags_file.unlink()
    assert "cannot be read (No such file or directory)" in page("/faults")


def test_a_folder_that_may_not_be_written_to_is_told(console, flags_file, monkeypatch):
    def refused(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("scenarios.flags.tempfile.mkstemp", refused)
    monkeypatch.setattr("observability.console.faults.os.access", lambda *_: False)
    shown = console().get("/faults").text
    assert "CONSOLE_USER" in shown
    assert shown.count(" disabled>") == shown.count('<button name="state"') > 0
    answer = console().post("/faults", data={"name": "payment-slow", "state": "on"})
    assert answer.status_code == 400
    assert "cannot be written to (Permission denied)" in answer.text
    assert "make fault" in answer.text


CLOSED = {"console_demo_login": False}


def test_where_everybody_has_to_sign_in_a_fault_is_switched_only_by_who_has(console, flags_file):
    client, fault = console(**CLOSED), {"name": "payment-slow", "state": "on"}
    for data in (fault, {"all": ""}):
        answer = client.post("/faults", data=data)
        assert answer.status_code == 401
        assert 'name="after" value="/faults"' in answer.text
    assert state(flags_file, "payment-slow") == "off"
    client.set_cookie("console_token", "made-up")
    assert client.post("/faults", data=fault).status_code == 401
    assert state(flags_file, "payment-slow") == "off"
    signed_in = client.post("/login", data={"username": "admin", "password": "password", "after": "/faults"})
    assert (signed_in.status_code, signed_in.location) == (303, "/faults")
    assert client.post("/faults", data=fault).status_code == 303
    assert state(flags_file, "payment-slow") == "on"


def test_where_the_demo_login_is_closed_it_is_the_same(console, apis, flags_file):
    apis.odd = {"/auth/login": Response('{"detail": "It is closed."}', 401)}
    answer = console().post("/faults", data={"name": "payment-slow", "state": "on"})
    assert answer.status_code == 401
    assert "It is closed." in answer.text
    assert state(flags_file, "payment-slow") == "off"


@pytest.mark.parametrize("status", [503, 500])
def test_a_fault_that_keeps_everybody_from_signing_in_can_be_switched_off(console, apis, flags_file, status):
    flags.switch(flags_file, "keys-unreadable", "on")
    apis.odd = {"/auth/login": Response("{}", status), "/orders/": Response("{}", status)}
    client = console()
    client.set_cookie("console_token", "token-of-admin")
    assert client.post("/faults", data={"name": "keys-unreadable", "state": "off"}).status_code == 303
    assert state(flags_file, "keys-unreadable") == "off"


@pytest.mark.parametrize("status", [429, 503, 500])
def test_where_the_demo_login_is_not_answered_nothing_is_switched_on(console, apis, flags_file, status):
    apis.odd = {"/auth/login": Response("{}", status)}
    assert console().post("/faults", data={"name": "payment-slow", "state": "on"}).status_code == 502
    assert state(flags_file, "payment-slow") == "off"


def test_a_demo_login_that_was_closed_meanwhile_switches_nothing_on(console, apis, flags_file):
    client, fault = console(), {"name": "payment-slow", "state": "on"}
    assert client.post("/faults", data=fault).status_code == 303
    assert client.post("/faults", data={**fault, "state": "off"}).status_code == 303
    refused = Response('{"detail": "It is closed."}', 401)
    apis.odd = {"/auth/login": refused, "/orders/": refused}
    assert client.post("/faults", data=fault).status_code == 401
    assert state(flags_file, "payment-slow") == "off"


def test_where_nobody_knows_who_is_there_nothing_is_switched(console, apis, flags_file):
    apis.odd = {"/orders/": Response("{}", 503)}
    client = console(**CLOSED)
    client.set_cookie("console_token", "token-of-admin")
    assert client.post("/faults", data={"name": "payment-slow", "state": "on"}).status_code == 502
    assert state(flags_file, "payment-slow") == "off"


def test_each_route_that_changes_something_asks_who_is_there(console_app, apis, flags_file):
    app = console_app(**CLOSED)
    changing = {rule.rule for rule in app.url_map.iter_rules() if rule.methods - {"GET", "HEAD", "OPTIONS"}}
    assert changing == {"/login", "/orders/", "/faults"}
    before = flags_file.read_text()
    for path in changing - {"/login"}:
        data = {"product_id": 1, "name": "payment-slow", "state": "on"}
        assert app.test_client().post(path, data=data).status_code == 401
    assert not apis.placed
    assert flags_file.read_text() == before
