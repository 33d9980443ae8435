"""Orders in the model ledger: confirming, payments, returns, and what the worker needs to deliver orders."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

import msgspec

from fcodes import CODES_PER_BATCH_MAX
from flashsale.domain import Confirmation, Event, Money, Order, OrderState, Payment, State
from flashsale.ledger import Confirmed, Health, ListedOrder, OrderStore, Returned, Tried, Wish
from flashsale.ledger.orders import LOST_AFTER_S
from tests.ledger.model_queue import ModelQueue
from tests.ledger.model_rows import OrderRow, PaymentRow, ReservationRow, Tables


class ModelOrders(OrderStore):
    """All orders and their jobs. Each call is one atomic step."""

    def __init__(self, tables: Tables, queue: ModelQueue) -> None:
        self._tables = tables
        self._queue = queue

    async def confirm(self, wishes: Sequence[Wish]) -> list[Confirmed]:
        with self._tables.transaction():
            before = set(self._tables.orders)
            answers = self._confirm_holds(wishes)
            rest = [at for at in range(len(wishes)) if at not in answers]
            for at in sorted(rest, key=lambda at: (wishes[at].payment is None, _payment_id(wishes[at]), at)):
                answers[at] = self._confirm_one(wishes[at])
            for order in [w.order for w in wishes if w.order in self._tables.orders and w.order not in before]:
                self._queue.put(order)
            return [answers[at] for at in range(len(wishes))]

    def _confirm_holds(self, wishes: Sequence[Wish]) -> dict[int, Confirmed]:
        """The rule: of each hold that runs, the first wish that fits; payments by their ids, each for one hold."""
        first: dict[str, int] = {}
        for at, wish in enumerate(wishes):
            row = self._tables.reservations.get(wish.reservation)
            if row is not None and wish.reservation not in first and self._runs(row) and self._fits(wish, row):
                first[wish.reservation] = at
        done: dict[int, Confirmed] = {}
        for reservation, at in sorted(first.items(), key=lambda each: (_payment_id(wishes[each[1]]), each[0])):
            paid = wishes[at].payment
            if paid is None or self._tables.insert_payment(self._payment(paid, reservation, applied=True)):
                done[at] = self._confirmed(wishes[at])
        return done

    def _runs(self, row: ReservationRow) -> bool:
        return row.state is State.HELD and row.expires_at > self._tables.now()

    def _fits(self, wish: Wish, row: ReservationRow) -> bool:
        paid = wish.payment
        if paid is None:
            return wish.member == row.member
        return Money(paid.amount, paid.currency) == self._due(row) and paid.id not in self._tables.payments

    def _due(self, row: ReservationRow) -> Money:
        price = self._tables.drops[row.drop].price
        return Money(price.amount * row.quantity, price.currency)

    def _payment(self, paid: Payment, reservation: str, *, applied: bool) -> PaymentRow:
        return PaymentRow(
            id=paid.id,
            reservation=reservation,
            amount=paid.amount,
            currency=paid.currency,
            applied=applied,
            received_at=self._tables.now(),
        )

    def _confirmed(self, wish: Wish) -> Confirmed:
        found = self._tables.reservations[wish.reservation]
        row = msgspec.structs.replace(found, state=State.CONFIRMED, order=wish.order)
        self._tables.change_reservation(row)
        self._write(wish.order, Event.CONFIRMED, row, self._tables.drops[row.drop].price, payment=wish.payment)
        return Confirmed(Confirmation.CONFIRMED, row.told(), None)

    def _write(
        self,
        order: str,
        event: Event,
        row: ReservationRow,
        money: Money,
        *,
        payment: Payment | None = None,
        detail: dict[str, object] | None = None,
    ) -> None:
        now = self._tables.now()
        self._tables.insert_order(
            OrderRow(
                id=order,
                event=event,
                reservation=row.id,
                money=money,
                payment=None if payment is None else payment.id,
                detail=detail,
                created_at=now,
                queued_at=now,
            )
        )

    def _confirm_one(self, wish: Wish) -> Confirmed:
        """What the rule did not confirm."""
        row, paid = self._tables.reservations.get(wish.reservation), wish.payment
        if row is None or row.state is State.VOID or (paid is None and row.member != wish.member):
            return Confirmed(Confirmation.NOT_FOUND, None, None)
        if paid is None:
            if self._runs(row):
                return self._confirmed(wish)
            again = {State.CONFIRMED: Confirmation.AGAIN, State.HELD: Confirmation.EXPIRED}
            told = again | {State.EXPIRED: Confirmation.EXPIRED}
            return Confirmed(told.get(row.state, Confirmation.CONFLICT), row.told(), None)
        ordered = row.state in {State.CONFIRMED, State.RETURNED}
        too_late = Confirmation.CONFLICT if ordered else Confirmation.EXPIRED
        known = self._tables.payments.get(paid.id)
        if known is not None:
            if (known.reservation, known.amount, known.currency) != (row.id, paid.amount, paid.currency):
                return Confirmed(Confirmation.PAYMENT_TAKEN, row.told(), None)
            return Confirmed(Confirmation.AGAIN if known.applied else too_late, row.told(), None)
        if self._runs(row):
            if not self._fits(wish, row):
                return Confirmed(Confirmation.WRONG_AMOUNT, row.told(), self._due(row))
            self._tables.insert_payment(self._payment(paid, row.id, applied=True))
            return self._confirmed(wish)
        self._tables.insert_payment(self._payment(paid, row.id, applied=False))
        self._write(wish.order, Event.REFUND_DUE, row, Money(paid.amount, paid.currency), payment=paid)
        return Confirmed(too_late, row.told(), None)

    async def take_back(
        self, reservation: str, order: str, *, restock: bool, to: str | None, reason: str, actor: str
    ) -> Returned:
        found = self._tables.reservations.get(reservation)
        if found is not None:
            await self._tables.drop_is_free(found.drop)
        with self._tables.transaction() as t:
            found = t.reservations.get(reservation)
            if found is None or found.state is State.VOID:
                return Returned("not_found", bumped=False, reservation=None)
            if found.state is State.RETURNED:
                return Returned("again", bumped=False, reservation=found.told())
            if found.state is not State.CONFIRMED:
                return Returned("conflict", bumped=False, reservation=found.told())
            goes_to = to or found.allocation
            if (found.drop, goes_to) not in t.allocations:
                return Returned("no_allocation", bumped=False, reservation=found.told())
            drop = t.drops[found.drop]
            row = msgspec.structs.replace(
                found,
                state=State.RETURNED,
                ended_at=t.now(),
                released=False,
                keeps_slot=not drop.rebuy_after_return,
            )
            t.change_reservation(row)
            moves = not restock or goes_to != row.allocation
            t.add_units(drop.id, row.allocation, taken=-row.quantity, quantity=-row.quantity if moves else 0)
            if moves:
                t.add_units(drop.id, goes_to, quantity=row.quantity if restock else 0)
                t.put_drop(msgspec.structs.replace(drop, epoch=t.next_epoch(drop.epoch)))
            said: dict[str, object] = {"reason": reason, "restock": restock, "to": to}
            self._write(order, Event.RETURNED, row, drop.price, detail=said)
            self._queue.put(order)
            subject = f"{drop.id}/{row.allocation}"
            t.write_audit(actor, "reservation.return", subject, {"reservation": row.id, **said, "to": goes_to})
            return Returned("returned", bumped=moves, reservation=row.told())

    async def load(self, orders: Sequence[str]) -> dict[str, Order]:
        found = (self._tables.orders.get(i) for i in orders)
        return {o.id: self._order(o) for o in found if o is not None}

    def _order(self, o: OrderRow) -> Order:
        row = self._tables.reservations[o.reservation]
        return Order(
            id=o.id,
            event=o.event,
            state=o.state,
            tries=o.tries,
            created_at=o.created_at,
            money=o.money,
            reservation=row.id,
            drop=row.drop,
            allocation=row.allocation,
            member=row.member,
            quantity=row.quantity,
            confirmed_as=row.order,
            payment_id=o.payment,
            fcode_batch=None if row.code is None else row.code // CODES_PER_BATCH_MAX,
            sink=self._tables.drops[row.drop].hidden,
            detail=o.detail or {},
        )

    async def settle(self, tried: Sequence[Tried]) -> None:
        with self._tables.transaction() as t:
            for each in tried:
                order = t.orders.get(each.order)
                if order is not None and order.state is OrderState.QUEUED:
                    t.put(
                        t.orders,
                        order.id,
                        msgspec.structs.replace(
                            order,
                            state=each.state,
                            tries=order.tries + 1,
                            reason=each.reason,
                            settled_at=None if each.state is OrderState.QUEUED else t.now(),
                        ),
                    )
            for each in tried:
                if each.state is OrderState.QUEUED:
                    self._queue.stand_back(each.order)

    def _waiting(self) -> list[OrderRow]:
        return sorted((o for o in self._tables.orders.values() if o.state is OrderState.QUEUED), key=lambda o: o.id)

    async def page(
        self, state: OrderState | None, event: Event | None, before: str | None, limit: int
    ) -> list[ListedOrder]:
        rows: Iterable[OrderRow] = sorted(self._tables.orders.values(), key=lambda o: o.id, reverse=True)
        rows = [o for o in rows if state in {None, o.state} and event in {None, o.event}]
        return [self._listed(o) for o in rows if before is None or o.id < before][:limit]

    def _listed(self, o: OrderRow) -> ListedOrder:
        row, job = self._tables.reservations[o.reservation], self._queue.jobs.get(o.id)
        return ListedOrder(
            id=o.id,
            event=o.event,
            state=o.state,
            created_at=o.created_at,
            settled_at=o.settled_at,
            due_at=None if job is None or o.state is not OrderState.QUEUED else job.due_at,
            tries=o.tries,
            reason=o.reason,
            money=o.money,
            payment_id=o.payment,
            reservation=row.id,
            drop=row.drop,
            allocation=row.allocation,
            member=row.member,
            quantity=row.quantity,
        )

    async def health(self, url: str | None = None) -> Health:
        waiting = self._waiting()
        oldest = min((o.queued_at for o in waiting), default=self._tables.now())
        dead = sum(o.state is OrderState.DEAD for o in self._tables.orders.values())
        return Health(
            waiting=len(waiting),
            oldest_s=(self._tables.now() - oldest).total_seconds(),
            tries_max=max((o.tries for o in waiting), default=0),
            dead=dead,
            disabled=url in self._tables.disabled,
        )

    async def replay(self, order: str, *, actor: str) -> OrderState | None:
        with self._tables.transaction() as t:
            found = t.orders.get(order)
            if found is None:
                return None
            now = t.now()
            if found.state is not OrderState.QUEUED:
                again = msgspec.structs.replace(found, state=OrderState.QUEUED, queued_at=now, settled_at=None, tries=0)
                t.put(t.orders, order, again)
                self._queue.take_away(order)
            self._queue.put(order)
            self._queue.hurry(order)
            for url in [*t.disabled]:
                t.remove(t.disabled, url)
            t.write_audit(actor, "order.replay", order, {"was": found.state})
            return found.state

    async def requeue_lost(self, after: str | None, limit: int) -> tuple[list[str], str | None]:
        with self._tables.transaction() as t:
            seen = [o for o in self._waiting() if after is None or o.id > after][:limit]
            since = t.now() - timedelta(seconds=LOST_AFTER_S)
            lost = [o.id for o in seen if o.queued_at < since and o.id not in self._queue.jobs]
            for order in lost:
                self._queue.put(order)
        return lost, seen[-1].id if len(seen) == limit else None

    async def prune_log(self, older_than_s: float, limit: int) -> int:
        return self._queue.prune_log(self._tables.now() - timedelta(seconds=older_than_s), limit)

    async def disabled(self, url: str) -> bool:
        return url in self._tables.disabled

    async def disable(self, url: str) -> None:
        with self._tables.transaction() as t:
            t.put(t.disabled, url, True)


def _payment_id(wish: Wish) -> str:
    return "" if wish.payment is None else wish.payment.id
