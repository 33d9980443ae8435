"""What a schedule is made of, drawn from its seed: which sale, who takes part, which faults, how often.

Each schedule has a few kinds of faults rather than all of them: with everything at once, most of what goes wrong hides
behind something else.
"""

import random
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import msgspec

from flashsale.domain import Access, Allocation, Drop, Everyone, Fcode, Money, Points, Tier
from tests.simulation.stores import NOON

DROP: Final = "drop"
MAIN: Final = "main"
SIDE: Final = "side"
CODES: Final = "codes"
SNAPSHOT: Final = "august"
POINTS_AT_LEAST: Final = 100
TIER_AT_LEAST: Final = 2
LATE_MEMBER: Final = 100
PRICE: Final = Money(169_900, "CNY")
LEASED: Final = 1 / 3
"""In so many schedules, processes refuse by themselves, from the first refusal on."""
NEVER: Final = 10**9

GATE_FAULTS: Final = ("flush", "evict", "restart_empty", "restart_old", "failover", "stall_gate", "full", "gate_clock")
LEDGER_FAULTS: Final = (
    *("ledger_away", "stall_ledger", "slow_commits", "row_locked", "disk_full", "ledger_clock", "ledger_restart"),
)
PROCESS_FAULTS: Final = ("crash", "stop", "long_stop", "process_clock")
LONG_AWAY: Final = frozenset({"ledger_away", "disk_full", "stall_ledger"})
SHOP_FAULTS: Final = ("shop_down", "shop_slow", "shop_lies", "shop_gone")
FAULTS: Final = (*GATE_FAULTS, *LEDGER_FAULTS, *PROCESS_FAULTS, *SHOP_FAULTS)


@dataclass
class Plan:
    """One schedule. Times in seconds from its beginning; `between_s` is how long until the next fault, on average.

    `chance_…` are those of a call to be lost, `slow` of one to be very late; `latency_s` is what others take at most;
    by `skew_s` at most a process' clock is wrong; from `leases_from` refusals on it
    asks for leases; `round_s` is between two rounds of repairs (0: as the product does).
    """

    drop: Drop
    codes: int
    bound: bool
    pays: bool
    webs: int
    workers: int
    members: int
    operators: int
    storm_s: float
    faults: tuple[str, ...]
    between_s: float
    chance_gate: float
    chance_ledger: float
    chance_http: float
    latency_s: float
    skew_s: float
    slow: float
    batch_max: int
    round_s: float
    leases_from: int
    points: dict[int, int] = field(default_factory=dict)

    @property
    def leased(self) -> bool:
        """Whether processes refuse by themselves."""
        return self.leases_from == 1


def draw_plan(seed: int) -> Plan:
    """The plan of a seed."""
    dice = random.Random(f"plan {seed}")
    storm_s = dice.uniform(3.0, 6.5)
    with_codes = dice.random() < 0.45
    drop = _drop(dice, storm_s, with_codes=with_codes)
    stripes = random.Random(f"stripes {seed}").choice((1, 1, 2, 3))
    drop = msgspec.structs.replace(drop, stripes=stripes)
    faults = _faults(dice)
    leases_from = 1 if random.Random(f"leases {seed}").random() < LEASED else NEVER
    if leases_from == 1:  # a clock put forward ends leases too soon, which `flashsale.leases` owns up to
        faults = tuple(kind for kind in faults if kind != "gate_clock")
    members = dice.randint(3, 7)
    if LONG_AWAY & {*faults} and dice.random() < 0.5:  # a crowd goes on pressing all the while
        members += 6
    everybody = [*range(1, members + 1), *range(LATE_MEMBER, LATE_MEMBER + 20)]
    return Plan(
        drop=drop,
        codes=dice.randint(1, 3) if with_codes else 0,
        bound=dice.random() < 0.4,
        pays=dice.random() < 0.3,
        webs=dice.choice((1, 2, 2, 2, 3)),
        workers=dice.choice((1, 1, 1, 2)),
        members=members,
        operators=dice.choice((0, 1, 1, 2)),
        storm_s=storm_s,
        faults=faults,
        between_s=dice.choice((0.5, 1.0, 1.0, 2.0)),
        chance_gate=dice.choice((0.0, 0.02, 0.05, 0.12)),
        chance_ledger=dice.choice((0.0, 0.02, 0.05, 0.12)),
        chance_http=dice.choice((0.0, 0.0, 0.05)),
        latency_s=dice.choice((0.002, 0.02, 0.1)),
        skew_s=dice.choice((0.0, 0.0, 5.0, 60.0)),
        slow=dice.choice((0.0, 0.02, 0.05)),
        batch_max=dice.choice((1, 2, 3, 256, 256)),
        round_s=dice.choice((0.0, 0.7, 1.5, 1.5, 3.0, 3.0)),
        leases_from=leases_from,
        points={m: dice.choice((POINTS_AT_LEAST - 1, POINTS_AT_LEAST, 5_000)) for m in everybody},
    )


def _faults(dice: random.Random) -> tuple[str, ...]:
    """Some kinds, one of them perhaps more often than the others."""
    if dice.random() < 0.05:
        return ()
    kinds = dice.sample(FAULTS, dice.randint(1, 4))
    if dice.random() < 0.7:  # those that the protocol is about
        kinds += dice.sample(("flush", "restart_old", "failover", "crash", "stop", "evict", "stall_ledger"), 2)
    return tuple(kinds)


def _drop(dice: random.Random, storm_s: float, *, with_codes: bool) -> Drop:
    allocations = [_allocation(dice, MAIN, dice.randint(1, 4), Everyone(), storm_s)]
    if dice.random() < 0.4:
        rule = dice.choice((Everyone(), Tier(TIER_AT_LEAST), Points(SNAPSHOT, POINTS_AT_LEAST)))
        allocations.append(_allocation(dice, SIDE, dice.randint(1, 3), rule, storm_s))
    if with_codes:
        allocations.append(_allocation(dice, CODES, dice.randint(3, 4), Fcode(), storm_s))
    return Drop(
        id=DROP,
        title="Engineering edition",
        price=PRICE,
        list_price=None,
        per_member=dice.choice((1, 1, 1, 2, 2, 3)),
        hold_seconds=dice.choice((1, 2, 3, 5)),
        epoch=0,
        paused=False,
        closed=False,
        allocations=tuple(allocations),
        created_at=NOON,
        rebuy_after_return=dice.random() < 0.5,
    )


def _allocation(dice: random.Random, name: str, quantity: int, access: Access, storm_s: float) -> Allocation:
    """Open since a minute, as a rule; otherwise it opens, or closes, while the storm is on."""
    opens_s, closes_s = -60.0, 3_600.0
    if dice.random() < 0.25:
        opens_s = dice.uniform(0.5, storm_s / 2)
    if dice.random() < 0.1:
        closes_s = dice.uniform(storm_s / 2, storm_s)
    return Allocation(
        id=name,
        quantity=quantity,
        opens_at=NOON + timedelta(seconds=opens_s),
        closes_at=NOON + timedelta(seconds=closes_s),
        access=access,
    )
