"""Faults of Postgres: killed, stopped, restarted, crowded, locked, full, slow."""

import contextlib
import signal

import asyncpg

from tests.faults.hit import Hit, fault
from tests.faults.world import DATABASE_CONNECTIONS_MAX, signal_all, with_children
from tests.support import until

READY_S = 60.0
LATE_S = 30.0


async def _answers(hit: Hit) -> None:
    async def answers() -> bool:
        try:
            async with hit.world.database() as connection:
                return bool(await connection.fetchval("SELECT true"))
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False

    await until(answers, "Postgres answers", READY_S)


@fault("postgres backend killed", "ledger", stages=("single", "sentinel", "cluster"))
async def postgres_backend_killed(hit: Hit) -> None:
    """Kill -9 of one session's process: Postgres ends them all, and recovers from its log."""
    async with hit.world.database() as connection:
        rows = await connection.fetch(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'flashsale' AND pid <> pg_backend_pid()"
        )
    if not rows:
        rows = [{"pid": with_children(hit.world.pid("postgres"))[-1]}]
    pid = hit.random.choice(rows)["pid"]
    await hit.moment("commit", "committed")
    signal_all([pid], signal.SIGKILL)
    await _answers(hit)


@fault("postgres killed", "ledger")
async def postgres_killed(hit: Hit) -> None:
    """Kill -9 of the postmaster; what is left of it is ended, and it recovers from its log, at once or later."""
    await hit.moment("commit", "committed")
    hit.world.restarts.hold("postgres")
    killed = hit.world.kill("postgres")
    try:
        if hit.random.random() < 0.5:
            await hit.hold(0.5, 6.0)
    finally:
        hit.world.restarts.let_go("postgres")
    await hit.world.ready("postgres", other_than=killed)


@fault("postgres stopped", "ledger")
async def postgres_stopped(hit: Hit) -> None:
    """SIGSTOP of all its processes, mostly for longer than a hold."""
    await hit.moment("commit", "committed")
    pids = with_children(hit.world.pid("postgres"))
    signal_all(pids, signal.SIGSTOP)
    try:
        await hit.hold(3.0, 9.0)
    finally:
        signal_all(pids, signal.SIGCONT)


@fault("postgres restarted", "ledger")
async def postgres_restarted(hit: Hit) -> None:
    """A fast restart, as an operator does it."""
    await hit.moment("commit", "committed")
    pid = hit.world.pid("postgres")
    signal_all([pid], signal.SIGINT)
    await hit.world.ready("postgres", other_than=pid)


@fault("postgres sessions ended", "ledger")
async def postgres_sessions_ended(hit: Hit) -> None:
    """pg_terminate_backend of every session of the service."""
    async with hit.world.database() as connection:
        await hit.moment("commit", "committed")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'flashsale'"
        )


@fault("postgres crowded", "ledger")
async def postgres_crowded(hit: Hit) -> None:
    """Others use up its connections, and the service's own are ended: there is none to be had."""
    async with contextlib.AsyncExitStack() as stack:
        connections: list[asyncpg.Connection] = []

        async def fill() -> None:
            with contextlib.suppress(asyncpg.TooManyConnectionsError):
                while len(connections) < DATABASE_CONNECTIONS_MAX:
                    connections.append(await stack.enter_async_context(hit.world.database()))

        await fill()
        await hit.moment("commit")
        await connections[0].execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'flashsale'"
        )
        await fill()
        hit.details.append(f"{len(connections)} connections")
        await hit.hold(1.0, 4.0)


@fault("postgres locked", "ledger")
async def postgres_locked(hit: Hit) -> None:
    """Somebody's session holds locks for longer than anyone waits: a drop's rows, or all reservations."""
    sale = hit.drop()
    async with hit.world.database() as connection, connection.transaction():
        await hit.moment("commit")
        match hit.random.choice(["drop", "allocations", "reservations"]):
            case "drop":
                await connection.execute("SELECT FROM drops WHERE id = $1 FOR UPDATE", sale.drop)
            case "allocations":
                await connection.execute("SELECT FROM allocations WHERE drop_id = $1 ORDER BY id FOR UPDATE", sale.drop)
            case _:
                await connection.execute("LOCK TABLE reservations IN EXCLUSIVE MODE")
        hit.details.append(sale.drop)
        await hit.hold(4.0, 9.0)


@fault("postgres disk full", "ledger")
async def postgres_disk_full(hit: Hit) -> None:
    """Its disk has no room for another page; then it has. If its log has none either, it goes down, and comes back."""
    disk = hit.world.disk
    assert disk is not None
    await hit.moment("commit")
    disk.fill()
    try:
        await hit.hold(2.0, 6.0)
    finally:
        disk.empty()
    await _answers(hit)


@fault("postgres slow", "ledger", stages=("single", "cluster"))
async def postgres_slow(hit: Hit) -> None:
    """Commits take long: 100 ms each, or until a standby that is not there has them."""
    slow = hit.random.choice(
        ["commit_delay = 100000; ALTER SYSTEM SET commit_siblings = 0", "synchronous_standby_names = 'nobody'"]
    )
    hit.details.append(slow.partition(" ")[0])
    async with hit.world.database() as connection:
        await hit.moment("commit")
        for statement in slow.split("; "):
            await connection.execute(statement if statement.startswith("ALTER") else f"ALTER SYSTEM SET {statement}")
        await connection.execute("SELECT pg_reload_conf()")
        try:
            await hit.hold(1.5, 6.0)
        finally:
            await connection.execute("ALTER SYSTEM RESET ALL")
            await connection.execute("SELECT pg_reload_conf()")
