"""The auditor finds the gate wherever it is, and knows of its layout what the gate's own room says."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from flashsale import embedded
from flashsale.audit import Report, audit, gate
from flashsale.audit.acts import ACTIONS
from flashsale.gate import keys
from flashsale.supervise import Supervisor
from tests.audit.world import World
from tests.flow.faults import id_of, press
from tests.gate.support import HOST, client_at, free_port, sentinel_program, temporary_folder, valkey_program
from tests.gate.test_cluster import NODES, Cluster
from tests.support import allocation, claim, make_drop, make_node

SERVICE = "audited"
PLAIN = ("--save", "", "--appendonly", "no")


async def sold_at(servers: embedded.Servers, url: str) -> tuple[Report, Report]:
    """The audits of a small sale whose gate is at `url`, as it was and with a unit taken away from its gate."""
    node = await make_node(servers, redis_url=url)
    try:
        drop = await node.operations.create(make_drop(allocation("a", 5)), actor="member:1", detail={})
        won = [(id_of(await press(node, drop.id, claim(member))), member) for member in (1, 2, 3)]
        await node.gate.settle(drop.id, won)
        true = await audit(drop.id, database_url=servers.database_url, redis_url=url, settle_s=5.0)
        await node.gate._client.execute_command("HINCRBY", keys.stripe(drop.id).meta, "n:a", -1)
        wrong = await audit(drop.id, database_url=servers.database_url, redis_url=url, settle_s=5.0)
        return true, wrong
    finally:
        await node.aclose()


def judged(true: Report, wrong: Report) -> None:
    """The first is true, entries and all; the second says where the unit is missing."""
    assert true.contradiction is None
    assert "3 entries, 3 live rows" in [c.found for c in true.checks]
    assert str(wrong.contradiction).endswith("a: 1 left and 3 in entries make 4 of 5 units")


@asynccontextmanager
async def supervised() -> AsyncIterator[tuple[AsyncExitStack, Supervisor]]:
    """Servers of this test's own."""
    async with AsyncExitStack() as stack:
        yield stack, await stack.enter_async_context(Supervisor())


async def test_a_gate_behind_a_sentinel(urls: embedded.Servers) -> None:
    async with supervised() as (stack, supervisor):
        folder = await stack.enter_async_context(temporary_folder())
        primary, port = free_port(), free_port()
        await supervisor.start(valkey_program("primary", primary, folder, *PLAIN))
        await supervisor.start(
            sentinel_program(port, folder, SERVICE, primary, down_after_ms=5_000, failover_timeout_ms=5_000)
        )
        judged(*await sold_at(urls, f"redis+sentinel://{HOST}:{port}/{SERVICE}"))


async def test_a_gate_in_a_cluster(urls: embedded.Servers) -> None:
    async with supervised() as (stack, supervisor):
        folder = await stack.enter_async_context(temporary_folder())
        ports, buses = [free_port() for _ in range(NODES)], [free_port() for _ in range(NODES)]
        await supervisor.start(
            *(
                valkey_program(f"n{port}", port, folder, *PLAIN, "--cluster-enabled", "yes", "--cluster-port", str(bus))
                for port, bus in zip(ports, buses, strict=True)
            )
        )
        nodes = [await stack.enter_async_context(client_at(port)) for port in ports]
        cluster = Cluster(supervisor, ports, buses, nodes)
        await cluster.form()
        for _ in range(NODES):  # drops of several names, so of several nodes
            judged(*await sold_at(urls, cluster.url))


async def test_its_own_words_are_those_of_the_rooms_that_they_come_from(world: World) -> None:
    """The layout's version, and the names under which operators' acts are in the log."""
    assert gate.LAYOUT == keys.LAYOUT
    logged = {row[0] for row in await world.postgres.fetch("SELECT action FROM audit")} | {"drop.close"}
    assert set(ACTIONS.values()) <= logged


async def test_a_crowd_is_read_as_exactly_as_a_few(urls: embedded.Servers) -> None:
    """More entries and rows than are read at once; one of them differs."""
    node = await make_node(urls)
    try:
        drop = await node.operations.create(make_drop(allocation("a", 6_000)), actor="member:1", detail={})
        insert = (
            "INSERT INTO reservations (id, drop_id, allocation_id, member, quantity, slot, payload, epoch, expires_at)"
            " SELECT gen_random_uuid(), $1, 'a', n, 1, 1, 'a|1', 1, now() + interval '10 min'"
            " FROM generate_series(1, 6000) AS n"
        )
        pool = node.ledger._pools[0]
        await pool.execute(insert, drop.id)
        await pool.execute("UPDATE allocations SET taken = 6000 WHERE drop_id = $1", drop.id)
        await node.arming.arm(drop.id, force=True)
        stores = {"database_url": urls.database_url, "redis_url": urls.redis_url, "settle_s": 0.0}
        true = await audit(drop.id, **stores)  # type: ignore[arg-type]
        assert true.contradiction is None
        assert "6,000 entries, 6,000 live rows" in [c.found for c in true.checks]
        await pool.execute("UPDATE reservations SET slot = 2 WHERE drop_id = $1 AND member = 4711", drop.id)
        wrong = await audit(drop.id, **stores)  # type: ignore[arg-type]
        assert "of member 4711 in a: slot is 1 in the gate and 2 in the ledger" in str(wrong.contradiction)
    finally:
        await node.aclose()
