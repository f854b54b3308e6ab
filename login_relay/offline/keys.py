"""`login-relay keys`: makes the file of the master secrets, and replaces them one after the other."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from login_relay.operate.relay import json_option
from login_relay.operate.tables import table
from login_relay.run.keys_file import kept_keys_file
from runtime.clock import rfc3339
from runtime.errors import SettingError
from runtime.master_secret import MasterSecret, new_master_secret
from runtime.master_secrets import (
    MOST,
    MasterSecretsError,
    changing_master_secrets,
    read_master_secrets,
    write_master_secrets,
)
from runtime.settings import load_settings, variable
from tokens.announcing import PERIOD
from tokens.signing_keys import JWKS_MAX_AGE

C = TypeVar("C", bound=Callable[..., object])

PROMOTE_AFTER = JWKS_MAX_AGE + 2 * int(PERIOD)
"""Seconds from `add` to `promote`: the API processes read the file, then the caches of their key sets expire."""

SIGNS, VERIFIES = "signs and seals", "verifies and opens"


class Listed(msgspec.Struct, frozen=True):
    """One secret as `--json` prints it: never the secret itself. Fields are only ever added."""

    kid: str
    signs: bool
    added_at: str | None
    promote_after: str | None
    """When it may be promoted; None for the first, and where it is not known when it was added."""
    fingerprint: str


class Printed(msgspec.Struct, frozen=True):
    """What `--json` prints, the same for all commands."""

    file: str
    keys: list[Listed]


_file_option = click.option(
    "--file",
    "given",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"The file.  [default: {variable('keys_file')}, or that of `serve` in the state folder]",
)


@click.group()
def keys() -> None:
    """Make, list and replace the master secrets that access tokens are signed with.

    They are in one file, which only API processes read; each needs the same one. They read it again within seconds of
    a change. To replace a secret, so that no token is refused meanwhile:

    \b
        login-relay keys add           a new one, which only verifies at first
        login-relay keys promote KID   an hour later: from now on it signs
        login-relay keys drop OLD      once the last token of the old one has expired

    If a secret leaked, do all three at once, with `promote --now`: all access tokens are refused, and each tool gets a
    new one with its refresh token.
    """  # noqa: D301 - `\b` tells click not to wrap the paragraph


@keys.command()
@_file_option
@click.option("--if-missing", is_flag=True, help="Keep a file that exists, if it is in order.")
@json_option
def create(given: Path | None, *, if_missing: bool, as_json: bool) -> None:
    """Make the file, with one secret and mode 0600. A file that exists is never overwritten."""
    path, made = _path(given), (new_master_secret(),)
    try:
        write_master_secrets(path, made, is_new=True)
    except MasterSecretsError:
        if not (if_missing and path.exists()):  # asked afterwards: another one may make it meanwhile
            raise
        _print(path, read_master_secrets(path), "It exists, and is in order.", as_json=as_json)
        return
    _print(
        path, made, f"Made {path}. Copy it to each machine that runs an API process, and to no other.", as_json=as_json
    )


@keys.command("list")
@_file_option
@json_option
def list_keys(given: Path | None, *, as_json: bool) -> None:
    """List the secrets in their order, by kid and fingerprint. The secrets themselves are never shown."""
    path = _path(given)
    _print(path, read_master_secrets(path), None, as_json=as_json)


@keys.command()
@_file_option
@json_option
def add(given: Path | None, *, as_json: bool) -> None:
    """Add a new secret, which only verifies and opens until it is promoted."""
    path, made = _path(given), new_master_secret()
    with changing_master_secrets(path) as kept:
        if len(kept) >= MOST:
            raise click.ClickException(f"{path} has {MOST} secrets, which is the most: drop one first")
        changed = (*kept, made)
        write_master_secrets(path, changed)
    note = (
        f"Added {made.kid}. Every machine with an API process must have the new file now. Not before "
        f"{_time(int(time.time()) + PROMOTE_AFTER)}, when no cache has a key set without it: "
        f"`login-relay keys promote {made.kid}`"
    )
    _print(path, changed, note, as_json=as_json)


@keys.command()
@click.argument("kid")
@_file_option
@click.option("--now", is_flag=True, help="Do not wait for caches: for a secret that leaked.")
@json_option
def promote(kid: str, given: Path | None, *, now: bool, as_json: bool) -> None:
    """Make a secret the first: it signs and seals from now on."""
    path = _path(given)
    with changing_master_secrets(path) as kept:
        found, old = _find(path, kept, kid), kept[0]
        if found is old:
            raise click.ClickException(f"{kid} is the first already")
        ready = None if found.added_at is None else found.added_at + PROMOTE_AFTER
        if ready is not None and time.time() < ready and not now:
            raise click.ClickException(
                f"{kid} was added less than an hour ago: until {_time(ready)}, those who have an older key set in a "
                "cache would refuse its tokens; --now promotes it all the same"
            )
        changed = (found, *(one for one in kept if one is not found))
        write_master_secrets(path, changed)
    last = int(time.time()) + load_settings(os.environ).access_token_lifetime_s + 2 * int(PERIOD)
    note = (
        f"{kid} signs. Tokens signed with {old.kid} expire until {_time(last)}; then: `login-relay keys drop {old.kid}`"
    )
    _print(path, changed, note, as_json=as_json)


@keys.command()
@click.argument("kid")
@_file_option
@json_option
def drop(kid: str, given: Path | None, *, as_json: bool) -> None:
    """Remove a secret that does not sign: what was signed or sealed with it is worth nothing from now on."""
    path = _path(given)
    with changing_master_secrets(path) as kept:
        found = _find(path, kept, kid)
        if found is kept[0]:
            other = (
                "promote another one first" if len(kept) > 1 else "it is the last; add another one and promote it first"
            )
            raise click.ClickException(f"{kid} signs and seals: {other}")
        changed = tuple(one for one in kept if one is not found)
        write_master_secrets(path, changed)
    _print(path, changed, f"Dropped {kid}.", as_json=as_json)


def _path(given: Path | None) -> Path:
    path = given or kept_keys_file(load_settings(os.environ))
    if path is None:
        message = f"name the file: --file, or {variable('keys_file')}"
        raise SettingError(message)
    return path


def _find(path: Path, kept: tuple[MasterSecret, ...], kid: str) -> MasterSecret:
    for one in kept:
        if one.kid == kid:
            return one
    raise click.ClickException(f"{path} has no secret with this kid; `login-relay keys list` shows them")


def _time(seconds: int) -> str:
    return rfc3339(seconds * 1000)


def _print(path: Path, kept: tuple[MasterSecret, ...], note: str | None, *, as_json: bool) -> None:
    listed = [
        Listed(
            kid=one.kid,
            signs=index == 0,
            added_at=None if one.added_at is None else _time(one.added_at),
            promote_after=None if index == 0 or one.added_at is None else _time(one.added_at + PROMOTE_AFTER),
            fingerprint=one.fingerprint,
        )
        for index, one in enumerate(kept)
    ]
    if as_json:
        click.echo(msgspec.json.encode(Printed(str(path), listed)))
        return
    rows = [
        (one.kid, SIGNS if one.signs else VERIFIES, one.added_at or "-", one.promote_after or "-", one.fingerprint)
        for one in listed
    ]
    click.echo(table(("kid", "use", "added", "may sign from", "fingerprint"), rows))
    if note:
        click.echo(note, err=True)
