import contextlib
import os
import pty
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys

import psutil
import pytest

from local.processes import child
from local.settings import PROJECT
from local.supervision import Supervisor
from tests.fixtures.ports import is_free
from tests.fixtures.programs import IN_BACKGROUND
from tests.local.conftest import FAKE_STACK, PORTS, eventually

STARTS = [pytest.param((), id="by hand"), pytest.param(IN_BACKGROUND, id="in the background")]


def test_up_starts_each_part_after_what_it_needs_and_down_stops_it_before(stack):
    said = stack.run("up")
    assert "Welcome." in said
    for part in ("base", "one", "two", "front"):
        assert re.search(rf"^  {part} +ready on port {stack.ports[part]} +\d+\.\d s$", said, re.MULTILINE)
    order = stack.order()
    assert order.index("start base") < order.index("task") < order.index("start one")
    assert order[-1] == "start front"

    assert "Everything is stopped" in stack.run("down")
    stops = [line for line in stack.order() if line.startswith("stop")]
    assert stops[0] == "stop front"
    assert stops.index("stop one") < stops.index("stop base")


def test_down_with_nothing_running_is_no_error(stack):
    assert "Nothing is running" in stack.run("down")


@pytest.mark.parametrize(
    "folder_name",
    ['with spaces; "quotes" 100% and Ünicode', "/".join(["long" * 20] * 3)],
    ids=["odd characters", "longer than the path of a socket may be"],
    indirect=True,
)
def test_any_folder_will_do(stack):
    stack.run("up")
    assert "ready" in stack.run("status")
    assert """GREETING=it's 100% "fine"; isn't it""" in stack.run("logs", "one", "--no-follow")


def test_the_folder_is_for_its_owner_only(running):
    assert stat.S_IMODE(running.run_dir.stat().st_mode) == 0o700


def test_second_up_says_it_is_up_and_starts_nothing(running):
    before = running.order()
    assert "already up" in running.run("up")
    assert running.order() == before


def test_second_up_tells_who_is_not_well(running):
    running.make("one.slow")
    said = running.run("up", status=1)
    running.unmake("one.slow")
    assert re.search(r"^one .* (starting|running), answers 503$", said, re.MULTILINE)


def test_second_up_with_another_port_says_that_the_stack_has_to_go_down_first(running):
    said = running.run("up", status=1, GATEWAY_PORT="9")
    assert f"GATEWAY_PORT={running.ports['front']}: run `make down`" in said


def test_later_commands_find_the_stack_without_its_settings(running):
    without = dict.fromkeys(PORTS.values(), "")
    assert str(running.ports["one"]) in running.run("status", **without)
    assert "already up" in running.run("up", **without)


def test_status_tells_pid_port_and_memory_of_each_part(running):
    said = running.run("status")
    for part in ("base", "one", "two", "front"):
        row = re.search(rf"^{part} +(\d+) +{running.ports[part]} +\d+ MB +0m\d\ds +\d  ready$", said, re.MULTILINE)
        assert row, said
        assert psutil.pid_exists(int(row[1]))
    assert re.search(r"with supervisor +\d+ MB", said)


def test_status_has_an_exit_status_for_nothing_running(stack):
    stack.run("status", status=3)


def test_status_has_an_exit_status_for_a_part_that_is_not_ready(running):
    running.make("two.slow")
    said = running.run("status", status=1)
    running.unmake("two.slow")
    assert re.search(r"^two .* (starting|running), answers 503$", said, re.MULTILINE)


def test_after_a_change_of_the_code_status_and_up_say_so_and_down_works(stack):
    stack.run("up")
    settings = stack.run_dir / "conf" / "settings.json"
    settings.write_text(settings.read_text().replace('"user_port"', '"gone_port": 1, "user_port"'))
    said = stack.run("status", status=1, NEWER="yes")
    assert re.search(r"^one .* ready$", said, re.MULTILINE)
    assert re.search(r"^newer .* new, `make down up` starts it$", said, re.MULTILINE)
    assert "`make down up`" in stack.run("up", status=1, NEWER="yes", PAYMENT_PORT="")
    settings.write_text("no settings of any time")
    assert "Everything is stopped" in stack.run("down", NEWER="yes")


def test_a_killed_part_is_started_again_and_counted(running):
    killed = running.pid("one")
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: running.pid("one") not in (None, killed))
    eventually(lambda: re.search(r"^one .* 1  ready$", running.status(), re.MULTILINE))
    assert "exited: one (terminated by SIGKILL; not expected)" in running.run("logs", "supervisor", "--no-follow")


def test_who_asks_the_supervisor_leaves_other_sockets_of_the_process_as_they_are(running):
    before = socket.getdefaulttimeout()
    assert Supervisor.find(running.run_dir).states()
    assert socket.getdefaulttimeout() == before


def test_a_restarted_part_runs_by_its_script_as_that_is_now(running):
    before, script = running.pid("one"), running.run_dir / "conf" / "one.sh"
    script.write_text(script.read_text().replace("\nexec ", "\nexport MARK=changed\nexec ", 1))
    Supervisor.find(running.run_dir).restart("one")
    eventually(lambda: re.search(r"^one .*  ready$", running.status(), re.MULTILINE))
    assert running.pid("one") != before
    assert psutil.Process(running.pid("one")).environ()["MARK"] == "changed"


def test_a_part_that_cannot_start_can_be_restarted(running):
    running.make("two.broken")
    supervisor = Supervisor.find(running.run_dir)
    supervisor.restart("two")
    eventually(lambda: supervisor.states()["two"]["statename"] == "BACKOFF")
    running.unmake("two.broken")
    supervisor.restart("two")
    eventually(lambda: re.search(r"^two .*  ready$", running.status(), re.MULTILINE))


def test_what_a_killed_part_leaves_on_its_port_goes_with_it(stack):
    stack.make("one.child")
    stack.run("up")
    killed = stack.pid("one")
    (child,) = psutil.Process(killed).children()
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    eventually(lambda: re.search(r"^one .*  ready$", stack.status(), re.MULTILINE))


def test_a_part_that_cannot_start_is_tried_again_with_growing_waits_until_it_can(running):
    running.make("two.broken")
    os.kill(running.pid("two"), signal.SIGKILL)
    log = running.run_dir / "logs" / "supervisor.log"
    eventually(lambda: "two ended right after its start: next attempt in 2 s" in log.read_text())
    assert "two ended right after its start: next attempt in 1 s" in log.read_text()
    assert re.search(r"^two .* (backoff|starting), does not listen$", running.run("status", status=1), re.MULTILINE)
    running.unmake("two.broken")
    eventually(lambda: re.search(r"^two .*  ready$", running.status(), re.MULTILINE))


def test_a_full_disk_costs_log_lines_which_are_counted_and_no_part(stack):
    stack.run("up")
    log = stack.run_dir / "logs" / "one.log"
    supervisor = stack.supervisor()
    size = eventually(lambda: "hello" in log.read_text() and log.stat().st_size)
    _, hard = supervisor.rlimit(psutil.RLIMIT_FSIZE)
    # Who has no room left gets the same kind of error as who may not write beyond this size.
    supervisor.rlimit(psutil.RLIMIT_FSIZE, (size, hard))
    before = {part: stack.pid(part) for part in ("base", "one", "two", "front")}
    said = eventually(lambda: re.search(r"Log lines that could not be written: (\d+)", stack.run("status")))
    assert int((stack.run_dir / "log-lines-lost").read_text()) >= int(said[1]) > 0
    assert log.stat().st_size == size
    assert "one says hello" in stack.run("logs", "one", "--no-follow")
    supervisor.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, hard))
    assert stack.run("status")
    eventually(lambda: "Here log lines are missing: they could not be written.\none answered\n" in log.read_text())
    assert {part: stack.pid(part) for part in before} == before


def test_a_log_folder_that_is_deleted_is_made_again(stack):
    stack.run("up")
    shutil.rmtree(stack.run_dir / "logs")
    os.kill(stack.pid("one"), signal.SIGKILL)
    log = stack.run_dir / "logs" / "one.log"
    eventually(lambda: log.exists() and "one says hello" in log.read_text())
    eventually(lambda: "spawned: 'one'" in (stack.run_dir / "logs" / "supervisor.log").read_text())
    eventually(lambda: re.search(r"^one .*  ready$", stack.status(), re.MULTILINE))


def test_a_failed_up_shows_the_log_and_leaves_nothing_behind(stack):
    stack.make("one.broken")
    said = stack.run("up", status=1)
    assert "one: it is broken, and this is why" in said
    assert str(stack.run_dir / "logs" / "one.log") in said
    assert "one ended 3 times before it was ready" in said
    assert stack.processes() == []
    assert stack.free()


def test_a_failed_up_shows_nothing_of_earlier_starts(stack):
    stack.run("up")
    stack.run("down")
    stack.make("one.broken")
    said = stack.run("up", status=1)
    assert "it is broken" in said
    assert "says hello" not in said
    stack.unmake("one.broken")
    stack.run("up")


def test_a_part_that_is_never_ready_fails_the_start_in_time(stack):
    stack.make("front.slow")
    said = stack.run("up", status=1, START_TIMEOUT_SECONDS="4")
    assert re.search(r"front is not ready after \d s: it answers 503", said)
    assert stack.processes() == []


def test_a_port_in_use_is_told_with_its_holder_and_another_choice(stack):
    with socket.create_server(("127.0.0.1", stack.ports["two"])):
        said = stack.run("up", status=1)
    assert f"Port {stack.ports['two']} is in use by pid {os.getpid()} (" in said
    assert re.search(r": stop that, or choose otherwise with USER_PORT=\d+ make up\.", said)
    assert stack.processes() == []


def test_all_ports_in_use_are_told_at_once_with_choices_that_work(stack):
    with contextlib.ExitStack() as held:
        for part in ("one", "two"):
            held.enter_context(socket.create_server(("127.0.0.1", stack.ports[part])))
        said = stack.run("up", status=1)
        choices = dict(re.findall(r"(\w+_PORT)=(\d+)", said))
        assert set(choices) == {"ORDER_PORT", "USER_PORT"}
        assert "Welcome." in stack.run("up", **choices)
        stack.run("down")


def test_the_choice_for_a_port_in_use_is_no_port_of_another_part(stack):
    one = next(port for port in range(stack.ports["one"], 32_000) if is_free(port) and is_free(port + 1))
    with socket.create_server(("127.0.0.1", one)):
        said = stack.run("up", status=1, ORDER_PORT=str(one), USER_PORT=str(one + 1))
    (choice,) = re.findall(r"ORDER_PORT=(\d+)", said)
    assert int(choice) > one + 1


def test_settings_that_will_not_do_are_told_before_anything_is_started(stack):
    assert stack.run("up", status=1, INVALID="yes").strip() == "A setting will not do."
    assert stack.order() == []
    assert not (stack.run_dir / "logs" / "supervisor.log").exists()


@pytest.mark.parametrize("prefix", STARTS)
@pytest.mark.parametrize("module", ["local status", "observability.story --order 7", "loadtest", "bench budget"])
def test_ctrl_c_while_the_program_is_being_loaded_ends_it_quietly(tmp_path, module, prefix):
    (tmp_path / "psutil.py").write_text("print('loading', flush=True)\nimport time\ntime.sleep(60)\n")
    (tmp_path / "urllib3.py").write_text("import psutil")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "RUN_DIR": str(tmp_path / "run")}
    with child(
        [*prefix, sys.executable, "-m", *module.split()], env=environment, cwd=PROJECT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT
    assert err == ""


def test_an_optional_part_that_this_machine_has_no_program_for_is_left_out_and_told(stack):
    said = stack.run("up", EXTRA="yes")
    assert re.search(r"^  extra +left out: No such program here: install it\.$", said, re.MULTILINE)
    assert "Welcome." in said
    said = stack.run("up", EXTRA="yes")  # it is up, and not a start that was cut short
    assert "already up" in said
    assert re.search(r"^extra +- .* absent: No such program here: install it\.$", said, re.MULTILINE)
    stack.run("down")
    assert "extra" not in stack.run("up")
    assert "extra" not in stack.run("status")


@pytest.mark.parametrize("prefix", STARTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_up_stops_what_it_started(stack, number, prefix):
    stack.make("front.slow")
    with stack.begin("up", prefix=prefix) as process:
        eventually(lambda: "start front" in stack.order())
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert stack.processes() == []
    assert stack.free()


def test_an_up_that_was_killed_is_cleaned_up_by_the_next(stack):
    stack.make("one.slow")
    with stack.begin("up") as process:
        eventually(lambda: "start one" in stack.order())
        process.kill()
    stack.unmake("one.slow")
    said = stack.run("up")
    assert "cut short" in said
    assert "Welcome." in said


def test_two_ups_at_once_do_not_mix(stack):
    stack.make("front.slow")
    with stack.begin("up") as first:
        eventually(lambda: "start front" in stack.order())
        said = stack.run("up", status=1)
        assert f"is at work here (pid {first.pid})" in said
        stack.unmake("front.slow")
        first.communicate(timeout=30)
    assert first.returncode == 0


def test_no_orphan_outlives_a_killed_supervisor_and_the_next_up_works(stack):
    stack.make("one.child")
    stack.run("up")
    stack.supervisor().kill()
    eventually(stack.free)
    eventually(lambda: stack.processes() == [])
    assert "Nothing is running" in stack.run("status", status=3)
    assert "Welcome." in stack.run("up")


def test_up_right_after_the_supervisor_was_killed_waits_for_the_ports(stack):
    stack.make("base.lingering")
    stack.run("up")
    stack.supervisor().kill()
    assert "Welcome." in stack.run("up")


def test_a_stack_whose_folder_was_deleted_ends(stack):
    stack.run("up")
    shutil.rmtree(stack.run_dir)
    assert "Nothing is running" in stack.run("down")
    assert stack.processes() == []
    assert next(line for line in stack.order() if line.startswith("stop")) == "stop front"


@pytest.mark.parametrize("name", ["supervisor.sock", "."])
def test_up_after_the_folder_was_deleted_or_a_part_of_it_begins_anew(stack, name):
    stack.run("up")
    lost = stack.supervisor()
    if name == ".":
        shutil.rmtree(stack.run_dir)
    else:
        (stack.run_dir / name).unlink()
    assert "Welcome." in stack.run("up")
    assert stack.supervisor() != lost
    stack.run("status")


def test_a_stopped_supervisor_takes_its_parts_along_in_order(stack):
    stack.run("up")
    supervisor = stack.supervisor()
    supervisor.terminate()
    eventually(lambda: not supervisor.is_running())
    assert next(line for line in stack.order() if line.startswith("stop")) == "stop front"
    assert stack.free()


def test_the_stack_outlives_the_terminal(stack):
    leader, follower = pty.openpty()
    command = ["setsid", "--ctty", sys.executable, FAKE_STACK, "up"]  # its end hangs the terminal up
    process = subprocess.Popen(command, env=stack.environment, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    assert process.wait(timeout=30) == 0
    os.close(leader)
    stack.run("status")


def test_logs_of_all_parts_carry_their_names(running):
    said = running.run("logs", "--no-follow")
    assert re.search(r"^==> one.log <==\none ", said, re.MULTILINE)
    assert re.search(r"^==> base.log <==\nbase ", said, re.MULTILINE)


def test_logs_of_an_unknown_part_list_the_names(running):
    assert "choose one of base, front, one, supervisor, two" in running.run("logs", "three", status=1)


def test_logs_before_the_first_up_say_so(stack):
    assert "no logs yet" in stack.run("logs", status=1)


@pytest.mark.parametrize("prefix", STARTS)
def test_logs_follow_until_ctrl_c_also_over_a_rotation(stack, prefix):
    log = stack.run_dir / "logs" / "one.log"
    log.parent.mkdir(parents=True)
    log.write_text("old file\n")
    with stack.begin("logs", "one", prefix=prefix) as process:
        assert process.stdout.readline() == "old file\n"
        log.rename(log.with_suffix(".log.1"))
        log.write_text("new file\n")
        assert process.stdout.readline() == "new file\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "Traceback" not in err


def test_reset_deletes_a_running_stack(stack):
    stack.run("up")
    stack.run("reset")
    assert not stack.run_dir.exists()
    assert stack.processes() == []


def test_reset_refuses_a_folder_that_is_not_ours(stack):
    stack.run_dir.mkdir()
    (stack.run_dir / "thesis.txt").touch()
    assert "was not made by `make up`" in stack.run("reset", status=1)
    assert (stack.run_dir / "thesis.txt").exists()


def test_up_refuses_a_folder_that_is_not_ours(stack):
    stack.run_dir.mkdir()
    (stack.run_dir / "thesis.txt").touch()
    assert "holds something else" in stack.run("up", status=1)


def test_a_file_that_is_gone_is_named_without_a_traceback(running):
    assert "secrets/orders_user" in running.run("psql", status=1)


def test_tools_for_a_running_stack_say_that_there_is_none(stack):
    assert "Nothing is running" in stack.run("psql", status=1)
