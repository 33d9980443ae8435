"""What a list of commands does to a gate, the real one or the model: how to carry each out, and what is seen then."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import assert_never

import msgspec

from flashsale.domain import Allocation, Drop, Grant, Points
from flashsale.gate import Decisions, Fetched, Gate, Status, Taken, keys
from tests.gate.stories import (
    BATCHES,
    ELIGIBLE,
    HOUR_MS,
    OWNERS,
    POINTS,
    START,
    WINDOWS,
    Arm,
    Command,
    Decide,
    Evict,
    Lease,
    Release,
    Settle,
    Story,
    Take,
)
from tests.gate.support import TTL_MS, Told, entry, put_bound, put_eligible
from tests.support import make_drop


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
            fcodes_stopped=command.codes_stopped,
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

    def asked(self, command: Take) -> list[Grant]:
        """Its grants, under ids that nothing was taken for before: a unit is asked for once."""
        first = len(self.known)
        return [msgspec.structs.replace(g, id=f"{g.id}-{first}-{n}") for n, g in enumerate(command.grants)]

    def note(self, command: Command, answer: object) -> None:
        """Remember what the gate said."""
        if isinstance(command, Arm) and command.step > 0:
            self.drop, self.before = self.next_drop(command), self.drop
        if isinstance(answer, Decisions):
            self.known += [r for r in answer.results if isinstance(r, Grant)]
        if isinstance(command, Take) and isinstance(answer, Taken):
            made = zip(self.asked(command), answer.results, strict=True)
            self.known += [grant for grant, result in made if result is Fetched.TOOK]


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
            return await gate.decide(
                caller,
                least,
                command.claims,
                settled,
                grants_max=command.grants_max,
                elsewhere=command.elsewhere,
                spent=command.spent,
            )
        case Take():
            epochs = [drop.epoch - (n in command.late) for n in range(len(command.grants))]
            asked = zip(world.asked(command), epochs, strict=True)
            grants = [msgspec.structs.replace(g, epoch=epoch) for g, epoch in asked]
            settled, least = world.picked(command.settle), drop.epoch + command.ahead
            return await gate.take(drop.id, least, grants, settled, codes=command.codes, stripe=0)
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
            + ("@" if g.elsewhere else "")
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
