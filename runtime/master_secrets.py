"""The master secrets: a file of 1 to 8 random secrets, from which all keys of the relay are derived (ADR 20).

The first one signs and seals, all of them verify and open. Only API processes read the file: never a worker, and no
secret is ever in Redis. No text of an error or a log line repeats what is in the file.
"""

import contextlib
import fcntl
import os
import pwd
import re
import shlex
import stat
import tempfile
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import structlog

from runtime.errors import LoginRelayError, SettingError
from runtime.master_secret import SECRET_BYTES, MasterSecret
from runtime.settings import Settings, variable

MOST = 8  # secrets in a file: each adds a public key to the key set of every project
MAX_FILE_BYTES = 16_384  # eight secrets take 1 KiB
PRIVATE = 0o600
OPEN_TO_OTHERS = 0o037  # others may do nothing; the group may read, as with the mounted secrets of Kubernetes

_KID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_K = re.compile(r"[A-Za-z0-9_-]{43}")  # RFC 7518 §6.4.1: base64url of 32 bytes, without padding

_log = structlog.get_logger("api")


class MasterSecretsError(LoginRelayError):
    """The file cannot be used. The message is one line: the file, the defect, and what to do."""


def read_master_secrets(path: Path) -> tuple[MasterSecret, ...]:
    """Return the secrets of a file, in its order.

    Raises:
        MasterSecretsError: it is missing, malformed, another user's, or can be read or changed by other users.

    """
    return _read(path)[0]


def write_master_secrets(path: Path, kept: Sequence[MasterSecret], *, is_new: bool = False) -> None:
    """Write the file atomically: a reader sees its old or its new content. A new file has mode 0600.

    An existing file keeps its mode and its group, so that the API can still read it.

    Raises:
        MasterSecretsError: it cannot be written; or it exists, and `is_new` was said.

    """
    jwks = {"keys": [_jwk(one) for one in kept]}
    try:
        before = None if is_new else path.lstat()
        if before is not None and stat.S_ISLNK(before.st_mode):
            raise MasterSecretsError(f"{path} is a symbolic link; name the file itself")
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                if before is not None:
                    os.fchown(descriptor, -1, before.st_gid)
                os.fchmod(descriptor, PRIVATE if before is None else stat.S_IMODE(before.st_mode) | PRIVATE)
                file.write(msgspec.json.format(msgspec.json.encode(jwks)) + b"\n")
                file.flush()
                os.fsync(descriptor)
            if before is None:
                os.link(temporary, path)  # fails if the file exists: two that create it at once cannot both succeed
            else:
                Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except FileExistsError:
        raise MasterSecretsError(f"{path} exists; its secrets are in use, and are not overwritten") from None
    except OSError as error:
        raise MasterSecretsError(f"{path} cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def changing_master_secrets(path: Path) -> Iterator[tuple[MasterSecret, ...]]:
    """Return the secrets of a file, which nobody else who calls this changes until the context ends.

    The lock is an empty file beside it, which stays: the file itself is replaced by each change.

    Raises:
        MasterSecretsError: it cannot be used, or not be locked.

    """
    read_master_secrets(path)  # beside a file that is missing or defective, no lock is left
    try:
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, PRIVATE)
    except OSError as error:
        raise MasterSecretsError(f"{path} cannot be locked: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield read_master_secrets(path)
    finally:
        os.close(lock)


class MasterSecretsFile:
    """The secrets of a file that is read again when it has changed. A defective file changes nothing."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            MasterSecretsError: it cannot be used.

        """
        self.path = path
        self.secrets: tuple[MasterSecret, ...]
        self._seen: _Version | None
        self.secrets, self._seen = _read(path)

    @classmethod
    def from_settings(cls, settings: Settings) -> "MasterSecretsFile | None":
        """Return the file that the settings name; None if they name none.

        Raises:
            SettingError: it cannot be used.

        """
        if settings.keys_file is None:
            return None
        try:
            return cls(Path(settings.keys_file))
        except MasterSecretsError as error:
            message = f"{variable('keys_file')}: {error}"
            raise SettingError(message) from None

    def refresh(self) -> None:
        """Read the file if it has changed since the last call. If it is defective, log why and keep the old secrets."""
        try:
            now = _Version.of(self.path.stat())
        except OSError:
            now = None
        if now == self._seen:
            return
        self._seen = now
        try:
            self.secrets, self._seen = _read(self.path)
        except MasterSecretsError as error:
            _log.error("master secrets not read, the old ones stay in use", reason=str(error))
        else:
            _log.info("master secrets read", kids=[one.kid for one in self.secrets])


class _Version(NamedTuple):
    """What changes when a file is replaced or written to."""

    device: int
    inode: int
    size: int
    changed_ns: int
    """Its change time, which also changes with its mode and owner."""

    @classmethod
    def of(cls, found: os.stat_result) -> "_Version":
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)


def _read(path: Path) -> tuple[tuple[MasterSecret, ...], _Version]:
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for its other end. On a regular file it has no effect.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())  # of what is read: by its path it may be another file by now
            _check_access(path, found)
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        make = f"login-relay keys create --file {shlex.quote(str(path))}"
        raise MasterSecretsError(f"{path} does not exist; `{make}` makes one") from None
    except OSError as error:
        raise MasterSecretsError(f"{path} cannot be read: {error.strerror}") from None
    return _parse(path, content), _Version.of(found)


def _check_access(path: Path, found: os.stat_result) -> None:
    """Raise MasterSecretsError unless only this user can change the file, and only its group can read it."""
    if not stat.S_ISREG(found.st_mode):
        raise MasterSecretsError(f"{path} is not a regular file")
    if found.st_uid not in {os.geteuid(), 0}:
        owner, me = _name(found.st_uid), _name(os.geteuid())
        raise MasterSecretsError(f"{path} belongs to {owner}, and this process is {me}; run it as {owner}")
    if found.st_mode & OPEN_TO_OTHERS:
        mend = f"chmod 600 {shlex.quote(str(path))}"
        raise MasterSecretsError(f"{path} can be read or changed by other users; type `{mend}`")


def _name(user: int) -> str:
    try:
        return f"the user {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"the user with the id {user}"


def _parse(path: Path, content: bytes) -> tuple[MasterSecret, ...]:
    restore = "restore it from a copy"
    try:
        keys = msgspec.json.decode(content, type=_Jwks).keys if len(content) <= MAX_FILE_BYTES else []
    except (msgspec.MsgspecError, UnicodeDecodeError):  # their texts may quote the content
        raise MasterSecretsError(f"{path} is not a JSON Web Key Set (RFC 7517); {restore}") from None
    if not 1 <= len(keys) <= MOST:
        raise MasterSecretsError(f"{path} must have 1 to {MOST} keys; {restore}")
    found = [_secret(f"{path}: key {number}", jwk) for number, jwk in enumerate(keys, 1)]
    if len({one.kid for one in found}) < len(found) or len({one.secret for one in found}) < len(found):
        raise MasterSecretsError(f"{path} has the same key or the same kid twice; remove one of them")
    return tuple(found)


class _Jwks(msgspec.Struct):
    """A JSON Web Key Set (RFC 7517 §5)."""

    keys: list[dict[str, Any]]


def _secret(place: str, jwk: dict[str, Any]) -> MasterSecret:
    """Return the secret of a JWK. Unknown members are ignored (RFC 7517 §4)."""
    kty, kid, k, added_at = (jwk.get(name) for name in ("kty", "kid", "k", "iat"))
    if kty != "oct":
        raise MasterSecretsError(f"{place} is not a symmetric one (kty oct); `login-relay keys add` makes a right one")
    if not isinstance(kid, str) or not _KID.fullmatch(kid):
        raise MasterSecretsError(f"{place} has no kid of 1 to 64 letters, digits, dots, dashes; give it one")
    if not isinstance(k, str) or not _K.fullmatch(k):
        raise MasterSecretsError(
            f"{place} is not {SECRET_BYTES} bytes in base64url; `login-relay keys add` makes a right one"
        )
    if added_at is not None and (type(added_at) is not int or added_at < 0):
        raise MasterSecretsError(f"{place} has an iat that is not a number of seconds; remove it")
    return MasterSecret(kid, urlsafe_b64decode(k + "="), added_at)


def _jwk(one: MasterSecret) -> dict[str, str | int]:
    # `iat` as in the historical keys of OpenID Federation: when the key was made.
    made: dict[str, str | int] = {} if one.added_at is None else {"iat": one.added_at}
    return {"kty": "oct", "kid": one.kid, "k": urlsafe_b64encode(one.secret).rstrip(b"=").decode()} | made
