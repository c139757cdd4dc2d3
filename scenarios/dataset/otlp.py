"""Converts results of Jaeger's and Loki's APIs to OTLP's JSON, as OpenTelemetry's file exporter writes it.

These APIs do not return everything: times of spans are in microseconds, and counts of dropped attributes are missing.
No library does this conversion: protobuf's own JSON has ids in base64 and kinds as names, which OTLP does not allow.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scenarios.dataset.gathering import Line

Fields = dict[str, Any]

_KINDS = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
_OK, _ERROR = 1, 2
_STATUSES = {"OK": _OK, "ERROR": _ERROR}
_BESIDE = {"span.kind", "otel.status_code", "otel.status_description", "error", "w3c.tracestate"}
"""Tags that are not attributes in OTLP."""
_SCOPE = {"otel.scope.name": "name", "otel.scope.version": "version"}
_TYPES = {"string": "stringValue", "bool": "boolValue", "float64": "doubleValue", "binary": "bytesValue"}
_SEVERITIES = {"debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}
_TRACE_ID, _SPAN_ID = re.compile("[0-9a-f]{32}"), re.compile("[0-9a-f]{16}")
_US = 1000
_LABELS = {
    "service_name": "service.name",
    "service_namespace": "service.namespace",
    "deployment_environment_name": "deployment.environment.name",
    "service_version": "service.version",
    "service_instance_id": "service.instance.id",
}
"""Loki's names for resource attributes."""


def of_trace(trace: Mapping[str, Any]) -> Fields:
    """Return an ExportTraceServiceRequest with a trace of Jaeger."""
    by_process: dict[str, dict[tuple[str, str], list[Fields]]] = defaultdict(lambda: defaultdict(list))
    for span in trace["spans"]:
        tags = {tag["key"]: tag for tag in span["tags"]}
        scope = tuple(str(tags[name]["value"]) if name in tags else "" for name in _SCOPE)
        by_process[span["processID"]][scope[0], scope[1]].append(_span(span, tags))
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _resource(trace["processes"][process])},
                "scopeSpans": [
                    {"scope": dict(zip(_SCOPE.values(), scope, strict=True)), "spans": spans}
                    for scope, spans in scopes.items()
                ],
            }
            for process, scopes in by_process.items()
        ]
    }


def of_lines(lines: Iterable[Line]) -> Fields:
    """Return an ExportLogsServiceRequest with log lines; each line is the body of a record, as in Loki."""
    by_stream: dict[tuple[tuple[str, str], ...], list[Fields]] = defaultdict(list)
    for line in lines:
        resource = tuple((_LABELS[name], value) for name, value in sorted(line.labels.items()) if name in _LABELS)
        by_stream[resource].append(_record(line))
    return {
        "resourceLogs": [
            {
                "resource": {"attributes": [_attribute(key, "string", value) for key, value in resource]},
                "scopeLogs": [{"scope": {}, "logRecords": records}],
            }
            for resource, records in by_stream.items()
        ]
    }


def text(request: Fields) -> str:
    """Return a request as a line of ASCII, because some readers also split lines at other characters."""
    return json.dumps(request, separators=(",", ":")) + "\n"


def _span(span: Mapping[str, Any], tags: Mapping[str, Fields]) -> Fields:
    def said(name: str) -> Any:
        return tags[name]["value"] if name in tags else ""

    own = (span["traceID"], "CHILD_OF")
    references = [(each["traceID"], each["refType"], each["spanID"]) for each in span["references"] or ()]
    parent = next((span_id for trace_id, kind, span_id in references if (trace_id, kind) == own), "")
    made = {
        "traceId": span["traceID"].rjust(32, "0"),
        "spanId": span["spanID"],
        "parentSpanId": parent,
        "traceState": said("w3c.tracestate"),
        "name": span["operationName"],
        "kind": _KINDS.get(said("span.kind"), 0),
        "startTimeUnixNano": str(span["startTime"] * _US),
        "endTimeUnixNano": str((span["startTime"] + span["duration"]) * _US),
        "attributes": [_of_tag(tag) for key, tag in tags.items() if key not in _BESIDE and key not in _SCOPE],
        "events": [_event(log) for log in span["logs"] or ()],
        "links": [
            {"traceId": trace_id.rjust(32, "0"), "spanId": span_id}
            for trace_id, kind, span_id in references
            if (trace_id, kind, span_id) != (*own, parent)
        ],
        "status": _status(said("otel.status_code"), said("error"), said("otel.status_description")),
    }
    return {name: value for name, value in made.items() if value not in ("", [], {})}


def _status(code: str, error: object, description: str) -> Fields:
    number = _ERROR if error in {True, "true"} else _STATUSES.get(code, 0)
    return ({"code": number} if number else {}) | ({"message": description} if description else {})


def _event(log: Mapping[str, Any]) -> Fields:
    name = next((field["value"] for field in log["fields"] if field["key"] == "event"), "")
    attributes = [_of_tag(field) for field in log["fields"] if field["key"] != "event"]
    return {"timeUnixNano": str(log["timestamp"] * _US), "name": name, "attributes": attributes}


def _resource(process: Mapping[str, Any]) -> list[Fields]:
    return [_attribute("service.name", "string", process["serviceName"]), *map(_of_tag, process.get("tags") or ())]


def _record(line: Line) -> Fields:
    level = line.labels.get("level", "")
    made = {
        "timeUnixNano": str(line.time),
        "severityNumber": _SEVERITIES.get(level, 0),
        "severityText": level,
        "body": {"stringValue": line.text},
        "attributes": [_attribute("level", "string", level)] if level else [],
        "traceId": _hex(_TRACE_ID, line.labels.get("trace_id", "")),
        "spanId": _hex(_SPAN_ID, line.labels.get("span_id", "")),
    }
    return {name: value for name, value in made.items() if value not in ("", [], 0)}


def _hex(form: re.Pattern[str], said: str) -> str:
    return said if form.fullmatch(said) else ""


def _of_tag(tag: Mapping[str, Any]) -> Fields:
    return _attribute(tag["key"], tag.get("type", "string"), tag["value"])


def _attribute(key: str, kind: str, value: Any) -> Fields:
    if kind == "int64":
        return {"key": key, "value": {"intValue": str(value)}}
    if value is None:  # Jaeger's form of empty bytes
        value = ""
    return {"key": key, "value": {_TYPES.get(kind, "stringValue"): value}}
