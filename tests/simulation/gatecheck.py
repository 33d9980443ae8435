"""I1, entry by entry: a gate that may grant knows exactly what the ledger knows, but for what is on its way."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from flashsale.domain import LIVE, SPENDING, State
from flashsale.gate import keys
from tests.gate.model_rules import Codes, Entry, Meta
from tests.ledger.model_rows import ReservationRow, Tables
from tests.simulation.plan import DROP
from tests.simulation.stores import GateServer

if TYPE_CHECKING:
    from tests.simulation.world import World

NAMES = keys.stripe(DROP)


def valid_meta(world: "World", server: GateServer) -> Meta | None:
    """What a gate was armed with, when the ledger would accept its grants."""
    meta = server.look(NAMES.meta)
    drop = world.ledger.model.tables.drops.get(DROP)
    if not isinstance(meta, Meta) or drop is None or meta.replid != server.replid or meta.drop.epoch != drop.epoch:
        return None
    parts = (server.look(NAMES.ent), server.look(NAMES.pend), server.look(NAMES.codes))
    return None if None in parts else meta


def check_gate(world: "World") -> None:
    """Every server that could still be asked."""
    for server in world.gate_servers:
        if server.up and (meta := valid_meta(world, server)) is not None:
            _check(world, server, meta)


def entries_of(server: GateServer) -> list[Entry]:
    """All entries."""
    found: Any = server.look(NAMES.ent)
    return [entry for mine in found.values() for entry in mine]


def pending_of(server: GateServer) -> dict[tuple[str, int], int]:
    """What is pending."""
    found: Any = server.look(NAMES.pend)
    pending: dict[tuple[str, int], int] = found
    return pending


def spent_of(server: GateServer) -> set[int]:
    """The codes that are spent."""
    found: Any = server.look(NAMES.codes)
    assert isinstance(found, Codes)
    return found.spent


def _check(world: "World", server: GateServer, meta: Meta) -> None:
    tables: Tables = world.ledger.model.tables
    pending = pending_of(server)
    units: Counter[str] = Counter(meta.left)
    places: dict[str, Entry] = {}
    for e in entries_of(server):
        if e.id in places:
            world.bad("I1", f"{e.id} has two entries in {server.name}")
        places[e.id] = e
        if e.allocation:
            units[e.allocation] += e.quantity
        row = tables.reservations.get(e.id)
        if (e.id, e.member) not in pending and not _accounts_for(row, e):
            known = "nothing" if row is None else row.state.value
            world.bad("I1", f"{e.id} in {server.name} holds a unit for nobody; the ledger has {known}")
    for a in tables.allocations.values():
        if units[a.id] != a.quantity or meta.left.get(a.id, 0) < 0:
            told = f"{server.name} accounts for {units[a.id]} of the {a.quantity} units of {a.id}"
            world.bad("I1", f"{told}: {meta.left}")
    _check_rows(world, server, places)


def _check_rows(world: "World", server: GateServer, places: dict[str, Entry]) -> None:
    """The other way round: what the ledger has, the gate knows."""
    spent = spent_of(server)
    named = {e.code for e in places.values()}
    for r in world.ledger.model.tables.reservations.values():
        there = places.get(r.id)
        if r.state in LIVE and (there is None or there.allocation != r.allocation or there.quantity != r.quantity):
            world.bad("I1", f"{r.id} is {r.state.value}, and {server.name} has its unit for sale")
        if r.keeps_slot and there is None:
            world.bad("I1", f"{r.id} keeps its place, and {server.name} does not know it")
        if r.code is not None and r.state in SPENDING:
            named.add(r.code)
            if r.code not in spent:
                world.bad("I6", f"the code of {r.id} is spent, and {server.name} would take it again")
    if not spent <= named:
        world.bad("I6", f"{sorted(spent - named)} are spent in {server.name}, and nobody spent them")


def _accounts_for(row: ReservationRow | None, e: Entry) -> bool:
    """Whether the ledger knows why this entry is there."""
    if row is None:
        return False
    if row.state in LIVE:
        return True
    return row.released is False or (row.state is State.RETURNED and row.keeps_slot and not e.allocation)
