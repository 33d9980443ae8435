"""Drops in the ledger: reading them, and operator acts, each in one transaction with its epoch and its audit line."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import msgspec

from flashsale.domain import CODES_STRIPE, Allocation, Drop, Fcode, FcodeBatch, Texts
from flashsale.ledger import fcodes
from flashsale.ledger.pages import put_words, words_of
from flashsale.ledger.pool import Executor, Pool
from flashsale.ledger.rows import drop_of
from flashsale.ledger.statements import sql

COPY_BLOCK_BYTES: Final = 262_144
COPY_AHEAD_MAX: Final = 4
FIELDS_PER_PART_MAX: Final = 4_000

Part = tuple[int, list[str]]
"""What a stripe is told in one go: its number, and [member, entries, member, entries …]."""
ARMING_MAX_S: Final = 60


class Epoch(msgspec.Struct, frozen=True):
    """What every process polls of a drop each second."""

    drop: str
    epoch: int


class AuditLine(msgspec.Struct, frozen=True):
    """Who did what, when, on what, and why."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]


class Units(msgspec.Struct, frozen=True):
    """An allocation's units in the ledger; `live` are those of the ids asked for that are live."""

    epoch: int
    allocation: str
    quantity: int
    taken: int
    held: int
    confirmed: int
    live: frozenset[str]


class ArmState(msgspec.Struct, frozen=True):
    """What a rebuild copies: the drop as it is at its epoch, what each allocation has left, and its F-codes.

    `spent` and `revoked` are numbers of codes.
    """

    drop: Drop
    free: dict[str, int]
    batches: list[FcodeBatch]
    spent: list[int]
    revoked: list[int]

    def free_at(self, stripe: int) -> dict[str, int]:
        """What a stripe gets of what is left: a fair share, but of what is for F-codes all or nothing.

        Codes are spent on one stripe, so that is where their units are: no code is honoured twice, and none finds its
        unit gone elsewhere.
        """
        share = {}
        for a in self.drop.allocations:
            free, stripes = self.free[a.id], self.drop.stripes
            if isinstance(a.access, Fcode):
                share[a.id] = free if stripe == CODES_STRIPE else 0
            else:
                share[a.id] = free // stripes + (stripe < free % stripes)
        return share


class Act:
    """An operator's act on one drop: holds the drop's lock, bumps the epoch and writes the audit line at its end."""

    def __init__(self, connection: Executor, row: Any) -> None:  # noqa: ANN401 -- asyncpg's Record is untyped
        self._connection = connection
        self.drop_id: str = row["id"]
        self.title: str = row["title"]
        self.paused: bool = row["paused"]
        self.closed: bool = row["closed"]
        self.held: bool = row["held"]
        self.fcodes_stopped: bool = row["fcodes_stopped"]

    async def current(self) -> Drop:
        """The drop as this act finds it, and as it keeps it from everybody else."""
        return drop_of(await self._connection.fetchrow(sql("drop_list"), self.drop_id, None, 1))

    async def add_allocation(self, allocation: Allocation) -> bool:
        """Append an allocation; False when the name is taken."""
        return await _insert_allocation(self._connection, self.drop_id, allocation)

    async def lock_allocation(self, allocation_id: str) -> Any:  # noqa: ANN401 -- asyncpg's Record is untyped
        """The row (quantity, taken, opens_at, closes_at, channel, kind, alive), locked; None when there is none."""
        return await self._connection.fetchrow(sql("allocation_lock"), self.drop_id, allocation_id)

    async def update_allocation(
        self, allocation_id: str, *, quantity: int, opens_at: datetime, closes_at: datetime, channel: str | None
    ) -> None:
        """Write an allocation that `lock_allocation` has locked."""
        await self._connection.execute(
            sql("allocation_update"), self.drop_id, allocation_id, quantity, opens_at, closes_at, channel
        )

    async def words(self) -> tuple[Texts, str | None]:
        """What pages say of the drop, and the id of its picture."""
        return await words_of(self._connection, self.drop_id)

    async def put_words(self, texts: Texts, picture: str | None) -> None:
        """What pages say of the drop from now on."""
        await put_words(self._connection, self.drop_id, texts, picture)

    async def next_batch(self) -> int:
        """The number of a new batch of F-codes."""
        return await fcodes.next_batch(self._connection)

    async def mint(self, new: fcodes.NewBatch) -> fcodes.Batch:
        """Write a batch for an allocation that `lock_allocation` has locked and found to have the units."""
        return await fcodes.insert_batch(self._connection, self.drop_id, new)

    async def revoke(self, batch: int, serials: Sequence[int] | None) -> None:
        """Honour these codes of a batch, or all of it, no more."""
        await fcodes.revoke(self._connection, batch, serials)

    async def move_units(self, from_allocation: str, to_allocation: str, count: int) -> None:
        """Let so many free units change their allocation; both are locked."""
        await self._connection.execute(sql("allocation_resize"), self.drop_id, from_allocation, -count)
        await self._connection.execute(sql("allocation_resize"), self.drop_id, to_allocation, count)


async def _insert_allocation(connection: Executor, drop_id: str, a: Allocation) -> bool:
    access = msgspec.json.encode(a.access).decode()
    row = await connection.fetchrow(
        sql("allocation_insert"), drop_id, a.id, a.quantity, a.opens_at, a.closes_at, access, a.channel
    )
    return row is not None


async def _write(connection: Executor, act: Act) -> None:
    """What the act has set, under a new epoch."""
    switches = (act.paused, act.closed, act.held, act.fcodes_stopped)
    await connection.execute(sql("drop_update"), act.drop_id, act.title, *switches)


async def _audit(connection: Executor, actor: str, action: str, subject: str, detail: object) -> None:
    await connection.execute(sql("audit_insert"), actor, action, subject, msgspec.json.encode(detail).decode())


def _fields(lines: str, *, one_each: bool) -> list[str]:
    """[member, entries, member, entries …] out of lines "member TAB entry" as COPY writes them.

    The entries of a member who has several become lines of one text; `one_each` says that nobody has.
    """
    if "\\" in lines:  # the only sign COPY escapes that a key can hold
        lines = lines.replace("\\\\", "\\")
    if one_each:
        fields: list[str] = []
        for line in lines.split("\n"):  # not a list of pairs first: three times the time, for the collector
            fields.extend(line.split("\t", 1))
        return fields
    joined: dict[str, str] = {}
    for line in lines.split("\n"):
        member, entry = line.split("\t", 1)
        joined[member] = f"{joined[member]}\n{entry}" if member in joined else entry
    return [text for pair in joined.items() for text in pair]


def _parts(lines: str, *, one_each: bool) -> Iterator[list[str]]:
    fields = _fields(lines, one_each=one_each) if lines else []
    for at in range(0, len(fields), FIELDS_PER_PART_MAX):
        yield fields[at : at + FIELDS_PER_PART_MAX]


async def _copied(connection: Executor, query: str, *args: object) -> AsyncIterator[str]:
    """Blocks of whole lines, the last line's end cut off, while Postgres is still at work on the next ones."""
    blocks: asyncio.Queue[bytes | None] = asyncio.Queue(COPY_AHEAD_MAX)

    async def copy() -> None:
        try:
            await connection.copy_from_query(query, *args, output=blocks.put, timeout=ARMING_MAX_S)
        finally:
            await blocks.put(None)

    copying = asyncio.create_task(copy())
    try:
        begun: list[bytes] = []
        size = 0
        while (block := await blocks.get()) is not None:
            begun.append(block)
            size += len(block)
            if size >= COPY_BLOCK_BYTES and block.endswith(b"\n"):
                yield b"".join(begun)[:-1].decode()
                begun, size = [], 0
        await copying
        if begun:
            yield b"".join(begun)[:-1].decode()
    finally:
        copying.cancel()
        await asyncio.gather(copying, return_exceptions=True)


class DropStore:
    """All drops. What people look at is read through `reading`, so that no crowd of readers holds up a sale."""

    def __init__(self, pool: Pool, reading: Pool) -> None:
        self._pool = pool
        self._reading = reading

    async def get(self, drop_id: str) -> Drop | None:
        """One drop, as it is now."""
        row = await self._pool.fetchrow(sql("drop_list"), drop_id, None, 1)
        return None if row is None else drop_of(row)

    async def page(self, after: str | None, limit: int) -> list[Drop]:
        """Drops by id, after that one."""
        return [drop_of(row) for row in await self._reading.fetch(sql("drop_list"), None, after, limit)]

    async def epochs(self) -> list[Epoch]:
        """The epochs of the drops that need looking after: those that run, will run, or owe the gate a unit."""
        rows = await self._pool.fetch(sql("drop_epochs"))
        return [Epoch(r["id"], r["epoch"]) for r in rows]

    async def create(self, drop: Drop, *, actor: str, detail: object) -> bool:
        """A new drop with its allocations; False when the id is taken."""
        async with self._pool.transaction() as connection:
            list_price = drop.list_price
            epoch = await connection.fetchval(
                sql("drop_insert"),
                drop.id,
                drop.title,
                drop.price.amount,
                drop.price.currency,
                None if list_price is None else list_price.amount,
                None if list_price is None else list_price.currency,
                drop.per_member,
                drop.hold_seconds,
                drop.rebuy_after_return,
                drop.stripes,
            )
            if epoch is None:
                return False
            if drop.held or drop.hidden:
                await connection.execute(sql("drop_mark"), drop.id, drop.held, drop.hidden)
            for allocation in drop.allocations:
                await _insert_allocation(connection, drop.id, allocation)
            if drop.texts != Texts() or drop.picture is not None:
                await put_words(connection, drop.id, drop.texts, drop.picture)
            await _audit(connection, actor, "drop.create", drop.id, detail)
            return True

    @asynccontextmanager
    async def act(
        self, drop_id: str, *, actor: str, action: str, subject: str, detail: object
    ) -> AsyncIterator[Act | None]:
        """An operator's act: change, new epoch and audit line in one transaction. Yields None for an unknown drop.

        An exception inside leaves nothing behind.
        """
        async with self._pool.transaction() as connection:
            row = await connection.fetchrow(sql("drop_lock"), drop_id)
            if row is None:
                yield None
                return
            act = Act(connection, row)
            yield act
            await _write(connection, act)
            await _audit(connection, actor, action, subject, detail)

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
        max_s: float,
    ) -> AsyncIterator[tuple[Act, int, int] | None]:
        """An act that begins with storing to whom the codes of a new batch belong (CSV `serial,member,note`).

        Yields the act, the batch's number and how many codes it has. The drop is locked only when they are all stored.
        """
        async with self._reading.transaction(max_s=max_s) as connection:
            await connection.execute(sql("points_long_work"), f"{int(max_s)}s")
            batch = await fcodes.next_batch(connection)
            count = await fcodes.bind(connection, batch, rows, timeout_s=max_s)
            row = await connection.fetchrow(sql("drop_lock"), drop_id)
            if row is None:
                yield None
                return
            act = Act(connection, row)
            yield act, batch, count
            await _write(connection, act)
            await _audit(connection, actor, action, subject, detail)

    async def note(self, *, actor: str, action: str, subject: str, detail: object) -> None:
        """A line of the audit log for an act that changes nothing here."""
        async with self._pool.connection() as connection:
            await _audit(connection, actor, action, subject, detail)

    async def bump(self, drop_id: str) -> int | None:
        """A new epoch, committed before anything is read for a rebuild; None for an unknown drop."""
        epoch = await self._pool.fetchval(sql("drop_bump"), drop_id)
        return None if epoch is None else int(epoch)

    @asynccontextmanager
    async def read_for_arming(
        self, drop_id: str, epoch: int
    ) -> AsyncIterator[tuple[ArmState, AsyncIterator[Part]] | None]:
        """The state of a drop in one snapshot, and its live entries in parts, each for one stripe.

        Yields None when the ledger's epoch is no longer `epoch`: somebody else rebuilds.
        """
        snapshot = self._pool.transaction(ARMING_MAX_S, isolation="repeatable_read", readonly=True)
        async with snapshot as connection:
            await connection.fetchrow(sql("arming_time"), f"{ARMING_MAX_S}s")
            row = await connection.fetchrow(sql("drop_list"), drop_id, None, 1)
            if row is None or row["epoch"] != epoch:
                yield None
                return
            drop = drop_of(row)
            free = {
                r["id"]: int(r["free"])
                for r in await connection.fetch(sql("allocation_free"), drop_id, timeout=ARMING_MAX_S)
            }
            codes = await fcodes.for_arming(connection, drop_id)
            yield ArmState(drop, free, *codes), self._entries(connection, drop)

    @staticmethod
    async def _entries(connection: Executor, drop: Drop) -> AsyncIterator[Part]:
        one_each = drop.per_member == 1
        if drop.stripes > 1:
            waiting: list[list[str]] = [[] for _ in range(drop.stripes)]
            async for lines in _copied(connection, sql("live_entries_striped"), drop.id):
                for line in lines.split("\n"):
                    number, entry = line.split("\t", 1)
                    waiting[int(number)].append(entry)
                for stripe, entries in enumerate(waiting if one_each else ()):
                    if len(entries) >= FIELDS_PER_PART_MAX // 2:
                        yield stripe, _fields("\n".join(entries), one_each=True)
                        entries.clear()
            for stripe, entries in enumerate(waiting):
                for part in _parts("\n".join(entries), one_each=one_each):
                    yield stripe, part
        elif one_each:
            async for lines in _copied(connection, sql("live_entries"), drop.id):
                yield 0, _fields(lines, one_each=True)
        else:  # a member's entries may be anywhere in the stream
            everything = [lines async for lines in _copied(connection, sql("live_entries"), drop.id)]
            for part in _parts("\n".join(everything), one_each=False):
                yield 0, part

    async def balance(self, drop_id: str, grant_ids: list[str]) -> list[Units]:
        """Units by allocation in one snapshot; empty for an unknown drop."""
        rows = await self._reading.fetch(sql("balance"), drop_id, grant_ids)
        return [
            Units(
                epoch=r["epoch"],
                allocation=r["id"],
                quantity=r["quantity"],
                taken=r["taken"],
                held=int(r["held"]),
                confirmed=int(r["confirmed"]),
                live=frozenset(str(i) for i in r["live"]),
            )
            for r in rows
        ]

    async def taken(self, drop_ids: list[str]) -> dict[tuple[str, str], int]:
        """By (drop, allocation), how many units are taken."""
        rows = await self._reading.fetch(sql("units_taken"), drop_ids)
        return {(r["drop_id"], r["id"]): r["taken"] for r in rows}

    async def audit(self, subject: str | None, before: int | None, limit: int) -> list[AuditLine]:
        """The audit log, newest first."""
        rows = await self._reading.fetch(sql("audit_list"), subject, before, limit)
        return [
            AuditLine(r["id"], r["at"], r["actor"], r["action"], r["subject"], msgspec.json.decode(r["detail"]))
            for r in rows
        ]
