"""When shoppers come: open arrivals, fixed before the sale begins.

A schedule is drawn once, before anybody presses, and nothing that the service does can change it: who is to press at
0.41 s after the opening presses then, whether the one before has been answered or not. (Shoppers who wait for answers
before others may come would slow down together with the service, and the worst moments would be measured least.) Pure:
no clock, no network; times are seconds from the opening.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from random import Random
from typing import NamedTuple, TypeVar

T = TypeVar("T")

RUSH_SHARE = 0.6
"""Of all arrivals, those in the first second."""
RUSH_S = 1.0
TAIL_LEFT = 0.02
"""The tail thins out exponentially: at the end of the schedule as many come as this share of its beginning."""
LOOK_BEFORE_S = (0.5, 2.0)
"""Who comes after the opening looks at the drop for so long, and presses."""


def _noon(shoppers: int, seconds: float, random: Random) -> list[float]:
    """The rush: `RUSH_SHARE` of all within the first second, evenly; the others in a tail that thins out.

    Both are drawn in equal portions, one arrival each, so that totals are exact and no draw clumps.
    """
    rush = round(RUSH_SHARE * shoppers)
    first = [RUSH_S * (at + random.random()) / rush for at in range(rush)]
    late, span = shoppers - rush, seconds - RUSH_S
    decay = -log(TAIL_LEFT) / span
    whole = 1 - TAIL_LEFT
    tail = [RUSH_S - log(1 - whole * (at + random.random()) / late) / decay for at in range(late)]
    return [*first, *tail]


def _soak(shoppers: int, seconds: float, random: Random) -> list[float]:
    """A steady stream: as many in each second as in every other."""
    return [seconds * (at + random.random()) / shoppers for at in range(shoppers)]


@dataclass(frozen=True)
class Shape:
    """A way of arriving, and a sale that fits it where the command line names no other figures."""

    name: str
    draw: Callable[[int, float, Random], list[float]]
    shoppers: int
    units: int
    seconds: float
    hold_seconds: int
    meaning: str

    def presses(self, shoppers: int, seconds: float, random: Random) -> list[float]:
        """When each of `shoppers` presses, in order, all of them before `seconds` are over."""
        if shoppers < 1 or seconds <= RUSH_S:
            raise ValueError(f"{shoppers} shoppers in {seconds:g} s: at least one, in more than {RUSH_S:g} s.")
        return self.draw(shoppers, seconds, random)


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("noon", _noon, 3_000, 600, 30.0, 8, "60 % in the first second after the opening, then a tail"),
        Shape("soak", _soak, 12_000, 1_500, 600.0, 20, "the same number every second, for minutes or hours"),
        Shape("smoke", _noon, 300, 100, 5.0, 2, "a noon of a few seconds, with every behaviour: for each change"),
    )
}


class Arrival(NamedTuple):
    """One shopper of the schedule: who looks at the drop at `look_at_s` and presses at `press_at_s`.

    `number` counts from 0 in the order of the presses, over all processes.
    """

    number: int
    look_at_s: float
    press_at_s: float


def schedule(presses: list[float], lead_s: float, random: Random) -> list[Arrival]:
    """Arrivals with their looks at the drop: those of the rush before the opening, spread over `lead_s`."""
    arrivals = []
    for number, press_at_s in enumerate(presses):
        if press_at_s < RUSH_S:
            look_at_s = -lead_s + (lead_s - LOOK_BEFORE_S[0]) * random.random()
        else:
            look_at_s = press_at_s - random.uniform(*LOOK_BEFORE_S)
        arrivals.append(Arrival(number, look_at_s, press_at_s))
    return arrivals


def share(items: Sequence[T], index: int, of: int) -> Sequence[T]:
    """What process `index` of `of` processes takes: every `of`-th, so that each has the whole shape, and no two one."""
    if not 0 <= index < of:
        raise ValueError(f"There is no share {index} of {of}.")
    return items[index::of]
