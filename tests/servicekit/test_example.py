"""The example of servicekit's README, taken home: copied to an empty folder, with nothing of the shop near it."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from local import processes
from tests.fixtures.database import PROJECT
from tests.fixtures.ports import free_port
from tests.fixtures.services import Client, eventually

KIT = PROJECT / "services/servicekit"
EXAMPLE = KIT / "example/app.py"
PROGRAMS = Path(sys.executable).parent
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OTEL_"))}
OURS = {"shop", "local", "loadtest", "observability", "bench", "tests"} | {
    path.name for path in PROJECT.glob("services/*/src/*_service")
}
OF_THE_SHOP = re.compile(
    r"(?i)shop|catalog|payment|\bcustomers?\b|\bproducts?\b|\b(?:an|placed|each) orders?\b|\borders?[-_./]\w|/orders?\b"
    r"|orders_user|(?:auth|user|order|product|payment)[-_]service|:500[1-5]\b|\b5433\b|/auth/|/internal/token"
)
"""What only the shop has: its nouns, names, ports and paths. An `order` may be one of things, too."""

GUNICORN = ["gunicorn", "--bind", "127.0.0.1:{port}"]  # with PORT alone it listens on all addresses
SERVERS = {
    "Flask's own": ["python", "app.py"],
    "gunicorn": [*GUNICORN, "app:app"],
    "gunicorn with threads": [*GUNICORN, "--threads", "4", "app:app"],
    "gunicorn with the app before its workers": [*GUNICORN, "--preload", "app:app"],
    "gunicorn as servicekit runs it": ["gunicorn", "-c", "python:servicekit.process.gunicorn_conf", "app:app"],
}

LATER = """
import asyncio, os
from app import app

@app.get("/later/<name>")
async def later(name):
    await asyncio.sleep(0)
    return {"greeting": f"Later, {name}!"}

app.run(port=int(os.environ["PORT"]))
"""
"""The example with an asynchronous view, for which Flask needs a package of its own."""


def block(language, text):
    """The code blocks of this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def home(tmp_path):
    """A folder outside of the project with servicekit and the example in it."""
    shutil.copytree(KIT, tmp_path / "servicekit", ignore=shutil.ignore_patterns("__pycache__", "README.md", "example"))
    shutil.copy(EXAMPLE, tmp_path)
    return tmp_path


class Run:
    """The example as a server of this environment's programs runs it."""

    def __init__(self, home, programs, command, **env):
        self.by_hand = command[0] == "python"
        port = str(free_port())
        self.client = Client(f"http://127.0.0.1:{port}")
        self.log = home / "log"
        with self.log.open("wb") as output, (home / "errors").open("wb") as errors:
            self.process = subprocess.Popen(
                [programs / command[0], *(part.format(port=port) for part in command[1:])],
                cwd=home,
                env={**CLEAN, "PORT": port, **env},
                stdout=output,
                stderr=errors,
            )

    def is_up(self):
        assert self.process.poll() is None, self.log.read_text() + self.log.with_name("errors").read_text()
        try:
            return self.client.get("/healthz").ok
        except requests.ConnectionError:
            return False

    @property
    def events(self):
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def stop(self):
        self.client.session.close()
        if self.by_hand and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # Ctrl-C
            self.process.wait(20)
        return processes.end(self.process, 20)


@pytest.fixture
def run_in():
    """Start the example in a folder: `run_in(folder, command, programs)`."""
    started = []

    def start(folder, command, programs, **env):
        started.append(Run(folder, programs, command, **env))
        eventually(started[-1].is_up, 30)
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def run(run_in, home):
    return lambda command, **env: run_in(home, command, PROGRAMS, **env)


def openmetrics(client):
    return client.get("/metrics", headers={"Accept": "application/openmetrics-text"}).text


def assert_is_observed(started, collector):
    """A greeting is a trace, a count with an exemplar, and two log lines; all of it says the same trace id."""
    answer = started.client.get("/hello/canary-ada")
    assert answer.json() == {"greeting": "Hello, canary-ada!"}
    trace_id = answer.headers["traceresponse"].split("-")[1]
    exposed = openmetrics(started.client)
    assert "greetings_total 1.0" in exposed
    assert re.search(
        r'^http_server_request_duration_seconds_bucket{.*http_route="/hello/{name}".*} 1.0 '
        rf'# {{span_id="[0-9a-f]{{16}}",trace_id="{trace_id}"}} ',
        exposed,
        re.MULTILINE,
    ), exposed
    assert started.stop() in {0, -signal.SIGINT, 128 + signal.SIGINT, 1}
    spans = {span.name: span for span in collector.spans if span.trace_id == trace_id}
    assert spans.keys() == {"GET /hello/{name}", "choose words"}
    request, work = spans["GET /hello/{name}"], spans["choose words"]
    assert (request.kind, request.service, request.attributes["http.route"]) == ("SERVER", "greeter", "/hello/{name}")
    assert work.parent_id == request.span_id
    lines = [event for event in started.events if event.get("trace_id") == trace_id]
    assert [line["event"] for line in lines] == ["greeting.sent", "request.completed"]
    assert {(line["service"], line["span_id"]) for line in lines} == {("greeter", request.span_id)}
    assert "canary" not in str(collector.spans) + exposed + started.log.read_text()


@pytest.mark.parametrize("server", SERVERS)
def test_the_example_is_observed_under_any_server(run, collector, server):
    """Its last spans are sent when the process ends: nothing else sends them here."""
    started = run(SERVERS[server], OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, OTEL_BSP_SCHEDULE_DELAY="60000")
    assert_is_observed(started, collector)


def test_the_example_needs_no_setting(run):
    started = run(["python", "app.py"])
    answer = started.client.get("/hello/ada")
    assert answer.ok
    assert [event["event"] for event in started.events] == ["greeting.sent", "request.completed"]
    assert 'http_route="/hello/{name}"' in openmetrics(started.client)


def test_the_environments_name_is_in_spans_and_log_lines(run, collector):
    name = {"OTEL_SERVICE_NAME": "usher", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
    started = run(SERVERS["gunicorn as servicekit runs it"], **name)
    started.client.get("/hello/ada")
    eventually(lambda: len(collector.spans) == 2)
    assert {span.service for span in collector.spans} == {"usher"}
    assert {event["service"] for event in started.events} == {"usher"}


def test_what_is_wrong_with_its_settings_is_a_log_line(run):
    started = run(["python", "app.py"], OTEL_TRACES_SAMPLER="nobody")
    warning, *_ = started.events
    assert (warning["level"], warning["service"], warning["variable"]) == ("warning", "greeter", "OTEL_TRACES_SAMPLER")


def test_servicekits_worker_refuses_for_an_app_of_ones_own_and_runs_its_tasks(run_in, home):
    (home / "tasks.py").write_text(
        "from app import app, kit\nkit.every(0.01, 'watch', lambda _: kit.log.info('watch.done'))\n"
    )
    *command, _ = SERVERS["gunicorn as servicekit runs it"]
    started = run_in(home, [*command, "tasks:app"], PROGRAMS)
    eventually(lambda: "watch.done" in {event["event"] for event in started.events})
    with socket.create_connection(("127.0.0.1", int(started.client.root.rpartition(":")[2])), 10) as connection:
        connection.sendall(b"canary\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"traceresponse: 00-" in answer
    refused = [event for event in started.events if event.get("http_route") == "unmatched"]
    assert [(event["status"], event["method"]) for event in refused] == [(400, "_OTHER")]
    assert "canary" not in started.log.read_text()


def test_the_collector_leaves_alone_what_a_worker_shares_with_the_master(run_in, home):
    (home / "counted.py").write_text(
        "import gc\nfrom app import app, kit\nkit.log.info('objects.left', count=gc.get_freeze_count())\n"
    )
    *command, _ = SERVERS["gunicorn as servicekit runs it"]
    started = run_in(home, [*command, "counted:app"], PROGRAMS)
    [left] = [event for event in started.events if event["event"] == "objects.left"]
    assert left["count"] > 10_000


def test_the_readme_shows_the_example():
    assert EXAMPLE.read_text() in block("python", (KIT / "README.md").read_text())
    assert len(EXAMPLE.read_text().splitlines()) <= 30


def locked():
    """The packages of services.txt, each by its name."""
    return set(
        re.findall(
            r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==", (PROJECT / "requirements/services.txt").read_text(), re.MULTILINE
        )
    )


def listed():
    """The packages of services.in, as they are asked for."""
    lines = (PROJECT / "requirements/services.in").read_text().splitlines()
    return {line.partition("==")[0] for line in lines if not line.startswith("#")}


@pytest.fixture
def packages(tmp_path):
    """A folder with the packages of services.txt, and no other."""
    folder = tmp_path / "packages"
    for name in locked() & {one.name.lower().replace("_", "-") for one in importlib.metadata.distributions()}:
        for file in importlib.metadata.files(name):
            if ".." not in file.parts:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).symlink_to(file.locate())
    return folder


def assert_answers_later(started, collector):
    """The asynchronous view answers, and is traced."""
    answer = started.client.get("/later/ada")
    assert (answer.status_code, answer.json()) == (200, {"greeting": "Later, ada!"})
    started.stop()
    assert "GET /later/{name}" in {span.name for span in collector.spans}


def test_an_asynchronous_view_needs_no_other_package_than_those_that_are_listed(home, run_in, packages, collector):
    (home / "later.py").write_text(LATER)
    settings = {"PYTHONPATH": str(packages), "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
    started = run_in(home, ["python", "-S", "later.py"], PROGRAMS, **settings)  # -S: without the tests' own packages
    assert_answers_later(started, collector)


def test_the_readme_says_which_part_needs_which_package():
    table = re.findall(r"^\| `[a-z/.]+` \| .* \| (.*) \|$", (KIT / "README.md").read_text(), re.MULTILINE)
    named = set(re.findall(r"[a-z0-9-]+\*?(?:\[[a-z]+\])?", " ".join(table).replace(" for `kit.app`", "")))
    assert named == {re.sub(r"^opentelemetry-.*", "opentelemetry-*", name) for name in listed()} - {"waitress"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_the_readme_says_is_enough_in_an_empty_environment(tmp_path, run_in, collector):
    """Its commands, typed in an empty folder: they copy, install, and there is nothing else."""
    set_up, running = block("sh", (KIT / "README.md").read_text())
    environment = {**CLEAN, "REPOSITORY": str(PROJECT), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run(["sh", "-euc", set_up], cwd=tmp_path, env=environment, check=True)
    programs = tmp_path / ".venv/bin"
    export, *commands = running.splitlines()
    assert export.startswith("export OTEL_EXPORTER_OTLP_ENDPOINT=")
    assert len(commands) == 3
    for command in commands:
        program, *arguments = command.split()
        listen = ["--bind", "127.0.0.1:{port}"] if "gunicorn" in program and "-c" not in arguments else []
        started = run_in(
            tmp_path,
            [Path(program).name, *listen, *arguments],
            programs,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_BSP_SCHEDULE_DELAY="60000",
        )
        assert_is_observed(started, collector)
    (tmp_path / "later.py").write_text(LATER)
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
    assert_answers_later(run_in(tmp_path, ["python", "later.py"], programs, **env), collector)
    imported = subprocess.run([programs / "python", "-c", "import shop"], cwd=tmp_path, env=CLEAN, check=False)
    assert imported.returncode != 0


@pytest.mark.parametrize("path", sorted(KIT.rglob("*.py")), ids=lambda path: str(path.relative_to(KIT)))
def test_nothing_in_servicekit_knows_the_shop(path):
    source = path.read_text()
    assert not OF_THE_SHOP.findall(source)
    others = {name.partition(".")[0] for name in imported(source)} & OURS
    assert not others


def test_each_class_of_servicekit_has_a_name_of_its_own():
    classes = [
        node.name
        for path in KIT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    assert sorted(classes) == sorted(set(classes))


def imported(source):
    """What a module imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
