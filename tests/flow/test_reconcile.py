"""What is lost between gate and ledger comes back: by rebuilds, by expiry, by the outbox, by the janitor."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import pytest
from redis.asyncio import Redis

from flashsale import embedded, gate, reconcile
from flashsale.domain import Drop, Grant, Points, Refusal, State, Verdict
from flashsale.gate import Decisions, Gate, Unarmed, keys
from flashsale.ledger import Existing
from flashsale.points import import_points
from flashsale.reservations import Held
from tests.flow.faults import DeafGate, LeaselessGate, at_rest, id_of, press
from tests.ledger.support import new_database
from tests.support import NewDrop, Node, allocation, claim, make_drop, make_node, until


@pytest.fixture(scope="module")
async def servers(urls: embedded.Servers) -> AsyncIterator[embedded.Servers]:
    """The session's servers, with a database of this module's own: a round looks after these drops only."""
    async with new_database(urls.database_url) as url:
        yield embedded.Servers(urls.redis_url, url, urls.supervisor)


@pytest.fixture(scope="module")
async def node(servers: embedded.Servers) -> AsyncIterator[Node]:
    """One process."""
    made = await make_node(servers)
    yield made
    await made.aclose()


@pytest.fixture
async def other(servers: embedded.Servers) -> AsyncIterator[Node]:
    """Another process, new to everything."""
    made = await make_node(servers)
    yield made
    await made.aclose()


@pytest.fixture
async def redis(servers: embedded.Servers) -> AsyncIterator["Redis"]:
    """A hand at the gate's own prompt."""
    client: Redis = Redis.from_url(servers.redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The janitor takes a grant for orphaned at once, and not after three seconds."""
    monkeypatch.setattr(reconcile, "PENDING_MAX_MS", 0)


async def granted(node: Node, drop: Drop, *members: int) -> list[Grant]:
    """Grants of the gate that nobody commits, as a process leaves them that dies just then."""
    decided = await node.gate.decide(drop, 0, [claim(member) for member in members])
    assert isinstance(decided, Decisions)
    return [grant for grant in decided.results if isinstance(grant, Grant)]


async def test_a_grant_that_nobody_committed_is_sold_again(node: Node, new_drop: NewDrop, at_once: None) -> None:
    """A tombstone first, then the unit: the commit that was only slow inserts nothing when it comes after all."""
    drop = await new_drop(allocation(quantity=1))
    (orphan,) = await granted(node, drop, 1)
    assert await press(node, drop.id, claim(2)) == Refusal(Verdict.SOLD_OUT)
    report = await node.reconciler.run_once()
    assert (report.voided, report.settled, report.failed) == (1, 0, [])
    assert isinstance(await press(node, drop.id, claim(2)), Held)
    (late,) = await node.ledger.reservations.commit(drop.id, [orphan])
    assert isinstance(late, Existing)
    assert late.reservation.state is State.VOID
    assert await at_rest(node, drop.id) == {"a": 0}


async def test_a_grant_is_given_three_seconds(node: Node, new_drop: NewDrop) -> None:
    """Until then its commit may be under way; then the round itself, with nothing else to help, returns the unit."""
    drop = await new_drop(allocation(quantity=1))
    began = asyncio.get_running_loop().time()
    await granted(node, drop, 1)

    async def voided() -> bool:
        return (await node.reconciler.run_once()).voided == 1

    await until(voided, "the orphan is voided")
    assert asyncio.get_running_loop().time() - began > 2.5
    assert await at_rest(node, drop.id) == {"a": 1}


async def test_a_grant_that_is_in_the_ledger_is_settled(node: Node, new_drop: NewDrop, at_once: None) -> None:
    """The janitor takes nothing from who has it; what was cancelled meanwhile it returns."""
    drop = await new_drop(allocation(quantity=5))
    grants = await granted(node, drop, 1, 2)
    await node.ledger.reservations.commit(drop.id, grants)
    await node.ledger.reservations.cancel(drop.id, [grants[1].id])
    await node.ledger.reservations.mark_released(drop.id, [grants[1].id], grants[1].epoch)  # by an earlier gate
    report = await node.reconciler.run_once()
    assert (report.settled, report.voided) == (1, 1)
    assert (await node.reconciler.run_once()).settled == 0
    assert await at_rest(node, drop.id) == {"a": 4}
    assert id_of(await press(node, drop.id, claim(1))) == grants[0].id


async def test_a_hold_whose_shopper_never_comes_back_is_sold_again(node: Node, new_drop: NewDrop) -> None:
    """Not before its time, by the ledger's clock; and once."""
    drop = await new_drop(allocation(quantity=1), hold_seconds=1)
    held = await press(node, drop.id, claim(1))
    assert isinstance(held, Held)
    assert await press(node, drop.id, claim(2)) == Refusal(Verdict.SOLD_OUT)
    total = 0

    async def expired() -> bool:
        nonlocal total
        total += (await node.reconciler.run_once()).expired
        return total > 0

    await until(expired, "the hold has expired")
    assert datetime.now(UTC) >= held.expires_at
    assert await at_rest(node, drop.id) == {"a": 1}
    assert (await node.reconciler.run_once()).returned == 0
    assert total == 1
    assert isinstance(await press(node, drop.id, claim(2)), Held)
    stored = await node.ledger.reservations.get(held.grant.id)
    assert stored is not None
    assert stored.state is State.EXPIRED


async def test_what_ended_unheard_is_returned_once(node: Node, other: Node, new_drop: NewDrop) -> None:
    """Cancelled in the ledger, and then the process died: two rounds at once give the units back to the gate once."""
    drop = await new_drop(allocation(quantity=5))
    ids = [id_of(await press(node, drop.id, claim(member))) for member in (1, 2, 3)]
    for each in ids[:2]:
        assert len(await node.ledger.reservations.cancel(drop.id, [each])) == 1
    (balance,) = await node.operations.balance(drop.id)
    assert (balance.available, balance.pending, balance.held, balance.balanced) == (2, 2, 1, True)
    reports = await asyncio.gather(node.reconciler.run_once(), other.reconciler.run_once())
    assert sum(report.returned for report in reports) == 2
    assert (await node.reconciler.run_once()).returned == 0
    assert await at_rest(node, drop.id) == {"a": 4}


Mark = Callable[[Node, str, str, int], Awaitable[object]]


async def if_epoch(node: Node, drop_id: str, reservation_id: str, epoch: int) -> object:
    """The product: done, if the gate that took the unit back is the present one."""
    return await node.ledger.reservations.mark_released(drop_id, [reservation_id], epoch)


async def regardless(node: Node, drop_id: str, reservation_id: str, _epoch: int) -> object:
    """The variant: done, since a gate has heard of it."""
    query = "UPDATE reservations SET gate_released = true WHERE id = $1 AND drop_id = $2"
    return await node.ledger.reservations._pool.execute(query, reservation_id, drop_id)


@pytest.mark.parametrize("mark", [if_epoch, regardless])
async def test_a_unit_returned_to_an_old_gate_is_returned_to_the_new_one(
    node: Node, new_drop: NewDrop, mark: Mark
) -> None:
    """A rebuild has read the live reservation; it is cancelled; the old gate takes its unit back; the rebuild ends.

    Marked as done regardless of the epoch, the unit is lost for good: the new gate keeps an entry that nobody returns.
    """
    drop = await new_drop(allocation(quantity=1))
    held = id_of(await press(node, drop.id, claim(1)))
    epoch = await node.ledger.drops.bump(drop.id)
    assert epoch is not None
    async with node.ledger.drops.read_for_arming(drop.id, epoch) as found:
        assert found is not None
        state, parts = found
        assert await node.gate.arm_begin(drop.id, epoch) == "ok"
        assert [await node.gate.arm_chunk(drop.id, epoch, part) async for _, part in parts] == [True]
        assert len(await node.ledger.reservations.cancel(drop.id, [held])) == 1
        old = await node.gate.release(drop.id, [(held, 1)])
        assert old == drop.epoch < epoch
        await mark(node, drop.id, held, old)
        assert await node.gate.arm_finish(state.drop, 1, state.free, ttl_ms=60_000) == "ok"
    owed = [e.id for e in await node.ledger.reservations.outbox(drop.id, 10)]
    await node.reconciler.run_once()
    if mark is if_epoch:
        assert owed == [held]
        assert await at_rest(node, drop.id) == {"a": 1}
        assert isinstance(await press(node, drop.id, claim(2)), Held)
    else:
        assert owed == []
        assert await press(node, drop.id, claim(2)) == Refusal(Verdict.SOLD_OUT)
        assert [b.balanced for b in await node.operations.balance(drop.id)] == [False]


async def points_drop(node: Node, name: str) -> Drop:
    """Six units for members with a hundred points; 1 to 9 have them, and 10 has not."""

    async def body() -> AsyncIterator[bytes]:
        yield b"member_id,points\n" + b"".join(b"%d,%d\n" % (m, 100 if m < 10 else 99) for m in range(1, 11))

    await import_points(node.ledger.points, body(), snapshot=name, cutoff=datetime.now(UTC), actor="ops:1")
    wanted = make_drop(allocation(quantity=6, access=Points(snapshot=name, at_least=100)))
    return await node.operations.create(wanted, actor="ops:1", detail={})


Loss = Callable[["Redis", Drop], Awaitable[object]]
LOSSES: dict[str, Loss] = {
    "FLUSHALL": lambda redis, _: redis.flushall(),
    "meta": lambda redis, drop: redis.delete(keys.stripe(drop.id).meta),
    "ent": lambda redis, drop: redis.delete(keys.stripe(drop.id).ent),
    "pend": lambda redis, drop: redis.delete(keys.stripe(drop.id).pend),
    "codes": lambda redis, drop: redis.delete(keys.stripe(drop.id).codes),
    "elig": lambda redis, drop: redis.delete(*gate.keys.eligible_of(drop)),
    "another server": lambda redis, drop: redis.hset(keys.stripe(drop.id).meta, "replid", "0" * 40),
}


@pytest.mark.parametrize("by", ["reserve", "run_once"])
@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_gate_is_rebuilt(node: Node, redis: "Redis", loss: str, by: str) -> None:
    """By whoever presses next, or by the next round; holders keep what they have, and nobody hears a wrong word."""
    name = f"s-{loss.lower().replace(' ', '-')}-{by.replace('_', '-')}"
    drop = await points_drop(node, name)
    first = id_of(await press(node, drop.id, claim(1)))
    await granted(node, drop, 2)  # pending, and lost with the gate
    await LOSSES[loss](redis, drop)
    status = await node.gate.status(drop, 0)
    assert isinstance(status, Unarmed)
    if by == "run_once":
        assert drop.id in (await node.reconciler.run_once()).rebuilt
    else:
        assert id_of(await press(node, drop.id, claim(1))) == first
    assert await at_rest(node, drop.id) == {"a": 5}
    assert await press(node, drop.id, claim(10)) == Refusal(Verdict.NOT_ELIGIBLE)
    answers = [await press(node, drop.id, claim(member)) for member in (1, 2, 3, 4, 5, 6, 7)]
    assert [type(answer).__name__ for answer in answers] == ["Known"] + ["Held"] * 5 + ["Refusal"]
    assert answers[-1] == Refusal(Verdict.SOLD_OUT)
    assert drop.id not in (await node.reconciler.run_once()).rebuilt


@pytest.mark.parametrize("per_member", [1, 3])
async def test_a_rebuild_copies_every_entry_as_it_was(node: Node, new_drop: NewDrop, per_member: int) -> None:
    """Keys with all that a line may hold, several entries of one member, several allocations: all known again."""
    drop = await new_drop(allocation("a", 50), allocation("b", 50), per_member=per_member)
    wanted = ["k", "a\\b", "\\N", "\\.", "\\t", '"quoted"', "% $1 {0}", " spaced ", "ключ-键-🔑", "|", "x" * 255]
    claims = [
        claim(member, "ab"[n], key=key, quantity=n + 1)
        for member, key in enumerate(wanted, 1)
        for n in range(1 if per_member == 1 else 2)
        for key in ([key] if n == 0 else [f"{key[:250]}-2"])
    ]
    before = [id_of(await press(node, drop.id, each)) for each in claims]
    assert len(set(before)) == len(claims)
    free = await at_rest(node, drop.id)
    assert await node.arming.arm(drop.id, force=True)
    assert await at_rest(node, drop.id) == free
    now = await node.catalog.reload(drop.id)
    assert now is not None
    decided = await node.gate.decide(now, 0, claims)
    assert isinstance(decided, Decisions)
    known = [grant for grant in decided.results if isinstance(grant, Grant)]
    assert [(g.id, g.key, g.payload, g.again) for g in known] == [
        (i, c.key, c.payload, True) for i, c in zip(before, claims, strict=True)
    ]


async def test_a_rebuild_copies_one_moment_of_one_epoch(node: Node, new_drop: NewDrop) -> None:
    """What is committed while it reads is not half in it; when the ledger has moved on, there is nothing to copy."""
    drop = await new_drop(allocation(quantity=9), per_member=2)
    first = id_of(await press(node, drop.id, claim(1, key="k")))
    async with node.ledger.drops.read_for_arming(drop.id, drop.epoch) as found:
        assert found is not None
        state, parts = found
        await press(node, drop.id, claim(2))
        await press(node, drop.id, claim(1, key="l"))
        fields = [field for _, part in [part async for part in parts] for field in part]
    assert state.free == {"a": 8}
    assert fields == ["1", f"{first}\ta\t1\t1\tk\t|1\t"]
    assert await node.ledger.drops.bump(drop.id) is not None
    for moved_on in (drop.id, "unknown"):
        async with node.ledger.drops.read_for_arming(moved_on, drop.epoch) as found:
            assert found is None


@pytest.mark.parametrize("lease", [True, False])
async def test_many_processes_rebuild_one_gate(
    servers: embedded.Servers, node: Node, new_drop: NewDrop, redis: "Redis", lease: bool
) -> None:
    """With the lease one of them does the work; without it they supersede each other, and no harm is done.

    Whoever presses meanwhile gets a unit, and no unit is sold twice.
    """
    drop = await new_drop(allocation(quantity=40))
    nodes = [await make_node(servers, make_gate=Gate if lease else LeaselessGate) for _ in range(4)]
    await asyncio.gather(*(press(nodes[0], drop.id, claim(member)) for member in range(1, 11)))
    await redis.flushall()
    presses = (press(nodes[m % 4], drop.id, claim(m)) for m in range(11, 31))
    arms = asyncio.gather(*(n.arming.arm(drop.id) for n in nodes))
    answers = await asyncio.gather(*presses)
    assert all(isinstance(answer, Held) for answer in answers)
    rebuilt = await arms
    assert rebuilt.count(True) == 1 if lease else True in rebuilt
    await node.reconciler.run_once()
    assert await at_rest(node, drop.id) == {"a": 10}
    for each in nodes:
        await each.aclose()


async def test_a_backlog_is_worked_off_without_a_pause(
    node: Node, new_drop: NewDrop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as rounds are full: hundreds of thousands of holds may end in the same minute."""
    monkeypatch.setattr(reconcile, "BATCH_MAX", 4)
    monkeypatch.setattr(reconcile, "TICK_S", 3600.0)
    drop = await new_drop(allocation(quantity=30))
    held = [id_of(await press(node, drop.id, claim(member))) for member in range(1, 31)]
    assert len(await node.ledger.reservations.cancel(drop.id, held)) == 30
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1

    rounds = asyncio.create_task(node.reconciler.run(beat=beat))

    async def returned() -> bool:
        return await node.ledger.reservations.outbox(drop.id, 1) == []

    try:
        await until(returned, "all units are back")
    finally:
        rounds.cancel()
        await asyncio.gather(rounds, return_exceptions=True)
    assert beats >= 7
    assert await at_rest(node, drop.id) == {"a": 30}


async def test_the_rounds_end_when_they_are_cancelled(
    servers: embedded.Servers, new_drop: NewDrop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the cancellation comes just as a reply does, and is lost in the client."""
    monkeypatch.setattr(reconcile, "TICK_S", 3600.0)
    monkeypatch.setattr(reconcile, "DROPS_AT_ONCE_MAX", 1)  # nothing else is under way
    await new_drop(allocation())
    node = await make_node(servers, make_gate=DeafGate)
    assert isinstance(node.gate, DeafGate)
    rounds = asyncio.create_task(node.reconciler.run())
    await node.gate.asked.wait()
    rounds.cancel()
    _, late = await asyncio.wait((rounds,), timeout=30)
    assert not late
    assert rounds.cancelled()
    await node.aclose()


async def test_a_rebuild_ends_although_its_lease_is_just_being_renewed(
    servers: embedded.Servers, new_drop: NewDrop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The renewing task is told to stop once; it must not go on because the client lost the word."""
    monkeypatch.setattr(reconcile, "LEASE_RENEW_S", 0.001)
    drop = await new_drop(allocation())
    node = await make_node(servers, make_gate=DeafGate)
    gate = node.gate
    assert isinstance(gate, DeafGate)
    gate.go.clear()
    rebuild = asyncio.create_task(node.arming.arm(drop.id, force=True))
    await gate.waiting.wait()
    await gate.asked.wait()
    monkeypatch.setattr(reconcile, "LEASE_RENEW_S", 3600.0)
    gate.go.set()
    done, _ = await asyncio.wait((rebuild,), timeout=30)
    assert done
    assert rebuild.result()
    await node.aclose()
