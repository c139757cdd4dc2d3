"""`make fault`: what it writes, and what it says."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from local import rundir
from scenarios import acting, cli, finding, flags, undo
from scenarios.describing import Fault
from scenarios.errors import ScenarioError
from scenarios.place import Place

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The flags of a shop of which nothing else is there."""
    path = tmp_path / "flags" / "flags.json"
    rundir.switch_faults_off(path)
    somewhere = Place(path, "", "", "", "", None)
    monkeypatch.setattr("scenarios.cli.finding.find", lambda: somewhere)
    return path


def state(file, name):
    return next(flag.state for flag in flags.read(file) if flag.name == name)


def test_on_off_and_a_variant(file):
    for wanted, is_now in (("on", "on"), ("strong", "strong"), ("on", "on"), ("off", "off")):
        assert cli.main(["fault", f"payment-slow={wanted}"]) == 0
        assert state(file, "payment-slow") == is_now
    assert file.read_text() == flags.DEFAULT.read_text()  # off again, it is as it was


def test_in_compose_where_the_default_itself_is_switched_off_is_off(file, monkeypatch):
    before = file.read_text()
    monkeypatch.setattr(flags, "DEFAULT", file)
    for wanted in ("strong", "on", "off"):
        assert cli.main(["fault", f"payment-slow={wanted}"]) == 0
        assert state(file, "payment-slow") == wanted
    assert file.read_text() == before


def test_to_list_them_changes_nothing(file):
    file.write_text(file.read_text() + "\n\n")
    before = file.stat()
    assert cli.main(["fault"]) == 0
    assert cli.main(["fault", "--json"]) == 0
    assert (file.stat().st_ino, file.stat().st_size) == (before.st_ino, before.st_size)


def test_on_is_the_first_variant():
    for entry in json.loads(flags.DEFAULT.read_text())["flags"].values():
        assert entry["defaultVariant"] == next(variant for variant in entry["variants"] if variant != "off")
        assert entry["state"] == "DISABLED"


def test_the_default_is_written_as_it_would_be_written():
    text = flags.DEFAULT.read_text()
    assert rundir.rendered(json.loads(text)) == text


def test_several_at_once_and_all_off(file, capsys):
    assert cli.main(["fault", "payment-slow=on", "cpu-burn=strong"]) == 0
    assert "payment-slow (on), cpu-burn (strong)" in capsys.readouterr().out
    assert cli.main(["fault", "all=off"]) == 0
    assert "On: nothing" in capsys.readouterr().out
    assert file.read_text() == flags.DEFAULT.read_text()


@pytest.mark.parametrize(
    ("switch", "says"),
    [
        ("paymnt-slow=on", "did you mean payment-slow"),
        ("payment-slow=stron", "did you mean strong"),
        ("payment-slow=", "it can be off, on, weak, strong"),
        ("payment-slow", "Say what payment-slow is to be: `make fault payment-slow=on`."),
        ("NAME=payment-slow", "`make fault payment-slow=on`"),
        ("paymnt-slow", "There is no fault paymnt-slow (did you mean payment-slow"),
        ("PAYMENT-SLOW=on", "did you mean payment-slow"),
        ("payment_slow=on", "did you mean payment-slow"),
        ("nobodys=on", "There is no fault nobodys. `make fault` lists them."),
        ("cpu-burn=off", "cpu-burn cannot be on and off at once"),
        ("all=off", "cpu-burn cannot be on and off at once"),
        ("on", "`make fault payment-slow=on`"),
        ("all", "make fault all=off"),
        ("all=on", "all=off"),
    ],
)
def test_what_cannot_be_is_said_and_changes_nothing(file, capsys, switch, says):
    assert cli.main(["fault", "cpu-burn=on", switch]) == 1
    assert says in capsys.readouterr().err
    assert file.read_text() == flags.DEFAULT.read_text()


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["payment-slow", "on"], "`make fault payment-slow=on`"),
        (["off", "payment-slow"], "`make fault payment-slow=off`"),
        (["payment-slow", "payment-down"], "`make fault payment-slow=on payment-down=on`"),
        (["NAME=payment-slow", "payment-down=on"], "`make fault payment-slow=on`"),
    ],
)
def test_who_types_it_otherwise_is_told_what_to_type(file, capsys, typed, says):
    assert cli.main(["fault", *typed]) == 1
    assert says in capsys.readouterr().err
    assert file.read_text() == flags.DEFAULT.read_text()


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("fault payment-slow", "`make fault payment-slow=on`"),
        ("fault payment-slow payment-down", "`make fault payment-slow=on payment-down=on`"),
        ("fault payment-slow=on payment-down", "`make fault payment-down=on`"),
        ("fault NAME=paymnt-slow", "did you mean payment-slow"),
        ("scenario payment-slow", "make scenario NAME=payment-slow"),
    ],
)
def test_make_hands_on_what_it_takes_for_a_target(compose, typed, says):
    done = compose("make", *typed.split())
    assert done.returncode == 2
    assert says in done.stdout + done.stderr
    assert "No rule to make target" not in done.stderr


@pytest.fixture
def compose(peer, tmp_path):
    """Run a command beside a shop in Docker Compose, of which only the gateway's health check is there."""
    shop = peer()
    shop.expect_request("/healthz").respond_with_data("ok")
    rundir.prepare(tmp_path / "none")
    rundir.switch_faults_off(tmp_path / "faults" / "flags.json")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))},
        "RUN_DIR": str(tmp_path / "none"),
        "GATEWAY_PORT": shop.root.rpartition(":")[2],
        "FLAGS_DIR": str(tmp_path / "faults"),
    }

    def run(*command):
        return subprocess.run(
            command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    return run


def test_in_compose_what_needs_the_local_stack_is_skipped_and_that_is_no_failure(compose, tmp_path):
    done = compose(sys.executable, "-m", "scenarios", "run", "database-frozen", "--json", str(tmp_path / "found.json"))
    assert done.returncode == 0, done.stderr
    assert f"skipped, because it {acting.NEEDS_STACK}" in done.stdout
    assert json.loads((tmp_path / "found.json").read_text())[0]["skipped"] == acting.NEEDS_STACK


def test_what_compose_reads_from_its_file_is_read_and_the_shell_counts_for_more(peer, tmp_path, monkeypatch):
    shop = peer()
    shop.expect_request("/healthz").respond_with_data("ok")
    port = shop.root.rpartition(":")[2]
    rundir.switch_faults_off(tmp_path / "faults" / "flags.json")
    (tmp_path / ".env").write_text(
        f"# the shop\nBASE={tmp_path}\nexport GATEWAY_PORT='127.0.0.1:{port}'\n"
        'FLAGS_DIR="${BASE}/faults"\nJAEGER_PORT=7\nLOKI_PORT=\nEMPTY\n'
    )
    monkeypatch.setattr(finding, "PROJECT", tmp_path)
    found = finding.find({"RUN_DIR": str(tmp_path / "none"), "JAEGER_PORT": "8"})
    assert found == Place(
        tmp_path / "faults" / "flags.json",
        *(f"http://127.0.0.1:{number}" for number in (port, 8, 3100, 9090)),
        None,
    )
    (tmp_path / ".env").write_text(f"GATEWAY_PORT={port}\nFLAGS_DIR=./faults\n")  # from the project's folder
    assert finding.find({"RUN_DIR": str(tmp_path / "none")}).flags == tmp_path / "faults" / "flags.json"


def test_a_scenario_does_not_begin_while_a_fault_is_on(file, capsys, monkeypatch):
    monkeypatch.setattr(cli, "in_turn", lambda *_: pytest.fail("it began"))
    flags.change(file, {"cpu-burn": "strong", "payment-down": "on"})
    assert cli.main(["run", "payment-slow"]) == 1
    said = capsys.readouterr().err
    assert "payment-down (on), cpu-burn (strong)" in said
    assert "`make fault payment-down=off cpu-burn=off`" in said
    assert (state(file, "payment-down"), state(file, "cpu-burn")) == ("on", "strong")


def test_what_make_hands_on_is_understood(file):
    assert cli.main(["fault", "NAME=payment-slow=on", "PYTHON=python3.12"]) == 0
    assert state(file, "payment-slow") == "on"


def test_it_lists_all_with_their_state_and_for_programs(file, capsys):
    cli.main(["fault", "payment-slow=strong"])
    capsys.readouterr()
    assert cli.main(["fault"]) == 0
    text = capsys.readouterr().out
    assert all(flag.name in text for flag in flags.read(file))
    amounts = json.loads(file.read_text())["flags"]["payment-slow"]["variants"]
    assert re.search(rf"payment-slow +strong +on \({amounts['on']}\), weak", text)  # how much "so many" is
    assert cli.main(["fault", "--json"]) == 0
    listed = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert (listed["payment-slow"]["state"], listed["payment-down"]["state"]) == ("strong", "off")
    assert all(each["kind"] and each["description"] for each in listed.values())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"flags": []}', '{"flags": {"a": {}}}'])
def test_a_file_that_will_not_do_is_told(file, capsys, text):
    file.write_text(text)
    assert cli.main(["fault", "payment-slow=on"]) == 1
    assert "copy " in capsys.readouterr().err
    assert file.read_text() == text


def test_people_who_switch_at_once_lose_nothing(file):
    names = [flag.name for flag in flags.read(file)][:10]
    threads = [threading.Thread(target=flags.switch, args=(file, name, "on")) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {flag.name for flag in flags.read(file) if flag.state != "off"} == set(names)


def test_nothing_is_left_in_the_folder_that_somebody_else_could_not_replace(file):
    flags.switch(file, "payment-slow", "on")
    assert [path.name for path in file.parent.iterdir()] == ["flags.json"]


@pytest.mark.parametrize("command", [[], ["fault"], ["list"], ["run"]], ids=" ".join)
def test_help_says_what_it_takes(capsys, command):
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    assert ended.value.code == 0
    assert "usage: python -m scenarios" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run"], "Which one?"),
        (["run", "paymentslow"], "Did you mean payment-slow"),
        (["run", "payment-slow", "nobodys"], "python -m scenarios list"),
        (["run", "../flags"], "There is no scenario"),
        (["run", "payment-slow", "--json", "/nowhere/a.json"], "/nowhere/a.json"),
        (["run", "payment-slow", "--markdown", "/nowhere/a.md"], "/nowhere/a.md"),
    ],
)
def test_what_cannot_be_run_is_said_at_once(file, capsys, monkeypatch, arguments, says):
    monkeypatch.setattr(cli, "in_turn", lambda *_: pytest.fail("it began"))
    assert cli.main(arguments) == 1
    assert says in capsys.readouterr().err


def test_ctrl_c_says_that_the_fault_is_off_and_keeps_what_was_done(file, capsys, monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(cli, "in_turn", interrupted)
    assert cli.main(["run", "payment-slow", "--json", str(tmp_path / "a.json")]) == 130
    assert "the fault is off" in capsys.readouterr().err
    assert json.loads((tmp_path / "a.json").read_text()) == []


ENDLESS = """
import contextlib, sys, time
from scenarios import acting, cli, finding
from scenarios.describing import Fault
from scenarios.place import Place
from pathlib import Path

somewhere = Place(Path(sys.argv[1]), "", "", "", "", None)

def in_turn(*_):
    with acting.on(Fault(fault="payment-slow"), somewhere):
        print("on", flush=True)
        for _ in range(600):
            time.sleep(0.1)  # one of 60 s would go on if the signal came just before it
    yield

cli.finding.find, cli.in_turn = lambda: somewhere, in_turn
sys.exit(cli.main(["run", "payment-slow"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whatever_ends_a_run_switches_the_fault_off(file, number):
    command = [sys.executable, "-c", ENDLESS, str(file)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "on\n"
        assert state(file, "payment-slow") == "on"
        process.send_signal(number)
        assert process.wait(20) == 128 + number
    assert state(file, "payment-slow") == "off"


SOMEWHERE = ("", "", "", "", None)


def test_what_a_killed_run_left_on_is_switched_off_by_the_next_command_and_not_while_it_runs(file):
    somewhere = Place(file, *SOMEWHERE)
    command = [sys.executable, "-c", ENDLESS, str(file)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "on\n"
        does = {"make scenario payment-slow", "payment-slow=on"}
        assert {record.what for record in undo.alive(somewhere)} == does
        assert (undo.replay(somewhere), state(file, "payment-slow")) == ([], "on")
        process.kill()
        process.wait(20)
    assert state(file, "payment-slow") == "on"
    assert undo.replay(somewhere) == ["payment-slow=on"]
    assert state(file, "payment-slow") == "off"
    assert (undo.replay(somewhere), [path.name for path in file.parent.iterdir()]) == ([], ["flags.json"])


def test_while_a_run_has_not_yet_switched_anything_on_another_is_refused_and_nothing_is_left_to_undo(file, monkeypatch):
    somewhere = Place(file, *SOMEWHERE)
    monkeypatch.setattr(finding, "find", lambda: somewhere)
    code = ENDLESS.replace('acting.on(Fault(fault="payment-slow"), somewhere)', "contextlib.nullcontext()")
    command = [sys.executable, "-c", code, str(file)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "on\n"
        for other in ("make accuracy", "make dataset"):
            with (
                pytest.raises(ScenarioError, match=rf"make scenario payment-slow \(process {process.pid}\)"),
                finding.alone(other),
            ):
                pass
        process.kill()
        process.wait(20)
    assert undo.replay(somewhere) == []
    with finding.alone("make accuracy") as found:
        assert found is somewhere


def test_what_is_to_be_undone_is_written_down_before_it_is_done(file, monkeypatch):
    somewhere = Place(file, *SOMEWHERE)
    written = []
    monkeypatch.setattr(flags, "switch", lambda *_: written.append(len(undo.alive(somewhere))))
    with acting.on(Fault(fault="payment-slow"), somewhere):
        pass
    assert written[0] == 1


def test_a_record_that_was_not_written_to_its_end_means_that_nothing_was_done(file):
    (file.parent / ".undo-a").write_text('{"what": "pay')
    found = undo.replay(Place(file, *SOMEWHERE))
    assert (found, [path.name for path in file.parent.iterdir()]) == ([], ["flags.json"])


def test_what_cannot_be_undone_is_said_and_tried_again(file):
    record = undo.Record(what="order-db frozen", pid=1, steps=[undo.Resume(resume="order-db")])
    (file.parent / ".undo-a").write_text(record.model_dump_json())
    for _ in range(2):
        with pytest.raises(ScenarioError, match="left order-db frozen, which could not be undone"):
            undo.replay(Place(file, *SOMEWHERE))


def test_where_one_step_cannot_be_taken_the_others_are(file):
    flags.switch(file, "payment-slow", "on")
    steps = [undo.Resume(resume="order-db"), undo.SwitchOff(switch_off="payment-slow")]
    (file.parent / ".undo-a").write_text(undo.Record(what="much", pid=1, steps=steps).model_dump_json())
    with pytest.raises(ScenarioError, match="left much"):
        undo.replay(Place(file, *SOMEWHERE))
    assert state(file, "payment-slow") == "off"


def test_a_stack_that_starts_has_nothing_left_to_be_undone(file):
    (file.parent / ".undo-a").write_text("")
    rundir.switch_faults_off(file)
    assert [path.name for path in file.parent.iterdir()] == ["flags.json"]


def test_each_can_read_it(file):
    flags.switch(file, "payment-slow", "on")
    assert file.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("arguments", [["fault", "payment-slow=on"], ["fault"], ["run", "payment-slow"]], ids=" ".join)
def test_without_a_shop_it_says_so(tmp_path, arguments):
    environment = {**os.environ, "RUN_DIR": str(tmp_path / "none"), "GATEWAY_PORT": "9"}
    done = subprocess.run(
        [sys.executable, "-m", "scenarios", *arguments],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "No shop runs here" in done.stderr
