import datetime as dt
import json
import os
import subprocess
import sys

import pytest

from servicekit.telemetry.lines import MAX_LINE

SCRIPT = """
import logging, sys, warnings
import psycopg2
from servicekit.telemetry import logs, tracing

logs.configure("sample-service", sys.argv[1])
log = logs.get_logger()

def deep(n, password="canary-local"):
    if n:
        return deep(n - 1)
    raise ValueError("canary-message " + password)

def logged(name, work, **fields):
    try:
        work()
    except Exception as error:
        log.error(name, exc_info=error, **fields)

log.debug("order.considered")
log.info("order.created", order_id=7, text="line\\nbreak", strange=object())
with tracing.Tracer().root("work", {}):
    print("ids", *tracing.current_ids(), file=sys.stderr)
    log.info("order.traced")
    logging.getLogger("some.library").warning("disk at %d %%", 91)
    logged("deep.failed", lambda: deep(40))

def chained():
    try:
        deep(0)
    except ValueError as error:
        raise LookupError("canary-chained") from error

logged("chain.failed", chained)

def from_database():
    error = psycopg2.IntegrityError("duplicate key (username)=(canary-row)")
    raise error

logged("database.failed", from_database)
try:
    deep(0)
except ValueError:
    log.error("current.failed", exc_info=True)
    log.exception("exception.failed")
    logging.getLogger("some.library").exception("library broke")
logging.getLogger("some.library").info("told")
logging.getLogger("werkzeug").info("canary-access line")
warnings.warn("old way", DeprecationWarning, stacklevel=1)
print(logs.MAX_FRAMES, file=sys.stderr)
"""


def _run(level):
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", SCRIPT, level],
        env={**os.environ, "PYTHONPATH": "services", "TZ": "America/New_York"},
        capture_output=True,
        check=True,
        timeout=30,
    )


@pytest.fixture(scope="module")
def run():
    return _run("info")


@pytest.fixture(scope="module")
def lines(run):
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.fixture(scope="module")
def by_event(lines):
    return {line["event"]: line for line in lines}


def test_every_line_is_an_object_with_its_event_level_service_and_time(lines):
    assert len(lines) > 10
    for line in lines:
        assert line["service"] == "sample-service"
        assert line["event"]
        assert line["level"] in {"info", "warning", "error"}


def test_the_time_is_iso_and_utc_wherever_the_machine_is(lines):
    now = dt.datetime.now(dt.UTC)
    for line in lines:
        assert line["timestamp"].endswith("Z")
        assert abs(now - dt.datetime.fromisoformat(line["timestamp"])) < dt.timedelta(minutes=5)


def test_values_are_fields_even_those_json_has_no_form_for(by_event):
    line = by_event["order.created"]
    assert line["order_id"] == 7
    assert line["text"] == "line\nbreak"
    assert line["strange"].startswith("<object")


def test_work_in_a_trace_logs_its_ids_and_other_work_none(run, by_event, lines):
    _, trace_id, span_id = run.stderr.decode().splitlines()[0].split()
    library = next(line for line in lines if line.get("message") == "disk at 91 %")
    for line in (by_event["order.traced"], library, by_event["deep.failed"]):
        assert (line["trace_id"], line["span_id"]) == (trace_id, span_id)
    assert "trace_id" not in by_event["order.created"]


def test_a_librarys_line_has_the_same_form(lines):
    line = next(line for line in lines if line.get("message") == "disk at 91 %")
    assert (line["event"], line["logger"], line["level"]) == ("library.logged", "some.library", "warning")


def test_python_warnings_are_log_lines(lines):
    line = next(line for line in lines if line.get("logger") == "py.warnings")
    assert line["event"] == "library.logged"
    assert "DeprecationWarning: old way" in line["message"]


def test_waitress_does_not_warn_of_a_request_that_finds_no_thread_waiting():
    """Threads that have just been started may not wait yet, so this would come after many a start."""
    script = """
from servicekit.telemetry import logs
from waitress.task import ThreadedTaskDispatcher
logs.configure("sample-service")
ThreadedTaskDispatcher().add_task(None)
ThreadedTaskDispatcher.logger.warning("a warning of another kind")
"""
    (line,) = _said(script).splitlines()
    assert json.loads(line)["logger"] == "waitress"


def test_an_exception_is_logged_with_its_type_and_the_innermost_frames(run, by_event):
    line = by_event["deep.failed"]
    assert line["exception_type"] == "builtins.ValueError"
    assert len(line["exception_frames"]) == int(run.stderr.split()[-1]) == 20
    assert all(frame.endswith(" deep") for frame in line["exception_frames"])


def test_an_exceptions_cause_is_named_by_type(by_event):
    assert by_event["chain.failed"]["exception_type"] == "builtins.LookupError"
    assert by_event["chain.failed"]["exception_cause"] == "builtins.ValueError"


@pytest.mark.parametrize("event", ["current.failed", "exception.failed"])
def test_the_exception_at_hand_is_found(by_event, event):
    assert by_event[event]["exception_type"] == "builtins.ValueError"


def test_a_librarys_exception_has_the_same_form(lines):
    line = next(line for line in lines if line.get("message") == "library broke")
    assert line["exception_type"] == "builtins.ValueError"
    assert line["exception_frames"]


def test_no_message_no_local_and_no_row_of_an_exception_is_logged(run, by_event):
    """What an exception says may be a password, an address, a row: the canaries stand for those."""
    assert by_event["database.failed"]["exception_type"] == "psycopg2.IntegrityError"
    assert b"canary" not in run.stdout


ODD = """
import ast, sys, traceback
from servicekit.telemetry import logs
logs.configure("sample-service")
log = logs.get_logger()
log.info("value.long", text="x" * 100_000, frames=["y" * 2000] * 20, order_id=7)
log.info("values.many", **{f"field_{n}": "z" * 500 for n in range(100)})
log.info("event." + "w" * 100_000)
log.info("surrogate.half", text="a\\ud800b", big=10**30, keys={(1, 2): 3})
log.info("number.none", big=10**30, ratio=float("nan"))
logs.capture_output()
print("a line", "another")
print("no end", end="")
print(", but now")
print("x" * 20_000)
try:
    try:
        raise RuntimeError("canary-inner")
    except RuntimeError as error:
        raise ValueError("canary-first\\ncanary-second") from error
except ValueError:
    traceback.print_exc()
    sys.stderr.write(traceback.format_exc())
def parse(text):
    ast.literal_eval(text)
def group(*errors):
    raise ExceptionGroup(errors[0], [ValueError(text) for text in errors])
def noted(text):
    error = KeyError(text)
    error.add_note(text * 2)
    raise error
def again():
    again()
for call, *said in ((parse, "canary ("), (group, "canary-1", "canary-2"), (noted, "canary\\nmore"), (again,)):
    try:
        call(*said)
    except Exception as error:
        traceback.print_exc()
        print("between", call.__name__)
        sys.stderr.write(traceback.format_exc())
        traceback.print_exception(error.with_traceback(None))
        print("after", call.__name__)
sys.stderr.write("one\\ntwo\\n\\n")
raise RuntimeError("canary-message")
"""


@pytest.fixture(scope="module")
def odd():
    done = subprocess.run(
        [sys.executable, "-c", ODD.replace("\\\\", "\\")],
        env={**os.environ, "PYTHONPATH": "services"},
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (1, b"")
    return done.stdout


@pytest.fixture(scope="module")
def odd_lines(odd):
    return [json.loads(line) for line in odd.splitlines()]


def test_no_line_is_longer_than_the_bound_and_each_is_still_an_object(odd, odd_lines):
    assert max(map(len, odd.splitlines())) <= MAX_LINE
    assert all(line["service"] == "sample-service" for line in odd_lines)
    long, many, event, *_ = odd_lines
    assert (long["event"], long["order_id"], long["cut"]) == ("value.long", 7, True)
    assert long["text"].startswith("xxx")
    (frame,) = long["frames"]  # of twenty, the last
    assert frame.startswith("yyy")
    assert (many["event"], many["cut"]) == ("values.many", True)
    assert event["event"].startswith("event.www")


def test_what_json_cannot_say_costs_no_line(odd_lines):
    (line,) = [line for line in odd_lines if line["event"] == "surrogate.half"]
    assert line["text"].startswith("a")
    assert int(line["big"]) == 10**30
    (line,) = [line for line in odd_lines if line["event"] == "number.none"]
    assert line["ratio"] == "nan"


def test_what_is_printed_is_a_log_line_each(odd_lines):
    printed = [(line["message"], line["stream"]) for line in odd_lines if line["event"] == "library.printed"]
    assert printed[:2] == [("a line another", "stdout"), ("no end, but now", "stdout")]
    assert printed[-2:] == [("one", "stderr"), ("two", "stderr")]


def test_of_a_printed_traceback_the_message_is_left_out(odd, odd_lines):
    printed = [line["message"] for line in odd_lines if line["event"] == "library.printed"]
    assert printed.count("ValueError") == printed.count("RuntimeError") == 2
    before = printed[: printed.index("between parse")]
    assert len([line for line in before if line.startswith("  File ")]) == 4 + 4  # four of the next, which parses
    assert b"canary" not in odd


@pytest.mark.parametrize(
    ("call", "kind"),
    [("parse", "SyntaxError"), ("group", "  | ExceptionGroup"), ("noted", "KeyError"), ("again", "RecursionError")],
)
def test_of_a_printed_traceback_nothing_is_left_but_frames_and_types(odd_lines, call, kind):
    printed = [line["message"] for line in odd_lines if line["event"] == "library.printed"]
    between, after = printed.index(f"between {call}"), printed.index(f"after {call}")
    assert printed[between - 1] == printed[after - 2] == printed[after - 1] == kind  # the last one had no frames
    assert printed[between + 1].endswith("Traceback (most recent call last):")
    assert "canary" not in str(printed)


def test_what_ends_the_process_is_a_log_line_without_its_message(odd, odd_lines):
    assert odd_lines[-1]["event"] == "process.crashed"
    assert odd_lines[-1]["exception_type"] == "builtins.RuntimeError"
    assert b"canary" not in odd


def test_the_level_decides_what_is_written():
    events = [json.loads(line)["event"] for line in _run("debug").stdout.splitlines()]
    assert "order.considered" in events
    lines = [json.loads(line) for line in _run("error").stdout.splitlines()]
    assert {line["level"] for line in lines} == {"error"}


def test_an_error_of_the_database_keeps_its_sqlstate(database):
    script = """
import sys, psycopg2
from servicekit.telemetry import logs
logs.configure("sample-service")
connection = psycopg2.connect(sys.argv[1])
try:
    connection.cursor().execute("INSERT INTO users.users (username, password_hash) VALUES ('canary-row', NULL)")
except psycopg2.Error as error:
    logs.get_logger().error("insert.failed", exc_info=error)
"""
    dsn = database.connect().dsn.replace("xxx", database.password_file().read_text())
    done = subprocess.run(
        [sys.executable, "-c", script, dsn],
        env={**os.environ, "PYTHONPATH": "services"},
        capture_output=True,
        check=True,
        timeout=30,
    )
    line = json.loads(done.stdout)
    assert line["exception_type"] == "psycopg2.errors.NotNullViolation"
    assert line["sqlstate"] == "23502"
    assert b"canary" not in done.stdout


def _said(script):
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": "services"},
        capture_output=True,
        check=True,
        timeout=30,
    )
    return done.stdout


NOON = """
import datetime

class Noon(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 11, 28, 12, 0, 0, 0, tz)

datetime.datetime = Noon
from servicekit.telemetry import logs
logs.configure("sample-service")
logs.get_logger().info("order.created")
"""


def test_a_time_without_microseconds_has_its_fraction_all_the_same():
    assert json.loads(_said(NOON))["timestamp"] == "2026-11-28T12:00:00.000000Z"


def test_what_every_line_has_comes_first_and_in_the_same_order_whoever_wrote_it(run, lines):
    for line in lines:
        ids = ["trace_id", "span_id"] if "trace_id" in line else []
        assert list(line)[: 4 + len(ids)] == ["timestamp", "level", "service", "event", *ids]
    assert any("trace_id" in line for line in lines)
    assert list(json.loads(run.stdout.splitlines()[0]))[4:] == ["order_id", "text", "strange"]


LIKE_OURS = """
import logging
from servicekit.telemetry import logs, tracing
logs.configure("sample-service")
with tracing.Tracer().root("work", {}):
    logs.get_logger().warn("order.late", timestamp="t", level="l", service="s", trace_id="i", span_id="j")
    logs.get_logger().fatal("order.lost")
    logging.getLogger("a.library").critical("%s and %d", "one", 2, extra={"password": "canary"}, stack_info=False)
    logging.getLogger("a.library").error(ValueError("told"))
"""


def test_a_field_with_the_name_of_one_that_every_line_has_does_not_take_its_place():
    late, lost, library, error = map(json.loads, _said(LIKE_OURS).splitlines())
    assert (late["level"], late["service"], lost["level"]) == ("warning", "sample-service", "critical")
    assert late["timestamp"] <= lost["timestamp"]
    assert (late["trace_id"], late["span_id"]) == (lost["trace_id"], lost["span_id"])
    assert (library["level"], library["message"], error["message"]) == ("critical", "one and 2", "told")
    assert "canary" not in json.dumps(library)


PRINTED = """
import os, sys
from servicekit.telemetry import logs
for _ in range(3):  # as gunicorn does, which reads its configuration again when it is told to reload
    logs.configure("sample-service")
    logs.capture_output()
print("told once")
os.write(sys.stdout.fileno(), b'{"event": "written to the descriptor"}\\n')
logs.get_logger().info("order.created")
"""


def test_output_that_is_captured_again_is_told_once():
    told = [json.loads(line) for line in _said(PRINTED.replace("\\\\", "\\")).splitlines()]
    assert [line["event"] for line in told] == ["library.printed", "written to the descriptor", "order.created"]


CLOSED = """
import io, sys
from servicekit.telemetry import logs
own, sys.stdout = sys.stdout, io.TextIOWrapper(io.BytesIO())
logs.configure("sample-service")
logger = logs.get_logger()
logger.info("parcel.sent")
sys.stdout.close()
logger.info("parcel.lost")
sys.stdout = own
logger.info("parcel.found")
"""


def test_a_stdout_that_was_closed_costs_no_request_and_later_lines_go_to_the_next():
    assert [json.loads(line)["event"] for line in _said(CLOSED).splitlines()] == ["parcel.found"]
