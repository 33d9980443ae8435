"""Lists of commands for two gates at once, the real one and the model, and how to carry them out on either."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeVar, assert_never

import msgspec
from hypothesis import strategies as st

from flashsale.domain import MEMBER_MAX, Access, Allocation, Claim, Drop, Everyone, Fcode, Grant, Points, Tier
from flashsale.gate import Decisions, Gate, Status, keys
from tests.gate.support import TTL_MS, entry, put_eligible
from tests.support import make_drop

MEMBERS = (999, 1_000, MEMBER_MAX)
HOUR_MS = 3_600_000
Kind = TypeVar("Kind")
START = datetime.now(UTC).replace(microsecond=0)
WINDOWS = {"open": (-2, 2), "upcoming": (2, 4), "later": (3, 4), "over": (-4, -2)}
ELIGIBLE = {"list-1": MEMBERS[:2], "list-2": MEMBERS[1:]}
POINTS = {Points("s", 1): "list-1", Points("s", 2): "list-2"}
ACCESS: tuple[Access, ...] = (Everyone(), *POINTS, Tier(1), Fcode())


@dataclass(frozen=True)
class Arm:
    """Rebuild for another configuration; `how` it goes wrong, and `step`, by how much the epoch grows."""

    access: tuple[Access, ...]
    windows: tuple[str, ...]
    free: tuple[int, ...]
    paused: bool
    closed: bool
    keep: tuple[int, ...]
    step: int = 1
    how: Literal["well", "short", "left", "without eligible", "staging lost"] = "well"


@dataclass(frozen=True)
class Decide:
    """Claims; settled grants ride along. `ahead`: the caller knows of a later epoch; `before`: of an older drop."""

    claims: tuple[Claim, ...]
    settle: tuple[int, ...]
    ahead: int
    before: bool


@dataclass(frozen=True)
class Release:
    """Give back units of grants, some of them under a wrong member; `keeping` their places under the limit."""

    picks: tuple[int, ...]
    of_another: bool
    keeping: bool


@dataclass(frozen=True)
class Settle:
    """These grants are in the ledger."""

    picks: tuple[int, ...]


@dataclass(frozen=True)
class Evict:
    """One key of the gate vanishes."""

    what: Literal["meta", "ent", "pend", "elig"]


@dataclass(frozen=True)
class Lease:
    """Take the lease to rebuild, renew it, or give it back."""

    act: Literal["take", "keep", "drop"]


Command = Arm | Decide | Release | Settle | Evict | Lease


def _mostly(usual: Kind, *others: Kind) -> st.SearchStrategy[Kind]:
    """The usual one five times out of six: a story in which little is granted has little to tell."""
    return st.sampled_from([usual] * 5 * len(others) + [*others])


_picks = st.lists(st.integers(0, 30), max_size=4).map(tuple)
_ALLOCATIONS = (None, None, None, "a", "b", "c", "a", "b", "c", "ghost")
_QUANTITIES = (1, 1, 1, 2, 3)
_KEYS = (None, "k", "l")
_TIERS = (0, 1)
_FCODES = (False, False, False, False, False, False, True)


def _claim(number: int) -> Claim:
    """The claim of that number: one draw instead of six, as stories have many claims."""
    drawn = []
    for choices in (MEMBERS, _ALLOCATIONS, _QUANTITIES, _KEYS, _TIERS, _FCODES):
        number, at = divmod(number, len(choices))
        drawn.append(at)
    member, allocation, quantity, key, tier, fcode = drawn
    return Claim(
        MEMBERS[member],
        _ALLOCATIONS[allocation],
        _QUANTITIES[quantity],
        _KEYS[key],
        tier=_TIERS[tier],
        fcode=_FCODES[fcode],
    )


_claims = st.integers(0, 2**40).map(_claim)


def _arms(steps: st.SearchStrategy[int], hows: st.SearchStrategy[str]) -> st.SearchStrategy[Arm]:
    access = st.sampled_from([Everyone(), Everyone(), *ACCESS])
    return st.builds(
        Arm,
        access=st.tuples(access, access, access),
        windows=st.tuples(*[_mostly("open", *WINDOWS)] * 3),
        free=st.tuples(*[st.integers(0, 3)] * 3),
        paused=_mostly(False, True),
        closed=_mostly(False, True),
        keep=_picks,
        step=steps,
        how=hows,
    )


_decide = st.builds(
    Decide,
    claims=st.lists(_claims, min_size=6, max_size=12).map(tuple),
    settle=_picks,
    ahead=_mostly(0, -1, 1),
    before=_mostly(False, True),
)
_others = st.sampled_from(
    [
        *[st.builds(Release, picks=_picks, of_another=_mostly(False, True), keeping=st.booleans())] * 2,
        st.builds(Settle, picks=_picks),
        st.builds(Evict, what=st.sampled_from(["meta", "ent", "pend", "elig"])),
        st.builds(Lease, act=st.sampled_from(["take", "keep", "drop"])),
        _arms(st.sampled_from([1, 1, 0, -1]), st.just("well")),
        *[_arms(st.just(1), st.sampled_from(["short", "left", "without eligible", "staging lost"]))] * 2,
    ]
).flatmap(lambda kind: kind)


@dataclass(frozen=True)
class Story:
    """A drop's limit, how it is armed first, and what happens then: claims, and something else after each."""

    per_member: int
    first: Arm
    then: list[tuple[Command, Command]]


STORIES = st.builds(
    Story,
    per_member=st.integers(1, 3),
    first=_arms(st.just(1), st.just("well")),
    then=st.lists(st.tuples(_decide, _others), min_size=4, max_size=6),
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
        """Live reservations as a ledger could have them: no id, slot or key of a member twice."""
        kept: dict[int, list[Grant]] = {}
        for g in self.picked(picks):
            mine = kept.setdefault(g.member, [])
            if all((m.id, m.slot) != (g.id, g.slot) and m.slot != g.slot and (m.key or m.id) != g.key for m in mine):
                mine.append(g)
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
            return await _arm(gate, world, command, evict)
        case Decide():
            caller = world.before if command.before else drop
            settled = world.picked(command.settle)
            return await gate.decide(caller, drop.epoch + command.ahead, command.claims, settled)
        case Release():
            shift = 1 if command.of_another else 0
            ended = [(g.id, g.member - shift) for g in world.picked(command.picks)]
            return await gate.release(drop.id, ended, keep={i for i, _ in ended} if command.keeping else ())
        case Settle():
            return await gate.settle(drop.id, [(g.id, g.member) for g in world.picked(command.picks)])
        case Evict(what="elig"):
            for name in ELIGIBLE:
                await evict(keys.eligible(drop.id, 0, name))
            return None
        case Evict():
            await evict(getattr(keys.stripe(drop.id), command.what))
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


async def _arm(gate: Gate, world: World, command: Arm, evict: Callable[[str], Awaitable[None]]) -> list[object]:
    drop, kept = world.next_drop(command), world.kept(command.keep)
    if command.how != "without eligible":
        for name in {a.eligible_set for a in drop.allocations} - {None}:
            assert name is not None
            if not await gate.has_eligible(drop.id, name):
                await put_eligible(gate, drop, ELIGIBLE[name], eligible_set=name)
    answers: list[object] = [await gate.arm_begin(drop.id, drop.epoch)]
    lines = {
        member: "\n".join(
            entry(g.id, g.allocation, g.quantity, slot=g.slot, key=g.key or "", payload=g.payload) for g in mine
        )
        for member, mine in kept.items()
    }
    for member, text in lines.items():
        answers.append(await gate.arm_chunk(drop.id, drop.epoch, [str(member), text]))
    if command.how == "staging lost":
        await evict(keys.staging(drop.id, 0, str(drop.epoch)))
        answers.append(await gate.arm_chunk(drop.id, drop.epoch, ["1", entry("late")]))
    if command.how != "left":
        members = len(lines) + (1 if command.how == "short" else 0)
        free = dict(zip("abc", command.free, strict=True))
        answers.append(await gate.arm_finish(drop, members, free, ttl_ms=TTL_MS))
    return answers


async def look(gate: Gate, world: World) -> object:
    """All that a gate says of itself, except the time."""
    waiting = [await gate.pending(world.drop.id, older_than_ms=age, limit=3) for age in (0, HOUR_MS)]
    status = await gate.status(world.drop, 0, {(g.id, g.member) for g in world.known})
    return waiting, msgspec.structs.replace(status, now_ms=0) if isinstance(status, Status) else status
