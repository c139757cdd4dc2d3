"""docs/test-your-tool.md says what is; tests/scenarios/test_dataset_live.py types its commands."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from scenarios import cli, describing, grading
from scenarios.dataset import command, gathering
from scenarios.dataset.recording import Lengths

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "test-your-tool.md").read_text()
PLAIN = " ".join(PAGE.split())


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", PAGE))))
def test_every_file_it_links_to_exists(link):
    assert (PROJECT / "docs" / link).exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`?make ([a-z][a-z-]*) ?[A-Z`]", PAGE))))
def test_every_make_target_it_mentions_exists(target):
    assert re.search(rf"^{target}:", (PROJECT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "option", sorted(set(re.findall(r"--(?:before|during|after|ask|with-flags|variants|json|truth)", PAGE)))
)
def test_every_option_it_mentions_is_one(option, capsys):
    said = ""
    for name in ("dataset", "grade"):
        with pytest.raises(SystemExit):
            cli.main([name, "--help"])
        said += capsys.readouterr().out
    assert option in said


def test_its_numbers_are_the_codes():
    lengths = Lengths()
    for said in (
        f"{lengths.before:.0f} seconds before the fault, {lengths.during:.0f} of it and {lengths.after:.0f} after it",
        f"at most {gathering.MOST_A_SECOND} spans and {gathering.MOST_A_SECOND} log lines",
        f"{gathering.MOST_SERIES} series of each metric",
        f"`--before` can be {command._LONGEST} seconds at most",
    ):
        assert said in PLAIN
    assert command._ANSWER_SECONDS == 120
    assert "has two minutes" in PLAIN
    assert len(describing.names()) > 30  # "more than thirty ways"


def test_its_example_of_an_answer_is_one(tmp_path):
    [example] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "answer.json").write_text(example)
    assert grading.read(tmp_path / "answer.json")["causes"][0]["service"] == "payment-service"
    jsonschema.validate(json.loads(example), json.loads(grading.SCHEMA.read_text()))
