"""How fast one allocation's row lets wins through, in the ledger alone: commits one by one, and 512 at a time.

All wins of an allocation are counted in one row, so that their transactions follow each other, whatever the machine.
Asked through the product's own ledger client, as a web process asks when its gate has granted; the drop is one that
nobody else presses. What was said to be stored is counted at the end.
"""

import time
from itertools import count

from flashsale.domain import Grant
from flashsale.errors import Unavailable
from flashsale.ids import new_ids
from flashsale.ledger import Committed, Ledger
from loadtests.bench.contest import ENDLESS_UNITS, FIRST_MEMBER
from loadtests.bench.house import House, Plan
from loadtests.bench.processes import cpu_s
from loadtests.bench.table import Failed, Row
from loadtests.errors import SetupError

NAME = "hot-row"
DROP = "hot-row"
BATCHES = (1, 512)
TIMEOUT_S = 30.0
RUN_MS, QUICK_MS = 1_000, 100
COMMITS_MIN = 20
"""However slow the first is: a rate of one commit is none."""


async def measure(plan: Plan, house: House) -> list[Row]:
    """Wins a second for each of `BATCHES`, in turns; what Postgres spends on each, and how many commits that makes."""
    rows = {
        batch: Row(f"one allocation's row: wins committed {_each(batch)}", "wins/s", key=f"hot-row-{batch}")
        for batch in BATCHES
    }
    try:
        await house.create_drop(DROP, ENDLESS_UNITS)
        ledger = await Ledger.connect(house.at.database_url or "", pool_max=1, timeout_s=TIMEOUT_S)
        try:
            await _measure(plan, house, ledger, rows)
        finally:
            await ledger.aclose()
    except (Failed, SetupError, Unavailable) as failed:
        for row in rows.values():
            row.failed = str(failed)
    return [*rows.values()]


def _each(batch: int) -> str:
    return "one by one" if batch == 1 else f"{batch} at a time"


async def _measure(plan: Plan, house: House, ledger: Ledger, rows: dict[int, Row]) -> None:
    drop = await ledger.drops.get(DROP)
    if drop is None:
        raise Failed(f"the ledger has no drop {DROP}")
    members, stored = count(FIRST_MEMBER), 0
    for _ in range(plan.rounds):
        for batch, row in rows.items():
            wins, before_s, began_at = 0, cpu_s(house.pids["postgres"]), time.monotonic()
            run_s = plan.size(RUN_MS, QUICK_MS) / 1e3
            while (took_s := time.monotonic() - began_at) < run_s or wins < COMMITS_MIN * batch:
                grants = [Grant(i, next(members), "all", 1, 1, None, "all|1", drop.epoch) for i in new_ids(batch)]
                outcomes = await ledger.reservations.commit(DROP, grants)
                if not all(isinstance(outcome, Committed) for outcome in outcomes):
                    raise Failed(f"a batch of {batch} was not committed: {outcomes[0]}")
                wins += batch
            stored += wins
            row.samples.append(wins / took_s)
            row.cpu_us.setdefault("postgres", []).append((cpu_s(house.pids["postgres"]) - before_s) / wins * 1e6)
            row.note = f"{(row.figure or 0) / batch:,.0f} commits a second"
            plan.progress(f"  {row.samples[-1]:,.0f} wins a second, {_each(batch)}")
    [units] = await ledger.drops.balance(DROP, [])
    if not units.taken == units.held == stored:
        raise Failed(f"{stored:,} wins were committed, {units.taken:,} are counted, {units.held:,} are held")
