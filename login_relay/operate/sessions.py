"""`login-relay sessions`: look at one session."""

import click
import msgspec

from login_relay.operate.relay import Relay, json_option, on_relay
from runtime.clock import rfc3339
from runtime.codes import is_session_id
from statemachine.lifecycle import State
from statemachine.store.inspection import SessionFacts, read_facts


@click.group()
def sessions() -> None:
    """Look at sessions."""


@sessions.command("show")
@click.argument("session_id")
@json_option
@on_relay
async def show(relay: Relay, session_id: str, *, as_json: bool) -> None:
    """Show a session's state, times and client; never a code or a token."""
    if not is_session_id(session_id, len(relay.keys.partitions)):
        # The text is not repeated: a polling code pasted by mistake is a secret.
        message = "a session id is 26 hexadecimal digits, as the API and the events give it"
        raise click.BadParameter(message, param_hint="SESSION_ID")
    facts = await read_facts(relay.redis, relay.keys, session_id)
    if facts is None:
        message = f"no session {session_id}: there never was one, or it ended too long ago"
        raise click.ClickException(message)
    named = by_name(facts)
    if as_json:
        click.echo(msgspec.json.encode(named))
        return
    for name, value in named.items():
        click.echo(f"{name:15}  {'-' if value is None else value}")


def by_name(facts: SessionFacts) -> dict[str, object]:
    """Return the facts by name, with times as RFC 3339 writes them."""
    named: dict[str, object] = msgspec.to_builtins(facts.client)
    for name, value in msgspec.structs.asdict(facts).items():
        if name == "changed_at":
            named |= {f"{state}_at": _time(facts.changed_at.get(state)) for state in State if state != State.PENDING}
        elif name != "client":
            named[name] = _time(value) if isinstance(value, int) and name != "version" else value
    return named


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else rfc3339(milliseconds)
