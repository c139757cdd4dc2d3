"""docs/load.md says what is."""

import re

import pytest

from loadtest.settings import LoadSettings
from loadtest.shapes import Limits, named
from tests.fixtures.stack import PROJECT

PAGE = (PROJECT / "docs" / "load.md").read_text()
COMPOSE = (PROJECT / "docker-compose.observability.yml").read_text()


def rows(heading):
    """The cells of the table's rows under a heading, by the first cell."""
    table = PAGE[PAGE.index(f"## {heading}\n") :].partition("\n\n")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[0] == "|"]
    return {name.strip("`"): rest for name, *rest in lines[2:]}


@pytest.mark.parametrize(
    "flag", sorted(set(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]+)", PAGE)) - {"help", "build", "scale"})
)
def test_every_flag_it_names_exists(flag):
    assert flag.removeprefix("no-").replace("-", "_") in LoadSettings.model_fields


@pytest.mark.parametrize("variable", sorted(set(re.findall(r"\bLOAD_(\w+)", PAGE))))
def test_every_variable_it_names_exists_and_those_for_compose_reach_the_container(variable):
    assert variable.lower() in LoadSettings.model_fields
    if f"`LOAD_{variable}`" in PAGE[PAGE.index("## In Docker Compose") :]:
        assert re.search(rf"^      LOAD_{variable}:", COMPOSE, re.MULTILINE)


def test_the_weights_are_those_of_the_default_mix():
    assert {name: int(weight) for name, (weight, *_) in rows("What the users do").items()} == LoadSettings().weights()


@pytest.mark.parametrize("name", rows("Shapes"))
def test_the_shapes_are_the_codes(name):
    shape = named(name)
    _, users, takes, thinks, limits = rows("Shapes")[name]
    stages = dict.fromkeys(str(stage.users) for stage in shape.stages)
    assert re.findall(r"\d+", users)[0] == next(iter(stages))
    assert str(shape.users) in re.findall(r"\d+", users)
    seconds = [float(number) for number in re.findall(r"\d+", takes)]
    assert sum(seconds) * (60 if "min" in takes else 1) == shape.seconds
    assert (0 if thinks == "not" else float(thinks.removesuffix(" s"))) == shape.think_seconds
    assert (
        Limits(
            max_failed=0.0 if "nothing fails" in limits else float(re.search(r"([\d.]+) % fails", limits)[1]) / 100,
            p95_ms=float(found[1]) * 1000 if (found := re.search(r"p95 (\d+) s", limits)) else None,
            p99_ms=float(found[1]) * 1000 if (found := re.search(r"p99 (\d+) s", limits)) else None,
        )
        == shape.limits
    )
