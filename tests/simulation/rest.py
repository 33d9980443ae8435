"""When the faults are over: whether all is at rest, and whether everything that is left can still be bought."""

import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from fcodes import CODES_PER_BATCH_MAX
from flashsale.domain import CODES_STRIPE, LIVE, SPENDING, Claim, Fcode, OrderState, Points, State
from tests.ledger.model_rows import AllocationRow
from tests.simulation.actors import press
from tests.simulation.gatecheck import entries_of, pending_of, spent_of, valid_gate, valid_meta
from tests.simulation.plan import DROP, LATE_MEMBER, TIER_AT_LEAST

if TYPE_CHECKING:
    from tests.simulation.world import World

OPENS_POLL_S: Final = 0.5
ROUNDS_MAX: Final = 8
ROUND_S: Final = 1.0


def unrest(world: "World") -> tuple[str, str] | None:
    """What has not found its place yet, as an invariant and a sentence; None: all has."""
    tables, queue = world.ledger.model.tables, world.ledger.model.queue
    drop = tables.drops[DROP]
    if any(valid_meta(world, server) is None for server in world.primaries):
        return "I16", "the gate is not armed for the ledger's epoch"
    if pending := [grant for server in world.primaries for grant in pending_of(server)]:
        return "I16", f"pending in the gate: {sorted(pending)}"
    clock = world.ledger.clock()
    rows = tables.reservations.values()
    if late := [r.id for r in rows if r.state is State.HELD and r.expires_at <= clock]:
        return "I16", f"holds are over, and stand: {late}"
    if unsent := [r.id for r in rows if r.released is False]:
        return "I16", f"ended, and the gate was not told: {unsent}"
    entries = [e for server in world.primaries for e in entries_of(server)]
    if wrong := [e.id for e in entries if not tables.reservations[e.id].counts]:
        return "I1", f"entries of what has ended: {wrong}"
    spent = {r.code for r in rows if r.code is not None and r.state in SPENDING}
    in_gate = spent_of(world.primaries[CODES_STRIPE])
    if in_gate != spent:
        return "I6", f"spent in the gate: {sorted(in_gate)}, in the ledger: {sorted(spent)}"
    if waiting := [o.id for o in tables.orders.values() if o.state is not OrderState.DELIVERED]:
        return "I13", f"not delivered: {waiting}"
    if queue.jobs:
        return "I16", f"jobs left: {sorted(queue.jobs)}"
    if missing := [o.id for o in tables.orders.values() if o.id not in world.shop.taken]:
        return "I13", f"delivered, and the shop knows nothing of it: {missing}"
    if drop.paused and not drop.closed:
        return "I14", "an operator resumed the sale, and it is paused"
    return None


async def fresh_demand(world: "World") -> None:
    """Members who come late, each with one wish, more of them than units: nothing may stay unsold."""
    dice = random.Random(f"late {world.seed}")
    while any(a.opens_at > world.ledger.clock() or _gate_ms(world, min) < _ms(a) for a in _open(world)):
        await world.loop.pause(OPENS_POLL_S)
    number = LATE_MEMBER
    for code in world.checker.codes:
        if code.number in _alive(world):
            owner = number if code.owner is None else code.owner
            number += 1
            answer = await press(world, Claim(owner, None, 1, None, TIER_AT_LEAST, code.number), dice)
            if answer.code in {"fcode_invalid", "fcode_spent", "sold_out"}:
                world.bad("I6", f"the valid code {code.number} was answered {answer.code}")
    for allocation in _open(world):
        number = await _buy_all(world, allocation, number, dice)


async def _buy_all(world: "World", allocation: AllocationRow, number: int, dice: random.Random) -> int:
    """Late members want an allocation, until nothing is left at one moment: holds of others lapse while they press."""
    tables, rule = world.ledger.model.tables, allocation.access
    if isinstance(rule, Fcode):
        return number
    left = 0
    for _ in range(ROUNDS_MAX):
        now = tables.allocations[DROP, allocation.id]
        left = now.quantity - now.taken
        for _ in range(left + 1):
            number += 1
            if not isinstance(rule, Points) or world.plan.points.get(number, 0) >= rule.at_least:
                await press(world, Claim(number, allocation.id, 1, None, TIER_AT_LEAST, None), dice)
        now = tables.allocations[DROP, allocation.id]
        left = now.quantity - now.taken
        if left == 0 or isinstance(rule, Points):  # of whom there are only so many
            return number
        await world.loop.pause(ROUND_S)
    world.bad("I4", f"{left} units of {allocation.id} are left, with demand for all of them")
    return number


def _ms(allocation: AllocationRow) -> int:
    return int(allocation.opens_at.timestamp() * 1000) + 1


def _gate_ms(world: "World", pick: Callable[[Iterable[int]], int]) -> int:
    """The clock of the stripe that is the last, or the first."""
    return pick(server.clock_ms() for server in world.primaries)


def _open(world: "World") -> list[AllocationRow]:
    """The allocations that sell, or will."""
    tables = world.ledger.model.tables
    if tables.drops[DROP].closed:
        return []
    now = max(world.ledger.clock().timestamp(), _gate_ms(world, max) / 1000) + 30.0
    return [a for a in tables.allocations_of(DROP) if a.closes_at.timestamp() > now]


def _alive(world: "World") -> set[int]:
    """The codes that must be honoured: not spent, not revoked, of an allocation that sells."""
    tables = world.ledger.model.tables
    selling = {a.id for a in _open(world)}
    spent = {r.code for r in tables.reservations.values() if r.state in SPENDING}
    alive = set()
    for code in world.checker.codes:
        number, serial = divmod(code.number, CODES_PER_BATCH_MAX)
        batch = tables.batches[number]
        over = batch.revoked_at is not None or (number, serial) in tables.revoked or batch.allocation not in selling
        if not over and code.number not in spent:
            alive.add(code.number)
    return alive


def last_look(world: "World") -> None:
    """What only the end can tell."""
    tables = world.ledger.model.tables
    for a in tables.allocations.values():
        live = sum(r.quantity for r in tables.reservations.values() if r.state in LIVE and r.allocation == a.id)
        gate = valid_gate(world)
        left = None if gate is None else sum(meta.left[a.id] for _, meta in gate)
        if left is not None and left + live != a.quantity:
            world.bad("I1", f"{a.id}: {left} for sale and {live} sold, of {a.quantity}")
