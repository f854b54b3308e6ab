"""`login-relay events`: what happened to sessions and projects, from the streams of all partitions."""

import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from datetime import datetime

import click
import msgspec

from events.cursor import (
    MAX_SEQUENCE,
    START,
    Cursor,
    EntryId,
    decode_cursor,
    encode_cursor,
    last_before,
)
from events.log import Batch, EventLog, LoggedEvent
from login_relay.operate.duration import DURATION, milliseconds
from login_relay.operate.relay import (
    Relay,
    json_option,
    on_relay,
)
from runtime.clock import redis_now
from runtime.codes import is_session_id
from runtime.redis.connections import reader_client, unavailable
from statemachine.events import EVENT_TYPES


@click.command()
@click.option("--follow", is_flag=True, help="Go on with the events to come, until Ctrl-C.")
@click.option(
    "--from",
    "begin",
    metavar="WHERE",
    help="Begin after an event (its `cursor` in --json, or a stream entry's id), or at a time: 2026-01-01T00:15:00Z, "
    "or 10m for ten minutes ago. Absent: at the oldest event that is kept; with --follow: now.",
)
@click.option("--session", "session_id", metavar="ID", help="Only events of this session.")
@click.option(
    "--type", "types", multiple=True, type=click.Choice(list(EVENT_TYPES.values())), help="Only these; may be repeated."
)
@json_option
@on_relay
async def events(
    relay: Relay, *, follow: bool, begin: str | None, session_id: str | None, types: tuple[str, ...], as_json: bool
) -> None:
    """Print what happened to sessions, in time order, over all partitions.

    --json prints one CloudEvent a line. Its `cursor` given to --from goes on exactly after it.
    """
    if session_id is not None and not is_session_id(session_id, len(relay.keys.partitions)):
        # The text is not repeated: a polling code pasted by mistake is a secret.
        message = "a session id is 26 hexadecimal digits, as the API and the events give it"
        raise click.BadParameter(message, param_hint="--session")
    log = EventLog(relay.keys)
    if begin is not None:
        cursor = await _place(relay, log, begin)
    else:
        cursor = await log.end(relay.redis) if follow else (START,) * log.partitions
    async for batch in _to_come(relay, log, cursor) if follow else _kept(relay, log, cursor):
        for logged in batch.events:
            if session_id in (None, logged.event.subject) and (not types or logged.event.type in types):
                _print(_json(logged) if as_json else _line(logged))


async def _place(relay: Relay, log: EventLog, text: str) -> Cursor:
    """Return where `--from` says to begin."""
    if (cursor := decode_cursor(text, log.partitions)) is not None:
        if not await log.has_all_after(relay.redis, cursor):
            message = "events after this one are not kept any more; begin at a time instead"
            raise click.ClickException(message)
        return cursor
    if re.fullmatch(r"[0-9]{1,20}-[0-9]{1,20}", text) and max(EntryId.parse(text)) <= MAX_SEQUENCE:
        return await log.after(relay.redis, EntryId.parse(text))
    if DURATION.fullmatch(text):
        return await log.after(relay.redis, last_before(await redis_now(relay.redis) - milliseconds(text)))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        message = "neither an event's cursor or entry id, nor a time such as 2026-01-01T00:15:00Z or 10m"
        raise click.BadParameter(message, param_hint="--from")
    return await log.after(relay.redis, last_before(round(moment.timestamp() * 1_000)))


async def _kept(relay: Relay, log: EventLog, cursor: Cursor) -> AsyncIterator[Batch]:
    complete = False
    while not complete:
        batch = await log.read(relay.redis, cursor)
        cursor, complete = batch.cursor, batch.complete
        yield batch


async def _to_come(relay: Relay, log: EventLog, cursor: Cursor) -> AsyncIterator[Batch]:
    # Ctrl-C ends it as it ends `tail -f`. As a cancellation it may be lost: redis-py sends inside `asyncio.wait_for`,
    # which in Python 3.11 drops one that comes when the sending is done.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    def tell(error: Exception | None) -> None:
        click.echo(f"login-relay: {unavailable(error) if error else 'Redis is back'}", err=True)

    async with reader_client(relay.settings, "login-relay:events") as reader:
        async for batch in log.follow(reader, cursor, relay.settings.block_ms, tell):
            yield batch


def _json(logged: LoggedEvent) -> bytes:
    attributes = msgspec.structs.asdict(logged.event) | {"cursor": encode_cursor(logged.cursor)}
    return msgspec.json.encode({name: value for name, value in attributes.items() if value is not msgspec.UNSET})


def _line(logged: LoggedEvent) -> str:
    event = logged.event
    version = "--" if event.version is msgspec.UNSET else f"v{event.version}"
    return f"{event.time}  {event.type:17}  {event.subject}  {version}  {bytes(event.data).decode()}"


def _print(line: str | bytes) -> None:
    try:
        click.echo(line)
    except BrokenPipeError:
        # The reader has had enough (`| head`). What is left in the buffer must not be written at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
