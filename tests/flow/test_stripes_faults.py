"""What a striped drop loses comes back: claims without their units, units without their claims, a stripe's memory."""

from collections.abc import AsyncIterator

import msgspec
import pytest
from redis.asyncio import Redis

from flashsale import embedded, reconcile
from flashsale.domain import Confirmation, Drop, Grant, Refusal, State, Verdict
from flashsale.errors import Unavailable
from flashsale.gate import Decisions, Fetched, Taken, Unarmed, keys, whole
from flashsale.ledger import ArmState, Committed
from flashsale.reservations import Held, Known
from tests.flow.faults import at_rest, id_of, press
from tests.flow.striped import PROCESSES, STRIPES, UNITS, rush, units
from tests.ledger.support import new_database
from tests.support import NewDrop, Node, allocation, claim, make_node, members_at, until


@pytest.fixture(scope="module")
async def servers(urls: embedded.Servers) -> AsyncIterator[embedded.Servers]:
    """The session's servers, with a database of this module's own: a round looks after these drops only."""
    async with new_database(urls.database_url) as url:
        yield embedded.Servers(urls.redis_url, url, urls.supervisor)


@pytest.fixture(scope="module")
async def nodes(servers: embedded.Servers) -> AsyncIterator[list[Node]]:
    """Three processes."""
    made = [await make_node(servers) for _ in range(PROCESSES)]
    yield made
    for each in made:
        await each.aclose()


@pytest.fixture
def node(nodes: list[Node]) -> Node:
    """The first of them."""
    return nodes[0]


@pytest.fixture
async def redis(servers: embedded.Servers) -> AsyncIterator["Redis"]:
    """A hand at the gate's own prompt."""
    client: Redis = Redis.from_url(servers.redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def at_once(monkeypatch: pytest.MonkeyPatch, node: Node) -> None:
    """The janitor takes a grant for orphaned at once, and not after three seconds; nothing is left of other tests."""
    monkeypatch.setattr(reconcile, "PENDING_MAX_MS", 0)
    await node.reconciler.run_once()


async def walked(node: Node, drop: Drop, home: int) -> Held:
    """A reservation of a member there whose unit is from elsewhere."""
    [member] = members_at(home, drop.stripes, 1)
    held = await press(node, drop.id, claim(member, key="k"))
    assert isinstance(held, Held)
    assert held.grant.unit not in {None, home}
    return held


async def test_a_claim_whose_process_died_goes_back_to_nobody(node: Node, new_drop: NewDrop, at_once: None) -> None:
    """It stands at home without a unit; the member is asked to repeat until the janitor has voided it."""
    drop = await new_drop(allocation(quantity=1), stripes=STRIPES)
    [member] = members_at(1, STRIPES, 1)
    decided = await node.gate.decide(drop, 0, [claim(member)], stripe=1, elsewhere={"a": (1, 1)})
    assert isinstance(decided, Decisions)
    [left] = decided.results
    assert isinstance(left, Grant)
    assert left.walking
    with pytest.raises(Unavailable):
        await node.reservations.reserve(drop.id, claim(member))
    assert (await node.reconciler.run_once()).voided == 1
    assert isinstance(await press(node, drop.id, claim(member)), Held)
    assert await at_rest(node, drop.id) == {"a": 0}


@pytest.mark.parametrize("dies", ["before the commit", "after the commit"])
async def test_a_unit_that_was_fetched_finds_its_way(node: Node, new_drop: NewDrop, at_once: None, dies: str) -> None:
    """The process died after the fetch: claim and unit go back under one id, or both are settled."""
    drop = await new_drop(allocation(quantity=1), stripes=STRIPES)
    [member] = members_at(1, STRIPES, 1)
    decided = await node.gate.decide(drop, 0, [claim(member)], stripe=1, elsewhere={"a": (1, 1)})
    assert isinstance(decided, Decisions)
    [left] = decided.results
    assert isinstance(left, Grant)
    taken = await node.gate.take(drop.id, 0, [left], stripe=0)
    assert isinstance(taken, Taken)
    assert taken.results == [Fetched.TOOK]
    if dies == "after the commit":
        grant = msgspec.structs.replace(left, unit=0)
        await node.ledger.reservations.commit(drop.id, [grant])
    report = await node.reconciler.run_once()
    if dies == "after the commit":
        assert (report.settled, report.voided) == (2, 0)
        assert isinstance(await press(node, drop.id, claim(member)), Known)
    else:
        assert (report.settled, report.voided) == (0, 2)
        assert await units(node, drop) == [1, 0, 0, 0]
        assert isinstance(await press(node, drop.id, claim(member)), Held)
    assert await at_rest(node, drop.id) == {"a": 0}


async def test_what_was_fetched_twice_goes_back_where_it_is_not_counted(
    node: Node, new_drop: NewDrop, at_once: None
) -> None:
    """An answer was lost, another stripe gave a unit, too, and the row names that one: the first is a surplus."""
    drop = await new_drop(allocation(quantity=3), stripes=STRIPES)
    [member] = members_at(3, STRIPES, 1)
    decided = await node.gate.decide(drop, 0, [claim(member)], stripe=3, elsewhere={"a": (3, 1)})
    assert isinstance(decided, Decisions)
    [left] = decided.results
    assert isinstance(left, Grant)
    for stripe in (0, 1):
        taken = await node.gate.take(drop.id, 0, [left], stripe=stripe)
        assert isinstance(taken, Taken)
        assert taken.results == [Fetched.TOOK]
    grant = msgspec.structs.replace(left, unit=1)
    await node.ledger.reservations.commit(drop.id, [grant])
    report = await node.reconciler.run_once()
    assert (report.settled, report.voided) == (2, 1)
    assert await units(node, drop) == [1, 0, 1, 0]
    assert await at_rest(node, drop.id) == {"a": 2}


ENDS: dict[str, State] = {"cancelled": State.CANCELLED, "expired": State.EXPIRED, "returned": State.RETURNED}


@pytest.mark.parametrize("rebuilt", [False, True])
@pytest.mark.parametrize("end", ENDS)
async def test_a_unit_goes_back_to_its_stripe_and_the_claim_from_home(
    node: Node, new_drop: NewDrop, end: str, rebuilt: bool
) -> None:
    """However it ends; also when the gate was rebuilt meanwhile from the two stripes that the row names."""
    drop = await new_drop(allocation(quantity=1), stripes=STRIPES, hold_seconds=1 if end == "expired" else 900)
    held = await walked(node, drop, 2)
    if rebuilt:
        assert await node.arming.arm(drop.id, force=True)
        assert await units(node, drop) == [0, 0, 0, 0]
        again = await press(node, drop.id, claim(held.grant.member, key="k"))
        assert isinstance(again, Known)
    stored = await node.ledger.reservations.get(held.grant.id)
    assert stored is not None
    assert (stored.home, stored.unit) == (2, 0)
    match end:
        case "cancelled":
            await node.reservations.cancel(stored)
            await node.reservations.drain()
        case "returned":
            confirmed = await node.reservations.confirm(stored.id, member=stored.member)
            assert confirmed.outcome is Confirmation.CONFIRMED
            await node.operations.take_back(stored.id, restock=True, to=None, reason="", actor="member:1")
        case _:

            async def expired() -> bool:
                await node.reconciler.run_once()
                return await units(node, drop) == [1, 0, 0, 0]

            await until(expired, "the hold has expired")
    assert await units(node, drop) == [1, 0, 0, 0]
    refused = await press(node, drop.id, claim(held.grant.member))
    if end == "returned":  # the unit is another's now; its place under the limit is kept, at home alone
        assert refused == Refusal(Verdict.MEMBER_LIMIT)
    else:
        assert isinstance(refused, Held)
    await at_rest(node, drop.id)


@pytest.mark.parametrize("lost", ["meta", "ent", "pend", "codes"])
async def test_a_stripe_that_forgets_takes_nothing_with_it(
    nodes: list[Node], new_drop: NewDrop, redis: "Redis", lost: str
) -> None:
    """In the midst of a sale one stripe loses a key: a new epoch, all stripes made anew, and sold to the last unit."""
    drop = await new_drop(allocation(quantity=UNITS), stripes=STRIPES)
    half = [claim(member) for member in range(1, UNITS // 2 + 1)]
    assert await rush(nodes, drop, half) == {"Held": UNITS // 2}
    assert await redis.delete(getattr(keys.stripe(drop.id, 2), lost)) == 1
    heard = await rush(nodes, drop, [*half, *(claim(member) for member in range(1_000, 1_000 + UNITS))])
    assert heard == {"Known": UNITS // 2, "Held": UNITS // 2, "sold_out": UNITS // 2}
    now = await nodes[0].catalog.reload(drop.id)
    assert now is not None
    assert now.epoch > drop.epoch
    status = await whole.status(nodes[0].gate, now, now.epoch)
    assert not isinstance(status, Unarmed)
    assert await at_rest(nodes[0], drop.id) == {"a": 0}


async def half_armed(node: Node, drop: Drop, armed: int) -> tuple[ArmState, int]:
    """A rebuild that has armed one stripe and not the others yet: what it read, and its epoch."""
    epoch = await node.ledger.drops.bump(drop.id)
    assert epoch is not None
    async with node.ledger.drops.read_for_arming(drop.id, epoch) as found:
        assert found is not None
        state, parts = found
        fields = [part async for stripe, part in parts if stripe == armed]
    assert await node.gate.arm_begin(drop.id, epoch, stripe=armed) == "ok"
    for part in fields:
        assert await node.gate.arm_chunk(drop.id, epoch, part, stripe=armed)
    members = sum(len(part) // 2 for part in fields)
    free = state.free_at(armed)
    assert await node.gate.arm_finish(state.drop, members, free, ttl_ms=60_000, stripe=armed) == "ok"
    return state, epoch


async def test_stripes_of_two_epochs_are_no_gate(node: Node, new_drop: NewDrop) -> None:
    """Home is dry in the old epoch, the other stripe in the new one; but the unit is free, and will be home's."""
    drop = await new_drop(allocation(quantity=1), stripes=2)
    first, second = members_at(0, 2, 2)
    held = id_of(await press(node, drop.id, claim(first)))
    await node.ledger.reservations.cancel(drop.id, [held])  # and the gate did not hear of it
    state, _ = await half_armed(node, drop, 1)
    assert (state.free_at(0), state.free_at(1)) == ({"a": 1}, {"a": 0})
    assert await units(node, drop) == [0, 0]
    assert isinstance(await whole.status(node.gate, drop, 0), Unarmed)
    assert isinstance(await press(node, drop.id, claim(second)), Held)
    await node.reconciler.run_once()
    assert await at_rest(node, drop.id) == {"a": 0}


@pytest.mark.parametrize("compared", [True, False])
async def test_a_stripe_gives_nothing_to_a_claim_of_another_epoch(
    node: Node, new_drop: NewDrop, compared: bool
) -> None:
    """Home has been armed anew, the other stripe is about to be, from what was read before.

    Were the epochs not compared, its unit would be taken from the old gate, committed under the new epoch, and for sale
    once more when that stripe is armed.
    """
    drop = await new_drop(allocation(quantity=1), stripes=2)
    [member] = members_at(1, 2, 1)
    state, epoch = await half_armed(node, drop, 1)
    decided = await node.gate.decide(drop, 0, [claim(member)], stripe=1, elsewhere={"a": (1, 1)})
    assert isinstance(decided, Decisions)
    [grant] = decided.results
    assert isinstance(grant, Grant)
    asked = grant if compared else msgspec.structs.replace(grant, epoch=drop.epoch)
    taken = await node.gate.take(drop.id, 0, [asked], stripe=0)
    assert isinstance(taken, Taken)
    assert taken.results == [Fetched.STALE if compared else Fetched.TOOK]
    if not compared:
        [committed] = await node.ledger.reservations.commit(drop.id, [msgspec.structs.replace(grant, unit=0)])
        assert isinstance(committed, Committed)
    assert await node.gate.arm_begin(drop.id, epoch, stripe=0) == "ok"
    assert await node.gate.arm_finish(state.drop, 0, state.free_at(0), ttl_ms=60_000, stripe=0) == "ok"
    found = await whole.status(node.gate, state.drop, epoch)
    assert not isinstance(found, Unarmed)
    taken_in_ledger = await node.ledger.drops.taken([drop.id])
    assert found.available["a"] + taken_in_ledger[drop.id, "a"] == (1 if compared else 2)
    await node.arming.arm(drop.id, force=True)
    await at_rest(node, drop.id)
