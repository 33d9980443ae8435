"""Operator acts: set up a drop, change it while it runs, pause, resume, close, and see its balance.

Each act is one ledger transaction (change, new epoch, audit line). It holds from its commit on: grants of
the gate that knew nothing of it are stale. Then the gate is rebuilt; if that fails, whoever asks the gate
next finds it unarmed and rebuilds it.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec
import structlog

from flashsale.catalog import Catalog
from flashsale.domain import Allocation, Drop, Points, Reservation, Texts
from flashsale.errors import Refused, Unavailable
from flashsale.gate import Gate, Status, Unarmed, whole
from flashsale.ledger import Act, AuditLine, Ledger, Returned, Units
from flashsale.moves import Moved, move

OUTBOX_MAX: Final = 10_000
BALANCE_TRIES_MAX: Final = 10
BALANCE_PAUSE_S: Final = 0.02
REARM_WAIT_S: Final = 5.0
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)

log = structlog.get_logger()


class AllocationChange(msgspec.Struct, frozen=True):
    """New values of an allocation; UNSET stays as it is."""

    quantity: int | msgspec.UnsetType = msgspec.UNSET
    opens_at: datetime | msgspec.UnsetType = msgspec.UNSET
    closes_at: datetime | msgspec.UnsetType = msgspec.UNSET
    channel: str | msgspec.UnsetType | None = msgspec.UNSET


class DropChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """New values of a drop; UNSET stays as it is."""

    title: str | msgspec.UnsetType = msgspec.UNSET
    texts: Texts | msgspec.UnsetType = msgspec.UNSET
    picture: str | msgspec.UnsetType | None = msgspec.UNSET


class AllocationBalance(msgspec.Struct, frozen=True):
    """Where an allocation's units are (I1)."""

    id: str
    quantity: int
    available: int
    pending: int
    held: int
    confirmed: int
    moved: int
    """Units that changed place while the two stores were read one after the other; 0 when nothing moved."""

    @property
    def balanced(self) -> bool:
        """Whether every unit is somewhere, and none twice, but for those that moved in the meantime."""
        found = self.available + self.pending + self.held + self.confirmed
        return abs(found - self.quantity) <= self.moved and self.available >= 0


def check_window(allocation_id: str, opens_at: datetime, closes_at: datetime) -> None:
    """A window that makes sense; `Refused` otherwise."""
    if closes_at <= opens_at:
        raise Refused(
            "invalid_request",
            f"Allocation {allocation_id!r} closes before it opens; `closes_at` must be after `opens_at`.",
        )
    if opens_at < EARLIEST or closes_at > LATEST:
        raise Refused(
            "invalid_request",
            f"The window of {allocation_id!r} must lie between {EARLIEST.year} and {LATEST.year}; correct its times.",
        )


def tag_of(drop: Drop) -> str:
    """Names what operators have set up of a drop: the same as long as nobody changes it, whatever is sold meanwhile."""
    settled = msgspec.structs.replace(drop, epoch=0)
    return hashlib.sha256(msgspec.json.encode(settled)).hexdigest()[:24]


def unknown_drop(drop_id: str) -> Refused:
    """There is no such drop."""
    return Refused("not_found", f"There is no drop {drop_id!r}.")


class Operations:
    """What operators do."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        gate: Gate,
        catalog: Catalog,
        arm: Callable[[str], Awaitable[bool]],
        new_ids: Callable[[int], list[str]],
    ) -> None:
        self._new_ids = new_ids
        self._ledger = ledger
        self._gate = gate
        self._catalog = catalog
        self._arm = arm

    async def create(self, drop: Drop, *, actor: str, detail: object) -> Drop:
        """Set up a drop. `epoch` and `created_at` of the argument are ignored: the ledger sets them."""
        names = [a.id for a in drop.allocations]
        if len(set(names)) < len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise Refused("invalid_request", f"Two allocations are called {twice!r}; give each its own `id`.")
        if drop.list_price is not None and drop.list_price.currency != drop.price.currency:
            raise Refused("invalid_request", "`price` and `list_price` must be in the same currency.")
        if drop.picture is not None:
            await self._check_picture(drop.picture)
        for allocation in drop.allocations:
            check_window(allocation.id, allocation.opens_at, allocation.closes_at)
            await self._prepare_eligible(allocation)
        if not await self._ledger.drops.create(drop, actor=actor, detail=detail):
            raise Refused("conflict", f"The id {drop.id!r} is taken by another drop; choose another one.")
        log.info("ops.act", actor=actor, action="drop.create", subject=drop.id)
        return await self.after(drop.id)

    async def rename(self, drop_id: str, title: str, *, actor: str, expected: Collection[str] | None = None) -> Drop:
        """Give the drop another title. `expected`, here and below: refused unless the drop's tag is one of these."""
        return await self.edit(drop_id, DropChange(title=title), actor=actor, expected=expected)

    async def edit(
        self, drop_id: str, change: DropChange, *, actor: str, expected: Collection[str] | None = None
    ) -> Drop:
        """Change what is said of the drop."""
        if isinstance(change.picture, str):
            await self._check_picture(change.picture)
        async with self._act(drop_id, actor, "drop.edit", drop_id, change, expected=expected) as act:
            if change.title is not msgspec.UNSET:
                act.title = change.title
            if change.texts is not msgspec.UNSET or change.picture is not msgspec.UNSET:
                texts, picture = await act.words()
                await act.put_words(
                    texts if change.texts is msgspec.UNSET else change.texts,
                    picture if change.picture is msgspec.UNSET else change.picture,
                )
        return await self.after(drop_id)

    async def _check_picture(self, picture: str) -> None:
        if not await self._ledger.pages.has_picture(picture):
            raise Refused("invalid_request", f"There is no picture {picture!r}; POST /v1/ops/pictures takes one.")

    async def add_allocation(
        self, drop_id: str, allocation: Allocation, *, actor: str, expected: Collection[str] | None = None
    ) -> Drop:
        """One more allocation, also while the drop runs."""
        check_window(allocation.id, allocation.opens_at, allocation.closes_at)
        await self._prepare_eligible(allocation)
        subject = f"{drop_id}/{allocation.id}"
        async with self._act(drop_id, actor, "allocation.create", subject, allocation, expected=expected) as act:
            if not await act.add_allocation(allocation):
                raise Refused(
                    "conflict", f"Drop {drop_id!r} already has an allocation {allocation.id!r}; choose another id."
                )
        return await self.after(drop_id)

    async def change_allocation(
        self,
        drop_id: str,
        allocation_id: str,
        change: AllocationChange,
        *,
        actor: str,
        expected: Collection[str] | None = None,
    ) -> Drop:
        """Resize, move the window of, or relabel an allocation, also while the drop runs."""
        subject = f"{drop_id}/{allocation_id}"
        async with self._act(drop_id, actor, "allocation.edit", subject, change, expected=expected) as act:
            row = await act.lock_allocation(allocation_id)
            if row is None:
                raise Refused("not_found", f"Drop {drop_id!r} has no allocation {allocation_id!r}.")
            wanted = {
                name: value
                for name in change.__struct_fields__
                if (value := getattr(change, name)) is not msgspec.UNSET
            }
            new = {name: row[name] for name in ("quantity", "opens_at", "closes_at", "channel")} | wanted
            if new["quantity"] < row["taken"] + row["alive"]:
                promised = (
                    f", and {row['alive']} are set aside for F-codes that may still be spent" if row["alive"] else ""
                )
                raise Refused(
                    "conflict",
                    f"{row['taken']} units are taken already{promised}; `quantity` cannot be less.",
                    taken=row["taken"],
                )
            check_window(allocation_id, new["opens_at"], new["closes_at"])
            await act.update_allocation(allocation_id, **new)
        return await self.after(drop_id)

    async def move_units(
        self,
        drop_id: str,
        from_allocation: str,
        to_allocation: str,
        count: int,
        *,
        actor: str,
        reason: str | None = None,
        expected: Collection[str] | None = None,
    ) -> tuple[Drop, list[Moved], list[Moved]]:
        """Let free units change their allocation, also while the drop runs; both as they were and as they are."""
        detail = {"from": from_allocation, "to": to_allocation, "count": count} | ({"reason": reason} if reason else {})
        async with self._act(drop_id, actor, "allocation.move", drop_id, detail, expected=expected) as act:
            before, after = await move(act, from_allocation, to_allocation, count)
        return await self.after(drop_id), before, after

    async def switch(
        self,
        drop_id: str,
        act_name: Literal["pause", "resume", "close"],
        *,
        actor: str,
        reason: str | None = None,
        missing: Collection[str] = (),
    ) -> Drop:
        """Pause, resume or close. From the return on it holds: no grant of before commits after it (I14).

        `missing`: what was missing when it was resumed all the same, for the audit log.
        """
        detail: dict[str, object] = {"reason": reason} if reason else {}
        if missing:
            detail["missing"] = sorted(missing)
        async with self._act(drop_id, actor, f"drop.{act_name}", drop_id, detail) as act:
            if act.closed and act_name != "close":
                raise Refused("conflict", f"Drop {drop_id!r} is closed for good; it cannot be paused or resumed.")
            match act_name:
                case "pause":
                    act.paused = True
                case "resume":
                    act.paused = act.held = False
                case "close":
                    act.closed = True
        return await self.after(drop_id)

    async def take_back(
        self, reservation_id: str, *, restock: bool, to: str | None, reason: str, actor: str
    ) -> Reservation:
        """Mark a confirmed reservation returned; `order.returned` leaves through the queue.

        Its unit goes back to its allocation, or to allocation `to`, or (not `restock`) leaves the sale.
        """
        if to is not None and not restock:
            raise Refused(
                "invalid_request", "`to_allocation` says where the unit goes, `restock` that it goes nowhere."
            )
        [order] = self._new_ids(1)
        found = await self._ledger.orders.take_back(
            reservation_id, order, restock=restock, to=to, reason=reason, actor=actor
        )
        match found:
            case Returned(outcome="returned", reservation=Reservation() as taken_back):
                log.info("ops.act", actor=actor, action="reservation.return", subject=taken_back.id)
                if found.bumped:
                    await self.after(taken_back.drop)
                await self._tell_gate(taken_back)
                return taken_back
            case Returned(outcome="again", reservation=Reservation() as taken_back):
                return taken_back
            case Returned(outcome="conflict", reservation=Reservation(state=state)):
                raise Refused("conflict", f"The reservation is {state.value}; only a confirmed one can be returned.")
            case Returned(outcome="no_allocation"):
                raise Refused("not_found", f"The drop has no allocation {to!r}; choose one of its own.")
            case _:
                raise Refused("not_found", f"There is no reservation {reservation_id!r}.")

    async def _tell_gate(self, ended: Reservation) -> None:
        """The gate has the unit back at once; when it cannot be told, the outbox does it within seconds."""
        try:
            keep = [ended.id] if ended.keeps_slot else []
            released = await whole.release(self._gate, ended.drop, [ended], keep=keep, spent=[ended.id])
            for epoch, ids in released.items():
                await self._ledger.reservations.mark_released(ended.drop, ids, epoch)
        except Unavailable:
            pass

    async def audit(self, subject: str | None, before: int | None, limit: int) -> list[AuditLine]:
        """The audit log, newest first."""
        return await self._ledger.drops.audit(subject, before, limit)

    async def balance(self, drop_id: str) -> list[AllocationBalance]:
        """Where every unit is, in gate and ledger.

        Two stores cannot be read at one instant: the ledger is read between two readings of the gate. When nothing
        moved between these, the balance is exact; after `BALANCE_TRIES_MAX` tries in a rush, what moved is allowed for.
        """
        drop = await self._catalog.reload(drop_id)
        if drop is None:
            raise unknown_drop(drop_id)
        balance: list[AllocationBalance] = []
        for _ in range(BALANCE_TRIES_MAX):
            outbox = await self._ledger.reservations.outbox(drop_id, OUTBOX_MAX)
            probes = [(e.id, e.member) for e in outbox]
            before = await whole.status(self._gate, drop, drop.epoch, probes)
            if isinstance(before, Unarmed):
                await self._arm(drop_id)
                drop = await self._catalog.reload(drop_id) or drop
                continue
            units = await self._ledger.drops.balance(drop_id, list(before.pending))
            after = await whole.status(self._gate, drop, drop.epoch, probes)
            if not isinstance(after, Unarmed) and {before.epoch, after.epoch} == {u.epoch for u in units}:
                balance = [_balance_of(u, before, after) for u in units]
                if all(b.balanced and b.moved == 0 for b in balance):
                    break
            await asyncio.sleep(BALANCE_PAUSE_S)
        if not balance:
            raise Unavailable("The gate is being rebuilt; ask again in a moment.")
        return balance

    async def _prepare_eligible(self, allocation: Allocation) -> None:
        """Compute who is eligible before the allocation exists: what is set up is ready."""
        if isinstance(allocation.access, Points):
            rule = allocation.access
            if await self._ledger.points.build_eligible(rule.snapshot, rule.at_least) is None:
                raise Refused("invalid_request", f"There is no points snapshot {rule.snapshot!r}; import it first.")

    @asynccontextmanager
    async def _act(
        self,
        drop_id: str,
        actor: str,
        action: str,
        subject: str,
        detail: object,
        *,
        expected: Collection[str] | None = None,
    ) -> AsyncIterator[Act]:
        async with self._ledger.drops.act(drop_id, actor=actor, action=action, subject=subject, detail=detail) as act:
            if act is None:
                raise unknown_drop(drop_id)
            if expected is not None and (tag := tag_of(await act.current())) not in expected:
                raise Refused(
                    "precondition_failed",
                    f"Drop {drop_id!r} was changed since you read it; read it again, and decide anew.",
                    etag=tag,
                )
            yield act
        log.info("ops.act", actor=actor, action=action, subject=subject)

    async def after(self, drop_id: str) -> Drop:
        """An act is committed. Rebuild the gate now, so that the next shopper need not wait for it."""
        try:
            async with asyncio.timeout(REARM_WAIT_S):
                await self._arm(drop_id)
        except (Unavailable, TimeoutError):
            log.warning("gate.rebuild_postponed", drop=drop_id)
        drop = await self._catalog.reload(drop_id)
        if drop is None:
            raise unknown_drop(drop_id)
        return drop


def _balance_of(units: Units, before: Status, after: Status) -> AllocationBalance:
    name = units.allocation
    in_flight = {i: e for i, e in before.pending.items() if i not in units.live} | before.found
    changed = {**before.pending, **before.found}.items() ^ {**after.pending, **after.found}.items()
    return AllocationBalance(
        id=name,
        quantity=units.quantity,
        available=before.available.get(name, -1),
        pending=sum(quantity for allocation, quantity in in_flight.values() if allocation == name),
        held=units.held,
        confirmed=units.confirmed,
        moved=abs(before.available.get(name, 0) - after.available.get(name, 0))
        + sum(quantity for _, (allocation, quantity) in changed if allocation == name),
    )
