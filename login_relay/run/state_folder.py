"""The state folder: private to its owner, made when it is missing. It holds keys, and what to connect to.

An attacker who could put a link or a file into it could have keys written elsewhere, or sent to a Redis of their own.
So all of it is checked before anything in it is read, no link in it is followed, and its files are 0600.
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
    """Make the folder, with mode 0700, if it is missing, and check it; returns its absolute path.

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
    """Check a folder and all that is in it, before anything of it is used; a missing one is fine.

    Raises:
        SettingError: it, or something in it, is a link or another user's; or other users can write to the folder.

    """
    try:
        mode = _own(folder)
        # Each file in it is private by itself; but who can write to a folder can put others in their place.
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            message = f"{STATE_DIR}: other users can write to {folder}; name a folder of your own"
            raise SettingError(message)
        for path in _below(folder):
            _own(path)
    except OSError as error:
        raise _unusable(folder, error) from None


def open_private(path: Path, flags: int) -> int:
    """Open a file of the state folder and give it mode 0600; returns its descriptor.

    Raises:
        FileNotFoundError: there is none, and `flags` do not say to make it.
        SettingError: it is a link, not a regular file, or another user's.

    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for its other end; a regular file does not mind it.
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, PRIVATE)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        _check_regular(path, os.fstat(descriptor))
        os.fchmod(descriptor, PRIVATE)  # not by its path, which may be another file by now
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_private(path: Path) -> bytes | None:
    """Return what a file of the state folder holds; None if there is no such file.

    Raises:
        SettingError: it is a link, not a regular file, or another user's.

    """
    try:
        descriptor = open_private(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def write_private(path: Path, content: bytes) -> None:
    """Write a file of the state folder with mode 0600, as a whole: a reader finds its old or its new content.

    Raises:
        SettingError: it cannot be written.

    """
    try:
        # A new file, of mode 0600, takes the name: a link of that name is replaced, not followed.
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
    """Return the mode of a file or folder that is not a link and this user's; 0 if there is no such one."""
    try:
        found = path.lstat()
    except FileNotFoundError:  # a server may be at work in the folder
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
