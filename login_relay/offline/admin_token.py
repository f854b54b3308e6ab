"""`login-relay admin-token`: makes admin access tokens and their keys, for operators without an identity system."""

import os
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey, import_key

from login_relay.operate.duration import Duration
from runtime.errors import SettingError
from runtime.settings import Settings, load_settings, variable

AnyKey = OctKey | RSAKey | ECKey | OKPKey

ALGORITHMS = {"Ed25519": "Ed25519", "P-256": "ES256", "P-384": "ES384"}
"""The algorithm for each curve. An RSA key signs with PS256."""


@click.command("admin-token")
@click.option(
    "--key", "key_file", type=click.Path(path_type=Path, dir_okay=False), help="File with the private key, a JWK."
)
@click.option(
    "--project",
    "project_ids",
    type=click.UUID,
    multiple=True,
    metavar="ID",
    help="A project of the token; may be repeated.",
)
@click.option(
    "--expires-in",
    type=Duration(),
    metavar="TIME",
    help=f"Lifetime, such as 30s, 10m or 1h. Maximum and default: {variable('admin_token_max_age_s')}.",
)
@click.option(
    "--generate",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Generate an Ed25519 key instead of a token: write it to this file, and print its public half as a JWKS for "
    f"{variable('admin_jwks_file')}.",
)
def admin_token(
    key_file: Path | None, project_ids: tuple[UUID, ...], expires_in: int | None, generate: Path | None
) -> None:
    """Print an admin access token for projects, signed with a private key.

    Set LOGIN_RELAY_ADMIN_ISSUER and LOGIN_RELAY_ADMIN_AUDIENCE to the values that the API has.

    \b
        login-relay admin-token --generate admin.jwk > admin-jwks.json
        login-relay admin-token --key admin.jwk --project ID
    """  # noqa: D301 - `\b` tells click not to wrap the paragraph
    if generate is not None:
        if key_file or project_ids:
            raise click.UsageError("--generate cannot be combined with --key or --project")
        _generate(generate)
        return
    if not key_file or not project_ids:
        raise click.UsageError("give --key and --project, or --generate")
    claims = _claims(load_settings(os.environ), project_ids, expires_in)
    key = _read(key_file)
    algorithm = _algorithm(key, key_file)
    key.ensure_kid()
    click.echo(jwt.encode({"alg": algorithm, "kid": key.kid}, claims, key, algorithms=[algorithm]))


def _claims(settings: Settings, project_ids: tuple[UUID, ...], expires_in: int | None) -> dict[str, object]:
    """Return the claims of a token that an API with these settings accepts.

    Raises:
        SettingError: the issuer or the audience is not set.
        click.UsageError: the API would refuse a token with this lifetime.

    """
    for field in ("admin_issuer", "admin_audience"):
        if not getattr(settings, field):
            message = f"{variable(field)} is not set: give it the value that the API has"
            raise SettingError(message)
    life = settings.admin_token_max_age_s if expires_in is None else expires_in // 1_000
    if not life:
        raise click.UsageError("--expires-in is less than one second")
    if life > settings.admin_token_max_age_s:
        name = variable("admin_token_max_age_s")
        raise click.UsageError(f"--expires-in is more than {name} ({settings.admin_token_max_age_s} s)")
    now = int(time.time())
    return {
        "iss": settings.admin_issuer,
        "aud": settings.admin_audience,
        "iat": now,
        "exp": now + life,
        settings.admin_projects_claim: [str(project) for project in project_ids],
    }


def _generate(path: Path) -> None:
    key = OKPKey.generate_key("Ed25519", {"use": "sig"}, private=True, auto_kid=True)
    try:
        # O_EXCL: an existing key is not overwritten.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(key.as_dict(private=True)) + b"\n")
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None
    click.echo(msgspec.json.encode({"keys": [key.as_dict(private=False)]}))


def _read(path: Path) -> AnyKey:
    try:
        key = import_key(msgspec.json.decode(path.read_bytes(), type=dict[str, Any]))
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None
    except (msgspec.MsgspecError, JoseError, ValueError, TypeError):
        raise click.ClickException(f"{path} is not a JSON Web Key") from None
    if not key.is_private:
        raise click.ClickException(f"{path} is not a private key")
    return key


def _algorithm(key: AnyKey, path: Path) -> str:
    """Return the algorithm that a key signs with."""
    if isinstance(key, RSAKey):
        return "PS256"
    if isinstance(key, OKPKey | ECKey) and key.curve_name in ALGORITHMS:
        return ALGORITHMS[key.curve_name]
    raise click.ClickException(f"{path}: this kind of key cannot sign; use Ed25519, P-256, P-384 or RSA")
