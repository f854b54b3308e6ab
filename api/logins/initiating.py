"""Starting a login."""

import structlog
from redis.exceptions import OutOfMemoryError

from api.logins.guard import Asker, Guard
from api.logins.refusals import BindingRequired, StoreFull
from api.request.metrics import INITIATED
from api.request.note import note_count, note_session
from projects.errors import InitiationRefusedError
from statemachine.session import ClientFacts, DeviceRequest
from statemachine.store.initiating import Initiated, Initiations

_log = structlog.get_logger("api")


class Initiating:
    """Starts sessions."""

    def __init__(self, store: Initiations, guard: Guard, *, lifetime_ms: int, longest_lifetime_ms: int) -> None:
        self._store = store
        self._guard = guard
        self._lifetime_ms = lifetime_ms
        """Of a session whose tool asks for none."""
        self._longest_lifetime_ms = longest_lifetime_ms
        """Of a session whose project allows no other."""

    async def start(
        self,
        asker: Asker,
        facts: ClientFacts,
        *,
        lifetime_ms: int | None,
        code_challenge: str | None,
        device: DeviceRequest | None = None,
        anonymous_family: str | None = None,
    ) -> Initiated:
        """Start a session, whose lifetime is cut to the longest that its project allows.

        `device` is what an OAuth client asks for; `anonymous_family` that of the tool, if its subject is anonymous.

        Raises:
            BindingRequired: there is no challenge, and the project requires one.
            TooManyLogins: a budget is used up.
            StoreFull: Redis has no memory for another session.

        """
        policy = asker.project.policy
        if policy.require_binding and code_challenge is None:
            raise BindingRequired
        try:
            initiated = await self._store.initiate(
                asker.project.id,
                facts,
                min(lifetime_ms or self._lifetime_ms, policy.longest_lifetime_ms or self._longest_lifetime_ms),
                address=asker.sender().address,
                code_challenge=code_challenge,
                live_sessions_of_address=policy.live_sessions_per_address,
                device=device,
                anonymous_family=anonymous_family,
            )
        except InitiationRefusedError as refused:
            raise await self._guard.no_session(asker, refused) from None
        except OutOfMemoryError:
            _log.warning("no session was added: redis is at its maxmemory")
            raise StoreFull from None
        note_session(initiated.session_id)
        note_count(INITIATED)
        return initiated
