"""Requests a second: refusals and durable wins, and both without combining, beside an empty handler.

Each request is by another member, with a token that no server has seen. In each round everything runs once, in an order
that moves on from round to round; a ratio compares two runs of one round.
"""

import contextlib
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from loadtests.bench import wrk
from loadtests.bench.house import House, Plan, empty_handler, one_call_each
from loadtests.bench.processes import cpu_s
from loadtests.bench.table import Failed, Row, Target
from loadtests.bench.tokenfile import write_requests
from loadtests.bench.wrk import Expected, Load
from loadtests.errors import SetupError

FIRST_MEMBER = 1_000_000_000
LAST_UNIT_MEMBER = 1
ENDLESS_UNITS = 2**31 - 1
WARM_UP_S = 1
RATE_MAX = 60_000.0
"""Requests a second that one process is not expected to reach: sizes the first file."""
RESERVE = 2
"""So many times the requests of the fastest run so far are written for the next."""

REFUSED = Expected(409, "sold_out")
WON = Expected(201, '"held"')
NAMES = ("refusals", "wins", "plain")


@dataclass
class Contestant:
    """One row, where its requests go, and what it has shown so far."""

    row: Row
    url: str
    web_pid: int
    drop: str
    expected: Expected
    rate_max: float = 0.0
    answered: int = 0


class Run(NamedTuple):
    """What one run of one contestant gave; processor microseconds a request by process."""

    load: Load
    cpu_us: dict[str, float]


class Members:
    """Hands out members who have never pressed."""

    def __init__(self, first: int) -> None:
        self._next = first

    def take(self, count: int) -> int:
        """The first of `count` new members."""
        first = self._next
        self._next += count
        return first


async def measure(plan: Plan, house: House, names: Sequence[str]) -> list[Row]:
    """The rows of those of `NAMES` that are asked for, the empty handler's first. `Failed` when none could begin."""
    async with contestants(house, names) as found:
        members = Members(FIRST_MEMBER)
        if not plan.quick:
            plan.progress("warming up")
            for each in found:
                await _run(plan, house, each, members, WARM_UP_S)
        for number in range(plan.rounds):
            plan.progress(f"round {number + 1} of {plan.rounds}")
            start = number % len(found)
            runs = {}
            for each in found[start:] + found[:start]:
                if run := await _run(plan, house, each, members, plan.seconds):
                    runs[each.row.name] = run
            _note_round(found, runs)
        await _check_ledger(house, found)
    return [each.row for each in found]


@contextlib.asynccontextmanager
async def contestants(house: House, names: Sequence[str]) -> AsyncIterator[list[Contestant]]:
    """All that run against each other: the empty handler first."""
    async with contextlib.AsyncExitStack() as stack:
        empty_url, empty_pid = await stack.enter_async_context(empty_handler(house))
        await house.create_drop("sold-out", 1)
        await house.create_drop("endless", ENDLESS_UNITS)
        status, body = await house.press("sold-out", LAST_UNIT_MEMBER)
        if status != 201:
            raise Failed(f"the last unit could not be sold: {status} {body}")
        url, web, unit = house.at.url, house.pids["web"], "req/s"
        row = Row("empty aiohttp POST handler", unit)
        found = [Contestant(row, empty_url, empty_pid, "sold-out", Expected(200, ""))]
        if "refusals" in names:
            row = Row("refusals (sold out)", unit, target=Target("at least", 0.8))
            found.append(Contestant(row, url, web, "sold-out", REFUSED))
        if "wins" in names:
            row = Row("durable wins (fsync before the 201)", unit, target=Target("at least", 0.35))
            found.append(Contestant(row, url, web, "endless", WON))
        if "plain" in names:
            plain = await stack.enter_async_context(one_call_each(house))
            found.append(Contestant(Row("refusals, one call a request", unit), *plain, "sold-out", REFUSED))
            found.append(Contestant(Row("durable wins, one call a request", unit), *plain, "endless", WON))
        yield found


async def _run(plan: Plan, house: House, each: Contestant, members: Members, duration_s: int) -> Run | None:
    """Press on one contestant; None when its row says that it failed, now or before."""
    if each.row.failed:
        return None
    count = math.ceil((each.rate_max * RESERVE or RATE_MAX) * duration_s)
    requests = write_requests(house.folder / "requests.bin", house.minter, each.drop, members.take(count), count)
    pids = {"web": each.web_pid} | {name: house.pids[name] for name in ("valkey", "postgres")}
    before = {name: cpu_s(pid) for name, pid in pids.items()}
    try:
        load = await wrk.load(each.url, requests, each.expected, duration_s)
    except Failed as failed:
        each.row.failed = str(failed)
        plan.progress(f"  {each.row.name}: {failed}")
        return None
    cpu_us = {name: (cpu_s(pid) - before[name]) / load.requests * 1e6 for name, pid in pids.items()}
    plan.progress(f"  {each.row.name}: {load.rate:,.0f} requests a second")
    each.rate_max = max(each.rate_max, load.rate)
    each.answered += load.requests
    return Run(load, cpu_us)


def _note_round(found: Sequence[Contestant], runs: Mapping[str, Run]) -> None:
    base = runs.get(found[0].row.name)
    for each in found:
        row = each.row
        if row.failed or (run := runs.get(row.name)) is None:
            continue
        if base is None:
            row.failed = "the empty handler, which it is compared with, failed"
            continue
        row.samples.append(run.load.rate)
        row.ratios.append(run.load.rate / base.load.rate)
        row.p50_ms.append(run.load.p50_ms)
        row.p99_ms.append(run.load.p99_ms)
        row.command = run.load.command
        for name, spent_us in run.cpu_us.items():
            if name == "web" or each is not found[0]:
                row.cpu_us.setdefault(name, []).append(spent_us)


async def _check_ledger(house: House, found: Sequence[Contestant]) -> None:
    """Every 201 that was counted is in the ledger, and gate and ledger agree."""
    winners = [each for each in found if each.drop == "endless"]
    if not winners:
        return
    try:
        await house.settled("endless", sum(each.answered for each in winners))
    except (Failed, SetupError) as failed:
        for each in winners:
            each.row.failed = each.row.failed or str(failed)
