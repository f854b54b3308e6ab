"""Whatever headers come together, nobody gets more than the strongest right key among them gives."""

import asyncio
import uuid
from collections.abc import Iterator
from typing import NamedTuple

import hypothesis
import pytest
from hypothesis import strategies as st

from api.access import Access, AccessType
from api.admin_tokens import AdminTokens
from api.errors import KnownError
from statemachine.connections import command_client
from statemachine.keys import Keys
from statemachine.projects import KeyKind, Projects
from statemachine.settings import Settings
from tests.conftest import RedisServer, remove_keys

KEY_HEADERS = {
    "publishable-client-key": (AccessType.CLIENT, KeyKind.PUBLISHABLE_CLIENT),
    "secret-server-key": (AccessType.SERVER, KeyKind.SECRET_SERVER),
    "super-secret-admin-key": (AccessType.ADMIN, KeyKind.SUPER_SECRET_ADMIN),
}
NAMES = [
    prefix + suffix
    for prefix in ("x-stack-", "x-hexclave-")
    for suffix in (*KEY_HEADERS, "project-id", "access-type", "admin-access-token", "override-error-status")
]


class Known(NamedTuple):
    """Two projects; headers are made of what belongs to either."""

    settings: Settings
    values: dict[str, dict[KeyKind, str]]
    """The keys of each project, by its id."""


@pytest.fixture(scope="module")
def known(redis_server: RedisServer) -> Iterator[Known]:
    """The projects, until all tests of this file have ended."""
    settings = Settings(redis_url=redis_server.url, prefix=f"fuzz-{uuid.uuid4().hex[:12]}")
    keys = Keys(settings.prefix, settings.partitions)

    async def create() -> dict[str, dict[KeyKind, str]]:
        redis = command_client(settings, "login-relay:test")
        made = [await Projects(redis, keys).create(name, allow_client_complete=False) for name in ("one", "two")]
        await redis.aclose()
        return dict(made)

    yield Known(settings, asyncio.run(create()))
    remove_keys(redis_server, keys)


@hypothesis.settings(deadline=None, max_examples=400)
@hypothesis.given(data=st.data())
def test_no_combination_of_headers_gives_more_than_its_strongest_right_key(known: Known, data: st.DataObject) -> None:
    """Both spellings of everything, with right values in wrong places, another project's, empty ones and noise."""
    secrets = [key for keys in known.values.values() for key in keys.values()]
    value = st.sampled_from([*known.values, *secrets, "", " ", "client", "server", "admin"]) | st.text(max_size=8)
    sent = data.draw(st.dictionaries(st.sampled_from(NAMES), value))
    headers = {name.encode(): text.encode() for name, text in sent.items()}

    async def check() -> tuple[str, AccessType] | None:
        redis = command_client(known.settings, "login-relay:test")
        access = Access(Projects(redis, Keys(known.settings.prefix, 1)), AdminTokens.from_settings(known.settings), 0)
        try:
            caller = await access.check(headers)
        except KnownError:
            return None
        finally:
            await redis.aclose()
        return caller.project.id, caller.access_type

    if (given := asyncio.run(check())) is None:
        return
    project_id, access_type = given
    assert project_id in {text.strip() for text in sent.values()}
    right = {
        level
        for suffix, (level, kind) in KEY_HEADERS.items()
        for prefix in ("x-stack-", "x-hexclave-")
        if sent.get(prefix + suffix, "").strip() == known.values[project_id][kind]
    }
    assert access_type in right
