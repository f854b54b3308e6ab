"""No combination of headers gives more rights than the strongest right key in it."""

import asyncio
import uuid
from collections.abc import Iterator
from typing import NamedTuple

import hypothesis
import pytest
from hypothesis import strategies as st

from api.stack.access import Access, AccessType
from api.stack.admin_tokens import AdminTokens
from api.stack.errors import KnownError
from projects.project import KeyKind
from projects.store import Projects
from runtime.redis.connections import command_client
from runtime.redis.keys import Keys
from runtime.settings import Settings
from tests.support.redis_server import RedisServer, remove_keys

KEY_HEADERS = {
    "publishable-client-key": (AccessType.CLIENT, KeyKind.PUBLISHABLE_CLIENT),
    "secret-server-key": (AccessType.SERVER, KeyKind.SECRET_SERVER),
    "super-secret-admin-key": (AccessType.ADMIN, KeyKind.SUPER_SECRET_ADMIN),
}
NAMES = [
    prefix + suffix
    for prefix in ("x-stack-", "x-hexclave-")
    for suffix in (*KEY_HEADERS, "project-id", "access-type", "admin-access-token", "override-error-status")
    if prefix + suffix != "x-stack-project-id"
]


class Known(NamedTuple):
    """Two projects; headers are made of what belongs to either."""

    runner: asyncio.Runner
    access: Access
    keys_of: dict[str, dict[KeyKind, str]]
    """The keys of each project, by its id."""


@pytest.fixture(scope="module")
def known(redis_server: RedisServer) -> Iterator[Known]:
    """The same projects for all requests."""
    settings = Settings(redis_url=redis_server.url, prefix=f"fuzz-{uuid.uuid4().hex[:12]}")
    keys, redis = Keys(settings.prefix, settings.partitions), command_client(settings, "login-relay:test")
    projects = Projects(redis, keys)
    with asyncio.Runner() as runner:
        made = [runner.run(projects.create(name, allow_client_complete=False)) for name in ("one", "two")]
        access = Access(projects, AdminTokens.from_settings(settings), settings.project_cache_ms)
        yield Known(runner, access, dict(made))
        runner.run(redis.aclose())
    assert remove_keys(redis_server, keys) == []


@hypothesis.settings(deadline=None, max_examples=500)
@hypothesis.given(data=st.data())
def test_no_combination_of_headers_gives_more_than_its_strongest_right_key(known: Known, data: st.DataObject) -> None:
    """Both spellings of everything, with right values in wrong places, another project's, empty ones and noise."""
    secrets = [key for keys in known.keys_of.values() for key in keys.values()]
    noise = st.sampled_from(["", " ", "client", "server", "admin"]) | st.text(max_size=8)
    value = st.sampled_from(secrets) | st.sampled_from(list(known.keys_of)) | noise
    named = {"x-stack-project-id": st.sampled_from(list(known.keys_of)) | value}
    for name in NAMES:
        for suffix, (_, kind) in KEY_HEADERS.items():
            if name.endswith(suffix):
                named[name] = st.sampled_from([keys[kind] for keys in known.keys_of.values()]) | value
    optional = {name: named.pop(name, value) for name in NAMES}
    chosen = data.draw(st.lists(st.sampled_from(NAMES), max_size=4))  # among more keys, one is nearly always wrong
    sent = data.draw(st.fixed_dictionaries(named | {name: optional[name] for name in chosen}))
    headers = {name.encode(): text.encode() for name, text in sent.items()}
    try:
        caller = known.runner.run(known.access.check(headers))
    except KnownError:
        hypothesis.event("refused")
        return
    hypothesis.event("let in")
    project_id = sent["x-stack-project-id"].strip() or sent["x-hexclave-project-id"].strip()
    assert caller.project.id == project_id
    keys = known.keys_of[project_id]
    assert caller.access_type in {
        level
        for suffix, (level, kind) in KEY_HEADERS.items()
        for prefix in ("x-stack-", "x-hexclave-")
        if sent.get(prefix + suffix, "").strip() == keys[kind]
    }
