"""What a stack is made of, as data: long-running parts, and tasks that end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Check = Callable[[], str | None]
"""Says in a few words why a part cannot serve yet, or None when it can."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A program that runs until it is stopped, and is started again when it ends by itself."""

    name: str
    port: int
    """TCP port on 127.0.0.1."""
    port_setting: str
    """The environment variable that chooses the port."""
    command: Callable[[], list[str]]
    """Prepares the start and gives the arguments, the program first. It must stay in the foreground."""
    ready: Check
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """Names of the steps that must be done before this one starts."""
    stop_signal: str = "TERM"
    """The name, without SIG, of the signal for a graceful stop."""
    stop_seconds: int = 15
    """How long a graceful stop may take before SIGKILL."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something to be done once on the way up."""

    name: str
    run: Callable[[], str]
    """Does it, and says in a few words what was done. Raises LocalError or StepError."""
    needs: tuple[str, ...] = ()


Step = Part | Task


@dataclass(frozen=True, kw_only=True)
class Stack:
    """All steps, each after those that it needs, and what to tell the person when all is up."""

    steps: tuple[Step, ...]
    welcome: str = ""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The long-running ones, in the order of their start."""
        return tuple(step for step in self.steps if isinstance(step, Part))

    def dependents(self, name: str) -> set[str]:
        """Name the parts that need the step `name`, directly or through others."""
        found = {name}
        for step in self.steps:
            if found.intersection(step.needs):
                found.add(step.name)
        return found.intersection(part.name for part in self.parts) - {name}
