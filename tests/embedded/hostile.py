"""What other people's SDKs and attackers send: OTLP with one odd record beside a healthy one."""

import json
import os
import time


def attribute(key, **value):
    return {"key": key, "value": value}


def span(name="healthy", **fields):
    now = time.time_ns() - 10**9
    return {
        "traceId": os.urandom(16).hex(),
        "spanId": os.urandom(8).hex(),
        "name": name,
        "kind": 1,
        "startTimeUnixNano": str(now),
        "endTimeUnixNano": str(now + 10**6),
        **fields,
    }


def record(text="healthy", **fields):
    return {"timeUnixNano": str(time.time_ns()), "body": {"stringValue": text}, **fields}


def traces(*spans, service="hostile", resource=()):
    named = [attribute("service.name", stringValue=service), *resource]
    return {"resourceSpans": [{"resource": {"attributes": named}, "scopeSpans": [{"spans": list(spans)}]}]}


def logs(*records, service="hostile", resource=()):
    named = [attribute("service.name", stringValue=service), *resource]
    return {"resourceLogs": [{"resource": {"attributes": named}, "scopeLogs": [{"logRecords": list(records)}]}]}


def body(request, **parts):
    """The request as JSON, with words in it replaced by what a clean encoder would not write."""
    text = json.dumps(request)
    for word, part in parts.items():
        text = text.replace(word, part)
    return text.encode("utf-8", "surrogatepass")
