"""The client that sends the commands of concurrent tasks together."""

import asyncio
import uuid

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, ResponseError

from runtime.redis.connections import command_client
from runtime.settings import Settings
from tests.support.redis_server import RedisServer


@pytest.fixture
def key(settings: Settings) -> str:
    """A key of this test."""
    return f"{settings.prefix}:pipelining"


async def test_concurrent_commands_share_a_few_round_trips(redis: Redis, redis_server: RedisServer) -> None:
    """A hundred concurrent tasks cost Redis a few reads of its socket, not a hundred."""
    await redis.ping()
    with redis_server.client() as observer:
        before = observer.info("stats")["total_reads_processed"]
        replies = await asyncio.gather(*(redis.execute_command("ECHO", str(n)) for n in range(100)))
        after = observer.info("stats")["total_reads_processed"]
    assert replies == [str(n).encode() for n in range(100)]
    assert after - before < 10


async def test_a_refused_command_fails_alone(redis: Redis, key: str) -> None:
    """An error reply is raised in the task that sent the command, and nowhere else."""
    await redis.set(key, "text", px=60_000)
    commands = [("GET", key), ("LPUSH", key, "x"), ("GET", key)]
    replies = await asyncio.gather(*(redis.execute_command(*command) for command in commands), return_exceptions=True)
    assert isinstance(replies.pop(1), ResponseError)
    assert replies == [b"text", b"text"]


@pytest.mark.parametrize(("argument", "error"), [(None, DataError), ("\ud800", UnicodeEncodeError)])
async def test_a_command_that_cannot_be_encoded_fails_alone(
    redis: Redis, argument: object, error: type[Exception]
) -> None:
    """An argument that cannot be encoded raises in the task that gave it."""
    arguments = ["first", argument, "last"]
    replies = await asyncio.gather(*(redis.execute_command("ECHO", each) for each in arguments), return_exceptions=True)
    assert isinstance(replies.pop(1), error)
    assert replies == [b"first", b"last"]


async def test_a_cancelled_task_takes_no_other_with_it(redis: Redis) -> None:
    """The other tasks still get their own replies when one is cancelled in the middle."""
    asked = [asyncio.create_task(redis.execute_command("ECHO", str(n))) for n in range(10)]
    await asyncio.sleep(0)  # all have sent, none has its reply
    asked[3].cancel()
    replies = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(replies.pop(3), asyncio.CancelledError)
    assert replies == [str(n).encode() for n in range(10) if n != 3]
    assert await redis.execute_command("ECHO", "next") == b"next"


async def test_a_lost_connection_is_replaced(redis: Redis, redis_server: RedisServer) -> None:
    """Commands go on after the server has closed the connection."""
    id_ = await redis.client_id()
    with redis_server.client() as other:
        other.client_kill_filter(_id=str(id_))
    replies = await asyncio.gather(*(redis.execute_command("ECHO", str(n)) for n in range(10)))
    assert replies == [str(n).encode() for n in range(10)]


async def test_without_a_server_every_task_hears_of_it(settings: Settings) -> None:
    """No task waits for ever for a Redis that is not there."""
    client = command_client(Settings(redis_url="redis://127.0.0.1:1/0"), "login-relay:test")
    results = await asyncio.gather(*(client.get(f"{settings.prefix}:{n}") for n in range(10)), return_exceptions=True)
    await client.aclose()
    assert [type(result) for result in results] == [RedisConnectionError] * 10


async def test_closing_waits_for_what_was_sent(settings: Settings) -> None:
    """A client that is closed right after a command was sent leaves nothing half done."""
    client = command_client(settings, "login-relay:test")
    key = f"{settings.prefix}:{uuid.uuid4().hex}"
    asked = asyncio.create_task(client.execute_command("SET", key, "text", "PX", 60_000))
    await asyncio.sleep(0)
    await client.aclose()
    assert await asked is True


async def test_nobody_waits_for_ever_when_the_sender_is_cancelled(redis: Redis, key: str) -> None:
    """When a process ends, tasks are cancelled in any order; waiting callers get an error, and may send again."""
    await redis.ping()
    before = asyncio.all_tasks()
    asked = asyncio.create_task(redis.execute_command("BLPOP", key, 10))  # not answered in the time of this test
    await asyncio.sleep(0)
    [sender] = asyncio.all_tasks() - before - {asked}
    await asyncio.sleep(0.1)
    sender.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asked, 5)
    assert await asyncio.wait_for(redis.execute_command("ECHO", "next"), 5) == b"next"
