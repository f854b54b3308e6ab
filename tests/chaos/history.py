"""The history of a run's clients: every request with its answer, and the result of every login."""

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

TOKEN_PREFIX = "rt-chaos-"  # marks a token, which must appear nowhere in clear

TOLERANCE = 1.0  # seconds that an answer may come later than its bound, on a machine that is not late itself

CLOCKS_APART = 0.05  # seconds that two clocks of one machine may differ, as read here


class Result(StrEnum):
    """What a client knows after a request."""

    OK = "ok"
    """Done: initiated, completed, or the token received."""
    REFUSED = "refused"
    """Refused: the answer says that nothing was done."""
    UNKNOWN = "unknown"
    """No answer, or a 5xx: it was done or it was not."""


@dataclass(frozen=True)
class Operation:
    """One request. Times are seconds of the run's clock."""

    kind: str
    """`initiate`, `complete`, `deny`, `cancel` or `poll`."""
    actor: str
    """The sender: the same for all requests with one Idempotency-Key, another for every request without."""
    started: float
    ended: float
    hold: float
    """How long it asked to be held, in seconds."""
    bound: float
    """How long the relay may let it wait, in seconds, including the hold."""
    result: Result
    answer: str
    """The status of a poll's answer, else the HTTP status, or why there was none."""
    token: str | None = None
    """The token sent to be handed over, or received."""
    keyed: bool = True
    """Whether it carried an Idempotency-Key."""


@dataclass
class Attempt:
    """One login, from its initiate on."""

    session_id: str
    polling_code: str
    operations: list[Operation] = field(default_factory=list)
    ended_as: str = ""
    """How it ended for its client; empty until then."""

    def of(self, kind: str) -> list[Operation]:
        """Return its operations of one kind."""
        return [operation for operation in self.operations if operation.kind == kind]

    @property
    def completed_with(self) -> set[str]:
        """The tokens whose completion was acknowledged with 200."""
        return {
            operation.token for operation in self.of("complete") if operation.result is Result.OK and operation.token
        }

    @property
    def received(self) -> dict[str, str]:
        """The token by each poller that received one."""
        return {operation.actor: operation.token for operation in self.of("poll") if operation.token is not None}


@dataclass
class History:
    """All logins of a run, and the initiates that led to no login known to a client."""

    attempts: list[Attempt] = field(default_factory=list)
    initiates: list[Operation] = field(default_factory=list)

    def operations(self) -> list[Operation]:
        """Return every operation in the order of its end."""
        of_attempts = (operation for attempt in self.attempts for operation in attempt.operations)
        return sorted((*self.initiates, *of_attempts), key=lambda operation: operation.ended)


def token_for(secret: str, who: str) -> str:
    """Return the refresh token that the backend `who` sends; nobody else can guess it."""
    return f"{TOKEN_PREFIX}{hashlib.sha256(f'{secret}:{who}'.encode()).hexdigest()[:24]}"
