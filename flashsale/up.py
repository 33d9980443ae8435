"""`flashsale up`: everything on one machine. Servers of its own unless URLs are given, web, worker, and a demo drop."""

import asyncio
import contextlib
import random
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from flashsale import demo, embedded
from flashsale.embedded.places import kept_fcode_key, kept_password
from flashsale.errors import SetupError
from flashsale.ledger.migrate import migrate
from flashsale.process import FCODE_KEYS_FILE, RUN_FILE, SECRET_FILE, kept_secret, url_of
from flashsale.serve import CLEANUP_S, METRICS_VARIABLE, check_secret, listen
from flashsale.settings import PREFIX, Settings
from flashsale.supervise import Event, Program
from flashsale.web.auth import mint
from flashsale.worker import endpoint_of

METRICS_FOLDER: Final = "metrics"
READY_TIMEOUT_S: Final = 30.0
PROBE_TIMEOUT_S: Final = 5.0
POLL_S: Final = 0.02
DEMO_TOKEN_S: Final = 86_400.0

Say = Callable[[str], None]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of `up` beside the settings.

    `environ` is passed on to the processes; `log_files` sends their log lines to files in the data directory.
    """

    environ: Mapping[str, str]
    demo: bool = True
    log_files: bool = False


class _RunFile:
    """Keeps `run.json` true: which processes run just now, and where."""

    def __init__(self, path: Path, say: Say) -> None:
        self._path = path
        self._say = say
        self._pids: dict[str, int] = {}
        self._urls: dict[str, str] | None = None

    def publish(self, *, url: str, redis_url: str, database_url: str) -> None:
        """From now on the file is there."""
        self._urls = {"url": url, "redis_url": redis_url, "database_url": database_url}
        self._write()

    def withdraw(self) -> None:
        """From now on it is not."""
        self._urls = None
        self._path.unlink(missing_ok=True)

    def on_event(self, event: Event) -> None:
        """Something happened to a process."""
        if event.what in {"started", "ready"} and event.pid is not None:
            self._pids[event.name] = event.pid
        else:
            self._pids.pop(event.name, None)
        if self._urls is None:
            return
        self._write()
        match event.what:
            case "died":
                self._say(f"{event.name} died ({event.detail}); it is started again.")
            case "failed":
                self._say(f"{event.name} could not be started; another try follows. {event.detail}")
            case "ready":
                self._say(f"{event.name} runs again (process {event.pid}).")

    def _write(self) -> None:
        if self._urls is not None:
            embedded.run_json(self._path, pids=self._pids, **self._urls)


def _check_first(settings: Settings, say: Say) -> tuple[Path, int]:
    """What can be known before anything starts: the data directory and the port. `SetupError` otherwise."""
    if settings.jwt_secret is not None:
        check_secret(settings.jwt_secret)
    _ = settings.fcode_ring, endpoint_of(settings)  # read once: what is wrong is said before anything starts
    with embedded.lock_data_dir(Path(settings.data_dir)) as held:
        secret = None if settings.jwt_secret is not None else kept_secret(held)
        if secret is not None:
            try:
                check_secret(secret)
            except SetupError:
                raise SetupError(
                    f"The secret in {held / SECRET_FILE} is too short. Remove the file: the next start makes a new one."
                ) from None
        if (held / RUN_FILE).exists():
            say(f"The run before, in {held}, did not end in order; its data is kept.")
        (held / RUN_FILE).unlink(missing_ok=True)
    with listen(settings.host, settings.port) as probe:
        port: int = probe.getsockname()[1]
    return held, port


def _fresh_folder(path: Path) -> Path:
    """An empty folder; counts of an earlier run would be added to those of this one."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700)
    return path


def _environ(environ: Mapping[str, str], **known: object) -> dict[str, str]:
    """The environment of web and worker: ours, and what we know by now."""
    return {**environ, **{PREFIX + name.upper(): str(value) for name, value in known.items()}}


def _demo_sign_in(settings: Settings, options: Options) -> dict[str, object]:
    """With the demo, on this machine alone, anybody may sign in to the pages as anybody."""
    near = settings.host in {"localhost", "::1"} or settings.host.startswith("127.")
    earnest = settings.sign_in_url is not None or settings.sign_in_header is not None
    own = settings.redis_url is None and settings.database_url is None
    return {"sign_in_demo": 1} if options.demo and own and near and not earnest else {}


def _programs(
    settings: Settings, environ: Mapping[str, str], session: aiohttp.ClientSession, *, url: str, logs: Path | None
) -> list[Program]:
    """Web and worker."""

    async def answers() -> bool:
        try:
            async with session.get(f"{url}/healthz"):
                return True  # whatever the answer is: to an outside address it may be a refusal
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def runs() -> bool:
        return True  # it works whenever the stores let it

    def program(name: str, command: str, ready: Callable[[], object]) -> Program:
        return Program(
            name=name,
            argv=(sys.executable, "-m", "flashsale", command),
            env=environ,
            cwd=Path.cwd(),
            log=None if logs is None else logs / f"{name}.log",
            ready=ready,  # type: ignore[arg-type]
            ready_timeout_s=READY_TIMEOUT_S,
            stop_timeout_s=settings.shutdown_timeout_s + 2 * CLEANUP_S,
        )

    return [program("web", "serve", answers), program("worker", "worker", runs)]


async def _wait_ready(session: aiohttp.ClientSession, url: str) -> None:
    """Return when the service serves. `SetupError` says what is missing after `READY_TIMEOUT_S`."""
    problem = "no answer"
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            while True:
                # Probes may be closed to the address we come from; then a call that reads the ledger tells as much.
                for path in ("/readyz", "/v1/drops"):
                    try:
                        async with session.get(url + path) as answer:
                            if answer.status == 200:  # noqa: PLR2004
                                return
                            problem = (await answer.text())[:300]
                            if answer.status != 403:  # noqa: PLR2004
                                break
                    except (aiohttp.ClientError, TimeoutError) as error:
                        problem = str(error)
                        break
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise SetupError(f"The service at {url} did not get ready within {READY_TIMEOUT_S:g} s: {problem}") from None


@contextlib.asynccontextmanager
async def running(settings: Settings, options: Options, say: Say) -> AsyncIterator[str]:
    """Start everything, give the URL once it serves, keep it running, and stop all of it at the end.

    `SetupError`, with nothing left running, if anything cannot be started.
    """
    data_dir, port = _check_first(settings, say)
    url = url_of(settings.host, port)
    run_file = _RunFile(data_dir / RUN_FILE, say)
    async with contextlib.AsyncExitStack() as stack:
        servers = await stack.enter_async_context(
            embedded.running(
                data_dir,
                redis_url=settings.redis_url,
                database_url=settings.database_url,
                notice=say,
                on_event=run_file.on_event,
            )
        )
        secret = settings.jwt_secret or kept_password(data_dir / SECRET_FILE)
        fcode_keys = settings.fcode_keys or kept_fcode_key(data_dir / FCODE_KEYS_FILE)
        await migrate(servers.database_url)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True),
                timeout=aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S),
            )
        )
        environ = _environ(
            {**options.environ, METRICS_VARIABLE: str(_fresh_folder(data_dir / METRICS_FOLDER))},
            redis_url=servers.redis_url,
            database_url=servers.database_url,
            data_dir=data_dir,
            jwt_secret=secret,
            fcode_keys=fcode_keys,
            port=port,
            **_demo_sign_in(settings, options),
        )
        logs = data_dir if options.log_files else None
        await servers.supervisor.start(*_programs(settings, environ, session, url=url, logs=logs))
        await _wait_ready(session, url)
        run_file.publish(url=url, redis_url=servers.redis_url, database_url=servers.database_url)
        stack.callback(run_file.withdraw)
        if logs is not None:
            say(f"Log lines of web and worker: {logs}/web.log, {logs}/worker.log.")
        yield url


async def _demo(url: str, secret: str, say: Say) -> None:
    """Run the demo; whatever goes wrong in it is said, and the service goes on."""

    def token(member: int, *, ops: bool = False) -> str:
        return mint(secret, member=member, role="ops" if ops else None, expires_at=time.time() + DEMO_TOKEN_S)

    try:
        await demo.run(url, token=token, say=say, now=time.time, rng=random.Random())  # noqa: S311 -- a crowd
    except demo.Failed as failed:
        say(f"The demo ended early: {failed}")
    except Exception as error:  # noqa: BLE001 -- no fault of a show may end the service
        say(f"The demo failed: {type(error).__name__}: {error}")


async def up(settings: Settings, options: Options, *, say: Say, announce: Say) -> bool:
    """Run until SIGINT, SIGTERM or SIGHUP, and stop everything; whether it had become ready.

    `announce` hears the URL when it serves, `say` all that a person may like to know. A second signal stops by force.
    """
    was_ready = False

    async def work() -> None:
        nonlocal was_ready
        async with running(settings, options, say) as url, asyncio.TaskGroup() as tasks:
            announce(url)
            was_ready = True
            if options.demo and settings.redis_url is None and settings.database_url is None:
                secret = settings.jwt_secret or kept_secret(Path(settings.data_dir)) or ""
                tasks.create_task(_demo(url, secret, say))
            await asyncio.Event().wait()

    task = asyncio.create_task(work())

    def stop() -> None:
        say("Killing what still runs." if task.cancelling() else "Stopping; accepted requests finish first.")
        task.cancel()

    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(each, stop)
    try:
        await task
    except asyncio.CancelledError:
        say("Stopped.")
    return was_ready
