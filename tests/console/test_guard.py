"""Other web pages stay out, and the text of others stays text."""

import gzip
import html
import json
import os
import re
import socket
import subprocess
import sys
from urllib.parse import quote, urlencode

import pytest
import requests
import structlog

from scenarios import flags
from tests.console.conftest import TRACE
from tests.fixtures.ports import free_ports
from tests.fixtures.services import eventually
from tests.fixtures.stack import PROJECT

PAGES = [
    "/",
    "/orders/",
    "/orders/7",
    "/traces/",
    f"/traces/{TRACE}",
    "/logs",
    "/dashboards/",
    "/dashboards/service",
    "/why",
    "/faults",
]


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "console.example:3000", "a b"])
def test_a_host_that_is_not_ours_is_refused(console, host):
    assert console().get("/", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost:3000", "127.0.0.1:3000", "[::1]:3000", "console"])
def test_our_own_names_are_answered(console, host):
    assert console().get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:8080"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_page_cannot_place_an_order(console, apis, headers):
    answer = console().post("/orders/", data={"product_id": 1}, headers={"Host": "localhost:3000", **headers})
    assert answer.status_code == 403
    assert not apis.placed


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
@pytest.mark.parametrize("data", [{"name": "payment-slow", "state": "on"}, {"all": ""}])
def test_another_page_cannot_switch_a_fault(console, flags_file, headers, data):
    flags.switch(flags_file, "cpu-burn", "on")
    before = flags_file.read_text()
    assert console().post("/faults", data=data, headers={"Host": "localhost:3000", **headers}).status_code == 403
    assert flags_file.read_text() == before


def test_our_own_page_can(console, apis):
    headers = {"Host": "localhost:3000", "Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-origin"}
    answer = console().post("/orders/", data={"product_id": 5, "quantity": 2}, headers=headers)
    assert (answer.status_code, answer.location) == (303, "/orders/8")
    assert apis.placed == [{"product_id": 5, "quantity": 2}]


@pytest.mark.parametrize("path", [*PAGES, "/static/console.js", "/nowhere"])
def test_each_answer_forbids_what_is_not_our_own(console, path):
    with console().get(path) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("path", PAGES)
def test_no_page_needs_what_the_policy_forbids(page, path):
    text = page(path)
    assert not re.search(r"<[^>]*\s(style|on\w+)=", text)
    assert "<style" not in text
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))
    assert not re.search(r'(src|href|action)="(https?:)?//', text)


@pytest.mark.parametrize("path", [*PAGES, "/traces/compare?a=" + TRACE + "&b=" + TRACE])
def test_hostile_text_is_inert_wherever_it_stands(page, hostile, path):
    text = page(path)
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    for series in re.findall(r'data-series="([^"]*)"', text):  # what the script reads
        assert all(one["n"].isprintable() for one in json.loads(html.unescape(series)))
    assert "49" not in re.findall(r"`(\d+)", text)
    assert len(text) < 1_000_000


STRANGE = """../../admin
..%2f..%2fadmin
http://evil.example/
//evil.example
7/../../auth
@evil.example
a b
%0d%0aX: y
7?x=y
7#x
${jndi:ldap://x}
{{7*7}}
'; DROP
-1
[::1]
file:///etc/passwd""".splitlines()
STRANGE += ["7\r\nHost: evil.example", "\x00", "\u0667", "9" * 5000, "/" * 100, "\udcff"]
ASKED = re.compile(
    r"GET /(api/(services|operations|traces(/[0-9a-f]{32})?|dependencies|v1/(query(_range|_exemplars)?|alerts))"
    r"|api/v1/label/\w+/values|loki/api/v1/query_range|orders/([0-9]+)?|products/)|POST /(auth/login|orders/)"
)


@pytest.mark.parametrize("strange", STRANGE, ids=range(len(STRANGE)))
def test_nothing_that_a_browser_sends_chooses_what_is_asked(console, apis, strange):
    client, said = console(), quote(strange, safe="", errors="surrogatepass")
    names = "q service operation tags min max limit sort a b span line cursor range from to status slower var-service"
    query = "&".join(f"{name}={said}" for name in names.split())
    for page in ("/", "/orders/", "/orders/7", "/traces/", "/traces/compare", "/logs", "/dashboards/service", "/find"):
        assert client.get(f"{page}?{query}").status_code < 500
    for page in ("/orders/", "/traces/", "/runbooks/", "/dashboards/", "/d/", "/static/"):
        with client.get(page + said) as answer:
            assert answer.status_code < 500
    body = "&".join(f"{name}={said}" for name in ("username", "password", "after", "product_id", "quantity", "count"))
    body += f"&name={said}&state={said}"
    for page in ("/login", "/orders/", "/faults"):
        assert client.post(page, data=body, content_type="application/x-www-form-urlencoded").status_code < 500
    assert {f"{method} {path}" for method, path in apis.seen if not ASKED.fullmatch(f"{method} {path}")} == set()


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "POST"])
@pytest.mark.parametrize("path", ["/", "/orders/", "/orders/7", "/login", "/logs", "/faults", "/healthz"])
def test_no_method_changes_anything_for_another_page(console, apis, method, path):
    headers = {"Host": "localhost:3000", "Origin": "http://localhost:3000.evil.example"}
    assert console().open(path, method=method, headers=headers).status_code == 403
    assert not apis.seen


@pytest.fixture
def process(apis, tmp_path):
    """The console as a process of its own: its port, and its log."""
    (port,) = free_ports(1)
    root = f"http://127.0.0.1:{apis.server.port}"
    urls = dict.fromkeys(("GATEWAY_URL", "JAEGER_URL", "LOKI_URL", "PROMETHEUS_URL"), root)
    environment = {**os.environ, **urls, "CONSOLE_PORT": str(port), "PYTHONPATH": "services"}
    written = tmp_path / "log"
    with written.open("w") as log:
        command = [sys.executable, "-m", "observability.console"]
        started = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=log, stderr=log)
    try:
        eventually(lambda: "console.started" in written.read_text(), 60)
        yield port, written
    finally:
        started.terminate()
        assert started.wait(10) == 0


def test_a_form_that_is_too_large_is_refused_before_it_is_read(process):
    port, _ = process
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"POST /orders/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_line_of_the_consoles_log_cannot_be_forged(process, apis):
    port, log = process
    forged = '\n{"event":"forged"}\n'
    apis.odd = {"/api/v1/alerts": {"data": {"alerts": [{"labels": forged}]}}}
    for path in ("/", f"/logs?q={quote(forged)}", f"/traces/{quote(forged)}", f"/{quote(forged)}"):
        assert requests.get(f"http://127.0.0.1:{port}{path}", timeout=20).status_code < 500
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events == ["console.started", "answer.not_understood"]


@pytest.mark.parametrize(
    "path", [f"/traces/{TRACE}'", "/traces/<b>", "/runbooks/..%2fREADME", "/runbooks/../../README"]
)
def test_a_path_is_no_way_to_anything_else(console, path):
    answer = console().get(path)
    assert answer.status_code == 404
    assert "<b>" not in answer.text


ELSEWHERE = ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/\t/evil.example"]
ELSEWHERE += ["/\n/evil.example", "/orders/\r\nX: y", " //evil.example", "/\x00", "/\u2028/evil.example", "/ä", ""]


@pytest.mark.parametrize("after", ELSEWHERE, ids=range(len(ELSEWHERE)))
def test_signing_in_leads_nowhere_else(console, after):
    data = {"username": "admin", "password": "password", "after": after}
    client = console()
    assert client.post("/login", data=data).location == "/"
    assert 'name="after" value="/"' in client.get("/login?" + urlencode({"after": after})).text


@pytest.mark.parametrize(
    ("path", "again"),
    [
        ("/%5Cevil.example", "/%5Cevil.example"),
        ("/%09/evil.example", "/%09/evil.example"),
        ("/%2Fevil.example", "/evil.example"),
        ("/traces/%22x?a=b%5Cc", "/traces/%22x?a=b%5Cc"),
    ],
)
def test_trying_again_leads_nowhere_else(console, path, again):
    assert f'href="{again}">Try again</a>' in console().get(path).text


def test_a_fault_is_logged_without_what_a_browser_sent(console_app, monkeypatch):
    monkeypatch.setattr("observability.console.traces.telling.of_trace", lambda *_: 1 / 0)
    with structlog.testing.capture_logs() as said:
        assert console_app().test_client().get("/traces/abcdef").status_code == 500
    assert [one["route"] for one in said if one["event"] == "request.failed"] == ["/traces/<trace_id>"]
    assert "abcdef" not in str([{**one, "exc_info": ""} for one in said])


def test_long_answers_are_packed_for_who_takes_that(console):
    answer = console().get("/logs", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert b"<!doctype html>" in gzip.decompress(answer.data)
    assert "Content-Encoding" not in console().get("/logs").headers
