"""docs/tour.md, typed in a terminal at a shop on other ports: each command shows what the page says."""

import os
import re
import subprocess
import time

import pytest

from tests.dashboards.reading import load, of_panels
from tests.fixtures.ports import is_free
from tests.fixtures.services import eventually
from tests.fixtures.stack import PROJECT, LocalStack

PAGE = (PROJECT / "docs" / "tour.md").read_text()
STEPS = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PORTS = {"8080": "GATEWAY", "9090": "PROMETHEUS", "3000": "CONSOLE"}
READING_SECONDS = 15
"""For which a reader looks around at least, before breaking something: `make why` looks back to shortly before that."""
QUESTION = "/api/v1/query"
"""In a command that asks Prometheus, which knows after some seconds."""


def commands(step):
    """A step's commands, each with the lines that the page shows below it."""
    found = []
    for line in step.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        else:
            found[-1][1].append(line)
    return found


def shown(line):
    """An expression for what the page shows: as it stands, but for numbers, ids, bars and spaces; `...` is anything."""
    parts = {
        r"[0-9a-f]{16,32}": "[0-9a-f]+",
        r"\d+(?:\.\d+)?(?:e-?\d+)?": r"[\d.e-]+",
        r"━+": "━+",
        r"\.\.\.": ".*",
        r"\s+": r"\s+",
    }
    known, instead = re.compile("|".join(f"({one})" for one in parts)), list(parts.values())
    pieces, end = [], 0
    for match in known.finditer(line):
        pieces += [re.escape(line[end : match.start()]), instead[match.lastindex - 1]]
        end = match.end()
    return "".join([*pieces, re.escape(line[end:])])


@pytest.mark.parametrize(
    ("line", "output", "fits"),
    [
        ("    100 201", "  99 201", True),
        ("201", "500", True),  # numbers differ from run to run; what they must be is checked below
        ("On: nothing. It counts", "On: payment-slow (on). It counts", False),
        ("1.4   29.0    ━━━━    └─ order-service", "0.9  31.25   ━━━   └─ order-service", True),
        ("status  PAID", "status  PENDING", False),
        ('"status":"PAID",...', '"status":"PAID","product":{}', True),
        ('"status":"PAID",...', '"status":"PENDING","product":{}', False),
    ],
)
def test_what_is_shown_fits_but_for_numbers_and_spaces(line, output, fits):
    assert bool(re.search(shown(line), output)) == fits


def test_every_step_has_a_command_and_says_what_it_shows():
    assert len(STEPS) >= 10
    assert all(step.startswith("$ ") for step in STEPS)
    silent = [command for step in STEPS for command, lines in commands(step) if not lines]
    assert [command.partition("=")[0] for command in silent] == ["TOKEN", "make down"]


def test_its_panel_asks_what_the_page_asks():
    [panel] = [query for query in of_panels(load()) if query.place.startswith("order-path: Charges by outcome")]
    assert panel.expr in PAGE


class Terminal:
    """A shell in which the page is typed, line by line."""

    def __init__(self, shop):
        self._ports = shop.ports
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        self._environment = environment | {
            "RUN_DIR": str(shop.run_dir),
            "COLUMNS": "200",
            **{f"{name}_PORT": str(port) for name, port in shop.ports.items()},
        }

    def _here(self, text, host):
        for port, name in PORTS.items():
            text = text.replace(f"localhost:{port}", f"{host}:{self._ports[name]}")
        return text

    def types(self, command):
        script = self._here(command, "127.0.0.1") + '\necho "TOKEN=$TOKEN"'
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=PROJECT,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        output, _, token = done.stdout.rpartition("TOKEN=")
        self._environment["TOKEN"] = token.strip()
        return output

    def sees(self, command, lines):
        output = self.types(command)
        return all(re.search(shown(self._here(line, "localhost")), output) for line in lines) and output


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_each_command_shows_what_the_page_says(tmp_path):
    shop = LocalStack(tmp_path / "stack")
    terminal, outputs = Terminal(shop), []
    typed = [typed for step in STEPS for typed in commands(step)]
    assert (typed[0][0], typed[-1][0]) == ("make up", "make down")
    try:
        for command, lines in typed:
            if "-slow=on" in command:
                time.sleep(READING_SECONDS)
            if QUESTION in command:
                outputs.append(eventually(lambda: terminal.sees(command, lines), 60, pause=1))  # noqa: B023
                continue
            outputs.append(terminal.types(command))
            for line in lines:
                expected = shown(terminal._here(line, "localhost"))
                assert re.search(expected, outputs[-1]), f"{line}\nis not in the output of {command}:\n{outputs[-1]}"
    finally:
        shop.down()
    assert is_free(shop.ports["GATEWAY"])
    answers = [output.split() for (command, _), output in zip(typed, outputs, strict=True) if "%{http_code}" in command]
    assert answers == [["100", "201"], [answers[1][0], "201"], ["201"]]
