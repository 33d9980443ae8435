"""Import of a points snapshot over HTTP: lines a second, and what it costs the web process in memory."""

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from loadtests.bench.house import House, Plan
from loadtests.bench.processes import Memory
from loadtests.bench.table import MIB, Failed, Row, Target

POINTS_MIN = 100
GAIN_MAX_MIB = 16  # flat: far less than the file, and the same for any number of lines
LINES_PER_WRITE = 10_000
WARM_UP_LINES = 1_000
ROUNDS_MAX = 3
"""An import lasts so long that more rounds tell nothing."""


def write_points(path: Path, members: Iterable[int]) -> None:
    """Write the CSV of these members, each with `POINTS_MIN` points or some more."""
    rest = iter(members)
    with path.open("w", encoding="ascii") as file:
        file.write("member_id,points\n")
        while lines := "".join(_lines(islice(rest, LINES_PER_WRITE))):
            file.write(lines)


def _lines(members: Iterable[int]) -> Iterator[str]:
    return (f"{member},{POINTS_MIN + member % 9_000}\n" for member in members)


async def measure(plan: Plan, house: House) -> list[Row]:
    """Lines a second; resident memory that the web process gains, and its peak."""
    lines = plan.size(5_000_000, 20_000)
    rate = Row(f"import of {lines:,} points over HTTP", "lines/s", target=Target("at least", 150_000))
    gain = Row("  resident memory the web process gains", "MiB", target=Target("at most", GAIN_MAX_MIB))
    peak = Row("  its peak", "MiB")
    csv = house.folder / "points.csv"
    try:
        # What the first import of all loads and allocates is no growth.
        write_points(csv, range(1, WARM_UP_LINES + 1))
        await house.import_points("warm-up", csv)
        write_points(csv, range(1, lines + 1))
        for number in range(min(plan.rounds, ROUNDS_MAX)):
            memory = Memory(house.pids["web"])
            started_at = time.monotonic()
            async with memory.watched():
                await house.import_points(f"points-{number}", csv)
            rate.samples.append(lines / (time.monotonic() - started_at))
            gain.samples.append((memory.peak - memory.before) / MIB)
            peak.samples.append(memory.peak / MIB)
            plan.progress(f"  imported {rate.samples[-1]:,.0f} lines a second")
    except Failed as failed:
        rate.failed = gain.failed = peak.failed = str(failed)
    return [rate, gain, peak]
