"""`login-relay tokens`: where a subject is logged in, and how that ends."""

import secrets

import click
import msgspec

from login_relay.operate.expiring import OPERATOR, wait_for_outcomes
from login_relay.operate.projects import find
from login_relay.operate.relay import Relay, json_option, on_relay
from login_relay.operate.tables import printable, table
from projects.store import Projects
from runtime.clock import rfc3339
from runtime.codes import is_session_id
from statemachine.session import ClientFacts
from statemachine.store.retention import Retention
from tokens.commands import RevokeFamily
from tokens.family import Family, is_alive
from tokens.store.committing import TokenRetention
from tokens.store.reading import Families
from tokens.store.recording import Subjects, record_command

_clients = msgspec.json.Decoder(ClientFacts)

project_option = click.option("--project", required=True, metavar="NAME|ID", help="Whose tokens.")
SUBJECT_HELP = "Who is logged in, as the backend named them; the session's id if it named nobody."
subject_option = click.option("--subject", required=True, help=SUBJECT_HELP)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group()
def tokens() -> None:
    """List and revoke refresh tokens, and log subjects out."""


@tokens.command("list")
@project_option
@click.option("--subject", help=SUBJECT_HELP)
@json_option
@on_relay
async def list_tokens(relay: Relay, project: str, subject: str | None, *, as_json: bool) -> None:
    """List where a subject is logged in: its logins with a refresh token that works, the latest first.

    Only refresh tokens that the relay minted are known to it. No token is shown: none is stored.
    """
    if subject is None:
        message = (
            "name the subject with --subject: Redis has no list of all tokens of a project. `login-relay events "
            "--type family.opened` prints the subjects of the last day"
        )
        raise click.UsageError(message)
    found = await find(Projects(relay.redis, relay.keys), project)
    families = await Families(relay.redis, relay.keys).of_subject(found.id, subject)
    shown = [_by_name(family) for family in families]
    if as_json:
        click.echo(msgspec.json.encode(shown))
        return
    if not shown:
        click.echo(f"Nobody is logged in as {printable(subject)} in the project {found.name!r} ({found.id}).")
        return
    columns = ("session_id", "flow", "client_name", "hostname", "opened_at", "refreshed_at", "dies_at")
    click.echo(table(columns, [[row[column] or "-" for column in columns] for row in shown]))


@tokens.command("revoke")
@click.argument("session_id")
@yes_option
@json_option
@on_relay
async def revoke(relay: Relay, session_id: str, *, yes: bool, as_json: bool) -> None:
    """Revoke the refresh token that a login was given, and all that replaced it, by the id of its session.

    A worker does it. Exit code 1: there is no such token, or no worker did it in time.
    """
    if not is_session_id(session_id, len(relay.keys.partitions)):
        # The text is not repeated: a token pasted by mistake is a secret.
        message = "a session id is 26 hexadecimal digits, as `tokens list` and the events give it"
        raise click.BadParameter(message, param_hint="SESSION_ID")
    family, now = await Families(relay.redis, relay.keys).read(session_id)
    if family is None:
        message = f"the session {session_id} has no refresh token: it never had one, or it ended too long ago"
        raise click.ClickException(message)
    if was_alive := is_alive(family, now):
        if not yes:
            click.confirm(f"Revoke the tokens of {printable(family.subject)}?", abort=True, err=True)
        await _revoke(relay, family)
    if as_json:
        click.echo(msgspec.json.encode({"session_id": session_id, "revoked": True, "was_alive": was_alive}))
    else:
        click.echo(f"The tokens of the session {session_id} {'are' if was_alive else 'were'} revoked or over.")


async def _revoke(relay: Relay, family: Family) -> None:
    settings = relay.settings
    command = RevokeFamily(secrets.token_hex(16), family.id, OPERATOR, "server")
    is_recorded = await record_command(
        relay.redis,
        relay.keys,
        command,
        backlog_limit=settings.backlog_limit,
        outcome_ms=settings.replay_window_ms,
    )
    if not is_recorded:
        raise click.ClickException("the backlog is full: nothing was recorded; `login-relay status` shows it")
    if not await wait_for_outcomes(relay, relay.keys.partition_of(family.id), [command.id]):
        raise click.ClickException("not decided in time: does a worker run? `login-relay status` says so")


@tokens.command("logout")
@project_option
@subject_option
@yes_option
@json_option
@on_relay
async def log_out(relay: Relay, project: str, subject: str, *, yes: bool, as_json: bool) -> None:
    """Log a subject out everywhere: all that was approved for it until now opens nothing any more.

    No worker is needed. Access tokens that exist work on until they expire, within minutes.
    """
    found = await find(Projects(relay.redis, relay.keys), project)
    whose = f"{printable(subject)} of the project {found.name!r} ({found.id})"
    if not yes:
        click.confirm(f"Log {whose} out everywhere?", abort=True, err=True)
    at = await Subjects(relay.redis, relay.keys, _retention(relay)).log_out(found.id, subject)
    if as_json:
        click.echo(msgspec.json.encode({"project_id": found.id, "subject": subject, "logged_out_at": rfc3339(at)}))
    else:
        click.echo(f"Logged {whose} out everywhere, as of {rfc3339(at)}.")


def _retention(relay: Relay) -> TokenRetention:
    settings = relay.settings
    retention = Retention(settings.retention_ms, settings.abandoned_retention_ms, settings.events_max)
    return retention.of_tokens(settings.replay_window_ms, len(relay.keys.partitions))


def _by_name(family: Family) -> dict[str, str | bool | None]:
    """Return what an operator sees of a family, with times as RFC 3339 writes them."""
    client = _clients.decode(family.client)
    return {
        "session_id": family.id,
        "subject": family.subject,
        "client_id": family.client_id,
        "flow": family.flow,
        "rotates": family.rotates,
        "anonymous": family.anonymous,
        "scope": family.scope,
        "client_name": client.client_name,
        "client_version": client.client_version,
        "hostname": client.hostname,
        "opened_at": rfc3339(family.opened_at),
        "refreshed_at": rfc3339(family.refreshed_at),
        "dies_at": rfc3339(family.dies_at),
        "ends_at": rfc3339(family.ends_at),
    }
