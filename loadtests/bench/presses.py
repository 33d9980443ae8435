"""Requests a second beside an empty handler: refusals, wins and confirms; with one thing less; forged F-codes.

Each request is by another member, with a token that no server has seen. In each round everything runs once, in an order
that moves on from round to round; a ratio compares two runs of one round.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from statistics import median

from loadtests.bench import ablation, confirms, forged
from loadtests.bench.contest import (
    FIRST_MEMBER,
    RATE_LIKELY,
    RESERVE,
    SOLD_OUT,
    Contestant,
    Members,
    Run,
    Sale,
    note,
    presses,
    run,
)
from loadtests.bench.house import House, Plan, empty_handler
from loadtests.bench.table import Failed, Row, Target
from loadtests.bench.wrk import Expected
from loadtests.errors import SetupError
from loadtests.stores import Unreadable

WARM_UP_S = 1
WINS_MIN = 10_000
"""Durable wins a second that one service shall reach."""
NAMES = ("refusals", "wins", "confirms", *ablation.NAMES, "forged")
Contestants = dict[str, Contestant]
"""Those of NAMES that are asked for, some of them as two, after `empty`; with `ablation`, what it is compared with."""


async def measure(plan: Plan, house: House, names: Sequence[str]) -> list[Row]:
    """The rows of those of `NAMES` that are asked for, the empty handler's first. `Failed` when none could begin."""
    async with contestants(plan, house, names) as found:
        order = list(found)
        if not plan.quick:
            plan.progress("warming up")
            await _all_once(plan, found, order, WARM_UP_S)
        for number in range(plan.rounds):
            plan.progress(f"round {number + 1} of {plan.rounds}")
            _note_round(found, await _all_once(plan, found, order, plan.seconds))
            order = [*order[1:], order[0]]
        for each in found.values():
            await _check(each)
    rows = [each.row for each in found.values()]
    if "wins" in found:
        rows.insert(rows.index(found["wins"].row) + 1, _absolute(found["wins"].row))
    return rows


def _absolute(wins: Row) -> Row:
    """The same wins once more, held against a number instead of a handler."""
    target = Target("at least", WINS_MIN, absolute=True)
    return Row("  the same, whatever an empty handler does", "wins/s", list(wins.samples), target, failed=wins.failed)


async def _all_once(plan: Plan, found: Contestants, order: Sequence[str], duration_s: int) -> dict[str, Run]:
    """A run of each, in this order. From the empty handler's, the first of all, the others' files are sized."""
    runs = {}
    for name in order:
        if done := await run(plan, found[name], duration_s):
            runs[name] = done
            for each in found.values() if name == "empty" else ():
                each.rate_guess = min(each.rate_guess, max(RATE_LIKELY, done.load.rate * RESERVE))
    return runs


@contextlib.asynccontextmanager
async def contestants(plan: Plan, house: House, names: Sequence[str]) -> AsyncIterator[Contestants]:
    """All that run against each other, until the block ends."""
    less = [name for name in ablation.NAMES if name in names]
    async with contextlib.AsyncExitStack() as stack:
        empty_url, empty_pid = await stack.enter_async_context(empty_handler(house))
        members = Members(FIRST_MEMBER)
        sale = Sale(house, members)
        await sale.open()
        row = Row("empty aiohttp POST handler", "req/s", key="empty")
        anybody = presses(house, SOLD_OUT, members)
        found = {"empty": Contestant(row, empty_url, {"web": empty_pid}, Expected(200, ""), anybody)}
        url, pids = house.at.url, house.serving_pids
        if "refusals" in names or less:
            row = Row("refusals (sold out)", "req/s", target=Target("at least", 1.0), key="refusals")
            found["refusals"] = sale.refusals(row, url, pids)
        if "wins" in names or less:
            row = Row("durable wins (fsync before the 201)", "req/s", target=Target("at least", 0.5), key="wins")
            found["wins"] = sale.wins(row, url, pids)
        if "confirms" in names:
            found["confirms"] = await confirms.contestant(house, members)
        found |= await stack.enter_async_context(ablation.contestants(house, sale, members, less))
        if "forged" in names:
            found |= await stack.enter_async_context(forged.contestants(plan, house, members))
        yield found


def _note_round(found: Contestants, runs: Mapping[str, Run]) -> None:
    base = runs.get("empty")
    for name, each in found.items():
        if each.row.failed or (done := runs.get(name)) is None:
            continue
        if base is None:
            each.row.failed = "the empty handler, which it is compared with, failed"
            continue
        note(each.row, done)
        each.row.ratios.append(done.load.rate / base.load.rate)
        for other, against in _compared_with(name).items():
            if against in runs:
                each.row.others.setdefault(other, []).append(done.load.rate / runs[against].load.rate)
    confirmed, won = found.get("confirms"), found.get("wins")
    if confirmed and won and not (confirmed.row.failed or won.row.failed):
        pairs = zip(confirmed.row.samples, won.row.samples, strict=True)
        confirmed.row.note = f"{median(mine / theirs for mine, theirs in pairs):.2f} of durable wins"


def _compared_with(name: str) -> dict[str, str]:
    """What a contestant is held against beside the empty handler: the product, or the product in batches of one."""
    if name in {"refusals", "wins"}:
        return {"plain": f"plain {name}"}
    less, _, what = name.partition(" ")
    return {"shipped": what} if less in ablation.NAMES else {}


async def _check(each: Contestant) -> None:
    if each.check is not None:
        try:
            await each.check()
        except (Failed, SetupError, Unreadable) as failed:
            each.row.failed = each.row.failed or str(failed)
