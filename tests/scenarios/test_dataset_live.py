"""docs/test-your-tool.md, typed on a real stack: its commands record, answer and grade."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scenarios import describing, flags
from tests.fixtures.programs import find_promtool
from tests.fixtures.stack import LocalStack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("dataset")]

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "test-your-tool.md").read_text()
LIVE, RECORD, READ, GRADE, ASK = [
    [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
]
TOOL = "scenarios/dataset/slowest_span.py"


class Reader:
    """Somebody at a terminal, in a folder of their own, with the project's commands and a stack at other ports."""

    def __init__(self, folder, stack):
        self.folder = folder
        self._stack = stack
        self._environment = {**stack._environment, "PATH": f"{Path(find_promtool()).parent}:{os.environ['PATH']}"}
        for name in (
            "Makefile",
            ".venv",
            "scenarios",
            "local",
            "observability",
            "services",
            "loadtest",
            "requirements",
        ):
            (folder / name).symlink_to(PROJECT / name)

    def types(self, lines, seconds=400):
        """What the commands print. What a busy machine spoils is recorded again, as `make dataset` says then."""
        script = "\n".join(lines).replace("http://localhost:4318", f"http://localhost:{self._stack.ports['OTLP']}")
        script = script.replace(".venv/bin/python", sys.executable)
        for _ in range(2):
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=self.folder,
                env=self._environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=seconds,
            )
            if "Run it again for these" not in done.stdout:
                break
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def read(self, pattern):
        [path] = self.folder.glob(pattern)
        return path.read_text()


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    stack = LocalStack(tmp_path_factory.mktemp("dataset"), LOGIN_RATE="200r/s", CLIENT_CONNECTIONS="10000")
    yield Reader(tmp_path_factory.mktemp("reader"), stack)
    stack.down()


def came_too_late(answer):
    """Whether a busy machine kept the telemetry from it, which it says."""
    return not answer.get("causes") and bool(answer.get("not_looked_at", True))


def test_a_live_tool_names_a_fault_under_load(reader):
    reader.types(LIVE)
    answer = json.loads(reader.read("answer.json"))
    if came_too_late(answer):
        reader.types(LIVE)
        answer = json.loads(reader.read("answer.json"))
    assert (answer["causes"][0]["service"], answer["causes"][0]["operation"]) == ("payment-service", "decide charge")


@pytest.fixture(scope="module")
def recorded(reader):
    reader.types(["make up"])
    return reader.types(RECORD)


def test_a_run_is_recorded_with_its_truth(reader, recorded):
    assert "All 1 are in dataset." in recorded
    truth = json.loads(reader.read("dataset/run-*/truth.json"))
    assert truth["service"] == "payment-service"
    assert truth["effect"]["before"] < 0.4 < truth["effect"]["during"]


GIVES_AWAY = re.compile(
    "|".join(
        (
            *(
                rf"\b{re.escape(name)}\b"
                for name in {*describing.names(), *(flag.name for flag in flags.read(flags.DEFAULT))}
            ),
            r"(?<!de)fault(?!y)",  # not `default`
            "simulat|inject|chaos|sabotage|spoil|scenario",
            r"feature.?flag|(?<!trace_)(?<!/)\bflags?\b",  # /flags are Prometheus' own, of its command line
        )
    ),
    re.IGNORECASE,
)


def check_it_gives_nothing_away(folder):
    files = [path for path in folder.glob("run-*/telemetry/*") if path.is_file()]
    assert files
    for path in files:
        text = path.read_text()
        found = {text[max(0, hit.start() - 60) : hit.end() + 40] for hit in GIVES_AWAY.finditer(text)}
        assert not found, (path.name, sorted(found)[:5])


def test_what_is_recorded_does_not_say_that_the_fault_is_simulated(reader, recorded):
    check_it_gives_nothing_away(reader.folder / "dataset")


@pytest.mark.parametrize("name", ["product-errors", "label-explosion"])
def test_nor_does_a_run_of_a_fault_that_raises_errors_or_has_signals_of_its_own(reader, recorded, name):
    reader.types([f"make dataset NAME={name} TO=told-{name} ARGS='--before 10 --during 10 --after 0'"])
    check_it_gives_nothing_away(reader.folder / f"told-{name}")


def test_it_holds_each_order_that_was_asked_for(reader, recorded):
    lines = reader.read("dataset/run-*/telemetry/traces.jsonl").splitlines()
    spans = [
        span
        for line in lines
        for group in json.loads(line)["resourceSpans"]
        for scope in group["scopeSpans"]
        for span in scope["spans"]
    ]
    orders = [span for span in spans if span["name"] == "POST /orders/" and not span.get("parentSpanId")]
    assert len(orders) > 200  # eight a second, for 55 seconds
    known = {span["spanId"] for span in spans}
    assert all(span["parentSpanId"] in known for span in spans if span.get("parentSpanId"))


def test_rcaevals_loader_reads_it(reader, recorded):
    [path] = reader.folder.glob("dataset/rcaeval/payment-service_delay/payment-slow-on-1/data.csv")
    inject_time = int((path.parent / "inject_time.txt").read_text().splitlines()[0].strip())
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    normal = [row for row in rows if int(row["time"]) < inject_time]
    abnormal = [row for row in rows if int(row["time"]) >= inject_time]
    assert len(normal) >= 19
    assert len(abnormal) >= 30

    def highest(part):
        return max(float(row["payment-service_latency-90"] or 0) for row in part)

    assert highest(abnormal) > 0.5 > highest(normal)
    with (path.parent / "traces.csv").open(newline="") as file:
        spans = list(csv.DictReader(file))
    slow = [span for span in spans if span["operationName"] == "decide charge" and int(span["duration"]) > 700_000]
    assert slow
    assert all((int(span["startTime"]) + int(span["duration"])) / 1e6 > inject_time for span in slow)


def test_prometheus_and_a_receiver_of_otlp_take_the_files(reader, recorded):
    reader.types(READ)
    assert list(reader.folder.glob("blocks/*/meta.json"))


def test_the_example_of_a_tool_is_graded(reader, recorded):
    shown = reader.types(GRADE)
    [total] = [line.split() for line in shown.splitlines() if line.startswith(" all")]
    assert total[:4] == ["all", "1", "100%", "100%"], shown


def test_make_why_is_asked_and_graded_in_a_run(reader, recorded):
    shown = reader.types(ASK)
    if came_too_late(json.loads(reader.read("live/answers/*.json") or "{}")):
        shutil.rmtree(reader.folder / "live")
        shown = reader.types(ASK)
    [total] = [line.split() for line in shown.splitlines() if line.startswith(" all")]
    assert total[:4] == ["all", "1", "100%", "100%"], shown
