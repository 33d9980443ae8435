"""The command line as its users run it: `python -m flashsale …` in a process of its own."""

import asyncio
import contextlib
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil

COMMAND = (sys.executable, "-m", "flashsale")
TOP = Path(__file__).parents[2]
SECRET = "a secret of the tests, long enough for HS256"


def environ(**settings: str) -> dict[str, str]:
    """The environment without settings but these; the checkout is found from any folder."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLASHSALE_")}
    found = os.pathsep.join(filter(None, (str(TOP), os.environ.get("PYTHONPATH"))))
    return {**inherited, "PYTHONPATH": found, **{f"FLASHSALE_{name.upper()}": v for name, v in settings.items()}}


@contextlib.contextmanager
def reachable_folder() -> Iterator[Path]:
    """A folder that every account can pass through; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="flashsale-test-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


class Running:
    """A command that keeps running."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Path) -> None:
        self.process = process
        self._errors = errors
        self._output = b""

    @property
    def stderr(self) -> str:
        """What it wrote to standard error so far."""
        return self._errors.read_text(errors="replace")

    async def said(self, pattern: str, timeout_s: float = 30.0) -> re.Match[str]:
        """Wait until a line of standard error has this in it."""
        found: re.Match[str] | None = None

        def is_there() -> bool:
            nonlocal found
            found = re.search(pattern, self.stderr)
            return found is not None or self.process.returncode is not None

        await until(is_there, f"it says {pattern!r}", timeout_s)
        assert found, self.stderr
        return found

    async def ended(self, timeout_s: float = 30.0) -> tuple[int, str]:
        """Wait until it ends: the exit code, and all of its standard output that nobody has read yet."""
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout_s):
            output = await self.process.stdout.read()
            return await self.process.wait(), output.decode()


@contextlib.asynccontextmanager
async def running(*arguments: str, **settings: str) -> AsyncIterator[Running]:
    """Run a command; whatever is left of it at the end is killed."""
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "stderr"
        with errors.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *COMMAND, *arguments, stdout=asyncio.subprocess.PIPE, stderr=file, env=environ(**settings)
            )
        try:
            yield Running(process, errors)
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.kill()
            await process.communicate()


class Up(Running):
    """`flashsale up`, ready."""

    def __init__(self, running: Running, data_dir: Path, url: str) -> None:
        super().__init__(running.process, running._errors)
        self.data_dir = data_dir
        self.url = url

    @property
    def run(self) -> dict[str, Any]:
        """What run.json says just now."""
        found: dict[str, Any] = msgspec.json.decode((self.data_dir / "run.json").read_bytes())
        return found


@contextlib.asynccontextmanager
async def up(data_dir: Path, *arguments: str, **settings: str) -> AsyncIterator[Up]:
    """Start everything on a free port, and wait for the ready line."""
    async with running("up", "--port", "0", "--data-dir", str(data_dir), *arguments, **settings) as started:
        assert started.process.stdout is not None
        async with asyncio.timeout(60):
            line = (await started.process.stdout.readline()).decode()
        found = re.fullmatch(r"ready (http://127\.0\.0\.1:\d+)\n", line)
        assert found, (line, started.stderr)
        yield Up(started, data_dir, found[1])


async def run(*arguments: str, stdin: bytes | None = None, **settings: str) -> tuple[int, str, str]:
    """Run a command to its end: exit code, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environ(**settings),
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def until(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Wait for a named condition; its name is the failure."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"waited {timeout_s:g} s in vain until {what}") from None


async def until_status(url: str, wanted: int, timeout_s: float = 40.0) -> dict[str, Any]:
    """Wait until a GET is answered with this status; the answer."""
    last: object = None
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        async with session.get(url, timeout=aiohttp.ClientTimeout(total=5)) as answer:
                            if answer.status == wanted:
                                found: dict[str, Any] = await answer.json()
                                return found
                            last = await answer.text()
                    except (aiohttp.ClientError, TimeoutError) as error:
                        last = error
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{url} did not answer {wanted} within {timeout_s:g} s: {last}") from None


def family(pid: int) -> list[psutil.Process]:
    """The process and all its descendants."""
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def alive(processes: list[psutil.Process]) -> list[int]:
    """Those that run; one that has ended and waits to be reaped does not."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


async def post(url: str, token: str, body: object = None, *, wanted: int | None = None) -> tuple[int, dict[str, Any]]:
    """POST as somebody."""
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as session, session.post(url, json=body) as answer:
        found: dict[str, Any] = await answer.json(content_type=None)
        assert wanted is None or answer.status == wanted, (answer.status, found)
        return answer.status, found


async def get(url: str, token: str) -> dict[str, Any]:
    """GET as somebody."""
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as answer:
        found: dict[str, Any] = await answer.json(content_type=None)
        assert answer.status == 200, (answer.status, found)
        return found
