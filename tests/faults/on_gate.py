"""Faults of the gate's servers: killed, stopped, emptied, older, full, failed over."""

import signal
from pathlib import Path

from flashsale.gate import keys
from tests.faults.gates import Server, copy_files, put_files
from tests.faults.hit import Hit, fault
from tests.faults.pace import lasts
from tests.faults.world import signal_all
from tests.support import until

READY_S = 60.0
PROMOTED_S = 90.0


def _folder(hit: Hit) -> Path:
    return hit.world.gates.named("valkey").folder


@fault("valkey killed", "gate")
async def valkey_killed(hit: Hit) -> None:
    """Kill -9; it comes back with its own append-only file, at once or after a while."""
    await hit.moment("press", "grant", "commit")
    hit.world.restarts.hold("valkey")
    killed = hit.world.kill("valkey")
    try:
        if hit.random.random() < 0.4:
            await hit.hold(0.5, 4.0)
    finally:
        hit.world.restarts.let_go("valkey")
    await hit.world.ready("valkey", other_than=killed)


@fault("valkey stopped", "gate")
async def valkey_stopped(hit: Hit) -> None:
    """SIGSTOP, often for longer than a hold."""
    await hit.moment("press", "grant", "commit")
    pid = hit.world.pid("valkey")
    signal_all([pid], signal.SIGSTOP)
    try:
        await hit.hold(2.0, 8.0)
    finally:
        signal_all([pid], signal.SIGCONT)


@fault("valkey emptied", "gate", stages=("single", "sentinel", "cluster"))
async def valkey_emptied(hit: Hit) -> None:
    """FLUSHALL; also that of its scripts."""
    server = hit.random.choice(await hit.world.gates.primaries())
    await hit.moment("press", "grant", "commit", "committed")
    await server.direct.flushall()
    if hit.random.random() < 0.3:
        hit.details.append("and its scripts")
        await server.direct.script_flush()


@fault("valkey lost a key", "gate")
async def valkey_lost_a_key(hit: Hit) -> None:
    """One key of one drop is gone, as by eviction."""
    sale = hit.drop()
    name = hit.random.choice(keys.stripe(sale.drop, hit.random.randrange(sale.stripes))[:4])
    hit.details.append(name)
    server = hit.world.gates.named("valkey")
    await hit.moment("press", "grant", "commit")
    await server.direct.delete(name)


@fault("valkey restarted older", "gate")
async def valkey_restarted_older(hit: Hit) -> None:
    """It comes back with what it had on disk a second or more before, or without the end of its file."""
    folder, kept = _folder(hit), hit.world.home / "older"
    copy_files(folder, kept)
    await lasts(hit.random.uniform(0.5, 4.0))
    await hit.moment("grant", "commit")
    hit.world.restarts.before_next("valkey", lambda: put_files(kept, folder))
    await hit.world.ready("valkey", other_than=hit.world.kill("valkey"))


@fault("valkey restarted empty", "gate")
async def valkey_restarted_empty(hit: Hit) -> None:
    """It comes back with nothing."""
    folder, nothing = _folder(hit), hit.world.home / "nothing"
    nothing.mkdir(exist_ok=True)
    await hit.moment("grant", "commit")
    hit.world.restarts.before_next("valkey", lambda: put_files(nothing, folder))
    await hit.world.ready("valkey", other_than=hit.world.kill("valkey"))


@fault("valkey full", "gate")
async def valkey_full(hit: Hit) -> None:
    """No memory is left for anything that grows (noeviction); then there is again."""
    server = hit.world.gates.named("valkey")
    await hit.moment("press", "grant")
    await server.direct.config_set("maxmemory", 1)
    try:
        await hit.hold(1.0, 5.0)
    finally:
        await server.direct.config_set("maxmemory", 0)


async def _primary(hit: Hit) -> tuple[Server, list[Server]]:
    """A primary (of the large drop, mostly), and all the others there are."""
    gates = hit.world.gates
    found = await gates.primary_of(hit.sales[0].drop) if hit.random.random() < 0.6 else None
    primary = found or hit.random.choice(await gates.primaries())
    return primary, [server for server in gates.servers if server is not primary]


async def _succeeded(hit: Hit, before: list[Server]) -> None:
    """Wait until one of these, which was none before, is a primary."""

    async def promoted() -> bool:
        return any([await server.is_primary() for server in before])

    await until(promoted, "a replica has been promoted", PROMOTED_S)


async def _replicas(hit: Hit) -> list[Server]:
    primaries = await hit.world.gates.primaries()
    return [server for server in hit.world.gates.servers if server not in primaries]


async def _failed_over(hit: Hit, *, lagging: bool) -> None:
    """The primary dies, and its replica, which may lack what came last, takes its place."""
    world = hit.world
    primary, _ = await _primary(hit)
    replicas = await _replicas(hit)
    if lagging:
        primary.proxy.replication_held = True
        await lasts(hit.random.uniform(0.3, 1.5))
    world.restarts.hold(primary.name)
    await hit.moment("press", "grant", "commit")
    killed = world.kill(primary.name)
    primary.proxy.closed = True
    primary.proxy.cut()
    hit.details.append(primary.name)
    try:
        await _succeeded(hit, replicas)
        hit.healed()
    finally:
        primary.proxy.heal()
        world.restarts.let_go(primary.name)
    await world.ready(primary.name, other_than=killed)
    await until(world.gates.whole, "the old primary follows the new one", READY_S)


async def _frozen(hit: Hit) -> None:
    """The primary stands still until its replica has taken its place, and then goes on as if nothing had been."""
    world = hit.world
    primary, _ = await _primary(hit)
    replicas = await _replicas(hit)
    await hit.moment("press", "grant", "commit")
    pid = world.pid(primary.name)
    signal_all([pid], signal.SIGSTOP)
    hit.details.append(primary.name)
    try:
        await _succeeded(hit, replicas)
        await lasts(hit.random.uniform(0.0, 3.0))
    finally:
        signal_all([pid], signal.SIGCONT)
    hit.healed()
    await until(world.gates.whole, "the old primary follows the new one", READY_S)


@fault("sentinel failover", "gate", stages=("sentinel",))
async def sentinel_failover(hit: Hit) -> None:
    """The primary is killed; Sentinel promotes a replica that lags."""
    await _failed_over(hit, lagging=True)


@fault("sentinel primary stopped", "gate", stages=("sentinel",))
async def sentinel_primary_stopped(hit: Hit) -> None:
    """The primary stands still, Sentinel promotes the replica; the old one wakes up and can still be reached."""
    await _frozen(hit)


@fault("cluster primary killed", "gate", stages=("cluster",))
async def cluster_primary_killed(hit: Hit) -> None:
    """A primary is killed mid-sale; its replica, which may lag, takes over, or it comes back first, empty."""
    if hit.random.random() < 0.75:
        await _failed_over(hit, lagging=hit.random.random() < 0.5)
        return
    primary, _ = await _primary(hit)
    await hit.moment("press", "grant", "commit")
    hit.details.append(f"{primary.name}, back at once")
    await hit.world.ready(primary.name, other_than=hit.world.kill(primary.name))
    await until(hit.world.gates.whole, "the cluster is whole", READY_S)


@fault("cluster primary stopped", "gate", stages=("cluster",))
async def cluster_primary_stopped(hit: Hit) -> None:
    """A primary stands still until its replica has taken over, and wakes up."""
    await _frozen(hit)
