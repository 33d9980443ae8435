"""The model ledger's tables: immutable rows, what each row and each table forbids, transactions, and a drop's lock."""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self, TypeVar

import msgspec

from flashsale.domain import (
    ID_PATTERN,
    LIVE,
    SPENDING,
    STRIPES_MAX,
    Access,
    Event,
    Fcode,
    Money,
    OrderState,
    Points,
    Reservation,
    State,
    Texts,
)
from flashsale.ledger import AuditLine, Batch, Bound

EPOCH_ZERO: Final = datetime(1970, 1, 1, tzinfo=UTC)
Key = TypeVar("Key")
Row = TypeVar("Row")


class BrokenRule(Exception):
    """A constraint of the schema refuses a row: the whole transaction leaves nothing behind."""


def _rule(holds: bool, what: str) -> None:
    if not holds:
        raise BrokenRule(what)


class DropRow(msgspec.Struct, frozen=True, kw_only=True):
    """A drop without its allocations."""

    id: str
    title: str
    price: Money
    list_price: Money | None
    per_member: int
    hold_seconds: int
    epoch: int
    paused: bool
    closed: bool
    created_at: datetime
    rebuy_after_return: bool
    stripes: int
    held: bool = False
    hidden: bool = False
    fcodes_stopped: bool = False

    def check(self) -> None:
        """Whatever wrote it."""
        _rule(re.fullmatch(ID_PATTERN, self.id) is not None, "drops: id")
        _rule(self.title != "", "drops: title")
        for money in (self.price, self.list_price):
            _rule(money is None or (money.amount >= 0 and is_currency(money.currency)), "drops: money")
        _rule(min(self.per_member, self.hold_seconds, self.epoch) >= 1, "drops: per_member, hold_seconds, epoch")
        _rule(1 <= self.stripes <= STRIPES_MAX, "drops: stripes")
        _rule(self.paused or not self.held, "drops: held")


class AllocationRow(msgspec.Struct, frozen=True, kw_only=True):
    """An allocation; `position` in its drop, `taken` units of live reservations."""

    drop: str
    id: str
    position: int
    quantity: int
    taken: int
    opens_at: datetime
    closes_at: datetime
    access: Access
    channel: str | None

    @property
    def sells_codes(self) -> bool:
        """Whether its units are set aside for F-codes."""
        return isinstance(self.access, Fcode)

    @property
    def eligible(self) -> tuple[str, int] | None:
        """Snapshot and threshold that name its list of members."""
        rule = self.access
        return (rule.snapshot, rule.at_least) if isinstance(rule, Points) else None

    def check(self) -> None:
        """Whatever wrote it: never oversold, above all."""
        _rule(re.fullmatch(ID_PATTERN, self.id) is not None, "allocations: id")
        _rule(self.closes_at > self.opens_at, "allocations: window")
        _rule(0 <= self.taken <= self.quantity, "allocations: never_oversold")


class ReservationRow(msgspec.Struct, frozen=True, kw_only=True):
    """A reservation, or the tombstone of a grant; `released`: None while it lives, then whether the gate knows."""

    id: str
    drop: str
    allocation: str
    member: int
    quantity: int
    slot: int
    key: str | None
    payload: str
    code: int | None
    epoch: int
    state: State
    expires_at: datetime
    created_at: datetime
    ended_at: datetime | None = None
    released: bool | None = None
    order: str | None = None
    keeps_slot: bool = False
    home: int = 0
    unit: int = 0

    @property
    def live(self) -> bool:
        """Whether it has units."""
        return self.state in LIVE

    @property
    def counts(self) -> bool:
        """Whether it counts under its member's limit."""
        return self.live or self.keeps_slot

    @property
    def spends(self) -> bool:
        """Whether its code, if it has one, is spent."""
        return self.state in SPENDING

    def told(self) -> Reservation:
        """As the ledger's methods return it."""
        return Reservation(
            id=self.id,
            drop=self.drop,
            allocation=self.allocation,
            member=self.member,
            quantity=self.quantity,
            state=self.state,
            expires_at=self.expires_at,
            created_at=self.created_at,
            key=self.key,
            payload=self.payload,
            order=self.order,
            keeps_slot=self.keeps_slot,
            code=self.code,
            home=self.home,
            unit=self.unit,
        )

    def check(self) -> None:
        """Whatever wrote it."""
        _rule(min(self.member, self.quantity, self.slot) >= 1, "reservations: member, quantity, slot")
        _rule(self.key is None or 1 <= len(self.key) <= 255, "reservations: key")
        _rule(self.live == (self.ended_at is None), "reservations: what ended has an end")
        _rule((self.ended_at is None) == (self.released is None), "reservations: what ended is in the outbox or done")
        ordered = self.state in {State.CONFIRMED, State.RETURNED}
        _rule((self.order is not None) == ordered, "reservations: what was confirmed has an order")
        _rule(self.state is State.RETURNED or not self.keeps_slot, "reservations: only what was returned keeps a slot")

    def excludes(self, other: "ReservationRow") -> bool:
        """Whether both cannot stand in one table: one key, one slot, one code."""
        if self.code is not None and self.code == other.code and self.spends and other.spends:
            return True
        if (self.drop, self.member) != (other.drop, other.member):
            return False
        same_key = self.key is not None and self.key == other.key and State.VOID not in {self.state, other.state}
        return same_key or (self.slot == other.slot and self.counts and other.counts)


class OrderRow(msgspec.Struct, frozen=True, kw_only=True):
    """One message to the shop."""

    id: str
    event: Event
    reservation: str
    money: Money
    payment: str | None
    detail: dict[str, Any] | None
    created_at: datetime
    queued_at: datetime
    settled_at: datetime | None = None
    state: OrderState = OrderState.QUEUED
    tries: int = 0
    reason: str | None = None

    def check(self) -> None:
        """Whatever wrote it."""
        _rule(self.money.amount >= 0, "orders: amount")
        _rule((self.state is OrderState.QUEUED) == (self.settled_at is None), "orders: settled_at")
        _rule(self.event is not Event.REFUND_DUE or self.payment is not None, "orders: a refund has a payment")

    def excludes(self, other: "OrderRow") -> bool:
        """Whether both cannot stand in one table: one order and one return a reservation, one refund a payment."""
        if self.event is not other.event:
            return False
        if self.event is Event.REFUND_DUE:
            return self.payment == other.payment
        return self.reservation == other.reservation


class PaymentRow(msgspec.Struct, frozen=True, kw_only=True):
    """Money received; `applied`: it paid for its reservation."""

    id: str
    reservation: str
    amount: int
    currency: str
    applied: bool
    received_at: datetime

    def check(self) -> None:
        """Whatever wrote it."""
        _rule(1 <= len(self.id) <= 255, "payments: id")
        _rule(self.amount >= 0 and is_currency(self.currency), "payments: money")


class FcodeStop(msgspec.Struct, frozen=True):
    """That the F-codes of all drops are stopped."""

    one: bool
    at: datetime
    actor: str
    reason: str


class Change(msgspec.Struct, frozen=True):
    """A reservation's state since `at`."""

    at: datetime
    state: State


def is_currency(text: str) -> bool:
    """Three capital letters."""
    return re.fullmatch("[A-Z]{3}", text) is not None


class Tables:
    """All that the model ledger knows, but for the queue. Who looks may read every table; only the stores write.

    `history` has the states of every reservation, the first one first. `bound` and `revoked` go by (batch, serial),
    `allocations` by (drop, id), `eligible_sets`, the lists that were computed, by (snapshot, at_least).
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.drops: dict[str, DropRow] = {}
        self.words: dict[str, tuple[Texts, str | None]] = {}
        self.allocations: dict[tuple[str, str], AllocationRow] = {}
        self.reservations: dict[str, ReservationRow] = {}
        self.history: dict[str, tuple[Change, ...]] = {}
        self.orders: dict[str, OrderRow] = {}
        self.payments: dict[str, PaymentRow] = {}
        self.disabled: dict[str, bool] = {}
        self.batches: dict[int, Batch] = {}
        self.bound: dict[tuple[int, int], Bound] = {}
        self.revoked: dict[tuple[int, int], bool] = {}
        self.eligible_sets: dict[tuple[str, int], str] = {}
        self.audit: dict[int, AuditLine] = {}
        self.fcode_stop: dict[bool, FcodeStop] = {}
        self._undo: list[Callable[[], object]] = []
        self._locks: dict[str, asyncio.Event] = {}
        self._lines = 0

    @contextmanager
    def transaction(self) -> Iterator[Self]:
        """All of what is put inside, or, after an exception, nothing. Nothing may be awaited inside."""
        self._undo = []
        try:
            yield self
        except BaseException:
            for undo in reversed(self._undo):
                undo()
            raise

    def put(self, table: dict[Key, Row], key: Key, row: Row) -> None:
        """Write a row."""
        if key in table:
            before = table[key]
            self._undo.append(lambda: table.update({key: before}))
        else:
            self._undo.append(lambda: table.pop(key))
        table[key] = row

    def remove(self, table: dict[Key, Row], key: Key) -> None:
        """Delete a row, if there is one."""
        if key in table:
            before = table.pop(key)
            self._undo.append(lambda: table.update({key: before}))

    def next_epoch(self, epoch: int) -> int:
        """A later one, and at least the time in ms, so that a ledger that was restored gives none twice."""
        since_us = (self.now() - EPOCH_ZERO) // timedelta(microseconds=1)
        return max(epoch + 1, (since_us + 500) // 1_000)

    def allocations_of(self, drop_id: str) -> list[AllocationRow]:
        """In their order."""
        return sorted((a for a in self.allocations.values() if a.drop == drop_id), key=lambda a: a.position)

    def reservations_of(self, drop_id: str) -> list[ReservationRow]:
        """With what has ended and the tombstones."""
        return [r for r in self.reservations.values() if r.drop == drop_id]

    def put_drop(self, row: DropRow) -> None:
        """Write a drop."""
        row.check()
        self.put(self.drops, row.id, row)

    def put_allocation(self, row: AllocationRow) -> None:
        """Write an allocation."""
        row.check()
        self.put(self.allocations, (row.drop, row.id), row)

    def add_units(self, drop_id: str, allocation_id: str, *, taken: int = 0, quantity: int = 0) -> None:
        """Change what an allocation has, if there is such an allocation."""
        row = self.allocations.get((drop_id, allocation_id))
        if row is not None:
            changed = msgspec.structs.replace(row, taken=row.taken + taken, quantity=row.quantity + quantity)
            self.put_allocation(changed)

    def insert_reservation(self, row: ReservationRow) -> bool:
        """Write a new one, unless another stands in its way."""
        row.check()
        if row.id in self.reservations or any(row.excludes(other) for other in self.reservations.values()):
            return False
        self._put_reservation(row)
        return True

    def change_reservation(self, row: ReservationRow) -> None:
        """Write one that is there."""
        row.check()
        others = (other for other in self.reservations.values() if other.id != row.id)
        _rule(not any(row.excludes(other) for other in others), "reservations: unique")
        self._put_reservation(row)

    def _put_reservation(self, row: ReservationRow) -> None:
        told = self.history.get(row.id, ())
        if not told or told[-1].state is not row.state:
            self.put(self.history, row.id, (*told, Change(self.now(), row.state)))
        self.put(self.reservations, row.id, row)

    def insert_order(self, row: OrderRow) -> None:
        """Write a new order."""
        row.check()
        clash = row.id in self.orders or any(row.excludes(other) for other in self.orders.values())
        _rule(not clash, "orders: unique")
        self.put(self.orders, row.id, row)

    def insert_payment(self, row: PaymentRow) -> bool:
        """Write a new payment; False when its id is known."""
        row.check()
        if row.id in self.payments:
            return False
        twice = row.applied and any(p.applied and p.reservation == row.reservation for p in self.payments.values())
        _rule(not twice, "payments: applied once")
        self.put(self.payments, row.id, row)
        return True

    def write_audit(self, actor: str, action: str, subject: str, detail: object) -> None:
        """One line more."""
        plain = msgspec.json.decode(msgspec.json.encode(detail))
        self._lines += 1
        self.put(self.audit, self._lines, AuditLine(self._lines, self.now(), actor, action, subject, plain))

    async def drop_is_free(self, drop_id: str) -> None:
        """Return when no operator's act has this drop locked; at once, as a rule."""
        while (held := self._locks.get(drop_id)) is not None:
            await held.wait()

    def lock_drop(self, drop_id: str) -> None:
        """Keep every other writer of this drop out."""
        self._locks[drop_id] = asyncio.Event()

    def free_drop(self, drop_id: str) -> None:
        """Let them in again."""
        self._locks.pop(drop_id).set()
