"""Starts programs, waits until they answer, and reads what processes cost."""

import asyncio
import contextlib
import resource
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path

import aiohttp
import psutil

from loadtests.errors import SetupError

READY_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0
POLL_S = 0.02
SAMPLE_S = 0.05
LOG_CHARS = 1_000
FILES_MAX = 8_192


@contextlib.asynccontextmanager
async def program(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    log: Path,
    url: str | None,
    stop: signal.Signals = signal.SIGTERM,
    become: Callable[[], None] | None = None,
) -> AsyncIterator[int]:
    """Run a program until the block ends; gives its process id once `url`, if there is one, is answered.

    `stop` is how it is asked to end; `become` runs in its process first, to make it another account's.
    """
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environ),
            preexec_fn=become,
        )
    try:
        if url is not None:
            await _answered(process, url, log)
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(stop)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def finished(
    command: Sequence[str], *, environ: Mapping[str, str], log: Path, become: Callable[[], None] | None = None
) -> None:
    """Run a program to its end. `SetupError` with its last words when it fails."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environ),
            preexec_fn=become,
        )
    if await process.wait() != 0:
        raise SetupError(f"{command[0]} failed: {await asyncio.to_thread(log_end, log)}")


async def _answered(process: asyncio.subprocess.Process, url: str, log: Path) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_TIMEOUT_S), aiohttp.ClientSession() as session:
            while process.returncode is None:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(url) as answer:
                        if answer.status < 500:
                            return
                await asyncio.sleep(POLL_S)
    said = await asyncio.to_thread(log_end, log)
    raise SetupError(f"{url} was not answered: {said}")


def log_end(log: Path) -> str:
    """The last that a program said."""
    return log.read_text(errors="replace")[-LOG_CHARS:]


def _family(pid: int) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        yield parent
        yield from parent.children(recursive=True)


def cpu_s(pid: int) -> float:
    """Processor seconds that a process and all its descendants have used so far, those that have ended included."""
    used = 0.0
    for process in _family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used += times.user + times.system + times.children_user + times.children_system
    return used


def rss_bytes(pid: int) -> int:
    """Resident memory of a process' descendants; of a gunicorn, its web processes."""
    total = 0
    for process in list(_family(pid))[1:]:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


def raise_files_limit() -> None:
    """Let this process, and those that it starts, hold as many connections as the system allows it, within reason."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Memory:
    """Resident memory while a block lasts, in bytes: `before` it and at its `peak`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.before = self.peak = rss_bytes(pid)

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Look every `SAMPLE_S`."""

        async def look() -> None:
            while True:
                self.peak = max(self.peak, rss_bytes(self._pid))
                await asyncio.sleep(SAMPLE_S)

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()
            self.peak = max(self.peak, rss_bytes(self._pid))
