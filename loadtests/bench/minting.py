"""F-codes by the million: minted and exported over HTTP, and what the gate needs for them, in Valkey's own count."""

import hashlib
import time
from collections.abc import Sequence
from itertools import islice

import redis.asyncio as redis

from loadtests import stores
from loadtests.bench import codes
from loadtests.bench.contest import FIRST_MEMBER
from loadtests.bench.house import House, Plan
from loadtests.bench.points import GAIN_MAX_MIB
from loadtests.bench.processes import Memory
from loadtests.bench.table import KIB, MIB, Failed, Row, Target
from loadtests.errors import SetupError

MINTED = "minted"
WEIGHED = "weighed"
HEADER = b"code\n"
WARM_UP_CODES = 2_000
ROUNDS_MAX = 2
"""Making a million codes lasts so long that more rounds tell nothing."""
LINES_AT_ONCE = 10_000
NAMES = ("mint", "codes")


async def measure(plan: Plan, house: House, names: Sequence[str]) -> list[Row]:
    """The rows of those of `NAMES` that are asked for."""
    rows = await _measure_mint(plan, house) if "mint" in names else []
    return rows + (await _measure_gate(plan, house) if "codes" in names else [])


async def _measure_mint(plan: Plan, house: House) -> list[Row]:
    """Codes a second, from the first request to the last byte; resident memory that the web process gains, its peak."""
    count, rounds = plan.size(1_000_000, 2_000), min(plan.rounds, ROUNDS_MAX)
    rate = Row(f"{count:,} F-codes minted and exported over HTTP", "codes/s", target=Target("at least", 100_000))
    gain = Row("  resident memory the web process gains by it", "MiB", target=Target("at most", GAIN_MAX_MIB))
    peak = Row("  its peak meanwhile", "MiB")
    try:
        await house.create_drop(MINTED, WARM_UP_CODES + rounds * count, {"kind": "fcode"})
        # What the first export of all loads and allocates is no growth.
        await mint_and_export(house, WARM_UP_CODES)
        for _ in range(rounds):
            memory = Memory(house.pids["web"])
            async with memory.watched():
                seconds = await mint_and_export(house, count)
            rate.samples.append(count / seconds)
            gain.samples.append((memory.peak - memory.before) / MIB)
            peak.samples.append(memory.peak / MIB)
            plan.progress(f"  minted and exported {rate.samples[-1]:,.0f} F-codes a second")
    except (Failed, SetupError) as failed:
        rate.failed = gain.failed = peak.failed = str(failed)
    return [rate, gain, peak]


async def mint_and_export(house: House, count: int) -> float:
    """Seconds. `Failed` unless the bytes that arrived are the codes that the library makes of the batch, each once."""
    arrived = hashlib.sha256()
    lines = 0
    started_at = time.monotonic()
    batch = await house.api.mint_codes(MINTED, "all", count)
    async for piece in house.export_codes(batch):
        arrived.update(piece)
        lines += piece.count(b"\n")
    seconds = time.monotonic() - started_at
    if lines != count + 1:
        raise Failed(f"{count:,} codes were minted, and the export has {lines:,} lines")
    made = hashlib.sha256(HEADER)
    rest = codes.genuine(house.ring, batch, range(count))
    while part := "".join(f"{code}\n" for code in islice(rest, LINES_AT_ONCE)):
        made.update(part.encode())
    if arrived.digest() != made.digest():
        raise Failed(f"the export of batch {batch} has as many lines as codes, and is not those codes")
    return seconds


async def _measure_gate(plan: Plan, house: House) -> list[Row]:
    """The drop's key of codes when it is armed, and when all of them are spent."""
    count = plan.size(1_000_000, 2_000)
    unspent = Row(f"gate, {count:,} bearer F-codes, none spent", "KiB", target=Target("at most", 1_024))
    spent = Row(f"gate, {count:,} bearer F-codes, all spent", "KiB", target=Target("at most", 1_024))
    url = house.at.redis_url or ""
    try:
        await house.create_drop(WEIGHED, count, {"kind": "fcode"})
        batch = await house.api.mint_codes(WEIGHED, "all", count)
        unspent.samples.append(await stores.code_bytes(url, WEIGHED) / KIB)
        edges = (0, 7, 8, 999, 1_000, count - 2)
        for member, serial in enumerate(edges, FIRST_MEMBER):
            await _press(house, batch, serial, member, (201, '"held"'))
        await stores.spend_codes(url, WEIGHED, batch, count, pressed=edges)
        spent.samples.append(await stores.code_bytes(url, WEIGHED) / KIB)
        for member, serial in enumerate((1, 9, 1_001, count // 2 + 1, count - 1), FIRST_MEMBER + len(edges)):
            await _press(house, batch, serial, member, (409, '"fcode_spent"'))
        spent.note = (
            f"{len(edges)} were pressed; then the bits of all were written in the layout that these left, "
            "and the gate calls others spent"
        )
    except (Failed, SetupError, stores.Unreadable, redis.RedisError) as failed:
        unspent.failed = spent.failed = str(failed)
    return [unspent, spent]


async def _press(house: House, batch: str, serial: int, member: int, expected: tuple[int, str]) -> None:
    [code] = codes.genuine(house.ring, batch, range(serial, serial + 1))
    status, body = await house.press(WEIGHED, member, fcode=code)
    if status != expected[0] or expected[1] not in body:
        raise Failed(f"code {serial} of {batch} was answered {status} {body}, not {expected[0]}")
