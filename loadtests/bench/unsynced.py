"""A Postgres that forgets what it promised when the machine goes down: what waiting for the disk costs.

It is started by the very command line of the product's own Postgres, as its account, and differs in `UNSYNCED` alone.
A 201 that it stands behind is not durable.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from signal import SIGINT

import asyncpg
import psutil

from loadtests import service
from loadtests.bench.house import House
from loadtests.bench.processes import POLL_S, READY_TIMEOUT_S, finished, log_end, program
from loadtests.errors import SetupError

UNSYNCED = {"fsync": "off", "synchronous_commit": "off"}
USER = "measured"
INITDB = ("--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", f"--username={USER}")


@contextlib.asynccontextmanager
async def postgres(house: House) -> AsyncIterator[tuple[str, int]]:
    """One like the product's, but for `UNSYNCED`, with an empty database; its URL and process id.

    `SetupError` when it does not start.
    """
    running = psutil.Process(house.pids["postgres"])
    command = running.cmdline()
    data = Path(command[command.index("-D") + 1])
    own, port, log = data.with_name("unsynced"), service.free_port(), house.folder / "unsynced.log"
    become = _become(running)
    settings = {**UNSYNCED, "port": str(port)}
    try:
        initdb = [str(Path(command[0]).with_name("initdb")), f"--pgdata={own}", *INITDB]
        await finished(initdb, environ={}, log=log, become=become)
        like_it = [str(own) if word == str(data) else word for word in command]
        started = [*like_it, *(f"-c{name}={value}" for name, value in settings.items())]
        async with program(started, environ={}, log=log, url=None, stop=SIGINT, become=become) as pid:
            url = f"postgresql://{USER}@127.0.0.1:{port}/postgres?sslmode=disable"
            await _ready(url, log)
            yield url, pid
    finally:
        await asyncio.to_thread(shutil.rmtree, own, ignore_errors=True)


def _become(running: psutil.Process) -> Callable[[], None] | None:
    """Makes a new process one of that one's account; None when it is ours. For uvloop knows no `user`."""
    uid, gid = running.uids().real, running.gids().real
    if uid == os.getuid():
        return None

    def become() -> None:
        os.chdir("/")
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)

    return become


async def _ready(url: str, log: Path) -> None:
    """Return when it answers, and answers that it does not wait for the disk. `SetupError` otherwise."""
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            while (connection := await _connected(url)) is None:  # noqa: ASYNC110  # another process's start
                await asyncio.sleep(POLL_S)
            said = {name: await connection.fetchval(f"SHOW {name}") for name in UNSYNCED}
            await connection.close()
    except TimeoutError:
        raise SetupError(f"a Postgres of its own did not answer: {await asyncio.to_thread(log_end, log)}") from None
    if said != UNSYNCED:
        raise SetupError(f"a Postgres was started with {UNSYNCED}, and says {said}")


async def _connected(url: str) -> asyncpg.Connection | None:
    try:
        return await asyncpg.connect(url)
    except (OSError, asyncpg.PostgresError):
        return None
