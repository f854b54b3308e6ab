"""Where the file of the master secrets is: as the settings say, or in the state folder, where `serve` makes one."""

from pathlib import Path

from login_relay.run.state_folder import STATE_DIR, check_state_folder
from runtime.errors import SettingError
from runtime.master_secret import new_master_secret
from runtime.master_secrets import MasterSecretsError, read_master_secrets, write_master_secrets
from runtime.settings import Settings

FILE = "keys.json"


def kept_keys_file(settings: Settings) -> Path | None:
    """Return the file that the settings name, or that of the state folder if its server is used; None if there is none.

    Raises:
        SettingError: the state folder is not private to this user.

    """
    if settings.keys_file is not None:
        return Path(settings.keys_file)
    if settings.redis_url is not None or settings.redis_url_file is not None:
        return None
    folder = Path(settings.state_dir)
    check_state_folder(folder)
    path = folder.absolute() / FILE
    return path if path.exists() else None


def made_keys_file(folder: Path) -> Path:
    """Return the file of a checked state folder, which is made if it is missing.

    Raises:
        SettingError: it cannot be used.

    """
    path = folder / FILE
    try:
        if path.exists():
            read_master_secrets(path)
        else:
            write_master_secrets(path, [new_master_secret()], is_new=True)
    except MasterSecretsError as error:
        message = f"{STATE_DIR}: {error}"
        raise SettingError(message) from None
    return path
