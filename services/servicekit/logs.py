"""Structured logs: one JSON object a line on stdout, whoever wrote it.

Our own events are noun-then-verb with their values as fields. What a library logs through the standard library
comes out in the same form, as the event `library.logged`.
"""

import logging
import sys
from collections.abc import Mapping
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from servicekit import tracing

MAX_FRAMES = 20
"""Frames kept of a traceback, the innermost ones: enough to find the cause, small enough for any log store."""

_HEAD = ("timestamp", "level", "service", "event", "trace_id", "span_id")

_QUIET = {
    "opentelemetry": logging.CRITICAL,  # it quotes a tracestate that it does not like, which is the client's text
    "urllib3": logging.ERROR,  # its warnings of a retry hold the path with its ids; our client counts retries
    "werkzeug": logging.WARNING,  # its access lines are raw request lines
}


def configure(service: str, level: str = "info") -> None:
    """Set up logging for this process.

    Args:
        service: Value of the field `service`, such as `order-service`.
        level: The least severe level that is written, in lower case.
    """

    def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    shared: list[Processor] = [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.add_log_level,
        add_service,
        _add_trace,
        _describe_exception,
    ]
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_dumps)],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.BytesLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_as_library_event, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=lambda *a, **k: _dumps(*a, **k).decode()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(threshold)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, threshold))
    logging.captureWarnings(capture=True)


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """Return the logger for our own events: `log.info("order.created", order_id=7)`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


def _add_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    ids = tracing.current_ids()
    if ids is not None:
        event["trace_id"], event["span_id"] = ids
    return event


def _as_library_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event["_record"]
    event["message"] = str(event["event"])
    event["event"] = "library.logged"
    event["logger"] = record.name
    if record.exc_info:
        event["exc_info"] = record.exc_info
    return event


def _describe_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Turn `exc_info` into types and frames.

    Messages and local variables are left out: a database error quotes the row it refused, a validation error the
    input, and either may hold a password or an e-mail address.
    """
    exc_info = event.pop("exc_info", None)
    if not exc_info:
        return event
    if isinstance(exc_info, BaseException):
        error: BaseException | None = exc_info
    elif isinstance(exc_info, tuple):
        error = exc_info[1]
    else:
        error = sys.exc_info()[1]
    if error is None:
        return event
    event["exception_type"] = _type_name(error)
    frames = []
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{code.co_filename}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    event["exception_frames"] = frames[-MAX_FRAMES:]
    if error.__cause__ is not None:
        event["exception_cause"] = _type_name(error.__cause__)
    if isinstance(sqlstate := getattr(error, "pgcode", None), str):
        event["sqlstate"] = sqlstate
    return event


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return f"{kind.__module__}.{kind.__qualname__}"


def _dumps(event: Mapping[str, Any], **_kwargs: object) -> bytes:
    # What every line has comes first, so that a person who reads lines finds it at the same place in each. A field
    # that JSON has no form for must not cost a request its answer.
    head = {name: event[name] for name in _HEAD if name in event}
    return orjson.dumps({**head, **event}, default=repr)
