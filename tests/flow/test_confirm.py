"""Confirming: an order comes of a hold, once, or the hold ends another way, once."""

import asyncio
import random
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from typing import Any

from flashsale.domain import Claim, Confirmation, Drop, Event, Money, Payment, State
from flashsale.ids import new_ids
from flashsale.ledger import Confirmed, ListedOrder, OrderStore, Wish
from flashsale.ledger.pool import Pool
from flashsale.reservations import Held
from tests.flow.faults import at_rest
from tests.support import NewDrop, Node, allocation, claim, unique

PRICE = 169_900
FREE_NOW = "UPDATE reservations SET expires_at = clock_timestamp() - interval '1 ms' WHERE id = ANY ($1::uuid[])"


async def hold(node: Node, drop: Drop, member: int) -> str:
    """Press the button, and get one."""
    await node.catalog.get(drop.id)
    held = await node.reservations.reserve(drop.id, claim(member))
    assert isinstance(held, Held), held
    return held.grant.id


async def orders_of(node: Node, drop: Drop) -> list[ListedOrder]:
    return [o for o in await node.ledger.orders.page(None, None, None, 500) if o.drop == drop.id]


async def jobs_of(node: Node, orders: list[str]) -> int:
    sql = "SELECT count(*) FROM pgqueuer WHERE dedupe_key = ANY ($1)"
    return int(await node.ledger._pools[0].fetchval(sql, orders))


async def overdue(node: Node, *ids: str) -> None:
    """These holds' time is over by the ledger's clock."""
    await node.ledger._pools[0].execute(FREE_NOW, ids)


def paid(payment_id: str, amount: int = PRICE, currency: str = "CNY") -> Payment:
    return Payment(payment_id, amount, currency)


async def test_a_confirmed_hold_is_an_order_with_its_job(node: Node, new_drop: NewDrop) -> None:
    drop = await new_drop()
    held = await hold(node, drop, 1)
    found = await node.reservations.confirm(held, member=1)
    assert found.outcome is Confirmation.CONFIRMED
    assert found.reservation is not None
    [order] = await orders_of(node, drop)
    assert (order.id, order.event, order.reservation) == (found.reservation.order, Event.CONFIRMED, held)
    assert order.money == Money(PRICE, "CNY")
    assert await jobs_of(node, [order.id]) == 1
    again = await node.reservations.confirm(held, member=1)
    assert (again.outcome, again.reservation) == (Confirmation.AGAIN, found.reservation)
    assert await orders_of(node, drop) == [order]
    assert await jobs_of(node, [order.id]) == 1
    [balance] = await node.operations.balance(drop.id)
    assert (balance.held, balance.confirmed, balance.balanced) == (0, 1, True)


async def test_who_may_not_confirm(node: Node, new_drop: NewDrop) -> None:
    """Another member's hold, a cancelled one, one whose time is over: each says why, and nothing becomes of it."""
    drop = await new_drop()
    mine, cancelled, late = [await hold(node, drop, m) for m in (1, 2, 3)]
    found = await node.ledger.reservations.get(cancelled)
    assert found is not None
    await node.reservations.cancel(found)
    await overdue(node, late)
    asked = [(mine, 99), (cancelled, 2), (late, 3), (new_ids(1)[0], 1), (mine, 1)]
    answers = await asyncio.gather(*(node.reservations.confirm(i, member=m) for i, m in asked))
    assert [a.outcome for a in answers] == [
        Confirmation.NOT_FOUND,
        Confirmation.CONFLICT,
        Confirmation.EXPIRED,
        Confirmation.NOT_FOUND,
        Confirmation.CONFIRMED,
    ]
    assert len(await orders_of(node, drop)) == 1


async def test_a_stranger_in_the_same_batch_takes_nothing_from_the_owner(node: Node, new_drop: NewDrop) -> None:
    drop = await new_drop()
    held = await hold(node, drop, 1)
    wishes = [Wish(held, order, member, None) for order, member in zip(new_ids(4), (7, 1, 8, 1), strict=True)]
    assert [c.outcome for c in await node.ledger.orders.confirm(wishes)] == [
        Confirmation.NOT_FOUND,
        Confirmation.CONFIRMED,
        Confirmation.NOT_FOUND,
        Confirmation.AGAIN,
    ]


async def test_confirm_cancel_and_expiry_end_a_hold_once(node: Node, new_drop: NewDrop) -> None:
    """A thousand holds, all three at the same moment: each ends in one way, and the unit is where its state says."""
    count = 1_000
    drop = await new_drop(allocation(quantity=count))
    ids = await asyncio.gather(*(hold(node, drop, member) for member in range(1, count + 1)))
    dice = random.Random(7)
    await overdue(node, *dice.sample(ids, count // 2))
    told: dict[str, set[State]] = {i: set() for i in ids}

    async def confirm(number: int) -> None:
        found = await node.reservations.confirm(ids[number], member=number + 1)
        if found.outcome is Confirmation.CONFIRMED:
            told[ids[number]].add(State.CONFIRMED)

    async def cancel(number: int) -> None:
        found = await node.ledger.reservations.get(ids[number])
        assert found is not None
        ended = await node.reservations.cancel(found)
        if ended is not None:
            told[ids[number]].add(ended.state)

    async def expire(numbers: list[int]) -> None:
        for ended in await node.ledger.reservations.expire(drop.id, [ids[n] for n in numbers]):
            told[ended.id].add(ended.state)

    numbers = list(range(count))
    acts = [confirm(n) for n in numbers] + [cancel(n) for n in numbers]
    acts += [expire(numbers[at : at + 10]) for at in range(0, count, 10)]
    dice.shuffle(acts)

    async def one_after_the_other(mine: list[Coroutine[Any, Any, None]]) -> None:
        for act in mine:
            await act

    await asyncio.gather(*(one_after_the_other(acts[at::30]) for at in range(30)))
    await node.reservations.drain()
    await node.reconciler.run_once()

    assert {len(ends) for ends in told.values()} == {1}
    by_state = {
        s: sum(ends == {s} for ends in told.values()) for s in (State.CONFIRMED, State.CANCELLED, State.EXPIRED)
    }
    assert min(by_state.values()) > 0, f"no race: {by_state}"
    assert await at_rest(node, drop.id) == {"a": count - by_state[State.CONFIRMED]}
    sold = {
        o.reservation for o in await node.ledger.orders.page(None, Event.CONFIRMED, None, 5_000) if o.drop == drop.id
    }
    assert sold == {i for i, ends in told.items() if ends == {State.CONFIRMED}}


class Naive(OrderStore):
    """Confirms as a naive shop does: looks first, and writes later whatever has happened since."""

    def __init__(self, pool: Pool, reading: Pool) -> None:
        super().__init__(pool, reading)
        self.looked, self.go = asyncio.Event(), asyncio.Event()

    async def confirm(self, wishes: Sequence[Wish]) -> list[Confirmed]:
        [wish] = wishes
        look = "SELECT state FROM reservations WHERE id = $1"
        state = await self._pool.fetchval(look, wish.reservation)
        self.looked.set()
        await self.go.wait()
        write = (
            "UPDATE reservations SET state = 'confirmed', order_id = $2, ended_at = NULL, gate_released = NULL "
            "WHERE id = $1"
        )
        await self._pool.execute(write, wish.reservation, wish.order)
        return [Confirmed(Confirmation.CONFIRMED if state == "held" else Confirmation.EXPIRED, None, None)]


async def test_a_naive_confirm_sells_a_unit_that_has_gone_back(node: Node, new_drop: NewDrop) -> None:
    """The control: without the row's lock and the state in the condition, one hold ends twice."""
    drop = await new_drop()
    held = await hold(node, drop, 1)
    naive = Naive(*node.ledger._pools)
    confirming = asyncio.create_task(naive.confirm([Wish(held, new_ids(1)[0], 1, None)]))
    await naive.looked.wait()
    assert [r.id for r in await node.ledger.reservations.cancel(drop.id, [held])] == [held]
    naive.go.set()
    [told] = await confirming
    assert told.outcome is Confirmation.CONFIRMED
    [units] = await node.ledger.drops.balance(drop.id, [])
    assert (units.confirmed, units.taken) == (1, 0), "a confirmed unit that is for sale"
    await node.ledger._pools[0].execute("DELETE FROM reservations WHERE id = $1", held)


async def test_the_same_payment_twice_is_one(node: Node, new_drop: NewDrop) -> None:
    drop = await new_drop()
    held = await hold(node, drop, 1)
    payment = paid(unique("pay"))
    answers = await asyncio.gather(*(node.reservations.confirm(held, member=9, payment=payment) for _ in range(20)))
    assert sorted(a.outcome for a in answers) == [Confirmation.AGAIN] * 19 + [Confirmation.CONFIRMED]
    [order] = await orders_of(node, drop)
    assert (order.payment_id, order.event) == (payment.id, Event.CONFIRMED)


async def test_a_wrong_amount_is_refused_and_leaves_nothing(node: Node, new_drop: NewDrop) -> None:
    drop = await new_drop()
    held = await hold(node, drop, 1)
    pay = unique("pay")
    for wrong in (paid(pay, PRICE - 1), paid(pay, PRICE + 1), paid(pay, PRICE, "EUR")):
        found = await node.reservations.confirm(held, member=9, payment=wrong)
        assert (found.outcome, found.due) == (Confirmation.WRONG_AMOUNT, Money(PRICE, "CNY"))
    assert await orders_of(node, drop) == []
    assert (await node.reservations.confirm(held, member=9, payment=paid(pay))).outcome is Confirmation.CONFIRMED


async def test_all_units_of_a_reservation_are_paid_for(node: Node, new_drop: NewDrop) -> None:
    drop = await new_drop(per_member=3)
    await node.catalog.get(drop.id)
    held = await node.reservations.reserve(drop.id, Claim(1, None, 2, None, 0))
    assert isinstance(held, Held)
    one = await node.reservations.confirm(held.grant.id, member=9, payment=paid(unique("pay")))
    assert (one.outcome, one.due) == (Confirmation.WRONG_AMOUNT, Money(2 * PRICE, "CNY"))
    both = await node.reservations.confirm(held.grant.id, member=9, payment=paid(unique("pay"), 2 * PRICE))
    assert both.outcome is Confirmation.CONFIRMED


async def test_a_payment_for_an_ended_hold_must_go_back(node: Node, new_drop: NewDrop) -> None:
    """Expired, not yet expired by the worker, or cancelled: recorded, `payment.refund_due` leaves, once (I9)."""
    drop = await new_drop()
    late, later, cancelled = [await hold(node, drop, m) for m in (1, 2, 3)]
    await overdue(node, late, later)
    await node.ledger.reservations.expire(drop.id, [late])
    found = await node.ledger.reservations.get(cancelled)
    assert found is not None
    await node.reservations.cancel(found)
    payments = {i: paid(unique("pay"), 5) for i in (late, later, cancelled)}
    for _ in range(2):
        answers = [await node.reservations.confirm(i, member=9, payment=p) for i, p in payments.items()]
        assert {a.outcome for a in answers} == {Confirmation.EXPIRED}
    refunds = await orders_of(node, drop)
    assert {(o.event, o.reservation, o.payment_id, o.money.amount) for o in refunds} == {
        (Event.REFUND_DUE, i, p.id, 5) for i, p in payments.items()
    }
    assert await jobs_of(node, [o.id for o in refunds]) == 3


async def test_a_second_payment_must_go_back(node: Node, new_drop: NewDrop) -> None:
    drop = await new_drop()
    held = await hold(node, drop, 1)
    first, second = paid(unique("pay")), paid(unique("pay"))
    wishes = [Wish(held, o, 9, p) for o, p in zip(new_ids(2), (first, second), strict=True)]
    assert [c.outcome for c in await node.ledger.orders.confirm(wishes)] == [
        Confirmation.CONFIRMED,
        Confirmation.CONFLICT,
    ]
    assert {(o.event, o.payment_id) for o in await orders_of(node, drop)} == {
        (Event.CONFIRMED, first.id),
        (Event.REFUND_DUE, second.id),
    }


async def test_a_payment_pays_for_one_reservation(node: Node, new_drop: NewDrop) -> None:
    """In one call, one after the other, and in two transactions at once."""
    drop = await new_drop()
    a, b, c, d = [await hold(node, drop, m) for m in (1, 2, 3, 4)]
    shared = paid(unique("pay"))
    wishes = [Wish(i, o, 9, shared) for i, o in zip((a, b), new_ids(2), strict=True)]
    outcomes = {x.outcome for x in await node.ledger.orders.confirm(wishes)}
    assert outcomes == {Confirmation.CONFIRMED, Confirmation.PAYMENT_TAKEN}
    other = paid(unique("pay"))
    at_once = await asyncio.gather(
        *(node.ledger.orders.confirm([Wish(i, o, 9, other)]) for i, o in zip((c, d), new_ids(2), strict=True))
    )
    assert sorted(x.outcome for [x] in at_once) == [Confirmation.CONFIRMED, Confirmation.PAYMENT_TAKEN]
    changed = await node.reservations.confirm(a, member=9, payment=paid(shared.id, PRICE + 1))
    assert changed.outcome is Confirmation.PAYMENT_TAKEN


async def test_a_bad_payment_spoils_nothing_for_the_others(node: Node, new_drop: NewDrop) -> None:
    """In one call: a payment that pays for another hold already, then a good one for the same hold, and others."""
    drop = await new_drop()
    a, b, c, d = [await hold(node, drop, m) for m in (1, 2, 3, 4)]
    used, good, fresh, shared = (paid(unique("pay")) for _ in range(4))
    assert (await node.reservations.confirm(a, member=9, payment=used)).outcome is Confirmation.CONFIRMED
    asked = [(b, used), (b, good), (c, shared), (d, shared), (d, fresh)]
    wishes = [Wish(i, o, 9, p) for (i, p), o in zip(asked, new_ids(len(asked)), strict=True)]
    assert [x.outcome for x in await node.ledger.orders.confirm(wishes)] == [
        Confirmation.PAYMENT_TAKEN,
        Confirmation.CONFIRMED,
        Confirmation.CONFIRMED,
        Confirmation.PAYMENT_TAKEN,
        Confirmation.CONFIRMED,
    ]


async def test_confirming_what_ended_never_waits_in_a_circle(node: Node, new_drop: NewDrop) -> None:
    """Late shoppers and the outbox lock the same reservations: in one order, or each would wait for the other."""
    count, rounds = 200, 20
    drop = await new_drop(allocation(quantity=count))
    ids = await asyncio.gather(*(hold(node, drop, member) for member in range(count, 0, -1)))
    epoch = (await node.catalog.reload(drop.id) or drop).epoch
    await node.ledger.reservations.cancel(drop.id, ids)
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    pool = node.ledger._pools[0]
    await pool.fetchval("SELECT pg_stat_force_next_flush()")
    before = await pool.fetchval(deadlocks)
    for _ in range(rounds):
        await pool.execute("UPDATE reservations SET gate_released = false WHERE drop_id = $1", drop.id)
        wishes = [Wish(i, o, 1, None) for i, o in zip(reversed(ids), new_ids(count), strict=True)]
        await asyncio.gather(
            node.ledger.orders.confirm(wishes), node.ledger.reservations.mark_released(drop.id, ids, epoch)
        )
    await pool.fetchval("SELECT pg_stat_force_next_flush()")
    assert await pool.fetchval(deadlocks) == before


async def test_a_lost_answer_is_repeated_without_a_second_order(node: Node, new_drop: NewDrop) -> None:
    """The same wishes again, as after a lost reply: the order is the one that was written."""
    drop = await new_drop()
    ids = [await hold(node, drop, m) for m in (1, 2)]
    wishes = [Wish(i, o, m, None) for i, o, m in zip(ids, new_ids(2), (1, 2), strict=True)]
    first, second = await node.ledger.orders.confirm(wishes), await node.ledger.orders.confirm(wishes)
    assert [c.outcome for c in second] == [Confirmation.AGAIN] * 2
    assert [c.reservation for c in second] == [c.reservation for c in first]
    assert len(await orders_of(node, drop)) == 2


async def test_a_hold_close_to_its_end_wins_or_loses(node: Node, new_drop: NewDrop) -> None:
    """Confirmed while the clock runs out under it: an order, or expired with its unit back; nothing in between."""
    count = 100
    drop = await new_drop(allocation(quantity=count), hold_seconds=1)
    ids = await asyncio.gather(*(hold(node, drop, member) for member in range(1, count + 1)))
    move = "UPDATE reservations SET expires_at = clock_timestamp() + $2 * interval '1 ms' WHERE id = $1"
    for at, i in enumerate(ids):
        await node.ledger._pools[0].execute(move, i, float(at))
    found = await asyncio.gather(*(node.ledger.orders.confirm([Wish(i, o, m, None)]) for i, o, m in zip(
        ids, new_ids(count), range(1, count + 1), strict=True
    )))  # fmt: skip
    won = {c.reservation.id for [c] in found if c.outcome is Confirmation.CONFIRMED and c.reservation}
    assert {c.outcome for [c] in found} <= {Confirmation.CONFIRMED, Confirmation.EXPIRED}

    async def all_ended() -> bool:
        await node.reconciler.run_once()
        return (await node.operations.balance(drop.id))[0].held == 0

    async with asyncio.timeout(timedelta(seconds=30).total_seconds()):
        while not await all_ended():
            await asyncio.sleep(0.02)
    assert await at_rest(node, drop.id) == {"a": count - len(won)}
