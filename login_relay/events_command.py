"""`login-relay events`: what happened to sessions, from the streams of all partitions."""

from collections.abc import AsyncIterator

import click
import msgspec

from login_relay.relay import Relay, json_option, on_relay, unavailable
from statemachine.connections import reader_client
from statemachine.event_log import START, Batch, EventLog, LoggedEvent
from statemachine.session import is_session_id


@click.command()
@click.option("--follow", is_flag=True, help="Wait for new events and print them, until Ctrl-C.")
@click.option("--session", "session_id", metavar="ID", help="Only events of this session.")
@json_option
@on_relay
async def events(relay: Relay, *, follow: bool, session_id: str | None, as_json: bool) -> None:
    """Print the events that are kept, in time order; with --follow those to come.

    --json prints one CloudEvent a line.
    """
    if session_id is not None and not is_session_id(session_id, len(relay.keys.partitions)):
        # The text is not repeated: a polling code pasted by mistake is a secret.
        message = "a session id is 26 hexadecimal digits, as the API and the events give it"
        raise click.BadParameter(message, param_hint="--session")
    log = EventLog(relay.keys)
    async for batch in _new(relay, log) if follow else _kept(relay, log):
        for logged in batch.events:
            if session_id in (None, logged.event.subject):
                click.echo(msgspec.json.encode(logged.event) if as_json else _line(logged))


async def _kept(relay: Relay, log: EventLog) -> AsyncIterator[Batch]:
    cursor = (START,) * log.partitions
    complete = False
    while not complete:
        batch = await log.read(relay.redis, cursor)
        cursor, complete = batch.cursor, batch.complete
        yield batch


async def _new(relay: Relay, log: EventLog) -> AsyncIterator[Batch]:
    def tell(error: Exception | None) -> None:
        click.echo(f"login-relay: {unavailable(error) if error else 'Redis is back'}", err=True)

    async with reader_client(relay.settings, "login-relay:events") as reader:
        async for batch in log.follow(reader, await log.end(relay.redis), relay.settings.block_ms, tell):
            yield batch


def _line(logged: LoggedEvent) -> str:
    event = logged.event
    return f"{event.time}  {event.type:17}  {event.subject}  v{event.version}  project {logged.project_id}"
