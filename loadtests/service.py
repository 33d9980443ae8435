"""Finds the service under test, or starts one of its own with `flashsale up` and stops it afterwards."""

import asyncio
import contextlib
import json
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import NamedTuple, cast

import psutil

from loadtests.errors import SetupError
from loadtests.http1 import Target

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
LOG_LINES = 15
SECRET_VARIABLE = "FLASHSALE_JWT_SECRET"  # noqa: S105  # the name, not the secret
DATA_DIR_DEFAULT = Path(".flashsale")


class Service(NamedTuple):
    """A running service: where it listens, what signs its tokens and, where they are known, its stores."""

    url: str
    secret: str
    redis_url: str | None = None
    database_url: str | None = None


def read_data_dir(data_dir: Path) -> Service | None:
    """The service that keeps its data in `data_dir`, as its `run.json` tells; None without one.

    `secret` is empty when the data directory holds none (the service was given one).
    """
    try:
        run = json.loads((data_dir / "run.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise SetupError(f"{data_dir / 'run.json'} cannot be read: {error}.") from None
    secret = data_dir / "jwt_secret"
    try:
        kept = secret.read_text().strip() if secret.exists() else ""
    except OSError as error:
        raise SetupError(f"{secret} cannot be read: {error}.") from None
    return Service(run["url"], kept, run.get("redis_url"), run.get("database_url"))


def running(url: str, data_dir: Path | None, secret: str | None, environ: Mapping[str, str]) -> Service:
    """The service at `url`. What is not given comes from the environment, then from its data directory.

    A data directory that was not named is believed only when its `run.json` names this very URL.
    """
    kept = read_data_dir(data_dir or DATA_DIR_DEFAULT)
    if kept is not None and kept.url.rstrip("/") != url.rstrip("/"):
        if data_dir is not None:
            raise SetupError(f"{data_dir} belongs to the service at {kept.url}, not to {url}.")
        kept = None
    found = secret or environ.get(SECRET_VARIABLE) or (kept.secret if kept else "")
    if not found:
        raise SetupError(
            f"The secret of {url} is not known: give --secret, set {SECRET_VARIABLE}, or name the data directory "
            "of `flashsale up` with --data-dir."
        )
    return Service(url, found, kept.redis_url if kept else None, kept.database_url if kept else None)


@contextlib.asynccontextmanager
async def started(
    data_dir: Path, *, port: int, workers: int | None, secret: str | None, environ: Mapping[str, str]
) -> AsyncIterator[Service]:
    """`flashsale up` in a process of its own, serving on `port` without the demo, until the block ends.

    Its log goes to `data_dir`'s sibling `<data_dir>.log`. Errors: `SetupError` with the log's last lines when it does
    not become ready, or does not stop.
    """
    command = [sys.executable, "-m", "flashsale", "up", "--no-demo", "--port", str(port), "--data-dir", str(data_dir)]
    if workers is not None:
        command += ["--workers", str(workers)]
    secret = secret or environ.get(SECRET_VARIABLE)
    env = dict(environ) | ({SECRET_VARIABLE: secret} if secret else {})
    log = data_dir.with_name(data_dir.name + ".log")
    with log.open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=stderr, env=env,
            start_new_session=True,  # a Ctrl-C here reaches it through us, once
        )  # fmt: skip
    drain: asyncio.Task[bytes] | None = None
    try:
        stdout = cast("asyncio.StreamReader", process.stdout)
        url = await _ready(stdout, process, log)
        drain = asyncio.create_task(stdout.read())
        kept = read_data_dir(data_dir)
        if kept is None:
            raise SetupError(f"{data_dir / 'run.json'} is missing although the service says that it is ready.")
        if not (secret or kept.secret):
            raise SetupError(f"{data_dir / 'jwt_secret'} is missing although no secret was given.")
        yield kept._replace(url=url, secret=secret or kept.secret)
    finally:
        await _stop(process)
        if drain is not None:
            drain.cancel()


@contextlib.asynccontextmanager
async def found_or_started(
    url: str | None, data_dir: Path | None, *, secret: str | None, workers: int | None, environ: Mapping[str, str]
) -> AsyncIterator[Service]:
    """The service that is meant: at `url`; the running one of `data_dir`; or one of our own, until the block ends.

    Without either its data is in a temporary folder, which is kept when the block fails. Errors: `SetupError`.
    """
    if url:
        yield running(url, data_dir, secret, environ)
        return
    if data_dir is not None:
        kept = read_data_dir(data_dir)
        if kept is not None and await _listens(kept.url):
            yield running(kept.url, data_dir, secret, environ)
            return
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        async with _own(data_dir, workers, secret, environ) as service:
            yield service
        return
    async with temporary("flashsale-load-", workers=workers, secret=secret, environ=environ) as (service, _):
        yield service


@contextlib.asynccontextmanager
async def _own(
    data_dir: Path, workers: int | None, secret: str | None, environ: Mapping[str, str]
) -> AsyncIterator[Service]:
    sys.stderr.write(f"Starting a service of its own in {data_dir}.\n")
    async with started(data_dir, port=free_port(), workers=workers, secret=secret, environ=environ) as service:
        yield service


async def _listens(url: str) -> bool:
    target = Target.parse(url)
    try:
        async with asyncio.timeout(5):
            _, writer = await asyncio.open_connection(target.host, target.port)
    except OSError:
        return False
    writer.close()
    return True


@contextlib.asynccontextmanager
async def temporary(
    prefix: str, *, workers: int | None, secret: str | None, environ: Mapping[str, str]
) -> AsyncIterator[tuple[Service, Path]]:
    """A service of its own in `data` of a new folder, which is removed at the end; kept, and named, when it failed."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        async with _own(data_dir_for_others(folder), workers, secret, environ) as service:
            yield service, folder
    except BaseException:
        sys.stderr.write(f"Data and log are kept in {folder}.\n")
        raise
    shutil.rmtree(folder)


async def _ready(stdout: asyncio.StreamReader, process: asyncio.subprocess.Process, log: Path) -> str:
    """The URL of the line `ready http://…`."""
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while line := await stdout.readline():
                word, _, url = line.decode().strip().partition(" ")
                if word == "ready":
                    return url
            code = await process.wait()
    except TimeoutError:
        raise SetupError(f"`flashsale up` was not ready within {START_TIMEOUT_S:.0f} s.\n{_tail(log)}") from None
    raise SetupError(f"`flashsale up` ended with exit code {code} before it was ready.\n{_tail(log)}")


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(lines[-LOG_LINES:])


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise SetupError(
            f"`flashsale up` (process {process.pid}) did not stop within {STOP_TIMEOUT_S:.0f} s."
        ) from None


def pids_of(data_dir: Path) -> dict[str, int]:
    """The processes of a service that was `started` there, by name: `up` itself, and what it keeps running."""
    pids: dict[str, int] = json.loads((data_dir / "run.json").read_text())["pids"]
    return {"up": psutil.Process(pids["web"]).ppid(), **pids}


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def data_dir_for_others(parent: Path) -> Path:
    """A data directory below `parent`, which others may pass through: as root, Postgres runs as another user."""
    parent.chmod(0o711)
    return parent / "data"
