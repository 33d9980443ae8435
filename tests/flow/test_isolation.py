"""What goes wrong in one place stays there: one drop, one listener, one crowd of readers, one restored ledger."""

import asyncio
import random
import time
from datetime import timedelta

import asyncpg
import msgspec
import pytest

from flashsale import embedded, lanes
from flashsale.catalog import Catalog
from flashsale.domain import Points, Refusal, State, Verdict
from flashsale.gate import Gate
from flashsale.ids import new_ids
from flashsale.ledger import PointsStore
from flashsale.points import import_points
from flashsale.reservations import Held, Reservations
from tests.support import NewDrop, Node, allocation, claim, make_node, unique, until


async def test_a_drop_whose_row_is_locked_does_not_stop_the_repairs_of_others(
    node: Node, new_drop: NewDrop, urls: embedded.Servers
) -> None:
    stuck, other = await new_drop(hold_seconds=1), await new_drop(hold_seconds=1)
    for drop in (stuck, other):
        assert isinstance(await node.reservations.reserve(drop.id, claim(1)), Held)
    outsider = await asyncpg.connect(urls.database_url)
    transaction = outsider.transaction()
    await transaction.start()
    await outsider.execute("SELECT 1 FROM drops WHERE id = $1 FOR UPDATE", stuck.id)
    repairs = asyncio.create_task(node.reconciler.run())

    async def expired() -> bool:
        found = await node.ledger.reservations.list_of(1, None, 500)
        return [r.state for r in found if r.drop == other.id] == [State.EXPIRED]

    await until(expired, "the other drop's hold has expired while the first drop is locked")
    repairs.cancel()
    await asyncio.gather(repairs, return_exceptions=True)
    await transaction.rollback()
    await outsider.close()


async def test_a_listener_that_fails_takes_no_answer_from_anybody(node: Node, new_drop: NewDrop) -> None:
    """A broken log stream, for instance."""
    drop = await new_drop()
    told: list[str] = []

    def broken(*_: object) -> None:
        told.append("told")
        raise BrokenPipeError

    async def arm(drop_id: str, force: bool) -> None:
        await node.arming.arm(drop_id, force)

    reservations = Reservations(
        gate=node.gate,
        ledger=node.ledger.reservations,
        orders=node.ledger.orders,
        catalog=node.catalog,
        arm=arm,
        new_ids=new_ids,
        now=time.monotonic,
        jitter=random.random,
        on_decided=broken,
        on_committed=broken,
    )
    loop, faults = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))
    try:
        assert isinstance(await reservations.reserve(drop.id, claim(1)), Held)

        async def both() -> bool:
            return len(told) == 2

        await until(both, "both listeners were told")
    finally:
        loop.set_exception_handler(None)
    assert [type(f) for f in faults] == [BrokenPipeError] * 2


async def test_a_ledger_that_lost_an_epoch_this_process_has_seen_gets_a_new_one(node: Node, new_drop: NewDrop) -> None:
    """After a restore, gate and ledger may agree on an epoch that processes know to be over."""
    drop = await new_drop()
    assert isinstance(await node.reservations.reserve(drop.id, claim(1)), Held)
    current = await node.catalog.reload(drop.id)
    assert current is not None
    node.catalog.raise_epoch(drop.id, current.epoch + 5)
    assert isinstance(await node.reservations.reserve(drop.id, claim(2)), Held)


async def test_an_opening_is_never_early_and_a_closing_never_late(node: Node, new_drop: NewDrop) -> None:
    made = allocation(opens_in_s=3600)
    odd = msgspec.structs.replace(
        made,
        opens_at=made.opens_at.replace(microsecond=1),
        closes_at=(made.closes_at + timedelta(hours=2)).replace(microsecond=999_999),
    )
    drop = await new_drop(odd)
    refused = await node.reservations.reserve(drop.id, claim(1))
    assert isinstance(refused, Refusal)
    assert refused.verdict is Verdict.NOT_OPEN
    assert refused.opens_at_ms == int(odd.opens_at.replace(microsecond=0).timestamp() * 1000) + 1


async def test_who_waits_for_longer_than_allowed_is_told_so(
    node: Node, new_drop: NewDrop, monkeypatch: pytest.MonkeyPatch, urls: embedded.Servers
) -> None:
    """A gate that stalls costs one time-out, not one after the other for all who queue behind."""
    monkeypatch.setattr(lanes, "WAIT_SHARE", 0.0)
    drop = await new_drop()
    own = await make_node(urls)
    await own.catalog.get(drop.id)
    answers = await asyncio.gather(
        *(own.reservations.reserve(drop.id, claim(m)) for m in range(1, 601)), return_exceptions=True
    )
    await own.aclose()
    assert {type(a).__name__ for a in answers} == {"Overloaded"}


async def test_a_list_of_eligible_members_made_for_another_ledger_is_not_used(node: Node, new_drop: NewDrop) -> None:
    """The same names over a restored ledger must not find what the gate still keeps of before."""
    snapshot = unique("snapshot")

    async def rows() -> object:
        yield b"member_id,points\n7,100\n"

    store: PointsStore = node.ledger.points
    cutoff = allocation().opens_at
    await import_points(store, rows(), snapshot=snapshot, cutoff=cutoff, actor="member:1")  # type: ignore[arg-type]
    drop = await new_drop(allocation(access=Points(snapshot, 100)))
    (name,) = {a.eligible_set for a in (await Catalog(node.ledger.drops).get(drop.id)).allocations}  # type: ignore[union-attr]
    gate: Gate = node.gate
    assert name is not None
    assert await gate.has_eligible(drop.id, name)
    assert not await gate.has_eligible(drop.id, f"{snapshot}:100"), "a name that two ledgers could share"
    assert isinstance(await node.reservations.reserve(drop.id, claim(7)), Held)
    assert await node.reservations.reserve(drop.id, claim(8)) == Refusal(Verdict.NOT_ELIGIBLE)
