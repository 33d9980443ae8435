"""The sale without Redis: Postgres alone decides, in batches. What Redis is worth is what the product has beyond this.

    python -m loadtests.bench.redisoff PORT        (URL and secret are in the environment, as the product has them)

As good as one file makes it: the same loop and server program; a token is verified by the same digest; what arrives
while a transaction is under way goes together in the next, one transaction at a time, as in the product. A transaction
is one call of a function: who reads "none left" needs no lock, else one row is locked, all winners are inserted at once
and counted. It knows stock and one unit a member, and no windows, access rules, keys, F-codes or pauses: it does less
than the product.
"""

import asyncio
import contextlib
import hmac
import json
import os
import sys
import time
import uuid
from base64 import b64encode, urlsafe_b64decode
from collections.abc import AsyncIterator, Mapping

import asyncpg
from aiohttp import web

from loadtests.bench.serving import UVLOOP, Served

BATCH_MAX = 512
DATABASE_URL = "FLASHSALE_DATABASE_URL"
SECRET = "FLASHSALE_JWT_SECRET"  # noqa: S105  # the name, not the secret
SCHEMA = """
CREATE TABLE drops (id text PRIMARY KEY, quantity integer NOT NULL, taken integer NOT NULL DEFAULT 0,
    CHECK (taken BETWEEN 0 AND quantity)) WITH (fillfactor = 50);
CREATE TABLE reservations (id uuid PRIMARY KEY, drop_id text NOT NULL REFERENCES drops, member bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(), UNIQUE (drop_id, member));
CREATE FUNCTION take(p_drop text, p_ids uuid[], p_members bigint[]) RETURNS uuid[] LANGUAGE plpgsql AS $$
DECLARE
    v_free integer := (SELECT quantity - taken FROM drops WHERE id = p_drop);
    v_won uuid[];
BEGIN
    IF v_free = 0 THEN RETURN '{}'; END IF; -- stock only falls here
    SELECT quantity - taken INTO v_free FROM drops WHERE id = p_drop FOR NO KEY UPDATE;
    WITH won AS (
        INSERT INTO reservations (id, drop_id, member)
        SELECT u.id, p_drop, u.member FROM unnest(p_ids, p_members) WITH ORDINALITY AS u (id, member, nth)
        WHERE NOT EXISTS (SELECT 1 FROM reservations r WHERE r.drop_id = p_drop AND r.member = u.member)
        ORDER BY u.nth LIMIT v_free ON CONFLICT DO NOTHING RETURNING reservations.id
    )
    SELECT coalesce(array_agg(won.id), '{}') INTO v_won FROM won;
    UPDATE drops SET taken = taken + cardinality(v_won) WHERE id = p_drop;
    RETURN v_won;
END
$$;
"""
TAKE = "SELECT take($1, $2, $3)"
COUNTED = "SELECT (SELECT count(*) FROM reservations), (SELECT sum(taken)::bigint FROM drops)"


class Lane:
    """One drop's presses: those that wait go together in the next transaction."""

    def __init__(self, pool: asyncpg.Pool, drop: str) -> None:
        self._pool = pool
        self._drop = drop
        self._waiting: list[tuple[uuid.UUID, int, asyncio.Future[bool]]] = []
        self._runner: asyncio.Task[None] | None = None

    def take(self, member: int) -> "asyncio.Future[bool]":
        """Whether this member got a unit, durably."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((uuid.uuid4(), member, future))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return future

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
            try:
                won = {*await self._pool.fetchval(TAKE, self._drop, [i for i, _, _ in batch], [m for _, m, _ in batch])}
            except (asyncpg.PostgresError, OSError) as error:
                for _, _, future in batch:
                    future.set_exception(error)
                continue
            for each, _, future in batch:
                if not future.done():
                    future.set_result(each in won)
        self._runner = None


def verified(key: bytes, authorization: str) -> int | None:
    """The member whose HS256 token this is; None when its signature or its time is not good."""
    signed, _, signature = authorization.removeprefix("Bearer ").encode().rpartition(b".")
    digest = b64encode(hmac.digest(key, signed, "sha256"), b"-_").rstrip(b"=")
    if not hmac.compare_digest(digest, signature):
        return None
    body = signed.partition(b".")[2]
    claims = json.loads(urlsafe_b64decode(body + b"=" * (-len(body) % 4)))
    return int(claims["sub"]) if claims["exp"] > time.time() else None


async def prepare(database_url: str, stock: Mapping[str, int]) -> None:
    """Make the tables in an empty database, and the drops with these quantities."""
    async with _connected(database_url) as connection:
        await connection.execute(SCHEMA)
        await connection.executemany("INSERT INTO drops (id, quantity) VALUES ($1, $2)", stock.items())


async def counted(database_url: str) -> tuple[int, int]:
    """How many reservations there are, and how many units are counted as taken."""
    async with _connected(database_url) as connection:
        row = await connection.fetchrow(COUNTED)
    return row[0], row[1]


@contextlib.asynccontextmanager
async def _connected(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    try:
        yield connection
    finally:
        await connection.close()


def make_app(database_url: str, secret: str) -> web.Application:
    """The application with the one handler, which has its pool as long as it lives."""
    app, key, lanes = web.Application(), secret.encode(), dict[str, Lane]()
    pools: list[asyncpg.Pool] = []

    async def opened(_: web.Application) -> AsyncIterator[None]:
        async with asyncpg.create_pool(database_url, min_size=1, max_size=2) as pool:
            pools.append(pool)
            yield

    async def reserve(request: web.Request) -> web.Response:
        member = verified(key, request.headers.get("Authorization", ""))
        if member is None:
            return web.json_response({"code": "unauthenticated"}, status=401)
        if json.loads(await request.read()).get("allocation") != "all":
            return web.json_response({"code": "not_found"}, status=404)
        drop = request.match_info["drop"]
        if drop not in lanes:
            lanes[drop] = Lane(pools[0], drop)
        if await lanes[drop].take(member):
            return web.json_response({"drop": drop, "allocation": "all", "member": member, "state": "held"}, status=201)
        return web.json_response({"code": "sold_out"}, status=409)

    app.cleanup_ctx.append(opened)
    app.router.add_post("/v1/drops/{drop}/reservations", reserve)
    return app


async def _make() -> web.Application:
    return make_app(os.environ[DATABASE_URL], os.environ[SECRET])


if __name__ == "__main__":
    Served(int(sys.argv[1]), _make, UVLOOP).run()
