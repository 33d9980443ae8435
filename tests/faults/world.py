"""The real service with its real servers, each in a process of its own, and every way between them through a proxy."""

import asyncio
import os
import signal
import struct
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import msgspec
import psutil

from fcodes import new_master
from flashsale import embedded
from flashsale.ledger.migrate import dbmate
from flashsale.supervise import Event, Program, Supervisor, end, spawn
from tests.faults import gates
from tests.faults.disk import SmallDisk
from tests.faults.gates import Gates, Restarts, Stage
from tests.faults.journal import Journal
from tests.faults.moments import Moments
from tests.faults.proxy import HOST, Proxy
from tests.faults.shop import SECRET as SHOP_SECRET
from tests.faults.shop import Shop, opened_shop
from tests.gate.support import free_port
from tests.support import until

SECRET: Final = "a secret of the fault runs, long enough for HS256"
WEB_PROCESSES: Final = 2
WORKERS: Final = ("worker-1", "worker-2")
DATABASE_CONNECTIONS_MAX: Final = 90
READY_S: Final = 60.0
SETTINGS: Final = {
    "jwt_secret": SECRET,
    "fcode_keys": new_master(bytes(range(32))),
    "workers": str(WEB_PROCESSES),
    "fulfilment_secret": SHOP_SECRET,
    "fulfilment_allow_private": "1",
    "fulfilment_timeout_s": "2",
    "fulfilment_retry_s": ",".join(["0.5", "1", *["2"] * 60]),
    "fcode_tries_address_max": "100000",  # all shoppers live at one address
    "fcode_tries_member_max": "100",
    "public_probes": "1",
    "leases_from": "2",  # this crowd is small, and is to be refused by the processes themselves, too
}
"""What is set otherwise than by default: what a run of minutes could not wait for. Time-outs are the product's own."""


class Clock:
    """The wall clock of the web machine: of all web processes and workers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(struct.pack("<d", 0.0))
        path.chmod(0o644)

    def step(self, offset_s: float) -> None:
        """From now on it is `offset_s` away from ours."""
        with self.path.open("r+b") as file:
            file.write(struct.pack("<d", offset_s))


class World(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a strike may hit, and everything needed to look at what it left."""

    home: Path
    servers: Supervisor
    service: Supervisor
    restarts: Restarts
    gates: Gates
    ledger: Proxy
    door: Proxy
    shop: Shop
    clock: Clock
    moments: Moments
    disk: SmallDisk | None
    database_url: str
    """Past the proxy."""
    program: Program
    """What a further process of the service is made of."""
    events: list[Event]

    @property
    def stage(self) -> Stage:
        """Which servers the gate has."""
        return self.gates.stage

    @property
    def url(self) -> str:
        """Where shoppers press."""
        return f"http://{HOST}:{self.door.port}"

    @property
    def web_pids(self) -> list[int]:
        """The web processes, without the one that keeps them."""
        return [child.pid for child in psutil.Process(self.pid("web")).children()]

    def _keeper(self, name: str) -> Supervisor:
        return self.service if name == "web" or name.startswith("worker") else self.servers

    def pid(self, name: str) -> int:
        """The process that a program has just now."""
        return self._keeper(name).pids[name]

    def kill(self, name: str) -> int:
        """Kill -9; the pid that was."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    async def ready(self, name: str, *, other_than: int) -> None:
        """Wait until the program is ready, in another process than that one."""
        async with asyncio.timeout(READY_S):
            await self._keeper(name).ready(name, other_than=other_than)

    def use(self, journal: Journal | None) -> None:
        """The shop writes into this journal, or into none."""
        self.shop.journal = journal

    @asynccontextmanager
    async def database(self) -> AsyncIterator["asyncpg.Connection"]:
        """A connection past the proxy."""
        connection = await asyncpg.connect(self.database_url, timeout=10, command_timeout=60)
        try:
            yield connection
        finally:
            await connection.close()


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each that is still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def with_children(pid: int) -> list[int]:
    """A process and all below it, itself first."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def _through(url: str, proxy: Proxy) -> str:
    target = urlsplit(url)
    return target._replace(netloc=f"{target.netloc.rpartition(':')[0]}:{proxy.port}").geturl()


def _postgres(place: embedded.Place) -> tuple[Program, str]:
    """The embedded Postgres, with fewer connections, so that using them up is quick."""
    program, url = embedded.postgres(place)
    argv = (*program.argv, f"-cmax_connections={DATABASE_CONNECTIONS_MAX}")
    return msgspec.structs.replace(program, argv=argv), url


async def run_to_end(program: Program, *arguments: str) -> None:
    """Run a command of the service, which must succeed."""
    log = program.cwd / "command.log"
    process = await spawn((*program.argv, *arguments), env=program.env, cwd=program.cwd, log=log)
    try:
        code = await process.wait()
    finally:
        await end(process, signal.SIGTERM, 5.0)
    assert code == 0, log.read_text()


def plain_program(home: Path, product: Path, **settings: str) -> Program:
    """`python -m flashsale` of that copy of the product, with these settings and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FLASHSALE_", "PYTHON"))}
    path = os.pathsep.join((str(Path(dbmate()).parent), inherited.get("PATH", "")))
    variables = {f"FLASHSALE_{name.upper()}": value for name, value in settings.items()}

    async def runs() -> bool:
        return True

    return Program(
        name="service",
        argv=(sys.executable, "-m", "flashsale"),
        env={**inherited, "PATH": path, "PYTHONPATH": str(product), **variables},
        cwd=home,
        ready=runs,
        stop_timeout_s=20.0,
    )


def _service(home: Path, product: Path, clock: Clock, settings: dict[str, str]) -> Program:
    """The same with the settings of all runs, and that clock."""
    program = plain_program(home, product, **SETTINGS, **settings)
    path = os.pathsep.join((str(product), str(Path(__file__).with_name("clock"))))
    env = {**program.env, "PYTHONPATH": path, "FAULTS_CLOCK": str(clock.path), "TMPDIR": str(home / "tmp")}
    return msgspec.structs.replace(program, env=env)


def process_of(program: Program, name: str, *arguments: str) -> Program:
    """One process of the service, with a log of its own."""
    log = program.cwd / f"{name}.log"
    return msgspec.structs.replace(program, name=name, argv=(*program.argv, *arguments), log=log)


@asynccontextmanager
async def opened(
    stage: Stage,
    home: Path,
    product: Path,
    *,
    small_disk: bool = False,
    workers: Iterable[str] = WORKERS,
    as_shipped: bool = False,
) -> AsyncIterator[World]:
    """Start everything in `home`, wait until it serves, and stop all of it at the end.

    With `as_shipped`, which is for what is to be measured, the service reaches its stores without a proxy, and Valkey
    is set up as `flashsale up` does it. Else it has an append-only file, so that it can come back with what it had.
    """
    async with AsyncExitStack() as stack:
        moments, events, clock = Moments(), list[Event](), Clock(home / "clock")
        shop = await stack.enter_async_context(opened_shop(moments))
        data = stack.enter_context(embedded.lock_data_dir(home / "data"))
        place = stack.enter_context(embedded.open_place(data, state_root=home / "state", notice=lambda _: None))
        disk = SmallDisk(place.files / "postgres") if small_disk else None
        if disk is not None:
            stack.callback(disk.close)
        servers = await stack.enter_async_context(Supervisor(events.append))
        database, database_url = _postgres(place)
        found = await stack.enter_async_context(
            gates.opened(stage, place, home, servers, moments, as_shipped=as_shipped)
        )
        await servers.start(found.restarts.under(database))
        port = free_port()
        ledger, door = Proxy((HOST, urlsplit(database_url).port or 0)), Proxy((HOST, port))
        for proxy in (ledger, door):
            await proxy.start()
            stack.push_async_callback(proxy.aclose)
        ledger.seen.append(moments.at_ledger)
        settings = {
            "redis_url": found.direct_url if as_shipped else found.url,
            "database_url": database_url if as_shipped else _through(database_url, ledger),
            "data_dir": str(data),
            "port": str(port),
            "fulfilment_url": shop.url,
        }
        service = _service(home, product, clock, settings)
        await run_to_end(service, "migrate")
        processes = await stack.enter_async_context(
            Supervisor(events.append)
        )  # stopped first, by all ways that they need
        stack.callback(_thaw, servers, processes)
        await processes.start(
            process_of(service, "web", "serve"), *(process_of(service, name, "worker") for name in workers)
        )
        await _ready(f"http://{HOST}:{door.port}")
        yield World(
            home=home,
            servers=servers,
            service=processes,
            restarts=found.restarts,
            gates=found,
            ledger=ledger,
            door=door,
            shop=shop,
            clock=clock,
            moments=moments,
            disk=disk,
            database_url=database_url,
            program=service,
            events=events,
        )


def _thaw(*supervisors: Supervisor) -> None:
    """Nobody can be stopped in order who stands still."""
    for supervisor in supervisors:
        for pid in supervisor.pids.values():
            signal_all(with_children(pid), signal.SIGCONT)


async def _ready(url: str) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:

        async def ready() -> bool:
            try:
                async with session.get(f"{url}/readyz", timeout=aiohttp.ClientTimeout(total=5)) as answer:
                    return answer.status == 200
            except (aiohttp.ClientError, TimeoutError):
                return False

        await until(ready, "the service is ready")
