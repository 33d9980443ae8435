"""Whether everything has come to rest: gate and ledger agree entry by entry, nothing is owed, nothing waits."""

import asyncio
from collections import Counter
from typing import NamedTuple, cast

import asyncpg
import msgspec
import redis.asyncio

from flashsale.gate import keys
from tests.faults.gates import Server
from tests.faults.pace import lasts
from tests.faults.sales import Sale
from tests.faults.world import World

POLL_S = 0.1
DUE_GRACE_S = 2.0
"""A hold that ended this long ago should have been noticed."""
SHOWN_MAX = 3


Entry = tuple[str, int, str, int, int, bool]
"""Reservation, member, allocation, quantity, the stripe that has it, and whether the unit is there."""


class Rest(NamedTuple):
    """What is still astir, in words; and what each drop has left, by allocation."""

    astir: list[str]
    available: dict[str, dict[str, int]]


async def look(world: World, sales: list[Sale]) -> Rest:
    """How things stand just now. A server that does not answer is astir as well."""
    try:
        async with world.database() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            astir = await _owed(connection)
            available = {}
            for sale in sales:
                left, wrong = await _drop(world, connection, sale)
                astir += wrong[:SHOWN_MAX]
                available[sale.drop] = left
            return Rest(astir, available)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, redis.RedisError, TimeoutError) as error:
        return Rest([f"{type(error).__name__}: {error}"], {})


async def until_at_rest(world: World, sales: list[Sale], timeout_s: float) -> tuple[float, Rest]:
    """Wait for rest, at most `timeout_s`: how many seconds it took, and how things stand."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        found = await look(world, sales)
        took_s = loop.time() - began
        if not found.astir or took_s > timeout_s:
            return took_s, found
        await lasts(POLL_S)


async def _owed(connection: "asyncpg.Connection") -> list[str]:
    row = await connection.fetchrow(
        """
        SELECT (SELECT count(*) FROM reservations WHERE NOT gate_released) AS "units not returned to the gate",
            (SELECT count(*) FROM reservations WHERE state = 'held' AND expires_at < now() - make_interval(secs => $1))
                AS "holds that are over and stand there as held",
            (SELECT count(*) FROM orders WHERE state = 'queued') AS "orders not delivered",
            (SELECT count(*) FROM orders WHERE state = 'dead') AS "orders given up"
        """,
        DUE_GRACE_S,
    )
    return [f"{count} {what}" for what, count in row.items() if count]


async def _drop(world: World, connection: "asyncpg.Connection", sale: Sale) -> tuple[dict[str, int], list[str]]:
    drop, available, entries, astir = sale.drop, Counter[str](), Counter[Entry](), list[str]()
    epoch = await connection.fetchval("SELECT epoch FROM drops WHERE id = $1", drop)
    for stripe in range(sale.stripes):
        server = await world.gates.primary_of(drop, stripe)
        if server is None:
            return {}, [f"{drop}: no gate has its stripe {stripe}"]
        names = keys.stripe(drop, stripe)
        meta = await _hash(server, names.meta)
        if (int(meta[b"epoch"]), meta[b"replid"].decode()) != (epoch, (await server.info())["master_replid"]):
            return {}, [f"{drop}: stripe {stripe} is armed for {int(meta[b'epoch'])}, and the ledger at {epoch}"]
        pending = await server.direct.zcard(names.pend) - 1
        if pending:
            astir.append(f"{drop}: {pending} grants pending on stripe {stripe}")
        entries += _entries(stripe, await _hash(server, names.ent))
        left = {name: int(meta[f"n:{name}".encode()]) for name in msgspec.msgpack.decode(meta[b"order"])}
        available.update(left)
    rows = await connection.fetch(
        "SELECT id::text, member, allocation_id, quantity, home_stripe, unit_stripe FROM reservations"
        " WHERE drop_id = $1 AND state IN ('held', 'confirmed')",
        drop,
    )
    live = Counter[Entry]()
    for *told, home, unit in rows:
        live.update({(*told, home, home == unit)} | {(*told, unit, True)})
    astir += [f"{drop}: the gate has {each}, the ledger has not" for each in entries - live]
    astir += [f"{drop}: the ledger has {each}, the gate has not" for each in live - entries]
    taken: Counter[str] = Counter()
    for (_, _, allocation, quantity, _, has_unit), times in entries.items():
        taken[allocation] += quantity * times if has_unit else 0
    for row in await connection.fetch("SELECT id, quantity FROM allocations WHERE drop_id = $1", drop):
        if available[row["id"]] + taken[row["id"]] != row["quantity"]:
            counts = f"{available[row['id']]} available and {taken[row['id']]} taken, of {row['quantity']}"
            astir.append(f"{drop}/{row['id']}: {counts}")
    return dict(available), astir


async def _hash(server: Server, key: str) -> dict[bytes, bytes]:
    return cast("dict[bytes, bytes]", await server.direct.hgetall(key))


def _entries(stripe: int, found: dict[bytes, bytes]) -> Counter[Entry]:
    """All entries of a stripe of the gate."""
    entries = Counter[Entry]()
    for member, lines in found.items():
        if member != b"#":
            for line in lines.decode().split("\n"):
                name, allocation, quantity, _ = line.split("\t", 3)
                entries[name, int(member), allocation, int(quantity), stripe, not line.endswith("@")] += 1
    return entries
