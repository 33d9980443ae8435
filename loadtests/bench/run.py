"""Runs what is asked for, on services of its own: which of them a figure is measured on, and in what order."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from loadtests.bench import (
    codes,
    connections,
    deliveries,
    growth,
    hotrow,
    machine,
    memory,
    minting,
    overload,
    points,
    presses,
    rebuild,
    waiting,
)
from loadtests.bench.house import House, Plan, opened
from loadtests.bench.table import Failed, Row
from loadtests.bench.wrk import find_wrk
from loadtests.errors import SetupError

CROWDS: dict[str, Callable[[Plan, House], Awaitable[list[Row]]]] = {
    overload.NAME: overload.measure,
    hotrow.NAME: hotrow.measure,
    "wire": connections.measure_wire,
    "connections": connections.measure_connections,
}
"""What is measured after the presses, on the service that they filled."""
ON_PRESSES = (*presses.NAMES, *CROWDS)
ON_STORES = (
    *growth.NAMES, "verify", *minting.NAMES, "deliveries", "import", *rebuild.NAMES, "scattered",
)  # fmt: skip
NAMES = (*ON_PRESSES, "waiting", *ON_STORES)
NEED_WRK = {*presses.NAMES, overload.NAME, "waiting"}


def check_needs(names: Sequence[str]) -> None:
    """`SetupError` when a program that these figures need is missing."""
    if NEED_WRK & set(names):
        find_wrk()


async def _presses(plan: Plan, house: House, names: Sequence[str]) -> list[Row]:
    """The rows about requests a second beside the empty handler."""
    chosen = [name for name in presses.NAMES if name in names]
    try:
        return await presses.measure(plan, house, chosen) if chosen else []
    except (Failed, SetupError) as failed:
        return [Row("requests a second", "", failed=str(failed))]


async def _stores(plan: Plan, house: House, names: Sequence[str]) -> list[Row]:
    """The rows for which the stores are filled, the emptiest first; the gate is emptied before the last of them."""
    rows = []
    if chosen := [name for name in growth.NAMES if name in names]:
        rows += await growth.measure(plan, house, chosen)
    rows += await asyncio.to_thread(codes.measure, plan.rounds) if "verify" in names else []
    if chosen := [name for name in minting.NAMES if name in names]:
        rows += await minting.measure(plan, house, chosen)
    if "deliveries" in names:
        rows += await deliveries.measure(plan, house)
    if "import" in names:
        rows += await points.measure(plan, house)
    if chosen := [name for name in rebuild.NAMES if name in names]:
        rows += await rebuild.measure(plan, house, chosen)
    if "scattered" in names:
        rows += await memory.measure(plan, house)
    return rows


async def bench(plan: Plan, names: Sequence[str]) -> tuple[dict[str, str], list[Row]]:
    """Measure what is asked for: the machine, and all rows. What fails leaves a row that says so.

    Requests a second are measured on services of their own: the other figures fill the stores. A quick look, whose
    figures say nothing, takes one service for both.
    """
    about: dict[str, str] = {}
    first: list[Row] = []
    last: list[Row] = []
    wanted = set(names)
    for_presses, for_stores = wanted & set(ON_PRESSES), wanted & set(ON_STORES)
    if for_presses or (for_stores and plan.quick):
        async with opened(plan, "presses") as house:
            about = await machine.describe(house)
            if plan.quick:
                last = await _stores(plan, house, names)
            first = await _presses(plan, house, names)
            for name, measure in CROWDS.items():
                first += await measure(plan, house) if name in names else []
    if "waiting" in wanted:
        async with opened(plan, "none-waiting") as empty, opened(plan, "orders-waiting") as full:
            about = about or await machine.describe(empty)
            first += await waiting.measure(plan, empty, full)
    if for_stores and not plan.quick:
        async with opened(plan, "stores") as house:
            about = about or await machine.describe(house)
            last = await _stores(plan, house, names)
    return about, first + last
