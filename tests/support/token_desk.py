"""The use cases of refresh tokens, put together as the API does it, and the families that they need."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from typing import NamedTuple

import msgspec
from redis.asyncio import Redis

from api.logins.commanding import Commanding, Limits
from api.logins.completing import TokenTerms
from api.logins.guard import Guard
from api.logins.waiting import Waiting
from api.request.address import Sender
from api.tokens.commanding import FamilyCommanding
from api.tokens.introspecting import Introspecting
from api.tokens.logging_out import LoggingOut
from api.tokens.opening import OpeningFamilies
from api.tokens.refreshing import Refreshing
from api.tokens.revoking import Revoking
from api.tokens.upgrading import Upgrading
from projects.audit import Refusals
from projects.budgets import Guesses
from projects.project import Project
from runtime.codes import RefreshToken, mint_refresh_token, new_session_id, parse_refresh_token
from runtime.redis.connections import subscriber
from runtime.redis.keys import Keys
from runtime.settings import Settings
from statemachine.session import Flow
from statemachine.store.command_stream import CommandStream
from statemachine.store.reading import Sessions
from tests.support.relay import PROJECT
from tests.support.store import token_retention_of
from tokens.commands import RefreshFamily
from tokens.family import Family, Opening, opened
from tokens.sealing import seal
from tokens.store.reading import Families
from tokens.store.recording import Subjects, open_family

SUBJECT = "user:42"
DAY_MS = 86_400_000


class Caller(NamedTuple):
    """Who asks: a checked caller, from a documentation address."""

    project: Project
    is_backend: bool = False
    flow: Flow = Flow.CLI
    sender: Callable[[], Sender] = lambda: Sender("192.0.2.1", "192.0.2.1", "tool/1")

    def key_name(self) -> str:
        """Return the name of the key."""
        return "publishable_client_key"


def caller(project_id: str = PROJECT) -> Caller:
    """Return a caller of a project."""
    return Caller(Project(project_id, "acme", allow_client_complete=False, created_at=0, keys={}))


class TokenDesk(NamedTuple):
    """What can be done with refresh tokens."""

    redis: Redis
    keys: Keys
    settings: Settings
    waiting: Waiting
    families: Families
    refreshing: Refreshing
    revoking: Revoking
    introspecting: Introspecting
    logging_out: LoggingOut
    opening: OpeningFamilies
    upgrading: Upgrading

    async def open(
        self,
        *,
        rotates: bool = True,
        subject: str = SUBJECT,
        project_id: str = PROJECT,
        partition: int = 0,
        changed: Mapping[str, object] | None = None,
    ) -> tuple[RefreshToken, Family]:
        """Open a family and return its first token; `changed` are fields of the family as they should be."""
        token = mint_refresh_token(new_session_id(partition))
        now = await self.now()
        opening = Opening(
            token.family_digest, token.digest, subject, project_id, 30 * DAY_MS, 365 * DAY_MS, rotates=rotates
        )
        family = msgspec.structs.replace(opened(token.family_id, project_id, opening, now, now), **(changed or {}))
        await open_family(self.redis, self.keys, family, now, token_retention_of(self.settings))
        return token, family

    async def family(self, family_id: str) -> Family:
        """Return a family as it is now."""
        family, _ = await self.families.read(family_id)
        assert family is not None
        return family

    async def now(self) -> int:
        """Return Redis' time in milliseconds."""
        seconds, microseconds = await self.redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def successor_of(self, token: RefreshToken) -> RefreshToken:
        """Refresh, and return the token that replaces the one that is shown."""
        refreshed = await self.refreshing.refresh(caller(), token.text)
        assert refreshed.refresh_token is not None
        return parsed(refreshed.refresh_token, self.keys)

    async def events(self) -> list[dict[str, str]]:
        """Return the fields of all published events, partition by partition, in order."""
        found = []
        for partition in self.keys.partitions:
            found += await self.redis.execute_command("XRANGE", self.keys.events(partition), "-", "+")
        return [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in found]

    async def event_types(self) -> list[str]:
        """Return the types of all published events, in order."""
        return [event["type"] for event in await self.events()]


def parsed(text: str, keys: Keys) -> RefreshToken:
    """Return the parts of a token that the relay minted."""
    token = parse_refresh_token(text, len(keys.partitions))
    assert token is not None
    return token


def refresh_command(presented: RefreshToken, id_: str | None = None, patience: int = 4_000) -> RefreshFamily:
    """Return the command that a refresh records."""
    successor = presented.successor()
    return RefreshFamily(
        *(id_ or secrets.token_hex(16), presented.family_id, "api", patience, presented.generation),
        *(presented.family_digest, presented.digest, successor.digest, seal(successor, presented)),
    )


@contextlib.asynccontextmanager
async def token_desk(redis: Redis, keys: Keys, settings: Settings) -> AsyncIterator[TokenDesk]:
    """The use cases, with their listener, for the duration of the context."""
    families, retention = Families(redis, keys), token_retention_of(settings)
    sessions = Sessions(redis, keys)
    waiting = Waiting(
        subscriber(settings, "login-relay:test-subscriber"), sessions, keys, secrets.token_hex(8), period=0.2
    )
    limits = Limits(
        settings.outcome_wait_ms, settings.replay_window_ms, settings.idempotency_ms, settings.backlog_limit
    )
    commanding = Commanding(CommandStream(redis, keys), sessions, waiting, keys, limits)
    of_families = FamilyCommanding(redis, keys, waiting, commanding, limits)
    guard = Guard(
        Guesses(redis, keys, window_ms=60_000, per_address=3, per_key=1_000, per_project=1_000),
        Refusals(redis, keys, window_ms=60_000, retention_ms=settings.retention_ms),
    )
    listening = asyncio.create_task(waiting.run())
    try:
        yield TokenDesk(
            redis,
            keys,
            settings,
            waiting,
            families,
            Refreshing(families, of_families, guard, keys, retention),
            Revoking(families, of_families, keys),
            Introspecting(families, keys, grace_ms=retention.grace_ms),
            LoggingOut(Subjects(redis, keys, retention)),
            OpeningFamilies(
                redis, keys, TokenTerms(settings.refresh_token_idle_ms, settings.refresh_token_life_ms), retention
            ),
            Upgrading(of_families, keys),
        )
    finally:
        listening.cancel()
        await asyncio.wait({listening}, timeout=1)
