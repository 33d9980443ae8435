"""What the gate needs for the eligible members of a points rule, in Valkey's own count."""

import time
from collections.abc import Iterable
from random import Random

import redis.asyncio as redis

from loadtests.bench.house import House, Plan
from loadtests.bench.points import POINTS_MIN, write_points
from loadtests.bench.table import Failed, Row, Target
from loadtests.errors import SetupError

SEED = 20_110_816
TRIED = 100


async def eligible_bytes(redis_url: str, drop: str) -> int:
    """The size of a drop's sets of eligible members, every field counted."""
    async with redis.from_url(redis_url) as client:
        keys = [key async for key in client.scan_iter(match=f"*{{{drop}:*}}:elig:*", count=1000)]
        sizes = [await client.memory_usage(key, samples=0) for key in keys]
    if not sizes:
        raise Failed(f"the gate has no set of eligible members for {drop}")
    return sum(size or 0 for size in sizes)


async def eligible_drop(house: House, drop: str, quantity: int, members: Iterable[int]) -> float:
    """A drop for exactly these members: imported as a snapshot of the same name, and armed; the arming in seconds."""
    csv = house.folder / f"{drop}.csv"
    write_points(csv, members)
    await house.import_points(drop, csv)
    csv.unlink()
    started_at = time.monotonic()
    await house.create_drop(drop, quantity, {"kind": "points", "snapshot": drop, "at_least": POINTS_MIN})
    return time.monotonic() - started_at


async def measure(plan: Plan, house: House) -> list[Row]:
    """Ids scattered over all 63 bits: bytes each, once the gate has answered right for some inside and outside."""
    count = plan.size(200_000, 2_000)
    row = Row(
        f"gate, {count:,} eligible ids scattered over 63 bits",
        "bytes each",
        target=Target("at most", 100),
        key="scattered",
    )
    rng = Random(SEED)
    ids = {rng.randrange(1, 2**63) for _ in range(count + TRIED)}
    inside = list(ids)
    outside = [inside.pop() for _ in range(len(ids) - count)]
    plan.progress(f"{count:,} scattered ids")
    try:
        await eligible_drop(house, "scattered", count, inside)
        for members, expected in ((inside[:TRIED], (201, '"held"')), (outside, (403, "not_eligible"))):
            for member in members:
                status, body = await house.press("scattered", member)
                if status != expected[0] or expected[1] not in body:
                    raise Failed(f"member {member} was answered {status} {body}, not {expected[0]}")
        row.samples.append(await eligible_bytes(house.at.redis_url or "", "scattered") / count)
    except (Failed, SetupError, redis.RedisError) as failed:
        row.failed = str(failed)
    return [row]
