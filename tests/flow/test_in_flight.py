"""What is under way when the ledger moves on: grants of an older epoch come to nothing, and no unit is lost by it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from flashsale import embedded
from flashsale.domain import Refusal, State, Verdict
from flashsale.drops import AllocationChange
from flashsale.errors import Refused
from flashsale.gate import Unarmed, keys
from flashsale.ledger import Standing
from flashsale.reservations import Held
from tests.flow.faults import HeldBack, SlowGate, at_rest, id_of, press
from tests.support import NewDrop, Node, allocation, claim, make_node, until


@pytest.fixture
async def other(urls: embedded.Servers) -> AsyncIterator[Node]:
    """Another process."""
    made = await make_node(urls)
    yield made
    await made.aclose()


@pytest.fixture
async def redis(urls: embedded.Servers) -> AsyncIterator["Redis"]:
    """A hand at the gate's own prompt."""
    client: Redis = Redis.from_url(urls.redis_url)
    yield client
    await client.aclose()


async def test_grants_in_flight_during_a_rebuild_are_granted_anew(
    urls: embedded.Servers, node: Node, new_drop: NewDrop
) -> None:
    """Their commits are stale, the new gate knows nothing of them; every shopper gets one unit, under another id."""
    drop = await new_drop(allocation(quantity=20))
    slow = await make_node(urls, make_store=HeldBack)
    store = slow.ledger.reservations
    assert isinstance(store, HeldBack)
    await slow.catalog.get(drop.id)
    presses = [asyncio.create_task(slow.reservations.reserve(drop.id, claim(m))) for m in range(1, 21)]
    await store.waiting.wait()
    assert await node.arming.arm(drop.id, force=True)
    old = {grant.id for grant in store.grants}
    store.go.set()
    answers = await asyncio.gather(*presses)
    assert all(isinstance(answer, Held) for answer in answers)
    assert old
    assert old.isdisjoint({id_of(answer) for answer in answers})
    assert await at_rest(node, drop.id) == {"a": 0}
    await slow.aclose()


async def test_a_commit_that_finds_its_tombstone_asks_the_gate_anew(
    urls: embedded.Servers, node: Node, new_drop: NewDrop
) -> None:
    """The janitor took it for lost, and died before it told the gate: the shopper gets the unit all the same."""
    drop = await new_drop(allocation(quantity=1))
    slow = await make_node(urls, make_store=HeldBack)
    store = slow.ledger.reservations
    assert isinstance(store, HeldBack)
    await slow.catalog.get(drop.id)
    shopper = asyncio.create_task(slow.reservations.reserve(drop.id, claim(1)))
    await store.waiting.wait()
    (late,) = list(store.grants)
    assert await node.ledger.reservations.void(drop.id, [late]) == [Standing(late.id, 1, State.VOID)]
    store.go.set()
    answer = await shopper
    assert isinstance(answer, Held)
    assert answer.grant.id != late.id
    assert await at_rest(node, drop.id) == {"a": 0}
    await slow.aclose()


async def test_after_pause_nothing_is_committed_until_resume(
    urls: embedded.Servers, node: Node, new_drop: NewDrop
) -> None:
    """Grants that were in flight when `pause` returned come to nothing; `resume` loses none of their units (I14)."""
    drop = await new_drop(allocation(quantity=10))
    early = id_of(await press(node, drop.id, claim(1)))
    slow = await make_node(urls, make_store=HeldBack)
    store = slow.ledger.reservations
    assert isinstance(store, HeldBack)
    await slow.catalog.get(drop.id)
    presses = [asyncio.create_task(slow.reservations.reserve(drop.id, claim(m))) for m in range(2, 8)]
    await store.waiting.wait()
    paused = await node.operations.switch(drop.id, "pause", actor="ops:1")
    assert paused.paused
    store.go.set()
    assert await asyncio.gather(*presses) == [Refusal(Verdict.PAUSED)] * 6
    assert [await press(n, drop.id, claim(8)) for n in (node, slow)] == [Refusal(Verdict.PAUSED)] * 2
    assert id_of(await press(slow, drop.id, claim(1))) == early
    assert await node.ledger.drops.taken([drop.id]) == {(drop.id, "a"): 1}
    assert await at_rest(node, drop.id) == {"a": 9}
    await node.operations.switch(drop.id, "resume", actor="ops:1")
    answers = await asyncio.gather(*(press(slow, drop.id, claim(m)) for m in range(1, 12)))
    assert [type(a).__name__ for a in answers] == ["Known"] + ["Held"] * 9 + ["Refusal"]
    assert await at_rest(node, drop.id) == {"a": 0}
    await slow.aclose()


async def test_an_act_is_in_the_gate_when_it_returns_also_beside_a_rebuild(
    urls: embedded.Servers, new_drop: NewDrop
) -> None:
    """The rebuild under way has read the ledger before the act: sharing it is not enough."""
    drop = await new_drop(allocation(quantity=1))
    node = await make_node(urls, make_gate=SlowGate)
    gate = node.gate
    assert isinstance(gate, SlowGate)
    assert not await node.arming.arm(drop.id)
    gate.go.clear()
    bumped = await node.ledger.drops.bump(drop.id)
    rebuild = asyncio.create_task(node.arming.arm(drop.id))
    await gate.waiting.wait()
    act = asyncio.create_task(node.operations.switch(drop.id, "pause", actor="ops:1"))

    async def committed() -> bool:
        now = await node.ledger.drops.get(drop.id)
        return now is not None and now.paused

    await until(committed, "the act is in the ledger")
    gate.go.set()
    done = await act
    assert bumped is not None
    assert done.epoch > bumped
    status = await gate.status(done, done.epoch)
    assert not isinstance(status, Unarmed)
    assert await press(node, drop.id, claim(1)) == Refusal(Verdict.PAUSED)
    assert await rebuild
    await node.aclose()


async def test_a_gate_that_grants_too_much_is_put_right(node: Node, new_drop: NewDrop, redis: "Redis") -> None:
    """It offers units that are sold and has forgotten who holds one: the second lock refuses, the gate is rebuilt.

    The shoppers hear what is true.
    """
    drop = await new_drop(allocation(quantity=3))
    first = id_of(await press(node, drop.id, claim(1)))
    await press(node, drop.id, claim(2))
    stripe = keys.stripe(drop.id)
    await redis.hset(stripe.meta, "n:a", 4)
    await redis.hdel(stripe.ent, "1")
    assert id_of(await press(node, drop.id, claim(1))) == first
    await redis.hset(stripe.meta, "n:a", 4)
    answers = await asyncio.gather(*(press(node, drop.id, claim(m)) for m in range(3, 9)))
    assert sum(isinstance(a, Held) for a in answers) == 1
    assert answers.count(Refusal(Verdict.SOLD_OUT)) == 5
    assert await at_rest(node, drop.id) == {"a": 0}


async def test_resizing_a_running_drop(node: Node, other: Node, new_drop: NewDrop) -> None:
    """Sixty shoppers over two processes while it grows and shrinks: it sells exactly what it has in the end."""
    drop = await new_drop(allocation(quantity=10))
    presses = [asyncio.create_task(press((node, other)[m % 2], drop.id, claim(m))) for m in range(1, 61)]
    for quantity in (25, 20, 40):
        with contextlib.suppress(Refused):  # sold beyond it already
            await node.operations.change_allocation(drop.id, "a", AllocationChange(quantity=quantity), actor="ops:1")
    await asyncio.gather(*presses)
    again = await asyncio.gather(*(press(other, drop.id, claim(m)) for m in range(1, 61)))
    assert sum(not isinstance(answer, Refusal) for answer in again) == 40
    assert await at_rest(node, drop.id) == {"a": 0}
    with pytest.raises(Refused, match="40 units are taken already") as caught:
        await node.operations.change_allocation(drop.id, "a", AllocationChange(quantity=39), actor="ops:1")
    assert (caught.value.code, caught.value.extra) == ("conflict", {"taken": 40})
    kept = next(answer for answer in again if not isinstance(answer, Refusal))
    stored = await node.ledger.reservations.get(id_of(kept))
    assert stored is not None
    await node.reservations.cancel(stored)
    await node.reservations.drain()
    await node.operations.change_allocation(drop.id, "a", AllocationChange(quantity=39), actor="ops:1")
    assert await press(other, drop.id, claim(100)) == Refusal(Verdict.SOLD_OUT)
    assert await at_rest(node, drop.id) == {"a": 0}
