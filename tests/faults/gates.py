"""The gate's servers as a service may have them: one Valkey; a primary, its replica and a Sentinel; a cluster.

Every way to them, their own among each other included, leads through a proxy.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Literal

import msgspec
import redis.asyncio

from flashsale import embedded
from flashsale.gate import keys
from flashsale.supervise import Program, Supervisor
from tests.faults.moments import Moments
from tests.faults.proxy import HOST, Proxy
from tests.gate.support import client_at, free_port, plain_client, sentinel_program, valkey_program
from tests.support import until

Stage = Literal["single", "sentinel", "cluster"]
SERVICE = "gate"
SLOTS = 16_384
PRIMARIES = 3
DOWN_AFTER_MS = 500
FAILOVER_TIMEOUT_MS = 4_000
NODE_TIMEOUT_MS = 1_500
IN_MEMORY = ("--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0")


class Restarts:
    """Stands between a program's death and its next start: holds it back, or lays out other files for it."""

    def __init__(self) -> None:
        self._free: dict[str, asyncio.Event] = {}
        self._first: dict[str, list[Callable[[], None]]] = {}

    def under(self, program: Program) -> Program:
        """The same program, started only when it may."""
        free = self._free[program.name] = asyncio.Event()
        free.set()
        first = self._first[program.name] = []
        before = program.before_start

        async def before_start() -> None:
            await free.wait()
            if before is not None:
                await before()
            while first:
                first.pop(0)()

        return msgspec.structs.replace(program, before_start=before_start)

    def hold(self, name: str) -> None:
        """It is not started again until it is let go."""
        self._free[name].clear()

    def let_go(self, name: str) -> None:
        """It may be started again."""
        self._free[name].set()

    def before_next(self, name: str, act: Callable[[], None]) -> None:
        """Do this once, when it is dead and before it is started again."""
        self._first[name].append(act)


class Server:
    """One Valkey: its program's name, a client past the proxy, and the proxy that everybody else goes through."""

    def __init__(self, name: str, direct: "redis.asyncio.Redis", proxy: Proxy, folder: Path) -> None:
        self.name = name
        self.direct = direct
        self.proxy = proxy
        self.folder = folder

    async def info(self) -> dict[str, str]:
        """INFO replication; empty when it does not answer."""
        try:
            found = await self.direct.info("replication")
        except (redis.RedisError, OSError):
            return {}
        return {name: str(value) for name, value in found.items()}

    async def is_primary(self) -> bool:
        """Whether it takes itself for one."""
        return (await self.info()).get("role") == "master"

    async def follows(self) -> bool:
        """Whether it is a replica whose link to its primary is up."""
        info = await self.info()
        return info.get("role") == "slave" and info.get("master_link_status") == "up"


class Gates:
    """All servers of the gate. `url` leads through the proxies, `direct_url`, where there is one server, past it."""

    def __init__(
        self, stage: Stage, servers: Sequence[Server], url: str, restarts: Restarts, *, direct_url: str = ""
    ) -> None:
        self.direct_url = direct_url
        self.stage = stage
        self.servers = list(servers)
        self.url = url
        self.restarts = restarts

    @property
    def proxies(self) -> list[Proxy]:
        """The ways to all servers."""
        return [server.proxy for server in self.servers]

    def named(self, name: str) -> Server:
        """The server of that program."""
        return next(server for server in self.servers if server.name == name)

    async def primaries(self) -> list[Server]:
        """Those that say they are."""
        return [server for server in self.servers if await server.is_primary()]

    async def primary_of(self, drop: str, stripe: int = 0) -> Server | None:
        """The primary that has the keys of this drop's stripe, if one has."""
        meta = keys.stripe(drop, stripe).meta
        for server in await self.primaries():
            try:
                if await server.direct.exists(meta):
                    return server
            except redis.RedisError:  # of a cluster: somebody else has them
                continue
        return None

    async def whole(self) -> bool:
        """Whether every server has its place: one primary for every key, and each replica follows one."""
        wanted = {"single": 1, "sentinel": 1, "cluster": PRIMARIES}[self.stage]
        primaries = await self.primaries()
        if len(primaries) != wanted:
            return False
        if self.stage == "cluster" and not await self._covered():
            return False
        return all([await server.follows() for server in self.servers if server not in primaries])

    async def _covered(self) -> bool:
        for server in self.servers:
            info = (await server.direct.execute_command("CLUSTER", "INFO")).decode()  # type: ignore[no-untyped-call]
            told = dict(line.split(":") for line in info.split())
            if (told["cluster_state"], told["cluster_slots_ok"]) != ("ok", str(SLOTS)):
                return False
        return True


async def _proxied(stack: AsyncExitStack, port: int, moments: Moments) -> Proxy:
    proxy = Proxy((HOST, port))
    proxy.seen.append(moments.at_gate)
    await proxy.start()
    stack.push_async_callback(proxy.aclose)
    return proxy


@asynccontextmanager
async def single(
    place: embedded.Place, supervisor: Supervisor, moments: Moments, *, as_shipped: bool
) -> AsyncIterator[Gates]:
    """The embedded Valkey; unless `as_shipped`, with an append-only file, whatever it is shipped with."""
    async with AsyncExitStack() as stack:
        restarts = Restarts()
        program, url = embedded.valkey(place)
        if not as_shipped:
            program = msgspec.structs.replace(program, argv=(*program.argv, "--appendonly", "yes"))
        port = int(url.rpartition(":")[2].partition("/")[0])
        direct = await stack.enter_async_context(plain_client(url))
        await supervisor.start(restarts.under(program))
        proxy = await _proxied(stack, port, moments)
        server = Server("valkey", direct, proxy, program.cwd)
        through = url.replace(f":{port}/", f":{proxy.port}/")
        yield Gates("single", [server], through, restarts, direct_url=url)


@asynccontextmanager
async def sentinel(home: Path, supervisor: Supervisor, moments: Moments) -> AsyncIterator[Gates]:
    """A primary and its replica in memory, and a Sentinel that may decide alone."""
    async with AsyncExitStack() as stack:
        restarts, servers = Restarts(), []
        for name in ("first", "second"):
            port = free_port()
            proxy = await _proxied(stack, port, moments)
            announced = ("--replica-announce-ip", HOST, "--replica-announce-port", str(proxy.port))
            program = valkey_program(name, port, home, *IN_MEMORY, *announced)
            await supervisor.start(restarts.under(program))
            servers.append(Server(name, await stack.enter_async_context(client_at(port)), proxy, program.cwd))
        first, second = servers
        await second.direct.execute_command("REPLICAOF", HOST, first.proxy.port)  # type: ignore[no-untyped-call]
        port = free_port()
        await supervisor.start(
            sentinel_program(
                port,
                home,
                SERVICE,
                first.proxy.port,
                down_after_ms=DOWN_AFTER_MS,
                failover_timeout_ms=FAILOVER_TIMEOUT_MS,
            )
        )
        gates = Gates("sentinel", servers, f"redis+sentinel://{HOST}:{port}/{SERVICE}", restarts)
        watcher = await stack.enter_async_context(client_at(port))

        async def known() -> bool:
            found = await watcher.execute_command("SENTINEL", "REPLICAS", SERVICE)  # type: ignore[no-untyped-call]
            return len(found) == 1 and await gates.whole()

        await until(known, "Sentinel knows the replica, and it follows")
        yield gates


@asynccontextmanager
async def cluster(home: Path, supervisor: Supervisor, moments: Moments) -> AsyncIterator[Gates]:
    """Three primaries with a third of the slots each, and a replica of each."""
    async with AsyncExitStack() as stack:
        restarts, servers, buses = Restarts(), [], []
        for number in range(2 * PRIMARIES):
            port, bus = free_port(), free_port()
            proxy = await _proxied(stack, port, moments)
            options = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS)]
            options += ["--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0"]
            options += ["--cluster-port", str(bus), "--cluster-announce-ip", HOST]
            options += ["--cluster-announce-port", str(proxy.port), "--cluster-announce-bus-port", str(bus)]
            program = valkey_program(f"node-{number}", port, home, *IN_MEMORY, *options)
            await supervisor.start(restarts.under(program))
            direct = await stack.enter_async_context(client_at(port))
            servers.append(Server(program.name, direct, proxy, program.cwd))
            buses.append(bus)
        url = "redis+cluster://" + ",".join(f"{HOST}:{server.proxy.port}" for server in servers)
        gates = Gates("cluster", servers, url, restarts)
        await _form(gates, buses)
        yield gates


def opened(
    stage: Stage,
    place: embedded.Place,
    home: Path,
    supervisor: Supervisor,
    moments: Moments,
    *,
    as_shipped: bool = False,
) -> AbstractAsyncContextManager[Gates]:
    """The gate's servers of a stage, started by `supervisor`."""
    match stage:
        case "single":
            return single(place, supervisor, moments, as_shipped=as_shipped)
        case "sentinel":
            return sentinel(home, supervisor, moments)
        case "cluster":
            return cluster(home, supervisor, moments)


async def _form(gates: Gates, buses: Sequence[int]) -> None:
    """Give out the slots, introduce all to the first, and put a replica under each primary."""
    servers = gates.servers
    for at, server in enumerate(servers):
        if at < PRIMARIES:
            slots = (SLOTS * at // PRIMARIES, SLOTS * (at + 1) // PRIMARIES - 1)
            await server.direct.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)  # type: ignore[no-untyped-call]
        await server.direct.execute_command("CLUSTER", "SET-CONFIG-EPOCH", at + 1)  # type: ignore[no-untyped-call]
    for server, bus in zip(servers, buses, strict=True):
        meet = ("CLUSTER", "MEET", HOST, server.proxy.port, bus)
        await servers[0].direct.execute_command(*meet)  # type: ignore[no-untyped-call]
    names = [(await s.direct.execute_command("CLUSTER", "MYID")).decode() for s in servers]  # type: ignore[no-untyped-call]

    async def acquainted() -> bool:
        for server in servers:
            known = (await server.direct.execute_command("CLUSTER", "NODES")).decode()  # type: ignore[no-untyped-call]
            if any(name not in known for name in names) or "handshake" in known:
                return False
        return True

    await until(acquainted, "all nodes know each other")
    for at in range(PRIMARIES):
        replica = servers[PRIMARIES + at].direct
        await replica.execute_command("CLUSTER", "REPLICATE", names[at])  # type: ignore[no-untyped-call]
    await until(gates.whole, "the cluster is whole")


def copy_files(source: Path, to: Path) -> None:
    """Keep what a server has on disk just now, as it is, for a later start."""
    shutil.rmtree(to, ignore_errors=True)
    for attempt in range(5):
        try:
            shutil.copytree(source, to, symlinks=True)
        except (shutil.Error, FileNotFoundError):  # it is just rewriting them
            shutil.rmtree(to, ignore_errors=True)
            if attempt == 4:
                raise
        else:
            return


def put_files(source: Path, to: Path) -> None:
    """Lay out what was kept, with the owners of what was there."""
    owner = to.stat()
    for old in to.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink()
    shutil.copytree(source, to, dirs_exist_ok=True, symlinks=True)
    for path in (to, *to.rglob("*")):
        shutil.chown(path, owner.st_uid, owner.st_gid)
