"""Every safeguard that a schedule can do without, by name, for as long as nothing goes wrong.

`CONTROLS` makes a build of the product with that safeguard off, by putting another part in its place; `LINES` are
lines of the product's own source that can be broken. The product has no switch for any of it.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from tests.simulation import controls_flow, controls_gate, controls_ledger
from tests.simulation.broken import Broken, build_with
from tests.simulation.processes import Build

RESERVATIONS: Final = "flashsale.reservations"
RECONCILE: Final = "flashsale.reconcile"
DROPS: Final = "flashsale.drops"
ORDERS: Final = "flashsale.orders"
STRIPES: Final = "flashsale.stripes"
LEASES: Final = "flashsale.leases"
WHOLE: Final = "flashsale.gate.whole"

LINES: Final = {
    # Release: who gives which units back.
    "release line: the janitor releases what lives": Broken(
        RECONCILE,
        "dead = [s for s in standing if s.state not in LIVE or stripe not in {s.home, s.unit}]",
        "dead = standing",
    ),
    "release line: the janitor settles what is void": Broken(
        RECONCILE, "live = [s for s in standing if s.state in LIVE and stripe in {s.home, s.unit}]", "live = standing"
    ),
    "release line: a return frees place and code": Broken(
        DROPS,
        "released = await whole.release(self._gate, ended.drop, [ended], keep=keep, spent=[ended.id])",
        "released = await whole.release(self._gate, ended.drop, [ended])",
    ),
    # Fencing: which epoch goes with what.
    "fencing line: a rebuild takes no new epoch": Broken(
        RECONCILE, "epoch = await self._ledger.drops.bump(drop.id)", "epoch = drop.epoch"
    ),
    "fencing line: a cancel is done under any epoch": Broken(
        RESERVATIONS,
        "await self._ledger.mark_released(drop_id, ids, epoch)",
        "await self._ledger.mark_released(drop_id, ids, self._catalog.min_epoch(drop_id))",
    ),
    # Outbox: what the gate must still be told.
    "outbox line: nothing is ever done": Broken(
        RECONCILE,
        "done = await self._ledger.reservations.mark_released(drop_id, ids, epoch)",
        "done = 0",
    ),
    "outbox line: a return frees its place": Broken(RECONCILE, "keep={e.id for e in ended if e.keeps_slot},", ""),
    "outbox line: a return frees its code": Broken(RECONCILE, "spent={e.id for e in ended if e.returned},", ""),
    "outbox line: done before the gate was told": Broken(
        RESERVATIONS,
        "for epoch, ids in (await whole.release(self._gate, drop_id, ended)).items():",
        "for epoch, ids in {self._catalog.min_epoch(drop_id): [r.id for r in ended]}.items():",
    ),
    # Stripes: what is known of the others, where what is.
    "stripes line: home's word is taken for all": Broken(
        STRIPES, "found = await self._short(press, decided, home)", "pass"
    ),
    "stripes line: looks are as old as may be": Broken(
        STRIPES, "await decided.turn.answered()", "decided.turn._seen = [s or UNARMED for s in self._seen]"
    ),
    "stripes line: a claim without its unit is taken for a grant": Broken(
        STRIPES, "found = await self._fetch(found)", "pass"
    ),
    "stripes line: only home is told of an end": Broken(WHOLE, "if one.unit != one.home:", "if False:"),
    "stripes line: a place is kept where only the unit was": Broken(
        WHOLE, "kept = [i for i in keep if homes.get(i, stripe) == stripe]", "kept = [*keep]"
    ),
    "stripes line: done when one of two was told": Broken(
        WHOLE, "if isinstance(at_home, int) and at_home == at_unit:", "if isinstance(at_home, int):"
    ),
    "stripes line: units are copied and not spread": Broken(RECONCILE, "state.free_at(stripe),", "state.free,"),
    "stripes line: spent codes are known everywhere": Broken(
        RECONCILE, "spent = state.spent if stripe == CODES_STRIPE else []", "spent = state.spent"
    ),
    # Leases: who is refused by a process itself, and until when.
    "lease line: a yes is not kept back": Broken(RESERVATIONS, "await lanes.kept_back([grant])", "pass"),
    "lease line: who has something is not known": Broken(LEASES, "self._members |= members", "pass"),
    "lease line: late members are not heard of": Broken(LEASES, "self._members.update(lease.members)", "pass"),
    "lease line: a lease has no end": Broken(
        LEASES,
        "ends, nobodys = began + lease.lasts_ms / 1_000, _nobodys_own(drop)",
        "ends, nobodys = began + 1.0, _nobodys_own(drop)",
    ),
    # Answers and orders.
    "answer line: a hold that has ended is the same one again": Broken(
        RESERVATIONS,
        "if found.state is State.VOID or not (found.state in LIVE or same_key):",
        "if found.state is State.VOID:",
    ),
    "answer line: another payload under the same key": Broken(
        RESERVATIONS, "if same_key and found.payload != claim.payload:", "if False:"
    ),
    "order line: a delivery is not written down": Broken(
        ORDERS, "await self._notes.submit(Tried(order.id, OrderState.DELIVERED, None))", "pass"
    ),
}

CONTROLS: Final[dict[str, Callable[[], Build]]] = {
    **controls_gate.CONTROLS,
    **controls_ledger.CONTROLS,
    **controls_flow.CONTROLS,
    **{name: partial(build_with, broken) for name, broken in LINES.items()},
}
