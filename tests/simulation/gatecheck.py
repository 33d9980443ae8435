"""I1, entry by entry: a gate that may grant knows exactly what the ledger knows, but for what is on its way."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from flashsale.domain import CODES_STRIPE, LIVE, SPENDING, State
from flashsale.gate import keys
from tests.gate.model_rules import Codes, Entry, Meta
from tests.ledger.model_rows import ReservationRow, Tables
from tests.simulation.plan import DROP
from tests.simulation.stores import GateServer

if TYPE_CHECKING:
    from tests.simulation.world import World


def valid_meta(world: "World", server: GateServer) -> Meta | None:
    """What a stripe was armed with, when the ledger would accept its grants."""
    names = keys.stripe(DROP, server.stripe)
    meta = server.look(names.meta)
    drop = world.ledger.model.tables.drops.get(DROP)
    if not isinstance(meta, Meta) or drop is None or meta.replid != server.replid or meta.drop.epoch != drop.epoch:
        return None
    parts = (server.look(names.ent), server.look(names.pend), server.look(names.codes))
    return None if None in parts else meta


def valid_gate(world: "World") -> list[tuple[GateServer, Meta]] | None:
    """The servers of all stripes that could be asked and would be believed; None: one is missing."""
    found: dict[int, tuple[GateServer, Meta]] = {}
    for server in world.gate_servers:
        if server.up and (meta := valid_meta(world, server)) is not None:
            found[server.stripe] = server, meta
    return [found[stripe] for stripe in sorted(found)] if len(found) == len(world.primaries) else None


def check_gate(world: "World") -> None:
    """All stripes together, whenever they are whole."""
    gate = valid_gate(world)
    if gate is not None:
        _check(world, gate)


def entries_of(server: GateServer) -> list[Entry]:
    """All entries."""
    found: Any = server.look(keys.stripe(DROP, server.stripe).ent)
    return [entry for mine in found.values() for entry in mine]


def pending_of(server: GateServer) -> dict[tuple[str, int], int]:
    """What is pending."""
    found: Any = server.look(keys.stripe(DROP, server.stripe).pend)
    pending: dict[tuple[str, int], int] = found
    return pending


def spent_of(server: GateServer) -> set[int]:
    """The codes that are spent."""
    found: Any = server.look(keys.stripe(DROP, server.stripe).codes)
    assert isinstance(found, Codes)
    return found.spent


def _check(world: "World", gate: list[tuple[GateServer, Meta]]) -> None:
    tables: Tables = world.ledger.model.tables
    units: Counter[str] = Counter()
    places: dict[tuple[str, int], Entry] = {}
    for server, meta in gate:
        units.update(meta.left)
        pending = pending_of(server)
        for e in entries_of(server):
            if (e.id, server.stripe) in places:
                world.bad("I1", f"{e.id} has two entries in {server.name}")
            places[e.id, server.stripe] = e
            if e.allocation and not e.elsewhere:
                units[e.allocation] += e.quantity
            row = tables.reservations.get(e.id)
            if (e.id, e.member) not in pending and not _accounts_for(row, e, server.stripe):
                known = "nothing" if row is None else row.state.value
                world.bad("I1", f"{e.id} in {server.name} holds a unit for nobody; the ledger has {known}")
        if any(left < 0 for left in meta.left.values()):
            world.bad("I1", f"{server.name} has less than nothing: {meta.left}")
    for a in tables.allocations.values():
        if units[a.id] != a.quantity:
            told = f"the gate accounts for {units[a.id]} of the {a.quantity} units of {a.id}"
            world.bad("I1", f"{told}: {[meta.left for _, meta in gate]}")
    _check_rows(world, [server for server, _ in gate], places)


def _check_rows(world: "World", servers: list[GateServer], places: dict[tuple[str, int], Entry]) -> None:
    """The other way round: what the ledger has, the gate knows: the claim at home, the unit where the row says."""
    spent = spent_of(servers[CODES_STRIPE])
    named = {e.code for e in places.values()}
    for r in world.ledger.model.tables.reservations.values():
        home, unit = places.get((r.id, r.home)), places.get((r.id, r.unit))
        if r.state in LIVE:
            if home is None or (home.allocation, home.quantity) != (r.allocation, r.quantity):
                world.bad("I1", f"{r.id} is {r.state.value}, and stripe {r.home} does not know its member's claim")
            if unit is None or (unit.allocation, unit.quantity, unit.elsewhere) != (r.allocation, r.quantity, False):
                world.bad("I1", f"{r.id} is {r.state.value}, and stripe {r.unit} has its unit for sale")
            if home is not None and home.elsewhere != (r.home != r.unit):
                world.bad("I1", f"{r.id} has its unit on stripe {r.unit}, and at home they do not know that")
        if r.keeps_slot and home is None:
            world.bad("I1", f"{r.id} keeps its place, and stripe {r.home} does not know it")
        if r.code is not None and r.state in SPENDING:
            named.add(r.code)
            if r.code not in spent:
                world.bad("I6", f"the code of {r.id} is spent, and the gate would take it again")
    if not spent <= named:
        world.bad("I6", f"{sorted(spent - named)} are spent in the gate, and nobody spent them")
    for server in servers:
        if server.stripe != CODES_STRIPE and spent_of(server):
            world.bad("I6", f"{sorted(spent_of(server))} are spent in {server.name}, where no code can be")


def _accounts_for(row: ReservationRow | None, e: Entry, stripe: int) -> bool:
    """Whether the ledger knows why this entry is there."""
    if row is None:
        return False
    if row.state in LIVE:
        return stripe in {row.home, row.unit}
    kept = row.state is State.RETURNED and row.keeps_slot and not e.allocation and stripe == row.home
    return row.released is False or kept
