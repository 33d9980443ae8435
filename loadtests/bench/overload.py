"""Overload: a sale of so many units, pressed by 10, 26 and 100 members for each, all there is at the same time.

26 for each was the worst of the real sales that the product is modelled on. 512 connections press as fast as they are
answered; each member presses once, and each press has its verdict before a run ends: exactly the units there are must
be sold, every other press must be told so, and gate and ledger agree. What may not happen is that a larger crowd gets
less done: neither fewer verdicts a second, nor fewer wins a second until all is sold.
"""

from dataclasses import dataclass, field

from loadtests.bench import wrk
from loadtests.bench.contest import Members, latencies
from loadtests.bench.house import House, Plan
from loadtests.bench.processes import cpu_s
from loadtests.bench.table import Failed, Row, Target
from loadtests.bench.tokenfile import write_presses
from loadtests.bench.wrk import Expected, Load
from loadtests.errors import SetupError
from loadtests.stores import Unreadable

NAME = "overload"
CONNECTIONS = 512
LEVELS = (10, 26, 100)
"""Members that press, for each unit."""
FIRST_MEMBER = 2_000_000_000
EITHER = Expected(201, '"held"', (409, "sold_out"))
P99_MAX_MS = 250
FLAT = 0.9
"""A hundred members a unit may cost a tenth of the goodput that ten have."""
WARM_UP_UNITS = 200
UNITS_MIN = 1_000
"""Fewer are sold before the connections are warm, and their rate says little."""
QUICK_UNITS = 40


@dataclass
class Level:
    """One overload, and its rows."""

    times: int
    rows: dict[str, Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        crowd = f"{self.times} members a unit"
        self.rows = {
            "verdicts": Row(f"overload, {crowd}: verdicts", "verdicts/s", key=f"overload-{self.times}"),
            "p99": Row(f"  p99 of a verdict, {crowd}", "ms", target=Target("at most", P99_MAX_MS)),
            "wins": Row(f"  durable wins until all was sold, {crowd}", "wins/s"),
        }


async def measure(plan: Plan, house: House) -> list[Row]:
    """The rows of each level, then what the highest gets done of what the lowest does."""
    levels = [Level(times) for times in LEVELS]
    flat = {
        what: Row(f"  {said}, {LEVELS[-1]} members a unit to {LEVELS[0]}", "×", target=Target("at least", FLAT))
        for what, said in (("verdicts", "verdicts a second"), ("wins", "wins a second"))
    }
    rows = [row for level in levels for row in level.rows.values()] + [*flat.values()]
    try:
        members = Members(FIRST_MEMBER)
        units = await _units(plan, house, members)
        order = list(levels)
        for number in range(plan.rounds):
            for level in order:
                await _sell(plan, house, members, level, units=units, drop=f"overload-{level.times}-{number}")
            order = [*order[1:], order[0]]
        for what, row in flat.items():
            lowest, highest = (level.rows[what].samples for level in (levels[0], levels[-1]))
            row.samples = [most / least for most, least in zip(highest, lowest, strict=True)]
        flat["verdicts"].note = f"{units:,} units each; {CONNECTIONS} connections"
    except (Failed, SetupError, Unreadable) as failed:
        for row in rows:
            row.failed = row.failed or str(failed)
    return rows


async def _units(plan: Plan, house: House, members: Members) -> int:
    """So many that a sale at the middle level lasts about as long as any other run."""
    if plan.quick:
        return QUICK_UNITS
    warm_up = Level(LEVELS[0])
    await _sell(plan, house, members, warm_up, units=WARM_UP_UNITS, drop="overload-warm-up")
    return max(UNITS_MIN, round(warm_up.rows["verdicts"].samples[0] * plan.seconds / LEVELS[1]))


async def _sell(plan: Plan, house: House, members: Members, level: Level, *, units: int, drop: str) -> None:
    """One sale to its end. `Failed` unless exactly its units were sold, and everybody else was told so."""
    contenders = units * level.times
    await house.create_drop(drop, units)
    taken = members.take(contenders + 1)  # wrk asks for one request that it never sends
    path = house.folder / "requests.bin"
    requests = write_presses(path, house.minter, drop, taken.start, len(taken))
    before = _spent(house)
    load = await wrk.load_all(house.at.url, requests, EITHER, connections=CONNECTIONS)
    spent = {name: used - before[name] for name, used in _spent(house).items()}
    path.unlink()
    await _check(house, drop, load, units=units, contenders=contenders)
    verdicts, p99, wins = (level.rows[name] for name in ("verdicts", "p99", "wins"))
    verdicts.samples.append(load.rate)
    latencies(verdicts, load)
    verdicts.command = load.command
    for name, used in spent.items():
        verdicts.cpu_us.setdefault(name, []).append(used / load.requests * 1e6)
    p99.samples.append(load.p99_ms)
    wins.samples.append(units / load.first_s)
    verdicts.note = f"{contenders:,} members"
    plan.progress(f"  {level.times} members a unit: {load.rate:,.0f} verdicts a second, p99 {load.p99_ms:.0f} ms")


def _spent(house: House) -> dict[str, float]:
    return {name: cpu_s(pid) for name, pid in house.serving_pids.items()}


async def _check(house: House, drop: str, load: Load, *, units: int, contenders: int) -> None:
    if (load.first, load.requests) != (units, contenders):
        raise Failed(f"{load.first:,} of {contenders:,} members were told that they won {units:,} units")
    if (held := await house.settled(drop, units)) != units:
        raise Failed(f"{units:,} units were sold, and {held:,} are held")
