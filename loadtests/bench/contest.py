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
from loadtests.bench.wrk import Expected, Load, Silent

FIRST_MEMBER = 1_000_000_000
LAST_UNIT_MEMBER = 1
ENDLESS_UNITS = 2**31 - 1
RATE_MAX = 120_000.0
"""Requests a second that no process is expected to reach: sizes the first file."""
RATE_LIKELY = 40_000.0
"""No later file is made for less, however little the machine let the run before do."""
RESERVE = 4
"""So many times the requests of the fastest run so far are written for the next: others use the machine, too."""

WON = Expected(201, '"held"')
REFUSED = Expected(409, "sold_out")
SOLD_OUT, ENDLESS = "sold-out", "endless"


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


class Sale:
    """One product's two drops, and who is measured on them, each press by a new member.

    In the end every 201 that was counted must be in the ledger, and gate and ledger agree.
    """

    def __init__(self, house: House, members: Members, *, sold_out: str = SOLD_OUT, endless: str = ENDLESS) -> None:
        self._house = house
        self._members = members
        self._sold_out = sold_out
        self._endless = endless
        self._winners: list[Contestant] = []

    async def open(self) -> None:
        """Make the drops, and sell the last unit of one. `Failed` when that cannot be done."""
        await self._house.create_drop(self._sold_out, 1)
        await self._house.create_drop(self._endless, ENDLESS_UNITS)
        status, body = await self._house.press(self._sold_out, LAST_UNIT_MEMBER)
        if status != 201:
            raise Failed(f"the last unit could not be sold: {status} {body}")

    def refusals(self, row: Row, url: str, pids: Mapping[str, int]) -> Contestant:
        """Each of its requests is told that all is sold."""
        return Contestant(row, url, pids, REFUSED, presses(self._house, self._sold_out, self._members))

    def wins(self, row: Row, url: str, pids: Mapping[str, int]) -> Contestant:
        """Each of its requests gets a unit."""
        each = Contestant(row, url, pids, WON, presses(self._house, self._endless, self._members), check=self.settled)
        self._winners.append(each)
        return each

    async def settled(self) -> None:
        """All that was answered with 201 is in the ledger; else `Failed`."""
        await self._house.settled(self._endless, sum(each.answered for each in self._winners))


async def _answered(plan: Plan, each: Contestant, duration_s: int) -> tuple[Load, dict[str, float]]:
    """What wrk measured, and the processors' time before.

    A quick look, whose figures say nothing, may find the machine busy for its whole second, and looks again, twice.
    A measurement is never taken again: who answers nobody has failed it.
    """
    for left in (2, 1, 0) if plan.quick else (0,):
        requests = await each.prepare(math.ceil((each.rate_max * RESERVE or each.rate_guess) * duration_s))
        before = {name: cpu_s(pid) for name, pid in each.pids.items()}
        try:
            async with each.watch():
                return await wrk.load(each.url, requests, each.expected, duration_s), before
        except Silent:
            if not left:
                raise
            plan.progress(f"  {each.row.name}: not one answer within {duration_s} s, once more")
    raise AssertionError


async def run(plan: Plan, each: Contestant, duration_s: int) -> Run | None:
    """Press on one contestant; None when its row says that it failed, now or before."""
    if each.row.failed:
        return None
    try:
        load, before = await _answered(plan, each, duration_s)
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
    latencies(row, found.load)
    row.command = found.load.command
    for name, spent_us in found.cpu_us.items():
        row.cpu_us.setdefault(name, []).append(spent_us)


def latencies(row: Row, load: Load) -> None:
    """Write down how long the answers of a run took."""
    row.p50_ms.append(load.p50_ms)
    row.p99_ms.append(load.p99_ms)
    row.p999_ms.append(load.p999_ms)
    row.max_ms.append(load.max_ms)
