"""Initiates sessions within the budgets: writes each with its login code, its deadline and its first event."""

from collections.abc import Callable
from typing import NamedTuple, get_args

import msgspec
from redis.asyncio import Redis

from events.cloud_event import EVENT_SOURCE, encode_event
from projects.budgets import InitiationLimits
from projects.errors import InitiationBudget, InitiationRefusedError
from runtime.address import UNKNOWN_ADDRESS, counted_as
from runtime.codes import (
    DEVICE_CODE_PREFIX,
    POLLING_CODE_PREFIX,
    login_code_digest,
    new_login_code,
    new_polling_code,
    new_session_id,
)
from runtime.redis.keys import Keys
from runtime.redis.scripts import Argument, Script, run_script
from statemachine.events import SessionInitiated
from statemachine.sealing import public_key
from statemachine.session import BY_ANONYMOUS, ClientFacts, DeviceRequest
from statemachine.store.retention import Retention

MAX_LIFETIME_MS = 86_400_000  # the bound of `expires_in_millis` in docs/wire.md
MAX_REFUSALS = 3  # partitions whose share of a budget is used up, until the whole budget counts as used up

_INITIATE = Script.named("statemachine.store", "initiate")
_BUDGETS: dict[bytes, InitiationBudget] = {budget.encode(): budget for budget in get_args(InitiationBudget)}
_json = msgspec.json.Encoder()


class Initiated(NamedTuple):
    """What a tool receives of a new session."""

    session_id: str
    login_code: str
    polling_code: str
    expires_at: int
    lifetime_ms: int


class Initiations:
    """Initiates sessions. Each partition has its share of the budgets."""

    def __init__(
        self, redis: Redis, keys: Keys, limits: InitiationLimits, retention: Retention, *, pickup_window_ms: int
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._share = limits.share(len(keys.partitions))
        self._retention = retention
        self._events_max = retention.events_share(len(keys.partitions))
        self._pickup_window_ms = pickup_window_ms

    async def initiate(  # noqa: PLR0913 - what a session is
        self,
        project_id: str,
        client: ClientFacts,
        lifetime_ms: int,
        draw_login_code: Callable[[], str] = new_login_code,
        *,
        address: str = UNKNOWN_ADDRESS,
        code_challenge: str | None = None,
        live_sessions_of_address: int | None = None,
        device: DeviceRequest | None = None,
        anonymous_family: str | None = None,
    ) -> Initiated:
        """Write and return a new pending session; draw login codes until one is free in the project.

        `address` is the address of the tool's request; the session keeps it if it is known.
        `live_sessions_of_address` is the project's own limit of live sessions, if it has one.
        `device` is what an OAuth client asked for; None: the session is not one of RFC 8628, and its tool may be of an
        anonymous subject, with the family `anonymous_family`.

        The key of the login code holds the session's id, its sealing key and the scope that an OAuth client asked for,
        which the session has too, or the anonymous family. So a completion needs one look-up, and no read of the
        session, before it can seal.

        A refusal may concern one partition only, so another login code is drawn, of another partition.

        Raises:
            InitiationRefusedError: a budget of the address or of the project is used up.

        """
        keys = self._keys
        counted = counted_as(address)
        facts: list[Argument] = [] if code_challenge is None else ["code_challenge", code_challenge]
        if address != UNKNOWN_ADDRESS:
            facts += ["address", address]
        if device is not None:
            facts += ["scope", device.scope]
            if device.client_id != project_id:
                facts += ["client_id", device.client_id]
        share = self._share
        if live_sessions_of_address is not None:
            share = share._replace(live_sessions_of_address=-(-live_sessions_of_address // len(keys.partitions)))
        data = encode_event(SessionInitiated(project_id, lifetime_ms, client))
        refusals = 0
        while True:
            login_code = draw_login_code()
            digest = login_code_digest(project_id, login_code)
            partition = keys.partition_of_login(digest)
            session_id = new_session_id(partition)
            polling_code = new_polling_code(session_id, POLLING_CODE_PREFIX if device is None else DEVICE_CODE_PREFIX)
            call = _INITIATE.call(
                session=keys.session(session_id),
                login=keys.login(digest),
                deadlines=keys.deadlines(partition),
                events=keys.events(partition),
                of_address=keys.initiations_of_address(partition, project_id, counted),
                of_project=keys.initiations_in_project(partition, project_id),
                live_sessions=keys.live_sessions(partition, project_id),
                live_of_address=keys.live_sessions_of_address(partition, project_id, counted),
                session_id=session_id,
                project_id=project_id,
                polling_digest=polling_code.digest,
                sealing_key=public_key(polling_code.text),
                begun_by=_begun_by(device, anonymous_family),
                client=_json.encode(client),
                lifetime_ms=lifetime_ms,
                pickup_window_ms=self._pickup_window_ms,
                pending_ms=self._retention.pending_ms,
                retention_ms=self._retention.remembered_ms,
                events_max=self._events_max,
                event_source=EVENT_SOURCE,
                event_data=data,
                window_ms=share.window_ms,
                address_limit=share.per_address,
                project_limit=share.per_project,
                live_limit=share.live_sessions,
                live_of_address_limit=share.live_sessions_of_address,
                facts=facts,
            )
            match await run_script(self._redis, _INITIATE, call):
                case [b"initiated", int(expires_at)]:
                    return Initiated(session_id, login_code, polling_code.text, expires_at, lifetime_ms)
                case [b"taken"]:
                    continue
                case [b"refused", bytes(budget), int(wait_ms), int(now)]:
                    refusals += 1
                    if refusals == min(MAX_REFUSALS, len(keys.partitions)):
                        raise InitiationRefusedError(_BUDGETS[budget], wait_ms, now)
                case reply:
                    message = f"initiate.lua answered {type(reply).__name__}"
                    raise TypeError(message)


def _begun_by(device: DeviceRequest | None, anonymous_family: str | None) -> str:
    """Return what the key of a login code says of who began its session (`LoginCodeHolder.read`)."""
    if anonymous_family is not None:
        return BY_ANONYMOUS + anonymous_family
    return "" if device is None else device.scope
