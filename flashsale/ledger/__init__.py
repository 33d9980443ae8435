"""The ledger: the truth. The only room that speaks SQL.

One method per statement; statements live in `sql/`, the schema in `migrations/`. Whatever Postgres or
the way to it does wrong is `LedgerUnavailable`: the effect of the call is unknown, repeating it is safe.
"""

from typing import Final

import asyncpg

from flashsale.errors import LedgerUnavailable
from flashsale.ledger.drops import Act, ArmState, AuditLine, DropStore, Epoch, Units
from flashsale.ledger.points import PointsStore
from flashsale.ledger.pool import Pool, open_pool, passing_faults
from flashsale.ledger.reservations import (
    Commit,
    Committed,
    Ended,
    Existing,
    ReservationStore,
    SecondLock,
    Stale,
)
from flashsale.ledger.statements import sql

__all__ = [
    "Act",
    "ArmState",
    "AuditLine",
    "Commit",
    "Committed",
    "DropStore",
    "Ended",
    "Epoch",
    "Existing",
    "Ledger",
    "PointsStore",
    "ReservationStore",
    "SecondLock",
    "Stale",
    "Units",
]

SCHEMA_VERSION: Final = "20260102000000"


class Ledger:
    """All of the ledger, over one pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.drops = DropStore(pool)
        self.reservations = ReservationStore(pool)
        self.points = PointsStore(pool)

    @classmethod
    async def connect(cls, url: str, *, pool_max: int, timeout_s: float) -> "Ledger":
        """Open a pool of at most `pool_max` connections; every statement ends after `timeout_s`."""
        return cls(await open_pool(url, size_max=pool_max, timeout_s=timeout_s))

    async def ping(self) -> None:
        """Return when a primary with this version's schema answers."""
        try:
            async with passing_faults():
                row = await self._pool.fetchrow(sql("ping"))
        except asyncpg.UndefinedTableError:
            raise LedgerUnavailable("The database has no schema yet: run `flashsale migrate`.") from None
        if not row["primary"]:
            raise LedgerUnavailable("Postgres is a standby; stock is decided only on the primary.")
        if row["schema_version"] != SCHEMA_VERSION:
            raise LedgerUnavailable(
                f"The schema is at {row['schema_version']}, not at {SCHEMA_VERSION}: run `flashsale migrate`."
            )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.close()
