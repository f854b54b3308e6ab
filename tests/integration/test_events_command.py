import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from runtime.redis.keys import Keys
from runtime.settings import Settings
from tests.support.eventually import wait_until
from tests.support.operate import Operate
from tests.support.relay import PROJECT, Relay

PARTITIONS = 4


@pytest.fixture
def partitions() -> int:
    """The number of partitions of this test's relay; a test may be parametrized with another number."""
    return PARTITIONS


@pytest.fixture
def settings(settings: Settings, partitions: int) -> Settings:
    """Several partitions on the one Redis."""
    return msgspec.structs.replace(settings, partitions=partitions)


class Printer:
    """A running `login-relay events`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._reading = [
            asyncio.create_task(_read(process.stdout, self.lines)),
            asyncio.create_task(_read(process.stderr, self.errors)),
        ]

    @property
    def events(self) -> list[dict[str, Any]]:
        """What it printed, as JSON."""
        return [json.loads(line) for line in self.lines]

    async def end(self) -> int:
        """Wait for its end; returns its exit code."""
        code = await asyncio.wait_for(self.process.wait(), 20)
        await asyncio.gather(*self._reading)
        return code


async def _read(stream: asyncio.StreamReader | None, lines: list[str]) -> None:
    assert stream is not None
    async for line in stream:
        lines.append(line.decode().rstrip("\n"))  # noqa: PERF401 - others look at the list while it grows


Start = Callable[..., Awaitable[Printer]]


@pytest.fixture
async def start(environment: dict[str, str]) -> AsyncIterator[Start]:
    """Run `login-relay events …` on the relay of this test."""
    printers = []

    async def run(*arguments: str) -> Printer:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "login_relay", "events", *arguments),
            env=os.environ | environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        printers.append(Printer(process))
        return printers[-1]

    yield run
    for printer in printers:
        if printer.process.returncode is None:
            printer.process.kill()
        await printer.end()


Print = Callable[..., Awaitable[list[dict[str, Any]]]]


@pytest.fixture
def printed(operate: Operate) -> Print:
    """Return what the command prints when it does not follow."""

    async def run(*arguments: str) -> list[dict[str, Any]]:
        result = await operate("events", "--json", *arguments)
        assert (result.exit_code, result.stderr) == (0, "")
        return [json.loads(line) for line in result.stdout.splitlines()]

    return run


def ids(events: list[dict[str, Any]]) -> list[str]:
    """The ids of events."""
    return [event["id"] for event in events]


async def test_events_of_all_partitions_are_printed_in_time_order(start: Start, printed: Print, relay: Relay) -> None:
    """Each as a CloudEvent, or as a line for people."""
    sessions = [await relay.completed() for _ in range(48)]
    events = await printed()
    assert sorted(ids(events)) == sorted(f"{one.session_id}.{version}" for one in sessions for version in (1, 2))
    assert len({event["subject"][:2] for event in events}) == PARTITIONS
    times = [event["time"] for event in events if event["type"] == "session.initiated"]
    assert times == sorted(times)
    people = await start()
    assert await people.end() == 0
    assert [line.split()[:4] for line in people.lines] == [
        [event["time"], event["type"], event["subject"], f"v{event['version']}"] for event in events
    ]
    assert all(json.loads(line.split(maxsplit=4)[4])["project_id"] for line in people.lines)


async def test_events_without_a_version_are_printed(
    start: Start, printed: Print, operate: Operate, relay: Relay
) -> None:
    """Those of projects, which come first in every log: in JSON without the attribute, for people with a dash."""
    assert (await operate("projects", "create", "acme")).exit_code == 0
    session = await relay.completed()
    events = {event["type"]: event for event in await printed()}
    assert "version" not in events["audit.project_changed"]
    assert events["audit.project_changed"]["data"]["name"] == "acme"
    assert events["session.completed"]["subject"] == session.session_id
    people = await start("--type", "audit.project_changed")
    assert await people.end() == 0
    assert [line.split()[3] for line in people.lines] == ["--"]
    assert await printed("--from", events["audit.project_changed"]["cursor"], "--type", "audit.project_changed") == []


async def test_reading_goes_on_after_any_event(printed: Print, relay: Relay) -> None:
    """Reading from the cursor of an event gives exactly the events after it."""
    for _ in range(6):
        await relay.completed()
    events = await printed()
    for position in (0, 5, 11):
        assert await printed("--from", events[position]["cursor"]) == events[position + 1 :]


async def test_times_and_entry_ids_are_places_to_begin(printed: Print, relay: Relay, redis: Redis, keys: Keys) -> None:
    """RFC 3339 in any zone, a length of time ago, and the id of a stream entry."""
    first = await relay.completed()
    moment = await relay.now()
    await relay.pass_by(moment)
    second = await relay.completed()
    everything = ids(await printed())
    later = ids(await printed("--session", second.session_id))
    entries = dict(await redis.execute_command("XRANGE", keys.events(keys.partition_of(first.session_id)), "-", "+"))
    begun = next(event["time"] for event in await printed() if event["subject"] == second.session_id)
    for where, expected in (
        ("0-0", everything),
        ("1h", everything),
        ("1970-01-01T00:00:00Z", everything),
        ("0", []),
        ("9999-12-31T23:59:59+00:00", []),
        (f"{moment}-18446744073709551615", later),
        (next(iter(entries)).decode(), everything[1:]),
        (begun.replace("Z", "+00:00"), later),
    ):
        told = await printed("--from", where)
        assert ids(told) == expected, where
        if told:
            assert ids(await printed("--from", told[0]["cursor"])) == expected[1:], where


async def test_events_are_chosen_by_session_and_type(printed: Print, relay: Relay) -> None:
    """Both filters narrow the output, and a type may be given more than once."""
    first, _ = await relay.completed(), await relay.completed()
    completed = await printed("--type", "session.completed")
    assert {event["type"] for event in completed} == {"session.completed"}
    assert len(completed) == 2
    assert ids(await printed("--type", "session.completed", "--session", first.session_id)) == [f"{first.session_id}.2"]
    both = await printed("--type", "session.completed", "--type", "session.initiated")
    assert len(both) == 4


@asynccontextmanager
async def following(start: Start, *arguments: str) -> AsyncIterator[Printer]:
    """Follow until the context ends; then press Ctrl-C."""
    printer = await start("--follow", "--json", *arguments)
    yield printer
    printer.process.send_signal(signal.SIGINT)
    assert await printer.end() == -signal.SIGINT


async def test_follower_outlives_lost_connections(start: Start, relay: Relay, redis: Redis) -> None:
    """Its connection is killed again and again: it prints each event once, and reports the losses on standard error."""
    before = await relay.completed()
    async with following(start, "--from", "0-0") as printer:
        await wait_until(lambda: len(printer.lines) == 2, within=20)
        sessions = [before]
        for _ in range(3):
            sessions.append(await relay.completed())
            [reading] = [row["id"] for row in await redis.client_list() if row["name"] == "login-relay:events"]
            await redis.execute_command("CLIENT", "KILL", "ID", reading)
            sessions.append(await relay.completed())
            count = 2 * len(sessions)
            await wait_until(lambda: len(printer.lines) >= count, within=20)  # noqa: B023 - awaited in the same round
    assert sorted(ids(printer.events)) == sorted(
        f"{session.session_id}.{version}" for session in sessions for version in (1, 2)
    )
    assert [line.split(":")[1].split()[0] for line in printer.errors] == ["Redis", "Redis"] * 3


async def test_another_follower_goes_on_where_one_was_killed(start: Start, printed: Print, relay: Relay) -> None:
    """It starts from the cursor of the last line that was read."""
    killed = await start("--follow", "--json")

    async def is_told() -> bool:
        await relay.completed()
        return len(killed.lines) > 3

    await wait_until(is_told, within=20)
    killed.process.kill()
    await killed.end()
    last = killed.events[2]
    await relay.completed()
    everything = await printed()
    rest = everything[ids(everything).index(last["id"]) + 1 :]
    async with following(start, "--from", last["cursor"]) as printer:
        await wait_until(lambda: len(printer.lines) >= len(rest), within=20)
    assert printer.events == rest


@pytest.mark.parametrize(
    "where", ["yesterday", "", "7-", "7-99999999999999999999", "2031-01-01T00:15:00", "lrp_secret", "kQAA"]
)
async def test_place_that_is_none_is_refused(start: Start, where: str) -> None:
    """In one line, which does not repeat the text."""
    printer = await start("--from", where)
    assert await printer.end() == 2
    [line] = printer.errors
    assert "--from" in line
    assert not where or where not in line


async def test_cursor_of_an_event_that_is_gone_is_refused(
    start: Start, printed: Print, relay: Relay, redis: Redis, keys: Keys
) -> None:
    """The reader must know that events are missing."""
    for _ in range(4):
        await relay.completed()
    [first, *_] = await printed()
    for partition in keys.partitions:
        await redis.xtrim(keys.events(partition), maxlen=0, approximate=False)
    printer = await start("--from", first["cursor"])
    assert await printer.end() == 1
    assert printer.errors == ["login-relay: events after this one are not kept any more; begin at a time instead"]


async def test_reader_that_has_had_enough_ends_the_command(environment: dict[str, str], relay: Relay) -> None:
    """`| head -1` is no failure, however much is left to print."""
    await relay.completed()
    reading, writing = os.pipe()
    os.close(reading)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "login_relay", "events"),
        env=os.environ | environment,
        stdout=writing,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writing)
    _, errors = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, errors) == (0, b"")


@pytest.mark.parametrize("partitions", [1])
async def test_events_are_printed_in_order(operate: Operate, relay: Relay) -> None:
    """A line each for people, a CloudEvent each for programs; `--session` prints one session only."""
    first, second = await relay.completed(), await relay.initiate()
    printed = [json.loads(line) for line in (await operate("events", "--json")).stdout.splitlines()]
    assert [(event["type"], event["subject"], event["version"]) for event in printed] == [
        ("session.initiated", first.session_id, 1),
        ("session.completed", first.session_id, 2),
        ("session.initiated", second.session_id, 1),
    ]
    assert printed[0]["data"]["project_id"] == PROJECT
    lines = (await operate("events", "--session", first.session_id)).stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["session.initiated", "session.completed"]


@pytest.mark.parametrize("partitions", [1])
async def test_followed_events_are_those_to_come(relay: Relay, environment: dict[str, str]) -> None:
    """They are printed as they happen, until Ctrl-C ends the command without a message."""
    before = (await relay.initiate()).session_id
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "login_relay", "events", "--follow", "--json"),
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    first = asyncio.create_task(process.stdout.readline())
    initiated = []

    async def is_told() -> bool:
        initiated.append((await relay.initiate()).session_id)
        return first.done()

    await wait_until(is_told, within=20)
    subject = json.loads(first.result())["subject"]
    assert subject in initiated
    assert subject != before
    after = initiated[initiated.index(subject) + 1 :]
    for session_id in after:
        assert json.loads(await process.stdout.readline())["subject"] == session_id
    process.send_signal(signal.SIGINT)
    rest, errors = await process.communicate()
    assert (process.returncode, rest, errors) == (-signal.SIGINT, b"", b"")
