"""The product with one thing less: what combining, Redis, waiting for the disk and uvloop are each worth.

None of it is a switch of the product. Batches of one are settings; the rest is put together here: a sale that Postgres
alone decides (`redisoff`), a Postgres that waits for no disk (`unsynced`), the product's web process on another loop
(`standardloop`). Each runs in the rounds of the product as it is shipped, on presses like its own.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from loadtests import service
from loadtests.api import api_at
from loadtests.bench import redisoff, unsynced
from loadtests.bench.contest import (
    ENDLESS,
    ENDLESS_UNITS,
    REFUSED,
    SOLD_OUT,
    WON,
    Contestant,
    Members,
    Sale,
    presses,
)
from loadtests.bench.house import ONE_CALL_EACH, House, beside, same_stores
from loadtests.bench.processes import finished, program
from loadtests.bench.table import Failed, Row
from loadtests.errors import SetupError

NAMES = ("plain", "redis-off", "fsync-off", "uvloop-off")
STANDARD_LOOP = ("loadtests.bench.standardloop",)
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
Contestants = dict[str, Contestant]


@contextlib.asynccontextmanager
async def contestants(house: House, sale: Sale, members: Members, names: Sequence[str]) -> AsyncIterator[Contestants]:
    """Those of `NAMES` that are asked for: `<name> refusals` and `<name> wins`, until the block ends."""
    ways = {
        "plain": _plain(house, sale),
        "redis-off": _redis_off(house, members),
        "fsync-off": _fsync_off(house, members),
        "uvloop-off": _uvloop_off(house, sale),
    }  # each begins only when it is entered
    chosen = [name for name in NAMES if name in names]
    async with contextlib.AsyncExitStack() as stack:
        # At the same time: most of it is waiting for processes to start.
        entered = await asyncio.gather(
            *(stack.enter_async_context(ways[name]) for name in chosen), return_exceptions=True
        )
        found: Contestants = {}
        for name, each in zip(chosen, entered, strict=True):
            if isinstance(each, Failed | SetupError):
                found[name] = Contestant(Row(name, "req/s", failed=str(each)), "", {}, WON, presses(house, "", members))
            elif isinstance(each, BaseException):
                raise each
            else:
                found |= each
        yield found


@contextlib.asynccontextmanager
async def _plain(house: House, sale: Sale) -> AsyncIterator[Contestants]:
    async with beside(house, "one-call-each", ONE_CALL_EACH) as (url, web_pid):
        pids = {**house.serving_pids, "web": web_pid}
        yield {
            "plain refusals": sale.refusals(_row("refusals, combining off: one call a request"), url, pids),
            "plain wins": sale.wins(_row("durable wins, combining off"), url, pids),
        }


@contextlib.asynccontextmanager
async def _uvloop_off(house: House, sale: Sale) -> AsyncIterator[Contestants]:
    folder = house.folder / "standard-loop-metrics"
    folder.mkdir()
    settings = {METRICS_FOLDER: str(folder)}
    async with beside(house, "standard-loop", settings, STANDARD_LOOP) as (url, web_pid):
        pids = {**house.serving_pids, "web": web_pid}
        yield {
            "uvloop-off refusals": sale.refusals(_row("refusals, uvloop off: asyncio's own loop"), url, pids),
            "uvloop-off wins": sale.wins(_row("durable wins, uvloop off"), url, pids),
        }


@contextlib.asynccontextmanager
async def _fsync_off(house: House, members: Members) -> AsyncIterator[Contestants]:
    """Wins alone: who is refused never reaches Postgres."""
    async with contextlib.AsyncExitStack() as stack:
        database_url, postgres_pid = await stack.enter_async_context(unsynced.postgres(house))
        settings = {"FLASHSALE_DATABASE_URL": database_url}
        migrate = [sys.executable, "-m", "flashsale", "migrate"]
        await finished(migrate, environ={**same_stores(house), **settings}, log=house.folder / "unsynced.log")
        url, web_pid = await stack.enter_async_context(beside(house, "fsync-off", settings))
        api = await stack.enter_async_context(api_at(url, house.minter.operator()))
        at = house.at._replace(url=url, database_url=database_url)
        # The same Valkey, too, in which no two drops of a product have one name.
        other = Sale(replace(house, at=at, api=api), members, endless="endless-unsynced", sold_out="sold-out-unsynced")
        await other.open()
        pids = {**house.serving_pids, "web": web_pid, "postgres": postgres_pid}
        yield {"fsync-off wins": other.wins(_row("wins, fsync and synchronous_commit off"), url, pids)}


@contextlib.asynccontextmanager
async def _redis_off(house: House, members: Members) -> AsyncIterator[Contestants]:
    """In a database of its own in the same Postgres."""
    port = service.free_port()
    url = f"http://127.0.0.1:{port}"
    try:
        database_url = await _new_database(house.at.database_url or "", "redis_off")
        await redisoff.prepare(database_url, {SOLD_OUT: 0, ENDLESS: ENDLESS_UNITS})
    except (asyncpg.PostgresError, OSError) as fault:
        raise Failed(f"a sale without Redis could not be set up: {fault!r}") from None
    environ = {**same_stores(house), "FLASHSALE_DATABASE_URL": database_url}
    command = [sys.executable, "-m", "loadtests.bench.redisoff", str(port)]
    async with program(command, environ=environ, log=house.folder / "redis-off.log", url=url) as web_pid:
        pids = {"web": web_pid, "postgres": house.pids["postgres"]}
        refusals = _row("refusals, Redis off: Postgres alone decides, in batches")
        wins = _row("durable wins, Redis off")
        wins.note = refusals.note = "it knows stock and one a member; no windows, rules, keys, codes"
        won = Contestant(wins, url, pids, WON, presses(house, ENDLESS, members))

        async def check() -> None:
            """What was answered with 201 is stored and counted; else `Failed`."""
            try:
                stored, taken = await redisoff.counted(database_url)
            except (asyncpg.PostgresError, OSError) as fault:
                raise Failed(f"Postgres alone did not tell what it has: {fault!r}") from None
            if not won.answered <= stored == taken:
                raise Failed(f"{won.answered:,} were answered with 201, {stored:,} are stored, {taken:,} counted")

        won.check = check
        refused = Contestant(refusals, url, pids, REFUSED, presses(house, SOLD_OUT, members))
        yield {"redis-off refusals": refused, "redis-off wins": won}


async def _new_database(database_url: str, name: str) -> str:
    """Make an empty database beside that one; its URL."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    parts = urlsplit(database_url)
    return urlunsplit(parts._replace(path=f"/{name}"))


def _row(name: str) -> Row:
    return Row(name, "req/s")
