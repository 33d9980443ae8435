"""What the operators' console reads of the ledger beside what everybody does. It decides nothing."""

from datetime import datetime

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
