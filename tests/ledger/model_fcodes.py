"""F-codes and points in the model ledger: batches, owners, what is spent and revoked; snapshots, who is eligible."""

import csv
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta

import msgspec

from fcodes import CODES_PER_BATCH_MAX
from flashsale.domain import State
from flashsale.eligibility import FIELDS_PER_PART_MAX, encode_chunk, gate_field
from flashsale.ledger import Batch, Bound, Counts, FcodeStore, OwnCode, PointsStore, Spent, Stop
from flashsale.ledger.fcodes import PART_MAX
from flashsale.ledger.points import DuplicateMember, EligibleInfo, Snapshot, Taken
from tests.gate.support import pack_fields
from tests.ledger.model_rows import AllocationRow, FcodeStop, ReservationRow, Tables


def code_number(batch: int, serial: int) -> int:
    """Batch and serial in one."""
    return batch * CODES_PER_BATCH_MAX + serial


def spent_of(tables: Tables, batch: int) -> dict[int, ReservationRow]:
    """By serial, the reservations that spend a code of the batch."""
    spending = {r.code: r for r in tables.reservations.values() if r.code is not None and r.spends}
    mine = {code % CODES_PER_BATCH_MAX: r for code, r in spending.items() if code // CODES_PER_BATCH_MAX == batch}
    return dict(sorted(mine.items()))


def codes_alive(
    tables: Tables, row: AllocationRow, batches: Mapping[int, Batch], revoked: Mapping[tuple[int, int], bool]
) -> int:
    """How many codes of an allocation may still be spent."""
    alive, now = 0, tables.now()
    for b in batches.values():
        over = b.revoked_at is not None or (b.expires_at is not None and b.expires_at <= now)
        if (b.drop, b.allocation) == (row.drop, row.id) and not over:
            spent = spent_of(tables, b.id).keys()
            alive += b.count - len(spent | {serial for batch, serial in revoked if batch == b.id})
    return alive


async def read_owners(rows: AsyncIterator[bytes]) -> list[Bound]:
    """CSV `serial,member,note`."""
    text = b"".join([block async for block in rows]).decode()
    return [Bound(int(serial), int(member), note or None) for serial, member, note in csv.reader(text.splitlines())]


class ModelFcodes(FcodeStore):
    """All batches. Each call is one atomic step."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def get(self, batch: int) -> Batch | None:
        return self._tables.batches.get(batch)

    async def page(self, before: int | None, limit: int) -> list[Batch]:
        known = sorted(self._tables.batches.items(), reverse=True)
        return [b for number, b in known if before is None or number < before][:limit]

    async def of_drop(self, drop_id: str) -> list[Batch]:
        return [b for _, b in sorted(self._tables.batches.items()) if b.drop == drop_id]

    def _revoked_of(self, batch: int) -> set[int]:
        return {serial for number, serial in self._tables.revoked if number == batch}

    async def counts(self, batch: int) -> Counts:
        spent, found = spent_of(self._tables, batch), self._tables.batches[batch]
        held, confirmed, returned = (sum(r.state is state for r in spent.values()) for state in _SPENT_STATES)
        over = found.count - len(spent) if found.revoked_at is not None else len(self._revoked_of(batch) - spent.keys())
        return Counts(held, confirmed, returned, over)

    async def spent(self, batch: int, after: int, limit: int) -> list[Spent]:
        found = [(serial, r) for serial, r in spent_of(self._tables, batch).items() if serial > after][:limit]
        return [Spent(serial, r.id, r.member, r.state, r.created_at) for serial, r in found]

    async def bound(self, batch: int, after: int) -> list[Bound]:
        mine = [owner for (number, serial), owner in self._tables.bound.items() if number == batch and serial > after]
        return sorted(mine, key=lambda owner: owner.serial)[:PART_MAX]

    async def revoked(self, batch: int) -> set[int]:
        return self._revoked_of(batch)

    async def mine(self, member: int, before: int | None, limit: int) -> list[OwnCode]:
        t, found = self._tables, list[OwnCode]()
        for (number, serial), owner in sorted(t.bound.items(), reverse=True):
            earlier = before is None or code_number(number, serial) < before
            if owner.member == member and earlier and number in t.batches:
                row = spent_of(t, number).get(serial)
                found.append(
                    OwnCode(
                        batch=t.batches[number],
                        serial=serial,
                        note=owner.note,
                        revoked=(number, serial) in t.revoked,
                        state=None if row is None else row.state,
                        reservation=None if row is None else row.id,
                    )
                )
        return found[:limit]

    async def stop(self) -> Stop:
        t = self._tables
        own = sorted(d.id for d in t.drops.values() if d.fcodes_stopped and not d.closed)
        for row in t.fcode_stop.values():
            return Stop(row.at, row.actor, row.reason, own)
        return Stop(None, None, None, own)

    async def switch(self, *, stopped: bool, actor: str, reason: str) -> list[str]:
        for drop_id in await self.lanes():
            await self._tables.drop_is_free(drop_id)
        lanes = await self.lanes()
        with self._tables.transaction() as t:
            if not stopped:
                t.remove(t.fcode_stop, True)
            elif not t.fcode_stop:
                t.put(t.fcode_stop, True, FcodeStop(True, t.now(), actor, reason))
            for drop_id in lanes:
                row = t.drops[drop_id]
                t.put_drop(msgspec.structs.replace(row, epoch=t.next_epoch(row.epoch)))
            for subject in ("fcodes", *lanes):
                detail = {"reason": reason, "all": True}
                t.write_audit(actor, "fcodes.stop" if stopped else "fcodes.start", subject, detail)
        return lanes

    async def lanes(self) -> list[str]:
        since = self._tables.now() - timedelta(hours=1)
        return sorted({a.drop for a in self._tables.allocations.values() if a.sells_codes and a.closes_at > since})


_SPENT_STATES = (State.HELD, State.CONFIRMED, State.RETURNED)


class ModelPoints(PointsStore):
    """Everything the ledger knows about points. Each call is one atomic step."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._snapshots: dict[str, Snapshot] = {}
        self._points: dict[str, dict[int, int]] = {}

    def put(self, snapshot: Snapshot, points: dict[int, int]) -> None:
        """Store a snapshot at once."""
        self._snapshots[snapshot.id] = snapshot
        self._points[snapshot.id] = points

    async def import_snapshot(
        self, snapshot: str, cutoff: datetime, actor: str, rows: AsyncIterator[bytes]
    ) -> Snapshot | Taken | DuplicateMember:
        if snapshot in self._snapshots:
            return Taken(under_way=False)
        text = b"".join([block async for block in rows]).decode()
        points: dict[int, int] = {}
        lines: dict[int, int] = {}
        for line, member, count in (map(int, fields) for fields in csv.reader(text.splitlines())):
            if member in points:
                return DuplicateMember(member, line, lines[member])
            points[member], lines[member] = count, line
        with self._tables.transaction() as t:
            self.put(stored := Snapshot(snapshot, cutoff, len(points)), points)
            t.write_audit(actor, "points.import", snapshot, {"cutoff": cutoff, "members": len(points)})
        return stored

    async def snapshot(self, snapshot: str) -> Snapshot | None:
        return self._snapshots.get(snapshot)

    async def points_of(self, snapshot: str, member: int) -> int | None:
        return self._points.get(snapshot, {}).get(member)

    def _fields(self, snapshot: str, at_least: int) -> dict[str, bytes]:
        """As the gate holds them."""
        thousands: dict[str, list[int]] = {}
        for member, points in sorted(self._points[snapshot].items()):
            if points >= at_least:
                field, lo = gate_field(member)
                thousands.setdefault(field, []).append(lo)
        return {field: encode_chunk(los) for field, los in thousands.items()}

    async def build_eligible(self, snapshot: str, at_least: int) -> EligibleInfo | None:
        if snapshot not in self._snapshots:
            return None
        self._tables.eligible_sets.setdefault((snapshot, at_least), f"{snapshot}-{at_least}")
        return await self.eligible_info(snapshot, at_least)

    async def eligible_info(self, snapshot: str, at_least: int) -> EligibleInfo | None:
        if (snapshot, at_least) not in self._tables.eligible_sets:
            return None
        members = sum(points >= at_least for points in self._points[snapshot].values())
        return EligibleInfo(members, len(self._fields(snapshot, at_least)))

    async def eligible_parts(self, snapshot: str, at_least: int) -> AsyncIterator[bytes]:
        if (snapshot, at_least) not in self._tables.eligible_sets:
            return
        fields = [*self._fields(snapshot, at_least).items()]
        for at in range(0, len(fields), FIELDS_PER_PART_MAX):
            part = fields[at : at + FIELDS_PER_PART_MAX]
            yield pack_fields([text for field, value in part for text in (field.encode(), value)])
