"""F-codes in the ledger: batches, whom their codes belong to, what is revoked and who spent what. No code is stored."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from flashsale.domain import FcodeBatch, State
from flashsale.ledger.pool import Executor, Pool
from flashsale.ledger.rows import Row
from flashsale.ledger.statements import sql

PART_MAX: Final = 5_000
SERIAL_BITS: Final = 22


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch of codes. `key_fingerprint` names the key that `key_version` stood for when it was minted."""

    id: int
    drop: str
    allocation: str
    count: int
    bound: bool
    key_version: int
    key_fingerprint: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    note: str | None


class Counts(msgspec.Struct, frozen=True):
    """A batch's codes by what became of them; `revoked` those that were not spent before."""

    held: int
    confirmed: int
    returned: int
    revoked: int


class Spent(msgspec.Struct, frozen=True):
    """A code that is spent: by whom, when, and what its reservation is now."""

    serial: int
    reservation: str
    member: int
    state: State
    at: datetime


class Bound(msgspec.Struct, frozen=True):
    """Whom a code belongs to."""

    serial: int
    member: int
    note: str | None


class OwnCode(msgspec.Struct, frozen=True):
    """A code that belongs to a member; `state` of the reservation that it was spent on, None while it is not."""

    batch: Batch
    serial: int
    note: str | None
    revoked: bool
    state: State | None
    reservation: str | None

    @property
    def number(self) -> int:
        """Batch and serial in one."""
        return self.batch.id << SERIAL_BITS | self.serial


def batch_of(row: Row) -> Batch:
    """A row of fcode_batches."""
    return Batch(
        id=row["id"],
        drop=row["drop_id"],
        allocation=row["allocation_id"],
        count=row["count"],
        bound=row["bound"],
        key_version=row["key_version"],
        key_fingerprint=row["key_fingerprint"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        note=row["note"],
    )


class Stop(msgspec.Struct, frozen=True):
    """Whether the F-codes of all drops are stopped: since when, by whom, why; `drops` that have stopped their own."""

    since: datetime | None
    actor: str | None
    reason: str | None
    drops: list[str]


class NewBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch to mint, under the number that `next_batch` gave."""

    id: int
    allocation: str
    count: int
    bound: bool
    key_version: int
    key_fingerprint: str
    expires_at: datetime | None
    note: str | None


async def next_batch(connection: Executor) -> int:
    """The number of a new batch."""
    return int(await connection.fetchval(sql("fcodes_next_batch")))


async def bind(connection: Executor, batch: int, rows: AsyncIterator[bytes], *, timeout_s: float) -> int:
    """Store whom a new batch's codes belong to: CSV `serial,member,note`, streamed; how many there are."""

    async def with_batch() -> AsyncIterator[bytes]:
        head = b"%d," % batch
        async for block in rows:
            yield b"".join(head + line for line in block.splitlines(keepends=True))

    status = await connection.copy_to_table(
        "fcode_bound",
        columns=["batch_id", "serial", "member", "note"],
        source=with_batch(),
        format="csv",
        timeout=timeout_s,
    )
    return int(status.removeprefix("COPY "))


async def insert_batch(connection: Executor, drop_id: str, new: NewBatch) -> Batch:
    """Write a batch; its allocation is locked, and has the units."""
    row = await connection.fetchrow(
        sql("fcodes_insert_batch"),
        new.id,
        drop_id,
        new.allocation,
        new.count,
        new.bound,
        new.key_version,
        new.key_fingerprint,
        new.expires_at,
        new.note,
    )
    return batch_of(row)


async def revoke(connection: Executor, batch: int, serials: Sequence[int] | None) -> None:
    """Honour these codes no more, or the whole batch."""
    if serials is None:
        await connection.execute(sql("fcodes_revoke_batch"), batch)
    else:
        await connection.execute(sql("fcodes_revoke_serials"), batch, serials)


async def for_arming(connection: Executor, drop_id: str) -> tuple[list[FcodeBatch], list[int], list[int]]:
    """What a gate must know of a drop's codes: its batches, the numbers that are spent, those that are revoked."""
    rows = await connection.fetch(sql("fcodes_of_drop"), drop_id)
    batches = [
        FcodeBatch(
            id=b.id,
            allocation=b.allocation,
            count=b.count,
            expires_at=b.expires_at,
            revoked=b.revoked_at is not None,
            bound=b.bound,
        )
        for b in map(batch_of, rows)
    ]
    if not batches:
        return [], [], []
    spent = [r["fcode"] for r in await connection.fetch(sql("fcodes_live_numbers"), drop_id)]
    revoked = [r["number"] for r in await connection.fetch(sql("fcodes_revoked_numbers"), drop_id)]
    return batches, spent, revoked


class FcodeStore:
    """All batches. What people look at is read through `reading`."""

    def __init__(self, reading: Pool) -> None:
        self._reading = reading

    async def stop(self) -> Stop:
        """How the switch of all F-codes stands."""
        row = await self._reading.fetchrow(sql("fcode_stop_get"))
        return Stop(row["at"], row["actor"], row["reason"], list(row["drops"]))

    async def switch(self, *, stopped: bool, actor: str, reason: str) -> list[str]:
        """Stop the F-codes of all drops, or honour them again; returns the drops whose epoch this changed.

        Switch, epochs and audit lines are one transaction: a grant of before does not commit after it. A drop that was
        set up at the same time may have been read for its gate before it; whoever calls looks for those.
        """
        detail = msgspec.json.encode({"reason": reason, "all": True}).decode()
        action = "fcodes.stop" if stopped else "fcodes.start"
        async with self._reading.transaction() as connection:
            if stopped:
                await connection.execute(sql("fcode_stop_set"), actor, reason)
            else:
                await connection.execute(sql("fcode_stop_clear"))
            bumped = sorted(row["id"] for row in await connection.fetch(sql("fcode_stop_bump")))
            await connection.execute(sql("audit_insert_many"), actor, action, ["fcodes", *bumped], detail)
        return bumped

    async def lanes(self) -> list[str]:
        """The drops that still sell by F-codes."""
        return [row["id"] for row in await self._reading.fetch(sql("fcode_lanes"))]

    async def get(self, batch: int) -> Batch | None:
        """One batch."""
        row = await self._reading.fetchrow(sql("fcodes_get"), batch)
        return None if row is None else batch_of(row)

    async def page(self, before: int | None, limit: int) -> list[Batch]:
        """Batches, newest first."""
        return [batch_of(row) for row in await self._reading.fetch(sql("fcodes_list"), before, limit)]

    async def of_drop(self, drop_id: str) -> list[Batch]:
        """The batches of a drop."""
        return [batch_of(row) for row in await self._reading.fetch(sql("fcodes_of_drop"), drop_id)]

    async def counts(self, batch: int) -> Counts:
        """A batch's codes by what became of them."""
        row = await self._reading.fetchrow(sql("fcodes_counts"), batch)
        spent: dict[str, Any] = msgspec.json.decode(row["spent"])
        return Counts(spent.get("held", 0), spent.get("confirmed", 0), spent.get("returned", 0), row["revoked"])

    async def spent(self, batch: int, after: int, limit: int) -> list[Spent]:
        """Who spent codes of a batch, by serial."""
        rows = await self._reading.fetch(sql("fcodes_spent"), batch, after, limit)
        return [Spent(r["serial"], str(r["id"]), r["member"], State(r["state"]), r["created_at"]) for r in rows]

    async def bound(self, batch: int, after: int) -> list[Bound]:
        """Whom codes of a batch belong to, by serial: at most `PART_MAX` after that one."""
        rows = await self._reading.fetch(sql("fcodes_bound_part"), batch, after, PART_MAX)
        return [Bound(r["serial"], r["member"], r["note"]) for r in rows]

    async def revoked(self, batch: int) -> set[int]:
        """The single codes of a batch that were revoked."""
        found: list[int] = []
        while True:
            last = found[-1] if found else -1
            rows = await self._reading.fetch(sql("fcodes_revoked_of"), batch, last, PART_MAX)
            found += [r["serial"] for r in rows]
            if len(rows) < PART_MAX:
                return set(found)

    async def mine(self, member: int, before: int | None, limit: int) -> list[OwnCode]:
        """Codes that belong to a member, newest batch first; before the code of that number."""
        rows = await self._reading.fetch(sql("fcodes_mine"), member, before, limit)
        return [
            OwnCode(
                batch=batch_of(r),
                serial=r["serial"],
                note=r["code_note"],
                revoked=r["code_revoked"],
                state=None if r["state"] is None else State(r["state"]),
                reservation=None if r["reservation_id"] is None else str(r["reservation_id"]),
            )
            for r in rows
        ]
