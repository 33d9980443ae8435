"""Who comes: every arrival of a sale with its role and what it carries, drawn before the sale begins.

Members, keys and F-codes are given out by the arrival's number, which counts over all processes: two processes can
never act as the same member, press with the same key of theirs or show the same code, and need not talk to each other.
"""

import dataclasses
from dataclasses import dataclass
from random import Random
from typing import Any

from loadtests.shapes import SHAPES, Arrival, schedule

MIX = {
    "shopper": 0.52,
    "fan": 0.12,
    "coded": 0.08,
    "canceler": 0.07,
    "lapser": 0.06,
    "eager": 0.04,
    "hammerer": 0.03,
    "sprayer": 0.04,
    "replayer": 0.04,
}
"""Role → share of the arrivals. The last three are hostile. `loadtests.crowd.roles` says what each does."""
HOSTILE = frozenset({"hammerer", "sprayer", "replayer"})
FAN_POINTS = 100
"""The allocation for fans asks for so many points; of the fans every second one has them."""


@dataclass(frozen=True)
class Guest:
    """An arrival with its role. `points`: None for who is not in the snapshot; `fcode`: None for who has none."""

    number: int
    role: str
    look_at_s: float
    press_at_s: float
    member: int
    token: str
    points: int | None = None
    fcode: str | None = None


@dataclass(frozen=True)
class Sale:
    """What every process has to know of the sale. Times of the opening are Unix seconds of the server's clock."""

    run: str
    drop: str
    host: str
    shape: str
    shoppers: int
    units: int
    opens_at_s: float
    seconds: float
    hold_s: float
    patience_s: float
    """Who has no verdict so long after the press was due goes home, and counts as unanswered."""
    seed: int
    public: str = "public"
    fans: str = "fans"
    friends: str = "friends"

    def key(self, number: int, press: int) -> str:
        """The key of the `press`-th press of an arrival."""
        return f"{self.run}-{number}-{press}"

    def to_dict(self) -> dict[str, Any]:
        """As it is sent and written."""
        return dataclasses.asdict(self)


def roles(arrivals: int) -> list[str]:
    """The role of each arrival, in order: shares as in `MIX`, spread evenly over the whole schedule.

    Each role has at least one where there are as many arrivals as roles. Evenly, not by lot: every second of the sale
    has the same mix, and the first units are won by all roles.
    """
    wanted = {role: portion * arrivals for role, portion in MIX.items()}
    counts = {role: max(1, int(exact)) for role, exact in wanted.items()}
    if arrivals < len(MIX):
        return list(MIX)[:arrivals]
    by_rest = sorted(MIX, key=lambda role: counts[role] - wanted[role])
    for at in range(arrivals - sum(counts.values())):
        counts[by_rest[at % len(by_rest)]] += 1
    while sum(counts.values()) > arrivals:
        counts[max(counts, key=lambda role: counts[role])] -= 1
    places = [((at + 0.5) / count, role) for role, count in counts.items() for at in range(count)]
    return [role for _, role in sorted(places)]


def arrivals(shape: str, shoppers: int, seconds: float, lead_s: float, seed: int) -> list[tuple[Arrival, str]]:
    """The whole schedule, in the order of the presses, each with its role. The same for the same seed."""
    random = Random(seed)
    drawn = schedule(sorted(SHAPES[shape].presses(shoppers, seconds, random)), lead_s, random)
    return list(zip(drawn, roles(shoppers), strict=True))


def points_of(role: str, nth: int) -> int | None:
    """The points of the `nth` of a role: every second fan has enough."""
    if role != "fan":
        return None
    return FAN_POINTS + 50 if nth % 2 == 0 else FAN_POINTS - 50
