"""Orders in the ledger: confirming, returning, and what the worker needs to deliver them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from flashsale.domain import Confirmation, Event, Money, Order, OrderState, Payment, Reservation
from flashsale.ledger.pool import Pool
from flashsale.ledger.queue import enqueue
from flashsale.ledger.rows import Row, order_of, reservation_of
from flashsale.ledger.statements import sql

LOST_AFTER_S: Final = 60
"""An order's job is written with it and taken away after it: without one for this long, an order has lost it."""


class Wish(msgspec.Struct, frozen=True):
    """That a hold be confirmed: by its member, or, whoever's it is, by a payment. `order` is the id it shall have."""

    reservation: str
    order: str
    member: int
    payment: Payment | None


class Confirmed(msgspec.Struct, frozen=True):
    """What came of a wish; the reservation as it stands, and with WRONG_AMOUNT what should have been paid."""

    outcome: Confirmation
    reservation: Reservation | None
    due: Money | None


class Returned(msgspec.Struct, frozen=True):
    """What came of a return. `bumped`: it changed the drop's epoch.

    `outcome`: returned, again (it was before), not_found, conflict, no_allocation.
    """

    outcome: str
    bumped: bool
    reservation: Reservation | None


class Tried(msgspec.Struct, frozen=True):
    """One try to deliver an order: what became of it, and why when it was not delivered."""

    order: str
    state: OrderState
    reason: str | None


class ListedOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order as an operator sees it; `due_at` is when the next try is."""

    id: str
    event: Event
    state: OrderState
    created_at: datetime
    settled_at: datetime | None
    due_at: datetime | None
    tries: int
    reason: str | None
    money: Money
    payment_id: str | None
    reservation: str
    drop: str
    allocation: str
    member: int
    quantity: int


class Health(msgspec.Struct, frozen=True):
    """How the queue is. `oldest_s`: for how long the oldest order has been waiting, seconds."""

    waiting: int
    oldest_s: float
    tries_max: int
    dead: int
    disabled: bool


class OrderStore:
    """All orders. What people look at is read through `reading`."""

    def __init__(self, pool: Pool, reading: Pool) -> None:
        self._pool = pool
        self._reading = reading

    async def confirm(self, wishes: Sequence[Wish]) -> list[Confirmed]:
        """Confirm holds in one transaction with their orders and jobs; one outcome each. Durable when this returns.

        After `LedgerUnavailable` the outcome is unknown: call again; what was confirmed is AGAIN then, once.
        """
        paid = [w.payment for w in wishes]
        columns = (
            [w.reservation for w in wishes],
            [w.order for w in wishes],
            [w.member for w in wishes],
            [None if p is None else p.id for p in paid],
            [None if p is None else p.amount for p in paid],
            [None if p is None else p.currency for p in paid],
        )
        async with self._pool.transaction() as connection:
            rows = await connection.fetch(sql("confirm"), *columns)
            queued = [str(row["queued"]) for row in rows if row["queued"] is not None]
            if queued:
                await enqueue(connection, queued)
        return [_confirmed_of(row) for row in rows]

    async def take_back(
        self, reservation: str, order: str, *, restock: bool, to: str | None, reason: str, actor: str
    ) -> Returned:
        """Mark a confirmed reservation returned: unit, `order.returned` with its job, and audit line together.

        The unit goes back to its allocation, or to allocation `to`, or (not `restock`) leaves the sale.
        """
        detail = msgspec.json.encode({"reason": reason, "restock": restock, "to": to}).decode()
        async with self._pool.transaction() as connection:
            row = await connection.fetchrow(sql("return_reservation"), reservation, order, restock, to, detail)
            found = None if row["id"] is None else reservation_of(row)
            if row["outcome"] == "returned":
                assert found is not None
                await enqueue(connection, [order])
                said = msgspec.json.encode(
                    {"reservation": found.id, "reason": reason, "restock": restock, "to": to or found.allocation}
                ).decode()
                subject = f"{found.drop}/{found.allocation}"
                await connection.execute(sql("audit_insert"), actor, "reservation.return", subject, said)
        return Returned(row["outcome"], row["bumped"], found)

    async def load(self, orders: Sequence[str]) -> dict[str, Order]:
        """What these orders say, by id."""
        rows = await self._pool.fetch(sql("order_load"), orders)
        return {found.id: found for found in map(order_of, rows)}

    async def settle(self, tried: Sequence[Tried]) -> None:
        """Write down what came of tries."""
        await self._pool.execute(
            sql("order_settle"), [t.order for t in tried], [t.state.value for t in tried], [t.reason for t in tried]
        )
        again = [t.order for t in tried if t.state is OrderState.QUEUED]
        if again:
            await self._pool.execute(sql("order_stand_back"), again)

    async def page(
        self, state: OrderState | None, event: Event | None, before: str | None, limit: int
    ) -> list[ListedOrder]:
        """Orders, newest first."""
        rows = await self._reading.fetch(
            sql("order_list"),
            None if state is None else state.value,
            None if event is None else event.value,
            before,
            limit,
        )
        return [listed_of(row) for row in rows]

    async def health(self, url: str | None = None) -> Health:
        """How the queue is, just now, and whether the endpoint at `url` is disabled."""
        row = await self._reading.fetchrow(sql("order_health"), url)
        return Health(row["waiting"], row["oldest_s"], row["tries_max"], row["dead"], row["disabled"])

    async def replay(self, order: str, *, actor: str) -> OrderState | None:
        """Deliver an order (again), now, under its id; the state it was in, or None when there is none.

        One that is waiting for its next try has it at once. An endpoint that was disabled is tried again.
        """
        async with self._pool.transaction() as connection:
            row = await connection.fetchrow(sql("order_lock"), order)
            if row is None:
                return None
            was = OrderState(row["state"])
            if was is not OrderState.QUEUED:
                await connection.execute(sql("order_requeue"), order)
                await connection.execute(sql("order_forget_job"), order)
            await enqueue(connection, [order])
            await connection.execute(sql("order_hurry"), order)
            await connection.execute(sql("endpoint_enable"))
            detail = msgspec.json.encode({"was": was}).decode()
            await connection.execute(sql("audit_insert"), actor, "order.replay", order, detail)
        return was

    async def requeue_lost(self, after: str | None, limit: int) -> tuple[list[str], str | None]:
        """Give a new job to each order that waits without one, among the next `limit` after that one.

        Returns which, and where to go on: None when all have been looked at.
        """
        async with self._pool.transaction() as connection:
            rows = await connection.fetch(sql("orders_lost"), after, limit, LOST_AFTER_S)
            lost = [str(row["id"]) for row in rows if row["lost"]]
            if lost:
                await enqueue(connection, lost)
        return lost, str(rows[-1]["id"]) if len(rows) == limit else None

    async def prune_log(self, older_than_s: float, limit: int) -> int:
        """Forget what happened to jobs longer ago than that, at most `limit` lines; returns how many. Orders stay."""
        done = await self._pool.execute(sql("queue_log_prune"), older_than_s, limit)
        return int(done.rpartition(" ")[2])

    async def disabled(self, url: str) -> bool:
        """Whether this endpoint of the shop said that it is gone."""
        return bool(await self._pool.fetchval(sql("endpoint_disabled"), url))

    async def disable(self, url: str) -> None:
        """This endpoint of the shop said that it is gone: nobody sends there until an order is replayed."""
        await self._pool.execute(sql("endpoint_disable"), url)


def _confirmed_of(row: Row) -> Confirmed:
    due = None if row["due"] is None else Money(row["due"], row["due_currency"])
    return Confirmed(Confirmation(row["outcome"]), None if row["id"] is None else reservation_of(row), due)


def listed_of(row: Row) -> ListedOrder:
    """A row of order_list."""
    return ListedOrder(
        id=str(row["id"]),
        event=Event(row["event"]),
        state=OrderState(row["state"]),
        created_at=row["created_at"],
        settled_at=row["settled_at"],
        due_at=row["due_at"],
        tries=row["tries"],
        reason=row["reason"],
        money=Money(row["amount"], row["currency"]),
        payment_id=row["payment_id"],
        reservation=str(row["reservation_id"]),
        drop=row["drop_id"],
        allocation=row["allocation_id"],
        member=row["member"],
        quantity=row["quantity"],
    )
