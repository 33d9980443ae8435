"""Stories for two ledgers at once, the real one and the model: what is called, and how to carry it out on either."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from fcodes import CODES_PER_BATCH_MAX
from flashsale.domain import (
    Access,
    Allocation,
    Drop,
    Everyone,
    Fcode,
    Money,
    Tier,
)
from flashsale.ledger import NewBatch

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOLD_S = 60
DROPS = ("d-1", "d-2")
MEMBERS = (1, 2, 3, 4, 5)
PRICE = Money(100, "CNY")
EVERYTHING = 1_000
URL = "https://shop.example/hook"
BATCHES = (1, 2)
CODES = tuple(batch * CODES_PER_BATCH_MAX + serial for batch in BATCHES for serial in (0, 1, 2))
OWNERS = b"0,1,\n1,2,a friend\n2,2,\n"
"""Whose the codes of the second batch are."""


@dataclass(frozen=True)
class Call:
    """A method of one of the stores."""

    store: str
    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Acting:
    """An operator's act: methods of `Act`, then values of its attributes; `given_up`: an exception ends it.

    `owners`: it begins with storing whom the codes of a new batch belong to, and the batch is minted.
    """

    drop: str
    does: tuple[tuple[str, tuple[Any, ...], dict[str, Any]], ...] = ()
    sets: tuple[tuple[str, Any], ...] = ()
    given_up: bool = False
    mints: NewBatch | None = None
    owners: bytes | None = None


@dataclass(frozen=True)
class Arming:
    """What a rebuild reads."""

    drop: str
    epoch: int


@dataclass(frozen=True)
class Tick:
    """The ledger's clock goes on."""

    seconds: float


@dataclass(frozen=True)
class Working:
    """Something that a worker does."""

    method: str
    args: tuple[Any, ...]


Command = Call | Acting | Arming | Tick | Working


# A story is a list of throws: Hypothesis picks them, and leaves some out to find the shortest story. What a throw means
# is up to dice of its own, and to what the ledger holds by then: most calls are about something that is there.

_numbers = st.integers(0, 2**32)


@dataclass(frozen=True)
class Story:
    """The limit of the first drop, whether who returned a unit may buy again, and what happens.

    Hypothesis throws the same small numbers again and again: in another story, or for another time, they are others.
    """

    per_member: int
    rebuy: bool
    seed: int
    throws: list[int]

    def dice(self) -> Iterator[random.Random]:
        """One for each throw."""
        seen: Counter[int] = Counter()
        for throw in self.throws:
            seen[throw] += 1
            yield random.Random(f"{self.seed}/{throw}/{seen[throw]}")


STORIES = st.builds(
    Story,
    per_member=st.integers(1, 3),
    rebuy=st.booleans(),
    seed=_numbers,
    throws=st.lists(_numbers, min_size=30, max_size=50),
)


def story_of(number: int) -> Story:
    """One of such stories."""
    dice = random.Random(number)
    throws = [dice.randrange(2**32) for _ in range(40)]
    return Story((1, 2, 1, 3)[number % 4], dice.random() < 0.4, number, throws)


def allocations() -> tuple[Allocation, ...]:
    """Two that are soon sold out, and one for codes."""
    return allocation_of("a", 5, Everyone()), allocation_of("b", 2, Tier(1)), allocation_of("c", 6, Fcode())


def allocation_of(name: str, quantity: int, access: Access) -> Allocation:
    """Open since the beginning, for an hour."""
    closes = START + timedelta(hours=1)
    return Allocation(id=name, quantity=quantity, opens_at=START, closes_at=closes, access=access, channel="web")


def opening(story: Story) -> list[Command]:
    """Two drops; the first has a batch of codes for whoever shows one, and a batch of members' own."""
    commands: list[Command] = []
    for name, per_member in zip(DROPS, (story.per_member, 2), strict=True):
        drop = Drop(
            id=name,
            title="Engineering edition",
            price=PRICE,
            list_price=Money(120, "CNY"),
            per_member=per_member,
            hold_seconds=HOLD_S,
            epoch=0,
            paused=False,
            closed=False,
            allocations=allocations(),
            created_at=START,
            rebuy_after_return=story.rebuy,
            stripes=3 if story.seed % 2 else 1,
            held=name == DROPS[1],
            hidden=name == DROPS[1] and story.seed % 3 == 1,
        )
        commands.append(Call("drops", "create", (drop,), {"actor": "member:1", "detail": {"made": 1}}))
    commands.append(Acting(DROPS[0], (("next_batch", (), {}),), mints=new_batch(1, None)))
    commands.append(Acting(DROPS[0], mints=new_batch(2, START + timedelta(seconds=3 * HOLD_S)), owners=OWNERS))
    return commands


def new_batch(number: int, expires_at: datetime | None) -> NewBatch:
    """Three codes."""
    return NewBatch(
        id=number,
        allocation="c",
        count=3,
        bound=number == 2,
        key_version=1,
        key_fingerprint="f",
        expires_at=expires_at,
        note=None,
    )
