"""Requests a second beside an empty handler: refusals, wins and confirms, the first two uncombined, forged F-codes.

Each request is by another member, with a token that no server has seen. In each round everything runs once, in an order
that moves on from round to round; a ratio compares two runs of one round.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from statistics import median

from loadtests.bench import confirms, forged
from loadtests.bench.contest import FIRST_MEMBER, RESERVE, WON, Contestant, Members, Run, note, presses, run
from loadtests.bench.house import ONE_CALL_EACH, House, Plan, beside, empty_handler
from loadtests.bench.table import Failed, Row, Target
from loadtests.bench.wrk import Expected
from loadtests.errors import SetupError
from loadtests.stores import Unreadable

LAST_UNIT_MEMBER = 1
ENDLESS_UNITS = 2**31 - 1
WARM_UP_S = 1

REFUSED = Expected(409, "sold_out")
NAMES = ("refusals", "wins", "confirms", "plain", "forged")
Contestants = dict[str, Contestant]
"""Those of NAMES that are asked for, `plain` and `forged` as two of them each, after `empty`."""


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
    return [each.row for each in found.values()]


async def _all_once(plan: Plan, found: Contestants, order: Sequence[str], duration_s: int) -> dict[str, Run]:
    """A run of each, in this order. From the empty handler's, the first of all, the others' files are sized."""
    runs = {}
    for name in order:
        if done := await run(plan, found[name], duration_s):
            runs[name] = done
            for each in found.values() if name == "empty" else ():
                each.rate_guess = min(each.rate_guess, done.load.rate * RESERVE)
    return runs


@contextlib.asynccontextmanager
async def contestants(plan: Plan, house: House, names: Sequence[str]) -> AsyncIterator[Contestants]:
    """All that run against each other, until the block ends."""
    async with contextlib.AsyncExitStack() as stack:
        empty_url, empty_pid = await stack.enter_async_context(empty_handler(house))
        await house.create_drop("sold-out", 1)
        await house.create_drop("endless", ENDLESS_UNITS)
        status, body = await house.press("sold-out", LAST_UNIT_MEMBER)
        if status != 201:
            raise Failed(f"the last unit could not be sold: {status} {body}")
        members = Members(FIRST_MEMBER)
        refused, won = presses(house, "sold-out", members), presses(house, "endless", members)
        winners: list[Contestant] = []

        async def all_in_ledger() -> None:
            """Every 201 that was counted is in the ledger, and gate and ledger agree."""
            await house.settled("endless", sum(each.answered for each in winners))

        row = Row("empty aiohttp POST handler", "req/s")
        found = {"empty": Contestant(row, empty_url, {"web": empty_pid}, Expected(200, ""), refused)}
        url, pids = house.at.url, house.serving_pids
        if "refusals" in names:
            row = Row("refusals (sold out)", "req/s", target=Target("at least", 0.8))
            found["refusals"] = Contestant(row, url, pids, REFUSED, refused)
        if "wins" in names:
            row = Row("durable wins (fsync before the 201)", "req/s", target=Target("at least", 0.35))
            found["wins"] = Contestant(row, url, pids, WON, won, check=all_in_ledger)
        if "confirms" in names:
            found["confirms"] = await confirms.contestant(house, members)
        if "plain" in names:
            url, web_pid = await stack.enter_async_context(beside(house, "one-call-each", ONE_CALL_EACH))
            pids = {**pids, "web": web_pid}
            row = Row("refusals, one call a request", "req/s")
            found["plain refusals"] = Contestant(row, url, pids, REFUSED, refused)
            row = Row("durable wins, one call a request", "req/s")
            found["plain wins"] = Contestant(row, url, pids, WON, won, check=all_in_ledger)
        if "forged" in names:
            found |= await stack.enter_async_context(forged.contestants(plan, house, members))
        winners += [each for each in found.values() if each.check is all_in_ledger]
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
    confirmed, won = found.get("confirms"), found.get("wins")
    if confirmed and won and not (confirmed.row.failed or won.row.failed):
        pairs = zip(confirmed.row.samples, won.row.samples, strict=True)
        confirmed.row.note = f"{median(mine / theirs for mine, theirs in pairs):.2f} of durable wins"


async def _check(each: Contestant) -> None:
    if each.check is not None:
        try:
            await each.check()
        except (Failed, SetupError, Unreadable) as failed:
            each.row.failed = each.row.failed or str(failed)
