"""`login-relay dead-letters`: shows, replays or drops entries that no worker could decide."""

import re
from collections.abc import Awaitable, Callable, Sequence

import click
import msgspec

from login_relay.operate.relay import Relay, json_option, on_relay
from login_relay.operate.tables import table
from runtime.clock import rfc3339
from statemachine.store.dead_letters import DeadLetter, DeadLetters, NotReplayableError


class Shown(msgspec.Struct, frozen=True):
    """A dead letter, as `--json` prints it. Fields are only ever added."""

    id: str
    """`PARTITION:ID`, the argument of the other commands."""
    moved_at: str
    reason: str
    deliveries: int
    entry: str
    bytes: int
    command: dict[str, object]
    """Its readable fields, without the sealed token; empty if it is not JSON."""


def _shown(letter: DeadLetter) -> Shown:
    return Shown(
        f"{letter.partition}:{letter.id}",
        rfc3339(letter.moved_at),
        letter.reason,
        letter.deliveries,
        letter.entry,
        len(letter.command),
        letter.fields,
    )


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at, replay or drop entries that no worker could decide."""


@dead_letters.command("list")
@json_option
@on_relay
async def list_letters(relay: Relay, *, as_json: bool) -> None:
    """List all, the oldest of each partition first. --json prints one object per line."""
    rows = []
    async for letter in DeadLetters(relay.redis, relay.keys).all():
        shown = _shown(letter)
        if as_json:
            click.echo(msgspec.json.encode(shown))
        command = shown.command
        rows.append((shown.id, shown.moved_at, command.get("type", "?"), command.get("session_id", "?"), shown.reason))
    if not as_json:
        click.echo(table(("id", "moved", "command", "session", "reason"), rows) if rows else "No dead letters.")


@dead_letters.command("show")
@click.argument("letter_id", metavar="ID")
@json_option
@on_relay
async def show(relay: Relay, letter_id: str, *, as_json: bool) -> None:
    """Show everything that can be read of a dead letter."""
    shown = _shown(await _find(relay, letter_id))
    if as_json:
        click.echo(msgspec.json.encode(shown))
        return
    for name, value in msgspec.structs.asdict(shown).items():
        text = msgspec.json.encode(value).decode() if isinstance(value, dict) else value
        click.echo(f"{name:10}  {text}")


@dead_letters.command("replay")
@click.argument("letter_ids", metavar="ID...", nargs=-1, required=True)
@on_relay
async def replay(relay: Relay, letter_ids: Sequence[str]) -> None:
    """Put the commands back on the stream as new entries, so that the workers try them again."""
    letters = DeadLetters(relay.redis, relay.keys)

    async def again(letter: DeadLetter) -> str | None:
        entry = await letters.replay(letter)
        return entry and f"replayed as entry {entry}"

    await _each(relay, letter_ids, again)


@dead_letters.command("drop")
@click.argument("letter_ids", metavar="ID...", nargs=-1, required=True)
@on_relay
async def drop(relay: Relay, letter_ids: Sequence[str]) -> None:
    """Delete dead letters for good."""
    letters = DeadLetters(relay.redis, relay.keys)

    async def away(letter: DeadLetter) -> str | None:
        return "dropped" if await letters.drop(letter) else None

    await _each(relay, letter_ids, away)


async def _each(relay: Relay, letter_ids: Sequence[str], act: Callable[[DeadLetter], Awaitable[str | None]]) -> None:
    """Act on each dead letter and print the result; fail at the first that is missing or must not be replayed."""
    for letter_id in letter_ids:
        try:
            done = await act(await _find(relay, letter_id))
        except NotReplayableError as error:
            raise click.ClickException(f"{letter_id}: {error}") from None
        if done is None:
            raise click.ClickException(f"no dead letter {letter_id} any more")
        click.echo(f"{letter_id}  {done}")


async def _find(relay: Relay, letter_id: str) -> DeadLetter:
    form = re.fullmatch(r"([0-9]{1,4}):([0-9]{1,20}-[0-9]{1,20})", letter_id)
    if not form or int(form[1]) not in relay.keys.partitions:
        raise click.BadParameter(f"{letter_id!r} is not PARTITION:ID as `dead-letters list` shows it", param_hint="ID")
    letter = await DeadLetters(relay.redis, relay.keys).read(int(form[1]), form[2])
    if letter is None:
        raise click.ClickException(f"no dead letter {letter_id}")
    return letter
