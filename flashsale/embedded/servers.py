"""Valkey and Postgres as programs to keep running, and `running()`, which runs both."""

import asyncio
import contextlib
import random
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import msgspec
import psutil
import redis.asyncio as redis
from redis import exceptions as redis_errors

from flashsale.embedded.places import (
    STATE_ROOT,
    Notice,
    Place,
    kept_password,
    lock_data_dir,
    open_place,
    write_private,
)
from flashsale.embedded.preflight import ONCE, check_database, check_redis
from flashsale.errors import SetupError
from flashsale.supervise import Event, Program, Supervisor, end, exit_words, spawn

HOST = "127.0.0.1"
PORTS = range(20_000, 30_000)
"""Ports are chosen below those that systems give to outgoing connections: a client that keeps calling a dead server on
one of those can be given that very port as its own, and keep the server from coming back."""
ENVIRON = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
VALKEY_ENVIRON = ENVIRON | {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=65535"}
"""The wheel's Valkey has its memory from the C library, whose heap a sale of 100,000 units leaves in pieces, to be
searched for each of the thousands of Lua strings of a call: every refusal from then on costs twice as much. With as
many pieces kept at hand as a call needs (by default it is 7 of each size) nothing is searched. It takes some 4 MiB."""
USER = DATABASE = "flashsale"
READY_TIMEOUT_S = 120.0
"""Replaying the log after a crash takes its time; a server that died is noticed at once, this is for one that hangs."""

VALKEY_CONF = """\
bind {host}
port {port}
requirepass {password}
dir {folder}
daemonize no
logfile ""
# Nothing is kept on disk. What comes back with a restarted server is never trusted (PROTOCOL.md): the gate is rebuilt
# from the ledger, and a file would only have to be read first, several seconds for 300,000 reservations. The one other
# thing that lives here, the last minute of failed F-codes, begins again.
appendonly no
save ""
# A key must never vanish to make room: the gate answers "out of memory" and the web "unavailable" instead.
maxmemory-policy noeviction
"""

POSTGRES_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # TCP on the loopback is one way in; a socket's path can be too long
    # What the promise stands on; the defaults, but not left to whoever edits postgresql.conf.
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_connections": "200",  # eight a process for a dozen web processes, the worker, and a person
    "shared_buffers": "256MB",  # a drop's rows and indexes stay in memory; the default 128MB starts to evict at 300 k
    "max_wal_size": "4GB",  # a rush must not force checkpoints: after each, a page's next change logs the whole page
    "min_wal_size": "256MB",  # log files are used again rather than made anew in the rush
    "checkpoint_timeout": "5min",  # bounds the replay after a crash in calm times
    "wal_buffers": "16MB",  # batches of hundreds of rows are written to the log in one go
    "jit": "off",  # short statements: compiling one costs more than running it
    "max_parallel_workers_per_gather": "0",  # on few cores a parallel report would take them from the shoppers
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",  # a line every five minutes that nobody asked for
}


def taken(port: int) -> bool:
    """Whether something listens on this port of the loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger do not count
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def _port(wanted: int | None, server: str, rng: random.Random) -> int:
    if wanted is not None:
        if taken(wanted):
            raise SetupError(
                f"Port {wanted}, wanted for {server}, is taken. Stop what listens there or choose another."
            )
        return wanted
    for _ in range(200):
        port = rng.choice(PORTS)
        if not taken(port):
            return port
    raise SetupError(f"No free port for {server} between {PORTS.start} and {PORTS.stop}.")


def valkey(place: Place, port: int | None = None, *, rng: random.Random | None = None) -> tuple[Program, str]:
    """Valkey on the loopback, with a password, nothing on disk and no eviction; and its URL."""
    port = _port(port, "Valkey", rng or random.SystemRandom())
    folder = place.files / "valkey"
    password = kept_password(place.files / "valkey.password")
    conf = place.files / "valkey.conf"
    # In quotes, as a path may hold blanks.
    text = VALKEY_CONF.format(host=HOST, port=port, password=password, folder=f'"{folder}"')
    write_private(conf, text, place.account)
    url = f"redis://:{password}@{HOST}:{port}/0"

    async def ready() -> bool:
        client = redis.Redis.from_url(url, socket_timeout=READY_TIMEOUT_S, retry=ONCE)
        try:
            return bool(await client.ping())
        except (redis_errors.ConnectionError, redis_errors.TimeoutError, OSError):  # loading its file is one of these
            return False
        finally:
            await client.aclose()

    async def before_start() -> None:
        await _end_left_over("valkey-server", folder, (signal.SIGTERM, signal.SIGKILL))

    return Program(
        name="valkey",
        argv=(str(place.valkey_server), str(conf)),
        env=VALKEY_ENVIRON,
        cwd=folder,
        account=place.account,
        log=place.files / "valkey.log",
        ready=ready,
        ready_timeout_s=READY_TIMEOUT_S,
        before_start=before_start,
    ), url


def postgres(place: Place, port: int | None = None, *, rng: random.Random | None = None) -> tuple[Program, str]:
    """Postgres on the loopback, with a password and every durability setting on; and the URL of its database.

    The first start makes the cluster and the database `flashsale`.
    """
    port = _port(port, "Postgres", rng or random.SystemRandom())
    data = place.files / "postgres" / "data"
    password = kept_password(place.files / "postgres.password", place.account)
    address = f"postgresql://{USER}:{password}@{HOST}:{port}"
    url = f"{address}/{DATABASE}?sslmode=disable"
    settings = [f"-c{name}={value}" for name, value in (POSTGRES_SETTINGS | {"port": str(port)}).items()]

    async def ready() -> bool:
        try:
            connection = await asyncpg.connect(url, timeout=READY_TIMEOUT_S)
        except asyncpg.InvalidCatalogNameError:
            await _create_database(f"{address}/postgres?sslmode=disable")
            return False
        except asyncpg.InvalidPasswordError:
            raise SetupError(f"{place.files}/postgres.password does not open the database in {data}.") from None
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # not listening, or still replaying its log
            return False
        await connection.close()
        return True

    async def before_start() -> None:
        await after_end()
        if not data.exists():
            await _initdb(place, data)
        (data / "postmaster.pid").unlink(missing_ok=True)

    async def after_end() -> None:
        await _end_left_over("postgres", data, (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL))

    return Program(
        name="postgres",
        argv=(str(place.postgres_bin / "postgres"), "-D", str(data), *settings),
        env=ENVIRON,
        cwd=place.files / "postgres",
        account=place.account,
        log=place.files / "postgres.log",
        ready=ready,
        ready_timeout_s=READY_TIMEOUT_S,
        stop_signal=signal.SIGINT,  # fast: ends the sessions and shuts down cleanly
        stop_timeout_s=20.0,  # the last checkpoint of a rush
        before_start=before_start,
        after_end=after_end,
    ), url


async def _initdb(place: Place, data: Path) -> None:
    """Make the cluster under another name first, so that one that was cut short is never taken for whole."""
    new, log = data.with_name("data.new"), place.files / "initdb.log"
    shutil.rmtree(new, ignore_errors=True)
    log.unlink(missing_ok=True)
    process = await spawn(
        (
            str(place.postgres_bin / "initdb"),
            f"--pgdata={new}",
            f"--username={USER}",
            f"--pwfile={place.files / 'postgres.password'}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
        ),
        env=ENVIRON,
        cwd=new.parent,
        account=place.account,
        log=log,
    )
    try:
        code = await process.wait()
    finally:
        await end(process, signal.SIGTERM, 5.0)
    if code != 0:
        words = " / ".join(line.strip() for line in log.read_text(errors="replace").splitlines()[-5:] if line.strip())
        raise SetupError(f"initdb failed in {new} ({exit_words(code)}): {words}")
    new.rename(data)


async def _create_database(url: str) -> None:
    connection = await asyncpg.connect(url, timeout=READY_TIMEOUT_S)
    try:
        await connection.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await connection.close()


async def _end_left_over(name: str, folder: Path, signals: tuple[signal.Signals, ...], patience_s: float = 3.0) -> None:
    """End what an earlier run left at work on these files, so that two servers never share them.

    These are the processes of that name that live in `folder`: a server whose supervisor was killed and which is still
    busy ending, or sessions that outlive their killed postmaster. They are sent one signal after the other; the last
    one leaves no choice.
    """
    loop = asyncio.get_running_loop()
    for each in signals:
        for process in await asyncio.to_thread(_processes, name, folder):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(each)
        deadline = loop.time() + patience_s
        while await asyncio.to_thread(_processes, name, folder):
            if loop.time() >= deadline:
                break
            await asyncio.sleep(0.01)
        else:
            return
    raise SetupError(f"{name} still runs on {folder} and cannot be ended. End it, then start again.")


def _processes(name: str, folder: Path) -> list[psutil.Process]:
    """The processes of that name that work in `folder`; of a server with sessions, it alone: they end with it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name() == name and process.cwd() == str(folder):
                found.append((process, process.ppid()))
    servers = {process.pid for process, _ in found}
    return [process for process, parent in found if parent not in servers]


class Servers(msgspec.Struct, frozen=True):
    """The running servers: their URLs, and the supervisor that keeps those of them that are ours."""

    redis_url: str
    database_url: str
    supervisor: Supervisor


@contextlib.asynccontextmanager
async def running(
    data_dir: Path,
    *,
    redis_url: str | None = None,
    database_url: str | None = None,
    redis_port: int | None = None,
    database_port: int | None = None,
    state_root: Path = STATE_ROOT,
    wheels: Path | None = None,
    notice: Notice = lambda _: None,
    on_event: Callable[[Event], None] = lambda _: None,
) -> AsyncIterator[Servers]:
    """Hold the data directory, start the embedded servers, and stop them (and all else the supervisor got) at the end.

    A server whose URL is given is not started but checked. SetupError, with nothing left running, if anything fails.
    """
    async with contextlib.AsyncExitStack() as stack:
        data_dir = stack.enter_context(lock_data_dir(data_dir))
        supervisor = Supervisor(on_event)
        programs: list[Program] = []
        if redis_url is not None:
            await check_redis(redis_url)
        if database_url is not None:
            await check_database(database_url)
        if redis_url is None or database_url is None:
            place = stack.enter_context(open_place(data_dir, state_root=state_root, notice=notice, wheels=wheels))
            if redis_url is None:
                program, redis_url = valkey(place, redis_port)
                programs.append(program)
            if database_url is None:
                program, database_url = postgres(place, database_port)
                programs.append(program)
        await stack.enter_async_context(supervisor)
        await supervisor.start(*programs)
        yield Servers(redis_url, database_url, supervisor)


@contextlib.asynccontextmanager
async def temporary(*, on_event: Callable[[Event], None] = lambda _: None) -> AsyncIterator[Servers]:
    """Embedded servers for a test or a measurement: everything they write is removed at the end."""
    with _temporary_home() as home:
        async with running(home / "data", state_root=home / "state", on_event=on_event) as servers:
            yield servers


@contextlib.contextmanager
def _temporary_home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="flashsale-") as folder:
        Path(folder).chmod(0o711)  # root's servers pass through it
        yield Path(folder)
