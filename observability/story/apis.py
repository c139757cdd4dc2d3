"""The HTTP APIs of Jaeger, Loki and Prometheus, and how to go on when one of them does not answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import quote

import structlog

from observability.story.asking import ASK_SECONDS, ask
from observability.story.backends import NOT_UNDERSTOOD, oldest_first, understood
from observability.story.errors import LoginNeeded, StoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from observability.story.backends import Line
    from observability.story.window import Window

_T = TypeVar("_T")
_U = TypeVar("_U")

_WORKERS = 8


class Refused(StoryError):
    """An API does not take a question. The message is its own."""


@dataclass(frozen=True)
class Prometheus:
    """Prometheus' HTTP API."""

    root: str
    seconds: float = ASK_SECONDS
    """How long an answer may take."""

    def now(self, query: str, at: float | None = None) -> list[dict[str, Any]]:
        """Give the series of an instant query, of now or of another moment."""
        return self._result("/api/v1/query", {"query": query} | ({} if at is None else {"time": f"{at:.3f}"}))

    def over(self, query: str, window: Window, step: int) -> list[dict[str, Any]]:
        """Give the series of a query over time."""
        return self._result("/api/v1/query_range", {"query": query, **window.seconds(), "step": str(step)})

    def exemplars(self, query: str, window: Window) -> list[dict[str, Any]]:
        """Give the traces that histograms name."""
        found: list[dict[str, Any]] = self._ask("/api/v1/query_exemplars", {"query": query, **window.seconds()}) or []
        return found

    def alerts(self) -> list[dict[str, Any]]:
        """Give the alerts that are pending or fire."""
        found: list[dict[str, Any]] = self._ask("/api/v1/alerts", {})["alerts"]
        return found

    def rules(self) -> dict[str, str]:
        """Give the expression of each alert, by its name, and by its name and severity: a page may be a ticket, too."""
        groups = self._ask("/api/v1/rules", {"type": "alert"})["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        named = {rule["name"]: rule["query"] for rule in rules}
        return named | {
            f"{rule['name']} {(rule.get('labels') or {}).get('severity', '')}": rule["query"] for rule in rules
        }

    def label_values(self, label: str, selector: str) -> list[str]:
        """Give the values of a label."""
        found: list[str] = self._ask(f"/api/v1/label/{quote(label, safe='')}/values", {"match[]": selector}) or []
        return found

    def _result(self, path: str, fields: Mapping[str, str]) -> list[dict[str, Any]]:
        data = self._ask(path, fields)
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        found: list[dict[str, Any]] = data["result"]
        return found

    def _ask(self, path: str, fields: Mapping[str, str]) -> Any:
        return _said("Prometheus", self.root, path, fields, self.seconds, lambda said: said.get("error"))["data"]


@dataclass(frozen=True)
class Loki:
    """Loki's HTTP API."""

    root: str
    public: str = ""
    """The same, as the reader's machine reaches it, for those who show it."""
    seconds: float = ASK_SECONDS
    """How long an answer may take."""
    path: ClassVar[str] = "/loki/api/v1/query_range"

    @staticmethod
    def fields(query: str, window: Window, *, limit: int = 200, step: int = 0) -> dict[str, str]:
        """Give the parameters of a query over time."""
        return {"query": query, **window.nanoseconds(), "limit": str(limit)} | ({"step": str(step)} if step else {})

    def query(self, query: str, window: Window, *, limit: int = 200, step: int = 0) -> dict[str, Any]:
        """Give `resultType` and `result` of a query over time, newest lines first.

        Raises:
            Refused: The query is wrong; the message says where.
        """
        data = self._ask(self.path, self.fields(query, window, limit=limit, step=step))
        with understood("Loki"):
            return {name: data[name] for name in ("resultType", "result")}

    def count(self, query: str, at: float) -> list[dict[str, Any]]:
        """Give the series of a metric query at a moment.

        Raises:
            Refused: The query is wrong; the message says where.
        """
        data = self._ask("/loki/api/v1/query", {"query": query, "time": str(int(at * 1e9))})
        with understood("Loki"):
            found: list[dict[str, Any]] = data["result"]
            return found

    def lines(self, query: str, window: Window, *, limit: int = 200) -> list[Line]:
        """Give the lines that a query finds, newest first."""
        return oldest_first(self.query(query, window, limit=limit)["result"])[::-1]

    def _ask(self, path: str, fields: Mapping[str, str]) -> Any:
        said = _said("Loki", self.root, path, fields, self.seconds, lambda _: None)
        with understood("Loki"):
            return said["data"]


@dataclass(frozen=True)
class Jaeger:
    """Jaeger's HTTP API."""

    root: str
    public: str = ""
    """The same, as the reader's machine reaches it, for those who show it."""
    seconds: float = ASK_SECONDS
    """How long an answer may take."""

    def services(self) -> list[str]:
        """Give the services that have sent spans."""
        return sorted(self._ask("/api/services", {}) or [])

    def operations(self, service: str) -> list[str]:
        """Give the names of a service's spans."""
        return sorted({one["name"] for one in self._ask("/api/operations", {"service": service}) or []})

    def search(self, fields: Mapping[str, str]) -> list[dict[str, Any]]:
        """Give the traces that a search finds."""
        return self._ask("/api/traces", {name: value for name, value in fields.items() if value}) or []

    def calls(self, window: Window) -> list[dict[str, Any]]:
        """Give who calls whom."""
        fields = {"endTs": str(int(window.end * 1000)), "lookback": str(int((window.end - window.start) * 1000))}
        return self._ask("/api/dependencies", fields) or []

    def _ask(self, path: str, fields: Mapping[str, str]) -> Any:
        def reason(said: Mapping[str, Any]) -> Any:
            return said["errors"][0]["msg"] if said.get("errors") else None

        return _said("Jaeger", self.root, path, fields, self.seconds, reason)["data"]


def attempt(errors: list[str], make: Callable[[], _T], otherwise: Callable[[], Any], *leave: type[StoryError]) -> _T:
    """Ask, and read the answer; where that fails, note why once, and let the rest of the page go on.

    Args:
        errors: Where to note it.
        make: What to do.
        otherwise: What to go on with.
        leave: What the caller handles itself.

    Raises:
        LoginNeeded: The reader has to sign in first.
    """
    passed_on: tuple[type[StoryError], ...] = (LoginNeeded, *leave)
    try:
        return make()
    except passed_on:
        raise
    except StoryError as error:
        said = str(error)
    except NOT_UNDERSTOOD as error:  # an API of another version, or something else at its port
        structlog.get_logger().warning("answer.not_understood", exc_info=error)
        said = f"An answer has an unknown form ({type(error).__name__}): the console's log says more."
    if said not in errors:
        errors.append(said)
    empty: _T = otherwise()
    return empty


def together(function: Callable[[_T], _U], things: Iterable[_T]) -> Sequence[_U]:
    """Do it to all, some at a time, and give the results in their order; the limits of the request hold for all."""
    with ThreadPoolExecutor(_WORKERS) as workers:
        waiting = [workers.submit(copy_context().run, function, each) for each in things]
        return [each.result() for each in waiting]


def _said(  # noqa: PLR0913, PLR0917  # what a question is made of
    who: str,
    root: str,
    path: str,
    fields: Mapping[str, str],
    seconds: float,
    reason: Callable[[Mapping[str, Any]], Any],
) -> dict[str, Any]:
    """Ask an API, and give the JSON that it answers; `reason` finds in another answer's JSON why it is none.

    Raises:
        Refused: The question is wrong.
        StoryError: The API does not answer, or is not well.
    """
    answer = ask(who, root + path, fields, seconds=seconds)
    said = answer.json()
    if answer.status == HTTPStatus.OK and isinstance(said, dict):
        return said
    why = str((reason(said) if isinstance(said, dict) else None) or answer.text())
    if answer.status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}:
        raise Refused(why)
    raise StoryError(f"{who}'s API at {root} answers {answer.status}: {why or 'no reason is given'}")
