"""Errors about projects. Their messages never hold a key."""

from typing import Literal

from runtime.errors import LoginRelayError

InitiationBudget = Literal["address", "project", "live_sessions", "live_sessions_of_address"]


class ProjectNameTakenError(LoginRelayError):
    """Another project has this name; names are unique."""


class UnknownProjectError(LoginRelayError):
    """No project has this id or name."""


class InitiationRefusedError(LoginRelayError):
    """No session was initiated: a budget is used up."""

    def __init__(self, budget: InitiationBudget, wait_ms: int, now: int) -> None:
        super().__init__(budget)
        self.budget = budget
        self.wait_ms = wait_ms
        """The time until another attempt may succeed."""
        self.now = now
        """Redis time in milliseconds."""
