"""What the operators' console reads of the ledger beside what everybody does. It decides nothing."""

from datetime import datetime, timedelta
from typing import Final

import msgspec

from flashsale.ledger.pool import Pool
from flashsale.ledger.statements import sql


class Holds(msgspec.Struct, frozen=True):
    """Units that are held and confirmed; how many holds end within one minute, and within five."""

    held: int
    confirmed: int
    ending_1m: int
    ending_5m: int


class Outgoing(msgspec.Struct, frozen=True):
    """The orders of what is confirmed, by where they are."""

    waiting: int
    delivered: int
    dead: int


class Happened(msgspec.Struct, frozen=True):
    """What happened in a drop within a step of time that begins at `at`, Unix seconds; in units."""

    at: int
    granted: int
    confirmed: int
    cancelled: int
    expired: int
    returned: int


REPORT_MAX_S: Final = 60
SKEW: Final = timedelta(minutes=5)
"""By so much the clock of who made an id may differ from the ledger's."""


def id_at(moment: datetime) -> str:
    """The least id that could be made at a moment: they begin with Unix milliseconds (`ids`)."""
    text = f"{max(0, int(moment.timestamp() * 1_000)):012x}"
    return f"{text[:8]}-{text[8:12]}-0000-0000-000000000000"


def asked_ms(reservation: str) -> int:
    """When the id was made, Unix ms."""
    return int(reservation[:8] + reservation[9:13], 16)


class ConsoleStore:
    """All of it is read through the pool of what people look at: no commit waits for an operator's page."""

    def __init__(self, reading: Pool) -> None:
        self._reading = reading

    async def now(self) -> datetime:
        """The ledger's clock."""
        found: datetime = await self._reading.fetchval(sql("clock"))
        return found

    async def codes_alive(self, drop_id: str) -> dict[str, int]:
        """By allocation for F-codes, how many codes may still be spent."""
        rows = await self._reading.fetch(sql("allocation_alive"), drop_id)
        return {row["id"]: row["alive"] for row in rows}

    async def holds(self, drop_id: str, ending_max: int) -> Holds:
        """A drop's holds; of those that end soon, the next `ending_max` are counted."""
        row = await self._reading.fetchrow(sql("live_holds"), drop_id, ending_max)
        return Holds(int(row["held"]), int(row["confirmed"]), row["ending_1m"], row["ending_5m"])

    async def outgoing(self, drop_id: str) -> Outgoing:
        """Where a drop's orders are."""
        row = await self._reading.fetchrow(sql("live_orders"), drop_id)
        return Outgoing(row["waiting"], row["delivered"], row["dead"])

    async def happened(
        self, drop_id: str, step_s: int, between: tuple[datetime, datetime], limit: int
    ) -> list[Happened]:
        """What happened to the reservations that were made in that time, by steps of seconds; those with anything."""
        first, last = id_at(between[0] - SKEW), id_at(between[1] + SKEW)
        async with self._reading.transaction(REPORT_MAX_S, readonly=True) as connection:
            await connection.execute(sql("arming_time"), f"{REPORT_MAX_S}s")
            rows = await connection.fetch(
                sql("report_seconds"), drop_id, step_s, first, last, limit, timeout=REPORT_MAX_S
            )
        return [Happened(*(int(row[name]) for name in Happened.__struct_fields__)) for row in rows]

    async def grants(
        self, drop_id: str, after: str | None, between: tuple[datetime, datetime], limit: int
    ) -> list[tuple[str, int]]:
        """Reservations that were made in that time, by their ids, after that one: id, and when it was written, us."""
        first, last = after or id_at(between[0] - SKEW), id_at(between[1] + SKEW)
        async with self._reading.transaction(REPORT_MAX_S, readonly=True) as connection:
            await connection.execute(sql("arming_time"), f"{REPORT_MAX_S}s")
            rows = await connection.fetch(sql("report_grants"), drop_id, first, last, limit, timeout=REPORT_MAX_S)
        return [(str(row["id"]), row["created"]) for row in rows]
