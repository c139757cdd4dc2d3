"""Errors that the user can fix."""

from local.errors import LocalError


class ScenarioError(LocalError):
    """An error whose message says in one sentence what is wrong and what to do."""
