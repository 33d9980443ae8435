"""Lists of commands for two gates at once, drawn by dice."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from hypothesis import strategies as st

from fcodes import CODES_PER_BATCH_MAX
from flashsale.domain import (
    MEMBER_MAX,
    Access,
    Claim,
    Everyone,
    Fcode,
    FcodeBatch,
    Grant,
    Points,
    Tier,
)
from tests.gate.support import fcodes, number

MEMBERS = (999, 1_000, MEMBER_MAX)
OTHERS = (5, 1_500)
"""At home on another stripe: here they have units, and never press."""
HOUR_MS = 3_600_000
START = datetime.now(UTC).replace(microsecond=0)
WINDOWS = {"open": (-2, 2), "upcoming": (2, 4), "later": (3, 4), "over": (-4, -2)}
EXPIRIES = (None, None, None, START + timedelta(hours=1), START - timedelta(hours=1))
ELIGIBLE = {"list-1": MEMBERS[:2], "list-2": MEMBERS[1:]}
POINTS = {Points("s", 1): "list-1", Points("s", 2): "list-2"}
ACCESS: tuple[Access, ...] = (Everyone(), *POINTS, Tier(1), Fcode())
BATCHES = (1, 2, 2**20 - 1)
SERIALS = (0, 1, 1_001)
CODES = tuple(number(batch, serial) for batch in BATCHES for serial in SERIALS)
OWNERS = {
    batch: {serial: MEMBERS[(at + n) % 3] for n, serial in enumerate(SERIALS) if n != at}
    for at, batch in enumerate(BATCHES)
}
"""Whose the codes of the batches are, if they are bound; one of each batch is nobody's."""


How = Literal["well", "short", "fewer codes", "left", "without lists", "staging lost", "codes lost"]
FAILURES: tuple[How, ...] = (
    "short",
    "fewer codes",
    "fewer codes",
    "left",
    "without lists",
    "staging lost",
    "codes lost",
)


@dataclass(frozen=True)
class Arm:
    """Rebuild for another configuration; `how` it goes wrong, and `step`, by how much the epoch grows."""

    access: tuple[Access, ...]
    windows: tuple[str, ...]
    free: tuple[int, ...]
    paused: bool
    closed: bool
    keep: tuple[int, ...]
    batches: tuple[FcodeBatch, ...]
    spent: tuple[int, ...]
    revoked: tuple[int, ...]
    codes_stopped: bool = False
    step: int = 1
    how: How = "well"


@dataclass(frozen=True)
class Decide:
    """Claims; settled grants ride along. `ahead`: the caller knows of a later epoch; `before`: of an older drop.

    `grants_max`: no more may be granted (None: any number). `elsewhere`: what other stripes may have (None: there are
    none); `spent`: the places of claims whose codes were seen spent there.
    """

    claims: tuple[Claim, ...]
    settle: tuple[int, ...]
    ahead: int
    before: bool
    grants_max: int | None
    elsewhere: dict[str, tuple[int, int]] | None
    spent: tuple[int, ...]


@dataclass(frozen=True)
class Take:
    """Units for grants whose claims stand elsewhere, made up, `late` of another epoch; codes to look at then."""

    grants: tuple[Grant, ...]
    late: tuple[int, ...]
    settle: tuple[int, ...]
    codes: tuple[int, ...]
    ahead: int


@dataclass(frozen=True)
class Release:
    """Give back units of grants, some under a wrong member; `keeping` their places, their codes `staying` spent."""

    picks: tuple[int, ...]
    of_another: bool
    keeping: bool
    staying: bool


@dataclass(frozen=True)
class Settle:
    """These grants are in the ledger."""

    picks: tuple[int, ...]


@dataclass(frozen=True)
class Evict:
    """One key of the gate vanishes."""

    what: Literal["meta", "ent", "pend", "codes", "elig", "bound"]


@dataclass(frozen=True)
class Lease:
    """Take the lease to rebuild, renew it, or give it back."""

    act: Literal["take", "keep", "drop"]


Command = Arm | Decide | Take | Release | Settle | Evict | Lease


# A story is a list of throws: Hypothesis picks them, and leaves some out to find the shortest story. What a throw means
# is up to dice of its own: Hypothesis would choose the same few configurations, in most of which nothing is granted.

_ALLOCATIONS = (None, None, None, "a", "b", "c", "a", "b", "c", "ghost")
_LANES = (None, None, None, None, "c", "c", "a", "ghost")
_throws = st.integers(0, 2**32).map(random.Random)


def _picks(dice: random.Random) -> tuple[int, ...]:
    return tuple(dice.randrange(10**6) for _ in range(dice.randrange(5)))


def _claim(dice: random.Random) -> Claim:
    """Two in five show a code, half of those that are somebody's their owner's."""
    member, quantity, tier = dice.choice(MEMBERS), dice.choice((1, 1, 1, 2, 3)), dice.choice((0, 1))
    if dice.random() < 0.6:
        return Claim(member, dice.choice(_ALLOCATIONS), quantity, dice.choice((None, "k", "l")), tier)
    code = dice.choice((*CODES, number(7, 0)))
    owner = OWNERS.get(code // CODES_PER_BATCH_MAX, {}).get(code % CODES_PER_BATCH_MAX)
    shows = owner if owner and dice.random() < 0.6 else member
    return Claim(
        shows, dice.choice(_LANES), dice.choice((1, 1, 1, quantity)), dice.choice((None, None, "m")), tier, code
    )


def _decide(claims: list[random.Random], dice: random.Random) -> Decide:
    ahead, before = dice.choice((*[0] * 20, -1, 1)), dice.random() < 0.1
    grants_max = dice.choice((*[None] * 8, 0, 1, 2))
    elsewhere = None
    if dice.random() < 0.6:
        most = {name: dice.choice((0, 1, 2, 3)) for name in dice.sample("abc", dice.randrange(4))}
        elsewhere = {name: (units + dice.randrange(2), units) for name, units in most.items()}
    asked = tuple(_claim(each) for each in claims)
    spent = tuple(n for n in range(len(asked)) if elsewhere is not None and dice.random() < 0.2)
    return Decide(asked, _picks(dice), ahead, before, grants_max, elsewhere, spent)


def _take(dice: random.Random) -> Take:
    """Some with codes, of which the first is often shown twice."""
    grants = []
    for _ in range(dice.randrange(1, 7)):
        code = dice.choice((*CODES, CODES[0], CODES[0])) if dice.random() < 0.5 else None
        name, quantity = dice.choice((*"abcc", "ghost")), dice.choice((1, 1, 1, 2))
        new_id, key = f"t-{dice.randrange(10**12)}", dice.choice((None, "k"))
        grants.append(Grant(new_id, dice.choice(OTHERS), name, quantity, 1, key, "|1", 0, 1, code=code))
    late = tuple(n for n in range(len(grants)) if dice.random() < 0.1)
    codes = tuple(dice.sample(CODES, dice.randrange(4)))
    return Take(tuple(grants), late, _picks(dice), codes, dice.choice((*[0] * 15, 1)))


def _batch(dice: random.Random, batch: int) -> FcodeBatch:
    """Half of them in order, most of the allocation that is most often one for codes."""
    lane, count = dice.choice("ccccab"), dice.choice((2_000, 2_000, 1))
    revoked, bound = dice.random() < 0.15, dice.random() < 0.4
    return fcodes(batch, lane, count=count, expires_at=dice.choice(EXPIRIES), revoked=revoked, bound=bound)


def _arm(dice: random.Random, *, steps: Sequence[int] = (1,), hows: Sequence[How] = ("well",)) -> Arm:
    anything = (Everyone(), Everyone(), *ACCESS)
    return Arm(
        access=(dice.choice(anything), dice.choice(anything), dice.choice((*[Fcode()] * 4, *ACCESS))),
        windows=tuple(dice.choice((*["open"] * 16, *WINDOWS)) for _ in "abc"),
        free=tuple(dice.randrange(4) for _ in "abc"),
        paused=dice.random() < 0.1,
        codes_stopped=dice.random() < 0.15,
        closed=dice.random() < 0.1,
        keep=_picks(dice),
        batches=tuple(_batch(dice, batch) for batch in BATCHES),
        spent=tuple(dice.sample(CODES, dice.randrange(5))),
        revoked=tuple(dice.sample(CODES, dice.randrange(3))),
        step=dice.choice(steps),
        how=dice.choice(hows),
    )


def _other(dice: random.Random) -> Command:
    match dice.choice((*["release"] * 4, *["take"] * 4, "settle", "lease", "evict", *["rearm"] * 3, "fail")):
        case "take":
            return _take(dice)
        case "release":
            of_another, keeping, staying = (dice.random() < share for share in (0.15, 0.4, 0.4))
            return Release(_picks(dice), of_another=of_another, keeping=keeping, staying=staying)
        case "settle":
            return Settle(_picks(dice))
        case "lease":
            return Lease(dice.choice(("take", "keep", "drop")))
        case "evict":
            return Evict(dice.choice(("meta", "ent", "pend", "codes", "elig", "bound", "bound")))
        case "rearm":
            return _arm(dice, steps=(1, 1, 1, 1, 0, -1))
        case _:
            return _arm(dice, hows=FAILURES)


@dataclass(frozen=True)
class Story:
    """A drop's limit, how it is armed first, and what happens then: claims, and something else after each."""

    per_member: int
    first: Arm
    then: list[tuple[Command, Command]]


STORIES = st.builds(
    Story,
    per_member=st.integers(1, 3),
    first=_throws.map(_arm),
    then=st.lists(
        st.tuples(
            st.builds(_decide, st.lists(_throws, min_size=8, max_size=14), _throws),
            _throws.map(_other),
        ),
        min_size=4,
        max_size=6,
    ),
)


def story_of(seed: int) -> Story:
    """A story by the same dice, but without Hypothesis, which tells many that differ in little from one before."""
    dice = random.Random(seed)
    return Story(
        per_member=dice.randint(1, 3),
        first=_arm(dice),
        then=[(_decide([dice] * dice.randint(8, 14), dice), _other(dice)) for _ in range(dice.randint(4, 6))],
    )
