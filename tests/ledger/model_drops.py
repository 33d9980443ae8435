"""Drops in the model ledger: reading them, and operator acts, each all or nothing."""

from collections import ChainMap
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from typing import Any

import msgspec

from flashsale.domain import Allocation, Drop, FcodeBatch, Texts
from flashsale.ledger import Act, ArmState, AuditLine, Batch, DropStore, Epoch, NewBatch, Units
from flashsale.ledger.drops import FIELDS_PER_PART_MAX, Part
from tests.ledger.model_fcodes import code_number, codes_alive, read_owners, spent_of
from tests.ledger.model_rows import EPOCH_ZERO, AllocationRow, BrokenRule, DropRow, ReservationRow, Tables

LOOKED_AFTER = timedelta(hours=1)


class _Draft:
    """What an act sees: its own changes over what is committed."""

    def __init__(self, tables: Tables) -> None:
        self.allocations = ChainMap(dict[tuple[str, str], AllocationRow](), tables.allocations)
        self.batches = ChainMap(dict[int, Batch](), tables.batches)
        self.revoked = ChainMap(dict[tuple[int, int], bool](), tables.revoked)

        self.words: dict[str, tuple[Texts, str | None]] = {}

    def install(self, t: Tables) -> None:
        """Commit."""
        t.words.update(self.words)
        for allocation in self.allocations.maps[0].values():
            t.put_allocation(allocation)
        for batch in self.batches.maps[0].values():
            t.put(t.batches, batch.id, batch)
        for code in self.revoked.maps[0]:
            t.put(t.revoked, code, True)


class ModelAct(Act):
    """An operator's act on one drop; what it writes is seen by others at its end."""

    def __init__(self, tables: Tables, drop: DropRow, next_batch: Iterator[int]) -> None:
        self._tables = tables
        self._numbers = next_batch
        self.draft = _Draft(tables)
        self.drop_id = drop.id
        self.title = drop.title
        self.paused = drop.paused
        self.closed = drop.closed
        self.held = drop.held
        self.fcodes_stopped = drop.fcodes_stopped

    async def current(self) -> Drop:
        return told(self._tables, self._tables.drops[self.drop_id], self.draft.allocations)

    def _write(self, row: AllocationRow) -> None:
        row.check()
        self.draft.allocations[row.drop, row.id] = row

    async def words(self) -> tuple[Texts, str | None]:
        return self._tables.words.get(self.drop_id, (Texts(), None))

    async def put_words(self, texts: Texts, picture: str | None) -> None:
        self.draft.words[self.drop_id] = texts, picture

    async def add_allocation(self, allocation: Allocation) -> bool:
        mine = [a for a in self.draft.allocations.values() if a.drop == self.drop_id]
        row = row_of(self.drop_id, allocation, 1 + max((a.position for a in mine), default=0))
        row.check()
        if (row.drop, row.id) in self.draft.allocations:
            return False
        self._write(row)
        return True

    async def lock_allocation(self, allocation_id: str) -> dict[str, Any] | None:
        row = self.draft.allocations.get((self.drop_id, allocation_id))
        if row is None:
            return None
        alive = codes_alive(self._tables, row, self.draft.batches, self.draft.revoked) if row.sells_codes else 0
        told = {name: getattr(row, name) for name in ("id", "quantity", "taken", "opens_at", "closes_at", "channel")}
        return told | {"kind": _kind(row), "alive": alive}

    async def update_allocation(
        self, allocation_id: str, *, quantity: int, opens_at: datetime, closes_at: datetime, channel: str | None
    ) -> None:
        row = self.draft.allocations.get((self.drop_id, allocation_id))
        if row is not None:
            self._write(
                msgspec.structs.replace(row, quantity=quantity, opens_at=opens_at, closes_at=closes_at, channel=channel)
            )

    async def next_batch(self) -> int:
        return next(self._numbers)

    async def mint(self, new: NewBatch) -> Batch:
        known = (self.drop_id, new.allocation) in self.draft.allocations
        if not known or new.id in self.draft.batches or new.count < 1:
            raise BrokenRule(f"fcode_batches: {new}")
        batch = Batch(
            id=new.id,
            drop=self.drop_id,
            allocation=new.allocation,
            count=new.count,
            bound=new.bound,
            key_version=new.key_version,
            key_fingerprint=new.key_fingerprint,
            created_at=self._tables.now(),
            expires_at=new.expires_at,
            revoked_at=None,
            note=new.note,
        )
        self.draft.batches[batch.id] = batch
        return batch

    async def revoke(self, batch: int, serials: Sequence[int] | None) -> None:
        found = self.draft.batches.get(batch)
        if serials is not None:
            self.draft.revoked |= {(batch, serial): True for serial in serials}
        elif found is not None and found.revoked_at is None:
            self.draft.batches[batch] = msgspec.structs.replace(found, revoked_at=self._tables.now())

    async def move_units(self, from_allocation: str, to_allocation: str, count: int) -> None:
        for name, more in ((from_allocation, -count), (to_allocation, count)):
            row = self.draft.allocations.get((self.drop_id, name))
            if row is not None:
                self._write(msgspec.structs.replace(row, quantity=row.quantity + more))


class ModelDrops(DropStore):
    """All drops. Each call is one atomic step; an act is one at its end, and keeps other writers of its drop out."""

    def __init__(self, tables: Tables, batch_numbers: Iterator[int]) -> None:
        self._tables = tables
        self._numbers = batch_numbers

    def _drop(self, row: DropRow) -> Drop:
        return told(self._tables, row, self._tables.allocations)

    async def get(self, drop_id: str) -> Drop | None:
        row = self._tables.drops.get(drop_id)
        return None if row is None else self._drop(row)

    async def page(self, after: str | None, limit: int) -> list[Drop]:
        found = [
            row for i, row in sorted(self._tables.drops.items()) if (after is None or i > after) and not row.hidden
        ]
        return [self._drop(row) for row in found[:limit]]

    async def epochs(self) -> list[Epoch]:
        since = self._tables.now() - LOOKED_AFTER
        wanted = {a.drop for a in self._tables.allocations.values() if a.closes_at > since}
        wanted |= {r.drop for r in self._tables.reservations.values() if r.released is False}
        return [Epoch(d.id, d.epoch) for d in self._tables.drops.values() if d.id in wanted]

    async def create(self, drop: Drop, *, actor: str, detail: object) -> bool:
        with self._tables.transaction() as t:
            born = t.next_epoch(0)
            row = DropRow(
                id=drop.id,
                title=drop.title,
                price=drop.price,
                list_price=drop.list_price,
                per_member=drop.per_member,
                hold_seconds=drop.hold_seconds,
                epoch=born,
                paused=drop.held,
                closed=False,
                created_at=EPOCH_ZERO + timedelta(milliseconds=born),
                rebuy_after_return=drop.rebuy_after_return,
                stripes=drop.stripes,
                held=drop.held,
                hidden=drop.hidden,
            )
            row.check()
            if drop.id in t.drops:
                return False
            t.put_drop(row)
            for allocation in drop.allocations:
                if (drop.id, allocation.id) not in t.allocations:
                    t.put_allocation(row_of(drop.id, allocation, 1 + len(t.allocations_of(drop.id))))
            if drop.texts != Texts() or drop.picture is not None:
                t.words[drop.id] = drop.texts, drop.picture
            t.write_audit(actor, "drop.create", drop.id, detail)
            return True

    @contextmanager
    def _acting(self, drop_id: str, actor: str, action: str, subject: str, detail: object) -> Iterator[ModelAct]:
        """With the drop locked: an act, and what its end writes."""
        self._tables.lock_drop(drop_id)
        try:
            act = ModelAct(self._tables, self._tables.drops[drop_id], self._numbers)
            yield act
            with self._tables.transaction() as t:
                act.draft.install(t)
                row, epoch = t.drops[drop_id], t.next_epoch(t.drops[drop_id].epoch)
                switches = {
                    name: getattr(act, name) for name in ("title", "paused", "closed", "held", "fcodes_stopped")
                }
                t.put_drop(msgspec.structs.replace(row, **switches, epoch=epoch))
                t.write_audit(actor, action, subject, detail)
        finally:
            self._tables.free_drop(drop_id)

    @asynccontextmanager
    async def act(
        self, drop_id: str, *, actor: str, action: str, subject: str, detail: object
    ) -> AsyncIterator[Act | None]:
        await self._tables.drop_is_free(drop_id)
        if drop_id not in self._tables.drops:
            yield None
            return
        with self._acting(drop_id, actor, action, subject, detail) as act:
            yield act

    @asynccontextmanager
    async def act_after_binding(
        self,
        drop_id: str,
        rows: AsyncIterator[bytes],
        *,
        actor: str,
        action: str,
        subject: str,
        detail: object,
        max_s: float,  # noqa: ARG002 -- as the ledger has it
    ) -> AsyncIterator[tuple[Act, int, int] | None]:
        batch = next(self._numbers)
        owners = await read_owners(rows)
        await self._tables.drop_is_free(drop_id)
        if drop_id not in self._tables.drops:
            yield None
        else:
            with self._acting(drop_id, actor, action, subject, detail) as act:
                yield act, batch, len(owners)
        with self._tables.transaction() as t:
            for owner in owners:
                t.put(t.bound, (batch, owner.serial), owner)

    async def note(self, *, actor: str, action: str, subject: str, detail: object) -> None:
        with self._tables.transaction() as t:
            t.write_audit(actor, action, subject, detail)

    async def bump(self, drop_id: str) -> int | None:
        await self._tables.drop_is_free(drop_id)
        with self._tables.transaction() as t:
            row = t.drops.get(drop_id)
            if row is None:
                return None
            t.put_drop(msgspec.structs.replace(row, epoch=t.next_epoch(row.epoch)))
            return t.drops[drop_id].epoch

    @asynccontextmanager
    async def read_for_arming(
        self, drop_id: str, epoch: int
    ) -> AsyncIterator[tuple[ArmState, AsyncIterator[Part]] | None]:
        t, drop = self._tables, await self.get(drop_id)
        if drop is None or drop.epoch != epoch:
            yield None
            return
        rows = t.reservations_of(drop_id)
        free = {
            a.id: a.quantity - sum(r.quantity for r in rows if r.live and r.allocation == a.id)
            for a in t.allocations_of(drop_id)
        }
        mine = [b for _, b in sorted(t.batches.items()) if b.drop == drop_id]
        batches = [
            FcodeBatch(
                id=b.id,
                allocation=b.allocation,
                count=b.count,
                expires_at=b.expires_at,
                revoked=b.revoked_at is not None,
                bound=b.bound,
            )
            for b in mine
        ]
        spent = [code_number(b.id, serial) for b in mine for serial in spent_of(t, b.id)]
        revoked = [code_number(*code) for code in t.revoked if any(b.id == code[0] for b in mine)]
        yield ArmState(drop, free, batches, spent, revoked), _parts(rows, drop.stripes)

    async def balance(self, drop_id: str, grant_ids: list[str]) -> list[Units]:
        rows, wanted = self._tables.reservations_of(drop_id), set(grant_ids)

        def units(a: AllocationRow) -> Units:
            live = [r for r in rows if r.allocation == a.id and r.live]
            held = sum(r.quantity for r in live if r.order is None)
            confirmed = sum(r.quantity for r in live) - held
            named = frozenset(r.id for r in live if r.id in wanted)
            return Units(self._tables.drops[drop_id].epoch, a.id, a.quantity, a.taken, held, confirmed, named)

        return [units(a) for a in self._tables.allocations_of(drop_id)]

    async def taken(self, drop_ids: list[str]) -> dict[tuple[str, str], int]:
        return {(a.drop, a.id): a.taken for a in self._tables.allocations.values() if a.drop in drop_ids}

    async def audit(self, subject: str | None, before: int | None, limit: int) -> list[AuditLine]:
        lines = [
            line
            for number, line in sorted(self._tables.audit.items(), reverse=True)
            if before is None or number < before
        ]
        below = [x for x in lines if subject is None or f"{x.subject}/".startswith(f"{subject}/")]
        return below[:limit]


def told(tables: Tables, row: DropRow, allocations: Mapping[tuple[str, str], AllocationRow]) -> Drop:
    """A drop as the ledger's methods return it."""
    mine = sorted((a for a in allocations.values() if a.drop == row.id), key=lambda a: a.position)
    texts, picture = tables.words.get(row.id, (Texts(), None))
    return Drop(
        id=row.id,
        title=row.title,
        price=row.price,
        list_price=row.list_price,
        per_member=row.per_member,
        hold_seconds=row.hold_seconds,
        epoch=row.epoch,
        paused=row.paused,
        closed=row.closed,
        allocations=tuple(
            Allocation(
                id=a.id,
                quantity=a.quantity,
                opens_at=a.opens_at,
                closes_at=a.closes_at,
                access=a.access,
                channel=a.channel,
                eligible_set=tables.eligible_sets.get(a.eligible) if a.eligible is not None else None,
            )
            for a in mine
        ),
        created_at=row.created_at,
        rebuy_after_return=row.rebuy_after_return,
        stripes=row.stripes,
        texts=texts,
        picture=picture,
        held=row.held,
        hidden=row.hidden,
        fcodes_stopped=row.fcodes_stopped or bool(tables.fcode_stop),
    )


def row_of(drop_id: str, a: Allocation, position: int) -> AllocationRow:
    """A new allocation."""
    return AllocationRow(
        drop=drop_id,
        id=a.id,
        position=position,
        quantity=a.quantity,
        taken=0,
        opens_at=a.opens_at,
        closes_at=a.closes_at,
        access=a.access,
        channel=a.channel,
    )


def _kind(row: AllocationRow) -> str:
    kind: str = msgspec.to_builtins(row.access)["kind"]
    return kind


async def _parts(rows: list[ReservationRow], stripes: int) -> AsyncIterator[Part]:
    """[member, entries, …]: what each stripe must know of those who count, each member once.

    Where the unit is not at home, the claim is at home and says so, and the unit where it is.
    """
    told: list[dict[str, list[str]]] = [{} for _ in range(stripes)]
    for r in rows:
        if not r.counts:
            continue
        home, unit = (r.home, r.unit) if stripes > 1 else (0, 0)
        where = "" if r.keeps_slot else r.allocation
        code = "" if r.code is None else str(r.code)
        line = "\t".join((r.id, where, str(r.quantity), str(r.slot), r.key or "", r.payload, code))
        apart = home != unit and not r.keeps_slot
        told[home].setdefault(str(r.member), []).append(line + "@" if apart else line)
        if apart:
            told[unit].setdefault(str(r.member), []).append(line)
    for stripe, lines in enumerate(told):
        fields = [text for member, mine in lines.items() for text in (member, "\n".join(mine))]
        for at in range(0, len(fields), FIELDS_PER_PART_MAX):
            yield stripe, fields[at : at + FIELDS_PER_PART_MAX]
