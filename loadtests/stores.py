"""Looks into the stores themselves, past the contract: whether all that a benchmark measured really happened.

The one place where a load test knows how the product keeps things: a table's columns and a hash's fields. `copy_order`,
`deliver_unseen` and `spend_codes` write, too: what the contract can only make one by one, a benchmark needs by the
hundred thousand.
"""

import contextlib
from collections.abc import AsyncIterator, Collection
from typing import Any, NamedTuple, cast

import asyncpg
import redis.asyncio as redis

WRITE_TIMEOUT_S = 120.0
SERIALS_A_FIELD = 1_000


class Unreadable(Exception):
    """A store could not be looked into."""


class Orders(NamedTuple):
    """The confirmed reservations of a drop: how many, and how many of all its reservations contradict their orders.

    A confirmed one has one `order.confirmed`, which it names, and while that waits, one job; any other has neither.
    """

    confirmed: int
    waiting: int
    wrong: int


@contextlib.asynccontextmanager
async def _ledger(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    try:
        connection = await asyncpg.connect(database_url)
        try:
            yield connection
        finally:
            await connection.close()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
        raise Unreadable(f"the ledger could not be read: {error!r}") from error


async def orders(database_url: str, drop: str) -> Orders:
    """Whether each reservation of a drop has the orders and jobs that its state says. Errors: `Unreadable`."""
    async with _ledger(database_url) as connection:
        row = await connection.fetchrow(_ORDERS, drop)
    return Orders(*row)


_ORDERS = """
WITH queued AS (
    SELECT dedupe_key, count(*) AS jobs FROM pgqueuer GROUP BY dedupe_key
), ordered AS (
    SELECT o.reservation_id, count(*) AS orders, min(o.id::text) AS id,
        count(*) FILTER (WHERE o.state = 'queued') AS waiting, coalesce(sum(q.jobs), 0) AS jobs
    FROM orders o LEFT JOIN queued q ON q.dedupe_key = o.id::text
    WHERE o.event = 'order.confirmed' GROUP BY o.reservation_id
)
SELECT count(*) FILTER (WHERE r.state = 'confirmed'), coalesce(sum(o.waiting), 0)::bigint,
    count(*) FILTER (WHERE (coalesce(o.orders, 0), o.id, coalesce(o.jobs, 0)) IS DISTINCT FROM
        (CASE WHEN r.state = 'confirmed' THEN 1 ELSE 0 END, r.order_id::text, coalesce(o.waiting, 0)))
FROM reservations r LEFT JOIN ordered o ON o.reservation_id = r.id WHERE r.drop_id = $1
"""


async def delivered_orders(database_url: str, drop: str) -> set[str]:
    """The ids of a drop's orders that the ledger counts as delivered. Errors: `Unreadable`."""
    async with _ledger(database_url) as connection:
        rows = await connection.fetch(
            "SELECT o.id::text FROM orders o JOIN reservations r ON r.id = o.reservation_id"
            " WHERE r.drop_id = $1 AND o.state = 'delivered'",
            drop,
        )
    return {row[0] for row in rows}


async def copy_order(database_url: str, reservation: str, copies: int) -> None:
    """Copy a confirmed reservation with its order and its waiting job, each copy for a member of its own.

    The members that follow the copied one must have nothing in its drop, and the drop must have stock. What is not an
    id is the copied one's; the orders have been waiting for ten minutes. The drop's epoch rises, so that its gate is
    built anew and knows the copies. Errors: `Unreadable`.
    """
    async with _ledger(database_url) as connection, connection.transaction():
        await connection.execute(_RAISE_EPOCH, reservation)
        made = await connection.fetchrow(_COPY, reservation, copies, timeout=WRITE_TIMEOUT_S)
        if set(made) != {copies}:
            raise ValueError(f"{reservation} could not be copied with its order and job: {tuple(made)}")


_RAISE_EPOCH = """
UPDATE drops d SET epoch = greatest(d.epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
FROM reservations r WHERE r.id = $1 AND d.id = r.drop_id
"""
# Each row is copied whole, whatever its columns, and only its ids are replaced.
_COPY = """
WITH one AS (
    SELECT r, o, j FROM reservations r JOIN orders o ON o.id = r.order_id JOIN pgqueuer j ON j.dedupe_key = o.id::text
    WHERE r.id = $1 AND r.state = 'confirmed' AND o.state = 'queued' AND j.status = 'queued'
        AND j.payload = convert_to(o.id::text, 'UTF8')
), made AS MATERIALIZED (
    SELECT n, uuidv7() AS id, uuidv7() AS order_id FROM generate_series(1, $2::integer) AS n
), reserved AS (
    INSERT INTO reservations SELECT c.* FROM one, made m, LATERAL jsonb_populate_record(one.r,
        jsonb_build_object('id', m.id, 'member', (one.r).member + m.n, 'order_id', m.order_id)) AS c
    RETURNING quantity
), ordered AS (
    INSERT INTO orders SELECT c.* FROM one, made m, LATERAL jsonb_populate_record(one.o,
        jsonb_build_object('id', m.order_id, 'reservation_id', m.id, 'queued_at', now() - interval '10 minutes')) AS c
    RETURNING id
), queued AS (
    INSERT INTO pgqueuer SELECT c.* FROM one, made m, LATERAL jsonb_populate_record(one.j,
        jsonb_build_object('id', nextval(pg_get_serial_sequence('pgqueuer', 'id')), 'dedupe_key', m.order_id,
            'payload', convert_to(m.order_id::text, 'UTF8'))) AS c
    RETURNING id
), taken AS (
    UPDATE allocations a SET taken = a.taken + w.units FROM (SELECT sum(quantity) AS units FROM reserved) w, one
    WHERE a.drop_id = (one.r).drop_id AND a.id = (one.r).allocation_id
)
SELECT (SELECT count(*) FROM reserved), (SELECT count(*) FROM ordered), (SELECT count(*) FROM queued)
"""


async def deliver_unseen(database_url: str, drop: str) -> None:
    """The orders of a drop stand there as delivered, and their jobs are gone; nobody received them. `Unreadable`."""
    async with _ledger(database_url) as connection, connection.transaction():
        for statement in (_TAKE_JOBS_AWAY, _CALL_DELIVERED):
            await connection.execute(statement, drop, timeout=WRITE_TIMEOUT_S)


_TAKE_JOBS_AWAY = """
DELETE FROM pgqueuer j USING orders o, reservations r
WHERE r.drop_id = $1 AND o.reservation_id = r.id AND j.dedupe_key = o.id::text
"""
_CALL_DELIVERED = """
UPDATE orders o SET state = 'delivered', tries = 1, settled_at = clock_timestamp()
FROM reservations r WHERE r.drop_id = $1 AND o.reservation_id = r.id AND o.state = 'queued'
"""


async def at_rest(database_url: str) -> None:
    """What was written by the hundred thousand is vacuumed, counted and on disk, as after an hour. `Unreadable`."""
    async with _ledger(database_url) as connection:
        for statement in ("VACUUM (ANALYZE) reservations, orders, pgqueuer", "CHECKPOINT"):
            await connection.execute(statement, timeout=WRITE_TIMEOUT_S)


async def code_bytes(redis_url: str, drop: str) -> int:
    """What Redis keeps of a drop's F-codes, every field counted. Errors: `Unreadable`."""
    async with _gate(redis_url) as client:
        return int(await client.memory_usage(await _code_key(client, drop), samples=0) or 0)


async def spend_codes(redis_url: str, drop: str, batch: str, count: int, *, pressed: Collection[int]) -> None:
    """All `count` codes of a batch stand in Redis as spent; nobody spent them.

    `pressed` are the serials that were really spent, no others: unless Redis has exactly their bits where and as this
    would write them, or there is more than this knows of, it is `Unreadable`. A thousand serials share a field,
    `s:<batch>:<thousand>`, with bit `serial % 8` of byte `serial % 1000 // 8` for each.
    """
    really: dict[bytes, bytearray] = {}
    for serial in pressed:
        bits = really.setdefault(f"s:{batch}:{serial // SERIALS_A_FIELD}".encode(), bytearray())
        byte = serial % SERIALS_A_FIELD // 8
        bits.extend(bytes(max(0, byte + 1 - len(bits))))
        bits[byte] |= 1 << serial % 8
    everything: dict[Any, bytes] = {
        f"s:{batch}:{first // SERIALS_A_FIELD}": _ones(min(SERIALS_A_FIELD, count - first))
        for first in range(0, count, SERIALS_A_FIELD)
    }
    async with _gate(redis_url) as client:
        key = await _code_key(client, drop)
        fields = cast("dict[bytes, bytes]", await client.hgetall(key))
        found = {name: bits.rstrip(b"\0") for name, bits in fields.items() if name.startswith(b"s:")}
        if found != {name: bytes(bits) for name, bits in really.items()}:
            raise Unreadable(f"{key!r} has spent codes in another layout: {found}, and not {really}")
        await client.hset(key, mapping=everything)


def _ones(bits: int) -> bytes:
    return ((1 << bits) - 1).to_bytes(-(-bits // 8), "little")


async def _code_key(client: redis.Redis, drop: str) -> bytes:
    keys = [key async for key in client.scan_iter(match=f"*{{{drop}:*}}:codes", count=1000)]
    if len(keys) != 1:
        raise Unreadable(f"{drop} has {len(keys)} keys of F-codes")
    key: bytes = keys[0]
    return key


@contextlib.asynccontextmanager
async def _gate(redis_url: str) -> AsyncIterator[redis.Redis]:
    try:
        async with redis.from_url(redis_url) as client:
            yield client
    except (redis.RedisError, OSError, ValueError) as error:
        raise Unreadable(f"the gate could not be read: {error!r}") from error
