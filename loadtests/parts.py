"""The processes of a crowd: starts them, tells them when the drop opens, follows what they hear (`crowd`)."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import msgspec

from loadtests.errors import SetupError
from loadtests.part import Opening, Part, Told

READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
LINE_BYTES_MAX = 1 << 20
ERRORS_SHOWN_CHARS = 2_000
ROOT = Path(__file__).parents[1]


class _Process(NamedTuple):
    process: asyncio.subprocess.Process
    log: Path

    @property
    def stdin(self) -> asyncio.StreamWriter:
        return cast("asyncio.StreamWriter", self.process.stdin)

    async def line(self) -> bytes:
        """What it says next. `SetupError` with its last words when it has ended."""
        line = await cast("asyncio.StreamReader", self.process.stdout).readline()
        if not line:
            code = await self.process.wait()
            said = await asyncio.to_thread(self.log.read_text, errors="replace")
            raise SetupError(f"A process of the crowd ended ({code}): {said[-ERRORS_SHOWN_CHARS:]}")
        return line

    async def stop(self) -> None:
        """It ends when it is not told anything more; who is in the middle of something is made to."""
        if self.process.returncode is not None:
            return
        self.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self.process.wait()
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


class Crowds:
    """The processes, by number from 0, and what each has told so far."""

    def __init__(self) -> None:
        self._processes: list[_Process] = []
        self.told: list[Told] = []

    @property
    def pids(self) -> dict[str, int]:
        """By name."""
        return {f"crowd {number}": each.process.pid for number, each in enumerate(self._processes, 1)}

    async def start(self, module: str, part: Part, log: Path, environ: Mapping[str, str]) -> None:
        """Start one more."""
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors, cwd=ROOT,
                env={name: value for name, value in environ.items() if not name.startswith("FLASHSALE_")},
                limit=LINE_BYTES_MAX, start_new_session=True,  # a Ctrl-C here reaches it through us
            )  # fmt: skip
        self._processes.append(_Process(process, log))
        self.told.append(Told())
        await self._tell(self._processes[-1], part)

    async def ready(self) -> None:
        """Return when all can press. Errors: `SetupError`."""
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                for each in self._processes:
                    await each.line()
        except TimeoutError:
            raise SetupError(f"The crowd was not ready to press within {READY_TIMEOUT_S:.0f} s.") from None

    async def press(self, opening: Opening) -> None:
        """Tell all when the drop opens, and follow them until all have done. Errors: `SetupError`."""
        for each in self._processes:
            await self._tell(each, opening)
        await asyncio.gather(*(self._follow(number) for number in range(len(self._processes))))

    async def _tell(self, each: _Process, what: Part | Opening) -> None:
        each.stdin.write(msgspec.json.encode(what) + b"\n")
        with contextlib.suppress(ConnectionError):  # it has ended; its next line says so
            await each.stdin.drain()

    async def _follow(self, number: int) -> None:
        while not self.told[number].done:
            self.told[number] = msgspec.json.decode(await self._processes[number].line(), type=Told)

    async def stop(self) -> None:
        """End them all."""
        await asyncio.gather(*(each.stop() for each in self._processes))


@contextlib.asynccontextmanager
async def gathered(
    module: str, parts: Sequence[Part], folder: Path, environ: Mapping[str, str]
) -> AsyncIterator[Crowds]:
    """A process for each part, ready to press, until the block ends. Their logs go to `folder`."""
    crowds = Crowds()
    try:
        for part in parts:
            await crowds.start(module, part, folder / f"crowd-{part.number + 1}.log", environ)
        await crowds.ready()
        yield crowds
    finally:
        await crowds.stop()
