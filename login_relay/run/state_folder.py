"""The state folder: private to its owner, made when it is missing."""

import os
import stat
from pathlib import Path

from runtime.errors import SettingError
from runtime.settings import Settings, variable


def make_state_folder(settings: Settings) -> Path:
    """Make the folder, with mode 0700, if it is missing; returns its absolute path.

    Raises:
        SettingError: it cannot be used.

    """
    folder = Path(settings.state_dir).absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = folder.stat().st_mode
    except OSError as error:
        message = f"{variable('state_dir')}: {folder}: {error.strerror}"
        raise SettingError(message) from None
    # Each file in it is private by itself; but who can write to a folder can put others in their place.
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        message = f"{variable('state_dir')}: other users can write to {folder}; name a folder of your own"
        raise SettingError(message)
    if not os.access(folder, os.W_OK | os.X_OK):
        message = f"{variable('state_dir')}: {folder} cannot be written to"
        raise SettingError(message)
    return folder
