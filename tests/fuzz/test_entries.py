"""A worker decides every entry on the stream of commands, or reports it as the culprit."""

import asyncio
import uuid
from collections.abc import Iterator
from typing import NamedTuple, get_args

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st
from redis.asyncio import Redis

from runtime.codes import new_session_id
from runtime.redis.connections import command_client
from runtime.redis.keys import Keys
from runtime.settings import Settings
from statemachine.commands import (
    CancelSession,
    CompleteSession,
    ConsumeSession,
    DenialReason,
    DenySession,
    ExpireSession,
    encode_command,
)
from statemachine.store.command_stream import CommandStream
from statemachine.store.reading import Sessions
from tests.support.redis_server import RedisServer, remove_keys
from tests.support.store import committing_of, family_handlers_of
from tokens.commands import RefreshFamily, RevokeFamily, UpgradeFamily
from worker.handlers import Handlers

SESSIONS = [new_session_id(0) for _ in range(3)]

json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
commands = st.one_of(
    st.builds(CompleteSession, st.text(), st.sampled_from(SESSIONS), st.text(), st.binary(max_size=64)),
    st.builds(ConsumeSession, st.text(), st.sampled_from(SESSIONS), st.text(), st.integers(-(2**63), 2**63 - 1)),
    st.builds(DenySession, st.text(), st.sampled_from(SESSIONS), st.text(), st.sampled_from(get_args(DenialReason))),
    st.builds(CancelSession, st.text(), st.sampled_from(SESSIONS), st.text()),
    st.builds(ExpireSession, st.text(), st.sampled_from(SESSIONS), st.text()),
    st.builds(
        RefreshFamily, st.text(), st.sampled_from(SESSIONS), st.text(), *([st.integers(-(2**63), 2**63 - 1)] * 2)
    ),
    st.builds(RevokeFamily, st.text(), st.sampled_from(SESSIONS), st.text(), st.sampled_from(("client", "server"))),
    st.builds(UpgradeFamily, st.text(), st.sampled_from(SESSIONS), st.text()),
).map(encode_command)


@st.composite
def misshapen(draw: st.DrawFn) -> bytes:
    """Return a command with a field that it should not have, lacks, or has in another shape."""
    fields: dict[str, object] = msgspec.json.decode(draw(commands))
    name = draw(st.sampled_from(sorted(fields)) | st.text(max_size=5))
    if draw(st.booleans()):
        fields.pop(name, None)
    else:
        fields[name] = draw(json)
    return msgspec.json.encode(fields)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Return a command in which bytes were changed, put in or cut out."""
    command = draw(commands)
    start = draw(st.integers(0, len(command)))
    return command[:start] + draw(st.binary(max_size=4)) + command[start + draw(st.integers(0, 4)) :]


class Bench(NamedTuple):
    """A worker's handlers over a stream, and the loop that they run in."""

    runner: asyncio.Runner
    redis: Redis
    keys: Keys
    stream: CommandStream
    handlers: Handlers


@pytest.fixture(scope="module")
def bench(redis_server: RedisServer) -> Iterator[Bench]:
    """The same bench for all batches."""
    settings = Settings(redis_url=redis_server.url, prefix=f"fuzz-{uuid.uuid4().hex[:12]}")
    keys, redis = Keys(settings.prefix, settings.partitions), command_client(settings, "login-relay:test")
    with asyncio.Runner() as runner:
        stream = CommandStream(redis, keys)
        runner.run(stream.ensure_groups())
        committing = committing_of(redis, keys, settings)
        families = family_handlers_of(redis, keys, settings)
        handlers = Handlers(Sessions(redis, keys), committing, families, settings.pickup_window_ms)
        yield Bench(runner, redis, keys, stream, handlers)
        runner.run(redis.aclose())
    assert remove_keys(redis_server, keys) == []


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(batch=st.lists(st.binary(max_size=64) | commands | misshapen() | damaged(), min_size=1, max_size=20))
def test_every_entry_is_decided_or_named_as_the_one_at_fault(bench: Bench, batch: list[bytes]) -> None:
    """No exception is raised, no entry is lost, and none is left pending as if Redis were at fault."""

    async def handle() -> None:
        await bench.redis.xtrim(bench.keys.commands(0), maxlen=0)  # left by a failed example
        for command in batch:
            await bench.redis.xadd(bench.keys.commands(0), {"command": command})
        entries = await bench.stream.read(bench.redis, "worker", len(batch), block_ms=1)
        assert [entry.command for entry in entries] == batch
        failures = await bench.handlers.handle(entries)
        assert all(failure.is_poison for failure in failures)
        assert await bench.redis.xlen(bench.keys.commands(0)) == len(failures)
        for failure in failures:
            assert await bench.stream.move_to_dead_letters(failure.entry, failure.reason)

    bench.runner.run(handle())
