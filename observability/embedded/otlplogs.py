"""Log records of OTLP as entries of the log store, named as Loki's `/otlp/v1/logs` names them."""

from __future__ import annotations

import base64
import math
import re
import time
from typing import TYPE_CHECKING

from observability.embedded import tags
from observability.embedded.logs import INDEXED, UNKNOWN_SERVICE, LogEntry, is_plausible

if TYPE_CHECKING:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

_INVALID = re.compile(r"[^A-Za-z0-9]+")
_RESERVED = re.compile(r"__(.+)__", re.DOTALL)  # names that Prometheus keeps for itself, and OTLP may have
_NO_TEXT = "\ufffd"


def entries_from_otlp(request: ExportLogsServiceRequest) -> list[LogEntry]:
    """Make entries of an export request, as Loki's `/otlp/v1/logs` does."""
    entries: list[LogEntry] = []
    now = time.time_ns()
    for of_resource in request.resource_logs:
        labels: dict[str, str] = {}
        common: dict[str, str] = {}
        for attribute in of_resource.resource.attributes:
            if attribute.key in INDEXED:
                labels[INDEXED[attribute.key]] = _as_text(attribute.value)
            else:
                _flatten(attribute.key, attribute.value, common)
        labels = {name: value for name, value in labels.items() if value}
        labels.setdefault("service_name", UNKNOWN_SERVICE)
        for of_scope in of_resource.scope_logs:
            scope = dict(common)
            for attribute in of_scope.scope.attributes:
                _flatten(attribute.key, attribute.value, scope)
            _set(
                scope,
                scope_name=of_scope.scope.name,
                scope_version=of_scope.scope.version,
                scope_dropped_attributes_count=str(of_scope.scope.dropped_attributes_count or ""),
            )
            entries.extend(_entry(record, labels, scope, now) for record in of_scope.log_records)
    return entries


def _entry(record: LogRecord, labels: dict[str, str], common: dict[str, str], now: int) -> LogEntry:
    metadata: dict[str, str] = {}
    for attribute in record.attributes:
        _flatten(attribute.key, attribute.value, metadata)
    both_times = record.time_unix_nano and record.observed_time_unix_nano
    _set(
        metadata,
        observed_timestamp=str(record.observed_time_unix_nano) if both_times else "",
        severity_number=str(record.severity_number or ""),
        severity_text=record.severity_text,
        dropped_attributes_count=str(record.dropped_attributes_count or ""),
        flags=str(record.flags or ""),
        trace_id=record.trace_id.hex() if any(record.trace_id) else "",
        span_id=record.span_id.hex() if any(record.span_id) else "",
    )
    metadata |= common  # of two with one name Loki has the scope's, then the resource's
    timestamp = record.time_unix_nano or record.observed_time_unix_nano or now
    if not is_plausible(timestamp, now):
        timestamp = now
    return LogEntry(timestamp, labels, metadata, _as_text(record.body))


def _set(metadata: dict[str, str], **values: str) -> None:
    metadata.update({name: value.replace(_NO_TEXT, " ") for name, value in values.items() if value})


def _flatten(key: str, value: AnyValue, into: dict[str, str]) -> None:
    name = metadata_name(key)
    if not name:
        return  # nobody could ask for it
    if value.WhichOneof("value") == "kvlist_value":
        for inner in value.kvlist_value.values:
            _flatten(f"{name}_{inner.key}", inner.value, into)
    else:
        into[name] = _as_text(value).replace(_NO_TEXT, " ")


def metadata_name(key: str) -> str:
    """Make an attribute's key the name of a label, as Loki 3.7 does; '' where nothing of it is left."""
    reserved = _RESERVED.fullmatch(key)
    name = f"__{_INVALID.sub('_', reserved[1])}__" if reserved else _INVALID.sub("_", key)
    if not name.strip("_"):
        return ""
    return f"key_{name}" if name[0].isdigit() else name


def _as_text(value: AnyValue) -> str:
    match value.WhichOneof("value"):
        case None:
            return ""
        case "string_value":
            return value.string_value
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "double_value" if not math.isfinite(value.double_value):
            return "NaN" if math.isnan(value.double_value) else f"{'-' * (value.double_value < 0)}Infinity"
    return tags.json_text(value)
