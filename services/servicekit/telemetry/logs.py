"""Structured logs: one JSON object per line on stdout, also for lines of libraries.

Our own events are named noun-then-verb, and their values are fields. Records that a library logs through the standard
library get the same form, as the event `library.logged`. Text that it prints becomes `library.printed`.
"""

import logging
import os
import sys
import threading
import traceback
from contextlib import suppress
from types import TracebackType
from typing import Any, BinaryIO, TextIO

import structlog
from opentelemetry import trace
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from servicekit.telemetry import environment, lines
from servicekit.telemetry.printed import Printed

MAX_FRAMES = 20
"""The most frames of a traceback that are kept, the innermost ones: enough to find the cause, and short enough."""

_FIRST = ("timestamp", "level", "service", "event", "trace_id", "span_id")


class _Process:
    """What all log lines of this process have in common.

    Attributes:
        service: The service's name.
        is_named: Whether an app has set the name since `configure`.
    """

    service = ""
    is_named = False


_process = _Process()

_QUIET = {
    "opentelemetry": logging.CRITICAL,  # it quotes an invalid tracestate, which is the client's text
    "urllib3": logging.INFO,  # its debug lines quote whole URLs, which may contain the key of a telemetry backend
    "waitress.queue": logging.ERROR,  # it warns of requests that come before its threads are ready
    "werkzeug": logging.WARNING,  # its access lines quote raw request lines
}


def configure(service: str, level: str = "info") -> None:
    """Set up logging for this process.

    Args:
        service: The field `service`, unless the environment sets another; the first app replaces it.
        level: The least severe level that is written, in lower case.
    """
    name_service(service)
    _process.is_named = False
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        # structlog's "iso" omits a fraction that is zero; then lines of the same second would not sort as text.
        structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%S.%fZ", utc=True),
        add_service,
        add_trace_ids,
        describe_exception,
    ]
    rendered: list[Processor] = [
        common_fields_first,
        structlog.processors.JSONRenderer(serializer=lines.dumps),
    ]
    output = _replaced(sys.stdout) if sys.stdout is not None else open(os.devnull, "w")  # noqa: PTH123, SIM115
    structlog.configure(
        processors=[*shared, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.BytesLoggerFactory(_Lasting(output)),  # type: ignore[arg-type]  # a partial file
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[name_library_event, *shared],
            processors=[ProcessorFormatter.remove_processors_meta, *rendered, _as_text],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(threshold)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, threshold))
    logging.captureWarnings(capture=True)


def name_service(service: str) -> None:
    """Set the field `service` of this process's log lines.

    Args:
        service: Its name, unless the environment has another.
    """
    _process.service = environment.service_name(os.environ) or service


def name_app(service: str) -> None:
    """Name this process's log lines after its first app, as its spans are; later apps do not change the name.

    Args:
        service: Its name, unless the environment has another.
    """
    if not _process.is_named:
        name_service(service)
        _process.is_named = True


def get_logger() -> FilteringBoundLogger:
    """Return the logger for our own events: `log.info("parcel.sent", parcel_id=7)`."""
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


def capture_output() -> None:
    """Turn printed text, and exceptions that end a thread or the process, into log lines. Call `configure` first.

    It is for processes whose output is a log. Text that was printed before, or by C code, is not caught. If a traceback
    is printed, the exception's message is left out; other text is logged unchanged.
    """
    logging.raiseExceptions = False  # else a failed log call prints its arguments

    def stdout_printed(message: str) -> None:
        get_logger().info("library.printed", message=message, stream="stdout")

    def stderr_printed(message: str) -> None:
        get_logger().warning("library.printed", message=message, stream="stderr")

    def thread_crashed(crash: threading.ExceptHookArgs) -> None:
        name = crash.thread.name if crash.thread is not None else None
        get_logger().error("thread.crashed", thread=name, exc_info=crash.exc_value or True)

    def process_crashed(_kind: type[BaseException], error: BaseException, _traceback: TracebackType | None) -> None:
        get_logger().critical("process.crashed", exc_info=error)

    sys.stdout = Printed(_replaced(sys.stdout), stdout_printed, lines.MAX_LINE)
    sys.stderr = Printed(_replaced(sys.stderr), stderr_printed, lines.MAX_LINE)
    threading.excepthook = thread_crashed
    sys.excepthook = process_crashed


def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add `service`."""
    if _process.service:
        event["service"] = _process.service
    return event


def add_trace_ids(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add `trace_id` and `span_id` of the current span, if there is one."""
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event["trace_id"] = trace.format_trace_id(span.trace_id)
        event["span_id"] = trace.format_span_id(span.span_id)
    return event


def describe_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Turn `exc_info` into types and frames, without messages and local variables.

    structlog's ExceptionRenderer keeps messages. But a database error quotes the row that it rejected, and a validation
    error the input. Both may contain a password or an e-mail address.
    """
    error = _exception(event.pop("exc_info", None))
    if error is None:
        return event
    event["exception_type"] = _type_name(error)
    event["exception_frames"] = [
        f"{frame.f_code.co_filename}:{line} {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ][-MAX_FRAMES:]
    if error.__cause__ is not None:
        event["exception_cause"] = _type_name(error.__cause__)
    if isinstance(sqlstate := getattr(error, "pgcode", None), str):
        event["sqlstate"] = sqlstate
    return event


def name_library_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Set the event name of a record of the standard library's logging; its text becomes the field `message`."""
    event["message"] = event["event"]
    event["event"] = "library.logged"
    event["logger"] = event["_record"].name
    return event


def common_fields_first(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put the common fields before the event's own fields, so that raw lines are easier to read."""
    return {**{name: event[name] for name in _FIRST if name in event}, **event}


class _Encoded:
    """Writes bytes to a stream that accepts only text, such as a notebook's, a StringIO, or a test's stdout."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.flush = stream.flush

    def write(self, line: bytes) -> None:
        """Write a line."""
        self._stream.write(line.decode())


class _Lasting:
    """Writes to stdout. If it is closed, as after each test of pytest, writes to whatever replaced it.

    If nothing replaced it, log lines are lost, but no request fails.
    """

    def __init__(self, stream: TextIO) -> None:
        self._file = _binary(stream)

    def write(self, line: bytes) -> None:
        """Write a line."""
        try:
            self._file.write(line)
        except ValueError:
            if sys.stdout is not None:
                self._file = _binary(_replaced(sys.stdout))
                with suppress(ValueError):
                    self._file.write(line)

    def flush(self) -> None:
        """Flush the stream."""
        with suppress(ValueError):
            self._file.flush()


def _binary(stream: TextIO) -> BinaryIO:
    binary: Any = getattr(stream, "buffer", None) or _Encoded(stream)
    return binary  # type: ignore[no-any-return]  # structlog needs only `write` and `flush`


def _as_text(_logger: WrappedLogger, _method: str, line: Any) -> str:
    text: str = line.decode()  # logging writes text, structlog's BytesLogger writes bytes from orjson
    return text


def _exception(exc_info: object) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        error: BaseException | None = exc_info[1]
        return error
    return sys.exc_info()[1] if exc_info else None


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return f"{kind.__module__}.{kind.__qualname__}"


def _replaced(stream: TextIO) -> TextIO:
    """Return the process's own stream, even if `capture_output` has replaced it."""
    return stream.replaced if isinstance(stream, Printed) else stream
