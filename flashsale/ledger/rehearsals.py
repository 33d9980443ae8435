"""Rehearsals in the ledger: which runs, in whatever process, and what each has to tell."""

from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from flashsale.ledger.pool import Pool
from flashsale.ledger.rows import Row
from flashsale.ledger.statements import sql

SILENT_MAX_S: Final = 30
RehearsalState = Literal["running", "done", "stopped", "failed"]


class Rehearsal(msgspec.Struct, frozen=True):
    """One rehearsal: of which drop, on which hidden copy, what was asked for, and what it told so far."""

    id: str
    drop: str
    copy: str
    state: RehearsalState
    started_at: datetime
    ended_at: datetime | None
    actor: str
    asked: dict[str, Any]
    told: dict[str, Any]


def _rehearsal_of(row: Row) -> Rehearsal:
    return Rehearsal(
        id=str(row["id"]),
        drop=row["drop_id"],
        copy=row["copy_id"],
        state=row["state"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        actor=row["actor"],
        asked=msgspec.json.decode(row["asked"]),
        told=msgspec.json.decode(row["told"]),
    )


class RehearsalStore:
    """All rehearsals. It is not needed for selling, and takes no connection from it."""

    def __init__(self, reading: Pool) -> None:
        self._reading = reading

    async def start(self, rehearsal: str, drop_id: str, copy: str, *, actor: str, asked: object) -> str | None:
        """Begin, with its line of the audit log; or the id of the one that runs already."""
        detail = msgspec.json.encode({"rehearsal": rehearsal, "copy": copy, "asked": asked}).decode()
        async with self._reading.transaction() as connection:
            await connection.execute(sql("rehearsal_bury"), SILENT_MAX_S)
            text = msgspec.json.encode(asked).decode()
            row = await connection.fetchrow(sql("rehearsal_start"), rehearsal, drop_id, copy, actor, text)
            if row is not None:
                await connection.execute(sql("audit_insert"), actor, "rehearsal.start", drop_id, detail)
                return None
            running = await connection.fetchrow(sql("rehearsal_running"))
        return "" if running is None else str(running["id"])

    async def beat(self, rehearsal: str, told: object) -> bool:
        """It still runs, and is so far; False when somebody has ended it."""
        text = msgspec.json.encode(told).decode()
        return await self._reading.fetchrow(sql("rehearsal_beat"), rehearsal, text) is not None

    async def tell(self, rehearsal: str, told: object) -> None:
        """What there is to tell of one that is over."""
        await self._reading.execute(sql("rehearsal_tell"), rehearsal, msgspec.json.encode(told).decode())

    async def end(self, rehearsal: str, state: RehearsalState) -> bool:
        """It is over; False when it was before."""
        return await self._reading.fetchrow(sql("rehearsal_end"), rehearsal, state) is not None

    async def stop(self, rehearsal: str, drop_id: str, *, actor: str) -> None:
        """An operator ends one that runs, with a line of the audit log. Its process notices within a second or two."""
        async with self._reading.transaction() as connection:
            if await connection.fetchrow(sql("rehearsal_end"), rehearsal, "stopped") is not None:
                detail = msgspec.json.encode({"rehearsal": rehearsal}).decode()
                await connection.execute(sql("audit_insert"), actor, "rehearsal.stop", drop_id, detail)

    async def get(self, drop_id: str, rehearsal: str) -> Rehearsal | None:
        """One rehearsal of a drop."""
        row = await self._reading.fetchrow(sql("rehearsal_list"), drop_id, rehearsal, None, 1)
        return None if row is None else _rehearsal_of(row)

    async def page(self, drop_id: str, before: str | None, limit: int) -> list[Rehearsal]:
        """Rehearsals of a drop, newest first."""
        await self._reading.execute(sql("rehearsal_bury"), SILENT_MAX_S)
        return [
            _rehearsal_of(row) for row in await self._reading.fetch(sql("rehearsal_list"), drop_id, None, before, limit)
        ]
