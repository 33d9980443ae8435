"""Looks into the stores themselves, past the contract: the audit's last word is what they hold.

The one place where a load test knows how the product keeps things: a table's columns and a hash's lines.
"""

import asyncpg
import redis.asyncio as redis

from loadtests.verify import Row


class Unreadable(Exception):
    """A store could not be looked into."""


async def ledger_rows(database_url: str, drop: str) -> list[Row]:
    """Every reservation of a drop out of Postgres itself, in whatever state. Errors: `Unreadable`."""
    try:
        connection = await asyncpg.connect(database_url)
        try:
            rows = await connection.fetch(
                "SELECT id::text, member, allocation_id::text, state::text FROM reservations WHERE drop_id = $1", drop
            )
        finally:
            await connection.close()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
        raise Unreadable(f"the ledger could not be read: {error!r}") from error
    return [Row(*row) for row in rows]


async def gate_rows(redis_url: str, drop: str) -> list[Row]:
    """Every entry of a drop out of Redis itself, whatever its stripes. Errors: `Unreadable`.

    An `ent` hash keeps member → entries, one a line, with id and allocation first, separated by tabs; `#` is a
    sentinel.
    """
    rows = []
    try:
        async with redis.from_url(redis_url) as client:
            async for key in client.scan_iter(match=f"*{{{drop}:*}}:ent", count=1000):
                async for member, entries in client.hscan_iter(key, count=1000):
                    if member != b"#":
                        rows += [_entry(member, entry) for entry in entries.decode().splitlines()]
    except (redis.RedisError, OSError, ValueError) as error:
        raise Unreadable(f"the gate could not be read: {error!r}") from error
    return rows


def _entry(member: bytes, entry: str) -> Row:
    reservation, allocation, _ = entry.split("\t", 2)
    return Row(reservation, int(member), allocation, "held")
