"""What bodies have in common."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import TypeAdapter

from servicekit.web.openapi import Answer, Moment


class Dated(Answer):
    at: Moment
    ended: Moment | None = None


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (datetime(2026, 11, 28, 12, 0, 0, 0, UTC), "2026-11-28T12:00:00.000000Z"),
        (datetime(2026, 11, 28, 12, 0, 0, 500_000, UTC), "2026-11-28T12:00:00.500000Z"),
        (datetime(2026, 11, 28, 12, 0, 0, 1, timezone(timedelta(hours=2))), "2026-11-28T12:00:00.000001+02:00"),
    ],
)
def test_a_time_has_its_fraction_also_when_it_is_0(at, text):
    assert Dated(at=at).model_dump(mode="json") == {"at": text, "ended": None}


def test_a_time_is_declared_as_one():
    schema = TypeAdapter(Dated).json_schema(mode="serialization")["properties"]
    assert schema["at"] == {"type": "string", "format": "date-time", "title": "At"}
    assert schema["ended"]["anyOf"][0] == {"type": "string", "format": "date-time"}
