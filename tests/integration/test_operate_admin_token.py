import json
import stat
import uuid
from base64 import urlsafe_b64decode
from pathlib import Path

import msgspec
import pytest
from joserfc.jwk import OctKey, OKPKey

from api.stack.admin_tokens import AdminTokens
from api.stack.errors import KnownError
from runtime.settings import Settings, load_settings, variable
from tests.support.operate import Operate, refused
from tests.support.relay import PROJECT

TRUST = {variable("admin_issuer"): "https://issuer.example", variable("admin_audience"): "relay"}
"""What the API and the maker of its tokens both have in their environment."""


async def token_for(operate: Operate, key_file: Path, *options: str, **variables: str) -> str:
    """Return an admin access token for PROJECT."""
    result = await operate("admin-token", "--key", str(key_file), "--project", PROJECT, *options, **TRUST | variables)
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


async def generate(operate: Operate, folder: Path) -> tuple[Path, Settings]:
    """Make a key; returns its file and settings that name its public half."""
    result = await operate("admin-token", "--generate", str(folder / "admin.jwk"))
    assert result.exit_code == 0, result.stderr
    (folder / "jwks.json").write_text(result.stdout)
    return folder / "admin.jwk", load_settings(TRUST | {variable("admin_jwks_file"): str(folder / "jwks.json")})


async def test_token_of_a_generated_key_is_accepted(operate: Operate, tmp_path: Path) -> None:
    """For its projects, by an API that knows only the public half; only the owner can read the private half."""
    key_file, settings = await generate(operate, tmp_path)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert json.loads(key_file.read_text())["d"] not in (tmp_path / "jwks.json").read_text()
    tokens = AdminTokens.from_settings(settings)
    token = await token_for(operate, key_file)
    tokens.check(token, PROJECT)
    with pytest.raises(KnownError, match="NOT_ADMIN"):
        tokens.check(token, str(uuid.uuid4()))


async def test_token_has_the_claim_and_the_life_that_were_asked_for(operate: Operate, tmp_path: Path) -> None:
    """The name of the claim is a setting, here and for the API that checks it."""
    key_file, _ = await generate(operate, tmp_path)
    other = str(uuid.uuid4())
    options = ("--project", other, "--expires-in", "10m")
    token = await token_for(operate, key_file, *options, **{variable("admin_projects_claim"): "tenants"})
    payload = token.split(".")[1]
    claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["tenants"] == [PROJECT, other]
    assert claims["exp"] - claims["iat"] == 600


async def test_token_lives_as_long_as_the_api_accepts(operate: Operate, tmp_path: Path) -> None:
    """That long by default and no longer: a token that the API would reject is not made."""
    key_file, settings = await generate(operate, tmp_path)
    short = {variable("admin_token_max_age_s"): "600"}
    tokens = AdminTokens.from_settings(msgspec.structs.replace(settings, admin_token_max_age_s=600))
    tokens.check(await token_for(operate, key_file, **short), PROJECT)
    with pytest.raises(KnownError, match="UNPARSABLE"):
        tokens.check(await token_for(operate, key_file), PROJECT)
    arguments = ("admin-token", "--key", str(key_file), "--project", PROJECT, "--expires-in", "11m")
    assert variable("admin_token_max_age_s") in refused(await operate(*arguments, **TRUST | short), 2)


@pytest.mark.parametrize("missing", TRUST)
async def test_token_needs_an_issuer_and_an_audience(operate: Operate, tmp_path: Path, missing: str) -> None:
    """The line names the variable that is not set."""
    key_file, _ = await generate(operate, tmp_path)
    arguments = ("admin-token", "--key", str(key_file), "--project", PROJECT)
    assert missing in refused(await operate(*arguments, **TRUST | {missing: ""}), 2)


async def test_key_in_use_is_not_overwritten(operate: Operate, tmp_path: Path) -> None:
    """A second `--generate` is refused and leaves the first key."""
    key_file, _ = await generate(operate, tmp_path)
    key = key_file.read_bytes()
    assert "exists" in refused(await operate("admin-token", "--generate", str(key_file)), 1)
    assert key_file.read_bytes() == key


@pytest.mark.parametrize(
    "key",
    [
        OctKey.generate_key(256, {"use": "sig"}).as_dict(private=True),
        OKPKey.generate_key("X25519", private=True).as_dict(private=True),
        OKPKey.generate_key("Ed25519", private=True).as_dict(private=False),
        {"kty": "OKP"},
        {"keys": []},
        [],
    ],
    ids=["shared secret", "for agreement", "public", "incomplete", "a set", "no object"],
)
async def test_key_that_cannot_sign_is_refused(operate: Operate, tmp_path: Path, key: object) -> None:
    """In one line, which does not repeat the key."""
    path = tmp_path / "key.jwk"
    path.write_text(json.dumps(key))
    line = refused(await operate("admin-token", "--key", str(path), "--project", PROJECT, **TRUST), 1)
    assert str(path) in line
    assert not isinstance(key, dict) or all(str(value) not in line for name, value in key.items() if name in "dk")


async def test_admin_token_options_that_do_not_go_together_are_refused(operate: Operate, tmp_path: Path) -> None:
    """Missing options, both uses at once, a token that no API would accept."""
    key_file, _ = await generate(operate, tmp_path)
    for arguments in (
        [],
        ["--key", str(key_file)],
        ["--project", PROJECT],
        ["--generate", "x", "--project", PROJECT],
        ["--key", str(key_file), "--project", PROJECT, "--expires-in", "0"],
        ["--key", str(key_file), "--project", "acme"],
    ):
        refused(await operate("admin-token", *arguments, **TRUST), 2)
