"""What a decision costs Valkey as a sale grows: to ten million eligible members, to a million units.

In calls of 256, as a busy web process asks (`atgate`). Two series. `eligible`: half of those who press are in the set,
the others are neighbours of theirs, so that every decision reads the set; who has won is released before the next pass.
`units`: whole sales from the first unit to the last and beyond, 2.56 members to a unit, so that in the end there are as
many holders in the gate as there were units. In both, every size has the same mix of verdicts.

A ratio to the smallest size must not be one of two moments of the machine. So all sizes go on together, a few thousand
decisions at a time, and beside each step of theirs the smallest makes one: its own is what a step is compared with.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from statistics import median

import redis.asyncio as redis

from loadtests.bench.atgate import CALL, NOT_ELIGIBLE, SOLD_OUT, AtGate, Spent
from loadtests.bench.house import House, Plan
from loadtests.bench.table import Failed, Row, Target

NAMES = ("eligible", "units")
DEAREST = 1.2
ELIGIBLE = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
UNITS = (100, 1_000, 10_000, 100_000, 1_000_000)
QUICK = 3
"""Sizes of a quick look."""
PASS_WINS = 2 * CALL
STEP = 20 * CALL
"""Decisions of one step; then it is another size's turn."""
BESIDE = STEP // 4
"""Of the smallest, beside each step of another."""
STEPS = 10
"""Of each size in a round, at least; a sale goes on to its end."""
STEPS_QUICK = 1
MEMBERS_OF_100 = 256
"""Members that press for a hundred units: one call, in the smallest sale."""
ROUNDS_MAX = 2
"""A sale of a million units lasts so long that more rounds tell nothing."""
FIRST_MEMBER = 1_000_000_000
Steps = Callable[[AtGate, int, int], AsyncIterator[Spent]]
"""At a gate, for a size: what each of its steps of so many decisions, or some more, cost; without end."""


async def measure(plan: Plan, house: House, names: Sequence[str]) -> list[Row]:
    """The rows of those of `NAMES` that are asked for."""
    rows: list[Row] = []
    for name, what, sizes, steps in (
        ("eligible", "eligible members, dense ids", ELIGIBLE, _among_eligible),
        ("units", "units, all of them sold", UNITS, _whole_sales),
    ):
        if name in names:
            series = Series(f"gate-{name}", what, sizes[: QUICK if plan.quick else None], steps)
            rows += await series.measure(plan, house.at.redis_url or "")
    return rows


class Series:
    """One way to grow: a row for each size, in processor microseconds of Valkey a decision."""

    def __init__(self, name: str, what: str, sizes: Sequence[int], steps: Steps) -> None:
        self._sizes = sizes
        self._steps = steps
        self._what = what
        self._name = name
        self._rows = {size: Row(f"gate, a decision: {size:,} {what}", "µs", key=f"{name}-{size}") for size in sizes}
        self._calls_s: dict[int, list[float]] = {size: [] for size in sizes}
        self._holder = Row("  a holder of a unit, in the gate of the last", "bytes each", key="holder")

    async def measure(self, plan: Plan, redis_url: str) -> list[Row]:
        """Fill the rows, the last of them with what a holder needs, if there are any."""
        rows = [*self._rows.values(), *([self._holder] if self._steps is _whole_sales else [])]
        gates = {size: AtGate(redis_url, f"{self._name}-{size}") for size in self._sizes}
        try:
            for _ in range(min(plan.rounds, ROUNDS_MAX)):
                await self._round(gates, STEPS_QUICK if plan.quick else STEPS)
                said = ", ".join(f"{size:,}: {row.samples[-1]:.2f}" for size, row in self._rows.items())
                plan.progress(f"  µs a decision, {self._what}: {said}")
                self._holder.samples.append(await gates[self._sizes[-1]].holders_bytes() / self._sizes[-1])
        except (Failed, redis.RedisError) as failed:
            for row in rows:
                row.failed = str(failed)
        finally:
            for gate in gates.values():
                await gate.aclose()
        self._tell()
        return rows

    async def _round(self, gates: Mapping[int, AtGate], steps: int) -> None:
        smallest, *larger = self._sizes
        reference, whole = self._steps(gates[smallest], smallest, BESIDE), Spent()
        spent = {size: Spent() for size in larger}
        beside = {size: Spent() for size in larger}
        going = {size: self._steps(gates[size], size, STEP) for size in larger}
        while going:
            for size, each in [*going.items()]:
                least = await anext(reference)
                step = await anext(each)
                beside[size].add(least)
                spent[size].add(step)
                whole.add(least)
                if step.finished and spent[size].decisions >= steps * STEP:
                    del going[size]
        for size, total in {smallest: whole, **spent}.items():
            self._rows[size].samples.append(total.us)
            self._rows[size].others.setdefault("smallest", []).append(total.us / beside.get(size, whole).us)
            self._calls_s[size] += total.calls_s

    def _tell(self) -> None:
        for size, row in self._rows.items():
            row.target = None if size == self._sizes[0] else Target("at most", DEAREST, of="smallest")
            if calls_s := self._calls_s[size]:
                row.note = f"a call of {CALL} takes {median(calls_s) * 1e3:.2f} ms"


async def _among_eligible(gate: AtGate, eligible: int, decisions: int) -> AsyncIterator[Spent]:
    """Passes in which as many win as are not eligible, spread over the whole set; nobody holds anything in between."""
    chosen = [2 * (1 + nth * eligible // PASS_WINS) for nth in range(PASS_WINS)]
    members = [each for member in chosen for each in (member, member - 1)]
    await gate.arm(len(chosen), among=eligible)
    while True:
        step = Spent(finished=True)
        while step.decisions < decisions:
            await gate.release(await gate.press(step, members, won=len(chosen), otherwise=NOT_ELIGIBLE))
        yield step


async def _whole_sales(gate: AtGate, units: int, decisions: int) -> AsyncIterator[Spent]:
    """Sales in which every unit is sold, one after the other, each from an empty gate."""
    contenders = range(FIRST_MEMBER, FIRST_MEMBER + units * MEMBERS_OF_100 // 100)
    pressed = len(contenders)
    while True:
        step = Spent()
        while step.decisions < decisions:
            if pressed == len(contenders):
                await gate.arm(units)
                pressed = 0
            members = contenders[pressed : pressed + decisions - step.decisions]
            won = max(0, min(units - pressed, len(members)))
            await gate.press(step, members, won=won, otherwise=SOLD_OUT)
            pressed += len(members)
        step.finished = pressed == len(contenders)
        yield step
