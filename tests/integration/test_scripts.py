import ast
import importlib
import inspect
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from projects.store import Projects
from runtime.clock import rfc3339
from runtime.redis.keys import Keys
from runtime.redis.scripts import (
    Call,
    Script,
    run_script,
    run_scripts,
)
from runtime.settings import Settings
from statemachine.lifecycle import Outcome, State
from statemachine.store.command_stream import CommandStream, Repeated, Reused
from statemachine.store.outcomes import KeptOutcome
from tests.support.redis_server import RedisServer
from tests.support.relay import Relay
from tests.support.two_servers import TwoServers

SCRIPTS = sorted(
    (room, path.name.removesuffix(".lua"))
    for room in ("projects", "statemachine.store", "tokens")
    for path in files(room).joinpath("lua").iterdir()
)
READ = Script.named("statemachine.store", "read")
TIME = files("runtime.redis").joinpath("time.lua").read_text()


class TwicePipeline(Pipeline):
    """Sends everything twice."""

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - redis-py's signature
        """Execute, lose the replies, execute again."""
        stack = list(self.command_stack)
        await super().execute(raise_on_error)
        self.command_stack = stack
        return await super().execute(raise_on_error)


class TwiceRedis(Redis):
    """A redis-py whose every first reply is lost: each command reaches Redis twice, and its second reply counts."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - redis-py's signature
        """Execute, lose the reply, execute again."""
        await Redis.execute_command(self, *args, **options)
        return await Redis.execute_command(self, *args, **options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:  # noqa: FBT001, FBT002 - redis-py's signature
        """Return a pipeline that does likewise."""
        return TwicePipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


@pytest.fixture
def forgetful(redis: Redis) -> Redis:
    """A client whose every command is sent twice."""
    return TwiceRedis(connection_pool=redis.connection_pool)


@pytest.mark.parametrize(("room", "name"), SCRIPTS)
def test_script_is_fit_for_a_cluster(room: str, name: str) -> None:
    """Each begins with `#!lua`, so that Redis holds it to its keys, and uses the names of its header."""
    text = files(room).joinpath("lua", f"{name}.lua").read_text()
    assert re.match(r"#!lua( flags=(no-writes|allow-oom))?\n-- ", text)
    [header] = re.findall(r"\A(?:(?:#|--).*\n)+", text)
    assert re.search("^-- Returns ", header, re.MULTILINE)
    body = text.removeprefix(header)
    assert not re.search(r"\b(KEYS|ARGV|TIME)\b", body)
    assert {word for word in names_of(Script.named(room, name)) if not re.search(rf"\b{word}\b", body)} == set()


def test_only_what_begins_something_is_refused_by_a_full_server() -> None:
    """All other scripts, which continue or end a login, declare that they may run without memory."""
    first_lines = {
        name: files(room).joinpath("lua", f"{name}.lua").read_text().split("\n")[0] for room, name in SCRIPTS
    }
    refused = {name for name, line in first_lines.items() if line == "#!lua"}
    assert refused == {"initiate", "guess", "audit", "create_project"}


def names_of(script: Script) -> set[str]:
    """Return the names that a call of a script must give."""
    return set(inspect.signature(script.call).parameters)


def test_every_call_names_what_its_script_asks_for() -> None:
    """Each call of a script, tested or not, uses the names of its header, and no script is unused."""
    called = set()
    for module in (importlib.import_module(name) for room, _ in SCRIPTS for name in modules_of(room)):
        scripts = {name: value for name, value in vars(module).items() if isinstance(value, Script)}
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            match node:
                case ast.Call(ast.Attribute(ast.Name(name), "call"), [], keywords) if name in scripts:
                    assert {keyword.arg for keyword in keywords} == names_of(scripts[name]), name
                    called.add(scripts[name].sha)
    assert called == {Script.named(room, name).sha for room, name in SCRIPTS}


def modules_of(room: str) -> list[str]:
    """Return the names of a room's modules."""
    return [f"{room}.{path.name.removesuffix('.py')}" for path in files(room).iterdir() if path.name.endswith(".py")]


def test_script_is_called_by_the_names_of_its_header() -> None:
    """In any order; the last key, and the last argument, may be a list."""
    script = Script.of(
        "x", "#!lua\n-- KEYS a, b (what it is, '' = none), c …\n-- ARGV d (ms),\n--      e …\n-- Returns 1\n"
    )
    call = script.call(d=1, e=[2, b"3"], c=("c1", "c2"), a="a", b="b")
    assert call == Call(("a", "b", "c1", "c2"), (1, 2, b"3"))
    for line in ("local a, b = unpack(KEYS)", "local c = { unpack(KEYS, 3) }", "local d = unpack(ARGV)"):
        assert f"\n{line}\n" in script.text
    only_key = Script.of("x", "#!lua\n-- KEYS a\n-- Returns 1\n")
    assert only_key.call(a="a") == Call(("a",), ())


@pytest.mark.parametrize(
    ("wrong", "named"), [({"session": "s"}, "polled"), (dict.fromkeys(["x", "token"], "s"), "token")]
)
def test_call_that_names_other_things_is_refused(wrong: dict[str, str], named: str) -> None:
    """A missing name, or one that the script does not have, is an error before anything is sent; it says which."""
    script = Script.of("the_script", f"#!lua\n-- KEYS {'x' if 'x' in wrong else 'session, polled'}\n")
    with pytest.raises(TypeError, match=rf"the_script\(\) .*'{named}'"):
        script.call(**wrong)


@pytest.mark.parametrize(
    "header",
    [
        "-- ARGV a",
        "-- KEYS",
        "-- KEYS  1 session  2 login",
        "-- KEYS session token",
        "-- KEYS session,, token",
        "-- KEYS session, token,",
        "-- KEYS sessions …, token",
        "-- KEYS session\n-- ARGV session",
        "-- KEYS session (not closed, token",
        "-- KEYS Session",
    ],
)
def test_malformed_header_is_refused(header: str) -> None:
    """At start-up, when scripts are read."""
    with pytest.raises(ValueError, match=r"^the_script\.lua: "):
        Script.of("the_script", f"#!lua\n-- What it does.\n--\n{header}\n-- Returns 1\nreturn 1\n")


@pytest.mark.parametrize(("room", "name"), SCRIPTS)
async def test_script_is_accepted_by_this_redis(room: str, name: str, redis: Redis) -> None:
    """The server compiles its text, under the hash that we address it by."""
    script = Script.named(room, name)
    assert await redis.script_load(script.text) == script.sha


async def test_script_that_redis_forgot_is_sent_in_full(redis: Redis, keys: Keys) -> None:
    """After SCRIPT FLUSH, a restart or a failover the next call works, and the one after it sends the hash only."""
    await redis.script_flush()
    call = READ.call(session=keys.session("00"))
    for exists in (False, True):
        assert await redis.script_exists(READ.sha) == [exists]
        reply = await run_script(redis, READ, call)
        assert isinstance(reply, list)
        assert reply[1:] == [None] * 7


async def test_scripts_in_a_pipeline_are_sent_again_in_full(redis: Redis, keys: Keys) -> None:
    """Those that met NOSCRIPT run in their order, by their text; each result is returned in its place."""
    await redis.script_flush()
    calls = [READ.call(session=keys.session(f"00{number}")) for number in range(3)]
    replies = await run_scripts(redis, READ, calls)
    assert [isinstance(reply, list) and reply[1:] for reply in replies] == [[None] * 7] * 3
    assert await run_scripts(redis, READ, []) == []


async def test_script_that_one_node_forgot_is_loaded_on_that_node(two_servers: TwoServers, settings: Settings) -> None:
    """A new primary has no scripts. The call itself sends the text to it: SCRIPT LOAD would go to another node."""
    keys = Keys(settings.prefix, 2)
    calls = [Call((keys.session(session_id),), ()) for session_id in ("00a", "01a", "00b", "01b")]
    await run_scripts(two_servers, READ, calls)
    await two_servers.second.script_flush()
    await two_servers.second.config_resetstat()
    replies = await run_scripts(two_servers, READ, calls)
    assert [isinstance(reply, list) and reply[1:] for reply in replies] == [[None] * 7] * 4
    assert await two_servers.second.script_exists(READ.sha) == [True]
    statistics = await two_servers.second.info("commandstats")
    assert statistics["cmdstat_evalsha"]["calls"] == statistics["cmdstat_eval"]["calls"] == 2
    await two_servers.second.script_flush()
    reply = await run_script(two_servers, READ, calls[1])
    assert isinstance(reply, list)
    assert reply[1:] == [None] * 7


async def test_call_that_fails_does_not_hide_the_others(redis: Redis, keys: Keys) -> None:
    """One call's error is that call's result."""
    await redis.set(keys.session("00string"), "no hash", px=60_000)
    calls = [READ.call(session=keys.session(name)) for name in ("00a", "00string", "00b")]
    replies = await run_scripts(redis, READ, calls)
    assert [type(reply) for reply in replies] == [list, type(replies[1]), list]
    assert isinstance(replies[1], Exception)


async def test_login_whose_every_reply_is_lost_once_is_one_login(
    forgetful: Redis, keys: Keys, settings: Settings, relay: Relay
) -> None:
    """Every script is idempotent: a login with each command sent twice leaves the same as one with each sent once."""
    twice = Relay(forgetful, keys, settings, CommandStream(forgetful, keys))
    initiated = await twice.initiate()
    session_id = initiated.session_id
    assert await twice.complete(session_id, fingerprint="one") == Repeated(Outcome.PENDING)
    assert await twice.complete(session_id, fingerprint="other") == Reused()
    assert await relay.backlog() == 1
    entries = await relay.read()
    assert not await twice.handlers.handle(entries)
    assert await relay.sessions.read_outcomes(0, ["complete"]) == [KeptOutcome(Outcome.COMPLETED, "one")]
    await twice.consume(session_id)
    assert not await twice.handlers.handle(await relay.read())
    assert await relay.outcome(session_id, "consume") is Outcome.CONSUMED
    assert await relay.states([session_id]) == {State.CONSUMED}
    assert await relay.facts(session_id) == [
        ("session.initiated", 1),
        ("session.completed", 2),
        ("session.consumed", 3),
    ]
    assert (await relay.backlog(), await relay.pending()) == (0, 0)


async def test_other_scripts_sent_twice_do_their_work_once(forgetful: Redis, keys: Keys, relay: Relay) -> None:
    """Burying makes one dead letter, creating makes one project."""
    await relay.record(b"rubbish")
    [entry] = await relay.read()
    await CommandStream(forgetful, keys).move_to_dead_letters(entry, "rubbish")
    assert await relay.redis.xlen(keys.dead_letters(0)) == 1
    project_id, _ = await Projects(forgetful, keys).create("acme", allow_client_complete=False)
    assert [project.id for project in await Projects(relay.redis, keys).list_all()] == [project_id]


def lua_times(server: SyncRedis, moments: Sequence[int]) -> list[str]:
    """Return moments (milliseconds) as `time.lua` writes them."""
    script = TIME + "local times = {}\nfor i, ms in ipairs(ARGV) do times[i] = rfc3339(tonumber(ms)) end\nreturn times"
    return [time.decode() for time in server.eval(script, 0, *map(str, moments))]


def test_every_day_is_written_alike_in_lua_and_python(redis_server: RedisServer) -> None:
    """Each day from 1970 to 2170, its first and its last millisecond: leap days, centuries and all."""
    day = timedelta(days=1) // timedelta(milliseconds=1)
    last = (datetime(2170, 1, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days
    moments = [moment for number in range(last) for moment in (number * day, number * day + day - 1)]
    with redis_server.client() as client:
        for start in range(0, len(moments), 5_000):  # Lua's unpack has a limit
            part = moments[start : start + 5_000]
            assert lua_times(client, part) == [rfc3339(moment) for moment in part]


@given(moments=st.lists(st.integers(0, 10**13), min_size=50, max_size=50))
def test_every_moment_is_written_alike_in_lua_and_python(redis_server: RedisServer, moments: list[int]) -> None:
    """Hours, minutes, seconds and milliseconds too."""
    with redis_server.client() as client:
        assert lua_times(client, moments) == [rfc3339(moment) for moment in moments]
