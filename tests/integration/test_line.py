"""The line that carries the commands of all tasks: what it promises while it lasts, breaks, and is replaced."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from functools import partial

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from runtime.redis.connections import command_client, reader_client
from runtime.redis.line import MAX_SIZE, Line
from runtime.settings import Settings
from tests.support.eventually import wait_until
from tests.support.proxy import Proxy
from tests.support.redis_process import RedisProcess
from tests.support.redis_server import RedisServer, free_port

SHORT = 0.2  # seconds for a reply, where a test lets it pass
LONG = 30.0  # seconds, where no time-out shall help
BOUNDED = 20.0  # seconds in which a caller hears something, whatever happens


@pytest.fixture
def key(settings: Settings) -> str:
    """A key of this test."""
    return f"{settings.prefix}:line"


@pytest.fixture
async def proxied(through_proxy: Settings) -> AsyncIterator[Redis]:
    """A client whose connection can be broken."""
    async with command_client(through_proxy, "login-relay:test") as client:
        await client.ping()
        yield client


@contextlib.asynccontextmanager
async def line_to(port: int, *, reply_within: float = SHORT, patience: float = SHORT) -> AsyncIterator[Line]:
    """Open a line that sends a command three times again."""
    dial = partial(Connection, port=port, protocol=3, socket_timeout=reply_within, socket_connect_timeout=SHORT)
    line = Line(dial, reply_within=reply_within, retries=3, patience=patience)
    yield line
    await line.aclose()


def echo(line: Line, n: int) -> "asyncio.Future[bytes]":
    """Send a command that has a reply of its own."""
    return line.send(("ECHO", str(n)))


async def echoes(redis: Redis, count: int) -> None:
    """Send commands from so many tasks; each gets its own reply."""
    replies = await asyncio.gather(*(redis.execute_command("ECHO", str(n)) for n in range(count)))
    assert replies == [str(n).encode() for n in range(count)]


async def test_concurrent_commands_share_a_few_round_trips(redis: Redis, redis_server: RedisServer) -> None:
    """A hundred concurrent tasks cost Redis a few reads of its socket, not a hundred."""
    await redis.ping()
    with redis_server.client() as observer:
        before = observer.info("stats")["total_reads_processed"]
        await echoes(redis, 100)
        after = observer.info("stats")["total_reads_processed"]
    assert after - before < 10


async def test_all_tasks_of_a_process_share_one_connection(settings: Settings, redis_server: RedisServer) -> None:
    """A thousand tasks at once, the first of which connects."""
    name = f"login-relay:{uuid.uuid4().hex}"
    async with command_client(settings, name) as client:
        await echoes(client, 1_000)
        with redis_server.client() as observer:
            assert [each["name"] for each in observer.client_list()].count(name) == 1


async def test_a_refused_command_fails_alone(redis: Redis, key: str) -> None:
    """An error reply is raised in the task that sent the command, and nowhere else, as redis-py's exception."""
    await redis.set(key, "text", px=60_000)
    commands = [("GET", key), ("LPUSH", key, "x"), ("EVALSHA", "0" * 40, 0), ("GET", key)]
    replies = await asyncio.gather(*(redis.execute_command(*command) for command in commands), return_exceptions=True)
    assert [type(reply) for reply in replies] == [bytes, ResponseError, NoScriptError, bytes]


@pytest.mark.parametrize(("argument", "error"), [(None, DataError), ("\ud800", UnicodeEncodeError)])
async def test_a_command_that_cannot_be_encoded_fails_alone(
    redis: Redis, argument: object, error: type[Exception]
) -> None:
    """An argument that cannot be encoded raises in the task that gave it."""
    arguments = ["first", argument, "last"]
    replies = await asyncio.gather(*(redis.execute_command("ECHO", each) for each in arguments), return_exceptions=True)
    assert isinstance(replies.pop(1), error)
    assert replies == [b"first", b"last"]


async def test_commands_sent_together_have_a_reply_or_an_error_each(redis: Redis, key: str) -> None:
    """In redis-py's form, in their order; the first error is raised if the caller wants that."""
    async with redis.pipeline(transaction=False) as pipeline:
        for command in (("SET", key, "text", "PX", 60_000), ("LPUSH", key, "x"), ("ECHO", None), ("GET", key)):
            pipeline.execute_command(*command)
        replies = await pipeline.execute(raise_on_error=False)
    assert [type(reply) for reply in replies] == [bool, ResponseError, DataError, bytes]
    async with redis.pipeline(transaction=False) as pipeline:
        for command in (("GET", key), ("LPUSH", key, "x")):
            pipeline.execute_command(*command)
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await pipeline.execute()


async def test_transaction_is_one(redis: Redis, key: str) -> None:
    """It has a connection of its own, so no other task's command comes between."""
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.execute_command("SET", key, "text", "PX", 60_000)
        pipeline.execute_command("GET", key)
        assert await pipeline.execute() == [True, b"text"]


async def test_a_cancelled_task_takes_no_other_with_it(redis: Redis) -> None:
    """The other tasks get their own replies, on the same connection, when one is cancelled in the middle."""
    id_ = await redis.client_id()
    asked = [asyncio.create_task(redis.execute_command("ECHO", str(n))) for n in range(10)]
    await asyncio.sleep(0)  # all have sent, none has its reply
    asked[3].cancel()
    replies = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(replies.pop(3), asyncio.CancelledError)
    assert replies == [str(n).encode() for n in range(10) if n != 3]
    assert await redis.client_id() == id_


async def test_big_reply_arrives_between_small_ones(redis: Redis, key: str) -> None:
    """It comes in many pieces, which are no replies of their own."""
    big = "x" * (8 * 2**20)
    await redis.set(key, big, px=60_000)
    commands = [("ECHO", "first"), ("GET", key), ("ECHO", "last")]
    replies = await asyncio.gather(*(redis.execute_command(*command) for command in commands))
    assert replies == [b"first", big.encode(), b"last"]


async def test_a_lost_connection_is_replaced(redis: Redis, redis_server: RedisServer) -> None:
    """Commands go on after the server has closed the connection."""
    id_ = await redis.client_id()
    with redis_server.client() as other:
        other.client_kill_filter(_id=str(id_))
    await echoes(redis, 10)


async def test_commands_whose_replies_are_lost_are_sent_again(proxied: Redis, proxy: Proxy, key: str) -> None:
    """Redis has executed them, and does so again on the next connection; each task gets its own reply."""
    proxy.cut_replies(1)
    counted = asyncio.create_task(proxied.execute_command("INCR", key))
    await echoes(proxied, 100)
    assert await counted == 2
    await proxied.pexpire(key, 60_000)


async def test_commands_are_sent_again_in_their_order(proxied: Redis, proxy: Proxy, key: str) -> None:
    """As they were sent at first."""
    proxy.cut_replies(1)
    await asyncio.gather(*(proxied.execute_command("RPUSH", key, n) for n in range(100)))
    in_order = [str(n).encode() for n in range(100)]
    assert await proxied.execute_command("LRANGE", key, 0, -1) == in_order * 2
    await proxied.pexpire(key, 60_000)


async def test_request_that_is_broken_off_is_sent_again(proxied: Redis, proxy: Proxy) -> None:
    """Redis gets some commands and a part of another one."""
    proxy.break_off(request=1_000)
    await echoes(proxied, 100)


async def test_reply_that_is_broken_off_is_asked_for_again(proxied: Redis, proxy: Proxy) -> None:
    """Some tasks have their replies, another one a part of its own, and the rest nothing."""
    proxy.break_off(reply=200)
    await echoes(proxied, 100)


async def test_cancelled_command_is_not_sent_again(proxied: Redis, proxy: Proxy, redis: Redis, key: str) -> None:
    """Nobody waits for it any more."""
    proxy.stall(LONG)
    counted = asyncio.create_task(proxied.execute_command("INCR", key))

    async def is_executed() -> bool:
        return await redis.get(key) == b"1"

    await wait_until(is_executed)
    counted.cancel()
    for link in list(proxy.links):
        link.close()
    proxy.stall(0)
    await echoes(proxied, 10)
    assert await proxied.get(key) == b"1"
    await proxied.pexpire(key, 60_000)


async def test_redis_that_stood_still_for_a_moment_is_waited_for(second_server: RedisProcess) -> None:
    """Its replies are late, not lost."""
    async with line_to(second_server.port, reply_within=LONG) as line:
        await echo(line, 0)
        second_server.freeze()
        replies = [echo(line, n) for n in range(100)]
        await asyncio.wait(replies, timeout=SHORT)
        assert not any(reply.done() for reply in replies)
        second_server.thaw()
        assert await asyncio.gather(*replies) == [str(n).encode() for n in range(100)]


async def test_redis_that_stands_still_is_given_up(second_server: RedisProcess) -> None:
    """Each caller hears of it in bounded time, whenever it began to wait; then the line works again."""
    async with line_to(second_server.port) as line:
        await echo(line, 0)
        second_server.freeze()
        replies: list[asyncio.Future[bytes]] = []
        while not replies or not replies[0].done():
            replies.append(echo(line, len(replies)))
            await asyncio.sleep(0.05)
        results = await asyncio.wait_for(asyncio.gather(*replies, return_exceptions=True), BOUNDED)
        assert {type(result) for result in results} == {RedisTimeoutError}
        second_server.thaw()
        assert await echo(line, 1) == b"1"


async def test_process_that_stood_still_itself_keeps_its_connection(redis_server: RedisServer) -> None:
    """The replies have arrived in the meantime, so Redis is not to blame."""
    port = int(redis_server.url.rpartition(":")[2].partition("/")[0])
    async with line_to(port) as line:
        id_ = await line.send(("CLIENT", "ID"))
        reply = echo(line, 1)
        await asyncio.sleep(0)
        time.sleep(3 * SHORT)  # noqa: ASYNC251 - the loop shall stand still
        assert await reply == b"1"
        assert await line.send(("CLIENT", "ID")) == id_


async def test_without_a_server_every_task_hears_of_it(settings: Settings) -> None:
    """No task waits for ever for a Redis that is not there."""
    client = command_client(Settings(redis_url="redis://127.0.0.1:1/0"), "login-relay:test")
    results = await asyncio.gather(*(client.get(f"{settings.prefix}:{n}") for n in range(10)), return_exceptions=True)
    await client.aclose()
    assert [type(result) for result in results] == [RedisConnectionError] * 10


async def test_many_tasks_without_a_server_make_few_attempts_to_connect() -> None:
    """They share them: a server that comes back is not met by a crowd."""
    dialled = 0

    def dial() -> Connection:
        nonlocal dialled
        dialled += 1
        return Connection(port=free_port(), socket_connect_timeout=SHORT)

    line = Line(dial, reply_within=SHORT, retries=3, patience=SHORT)
    results = await asyncio.gather(*(echo(line, n) for n in range(1_000)), return_exceptions=True)
    assert {type(result) for result in results} == {RedisConnectionError}
    assert dialled == 4


async def test_refused_password_reaches_every_task(second_server: RedisProcess) -> None:
    """Whatever the server answers to a new connection."""
    await second_server.client.config_set("requirepass", "hunter2")
    async with line_to(second_server.port) as line:
        results = await asyncio.gather(*(echo(line, n) for n in range(10)), return_exceptions=True)
    assert all(isinstance(result, RedisError) for result in results)
    assert "hunter2" not in str(results)


async def test_callers_wait_when_too_much_is_under_way(second_server: RedisProcess) -> None:
    """What a process keeps for a Redis that is too slow is bounded."""
    async with line_to(second_server.port, reply_within=LONG, patience=LONG) as line:
        await echo(line, 0)
        second_server.freeze()
        sent: list[asyncio.Future[bytes]] = []
        while not line.is_full:
            sent.append(line.send(("ECHO", "x" * 100_000)))
        assert len(sent) < MAX_SIZE / 100_000 + 1
        waiting = [asyncio.create_task(line.room()) for _ in range(10)]
        await asyncio.wait(waiting, timeout=SHORT)
        assert not any(task.done() for task in waiting)
        second_server.thaw()
        await asyncio.gather(*waiting, *sent)
        assert not line.is_full


async def test_callers_are_refused_when_too_much_is_under_way_for_long(second_server: RedisProcess) -> None:
    """They hear of it within their patience."""
    async with line_to(second_server.port, reply_within=1.0) as line:
        await echo(line, 0)
        second_server.freeze()
        sent = [line.send(("ECHO", "x" * MAX_SIZE))]
        with pytest.raises(RedisConnectionError):
            await line.room()
        second_server.thaw()
        assert [len(reply) for reply in await asyncio.gather(*sent)] == [MAX_SIZE]


async def test_closing_waits_for_what_was_sent(settings: Settings) -> None:
    """A client that is closed right after a command was sent leaves nothing half done."""
    client = command_client(settings, "login-relay:test")
    key = f"{settings.prefix}:{uuid.uuid4().hex}"
    asked = asyncio.create_task(client.execute_command("SET", key, "text", "PX", 60_000))
    await asyncio.sleep(0)
    await client.aclose()
    assert await asked is True


async def test_nobody_waits_for_ever_at_the_end_of_a_process(second_server: RedisProcess) -> None:
    """Tasks are cancelled in any order; callers get an error, and may send again."""
    second_server.freeze()
    async with line_to(second_server.port, reply_within=LONG) as line:
        before = asyncio.all_tasks()
        reply = echo(line, 1)
        [connecting] = asyncio.all_tasks() - before
        await asyncio.sleep(0.1)
        connecting.cancel()
        await asyncio.wait({reply}, timeout=BOUNDED)
        assert reply.cancelled()
        second_server.thaw()
        assert await echo(line, 2) == b"2"


async def test_reader_never_sends_again(through_proxy: Settings, proxy: Proxy, key: str) -> None:
    """A read whose reply was lost may have taken entries; its caller has to know."""
    async with reader_client(through_proxy, "login-relay:test-reader") as reader:
        await reader.ping()
        proxy.cut_replies(1)
        with pytest.raises(RedisConnectionError):
            await reader.incr(key)
        assert await reader.get(key) == b"1"
        await reader.pexpire(key, 60_000)


async def test_cancelled_read_ends_in_redis_too(reader: Redis, redis: Redis, key: str) -> None:
    """Otherwise it could take an entry that nobody receives. The next read does not wait for it."""

    async def blocked() -> bool:
        clients = await redis.client_list()
        return any(client["name"] == "login-relay:test-reader" and "b" in client["flags"] for client in clients)

    async def not_blocked() -> bool:
        return not await blocked()

    reading = asyncio.create_task(reader.execute_command("BLPOP", key, LONG))
    await wait_until(blocked)
    reading.cancel()
    await asyncio.wait({reading})
    assert await reader.execute_command("ECHO", "next") == b"next"
    await wait_until(not_blocked)
    assert reading.cancelled()
