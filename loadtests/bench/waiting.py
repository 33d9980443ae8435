"""What a full queue costs those who reserve: durable wins with 100,000 orders waiting, beside wins with none.

Two services, which differ in that alone: both have the same reservations and orders, a worker of which the shop's
endpoint is away, and the same load. In one all orders wait, in the other all were delivered. The runs are short and
take turns, in an order that turns round each time, and a ratio compares two that follow each other: what the machine
does meanwhile happens to both. (Medians over all runs of either side differ by more than what is looked for.)
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

from loadtests import stores
from loadtests.bench.contest import FIRST_MEMBER, WON, Contestant, Members, note, presses, run
from loadtests.bench.customers import confirm_all, reserve
from loadtests.bench.house import House, Plan, worker
from loadtests.bench.receiver import new_secret
from loadtests.bench.table import Failed, Row, Target
from loadtests.errors import SetupError
from loadtests.stores import Orders

DROP = "waiting"
PRESSED = "endless"
UNITS = 2**31 - 1
RUN_S = 1
WARM_UP_S = 1


async def measure(plan: Plan, empty: House, full: House) -> list[Row]:
    """Three rows: wins with none waiting, with all waiting, and their ratio."""
    wanted = plan.size(100_000, 500)
    none = Row("durable wins, no order waiting", "req/s")
    many = Row(f"durable wins, {wanted:,} orders waiting", "req/s")
    ratio = Row("  their ratio", "×", target=Target("at least", 0.95))
    try:
        plan.progress(f"{wanted:,} orders in each")
        await asyncio.gather(_fill(empty, wanted, delivered=True), _fill(full, wanted, delivered=False))
        pair = (await _contestant(empty, none), await _contestant(full, many))
        async with away() as url, worker(empty, url, new_secret()), worker(full, url, new_secret()):
            ratio.samples = await _compare(plan, *pair)
        await _check(empty, pair[0], Orders(confirmed=wanted, waiting=0, wrong=0))
        await _check(full, pair[1], Orders(confirmed=wanted, waiting=wanted, wrong=0))
        turns = f"median of {len(ratio.samples)} turns, {min(ratio.samples):.2f}–{max(ratio.samples):.2f}"
        ratio.note = f"{turns}; the orders are copies, in SQL, of one made over HTTP"
    except (Failed, SetupError, stores.Unreadable) as failed:
        for row in (none, many, ratio):
            row.failed = row.failed or str(failed)
    return [none, many, ratio]


@contextlib.asynccontextmanager
async def away() -> AsyncIterator[str]:
    """The URL of an endpoint that refuses every connection: a port that is taken, where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/"


async def _fill(house: House, wanted: int, *, delivered: bool) -> None:
    """So many confirmed reservations, each with its order, delivered or in the queue; gate and ledger agree."""
    url = house.at.database_url or ""
    await house.create_drop(DROP, wanted)
    [hold] = await reserve(house.at.url, house.minter, DROP, [FIRST_MEMBER])
    await confirm_all(house.at.url, house.minter, [hold])
    await stores.copy_order(url, hold.reservation, wanted - 1)
    if delivered:
        await stores.deliver_unseen(url, DROP)
    await stores.at_rest(url)
    await house.settled(DROP, wanted)


async def _contestant(house: House, row: Row) -> Contestant:
    await house.create_drop(PRESSED, UNITS)
    return Contestant(row, house.at.url, house.serving_pids, WON, presses(house, PRESSED, Members(FIRST_MEMBER)))


async def _compare(plan: Plan, empty: Contestant, full: Contestant) -> list[float]:
    """Both in turns, each as long as any other row; the ratio full to empty of each turn."""
    quietly = replace(plan, progress=lambda _: None)
    order, ratios = [empty, full], []
    for each in order if not plan.quick else ():
        await run(quietly, each, WARM_UP_S)
    for _ in range(plan.rounds * plan.seconds // RUN_S):
        for each in order:
            if (done := await run(quietly, each, RUN_S)) is None:
                raise Failed(f"{each.row.name}: {each.row.failed}")
            note(each.row, done)
        with_all, with_none = full.row.samples[-1], empty.row.samples[-1]
        ratios.append(with_all / with_none)
        plan.progress(f"  wins a second: {with_all:,.0f} with all waiting, {with_none:,.0f} with none")
        order.reverse()
    return ratios


async def _check(house: House, each: Contestant, expected: Orders) -> None:
    """Every 201 that was counted is in the ledger, and the queue is as it was; else `Failed`."""
    await house.settled(PRESSED, each.answered)
    await house.settled(DROP, expected.confirmed)
    found = await stores.orders(house.at.database_url or "", DROP)
    if found != expected:
        raise Failed(f"{each.row.name}: the orders should be {expected}, and are {found}")
