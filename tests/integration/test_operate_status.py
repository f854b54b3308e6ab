from redis.asyncio import Redis

from runtime.redis.keys import Keys
from runtime.settings import Settings, variable
from statemachine.store.command_stream import CommandStream
from tests.support.operate import Operate, shown
from tests.support.relay import Relay


async def test_status_shows_backlog_and_ages(operate: Operate, relay: Relay, redis: Redis) -> None:
    """Unread entries, entries that a worker has, how old each of them is, and dead letters."""
    now = await relay.now()
    for age in (900_000, 600_000, 300_000):
        await redis.execute_command("XADD", relay.keys.commands(0), f"{now - age}-0", "command", "")
    await relay.read("busy", 1)
    await redis.xadd(relay.keys.dead_letters(0), {"reason": "undecodable"})
    found = shown(await operate("status", "--json"))
    [partition] = found["partitions"]
    assert 600_000 <= partition.pop("oldest_unread_ms") < 700_000
    assert 900_000 <= partition.pop("oldest_pending_ms") < 1_000_000
    assert partition == {"partition": 0, "backlog": 3, "pending": 1, "dead_letters": 1}
    [worker] = found["workers"]
    assert (worker["consumer"], worker["pending"], worker["alive"]) == ("busy", 1, False)
    assert "busy" in (await operate("status")).stdout


async def test_status_counts_a_worker_of_several_partitions_once(
    operate: Operate, redis: Redis, settings: Settings
) -> None:
    """Each partition has a row; a worker that reads them all is one worker."""
    keys = Keys(settings.prefix, 2)
    stream = CommandStream(redis, keys)
    await stream.ensure_groups()
    for partition in keys.partitions:
        await redis.xadd(keys.commands(partition), {"command": b""})
    assert len(await stream.read(redis, "busy", 10, block_ms=1)) == 2
    found = shown(await operate("status", "--json", **{variable("partitions"): "2"}))
    assert [(row["partition"], row["pending"]) for row in found["partitions"]] == [(0, 1), (1, 1)]
    assert [(worker["consumer"], worker["pending"]) for worker in found["workers"]] == [("busy", 2)]
    for partition in keys.partitions:
        await redis.delete(keys.commands(partition))


async def test_status_works_before_the_first_worker(operate: Operate, redis: Redis, keys: Keys) -> None:
    """On an empty Redis, and on one that an API has written to."""
    empty = shown(await operate("status", "--json"))
    assert empty["workers"] == []
    assert empty["partitions"][0]["oldest_unread_ms"] is None
    await redis.xadd(keys.commands(0), {"command": b"early"})
    [partition] = shown(await operate("status", "--json"))["partitions"]
    assert partition["backlog"] == 1
    assert partition["oldest_unread_ms"] is not None
    assert "No worker has been seen." in (await operate("status")).stdout
