"""Suspects: places that may be the cause, and rules that merge suspects with the same cause."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from observability.why.signals import DATABASE

if TYPE_CHECKING:
    from observability.why.requests import Request

_OF_STATEMENT = re.compile(r"(?!57P|08|53)[0-9A-Z]{5}")
"""SQLSTATEs that concern a single statement; the others mean that PostgreSQL serves nobody."""


@dataclass(frozen=True)
class Place:
    """A part of the system that can be a cause."""

    service: str
    operation: str
    waits: bool = False
    """Whether it is the time between a call and the called service's span."""
    caller: str = ""
    database: bool = False


@dataclass
class Suspect:
    """A place, and the requests that it made bad."""

    place: Place
    bad: dict[str, Request] = field(default_factory=dict)
    """Requests by trace id."""
    rate: float = 0.0
    """Bad requests per second."""
    lost: float = 0.0
    """Seconds per second that users lose because of it."""
    failed: int = 0
    slow: int = 0
    changed: int = 0
    """The numbers of requests that failed, were slow, or had another status than before."""
    chance: float = 1.0
    excess: float = 0.0
    """The extra time of the place itself, in microseconds."""
    errors: dict[tuple[str, str], int] = field(default_factory=dict)
    """Errors of the failed spans, by key and value."""
    queries: list[str] = field(default_factory=list)
    before: int = 0
    behind: list[Suspect] = field(default_factory=list)
    """Suspects that only wait for this one."""

    def take(self, other: Suspect, *, alike: bool = True) -> None:
        """Add another suspect's bad requests to this one; its errors too, if both are of the same kind."""
        self.bad |= other.bad
        self.rate += other.rate
        self.lost += other.lost
        self.chance = min(self.chance, other.chance)
        self.excess = max(self.excess, other.excess)
        self.queries += [query for query in other.queries if query not in self.queries]
        if alike:
            self.failed, self.slow = self.failed + other.failed, self.slow + other.slow
            self.changed += other.changed
            for error, count in other.errors.items():
                self.errors[error] = self.errors.get(error, 0) + count

    @property
    def kind(self) -> str:
        """The way in which most requests are bad."""
        return "latency" if self.slow > self.failed + self.changed else "errors"


def together(suspects: list[Suspect], *, dead: bool) -> list[Suspect]:
    """Merge the suspects of a dead database, and a suspect with those that only wait for it."""
    found = sorted(_one_service(_one_database(suspects, dead=dead)), key=lambda one: -one.lost)
    real = [one for one in found if not one.place.waits]
    for one in [each for each in found if each.place.waits]:
        below = next((other for other in real if _is_below(other, one)), None)
        if below:
            below.behind.append(one)
            below.take(one, alike=False)
            found.remove(one)
    return found


def _is_below(other: Suspect, waiting: Suspect) -> bool:
    """Return whether `other` explains why `waiting` waits: both are in one service, or its requests go there."""
    if other.place.service == waiting.place.service:
        return True
    place, above = other.place, waiting.place.service
    through = sum(request.below(place.service, place.operation, above) for request in other.bad.values())
    return through >= max(3, 0.5 * len(other.bad))


def _one_service(suspects: list[Suspect]) -> list[Suspect]:
    """Merge the suspects of a service if several kinds of calls to it fail."""
    first: dict[str, Suspect] = {}
    found = []
    for one in sorted(suspects, key=lambda one: -one.lost):
        if one.place.waits and one.place.service in first:
            first[one.place.service].take(one)
            continue
        if one.place.waits:
            first[one.place.service] = one
        found.append(one)
    return found


def _one_database(suspects: list[Suspect], *, dead: bool) -> list[Suspect]:
    statements = [
        one
        for one in suspects
        if one.place.database and not any(_OF_STATEMENT.fullmatch(value) for _, value in one.errors)
    ]
    services = {one.place.service for one in statements}
    failing = [one for one in statements if one.failed]
    if not (failing and dead) and len(services) < 2:  # noqa: PLR2004
        return suspects
    most = max(statements, key=lambda one: one.lost)
    whole = Suspect(place=Place(DATABASE, most.place.operation, database=True))
    for one in statements:
        whole.take(one)
    return [one for one in suspects if one not in statements] + [whole]
