"""Reservations in the model ledger: commit, void, end, and what the gate still has to learn of them."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from flashsale.domain import Grant, Reservation, State, Verdict
from flashsale.ledger import Commit, Committed, Ended, Existing, ReservationStore, SecondLock, Stale, Standing
from tests.ledger.model_rows import BrokenRule, DropRow, ReservationRow, Tables


class ModelReservations(ReservationStore):
    """The reservations of all drops. Each call is one atomic step."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def commit(self, drop_id: str, grants: Sequence[Grant]) -> list[Commit]:
        await self._tables.drop_is_free(drop_id)
        with self._tables.transaction() as t:
            drop = t.drops.get(drop_id)
            if drop is None:
                raise BrokenRule(f"there is no drop {drop_id}")
            plain = self._commit_plain(drop, grants)
            return [plain.pop(g.id) if g.id in plain else self._commit(drop, g) for g in grants]

    def _commit_plain(self, drop: DropRow, grants: Sequence[Grant]) -> dict[str, Committed]:
        """The rule comes first: a limit of one, all granted under this epoch, and stock for all."""
        t, wanted, done = self._tables, Counter[str](), dict[str, Committed]()
        for g in grants:
            wanted[g.allocation] += g.quantity
        rows = {name: t.allocations.get((drop.id, name)) for name in wanted}
        enough = all(a is not None and a.taken + wanted[name] <= a.quantity for name, a in rows.items())
        if drop.per_member == 1 and enough and all(g.epoch == drop.epoch for g in grants):
            for g in grants:
                if g.slot == g.quantity == 1 and (committed := self._insert(drop, g)) is not None:
                    done[g.id] = committed
        return done

    def _commit(self, drop: DropRow, g: Grant) -> Commit:
        """The others, one after the other; nothing is remembered of those refused."""
        t = self._tables
        if (found := self._standing(drop.id, g)) is not None:
            return Existing(found.told())
        if g.epoch != drop.epoch:
            return Stale(drop.epoch, drop.paused and not drop.closed)
        allocation = t.allocations.get((drop.id, g.allocation))
        if allocation is None or allocation.quantity - allocation.taken < g.quantity:
            return SecondLock(Verdict.SOLD_OUT)
        mine = [r for r in t.reservations.values() if (r.drop, r.member) == (drop.id, g.member) and r.counts]
        used = sum(r.quantity for r in mine)
        if max(used + g.quantity, g.slot) > drop.per_member or any(r.slot == g.slot for r in mine):
            return SecondLock(Verdict.MEMBER_LIMIT)
        return self._insert(drop, g) or SecondLock(Verdict.FCODE_SPENT)

    def _insert(self, drop: DropRow, g: Grant) -> Committed | None:
        """A reservation, unless its id, key, slot or code is taken."""
        t = self._tables
        now = t.now()
        row = ReservationRow(
            id=g.id,
            drop=drop.id,
            allocation=g.allocation,
            member=g.member,
            quantity=g.quantity,
            slot=g.slot,
            key=g.key,
            payload=g.payload,
            code=g.code,
            epoch=drop.epoch,
            state=State.HELD,
            expires_at=now + timedelta(seconds=drop.hold_seconds),
            created_at=now,
            home=g.stripe,
            unit=g.unit_stripe,
        )
        if not t.insert_reservation(row):
            return None
        t.add_units(drop.id, g.allocation, taken=g.quantity)
        return Committed(row.expires_at)

    def _standing(self, drop_id: str, g: Grant) -> ReservationRow | None:
        """What stands under this id, whatever it is; or under this member's key, unless that is a tombstone."""
        if (found := self._tables.reservations.get(g.id)) is not None or g.key is None:
            return found
        mine = (r for r in self._tables.reservations.values() if (r.drop, r.member) == (drop_id, g.member))
        return next((r for r in mine if r.key == g.key and r.state is not State.VOID), None)

    async def void(self, drop_id: str, grants: Sequence[Grant]) -> list[Standing]:
        await self._tables.drop_is_free(drop_id)
        with self._tables.transaction() as t:
            now = t.now()
            for g in grants:
                tombstone = ReservationRow(
                    id=g.id,
                    drop=drop_id,
                    allocation=g.allocation,
                    member=g.member,
                    quantity=g.quantity,
                    slot=g.slot,
                    key=g.key,
                    payload=g.payload,
                    code=None,
                    epoch=grants[0].epoch,
                    state=State.VOID,
                    expires_at=now,
                    created_at=now,
                    ended_at=now,
                    released=True,
                )
                t.insert_reservation(tombstone)
            found = [t.reservations[i] for i in dict.fromkeys(g.id for g in grants)]
        return [Standing(r.id, r.member, r.state, r.keeps_slot, r.home, r.unit) for r in found]

    async def cancel(self, drop_id: str, ids: Sequence[str]) -> list[Reservation]:
        await self._tables.drop_is_free(drop_id)
        return self._ended(drop_id, ids, State.CANCELLED)

    async def due(self, limit: int) -> dict[str, list[str]]:
        now, by_drop = self._tables.now(), dict[str, list[str]]()
        due = [r for r in self._tables.reservations.values() if r.state is State.HELD and r.expires_at <= now]
        for row in sorted(due, key=lambda r: r.expires_at)[:limit]:
            by_drop.setdefault(row.drop, []).append(row.id)
        return by_drop

    async def expire(self, drop_id: str, ids: Sequence[str]) -> list[Reservation]:
        await self._tables.drop_is_free(drop_id)
        return self._ended(drop_id, ids, State.EXPIRED)

    def _ended(self, drop_id: str, ids: Sequence[str], state: State) -> list[Reservation]:
        """Only what is held ends; and what expires must be due."""
        with self._tables.transaction() as t:
            now, ended = t.now(), list[Reservation]()
            for found in (t.reservations.get(i) for i in dict.fromkeys(ids)):
                if found is None or found.drop != drop_id or found.state is not State.HELD:
                    continue
                if state is State.EXPIRED and found.expires_at > now:
                    continue
                row = msgspec.structs.replace(found, state=state, ended_at=now, released=False)
                t.change_reservation(row)
                t.add_units(drop_id, row.allocation, taken=-row.quantity)
                ended.append(row.told())
            return ended

    async def outbox(self, drop_id: str, limit: int) -> list[Ended]:
        waiting = [r for r in self._tables.reservations_of(drop_id) if r.released is False]
        return [
            Ended(r.id, r.drop, r.member, r.keeps_slot, r.state is State.RETURNED, r.home, r.unit)
            for r in waiting[:limit]
        ]

    async def mark_released(self, drop_id: str, ids: Sequence[str], epoch: int) -> int:
        await self._tables.drop_is_free(drop_id)
        with self._tables.transaction() as t:
            drop = t.drops.get(drop_id)
            if drop is None or drop.epoch != epoch:
                return 0
            wanted = set(ids)
            done = [r for r in t.reservations_of(drop_id) if r.id in wanted and r.released is False]
            for row in done:
                t.change_reservation(msgspec.structs.replace(row, released=True))
            return len(done)

    async def get(self, reservation_id: str) -> Reservation | None:
        found = self._tables.reservations.get(reservation_id)
        return None if found is None or found.state is State.VOID else found.told()

    async def list_of(self, member: int, after: tuple[datetime, str] | None, limit: int) -> list[Reservation]:
        rows = self._tables.reservations.values()
        mine = [r for r in rows if r.member == member and r.state is not State.VOID]
        older = [r for r in mine if after is None or (r.created_at, r.id) < after]
        older.sort(key=lambda r: (r.created_at, r.id), reverse=True)
        return [r.told() for r in older[:limit]]
