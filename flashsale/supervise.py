"""A small supervisor: starts programs, waits until they are ready, starts again what dies, stops all that it started.

A program runs in a process group of its own, so that Ctrl-C in the terminal reaches the supervisor alone, which stops
everything in the right order; what a program leaves behind in its group is killed when the program ends. On Linux the
kernel stops the programs when the supervisor itself is killed (PR_SET_PDEATHSIG, tied to the thread that started them).
"""

import asyncio
import contextlib
import ctypes
import os
import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, Self

import msgspec

from flashsale.errors import SetupError

POLL_S = 0.02
"""How often a program is asked whether it is ready."""
STEADY_S = 10.0
"""A program that was ready for this long has recovered: its next restart is immediate again."""
RESTART_BASE_S = 0.25
RESTART_MAX_S = 15.0
LOG_MAX_BYTES = 16 * 1024 * 1024
"""A log larger than this is set aside as `NAME.1` when its program starts."""

_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None  # looked up before any fork

What = Literal["started", "ready", "died", "failed", "stopped"]


class Account(msgspec.Struct, frozen=True):
    """The system account a program runs as."""

    name: str
    uid: int
    gid: int


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A program to keep running.

    `ready` is asked again and again; it answers False while it is too early and raises SetupError when waiting is
    useless. `before_start` runs before each start, `after_end` after each end. `stop_signal` asks for an orderly end;
    the kernel sends it, too, when the supervisor was killed. Without `log` the output goes to standard error.
    """

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], Awaitable[bool]]
    env: Mapping[str, str]
    cwd: Path
    account: Account | None = None
    log: Path | None = None
    ready_timeout_s: float = 30.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 10.0
    before_start: Callable[[], Awaitable[None]] | None = None
    after_end: Callable[[], Awaitable[None]] | None = None


class Event(msgspec.Struct, frozen=True):
    """What happened to a program; `failed` is a start that came to nothing and will be tried again."""

    name: str
    pid: int | None
    what: What
    detail: str = ""


def restart_delay_s(failures: int, chance: float) -> float:
    """Seconds before a restart: none for the first, then doubling up to a cap, each shortened by up to a half.

    `chance` in [0, 1) spreads the restarts of programs that died together.
    """
    if failures == 0:
        return 0.0
    full: float = min(RESTART_MAX_S, RESTART_BASE_S * 2 ** min(failures - 1, 16))
    return full * (1 - chance / 2)


def _as_child(account: Account | None, orphan_signal: signal.Signals) -> Callable[[], None]:
    """What a child does between fork and exec: change account, then ask the kernel to be stopped with its parent."""
    parent = os.getpid()

    def between() -> None:
        if account is not None:
            os.setgroups([])
            os.setgid(account.gid)
            os.setuid(account.uid)  # clears the death signal, so this comes first
        if _prctl is not None:
            _prctl(_PR_SET_PDEATHSIG, int(orphan_signal), 0, 0, 0)
            if os.getppid() != parent:  # it died in between
                os._exit(1)

    return between


@contextlib.contextmanager
def _output(log: Path | None) -> Iterator[int]:
    """Where a program's output goes: the end of its log file (0600), or standard error."""
    if log is None:
        yield 2
        return
    if log.exists() and log.stat().st_size > LOG_MAX_BYTES:
        log.replace(log.with_name(log.name + ".1"))
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


async def spawn(
    argv: tuple[str, ...],
    *,
    env: Mapping[str, str],
    cwd: Path,
    account: Account | None = None,
    log: Path | None = None,
    orphan_signal: signal.Signals = signal.SIGKILL,
) -> asyncio.subprocess.Process:
    """Start one process with no input, in a process group of its own, under `account`. SetupError if it cannot be."""
    try:
        with _output(log) as out:
            return await asyncio.create_subprocess_exec(
                *argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
                preexec_fn=_as_child(account, orphan_signal),
            )
    except (OSError, subprocess.SubprocessError) as error:
        who = f" as {account.name}" if account else ""
        raise SetupError(f"Cannot run {argv[0]}{who}: {error}.") from error


async def end(process: asyncio.subprocess.Process, stop_signal: signal.Signals, timeout_s: float) -> None:
    """End a process that `spawn` started and its group: politely, then, after `timeout_s` or if cancelled, by force."""
    try:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(stop_signal)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), timeout_s)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _size(log: Path | None) -> int:
    return log.stat().st_size if log is not None and log.exists() else 0


def _log_tail(log: Path | None, start: int) -> str:
    """The last lines a program wrote to its log since byte `start`, as one line that names the file."""
    if log is None:
        return "its output is above"
    size = _size(log)
    with log.open("rb") as file:
        file.seek(max(start if start <= size else 0, size - 4096))  # smaller than before: a new log was begun
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return f"{log} ends: {' / '.join(lines[-5:]) or 'nothing'}"


class _Keeper:
    """One program and the process it currently has."""

    def __init__(self, program: Program, on_event: Callable[[Event], None], jitter: Callable[[], float]) -> None:
        self.program = program
        self.ready_pid: int | None = None
        self.news = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._on_event = on_event
        self._jitter = jitter
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start it and wait until it is ready. SetupError, with nothing left running, if it dies or takes too long."""
        program = self.program
        try:
            if program.before_start is not None:
                await program.before_start()
            log_start = _size(program.log)
            self._process = await spawn(
                program.argv,
                env=program.env,
                cwd=program.cwd,
                account=program.account,
                log=program.log,
                orphan_signal=program.stop_signal,
            )
            self._tell("started")
            await self._wait_until_ready(self._process, log_start)
        except BaseException as error:
            await self._end()
            if isinstance(error, OSError):
                raise SetupError(f"{program.name} cannot be started: {error}.") from error
            raise
        self.ready_pid = self._process.pid
        self._tell("ready")

    async def _wait_until_ready(self, process: asyncio.subprocess.Process, log_start: int) -> None:
        program, problem = self.program, ""

        async def ask() -> None:
            while not await program.ready():  # noqa: ASYNC110 - it is another process that gets ready
                await asyncio.sleep(POLL_S)

        died, ready = asyncio.create_task(process.wait()), asyncio.create_task(ask())
        try:
            await asyncio.wait((died, ready), timeout=program.ready_timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if died.done():
                problem = f"ended before it was ready ({exit_words(died.result())})"
            elif not ready.done():
                problem = f"was not ready within {program.ready_timeout_s:g} s"
            else:
                ready.result()
        finally:
            died.cancel()
            ready.cancel()
            await asyncio.gather(died, ready, return_exceptions=True)
        if problem:
            raise SetupError(f"{program.name} {problem}; {_log_tail(program.log, log_start)}.")

    async def keep(self) -> None:
        """Start it again whenever it dies, until cancelled."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            since = loop.time()
            code = await self._process.wait() if self._process else 0
            if loop.time() - since >= STEADY_S:
                failures = 0
            self.ready_pid = None
            self._tell("died", exit_words(code))
            while self.ready_pid is None:
                await asyncio.sleep(restart_delay_s(failures, self._jitter()))
                failures += 1
                try:
                    await self._end()
                    await self.start()
                except Exception as error:  # noqa: BLE001 - whatever it is, a later try may succeed, and giving up helps nobody
                    self._tell("failed", str(error))

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        await self._end()

    def kill(self) -> None:
        """End it by force, without waiting."""
        if self.task is not None:
            self.task.cancel()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _end(self) -> None:
        """Whatever is left of the current process ends."""
        process, self.ready_pid = self._process, None
        if process is None:
            return
        running = process.returncode is None
        try:
            await end(process, self.program.stop_signal, self.program.stop_timeout_s)
            if self.program.after_end is not None:
                await self.program.after_end()
        finally:
            if running:
                self._tell("stopped")
            self._process = None

    def _tell(self, what: What, detail: str = "") -> None:
        self.news.set()
        self.news = asyncio.Event()
        try:
            self._on_event(Event(self.program.name, self.pid, what, detail))
        except Exception as error:  # noqa: BLE001 - a listener's fault must not end the supervision
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"A listener failed on {self.program.name} {what}", "exception": error}
            )


def exit_words(code: int) -> str:
    """An exit code as asyncio gives it, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


class Supervisor:
    """Keeps programs running; as an async context manager it stops them, last started first, however the block ends.

    `on_event` is called for each `Event`; `jitter` gives numbers in [0, 1).
    """

    def __init__(
        self, on_event: Callable[[Event], None] = lambda _: None, jitter: Callable[[], float] = random.random
    ) -> None:
        self._on_event = on_event
        self._jitter = jitter
        self._keepers: list[_Keeper] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def pids(self) -> dict[str, int]:
        """The process of each program that has one just now."""
        return {keeper.program.name: keeper.pid for keeper in self._keepers if keeper.pid is not None}

    async def start(self, *programs: Program) -> None:
        """Start programs side by side and wait until all are ready.

        If one cannot be, it raises that SetupError after ending the others of this call.
        """
        keepers = [_Keeper(program, self._on_event, self._jitter) for program in programs]
        self._keepers += keepers
        starts = [asyncio.create_task(keeper.start()) for keeper in keepers]
        try:
            await asyncio.gather(*starts)
        except BaseException:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
            for keeper in keepers:
                await keeper.stop()
                self._keepers.remove(keeper)
            raise
        for keeper in keepers:
            keeper.task = asyncio.create_task(keeper.keep(), name=f"keep {keeper.program.name}")

    async def ready(self, name: str, *, other_than: int | None = None) -> int:
        """Wait until the program is ready, in another process than `other_than`; its pid."""
        keeper = next(keeper for keeper in self._keepers if keeper.program.name == name)
        while keeper.ready_pid is None or keeper.ready_pid == other_than:
            await keeper.news.wait()
        return keeper.ready_pid

    async def stop(self) -> None:
        """Stop everything, last started first. If cancelled, the rest is ended by force."""
        try:
            while self._keepers:
                await self._keepers[-1].stop()
                self._keepers.pop()
        finally:
            for keeper in self._keepers:
                keeper.kill()
