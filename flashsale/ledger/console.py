"""What the operators' console reads of the ledger beside what everybody does. It decides nothing."""

from datetime import datetime

from flashsale.ledger.pool import Pool
from flashsale.ledger.statements import sql


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
