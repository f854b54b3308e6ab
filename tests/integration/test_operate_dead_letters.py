import json

import msgspec
import pytest
from redis.asyncio import Redis

from statemachine.commands import CompleteSession, ConsumeSession, encode_command
from tests.support.operate import RFC_3339, Operate, refused, shown
from tests.support.relay import SEALED, Relay


async def bury(relay: Relay, redis: Redis, command: bytes) -> str:
    """Move a command to the dead letters; returns the name by which operators find it."""
    await relay.record(command)
    [entry] = await relay.read()
    await relay.stream.move_to_dead_letters(entry._replace(deliveries=6), "handler failed: KeyError")
    stream = relay.keys.dead_letters(entry.partition)
    newest: list[tuple[bytes, object]] = await redis.execute_command("XREVRANGE", stream, "+", "-", "COUNT", 1)
    return f"{entry.partition}:{newest[0][0].decode()}"


async def test_dead_letter_is_shown_without_its_token(operate: Operate, relay: Relay, redis: Redis) -> None:
    """The reason, and the command without the sealed token."""
    session_id = (await relay.initiate()).session_id
    command = CompleteSession("id", session_id, "api", SEALED)
    letter = await bury(relay, redis, encode_command(command))
    listed = shown(await operate("dead-letters", "list", "--json"))
    assert listed == shown(await operate("dead-letters", "show", letter, "--json"))
    assert (listed["id"], listed["reason"], listed["deliveries"]) == (letter, "handler failed: KeyError", 6)
    assert listed["command"]["session_id"] == session_id
    assert RFC_3339.fullmatch(listed["moved_at"])
    for output in (await operate("dead-letters", "list"), await operate("dead-letters", "show", letter)):
        assert session_id in output.stdout
    sealed = msgspec.to_builtins(command)["sealed_token"]
    assert sealed not in json.dumps(listed)


async def test_dead_letter_that_is_no_command_is_shown(operate: Operate, relay: Relay, redis: Redis) -> None:
    """Of undecodable bytes only their number is shown."""
    letter = await bury(relay, redis, b"\xff no command")
    listed = shown(await operate("dead-letters", "list", "--json"))
    assert (listed["id"], listed["bytes"], listed["command"]) == (letter, 12, {})
    assert letter in (await operate("dead-letters", "list")).stdout


async def test_no_dead_letters_is_told(operate: Operate) -> None:
    """This is the usual case."""
    assert (await operate("dead-letters", "list")).stdout == "No dead letters.\n"
    assert (await operate("dead-letters", "list", "--json")).stdout == ""


async def test_more_dead_letters_than_a_page_are_all_listed(operate: Operate, relay: Relay, redis: Redis) -> None:
    """The list continues from page to page, without repetition."""
    async with redis.pipeline() as pipeline:
        for number in range(1_001):
            fields = ("entry", f"{number}-1", "command", "", "reason", "undecodable", "deliveries", 6)
            pipeline.execute_command("XADD", relay.keys.dead_letters(0), "*", *fields)
        await pipeline.execute()
    listed = [json.loads(line) for line in (await operate("dead-letters", "list", "--json")).stdout.splitlines()]
    assert [row["entry"] for row in listed] == [f"{number}-1" for number in range(1_001)]


async def test_replayed_dead_letter_is_decided(operate: Operate, relay: Relay, redis: Redis) -> None:
    """It returns to the workers once, as a new entry, and is not a dead letter any more."""
    session_id = (await relay.initiate()).session_id
    letter = await bury(relay, redis, encode_command(CompleteSession("id", session_id, "api", SEALED)))
    result = await operate("dead-letters", "replay", letter)
    assert result.exit_code == 0, result.output
    [entry] = await relay.read()
    assert entry.id in result.stdout
    assert not await relay.handlers.handle([entry])
    assert (await relay.session(session_id)).state == "completed"
    assert (await operate("dead-letters", "list")).stdout == "No dead letters.\n"
    assert letter in refused(await operate("dead-letters", "replay", letter), 1)
    assert await relay.backlog() == 0


async def test_dead_consume_is_not_replayed(operate: Operate, relay: Relay, redis: Redis) -> None:
    """Its poll has ended, so its token would reach nobody. The session keeps the token for the next poll."""
    session_id = (await relay.completed()).session_id
    letter = await bury(relay, redis, encode_command(ConsumeSession("id", session_id, "api", 4_000)))
    assert "ConsumeSession" in refused(await operate("dead-letters", "replay", letter), 1)
    assert await relay.backlog() == 0
    assert shown(await operate("dead-letters", "list", "--json"))["id"] == letter
    assert (await relay.session(session_id)).state == "completed"


async def test_dropped_dead_letter_is_gone(operate: Operate, relay: Relay, redis: Redis) -> None:
    """Several at once; the others stay."""
    letters = [await bury(relay, redis, b"entry %d" % number) for number in range(3)]
    assert (await operate("dead-letters", "drop", *letters[:2])).exit_code == 0
    assert shown(await operate("dead-letters", "list", "--json"))["id"] == letters[2]
    refused(await operate("dead-letters", "drop", letters[0]), 1)


@pytest.mark.parametrize("letter", ["x", "0", "0:1", "1:1-1", "0:1-1-1", f"0:{2**64}0-1"])
async def test_name_of_no_dead_letter_is_refused(operate: Operate, letter: str) -> None:
    """Malformed, or of a partition that does not exist."""
    for command in ("show", "replay", "drop"):
        refused(await operate("dead-letters", command, letter), 2)
