import io
import json
import os
import stat
from base64 import urlsafe_b64encode
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from runtime.errors import SettingError
from runtime.master_secret import MasterSecret, Purpose, new_master_secret
from runtime.master_secrets import (
    MOST,
    MasterSecretsError,
    MasterSecretsFile,
    read_master_secrets,
    write_master_secrets,
)
from runtime.redaction import MASK, redact
from runtime.settings import Settings, variable

SECRET = bytes(range(32))
K = urlsafe_b64encode(SECRET).rstrip(b"=").decode()
JWK = {"kty": "oct", "kid": "a", "k": K}
OTHER_JWK = {"kty": "oct", "kid": "b", "k": K[::-1]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that does not exist yet."""
    return tmp_path / "keys.json"


def write(path: Path, content: object) -> None:
    """Write what an operator could have written, with the right mode."""
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    path.chmod(0o600)


def refusal(path: Path) -> str:
    """Return why a file is refused: one line that names it."""
    with pytest.raises(MasterSecretsError) as refused:
        read_master_secrets(path)
    message = str(refused.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def test_what_is_written_is_read(path: Path) -> None:
    """In its order, with mode 0600 whatever the umask, and with nothing else left in the folder."""
    secrets = (new_master_secret(), new_master_secret())
    before = os.umask(0)
    try:
        write_master_secrets(path, secrets, is_new=True)
    finally:
        os.umask(before)
    assert read_master_secrets(path) == secrets
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["keys.json"]
    assert {len(one.secret) for one in secrets} == {32}
    assert len({one.kid for one in secrets}) == len({one.secret for one in secrets}) == 2


def test_file_of_another_program_is_read(path: Path) -> None:
    """A JWKS as other tools make it: with more members, and without a time."""
    write(path, {"keys": [JWK | {"alg": "HS256", "use": "sig"}, OTHER_JWK], "more": 1})
    first, second = read_master_secrets(path)
    assert first == MasterSecret("a", SECRET, None)
    assert second.kid == "b"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a JSON Web Key Set"),
        (b"\xff\xfe", "not a JSON Web Key Set"),
        (json.dumps({"keys": [JWK]}).encode()[:-9], "not a JSON Web Key Set"),
        ([JWK], "not a JSON Web Key Set"),
        (JWK, "not a JSON Web Key Set"),
        ({"keys": [K]}, "not a JSON Web Key Set"),
        ({"keys": []}, "1 to 8 keys"),
        ({"keys": [JWK | {"kid": str(number)} for number in range(MOST + 1)]}, "1 to 8 keys"),
        ({"keys": [JWK], "padding": "x" * 20_000}, "1 to 8 keys"),
        ({"keys": [JWK, OTHER_JWK | {"kty": "EC"}]}, "key 2 is not a symmetric one"),
        ({"keys": [{"kty": "oct", "k": K}]}, "key 1 has no kid"),
        ({"keys": [JWK | {"kid": ""}]}, "key 1 has no kid"),
        ({"keys": [JWK | {"kid": "a b"}]}, "key 1 has no kid"),
        ({"keys": [JWK | {"kid": 1}]}, "key 1 has no kid"),
        ({"keys": [{"kty": "oct", "kid": "a"}]}, "key 1 is not 32 bytes"),
        ({"keys": [JWK | {"k": K[:-1]}]}, "key 1 is not 32 bytes"),
        ({"keys": [JWK | {"k": K + "="}]}, "key 1 is not 32 bytes"),
        ({"keys": [JWK | {"k": K[:-1] + "+"}]}, "key 1 is not 32 bytes"),
        ({"keys": [JWK | {"k": [K]}]}, "key 1 is not 32 bytes"),
        ({"keys": [JWK | {"iat": "yesterday"}]}, "key 1 has an iat"),
        ({"keys": [JWK | {"iat": True}]}, "key 1 has an iat"),
        ({"keys": [JWK, OTHER_JWK | {"kid": "a"}]}, "the same kid twice"),
        ({"keys": [JWK, OTHER_JWK | {"k": K}]}, "the same key"),
    ],
)
def test_malformed_file_is_refused_by_its_defect_and_nothing_of_it_is_repeated(
    path: Path, content: object, says: str
) -> None:
    """Which key it is, and what to do."""
    write(path, content)
    message = refusal(path)
    assert says in message
    assert "; " in message
    assert K[:8] not in message


def test_missing_file_is_told_with_the_command_that_makes_it(path: Path) -> None:
    """Ready to paste."""
    assert f"login-relay keys create --file {path}" in refusal(path)


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o660, 0o610, 0o601])
def test_file_that_others_can_read_or_change_is_refused(path: Path, mode: int) -> None:
    """With the command that corrects it; the group may read it, as with mounted secrets."""
    write(path, {"keys": [JWK]})
    path.chmod(mode)
    assert f"chmod 600 {path}" in refusal(path)
    path.chmod(0o640)
    assert len(read_master_secrets(path)) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file another user's")
def test_file_of_another_user_is_refused(path: Path) -> None:
    """Root is no exception: what it wrote, the API's user could not read any more."""
    write(path, {"keys": [JWK]})
    os.chown(path, 65_534, -1)
    assert "belongs to the user nobody" in refusal(path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_secrets_are_read_from_a_regular_file_only(path: Path, make: Callable[[Path], None]) -> None:
    """At once: a named pipe that nobody writes to is not waited for."""
    make(path)
    refusal(path)


def test_link_is_read_and_not_written(path: Path, tmp_path: Path) -> None:
    """Kubernetes mounts secrets as links; a file in the place of one would no longer follow it."""
    write(tmp_path / "real", {"keys": [JWK]})
    path.symlink_to(tmp_path / "real")
    secrets = read_master_secrets(path)
    with pytest.raises(MasterSecretsError, match="symbolic link"):
        write_master_secrets(path, (*secrets, new_master_secret()))
    assert read_master_secrets(tmp_path / "real") == secrets


def test_new_file_overwrites_none(path: Path) -> None:
    """The secrets of a file that exists may be in use."""
    write(path, {"keys": [JWK]})
    with pytest.raises(MasterSecretsError, match="exists"):
        write_master_secrets(path, [new_master_secret()], is_new=True)
    assert read_master_secrets(path)[0].secret == SECRET
    assert [each.name for each in path.parent.iterdir()] == ["keys.json"]


def test_changed_file_keeps_the_mode_that_lets_its_group_read_it(path: Path) -> None:
    """Otherwise an API process of the group could not read it again."""
    write(path, {"keys": [JWK]})
    path.chmod(0o640)
    write_master_secrets(path, [new_master_secret()])
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    """In one line that names the file."""
    with pytest.raises(MasterSecretsError, match=r"none/keys\.json cannot be written: No such file or directory"):
        write_master_secrets(tmp_path / "none" / "keys.json", [new_master_secret()], is_new=True)


def test_secret_is_shown_by_no_repr_and_masked_in_every_log(path: Path) -> None:
    """Not even the text of the file survives the redaction of a log line."""
    secret = MasterSecret("a", SECRET, 0)
    assert "secret" not in repr(secret).replace("MasterSecret", "")
    write_master_secrets(path, [secret], is_new=True)
    for text in (path.read_text(), json.dumps(path.read_text()), str(json.loads(path.read_text()))):
        assert K in text
        assert MASK in redact(text)
        assert K not in redact(text)


def test_derived_keys_differ_by_secret_purpose_and_context() -> None:
    """And are HKDF-SHA256 as another program would compute it: they may never change."""
    secret, other = MasterSecret("a", SECRET, None), MasterSecret("a", SECRET[::-1], None)
    derived = [one.derive(purpose, context, 32) for one in (secret, other) for purpose in Purpose for context in "pq"]
    assert len(set(derived)) == len(derived)
    expected = HKDF(SHA256(), 48, None, b"login-relay: signing:project").derive(SECRET)
    assert secret.derive(Purpose.SIGNING, "project", 48) == expected
    assert secret.fingerprint == "4d4a35fb0955c714"
    assert other.fingerprint != secret.fingerprint


def test_names_of_purposes_cannot_run_into_a_context() -> None:
    """A colon in one would let two inputs of HKDF be equal."""
    assert not any(":" in purpose for purpose in Purpose)


@pytest.fixture
def logged() -> list[dict[str, Any]]:
    """What is logged."""
    lines: list[dict[str, Any]] = []

    def keep(_: object, __: str, event: MutableMapping[str, Any]) -> str:
        lines.append(dict(event))
        return ""

    structlog.configure(processors=[keep], logger_factory=structlog.PrintLoggerFactory(io.StringIO()))
    return lines


def test_changed_file_is_read_again(path: Path, logged: list[dict[str, Any]]) -> None:
    """However it was changed; a file that has not is not even opened."""
    write(path, {"keys": [JWK]})
    file = MasterSecretsFile(path)
    first = file.secrets
    file.refresh()
    assert file.secrets is first
    write_master_secrets(path, (*first, new_master_secret()))  # another file in its place
    file.refresh()
    assert file.secrets == read_master_secrets(path)
    assert file.secrets[0] == first[0]
    write(path, {"keys": [OTHER_JWK]})  # other content in the same file
    file.refresh()
    assert [one.kid for one in file.secrets] == ["b"]
    assert [line["event"] for line in logged] == ["master secrets read"] * 2


@pytest.mark.parametrize("defect", ["missing", "malformed", "open", "empty"])
def test_defective_file_changes_nothing_and_is_logged_once(
    path: Path, logged: list[dict[str, Any]], defect: str
) -> None:
    """Until it is in order again."""
    write(path, {"keys": [JWK]})
    file = MasterSecretsFile(path)
    match defect:
        case "missing":
            path.unlink()
        case "open":
            path.chmod(0o644)
        case "malformed":
            write(path, {"keys": [JWK | {"k": K[1:]}]})
        case _:
            write(path, b"")
    for _ in range(3):
        file.refresh()
    assert [one.kid for one in file.secrets] == ["a"]
    [line] = logged
    assert line["event"].startswith("master secrets not read")
    assert str(path) in line["reason"]
    assert K[1:] not in str(line)
    write(path, {"keys": [OTHER_JWK]})
    file.refresh()
    assert [one.kid for one in file.secrets] == ["b"]


def test_unusable_file_of_the_settings_names_their_variable(path: Path) -> None:
    """A process does not start with it; without the setting there is no file."""
    assert MasterSecretsFile.from_settings(Settings()) is None
    with pytest.raises(SettingError, match=f"^{variable('keys_file')}: {path} does not exist"):
        MasterSecretsFile.from_settings(Settings(keys_file=str(path)))
