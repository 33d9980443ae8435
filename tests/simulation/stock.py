"""Since when each stripe has had so many units for sale: what nobody who presses later may be told is sold out (I11).

`sold_out` holds for a press when each stripe had too few at some moment between press and answer; or, where processes
refuse by themselves, a lease before the press.
"""

from typing import TYPE_CHECKING, Final

from flashsale.gate import LEASE_MS
from tests.simulation.gatecheck import valid_meta
from tests.simulation.plan import DROP
from tests.simulation.stores import GateServer

if TYPE_CHECKING:
    from flashsale.domain import Claim
    from tests.simulation.world import World

UNITS_MAX: Final = 3
"""Nobody asks for more at once."""


class Stock:
    """Looks at every change of a gate."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._since: dict[tuple[int, str, int], float] = {}
        self._armed: dict[int, tuple[int, int]] = {}

    def look(self, server: GateServer) -> None:
        """Something was done there. A gate that may not be asked, or is another than before, has nothing."""
        stripe, now_s = server.stripe, self._world.loop.time()
        if server is not self._world.primaries[stripe]:
            return
        meta = valid_meta(self._world, server)
        is_now = (0, 0) if meta is None else (server.replid, meta.drop.epoch)
        if self._armed.get(stripe) != is_now:
            self._armed[stripe] = is_now
            for key in [key for key in self._since if key[0] == stripe]:
                del self._since[key]
        for name, left in ({} if meta is None else meta.left).items():
            for units in range(1, UNITS_MAX + 1):
                if left < units:
                    self._since.pop((stripe, name, units), None)
                else:
                    self._since.setdefault((stripe, name, units), now_s)

    def check(self, claim: "Claim", since_s: float) -> None:
        """A press that was answered with `sold_out` now."""
        world = self._world
        for server in world.primaries:
            self.look(server)
            if not server.up or server.stalled:
                return
        tables = world.ledger.model.tables
        lease_s = LEASE_MS / 1_000 if world.plan.leased else 0.0
        names = [a.id for a in tables.allocations_of(DROP) if not a.sells_codes]
        if claim.code is not None:
            return  # its lane is not named; that valid codes are honoured is looked at in the end
        for name in names if claim.allocation is None else [claim.allocation]:
            for stripe in range(len(world.primaries)):
                since = self._since.get((stripe, name, claim.quantity))
                if since is not None and since < since_s - lease_s:
                    told = f"m{claim.member} pressed at {since_s:.4f} and hears sold out of {name}"
                    world.bad("I11", f"{told}: stripe {stripe} has {claim.quantity} for sale since {since:.4f}")
