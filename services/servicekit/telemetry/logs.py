"""Structured logs: one JSON object a line on stdout, whoever wrote it.

Our own events are noun-then-verb with their values as fields. What a library logs through the standard library
comes out in the same form, as the event `library.logged`; what one prints, as `library.printed`.
"""

import io
import json
import logging
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from servicekit.telemetry import tracing

MAX_FRAMES = 20
"""Frames kept of a traceback, the innermost ones: enough to find the cause, small enough for any log store."""

MAX_LINE = 8192
"""Bytes of a line. Docker cuts lines at 16 KB, in the middle of the JSON; Loki refuses them from 256 KB."""

_MAX_VALUE = 1024  # characters of a value in a line that is too long

_HEAD = ("timestamp", "level", "service", "event", "trace_id", "span_id")

_LEVELS = {"warn": "warning", "exception": "error", "fatal": "critical"}  # methods of other names than their levels

_QUIET = {
    "opentelemetry": logging.CRITICAL,  # it quotes a tracestate that it does not like, which is the client's text
    "werkzeug": logging.WARNING,  # its access lines are raw request lines
}


def configure(service: str, level: str = "info") -> None:
    """Set up logging for this process.

    Args:
        service: Value of the field `service`, such as `order-service`.
        level: The least severe level that is written, in lower case.
    """

    def line(_logger: WrappedLogger, method: str, event: EventDict) -> bytes:
        return _dumps(_complete(service, method, event))

    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[line],  # one, not five: each costs a call, and the order of the fields falls out of it
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.BytesLoggerFactory(_output().buffer),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(_output())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_as_library_event],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                lambda *event: line(*event).decode(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(threshold)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, threshold))
    logging.captureWarnings(capture=True)


def capture_output() -> None:
    """Turn what is printed, and what kills a thread or the process, into log lines; after `configure`.

    For processes whose output is a log. What is written before, or by C code, is not caught. Of a traceback that is
    printed the exception's message is left out; any other text is logged as it is.
    """
    logging.raiseExceptions = False  # it would print the arguments of a log call that failed
    sys.stdout = _Printed("stdout")
    sys.stderr = _Printed("stderr")

    def thread_crashed(crash: threading.ExceptHookArgs) -> None:
        name = crash.thread.name if crash.thread is not None else None
        get_logger().error("thread.crashed", thread=name, exc_info=crash.exc_value or True)

    def process_crashed(_kind: type[BaseException], error: BaseException, _traceback: TracebackType | None) -> None:
        get_logger().critical("process.crashed", exc_info=error)

    threading.excepthook = thread_crashed
    sys.excepthook = process_crashed


class _Writing(threading.local):
    """Where a thread is in what it prints: threads must not mix theirs."""

    rest = ""  # of a line, until its end comes
    inside: Literal["text", "frames", "message"] = "text"


class _Printed(io.TextIOBase):
    """Logs each line that is written to it."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._writing = _Writing()

    def write(self, text: str) -> int:
        writing = self._writing
        *lines, writing.rest = (writing.rest + text).split("\n")
        if len(writing.rest) > MAX_LINE:  # a line without end
            lines.append(writing.rest)
            writing.rest = ""
        for line in lines:
            if (told := self._without_message(line)).strip():
                level = logging.INFO if self._stream == "stdout" else logging.WARNING
                get_logger().log(level, "library.printed", message=told, stream=self._stream)
        if writing.inside == "message" and not writing.rest:
            writing.inside = "text"  # a message of many lines is written at once
        return len(text)

    def _without_message(self, line: str) -> str:
        """Keep the frames and the type of a traceback: what the exception says may be a row or an input."""
        writing = self._writing
        if line.endswith("Traceback (most recent call last):"):
            writing.inside = "frames"
        elif writing.inside == "message":
            return ""
        elif writing.inside == "frames" and not line.startswith(" "):
            writing.inside = "message"
            return line.partition(":")[0]
        return line

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """The real one's, for who hands it on to a child process."""
        return 1 if self._stream == "stdout" else 2


def _output() -> TextIO:
    """Where log lines go: standard output, though `capture_output` has put something before it."""
    output = sys.__stdout__ if isinstance(sys.stdout, _Printed) else sys.stdout
    assert output is not None, "a service is not started with its output closed"  # noqa: S101
    return output


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """Return the logger for our own events: `log.info("order.created", order_id=7)`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


def _complete(service: str, method: str, event: EventDict) -> dict[str, Any]:
    """Put before an event's fields what every line has, at the same place in each."""
    line: dict[str, Any] = {
        "timestamp": datetime.now(tz=UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": _LEVELS.get(method, method),
        "service": service,
        "event": event.pop("event"),
    }
    if (ids := tracing.current_ids()) is not None:
        line["trace_id"], line["span_id"] = ids
    if exc_info := event.pop("exc_info", None):
        event.update(_described(exc_info))
    line.update(event)
    return line


def _as_library_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event["_record"]
    event["message"] = str(event["event"])
    event["event"] = "library.logged"
    event["logger"] = record.name
    if record.exc_info:
        event["exc_info"] = record.exc_info
    return event


def _described(exc_info: object) -> dict[str, Any]:
    """Turn `exc_info` into types and frames.

    Messages and local variables are left out: a database error quotes the row it refused, a validation error the
    input, and either may hold a password or an e-mail address.
    """
    if isinstance(exc_info, BaseException):
        error: BaseException | None = exc_info
    elif isinstance(exc_info, tuple):
        error = exc_info[1]
    else:
        error = sys.exc_info()[1]
    if error is None:
        return {}
    frames = []
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{code.co_filename}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    described: dict[str, Any] = {"exception_type": _type_name(error), "exception_frames": frames[-MAX_FRAMES:]}
    if error.__cause__ is not None:
        described["exception_cause"] = _type_name(error.__cause__)
    if isinstance(sqlstate := getattr(error, "pgcode", None), str):
        described["sqlstate"] = sqlstate
    return described


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return f"{kind.__module__}.{kind.__qualname__}"


def _dumps(event: Mapping[str, Any]) -> bytes:
    line = _encoded(event)
    if len(line) > MAX_LINE:
        line = _encoded({**{name: _shortened(value) for name, value in event.items()}, "cut": True})
    if len(line) > MAX_LINE:
        line = _encoded({**{name: _shortened(event[name]) for name in _HEAD if name in event}, "cut": True})
    return line


def _encoded(event: Mapping[str, Any]) -> bytes:
    # A field that JSON has no form for must not cost a request its answer.
    try:
        return orjson.dumps(event, default=repr)
    except TypeError:  # half a surrogate pair, an integer beyond 64 bits, a key that is no string
        try:
            return json.dumps(event, default=repr, skipkeys=True, allow_nan=False).encode()
        except ValueError:  # no number, or a list that holds itself
            texts = {name: value if isinstance(value, str) else repr(value) for name, value in event.items()}
            return json.dumps(texts).encode()


def _shortened(value: object) -> object:
    if isinstance(value, list):
        return _last_of(value)
    text = value if isinstance(value, str) else _encoded({"": value}).decode()[4:-1]
    return value if len(text) <= _MAX_VALUE else text[:_MAX_VALUE] + "…"


def _last_of(items: list[object]) -> list[object]:
    """Keep what fits of a list: of a traceback, the innermost frames."""
    kept: list[object] = []
    room = _MAX_VALUE
    for item in reversed(items):
        short = _shortened(item)
        room -= len(_encoded({"": short}))
        if kept and room < 0:
            break
        kept.insert(0, short)
    return kept
