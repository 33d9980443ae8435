"""Points snapshots in the ledger: their import, one member's points, and the eligible members as the gate holds them.

Snapshots never change (I7): an import is one transaction, and triggers refuse every later write.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from typing import Final

import msgspec

from flashsale.ledger.pool import Executor, Pool
from flashsale.ledger.statements import sql

IMPORT_TIMEOUT_S: Final = 3_600
BUILD_TIMEOUT_S: Final = 600


class Snapshot(msgspec.Struct, frozen=True):
    """One points snapshot; `cutoff` in the zone in which it was named at the import."""

    id: str
    cutoff: datetime
    members: int


class Taken(msgspec.Struct, frozen=True):
    """There is a snapshot of that name; or, with `under_way`, it is just being imported."""

    under_way: bool


class DuplicateMember(msgspec.Struct, frozen=True):
    """A member has a second entry at `line`, after the one at `first_line`."""

    member: int
    line: int
    first_line: int


class EligibleInfo(msgspec.Struct, frozen=True):
    """How many members a computed list has, and in how many gate fields (`chunks`, without the sentinel)."""

    members: int
    chunks: int


class PointsStore:
    """Everything the ledger knows about points."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def import_snapshot(
        self, snapshot: str, cutoff: datetime, actor: str, rows: AsyncIterator[bytes]
    ) -> Snapshot | Taken | DuplicateMember:
        """Store a new snapshot and its audit line in one transaction.

        `rows` yields CSV of `line,member,points`, checked already; what it raises passes through, and nothing is
        stored. `cutoff` carries its zone. A connection is taken as long as `rows` goes on.
        """
        async with _long_transaction(self._pool, IMPORT_TIMEOUT_S) as connection:
            return await _import(connection, snapshot, cutoff, actor, rows)

    async def snapshot(self, snapshot: str) -> Snapshot | None:
        """Tell about one snapshot; None: there is none of that name."""
        row = await self._pool.fetchrow(sql("points_snapshot"), snapshot)
        if row is None:
            return None
        zone = timezone(timedelta(seconds=row["cutoff_offset_s"]))
        return Snapshot(row["id"], row["cutoff"].astimezone(zone), row["members"])

    async def points_of(self, snapshot: str, member: int) -> int | None:
        """Look up one member's points; None: no such snapshot, or the member is not in it."""
        points: int | None = await self._pool.fetchval(sql("points_of_member"), snapshot, member)
        return points

    async def build_eligible(self, snapshot: str, at_least: int) -> EligibleInfo | None:
        """Compute who has at least so many points, once per snapshot and number; None: there is no such snapshot.

        Postgres does the work, all or nothing. Of several calls at a time one computes and the others wait for it.
        """
        async with _long_transaction(self._pool, BUILD_TIMEOUT_S) as connection:
            no = await connection.fetchval(sql("points_lock_snapshot"), snapshot, timeout=BUILD_TIMEOUT_S)
            if no is None:
                return None
            row = await connection.fetchrow(sql("points_eligible_info"), snapshot, at_least)
            if row is None:
                statement = sql("points_build_eligible")
                row = await connection.fetchrow(statement, snapshot, no, at_least, timeout=BUILD_TIMEOUT_S)
            return EligibleInfo(row["members"], row["chunks"])

    async def eligible_info(self, snapshot: str, at_least: int) -> EligibleInfo | None:
        """Count the computed list; None: `build_eligible` has not computed it."""
        row = await self._pool.fetchrow(sql("points_eligible_info"), snapshot, at_least)
        return None if row is None else EligibleInfo(row["members"], row["chunks"])

    async def eligible_parts(self, snapshot: str, at_least: int) -> AsyncIterator[bytes]:
        """Yield the computed list part by part, each a MessagePack array `[field, value, field, value, …]`.

        Fields and values are byte strings (`eligibility` tells their form), at most 2,000 fields and 300 KB a part;
        the sentinel is not among them. Between two parts no connection is held.
        """
        part = -1
        while True:
            row = await self._pool.fetchrow(sql("points_eligible_part"), snapshot, at_least, part)
            if row is None:
                return
            part = row["part"]
            yield row["fields"]


@asynccontextmanager
async def _long_transaction(pool: Pool, timeout_s: int) -> AsyncIterator[Executor]:
    # Millions of rows take longer, up to their commit, than the pool lets a call last.
    async with pool.connection(timeout_s) as connection:
        await connection.execute("BEGIN")
        try:
            await connection.execute(sql("points_long_work"), f"{timeout_s}s")
            yield connection
        except BaseException:
            await connection.execute("ROLLBACK", timeout=timeout_s)
            raise
        await connection.execute("COMMIT", timeout=timeout_s)


async def _import(
    connection: Executor, snapshot: str, cutoff: datetime, actor: str, rows: AsyncIterator[bytes]
) -> Snapshot | Taken | DuplicateMember:
    if not await connection.fetchval(sql("points_reserve_name"), snapshot):
        return Taken(under_way=True)
    if await connection.fetchrow(sql("points_snapshot"), snapshot) is not None:
        return Taken(under_way=False)
    created = await connection.fetchrow(sql("points_create"))
    status = await connection.copy_to_table(
        created["table_name"],
        columns=["line", "member", "points"],
        source=rows,
        format="csv",
        freeze=True,
        timeout=IMPORT_TIMEOUT_S,
    )
    duplicate = await connection.fetchrow(sql("points_seal"), created["no"], timeout=IMPORT_TIMEOUT_S)
    if duplicate is not None:
        return DuplicateMember(duplicate["member"], duplicate["line"], duplicate["first_line"])
    stored = Snapshot(snapshot, cutoff, int(status.removeprefix("COPY ")))
    offset = cutoff.utcoffset() or timedelta()
    offset_s = int(offset.total_seconds())
    insert = sql("points_insert_snapshot")
    await connection.execute(insert, snapshot, created["no"], cutoff, offset_s, stored.members, actor)
    detail = msgspec.json.encode({"cutoff": cutoff, "members": stored.members}).decode()
    await connection.execute(sql("audit_insert"), actor, "points.import", snapshot, detail)
    return stored
