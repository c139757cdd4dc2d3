"""The canary in local mode, and that it would be found."""

import pytest

from tests.telemetry.canary_tests import *  # noqa: F403
from tests.telemetry.marks import Marks


@pytest.mark.parametrize(
    "doctored",
    [
        '{{"event":"login.rejected","username":"{}"}}',
        '{{"key":"url.query","value":"q={}"}}',
        'logins_total{{user="x{}y"}} 1.0',
        "DETAIL:  Key (lower(username))=({}) already exists.",
        "%2F{}",
    ],
)
def test_a_mark_is_found_wherever_it_is_and_in_whatever_case(doctored):
    marks = Marks()
    mark = marks("password")
    for text in (mark, mark.upper(), mark[:16]):
        assert marks.found_in(doctored.format(text))
    assert not marks.found_in(doctored.format("harmless"))


def test_a_found_mark_tells_where_it_was_put():
    marks = Marks()
    marks("password")
    cookie = marks("cookie")
    assert {place for place, _ in marks.found_in(f"Cookie: {cookie}")} == {"cookie"}
    marks.also("eyJhbGciOi", "token")
    assert {place for place, _ in marks.found_in("Bearer eyJhbGciOi.x.y")} == {"token"}
