"""The workflows run what exists, with the least rights, from actions that cannot change under us."""

import re
import subprocess
import textwrap
from pathlib import Path

import pytest
import yaml

from tests.ci.commands import HERE, NOT_HERE

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / ".github" / "workflows"
TEXTS = {file.name: file.read_text() for file in sorted(FOLDER.glob("*.yml"))}
WORKFLOWS = {name: yaml.safe_load(text) for name, text in TEXTS.items()}
JOBS = {f"{name}: {job}": each for name, workflow in WORKFLOWS.items() for job, each in workflow["jobs"].items()}
STEPS = [(job, step) for job, each in JOBS.items() for step in each.get("steps", [])]
RUNS = [
    pytest.param(step, id=f"{job}: {command}")
    for job, step in STEPS
    if "run" in step
    for command in [step["run"].splitlines()[0]]
]


def command_of(step):
    """What a step's command is called in the tables: its targets, its program, or its name where it is a script."""
    if "name" in step:
        return step["name"]
    words = re.sub(r'"[^"]*"', "", step["run"]).split()
    if words[0] == "make":
        return " ".join(["make", *(word for word in words[1:] if re.fullmatch(r"[a-z][a-z-]*", word))])
    return " ".join(words[:2]) if words[0] in {"docker", "kind", "sudo"} else words[0]


@pytest.mark.parametrize("step", RUNS)
def test_a_command_is_good_bash_and_nothing_is_put_into_it(step):
    done = subprocess.run(["bash", "-n"], input=step["run"], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "${{" not in step["run"], "what comes from outside goes through the environment"


@pytest.mark.parametrize("step", [step for step in RUNS if step.values[0]["run"].startswith("make ")])
def test_a_target_exists_and_takes_what_it_is_given(step):
    command = step["run"].replace("make ", "make --dry-run ", 1)
    environment = {"PATH": "/usr/bin:/bin", "GITHUB_REF_NAME": "v1.2.0", "PLATFORM": "amd64", "PWD": str(PROJECT)}
    done = subprocess.run(
        ["bash", "-euc", command], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    variables = re.findall(r"\b([A-Z_]+)=", step["run"])
    makefile = (PROJECT / "Makefile").read_text()
    passed_on = {"PYTEST_ADDOPTS", "BACKEND_BINARIES"}  # to the tests, as all variables of make's command line are
    assert [name for name in variables if name not in passed_on and f"$({name})" not in makefile] == []


@pytest.mark.parametrize("step", RUNS)
def test_a_script_that_is_named_is_there(step):
    for name in re.findall(r"(?:^|\s)((?:release|local|\.ci)/\S+\.sh)", step["run"]):
        assert (PROJECT / name).stat().st_mode & 0o100, name


def test_each_command_is_run_here_or_it_is_said_why_not():
    commands = {command_of(step.values[0]) for step in RUNS}
    assert commands == HERE.keys() | NOT_HERE.keys()
    assert not HERE.keys() & NOT_HERE.keys()


def test_what_is_said_to_run_here_is_run():
    ci = (PROJECT / ".ci" / "run").read_text()
    for command, where in HERE.items():
        if where == ".ci/run":
            assert all(re.search(rf"\bmake {target}\b", ci) for target in command.split()[1:]), command
        else:
            path = where.partition(",")[0].partition(" and ")[0]
            assert (PROJECT / path).exists(), where


def test_contributing_tells_what_is_not_run_here():
    manual = (PROJECT / "CONTRIBUTING.md").read_text()
    section = manual[manual.index("## What only GitHub") :]
    assert dict(re.findall(r"^\| `([a-z -]+)` \| ([^|]+) \|$", section, re.MULTILINE)) == NOT_HERE


def test_contributing_tells_how_long_each_job_of_ci_takes():
    manual = (PROJECT / "CONTRIBUTING.md").read_text()
    told = re.findall(r"^\| `ci`: ([a-z-]+) \| `make ([a-z-]+)`", manual, re.MULTILINE)
    assert dict(told) == {job: job for job in WORKFLOWS["ci.yml"]["jobs"]}


@pytest.mark.parametrize("job", [name for name, each in JOBS.items() if "steps" in each])
def test_a_job_has_a_limit_of_time_and_the_rights_it_needs_only(job):
    each = JOBS[job]
    assert each["timeout-minutes"] <= 120
    workflow = WORKFLOWS[job.partition(":")[0]]
    assert workflow["permissions"] == {}
    assert "permissions" in each
    name = job.partition(".")[0]
    may_write = {right for right, how in each["permissions"].items() if how == "write"}
    if name in {"ci", "nightly"}:
        assert may_write == ({"issues"} if job == "nightly.yml: tell" else set())


@pytest.mark.parametrize("file", WORKFLOWS)
def test_a_workflow_does_not_run_twice_at_once(file):
    assert "group" in WORKFLOWS[file]["concurrency"]


def test_each_push_to_main_is_checked_and_of_a_pull_request_the_newest_commit():
    concurrency = WORKFLOWS["ci.yml"]["concurrency"]
    is_pull_request = "github.event_name == 'pull_request'"
    assert concurrency["cancel-in-progress"] == f"${{{{ {is_pull_request} }}}}"
    # In a group that waits, a newer run takes the place of an older one: a push must share its group with nobody.
    assert f"{is_pull_request} && github.ref || github.run_id" in concurrency["group"]


@pytest.mark.parametrize("file", WORKFLOWS)
def test_a_pipe_fails_with_any_of_its_parts(file):
    assert WORKFLOWS[file]["defaults"] == {"run": {"shell": "bash"}}  # that is -eo pipefail; no shell named is -e
    assert "shell:" not in TEXTS[file].replace("defaults: {run: {shell: bash}}", "")


def test_tests_that_need_name_spaces_of_their_own_can_make_them():
    allowed = "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"  # Ubuntu 24.04 forbids it
    seen = set()
    for job, each in JOBS.items():
        runs = [step.get("run", "") for step in each.get("steps", [])]
        tests = [number for number, run in enumerate(runs) if re.match(r"make (?:\S+ )*test(?:-slow)?(?: |$)", run)]
        if tests:
            seen.add(job)
            assert allowed in runs[: tests[0]], job
    assert seen == {"ci.yml: test", "ci.yml: test-slow", "updates.yml: lock"}


def test_images_are_pulled_before_the_tests_whose_time_is_limited():
    runs = [step.get("run", "") for step in JOBS["ci.yml: test-compose"]["steps"]]
    (pull,) = [number for number, run in enumerate(runs) if run.startswith("docker compose ")]
    assert runs[pull + 1].startswith("make test-compose ")
    assert set(re.findall(r"-f (\S+)", runs[pull])) == {"docker-compose.yml", "docker-compose.observability.yml"}


@pytest.mark.parametrize("name", ["v1.2.0", "v1.10.0", "v1.2.0-rc.1"])
def test_a_version_makes_a_release(name):
    assert any(re.fullmatch(pattern, name) for pattern in tag_patterns())


@pytest.mark.parametrize("name", ["v1.2", "v1.2.0rc1", "v1.2.0.1", "v1.2.0+build", "v1.2.0-", "x1.2.0", "nightly"])
def test_what_is_no_version_makes_no_release(name):
    """Such a name would be taken for the newest final version, or no image could have it as its tag."""
    assert not any(re.fullmatch(pattern, name) for pattern in tag_patterns())


def tag_patterns():
    """The release's patterns as regular expressions; of GitHub's own signs they use [], + and *."""
    for pattern in WORKFLOWS["release.yml"][True]["push"]["tags"]:  # YAML reads `on` as true
        assert not re.search(r"[?!\\]", pattern)
        yield pattern.replace(".", r"\.").replace("]*", "][^/]*")


@pytest.mark.parametrize("file", TEXTS)
def test_an_action_is_pinned_by_a_commit_and_the_same_everywhere(file):
    for name, pin, version in re.findall(r"uses: ([\w./-]+)@(\S+)(?: # (\S+))?", TEXTS[file]):
        assert re.fullmatch(r"[0-9a-f]{40}", pin), name
        assert re.fullmatch(r"v\d+\.\d+\.\d+", version), name
        assert {other for text in TEXTS.values() for other in re.findall(rf"uses: {re.escape(name)}@(\S+)", text)} == {
            pin
        }


@pytest.mark.parametrize("file", TEXTS)
def test_a_failure_is_a_failure(file):
    assert not re.search(r"continue-on-error|--reruns|\|\| true|--lf\b", TEXTS[file])
    assert "rerunfailures" not in (PROJECT / "requirements" / "dev.txt").read_text()


def test_checkout_leaves_no_token_behind():
    checkouts = [step for _, step in STEPS if step.get("uses", "").startswith("actions/checkout@")]
    assert len(checkouts) > 10
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_a_release_takes_nothing_from_a_cache():
    assert not re.search(r"cache: pip|type=gha|actions/cache", TEXTS["release.yml"])


def test_an_artefact_is_replaced_when_its_job_is_run_again_and_not_kept_for_ever():
    uploads = [
        (job, step["with"]) for job, step in STEPS if step.get("uses", "").startswith("actions/upload-artifact@")
    ]
    assert len(uploads) > 10
    for job, settings in uploads:
        assert settings["overwrite"] is True, job  # else a second attempt fails: the name is taken
        assert settings["retention-days"] <= 90, job


def test_artefacts_of_a_run_have_different_names():
    """A release runs ci.yml too. The names of ci.yml and nightly.yml are their jobs'."""
    for file in ("release.yml", "updates.yml"):
        names = [
            step["with"]["name"]
            for job, step in STEPS
            if job.startswith(file) and step.get("uses", "").startswith("actions/upload-artifact@")
        ]
        assert len(names) == len(set(names))
        assert not any(name in WORKFLOWS["ci.yml"]["jobs"] for name in names)


def test_all_that_ci_runs_here_too_is_run_without_a_condition():
    """A line that looks first whether it can is one that may be left out in silence."""
    ci = (PROJECT / ".ci" / "run").read_text()
    ci = re.sub(r"^\((\n(?: .*\n)+)\)", lambda aside: textwrap.dedent(aside[1]), ci, flags=re.MULTILINE)
    assert set(re.findall(r"^step \d+ make ([a-z-]+)", ci, re.MULTILINE)) == {*WORKFLOWS["ci.yml"]["jobs"], "images"}


def test_an_update_waits_as_long_for_each_kind_of_dependency():
    (lock,) = [step for step in JOBS["updates.yml: lock"]["steps"] if step.get("run") == "make lock"]
    updates = yaml.safe_load((PROJECT / ".github" / "dependabot.yml").read_text())["updates"]
    days = {each["cooldown"]["default-days"] for each in updates}
    assert lock["env"]["UV_EXCLUDE_NEWER"] == f"{days.pop()} days"
    assert not days


def test_no_update_takes_a_database_that_cannot_read_the_data_there():
    updates = yaml.safe_load((PROJECT / ".github" / "dependabot.yml").read_text())["updates"]
    (compose,) = [each for each in updates if each["package-ecosystem"] == "docker-compose"]
    ignored = {each["dependency-name"]: each["update-types"] for each in compose["ignore"]}
    assert ignored == {"postgres": ["version-update:semver-major"]}
    assert "image: postgres:" in (PROJECT / "docker-compose.yml").read_text()


def test_a_job_that_may_write_starts_no_builder_unless_it_builds():
    """The builder is an image of somebody else's, by a tag, and it runs with all rights on the machine."""
    assert [job for job, step in STEPS if "setup-buildx-action" in step.get("uses", "")] == ["release.yml: build"]


def test_on_github_the_workflows_are_checked_or_lint_fails(tmp_path):
    makefile = (PROJECT / "Makefile").read_text()
    (recipe,) = re.findall(r"^\t@(if command -v go .*?fi)$", makefile, re.MULTILINE | re.DOTALL)
    for platform, status in ({}, 0), ({"GITHUB_ACTIONS": "true"}, 1):
        done = subprocess.run(
            ["/bin/sh", "-ec", recipe.replace("$$", "$")],
            env={"PATH": str(tmp_path), **platform},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (status, "actionlint was left out: there is no go here\n")


def test_a_tests_report_is_kept_whatever_became_of_it():
    for job in ("test", "test-slow", "test-compose", "test-kubernetes"):
        steps = JOBS[f"ci.yml: {job}"]["steps"]
        assert f"--junit-xml=.run/reports/{job}.xml" in "".join(step.get("run", "") for step in steps)
        assert steps[-1]["uses"].startswith("actions/upload-artifact@")
        assert steps[-1]["if"] == "${{ !cancelled() }}"


LONG = [
    *(f"ci.yml: {name}" for name in WORKFLOWS["ci.yml"]["jobs"] if name != "lint"),
    *(f"nightly.yml: {name}" for name in ("scenarios", "kills", "fuzz")),
]


@pytest.mark.parametrize("job", LONG)
def test_what_hangs_leaves_the_time_to_keep_its_logs(job):
    """A job whose time is over is cancelled, and its report with it; a step is not."""
    target = job.partition(": ")[2]
    (limit,) = [step["timeout-minutes"] for step in JOBS[job]["steps"] if f"make {target} " in step.get("run", "")]
    assert limit <= JOBS[job]["timeout-minutes"] - 5


def test_tests_look_for_the_backends_where_they_are_put():
    """Where there is no Loki or Jaeger, a recording is taken instead, and nothing is skipped."""
    (folder,) = re.findall(r"^\t@sh local/backends\.sh (\S+)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    for job in ("test", "test-slow"):
        runs = [step.get("run", "") for step in JOBS[f"ci.yml: {job}"]["steps"]]
        assert any(f'BACKEND_BINARIES="$PWD/{folder}"' in run for run in runs[runs.index("make backends") + 1 :])
