"""What a stack is made of, as data: long-running parts, and tasks that end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from local.settings import Settings

    Build = Callable[[Settings], "Stack"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A program that runs until it is stopped, and is started again when it ends by itself."""

    name: str
    ports: Mapping[str, int]
    """TCP ports on 127.0.0.1, each by the environment variable that chooses it."""
    command: Callable[[], list[str]]
    """Prepares the start and gives the arguments: `ending_with_parent`, and it must stay in the foreground."""
    ready: Callable[[], str | None]
    """Says in a few words why the part cannot serve yet, or None when it can."""
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """Names of the steps that must be done before this one starts."""
    outlived_by: tuple[str, ...] = ()
    """Names of parts before this one that are stopped after it, though it can start without them."""
    stop_signal: str = "TERM"
    """The name, without SIG, of the signal for a graceful stop."""
    stop_seconds: int = 15
    """How long a graceful stop may take before SIGKILL."""
    optional: bool = False
    """The stack does without it where `command` raises LocalError: this machine has no such program."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something to be done once on the way up."""

    name: str
    run: Callable[[], str]
    """Does it, and says in a few words what was done. Raises LocalError."""
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Stack:
    """All steps, each after those that it needs, and what to tell the person when all is up."""

    steps: tuple[Part | Task, ...]
    welcome: str = ""
    check: Callable[[], None] = lambda: None
    """Looks, before anything is started, for what would keep the parts from starting. Raises LocalError."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The long-running ones, in the order of their start."""
        return tuple(step for step in self.steps if isinstance(step, Part))


def ending_with_parent(signal: str, *command: str) -> list[str]:
    """Let the kernel send a command this signal when its parent dies, of whatever: no orphan keeps a port."""
    return ["setpriv", f"--pdeathsig={signal}", "--", *command]
