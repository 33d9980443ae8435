"""A sale seen from the ledger alone: grants made by hand, as a gate could hand them over, a wrong one included."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from flashsale.domain import Drop, Grant, Reservation
from flashsale.ids import new_ids
from flashsale.ledger import Commit, Committed, Existing, Ledger, SecondLock, Stale
from flashsale.ledger.migrate import migrate
from flashsale.ledger.pool import Pool
from flashsale.ledger.statements import sql
from tests.support import allocation, make_drop

BALANCE = """
SELECT a.id, a.quantity, a.taken, coalesce(sum(r.quantity), 0)::int AS live
FROM allocations a
LEFT JOIN reservations r ON r.drop_id = a.drop_id AND r.allocation_id = a.id AND r.state IN ('held', 'confirmed')
WHERE a.drop_id = $1 GROUP BY a.drop_id, a.id, a.quantity, a.taken
"""


@asynccontextmanager
async def new_database(url: str, *, migrated: bool = True) -> AsyncIterator[str]:
    """The URL of a database of its own beside that of `url`; dropped at the end."""
    name = f"test_{secrets.token_hex(6)}"
    await _as_admin(url, f"CREATE DATABASE {name}")
    base, _, query = url.partition("?")
    own = f"{base.rpartition('/')[0]}/{name}?{query}"
    if migrated:
        await migrate(own)
    yield own
    await _as_admin(url, f"DROP DATABASE {name} WITH (FORCE)")


async def _as_admin(url: str, statement: str) -> None:
    """Over a connection of its own: between two of these, a test may have killed the server."""
    admin = await asyncpg.connect(url)
    try:
        await admin.execute(statement)
    finally:
        await admin.close()


def pool_of(ledger: Ledger) -> Pool:
    """The ledger's own pool: what a test looks at, it sees with the product's own settings."""
    return ledger._pools[0]


class Sale:
    """One drop in the ledger, without a gate."""

    def __init__(self, ledger: Ledger, drop: Drop) -> None:
        self.ledger = ledger
        self.drop = drop
        self.epoch = drop.epoch
        self.pool = pool_of(ledger)

    def grant(
        self,
        member: int,
        *,
        name: str = "a",
        quantity: int = 1,
        slot: int = 1,
        key: str | None = None,
        epoch: int | None = None,
    ) -> Grant:
        """What the gate would hand over, under an id of its own."""
        (new_id,) = new_ids(1)
        return Grant(new_id, member, name, quantity, slot, key, f"{name}|{quantity}", epoch or self.epoch)

    async def commit(self, *grants: Grant) -> list[Commit]:
        """One call."""
        return await self.ledger.reservations.commit(self.drop.id, grants)

    async def commit_with_codes(self, *grants: tuple[Grant, int | None]) -> list[str]:
        """One call, each grant with the number of an F-code; returns the outcomes' words."""
        columns = [list(column) for column in zip(*(columns_of(g, code) for g, code in grants), strict=True)]
        rows = await self.pool.fetch(sql("commit"), self.drop.id, *columns)
        return ["committed"] * len(grants) if rows[0]["ordinal"] == 0 else [row["outcome"] for row in rows]

    async def cancel(self, grant: Grant) -> Reservation | None:
        """Cancel one hold; None when it is no longer held."""
        ended = await self.ledger.reservations.cancel(self.drop.id, [grant.id])
        return ended[0] if ended else None

    async def bump(self) -> int:
        """A new epoch, which this sale's next grants carry."""
        epoch = await self.ledger.drops.bump(self.drop.id)
        assert epoch is not None
        self.epoch = epoch
        return epoch

    async def rows(self) -> list[Any]:
        """All rows of the drop, tombstones too."""
        return list(
            await self.pool.fetch("SELECT * FROM reservations WHERE drop_id = $1 ORDER BY created_at", self.drop.id)
        )

    async def taken(self, name: str = "a") -> int:
        """The counter, after a look whether every allocation's counter is the sum of its live rows."""
        rows = await self.pool.fetch(BALANCE, self.drop.id)
        for row in rows:
            assert row["taken"] == row["live"] <= row["quantity"], dict(row)
        return {row["id"]: int(row["taken"]) for row in rows}[name]


def columns_of(g: Grant, code: int | None = None) -> tuple[object, ...]:
    """A grant as commit.sql's parameters $2 to $12."""
    return (g.id, g.member, g.allocation, g.quantity, g.slot, g.key, g.payload, code, g.epoch, g.stripe, g.unit_stripe)


async def open_sale(
    ledger: Ledger, *quantities: int, per_member: int = 1, hold_seconds: int = 900, **named: int
) -> Sale:
    """A new drop with allocations a, b, … of these quantities."""
    names = dict(zip("abcdefgh", quantities, strict=False)) | named
    wanted = make_drop(
        *(allocation(name, quantity) for name, quantity in names.items()),
        per_member=per_member,
        hold_seconds=hold_seconds,
    )
    assert await ledger.drops.create(wanted, actor="member:1", detail={})
    drop = await ledger.drops.get(wanted.id)
    assert drop is not None
    return Sale(ledger, drop)


def word(outcome: Commit) -> str:
    """A commit's outcome in the words of the database."""
    match outcome:
        case Committed():
            return "committed"
        case Existing():
            return "exists"
        case Stale():
            return "stale"
        case SecondLock(verdict=verdict):
            return verdict.value


def words(outcomes: Sequence[Commit]) -> list[str]:
    """The outcomes' words, in order."""
    return [word(each) for each in outcomes]


def counts(batches: Sequence[Sequence[Commit]]) -> Counter[str]:
    """How often each word was said in all these calls."""
    return Counter(word(each) for batch in batches for each in batch)


async def watch(sale: Sale, done: asyncio.Event) -> int:
    """Look again and again, until `done`, whether counters and live rows agree; returns how often it looked."""
    looks = 0
    while not done.is_set():
        await sale.taken()
        looks += 1
    return looks
