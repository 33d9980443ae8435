"""One strike: when it struck, when what it broke was whole again, and what was heard meanwhile."""

import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import NamedTuple

from tests.faults.gates import Stage
from tests.faults.moments import Moment
from tests.faults.pace import lasts
from tests.faults.sales import Sale
from tests.faults.world import World

MOMENT_MAX_S = 1.5
OPENING_MAX_S = 9.0
WORST: tuple[Moment, ...] = ("grant", "commit", "committed")
"""Between a unit's being granted and its buyer's knowing."""


class Hit:
    """What a fault needs to strike with. Times are Unix seconds; `details` say how it struck this time."""

    def __init__(self, kind: "Kind", world: World, sales: list[Sale], random: Random) -> None:
        self.kind = kind
        self.world = world
        self.sales = sales
        self.random = random
        self.struck_at: float | None = None
        self.healed_at: float | None = None
        self.first_verdict_s: float | None = None
        self.first_grant_s: float | None = None
        self.unavailable = 0
        self.details: list[str] = []

    async def moment(self, *worst: Moment) -> None:
        """Wait for one of these moments or, as often, for none of them; then strike."""
        choice: Moment | None = self.random.choice([None, *(worst or WORST)])
        if choice is not None and await self.world.moments.wait(
            choice, OPENING_MAX_S if choice == "opening" else MOMENT_MAX_S
        ):
            self.details.append(f"at {choice}")
        self.struck()

    def struck(self) -> None:
        """It strikes now, if it has not yet."""
        if self.struck_at is None:
            self.struck_at = time.time()

    def healed(self) -> None:
        """What it broke is whole again, if it was not yet."""
        if self.healed_at is None:
            self.healed_at = time.time()

    @property
    def times(self) -> tuple[float, float]:
        """When it struck and when it was healed, of a strike that is over."""
        assert self.struck_at is not None
        assert self.healed_at is not None
        return self.struck_at, self.healed_at

    async def hold(self, low_s: float, high_s: float) -> None:
        """Let it be as it is for a time."""
        seconds = self.random.uniform(low_s, high_s)
        self.details.append(f"for {seconds:.1f} s")
        await lasts(seconds)

    def drop(self) -> Sale:
        """Some drop that is open."""
        now = time.time()
        return self.random.choice([sale for sale in self.sales if sale.opens_at <= now])


class Kind(NamedTuple):
    """A kind of fault: on which stages it can be, what no other may touch meanwhile, and how it strikes."""

    name: str
    stages: tuple[Stage, ...]
    needs: frozenset[str]
    strike: Callable[[Hit], Awaitable[None]]


KINDS: dict[str, Kind] = {}


def fault(
    name: str, *needs: str, stages: tuple[Stage, ...] = ("single",)
) -> Callable[[Callable[[Hit], Awaitable[None]]], Callable[[Hit], Awaitable[None]]]:
    """Register how a kind of fault strikes, under its name."""

    def register(strike: Callable[[Hit], Awaitable[None]]) -> Callable[[Hit], Awaitable[None]]:
        assert name not in KINDS
        KINDS[name] = Kind(name, stages, frozenset(needs), strike)
        return strike

    return register
