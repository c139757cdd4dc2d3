"""A complete analysis: queries the backends, finds causes, and fetches the log lines of the shown trace."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from observability.story import backends
from observability.story.errors import StoryError
from observability.why.diagnose import Diagnosis
from observability.why.gather import PATIENCE, SECONDS, gather, lines_of, within

if TYPE_CHECKING:
    from collections.abc import Callable

    from observability.why.answer import Answer
    from observability.why.evidence import Evidence
    from observability.why.gather import Backends

_MOST_LINES = 10
_MOST_SPENT = 4.0


def look_at(
    apis: Backends,
    at: float | None = None,
    since: float | None = None,
    said: Callable[[str], None] = lambda _: None,
    *,
    spent: float = 0.0,
) -> Answer:
    """Query these backends and find causes.

    Args:
        apis: The backends.
        at: The time to analyse, in seconds since 1970; by default now.
        since: How many seconds before that the trouble may have begun; see `gather`.
        said: Is called with a description of each step.
        spent: Seconds that have already passed of the ten seconds within which the answer has to come.

    Raises:
        StoryError: None of the backends can be queried.
    """
    began = time.monotonic()
    now = time.time() if at is None else at
    spent = min(spent, _MOST_SPENT)
    with within(SECONDS - spent):
        evidence = gather(apis, now, None if since is None else now - since, said, PATIENCE - spent)
        answer = _look(apis, evidence, said)
    answer.seconds = round(time.monotonic() - began, 2)
    return answer


def _look(apis: Backends, evidence: Evidence, said: Callable[[str], None]) -> Answer:
    if not apis.answered:
        raise StoryError(f"The telemetry cannot be looked at: {' '.join(apis.missing.values())}")
    said("reasoning")
    diagnosis = Diagnosis(evidence)
    answer = diagnosis.answer()
    if answer.pair and diagnosis.first:
        bad = diagnosis.first.bad[answer.pair.bad]
        lines, answer.lines_query = lines_of(apis, bad), backends.lines_query(bad.trace.trace_id)
        about = {cause.service for cause in answer.causes[:1]}
        told = [line for line in lines if line.level not in {"info", "debug"} or line.service in about]
        answer.lines = [
            {
                "time": line.time,
                "trace_id": bad.trace.trace_id,
                "span_id": line.span_id,
                "service": line.service,
                "level": line.level,
                "event": line.event,
                "fields": line.fields,
            }
            for line in told[:_MOST_LINES]
        ]
    return answer
