"""One contestant of a comparison: its row, where its requests go, and one run of wrk against it."""

import contextlib
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from loadtests.bench import wrk
from loadtests.bench.house import House, Plan
from loadtests.bench.processes import cpu_s
from loadtests.bench.table import Failed, Row
from loadtests.bench.tokenfile import Requests, write_presses
from loadtests.bench.wrk import Expected, Load

FIRST_MEMBER = 1_000_000_000
RATE_MAX = 40_000.0
"""Requests a second that one process is not expected to reach: sizes the first file."""
RESERVE = 4
"""So many times the requests of the fastest run so far are written for the next: others use the machine, too."""

WON = Expected(201, '"held"')


@dataclass
class Contestant:
    """One row, where its requests go, and what it has shown so far.

    `prepare` writes a file of so many requests, `sent` hears how many of the last file were answered, a block of
    `watch` surrounds each run; `check` is for the end, and raises what it finds untrue of the answers. `pids` are the
    processes whose time is counted; `second` of those answered were the second kind of answer that is `expected`.
    """

    row: Row
    url: str
    pids: Mapping[str, int]
    expected: Expected
    prepare: Callable[[int], Awaitable[Requests]]
    sent: Callable[[int], None] = lambda _: None
    watch: Callable[[], contextlib.AbstractAsyncContextManager[None]] = contextlib.nullcontext
    check: Callable[[], Awaitable[None]] | None = None
    rate_max: float = 0.0
    rate_guess: float = RATE_MAX
    answered: int = 0
    second: int = 0
    runs: int = 0


class Run(NamedTuple):
    """What one run of one contestant gave; processor microseconds a request by process."""

    load: Load
    cpu_us: dict[str, float]


class Members:
    """Hands out members who have never pressed."""

    def __init__(self, first: int) -> None:
        self._next = first

    def take(self, count: int) -> range:
        """So many new members."""
        first = self._next
        self._next += count
        return range(first, self._next)


def presses(house: House, drop: str, members: Members) -> Callable[[int], Awaitable[Requests]]:
    """Prepares presses on a drop, each by a member who has never pressed."""

    async def prepare(count: int) -> Requests:
        taken = members.take(count)
        return write_presses(house.folder / "requests.bin", house.minter, drop, taken.start, count)

    return prepare


async def run(plan: Plan, each: Contestant, duration_s: int) -> Run | None:
    """Press on one contestant; None when its row says that it failed, now or before."""
    if each.row.failed:
        return None
    try:
        requests = await each.prepare(math.ceil((each.rate_max * RESERVE or each.rate_guess) * duration_s))
        before = {name: cpu_s(pid) for name, pid in each.pids.items()}
        async with each.watch():
            load = await wrk.load(each.url, requests, each.expected, duration_s)
    except Failed as failed:
        each.row.failed = str(failed)
        plan.progress(f"  {each.row.name}: {failed}")
        return None
    cpu_us = {name: (cpu_s(pid) - before[name]) / load.requests * 1e6 for name, pid in each.pids.items()}
    plan.progress(f"  {each.row.name}: {load.rate:,.0f} requests a second")
    each.sent(load.requests)
    each.rate_max = max(each.rate_max, load.rate)
    each.answered += load.requests
    each.second += load.second
    each.runs += 1
    return Run(load, cpu_us)


def note(row: Row, found: Run) -> None:
    """Write a run down in its row, with all that belongs to requests a second."""
    row.samples.append(found.load.rate)
    row.p50_ms.append(found.load.p50_ms)
    row.p99_ms.append(found.load.p99_ms)
    row.command = found.load.command
    for name, spent_us in found.cpu_us.items():
        row.cpu_us.setdefault(name, []).append(spent_us)
