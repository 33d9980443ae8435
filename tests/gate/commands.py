"""Lists of commands for two gates at once, the real one and the model, and how to carry them out on either."""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, assert_never

import msgspec
from hypothesis import strategies as st

from fcodes import CODES_PER_BATCH_MAX
from flashsale.domain import (
    MEMBER_MAX,
    Access,
    Allocation,
    Claim,
    Drop,
    Everyone,
    Fcode,
    FcodeBatch,
    Grant,
    Points,
    Tier,
)
from flashsale.gate import Decisions, Gate, Status, keys
from tests.gate.support import TTL_MS, Told, entry, fcodes, number, put_bound, put_eligible
from tests.support import make_drop

MEMBERS = (999, 1_000, MEMBER_MAX)
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
    step: int = 1
    how: How = "well"


@dataclass(frozen=True)
class Decide:
    """Claims; settled grants ride along. `ahead`: the caller knows of a later epoch; `before`: of an older drop.

    `grants_max`: no more may be granted (None: any number).
    """

    claims: tuple[Claim, ...]
    settle: tuple[int, ...]
    ahead: int
    before: bool
    grants_max: int | None


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


Command = Arm | Decide | Release | Settle | Evict | Lease


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
    return Decide(tuple(_claim(each) for each in claims), _picks(dice), ahead, before, grants_max)


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
        closed=dice.random() < 0.1,
        keep=_picks(dice),
        batches=tuple(_batch(dice, batch) for batch in BATCHES),
        spent=tuple(dice.sample(CODES, dice.randrange(5))),
        revoked=tuple(dice.sample(CODES, dice.randrange(3))),
        step=dice.choice(steps),
        how=dice.choice(hows),
    )


def _other(dice: random.Random) -> Command:
    match dice.choice((*["release"] * 4, "settle", "lease", "evict", *["rearm"] * 3, "fail")):
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


@dataclass
class World:
    """What the caller of both gates knows: the drop as it is and as it was, and every grant that it heard of."""

    drop: Drop
    before: Drop
    known: list[Grant] = field(default_factory=list)

    def picked(self, picks: Sequence[int]) -> list[Grant]:
        """Some of the grants heard of."""
        return [self.known[pick % len(self.known)] for pick in picks] if self.known else []

    def next_drop(self, command: Arm) -> Drop:
        """The drop that the command arms the gate for."""
        windows = [[START + timedelta(hours=at) for at in WINDOWS[name]] for name in command.windows]
        allocations = tuple(
            Allocation(
                id=name,
                quantity=9,
                opens_at=opens,
                closes_at=closes,
                access=access,
                eligible_set=POINTS[access] if isinstance(access, Points) else None,
            )
            for name, (opens, closes), access in zip("abc", windows, command.access, strict=True)
        )
        return msgspec.structs.replace(
            self.drop,
            epoch=self.drop.epoch + command.step,
            allocations=allocations,
            paused=command.paused,
            closed=command.closed,
        )

    def kept(self, picks: Sequence[int]) -> dict[int, list[Grant]]:
        """Live reservations as a ledger could have them: no id, slot or key of a member twice, and no code."""
        kept: dict[int, list[Grant]] = {}
        codes: set[int] = set()
        for g in self.picked(picks):
            mine = kept.setdefault(g.member, [])
            if g.code is not None and g.code in codes:
                continue
            if all((m.id, m.slot) != (g.id, g.slot) and m.slot != g.slot and (m.key or m.id) != g.key for m in mine):
                mine.append(g)
                codes |= set() if g.code is None else {g.code}
        return kept

    def note(self, command: Command, answer: object) -> None:
        """Remember what the gate said."""
        if isinstance(command, Arm) and command.step > 0:
            self.drop, self.before = self.next_drop(command), self.drop
        if isinstance(answer, Decisions):
            self.known += [r for r in answer.results if isinstance(r, Grant)]


def new_world(story: Story) -> World:
    """Before the first rebuild."""
    drop = msgspec.structs.replace(make_drop(per_member=story.per_member), epoch=10)
    return World(drop, drop)


async def carry_out(gate: Gate, world: World, command: Command, evict: Callable[[str], Awaitable[None]]) -> object:
    """Do it on one of the gates; returns what can be compared."""
    drop = world.drop
    match command:
        case Arm():
            return await _rebuild(gate, world, command, evict)
        case Decide():
            caller = world.before if command.before else drop
            settled = world.picked(command.settle)
            least = drop.epoch + command.ahead
            return await gate.decide(caller, least, command.claims, settled, grants_max=command.grants_max)
        case Release():
            shift = 1 if command.of_another else 0
            ended = [(g.id, g.member - shift) for g in world.picked(command.picks)]
            ids = {i for i, _ in ended}
            keep, spent = ids if command.keeping else (), ids if command.staying else ()
            return await gate.release(drop.id, ended, keep=keep, spent=spent)
        case Settle():
            return await gate.settle(drop.id, [(g.id, g.member) for g in world.picked(command.picks)])
        case Evict():
            for key in _named(drop.id, command.what):
                await evict(key)
            return None
        case Lease(act="take"):
            return await gate.take_lease(drop.id)
        case Lease(act="keep"):
            await gate.keep_lease(drop.id)
            return None
        case Lease():
            await gate.drop_lease(drop.id)
            return None
        case _:
            assert_never(command)


def _named(drop_id: str, what: str) -> list[str]:
    """The keys of one kind."""
    match what:
        case "elig":
            return [keys.eligible(drop_id, 0, name) for name in ELIGIBLE]
        case "bound":
            return [keys.bound(drop_id, 0, batch) for batch in BATCHES]
        case _:
            key: str = getattr(keys.stripe(drop_id), what)
            return [key]


async def _rebuild(gate: Gate, world: World, command: Arm, evict: Callable[[str], Awaitable[None]]) -> list[object]:
    drop, kept = world.next_drop(command), world.kept(command.keep)
    live = {g.code for mine in kept.values() for g in mine if g.code is not None}
    told = Told(command.batches, live.union(command.spent), command.revoked)
    if command.how != "without lists":
        await _bring_lists(gate, drop, told)
    answers: list[object] = [await gate.arm_begin(drop.id, drop.epoch)]
    lines = {
        member: "\n".join(
            entry(g.id, g.allocation, g.quantity, slot=g.slot, key=g.key or "", payload=g.payload, code=g.code)
            for g in mine
        )
        for member, mine in kept.items()
    }
    for member, text in lines.items():
        answers.append(await gate.arm_chunk(drop.id, drop.epoch, [str(member), text]))
    answers.append(await gate.arm_codes(drop.id, drop.epoch, told.fields))
    if command.how == "staging lost":
        await evict(keys.staging(drop.id, 0, str(drop.epoch)))
        answers.append(await gate.arm_chunk(drop.id, drop.epoch, ["1", entry("late")]))
    if command.how == "codes lost":
        await evict(keys.staging(drop.id, 0, f"codes-{drop.epoch}"))
        answers.append(await gate.arm_codes(drop.id, drop.epoch, told.fields))
    if command.how != "left":
        members = len(lines) + (1 if command.how == "short" else 0)
        codes = len(told.fields) // 2 + (1 if command.how == "fewer codes" else 0)
        free = dict(zip("abc", command.free, strict=True))
        answers.append(await gate.arm_finish(drop, members, free, codes=codes, bound=told.bound, ttl_ms=TTL_MS))
    return answers


async def _bring_lists(gate: Gate, drop: Drop, told: Told) -> None:
    for name in {a.eligible_set for a in drop.allocations} - {None}:
        assert name is not None
        if not await gate.has_eligible(drop.id, name):
            await put_eligible(gate, drop, ELIGIBLE[name], eligible_set=name)
    for batch in told.bound:
        if not await gate.has_bound(drop.id, batch):
            await put_bound(gate, drop, batch, OWNERS[batch])


async def look(gate: Gate, world: World) -> object:
    """All that a gate says of itself, except the time."""
    waiting = [await gate.pending(world.drop.id, older_than_ms=age, limit=3) for age in (0, HOUR_MS)]
    status = await gate.status(world.drop, 0, {(g.id, g.member) for g in world.known})
    return waiting, msgspec.structs.replace(status, now_ms=0) if isinstance(status, Status) else status
