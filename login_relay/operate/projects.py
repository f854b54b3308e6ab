"""`login-relay projects`: create, list, update, rotate and delete the tenants of a relay."""

from collections.abc import Callable, Mapping
from typing import TypedDict, TypeVar, Unpack

import click
import msgspec

from login_relay.operate.duration import Duration
from login_relay.operate.relay import Relay, json_option, on_relay
from login_relay.operate.tables import MINUTE, SECOND, age, table
from projects.errors import ProjectNameTakenError, UnknownProjectError
from projects.oauth import NO_OAUTH, OAuth, is_audience, is_page_template, is_page_uri, parse_scopes
from projects.project import (
    DEFAULT_POLICY,
    KeyKind,
    Policy,
    Project,
    is_project_name,
    normalise_origin,
)
from projects.store import Projects
from runtime.clock import rfc3339
from statemachine.store.initiating import MAX_LIFETIME_MS
from tokens.family import LONGEST_LIFE_MS

C = TypeVar("C", bound=Callable[..., object])

KEY_CHOICES = {
    "publishable": [KeyKind.PUBLISHABLE_CLIENT],
    "secret": [KeyKind.SECRET_SERVER],
    "admin": [KeyKind.SUPER_SECRET_ADMIN],
    "all": list(KeyKind),
}
SHOWN_ONCE = "These keys are shown this once: only their digests are stored."


def _checked_name(_: click.Context, __: click.Parameter, name: str) -> str:
    if not is_project_name(name):
        message = "a name is 1 to 64 printable characters, with no space at its ends, and no UUID"
        raise click.BadParameter(message)
    return name


def _checked_lifetime(_: click.Context, __: click.Parameter, given: int | None) -> int | None:
    if given is not None and not SECOND <= given <= MAX_LIFETIME_MS:
        message = "a session lives 1s to 24h"
        raise click.BadParameter(message)
    return given


def _checked_token_time(_: click.Context, __: click.Parameter, given: int | None) -> int | None:
    if given is not None and not MINUTE <= given <= LONGEST_LIFE_MS:
        message = "a refresh token lives 1m to 400d"
        raise click.BadParameter(message)
    return given


def _checked_uri(_: click.Context, __: click.Parameter, given: str | None) -> str | None:
    if given and not is_page_uri(given):
        message = "expected https://… without a fragment, or http:// on loopback"
        raise click.BadParameter(message)
    return given


def _checked_template(_: click.Context, __: click.Parameter, given: str | None) -> str | None:
    if given and not is_page_template(given):
        message = "expected a URI as --verification-uri with {user_code} in it, once, behind the host"
        raise click.BadParameter(message)
    return given


def _checked_scopes(_: click.Context, __: click.Parameter, given: str | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    if (scopes := parse_scopes(given)) is None:
        message = "expected 1 to 32 scopes separated by spaces, such as 'cli repo:read' (RFC 6749, section 3.3)"
        raise click.BadParameter(message)
    return scopes


def _checked_audience(_: click.Context, __: click.Parameter, given: str | None) -> str | None:
    if given and not is_audience(given):
        message = "expected at most 256 visible ASCII characters, such as https://api.example.com"
        raise click.BadParameter(message)
    return given


_policy_options = (
    click.option(
        "--longest-lifetime",
        type=Duration(),
        callback=_checked_lifetime,
        metavar="TIME",
        help="Cut longer lives of sessions to this: 1s to 24h. Absent: as LOGIN_RELAY_LONGEST_LIFETIME_MS says.",
    ),
    click.option(
        "--token-idle",
        type=Duration(),
        callback=_checked_token_time,
        metavar="TIME",
        help="Minted refresh tokens end if not used for so long: 1m to 400d. It can only shorten "
        "LOGIN_RELAY_REFRESH_TOKEN_IDLE_MS.",
    ),
    click.option(
        "--token-life",
        type=Duration(),
        callback=_checked_token_time,
        metavar="TIME",
        help="The same, however often they are used, and LOGIN_RELAY_REFRESH_TOKEN_LIFE_MS.",
    ),
    click.option(
        "--require-binding/--no-require-binding",
        default=None,
        help="Refuse tools that do not bind their sessions (code_challenge).",
    ),
    click.option(
        "--live-sessions-per-address",
        type=click.IntRange(1, 1_000_000_000),
        metavar="N",
        help="Live sessions of one client address. Absent: as LOGIN_RELAY_LIVE_SESSIONS_PER_ADDRESS says.",
    ),
    click.option(
        "--claim-anonymous/--no-claim-anonymous",
        default=None,
        help="Let backends take over the anonymous session of a tool by the login code (claim-anon-session); off by "
        "default.",
    ),
    click.option(
        "--oauth/--no-oauth",
        "oauth",
        default=None,
        help="Let any OAuth client start logins (RFC 8628), without a key; off by default.",
    ),
    click.option(
        "--verification-uri",
        callback=_checked_uri,
        metavar="URI",
        help="The page to which OAuth clients send their users: https, or http on loopback. Needed with --oauth.",
    ),
    click.option(
        "--verification-uri-complete",
        callback=_checked_template,
        metavar="TEMPLATE",
        help="The same page with {user_code} in it. Absent: the page with a parameter user_code.",
    ),
    click.option(
        "--scopes",
        callback=_checked_scopes,
        metavar="'A B'",
        help="The scopes that OAuth clients may ask for, and get if they ask for none. Absent: cli.",
    ),
    click.option(
        "--audience",
        callback=_checked_audience,
        metavar="AUD",
        help="Who the access tokens are for. Absent: the project's id.",
    ),
)


class _Asked(TypedDict):
    """The options of `_with_policy`; None: not given."""

    longest_lifetime: int | None
    token_idle: int | None
    token_life: int | None
    require_binding: bool | None
    live_sessions_per_address: int | None
    claim_anonymous: bool | None
    oauth: bool | None
    verification_uri: str | None
    verification_uri_complete: str | None
    scopes: tuple[str, ...] | None
    audience: str | None


def _with_policy(command: C) -> C:
    """Add the options of a project's rules to a command and return it."""
    for option in reversed(_policy_options):
        command = option(command)
    return command


def _policy(before: Policy, asked: _Asked) -> Policy:
    """Return the policy with the options that were given."""
    wanted = {
        "longest_lifetime_ms": asked["longest_lifetime"],
        "refresh_token_idle_ms": asked["token_idle"],
        "refresh_token_life_ms": asked["token_life"],
        "require_binding": asked["require_binding"],
        "live_sessions_per_address": asked["live_sessions_per_address"],
        "claim_anonymous": asked["claim_anonymous"],
    }
    return Policy(**before._asdict() | {name: value for name, value in wanted.items() if value is not None})


def _oauth(before: OAuth, asked: _Asked) -> OAuth:
    """Return the rules for OAuth clients with the options that were given; an empty one is back at its default."""
    wanted = {
        "is_on": asked["oauth"],
        "verification_uri": asked["verification_uri"],
        "verification_uri_complete": asked["verification_uri_complete"],
        "scopes": asked["scopes"],
        "audience": asked["audience"],
    }
    after = OAuth(**before._asdict() | {name: value for name, value in wanted.items() if value is not None})
    if after.is_on and not after.can_log_in:
        message = "--oauth needs --verification-uri: the page to which OAuth clients send their users"
        raise click.UsageError(message)
    return after


def _oauth_in_words(oauth: OAuth) -> str:
    return f"{oauth.verification_uri} ({' '.join(oauth.scopes)})" if oauth.is_on else "off"


def _in_words(policy: Policy) -> str:
    """Return a policy in words; `default` if it sets nothing."""
    words = []
    if policy.longest_lifetime_ms is not None:
        words.append(f"at most {age(policy.longest_lifetime_ms)}")
    if policy.refresh_token_idle_ms is not None:
        words.append(f"tokens idle at most {age(policy.refresh_token_idle_ms)}")
    if policy.refresh_token_life_ms is not None:
        words.append(f"tokens live at most {age(policy.refresh_token_life_ms)}")
    if policy.require_binding:
        words.append("bound")
    if policy.live_sessions_per_address is not None:
        words.append(f"{policy.live_sessions_per_address} live per address")
    if policy.claim_anonymous:
        words.append("anonymous sessions may be claimed")
    return ", ".join(words) or "default"


@click.group()
def projects() -> None:
    """Manage projects and their keys."""


def _checked_origins(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> list[str]:
    origins = [normalise_origin(text) for text in given]
    if None in origins:
        message = "an origin is a scheme, a host and perhaps a port, such as https://app.example.com"
        raise click.BadParameter(message)
    return [origin for origin in origins if origin]


@projects.command("create")
@click.argument("name", callback=_checked_name)
@click.option("--allow-client-complete", is_flag=True, help="Let the publishable key complete logins too.")
@click.option(
    "--allow-origin",
    "origins",
    multiple=True,
    callback=_checked_origins,
    metavar="ORIGIN",
    help="Let pages of this web origin call the API (CORS); may be repeated. Absent: no page may.",
)
@_with_policy
@json_option
@on_relay
async def create(
    relay: Relay,
    name: str,
    *,
    allow_client_complete: bool,
    origins: list[str],
    as_json: bool,
    **asked: Unpack[_Asked],
) -> None:
    """Create a project and show its keys.

    --json prints one object: project_id, name, publishable_client_key, secret_server_key, super_secret_admin_key.
    """
    try:
        project_id, keys = await Projects(relay.redis, relay.keys).create(
            name,
            allow_client_complete=allow_client_complete,
            allowed_origins=origins,
            policy=_policy(DEFAULT_POLICY, asked),
            oauth=_oauth(NO_OAUTH, asked),
        )
    except ProjectNameTakenError:
        message = f"a project named {name!r} exists already"
        raise click.ClickException(message) from None
    _show({"project_id": project_id, "name": name, **_by_name(keys)}, SHOWN_ONCE, as_json=as_json)


@projects.command("list")
@json_option
@on_relay
async def list_projects(relay: Relay, *, as_json: bool) -> None:
    """List all projects by name."""
    found = await Projects(relay.redis, relay.keys).list_all()
    if as_json:
        click.echo(
            msgspec.json.encode(
                [
                    {
                        "project_id": project.id,
                        "name": project.name,
                        "allow_client_complete": project.allow_client_complete,
                        "allowed_origins": project.allowed_origins,
                        "created_at": rfc3339(project.created_at),
                        **project.policy._asdict(),
                        "oauth": project.oauth.is_on,
                        "verification_uri": project.oauth.verification_uri or None,
                        "verification_uri_complete": project.oauth.verification_uri_complete or None,
                        "scopes": project.oauth.scopes,
                        "audience": project.oauth.audience or project.id,
                    }
                    for project in found
                ]
            )
        )
        return
    if not found:
        click.echo("No project yet. `login-relay projects create NAME` makes one.")
        return
    rows = [
        (
            project.name,
            project.id,
            rfc3339(project.created_at),
            "yes" if project.allow_client_complete else "no",
            " ".join(project.allowed_origins) or "none",
            _in_words(project.policy),
            _oauth_in_words(project.oauth),
        )
        for project in found
    ]
    click.echo(table(("name", "id", "created", "client may complete", "origins", "sessions", "oauth"), rows))


@projects.command("update")
@click.argument("project", metavar="NAME|ID")
@click.option(
    "--allow-client-complete/--no-allow-client-complete",
    default=None,
    help="Allow or forbid the publishable key to complete logins too.",
)
@click.option(
    "--allow-origin",
    "allowed",
    multiple=True,
    callback=_checked_origins,
    metavar="ORIGIN",
    help="Let pages of this web origin call the API too (CORS); may be repeated.",
)
@click.option(
    "--forbid-origin",
    "forbidden",
    multiple=True,
    callback=_checked_origins,
    metavar="ORIGIN",
    help="No longer let pages of this web origin call the API; may be repeated.",
)
@_with_policy
@on_relay
async def update(
    relay: Relay,
    project: str,
    *,
    allow_client_complete: bool | None,
    allowed: list[str],
    forbidden: list[str],
    **asked: Unpack[_Asked],
) -> None:
    """Change what a project allows: every API process follows within five seconds."""
    store = Projects(relay.redis, relay.keys)
    found = await find(store, project)
    origins = {*found.allowed_origins, *allowed} - set(forbidden)
    if allow_client_complete is None:
        allow_client_complete = found.allow_client_complete
    await store.update(
        found,
        allow_client_complete=allow_client_complete,
        allowed_origins=origins,
        policy=_policy(found.policy, asked),
        oauth=_oauth(found.oauth, asked),
    )
    click.echo(f"Updated {found.name!r} ({found.id}).")


@projects.command("rotate")
@click.argument("project", metavar="NAME|ID")
@click.option("--key", "choice", type=click.Choice(list(KEY_CHOICES)), default="all", show_default=True)
@click.option(
    "--overlap",
    type=Duration(),
    default="24h",
    show_default=True,
    metavar="TIME",
    help="How long the old keys stay valid: 30s, 10m, 24h, 7d; 0 for a leaked key.",
)
@json_option
@on_relay
async def rotate(relay: Relay, project: str, choice: str, overlap: int, *, as_json: bool) -> None:
    """Give a project new keys and show them; the old keys stay valid for the overlap.

    For a leaked key, use `--overlap 0`: it is refused within five seconds. Without it a thief has a day.
    """
    store = Projects(relay.redis, relay.keys)
    found = await find(store, project)
    keys = await store.rotate(found, KEY_CHOICES[choice], overlap)
    rotated = await find(store, found.id)
    until = rfc3339(rotated.keys[KEY_CHOICES[choice][0]].previous_until)
    facts = {"project_id": found.id, "name": found.name, **_by_name(keys), "previous_keys_valid_until": until}
    if overlap:
        again = f"login-relay projects rotate {found.id} --key {choice} --overlap 0"
        old = f"The old keys stay valid until {until}. If one of them leaked, end that now: `{again}`"
    else:
        old = "The old keys are refused within five seconds."
    _show(facts, f"{SHOWN_ONCE}\n{old}", as_json=as_json)


@projects.command("delete")
@click.argument("project", metavar="NAME|ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@on_relay
async def delete(relay: Relay, project: str, *, yes: bool) -> None:
    """Delete a project: its keys stop working within five seconds."""
    store = Projects(relay.redis, relay.keys)
    found = await find(store, project)
    if not yes:
        click.confirm(f"Delete the project {found.name!r} ({found.id})?", abort=True, err=True)
    await store.delete(found)
    click.echo(f"Deleted {found.name!r} ({found.id}).")


async def find(store: Projects, name_or_id: str) -> Project:
    """Return the project that an operator named, or say that there is none."""
    try:
        return await store.find(name_or_id)
    except UnknownProjectError:
        message = f"no project has the name or id {name_or_id!r}"
        raise click.ClickException(message) from None


def _by_name(keys: Mapping[KeyKind, str]) -> dict[str, str]:
    return {kind.value: key for kind, key in keys.items()}


def _show(facts: Mapping[str, str], note: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(facts))
        return
    width = max(map(len, facts))
    for label, value in facts.items():
        click.echo(f"{label.ljust(width)}  {value}")
    click.echo(note, err=True)
