"""How long a sale stands still when the gate is emptied: FLUSHALL, then the first new 201 through the service.

The drop is one for ten million members; its reservations were made over HTTP, one by one, as in a sale.
"""

import asyncio
import time
from collections.abc import Sequence

import redis.asyncio as redis

from loadtests.bench.customers import reserve
from loadtests.bench.house import House, Plan
from loadtests.bench.memory import eligible_bytes, eligible_drop
from loadtests.bench.table import MIB, Failed, Row, Target
from loadtests.errors import SetupError

DROP = "rebuilt"
GIVE_UP_S = 60.0
PRESS_AGAIN_S = 0.01
NAMES = ("dense", "rebuild")


async def measure(plan: Plan, house: House, names: Sequence[str]) -> list[Row]:
    """The rows of those of `NAMES` that are asked for: both need the same ten million members."""
    eligible = plan.size(10_000_000, 199_999)
    reservations = plan.size(300_000, 500)
    dense = Row(f"gate, {eligible:,} eligible members, dense ids", "MiB", target=Target("at most", 32))
    each = Row("  one of them", "bytes each", key="eligible")
    arming = Row("  their first arming", "s")
    rebuild = Row(f"rebuild: {reservations:,} reservations, {eligible:,} eligible", "s", target=Target("at most", 2))
    rows = [dense, each, arming] if "dense" in names else []
    rows += [rebuild] if "rebuild" in names else []
    try:
        plan.progress(f"importing {eligible:,} members")
        arming.samples.append(await eligible_drop(house, DROP, eligible, range(1, eligible + 1)))
        if "dense" in names:
            size = await eligible_bytes(house.at.redis_url or "", DROP)
            dense.samples.append(size / MIB)
            each.samples.append(size / eligible)
        if "rebuild" in names:
            await _measure_rebuild(plan, house, rebuild, reservations)
    except (Failed, SetupError, redis.RedisError) as failed:
        for row in rows:
            row.failed = row.failed or ("" if row.samples and row is not rebuild else str(failed))
    return rows


async def _measure_rebuild(plan: Plan, house: House, row: Row, reservations: int) -> None:
    plan.progress(f"  {reservations:,} reservations")
    await reserve(house.at.url, house.minter, DROP, range(1, reservations + 1))
    held = await house.settled(DROP, reservations)
    for number in range(1, plan.rounds + 1):
        row.samples.append(await _stands_still_s(house, reservations + number))
        plan.progress(f"  rebuilt in {row.samples[-1]:.2f} s")
        status, body = await house.press(DROP, 1)
        if status != 200:
            raise Failed(f"after the rebuild, a member with a reservation was answered {status} {body}")
        await house.settled(DROP, held + number)
    row.note = f"worst {max(row.samples):.2f} s"


async def _stands_still_s(house: House, member: int) -> float:
    """Empty the gate; seconds until a new member holds a unit."""
    async with redis.from_url(house.at.redis_url or "") as client:
        started_at = time.monotonic()
        await client.flushall()
    body = ""
    while time.monotonic() - started_at < GIVE_UP_S:
        try:
            status, body = await house.press(DROP, member)
        except Failed as failed:
            status, body = 503, str(failed)
        if status == 201:
            return time.monotonic() - started_at
        if status != 503:
            raise Failed(f"while the gate was rebuilt, a new member was answered {status} {body}")
        await asyncio.sleep(PRESS_AGAIN_S)
    raise Failed(f"not rebuilt within {GIVE_UP_S:.0f} s; the last answer was {body}")
