import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from login_relay.run.embedded import LOG_FILE, URL_FILE
from login_relay.run.state_folder import (
    make_state_folder,
    open_private,
    read_private,
    write_private,
)
from runtime.errors import SettingError
from runtime.settings import Settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder."""
    return make_state_folder(Settings(state_dir=str(tmp_path / "state")))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file outside of it, that others may read."""
    path = tmp_path / "target"
    path.write_text("precious")
    path.chmod(0o644)
    return path


def is_untouched(target: Path) -> bool:
    """Whether the file outside is as it was."""
    return (target.read_text(), stat.S_IMODE(target.stat().st_mode)) == ("precious", 0o644)


def check(folder: Path) -> None:
    """Check a folder as `serve` does before it uses anything in it."""
    make_state_folder(Settings(state_dir=str(folder)))


@pytest.mark.parametrize(
    "name", ["demo-project.json", URL_FILE, LOG_FILE, "serve.lock", "valkey.lock", "valkey.sock", "appendonlydir/1.aof"]
)
def test_folder_with_a_link_in_it_is_refused(folder: Path, target: Path, name: str) -> None:
    """In place of any file of ours or of the server, in the server's own folder too."""
    check(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(target)
    with pytest.raises(SettingError) as refused:
        check(folder)
    assert str(folder / name) in str(refused.value)
    assert is_untouched(target)


def test_link_in_the_place_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    """It could point to any folder of the user."""
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(SettingError, match="symbolic link"):
        check(tmp_path / "link")


def test_folder_of_another_user_is_refused_by_its_owners_name(folder: Path) -> None:
    """Root is no exception."""
    if os.geteuid() == 0:
        os.chown(folder, 65_534, -1)
    theirs, owner = (folder, "nobody") if os.geteuid() == 0 else (Path("/usr"), "root")
    with pytest.raises(SettingError, match=f"{theirs} belongs to the user {owner}"):
        check(theirs)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file another user's")
def test_file_of_a_user_without_a_name_is_refused(folder: Path) -> None:
    """The error gives the user's number."""
    write_private(folder / URL_FILE, b"unix:///tmp/valkey.sock")
    os.chown(folder / URL_FILE, 4_242_424, -1)
    with pytest.raises(SettingError, match=f"{URL_FILE} belongs to the user with the id 4242424"):
        check(folder)
    with pytest.raises(SettingError, match="4242424"):
        read_private(folder / URL_FILE)


def test_link_that_is_put_there_after_the_check_is_not_followed(folder: Path, target: Path) -> None:
    """Reading and opening refuse it; writing replaces the link, and not what it names."""
    path = folder / "demo-project.json"
    path.symlink_to(target)
    for flags in (os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_APPEND, os.O_RDWR | os.O_CREAT):
        with pytest.raises(SettingError, match=str(path)):
            open_private(path, flags)
    with pytest.raises(SettingError, match=str(path)):
        read_private(path)
    write_private(path, b"keys")
    assert (path.is_symlink(), path.read_bytes()) == (False, b"keys")
    assert is_untouched(target)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_not_a_regular_file_is_refused(folder: Path, make: Callable[[Path], None]) -> None:
    """At once: a named pipe that nobody writes to is not waited for."""
    make(folder / URL_FILE)
    with pytest.raises(SettingError, match=URL_FILE):
        read_private(folder / URL_FILE)


def test_files_are_their_owners_alone(folder: Path) -> None:
    """New files, and those that others could read before; whatever the umask."""
    before = os.umask(0)
    try:
        write_private(folder / "new", b"1")
        os.close(open_private(folder / "opened", os.O_RDWR | os.O_CREAT))
        (folder / "loose").write_bytes(b"2")
        assert read_private(folder / "loose") == b"2"
    finally:
        os.umask(before)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        "new": 0o600,
        "opened": 0o600,
        "loose": 0o600,
    }


def test_file_is_written_as_a_whole(folder: Path) -> None:
    """A process that has it open reads the old content to its end; no other file is left beside the new one."""
    path = folder / "demo-project.json"
    write_private(path, b"old")
    with path.open("rb") as reader:
        write_private(path, b"new content")
        assert reader.read() == b"old"
    assert read_private(path) == b"new content"
    assert list(folder.iterdir()) == [path]


def test_failure_to_write_names_the_file_and_leaves_nothing(folder: Path) -> None:
    """There is no traceback, which could show the content."""
    (folder / "taken").mkdir()
    with pytest.raises(SettingError, match="taken"):
        write_private(folder / "taken", b"keys")
    assert [path.name for path in folder.iterdir()] == ["taken"]
