"""Structured logs: one JSON object a line on stdout, whoever wrote it.

Our own events are noun-then-verb with their values as fields. What a library logs through the standard library
comes out in the same form, as the event `library.logged`; what one prints, as `library.printed`.
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
"""Frames kept of a traceback, the innermost ones: enough to find the cause, small enough for any log store."""

_FIRST = ("timestamp", "level", "service", "event", "trace_id", "span_id")


class _Process:
    """What all lines of this process have.

    Attributes:
        service: Its name.
        is_named: Whether an app has named it, since `configure`.
    """

    service = ""
    is_named = False


_process = _Process()

_QUIET = {
    "opentelemetry": logging.CRITICAL,  # it quotes a tracestate that it does not like, which is the client's text
    "urllib3": logging.INFO,  # below, it quotes whole URLs, and that of a telemetry backend may hold a key
    "werkzeug": logging.WARNING,  # its access lines are raw request lines
}


def configure(service: str, level: str = "info") -> None:
    """Set up logging for this process.

    Args:
        service: Value of the field `service` until an app has another, and unless the environment has.
        level: The least severe level that is written, in lower case.
    """
    name_service(service)
    _process.is_named = False
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        # Its "iso" leaves the fraction out when it is zero: lines of the same second would not sort as text.
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
        logger_factory=structlog.BytesLoggerFactory(_Lasting(output)),  # type: ignore[arg-type]  # what it uses of a file
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
    """Set the field `service` of this process's lines.

    Args:
        service: Its name, unless the environment has another.
    """
    _process.service = environment.service_name(os.environ) or service


def name_app(service: str) -> None:
    """Name this process after its first app, as its spans are: a second app renames no line of the first.

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
    """Turn what is printed, and what kills a thread or the process, into log lines; after `configure`.

    For processes whose output is a log. What is written before, or by C code, is not caught. Of a traceback that is
    printed the exception's message is left out; any other text is logged as it is.
    """
    logging.raiseExceptions = False  # it would print the arguments of a log call that failed

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
    """Add `trace_id` and `span_id` of the work at hand, if it has a span."""
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event["trace_id"] = trace.format_trace_id(span.trace_id)
        event["span_id"] = trace.format_span_id(span.span_id)
    return event


def describe_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Turn `exc_info` into types and frames.

    Not structlog's ExceptionRenderer, which keeps messages: a database error quotes the row it refused, a validation
    error the input, and either may hold a password or an e-mail address. Local variables are left out too.
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
    """Give a record of the standard library's logging an event's name; its text becomes the `message`."""
    event["message"] = event["event"]
    event["event"] = "library.logged"
    event["logger"] = event["_record"].name
    return event


def common_fields_first(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put what every line has before an event's own fields, for whoever reads the raw lines."""
    return {**{name: event[name] for name in _FIRST if name in event}, **event}


class _Encoded:
    """Takes bytes for a stream that takes only text: a notebook's, a StringIO, what a test puts in place of stdout."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.flush = stream.flush

    def write(self, line: bytes) -> None:
        """Write a line."""
        self._stream.write(line.decode())


class _Lasting:
    """Writes to stdout, and to what stands in its place once that is closed, as it is after each of pytest's tests.

    Where there is neither, lines are lost: no request is.
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
        """Hand on what was written."""
        with suppress(ValueError):
            self._file.flush()


def _binary(stream: TextIO) -> BinaryIO:
    binary: Any = getattr(stream, "buffer", None) or _Encoded(stream)
    return binary  # type: ignore[no-any-return]  # structlog needs no more than `write` and `flush`


def _as_text(_logger: WrappedLogger, _method: str, line: Any) -> str:
    text: str = line.decode()  # logging writes text, structlog's BytesLogger the bytes that orjson makes
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
    """Return the process's own stream, though `capture_output` has put something before it."""
    return stream.replaced if isinstance(stream, Printed) else stream
