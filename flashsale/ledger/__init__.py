"""The ledger: the truth. The only room that speaks SQL.

One method per statement; statements live in `sql/`, the schema in `migrations/`. Whatever Postgres or
the way to it does wrong is `LedgerUnavailable`: the effect of the call is unknown, repeating it is safe.
"""

import asyncio
import random
import time
from typing import Final

import asyncpg

from flashsale.circuit import Circuit
from flashsale.errors import LedgerUnavailable
from flashsale.ledger.console import ConsoleStore
from flashsale.ledger.drops import Act, ArmState, AuditLine, DropStore, Epoch, Part, Units
from flashsale.ledger.fcodes import Batch, Bound, Counts, FcodeStore, NewBatch, OwnCode, Spent, Stop
from flashsale.ledger.orders import Confirmed, Health, ListedOrder, OrderStore, Returned, Tried, Wish
from flashsale.ledger.pages import PageStore
from flashsale.ledger.points import PointsStore
from flashsale.ledger.pool import AWAY_AFTER, AWAY_BASE_S, AWAY_MAX_S, PASSING, Pool, open_pool
from flashsale.ledger.queue import Later, consume
from flashsale.ledger.rehearsals import RehearsalStore
from flashsale.ledger.reservations import (
    Commit,
    Committed,
    Ended,
    Existing,
    ReservationStore,
    SecondLock,
    Stale,
    Standing,
)
from flashsale.ledger.statements import sql

__all__ = [
    "Act",
    "ArmState",
    "AuditLine",
    "Batch",
    "Bound",
    "Commit",
    "Committed",
    "Confirmed",
    "ConsoleStore",
    "Counts",
    "DropStore",
    "Ended",
    "Epoch",
    "Existing",
    "FcodeStore",
    "Health",
    "Later",
    "Ledger",
    "ListedOrder",
    "NewBatch",
    "OrderStore",
    "OwnCode",
    "PageStore",
    "Part",
    "PointsStore",
    "RehearsalStore",
    "ReservationStore",
    "Returned",
    "SecondLock",
    "Spent",
    "Stale",
    "Standing",
    "Stop",
    "Tried",
    "Units",
    "Wish",
    "consume",
]

CLOSE_MAX_S: Final = 5.0
SCHEMA_VERSION: Final = "20260107000000"


class Ledger:
    """All of the ledger, over two pools.

    What decides and repairs has connections of its own; what people look at, and imports, which hold one for minutes,
    share others: readers wait for each other, and never a commit for them.
    """

    def __init__(self, pool: Pool, reading: Pool) -> None:
        self._pools = (pool, reading)
        self.drops = DropStore(pool, reading)
        self.reservations = ReservationStore(pool, reading)
        self.orders = OrderStore(pool, reading)
        self.fcodes = FcodeStore(reading)
        self.points = PointsStore(reading)
        self.console = ConsoleStore(reading)
        self.rehearsals = RehearsalStore(reading)
        self.pages = PageStore(reading)

    @classmethod
    async def connect(cls, url: str, *, pool_max: int, timeout_s: float) -> "Ledger":
        """Open two pools of at most `pool_max` connections each; every statement ends after `timeout_s`."""
        circuit = Circuit(
            now=time.monotonic,
            jitter=random.random,
            failures_max=AWAY_AFTER,
            base_s=AWAY_BASE_S,
            max_s=AWAY_MAX_S,
        )
        pool = await open_pool(url, size_max=pool_max, timeout_s=timeout_s, circuit=circuit)
        try:
            return cls(pool, await open_pool(url, size_max=pool_max, timeout_s=timeout_s, circuit=circuit))
        except BaseException:
            await pool.close()
            raise

    async def ping(self) -> None:
        """Return when a primary with this version's schema answers."""
        try:
            row = await self._pools[0].fetchrow(sql("ping"))
        except asyncpg.UndefinedTableError:
            raise LedgerUnavailable("The database has no schema yet: run `flashsale migrate`.") from None
        if not row["primary"]:
            raise LedgerUnavailable("Postgres is a standby; stock is decided only on the primary.")
        if row["schema_version"] != SCHEMA_VERSION:
            raise LedgerUnavailable(
                f"The schema is at {row['schema_version']}, not at {SCHEMA_VERSION}: run `flashsale migrate`."
            )

    async def aclose(self) -> None:
        """Close all connections; those of a server that does not answer, without its help."""
        for pool in self._pools:
            try:
                async with asyncio.timeout(CLOSE_MAX_S):
                    await pool.close()
            except PASSING:
                pool.terminate()
