"""`login-relay sessions`: look at one session, and end those that are pending."""

from ipaddress import ip_address

import click
import msgspec

from login_relay.operate.expiring import expire, find_pending
from login_relay.operate.projects import find
from login_relay.operate.relay import Relay, json_option, on_relay
from projects.store import Projects
from runtime.address import UNKNOWN_ADDRESS
from runtime.clock import rfc3339
from runtime.codes import is_session_id
from statemachine.lifecycle import State
from statemachine.store.inspection import SessionFacts, read_facts


@click.group()
def sessions() -> None:
    """Look at sessions, and end pending ones."""


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


def _checked_address(_: click.Context, __: click.Parameter, given: str | None) -> str | None:
    if given is None or given == UNKNOWN_ADDRESS:
        return given
    try:
        return str(ip_address(given))
    except ValueError:
        message = "an IPv4 or IPv6 address"
        raise click.BadParameter(message) from None


@sessions.command("expire")
@click.option("--project", required=True, metavar="NAME|ID", help="Whose sessions.")
@click.option(
    "--address",
    callback=_checked_address,
    help="Only those that this client address began; an IPv6 address stands for its /64, as in the budgets.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@on_relay
async def expire_pending(relay: Relay, project: str, *, address: str | None, yes: bool, as_json: bool) -> None:
    """End all pending sessions of a project, as after an attack: they make room for others at once.

    Workers do it. Exit code 1: they did not decide about all of them in time. --json prints one object: expired, over
    (not pending any more), undecided.
    """
    found = await find(Projects(relay.redis, relay.keys), project)
    pending = await find_pending(relay, found.id, address)
    whose = f"of the project {found.name!r} ({found.id})" + (f" from {address}" if address else "")
    if pending and not yes:
        click.confirm(f"End {len(pending)} pending sessions {whose}?", abort=True, err=True)
    ended = await expire(relay, pending)
    if as_json:
        click.echo(msgspec.json.encode(ended._asdict()))
    else:
        click.echo(f"Expired {ended.expired} sessions {whose}; {ended.over} were over already.")
    if ended.undecided:
        message = f"{ended.undecided} not decided in time: does a worker run? `login-relay status` says so"
        raise click.ClickException(message)


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
