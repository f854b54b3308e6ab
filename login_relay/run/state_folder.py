"""The state folder: private to its owner, and created if it is missing. It holds keys and the URL of a Redis.

An attacker who puts a link or a file into it could redirect keys to another place or to another Redis. Therefore the
whole folder is checked before anything in it is read, no link in it is followed, and its files have mode 0600.
"""

import os
import pwd
import stat
import tempfile
from pathlib import Path

from runtime.errors import SettingError
from runtime.settings import Settings, variable

STATE_DIR = variable("state_dir")
PRIVATE = 0o600


def make_state_folder(settings: Settings) -> Path:
    """Create the folder with mode 0700 if it is missing, check it, and return its absolute path.

    Raises:
        SettingError: it cannot be used.

    """
    folder = Path(settings.state_dir).absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from None
    check_state_folder(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        message = f"{STATE_DIR}: {folder} cannot be written to"
        raise SettingError(message)
    return folder


def check_state_folder(folder: Path) -> None:
    """Check a folder and everything in it before it is used. A missing folder is accepted.

    Raises:
        SettingError: the folder or something in it is a link or belongs to another user, or other users can write to
            the folder.

    """
    try:
        mode = _own(folder)
        # Each file in it is private, but a user who can write to the folder can replace them.
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            message = f"{STATE_DIR}: other users can write to {folder}; name a folder of your own"
            raise SettingError(message)
        for path in _below(folder):
            _own(path)
    except OSError as error:
        raise _unusable(folder, error) from None


def open_private(path: Path, flags: int) -> int:
    """Open a file of the state folder, give it mode 0600, and return its descriptor.

    Raises:
        FileNotFoundError: it does not exist, and `flags` do not create it.
        SettingError: it is a link, not a regular file, or belongs to another user.

    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for its other end. On a regular file it has no effect.
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, PRIVATE)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        _check_regular(path, os.fstat(descriptor))
        os.fchmod(descriptor, PRIVATE)  # not by path, which may lead to another file by now
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_private(path: Path) -> bytes | None:
    """Return the content of a file of the state folder; None if there is no such file.

    Raises:
        SettingError: it is a link, not a regular file, or belongs to another user.

    """
    try:
        descriptor = open_private(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def write_private(path: Path, content: bytes) -> None:
    """Write a file of the state folder atomically, with mode 0600: a reader sees its old or its new content.

    Raises:
        SettingError: it cannot be written.

    """
    try:
        # A new file with mode 0600 is renamed over it, so a link of that name is replaced and not followed.
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _unusable(path, error) from None


def _below(folder: Path) -> list[Path]:
    return [
        Path(parent, name)
        for parent, folders, files in os.walk(folder, onerror=_raise_unless_gone)
        for name in (*folders, *files)
    ]


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _own(path: Path) -> int:
    """Return the mode of a file or folder; 0 if it does not exist.

    Raises:
        SettingError: it is a link or belongs to another user.

    """
    try:
        found = path.lstat()
    except FileNotFoundError:  # the server may have removed a file meanwhile
        return 0
    _check_owner(path, found)
    if stat.S_ISLNK(found.st_mode):
        message = f"{STATE_DIR}: {path} is a symbolic link; name the folder itself, and have no link in it"
        raise SettingError(message)
    return found.st_mode


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        message = f"{STATE_DIR}: {path} belongs to {_name(found.st_uid)}, and this process is {_name(os.geteuid())}"
        raise SettingError(message)


def _check_regular(path: Path, found: os.stat_result) -> None:
    _check_owner(path, found)
    if not stat.S_ISREG(found.st_mode):
        message = f"{STATE_DIR}: {path} is not a regular file"
        raise SettingError(message)


def _name(user: int) -> str:
    try:
        return f"the user {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"the user with the id {user}"


def _unusable(path: Path, error: OSError) -> SettingError:
    return SettingError(f"{STATE_DIR}: {path}: {error.strerror}")
