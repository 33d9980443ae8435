"""How long a sale stands still when the gate is emptied: FLUSHALL, then the first new 201 through the service.

The drop is one for ten million members; its reservations were made over HTTP, one by one, as in a sale.
"""

import asyncio
import math
import time
from collections.abc import Sequence

import redis.asyncio as redis

from loadtests.bench import wrk
from loadtests.bench.house import House, Plan
from loadtests.bench.memory import eligible_bytes, eligible_drop
from loadtests.bench.presses import WON
from loadtests.bench.table import MIB, Failed, Row, Target
from loadtests.bench.tokenfile import write_requests
from loadtests.errors import SetupError

DROP = "rebuilt"
FILL_RATE_GUESS = 30_000.0
FILL_RUN_MAX_S = 20
RESERVE = 1.5
GIVE_UP_S = 60.0
PRESS_AGAIN_S = 0.01
NAMES = ("dense", "rebuild")


async def measure(plan: Plan, house: House, names: Sequence[str]) -> list[Row]:
    """The rows of those of `NAMES` that are asked for: both need the same ten million members."""
    eligible = plan.size(10_000_000, 199_999)
    reservations = plan.size(300_000, 500)
    dense = Row(f"gate, {eligible:,} eligible members, dense ids", "MiB", target=Target("at most", 32))
    arming = Row("  their first arming", "s")
    rebuild = Row("rebuild", "s", target=Target("at most", 2))
    rows = [dense, arming] if "dense" in names else []
    rows += [rebuild] if "rebuild" in names else []
    try:
        plan.progress(f"importing {eligible:,} members")
        arming.samples.append(await eligible_drop(house, DROP, eligible, range(1, eligible + 1)))
        if "dense" in names:
            dense.samples.append(await eligible_bytes(house.at.redis_url or "", DROP) / MIB)
        if "rebuild" in names:
            await _measure_rebuild(plan, house, rebuild, eligible, reservations)
    except (Failed, SetupError, redis.RedisError) as failed:
        for row in rows:
            row.failed = row.failed or ("" if row.samples and row is not rebuild else str(failed))
    return rows


async def _measure_rebuild(plan: Plan, house: House, row: Row, eligible: int, reservations: int) -> None:
    first = 10 ** (len(str(eligible - 1)) - 1)  # from here to `eligible - 1`, all ids have as many digits
    status, body = await house.press(DROP, first)
    if status != 201:
        raise Failed(f"an eligible member was answered {status} {body}")
    new, held = await _fill(plan, house, first + 1, reservations)
    row.name = f"rebuild: {held:,} reservations, {eligible:,} eligible"
    for number in range(plan.rounds):
        row.samples.append(await _stands_still_s(house, new + number))
        plan.progress(f"  rebuilt in {row.samples[-1]:.2f} s")
        status, body = await house.press(DROP, first)
        if status != 200:
            raise Failed(f"after the rebuild, a member with a reservation was answered {status} {body}")
        await house.settled(DROP, held + number + 1)
    row.note = f"worst {max(row.samples):.2f} s"


async def _fill(plan: Plan, house: House, first: int, wanted: int) -> tuple[int, int]:
    """Let members from `first` on reserve until `wanted` units are held; the next new member, and how many are held."""
    rate, held = FILL_RATE_GUESS, await house.settled(DROP, 1)
    while held < wanted:
        plan.progress(f"  {held:,} of {wanted:,} reservations")
        missing = wanted - held
        duration_s = 1 if rate == FILL_RATE_GUESS else max(1, min(FILL_RUN_MAX_S, math.ceil(missing / rate)))
        count = math.ceil(rate * RESERVE * duration_s)
        requests = write_requests(house.folder / "requests.bin", house.minter, DROP, first, count)
        load = await wrk.load(house.at.url, requests, WON, duration_s)
        rate, first = load.rate, first + count
        held = await house.settled(DROP, held + load.requests)
    return first, held


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
