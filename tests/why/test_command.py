"""The command, as it is typed: against a made-up shop's APIs on a real port, and against none."""

import copy
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time

import psutil
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from observability.story.window import Window
from observability.why.cli import main
from tests.fixtures.embedded import running_embedded
from tests.fixtures.stack import PROJECT
from tests.why.world import AT, Fault, World

SLOW = Fault(service="shop-c", name="decide", extra_ms=400)


class Served:
    """A world behind the three APIs, as if its last moment were now."""

    def __init__(self, server):
        self.server, self.world, self.says = server, World(rate=1), {}
        self.offset = AT - time.time()
        self.seconds, self.is_trickling = 0, False
        for path, answer in {
            "/api/services": lambda _: {"data": self.world.services()},
            "/api/traces": self._search,
            "/api/v1/query_range": self._over,
            "/api/v1/alerts": lambda _: {"data": {"alerts": self.world.alerting}},
            "/api/v1/rules": lambda _: {"data": {"groups": [{"rules": self._rules()}]}},
            "/loki/api/v1/query": self._count,
            "/loki/api/v1/query_range": self._lines,
        }.items():
            server.expect_request(path).respond_with_handler(
                lambda request, path=path, answer=answer: self._answered(
                    self.says.get(path) or json.dumps(answer(request))
                )
            )

    def _answered(self, text):
        if self.is_trickling:
            return Response(self._bit_by_bit(text))
        time.sleep(self.seconds)  # that is how slow it is
        return Response(text)

    def _bit_by_bit(self, text):
        for character in text:
            time.sleep(self.seconds)
            yield character

    def _rules(self):
        return [{"name": name, "query": query} for name, query in self.world.rules_of.items()]

    def _search(self, request):
        fields = dict(request.args)
        for name in ("start", "end"):
            fields[name] = str(int(int(fields[name]) + self.offset * 1e6))
        found = copy.deepcopy(self.world.search(fields))
        for span in (span for trace in found for span in trace["spans"]):
            span["startTime"] -= int(self.offset * 1e6)
        return {"data": found}

    def _over(self, request):
        start, end = (float(request.args[name]) + self.offset for name in ("start", "end"))
        found = self.world.over(request.args["query"], Window(start, end), int(request.args["step"]))
        for one in found:
            one["values"] = [[when - self.offset, value] for when, value in one["values"]]
        return {"data": {"resultType": "matrix", "result": found}}

    def _count(self, request):
        end = int(request.args["time"]) / 1e9 + self.offset
        return {"data": {"resultType": "vector", "result": self.world.count(request.args["query"], end)}}

    def _lines(self, _):
        line = {"level": "warning", "service": "shop-c", "event": "processor.late", "customer": "\x1b[31mred"}
        entry = [str(int(time.time() * 1e9)), json.dumps(line)]
        return {"data": {"resultType": "streams", "result": [{"stream": {}, "values": [entry]}]}}


@pytest.fixture
def served(monkeypatch, tmp_path, closed_port):
    with HTTPServer(threaded=True) as server:
        monkeypatch.setenv("RUN_DIR", str(tmp_path))
        for name in ("JAEGER", "LOKI", "PROMETHEUS"):
            monkeypatch.setenv(f"{name}_URL", f"http://127.0.0.1:{server.port}")
        yield Served(server)


@pytest.fixture
def closed_port(monkeypatch):
    """Give the address of a backend that is not there, for those that a test takes away."""
    return "http://127.0.0.1:9"


def _json(capsys, *arguments):
    assert main(["--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_names_the_cause_with_its_evidence_for_people(served, capsys):
    served.world = World(rate=2, faults=[SLOW])
    assert main([]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Something is wrong: shop-c decide.\n")
    for part in (
        "1. shop-c decide: latency, sure",
        "/api/traces?service=",
        "Runbook: docs/runbooks/",
        "beside a bad one",
    ):
        assert part in said
    assert r"customer=\x1b[31mred" in said  # what a line says does not reach the terminal as it is


def test_it_says_the_same_to_programs(served, capsys):
    served.world = World(rate=2, faults=[SLOW])
    answer = _json(capsys)
    assert (answer["state"], answer["causes"][0]["service"], answer["causes"][0]["operation"]) == (
        "wrong",
        "shop-c",
        "decide",
    )
    assert answer["lines"][0]["event"] == "processor.late"
    assert answer["not_looked_at"] == []
    assert answer["seconds"] > 0


def test_as_make_runs_it_it_needs_no_path_to_the_services_code(served):
    served.world = World(rate=2, faults=[SLOW])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "observability.why", "--json"]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["causes"][0]["service"] == "shop-c"


def test_in_health_it_says_that_nothing_is_wrong(served, capsys):
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("Nothing is wrong.\n")


@pytest.mark.parametrize("name", ["JAEGER", "LOKI", "PROMETHEUS"])
def test_without_one_backend_it_says_so_and_goes_on(served, capsys, monkeypatch, closed_port, name):
    served.world = World(rate=2, faults=[SLOW])
    monkeypatch.setenv(f"{name}_URL", closed_port)
    answer = _json(capsys)
    assert len(answer["not_looked_at"]) == 1
    assert name in answer["not_looked_at"][0].upper()
    named = [cause["operation"] for cause in answer["causes"]]
    assert named == ([] if name == "JAEGER" else ["decide"])


def test_without_a_stack_it_says_what_to_do(served, capsys, monkeypatch, closed_port):
    for name in ("JAEGER", "LOKI", "PROMETHEUS"):
        monkeypatch.setenv(f"{name}_URL", closed_port)
    assert main([]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "nothing listens there" in told.err
    assert "make status" in told.err


@pytest.mark.parametrize(
    "body", ["<html>", "[]", "{}", '{"data": null}', '{"data": {"alerts": 7}}', '{"data": [{"spans": [{}]}]}', "null"]
)
@pytest.mark.parametrize(
    "path", ["/api/services", "/api/traces", "/api/v1/query_range", "/api/v1/alerts", "/loki/api/v1/query"]
)
def test_an_answer_that_makes_no_sense_ends_nothing(served, capsys, path, body):
    served.world = World(rate=0.2)
    served.says[path] = body
    assert _json(capsys)["causes"] == []


def test_empty_backends_are_no_fault(served, capsys):
    served.world = World(rate=0, seconds=1)
    answer = _json(capsys)
    assert answer["state"] == "well"
    assert "Nobody has asked" in answer["notes"][0]["says"]


def test_hostile_names_and_huge_numbers_are_shown_and_harm_nothing(served, capsys):
    evil = "\x1b]0;x\x07" + "\N{RIGHT-TO-LEFT OVERRIDE}" + "a" * 5000
    served.world = World(rate=1, faults=[Fault(service="shop-c", name="decide", error=evil)])
    for trace in served.world.traces[-3:]:
        trace["spans"][0]["duration"] = 10**30
        trace["spans"][0]["tags"].append({"key": evil, "value": float("inf")})
    assert main([]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in said
    assert "shop-c decide" in said
    assert json.dumps(_json(capsys), allow_nan=False)


@pytest.mark.parametrize(
    "arguments", [["--since", "5s"], ["--since", "2h"], ["--at", "tomorrow"], ["--at", "9e99"], ["-x"]]
)
def test_arguments_that_cannot_be_are_refused(served, capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err


def test_help_says_what_it_does(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    for option in ("--since", "--at", "--json", "JAEGER_URL"):
        assert option in said


# --- in time, whoever does not answer


BACKENDS = ("JAEGER", "LOKI", "PROMETHEUS")
SECONDS = 10


@pytest.fixture
def frozen():
    """Give the address of a backend that is frozen: the system takes connections for it, and nobody answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def timed():
    """Ask as `make why` does, in a process of its own."""
    began = time.monotonic()
    command = [sys.executable, "-m", "observability.why", "--json"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    assert seconds < SECONDS
    return done


@pytest.mark.parametrize("names", [*((name,) for name in BACKENDS), *itertools.combinations(BACKENDS, 2)])
def test_a_frozen_backend_is_told_and_not_waited_for(served, monkeypatch, frozen, names):
    served.world = World(rate=2, faults=[SLOW])
    for name in names:
        monkeypatch.setenv(f"{name}_URL", frozen)
    done = timed()
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    for name in BACKENDS:
        told = [one for one in answer["not_looked_at"] if name in one.upper()]
        assert bool(told) == (name in names)
    if "JAEGER" not in names:
        assert answer["causes"][0]["operation"] == "decide"


def test_if_all_are_frozen_that_is_said_in_time(served, monkeypatch, frozen):
    for name in BACKENDS:
        monkeypatch.setenv(f"{name}_URL", frozen)
    done = timed()
    assert done.returncode == 1
    for name in BACKENDS:
        assert f"{name.title()}'s API at {frozen} does not answer" in done.stderr


def test_backends_that_are_slow_with_each_answer_are_asked_for_less(served):
    served.world, served.seconds = World(rate=2, faults=[SLOW]), 1.5
    done = timed()
    assert done.returncode == 0, done.stderr
    assert "it took too long" in " ".join(json.loads(done.stdout)["not_looked_at"])


def test_backends_that_send_their_answers_bit_by_bit_are_not_waited_for(served):
    served.seconds = 0.5
    served.is_trickling = True
    done = timed()
    assert done.returncode == 1
    assert "The telemetry cannot be looked at" in done.stderr


def test_a_real_backend_that_is_stopped_is_told_in_time(served, monkeypatch, tmp_path):
    with running_embedded(tmp_path) as backend:
        monkeypatch.setenv("JAEGER_URL", backend.jaeger.root)
        monkeypatch.setenv("LOKI_URL", backend.loki.root)
        process = psutil.Process(backend.process.pid)
        stopped = [process, *process.children(recursive=True)]
        for one in stopped:
            one.suspend()
        try:
            done = timed()
        finally:
            for one in stopped:
                one.resume()
    told = " ".join(json.loads(done.stdout)["not_looked_at"])
    assert "Jaeger's API" in told
    assert "Loki's API" in told
    assert "Prometheus" not in told


# --- what it shows


def test_each_sentence_is_followed_by_the_query_that_it_follows_from(served, capsys):
    served.world = World(rate=2, faults=[SLOW])
    served.world.lines = [(ago / 50, "shop-a", "info", "cache.missed", "") for ago in range(3000)]
    answer = _json(capsys)
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = [one for cause in answer["causes"] for one in cause["because"]] + answer["notes"]
    assert {one["backend"] for one in told} == {"Jaeger", "Loki"}
    said = [number for number, line in enumerate(lines) if line.startswith("   - ")]
    assert len(said) > len(told)  # with what users lose
    for number in said:
        query = next(line for line in lines[number + 1 :] if line.startswith("     "))
        assert re.match(r" {5}(http://127\.0\.0\.1:\d+/api/|sum by|max)", query)


def test_an_alert_is_shown_with_what_it_measures(served, capsys):
    labels = {"alertname": "TooDeep", "job": "shop-c", "severity": "page"}
    notes = {"summary": "Customers wait.", "runbook_url": "docs/runbooks/TooDeep.md"}
    served.world.alerting = [
        {"state": "firing", "labels": labels, "annotations": notes, "activeAt": "2026-11-29T09:00"}
    ]
    served.world.rules_of = {"TooDeep": "depth > 0.5"}
    served.world.metrics["depth"] = [({"job": "shop-c"}, lambda ago: 0.9 if ago < 110 else 0.1)]
    assert _json(capsys)["alerts"][0]["now"] == 0.9
    assert main([]) == 0
    said = capsys.readouterr().out
    assert said.startswith("An alert fires, and no cause was found: TooDeep.\n")
    for part in (
        "TooDeep: firing since 2026-11-29T09:00, docs/runbooks/TooDeep.md\n   Customers wait.\n",
        "   - TooDeep fires for job=shop-c: it is 0.9 now, > 0.5; before 0.1.\n     depth\n",
    ):
        assert part in said


def test_what_a_pending_alert_says_of_customers_is_not_said_to_be_so_yet(served, capsys):
    labels = {"alertname": "TooDeep", "job": "shop-c", "severity": "page"}
    notes = {"summary": "Customers wait."}
    served.world.alerting = [{"state": "pending", "labels": labels, "annotations": notes, "activeAt": "2026-11-29"}]
    assert main([]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Nothing is wrong.\n")
    assert "TooDeep: pending since 2026-11-29\n   If it fires: Customers wait.\n" in said


def test_what_could_not_be_looked_at_is_not_called_well(served, capsys, monkeypatch, closed_port):
    monkeypatch.setenv("JAEGER_URL", closed_port)
    assert main([]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Nothing is wrong in what could be looked at, which is not all.\n")
    assert f"Not looked at\n  Jaeger's API at {closed_port}" in said
