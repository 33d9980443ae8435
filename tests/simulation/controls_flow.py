"""The flow without one of its safeguards: operators, repairs, deliveries, and how calls are sent."""

from collections.abc import Callable, Collection, Iterable
from typing import Any, Literal

import msgspec

from flashsale.catalog import Catalog
from flashsale.domain import Drop, OrderState, Reservation
from flashsale.drops import AllocationChange, Operations
from flashsale.endpoint import Delivered, Failed
from flashsale.errors import GateUnavailable
from flashsale.gate import Unarmed, keys, whole
from flashsale.ledger import Confirmed, Later, Tried
from flashsale.orders import Deliveries
from flashsale.reconcile import Reconciler, Report
from flashsale.reservations import Reservations
from tests.gate.model_rules import Meta
from tests.ledger.model import ModelLedger
from tests.ledger.model_orders import ModelOrders
from tests.ledger.model_queue import ModelQueue
from tests.ledger.model_rows import DropRow
from tests.simulation.links import GateLink, LedgerLink, Store
from tests.simulation.processes import Build, Process
from tests.simulation.stores import GateServer, run_now
from tests.simulation.world import World

# Operators.


class _ToldGate(GateServer):
    """Can be told of a change without being armed anew."""

    async def change(self, drop_id: str, how: Callable[[Meta], None], *, stripe: int = 0) -> None:
        self._answer()
        meta = self._find(keys.stripe(drop_id, stripe).meta, Meta)
        if meta is not None:
            how(meta)


class _ToldOperations(Operations):
    """Writes a change into the ledger without a new epoch, and tells the gate."""

    async def _tell(
        self, drop_id: str, in_ledger: Callable[[], None], in_gate: Callable[[Meta], None], *, everywhere: bool
    ) -> Drop:
        link: Any = self._ledger
        await link.call("act_commits", in_ledger, drop_id, "without a new epoch")
        gate: Any = self._gate
        for stripe in range(len(link.world.primaries) if everywhere else 1):
            await gate.call("change", (drop_id, in_gate), {"stripe": stripe})
        drop = await self._catalog.reload(drop_id)
        assert drop is not None
        return drop

    def _tables(self) -> Any:  # noqa: ANN401 -- the model's
        link: Any = self._ledger
        return link.world.ledger.model.tables


class _PausesGate(_ToldOperations):
    async def switch(
        self,
        drop_id: str,
        act_name: Literal["pause", "resume", "close"],
        *,
        actor: str,
        reason: str | None = None,
        missing: Collection[str] = (),
    ) -> Drop:
        if act_name == "close":
            return await super().switch(drop_id, act_name, actor=actor, reason=reason, missing=missing)
        tables, paused = self._tables(), act_name == "pause"

        def in_ledger() -> None:
            row: DropRow = tables.drops[drop_id]
            tables.put_drop(msgspec.structs.replace(row, paused=paused))
            tables.write_audit(actor, act_name, drop_id, {})

        def in_gate(meta: Meta) -> None:
            meta.drop = msgspec.structs.replace(meta.drop, paused=paused)

        return await self._tell(drop_id, in_ledger, in_gate, everywhere=True)


class NoPauseBump(Build):
    """A pause does not change the epoch: what was granted before it may be committed after it."""

    gate_server = _ToldGate
    operations = _PausesGate


class _ResizesGate(_ToldOperations):
    async def change_allocation(
        self,
        drop_id: str,
        allocation_id: str,
        change: AllocationChange,
        *,
        actor: str,
        expected: Collection[str] | None = None,
    ) -> Drop:
        if not isinstance(change.quantity, int):
            return await super().change_allocation(drop_id, allocation_id, change, actor=actor, expected=expected)
        tables, wanted = self._tables(), change.quantity
        more = [0]

        def in_ledger() -> None:
            row = tables.allocations[drop_id, allocation_id]
            quantity = max(wanted, row.taken)
            more[0] = quantity - row.quantity
            tables.put_allocation(msgspec.structs.replace(row, quantity=quantity))
            tables.write_audit(actor, "allocation.edit", allocation_id, {})

        def in_gate(meta: Meta) -> None:
            meta.left[allocation_id] += more[0]

        return await self._tell(drop_id, in_ledger, in_gate, everywhere=False)


class NoResizeBump(Build):
    """A resize does not change the epoch: the ledger has other units than the gate for a while, or for good."""

    gate_server = _ToldGate
    operations = _ResizesGate


# Repairs.


class _NoJanitor(Reconciler):
    async def _void_orphans(self, drop_id: str, report: Report) -> None:
        pass


class NoJanitor(Build):
    """Nobody looks after grants that were never committed."""

    reconciler = _NoJanitor


class _NoOutbox(Reconciler):
    async def _return_units(self, drop_id: str, report: Report) -> None:
        pass


class NoOutbox(Build):
    """Nobody tells the gate of what has ended, when the first try failed."""

    reconciler = _NoOutbox


class _NoRearm(Reconciler):
    async def _rearm(self, drop_id: str, report: Report) -> None:
        pass


class NoRearm(Build):
    """Only a press of the button finds out that the gate is gone."""

    reconciler = _NoRearm


class _ReleasesFirst(Reservations):
    async def cancel(self, reservation: Reservation) -> Reservation | None:
        await whole.release(self._gate, reservation.drop, [reservation])
        return await super().cancel(reservation)


class ReleasesFirst(Build):
    """A cancel gives the unit back before the ledger knows of it."""

    reservations = _ReleasesFirst


class _KeepsNoPlace(GateServer):
    async def release(
        self,
        drop_id: str,
        ended: Iterable[tuple[str, int]],
        *,
        keep: Collection[str] = (),  # noqa: ARG002 -- that is the point
        spent: Collection[str] = (),
        stripe: int = 0,
    ) -> int | Unarmed:
        return await super().release(drop_id, ended, spent=spent, stripe=stripe)


class KeepsNoPlace(Build):
    """A returned unit frees its member's place, whatever the drop says."""

    gate_server = _KeepsNoPlace


class _AnyEpoch(Catalog):
    def min_epoch(self, drop_id: str) -> int:  # noqa: ARG002 -- that is the point
        return 0


class AnyEpoch(Build):
    """A gate may answer however old its epoch is: verdicts of a primary that was replaced long ago."""

    catalog = _AnyEpoch


# Deliveries.


class _SettlesFirst(Deliveries):
    async def deliver(self, order_id: str, put_off: int) -> Later | None:
        send = self._endpoint.send

        async def told(message_id: str, body: bytes) -> Delivered | Failed:
            await self._notes.submit(Tried(message_id, OrderState.DELIVERED, None))
            return await send(message_id, body)

        self._endpoint.send = told  # type: ignore[method-assign]
        try:
            return await super().deliver(order_id, put_off)
        finally:
            self._endpoint.send = send  # type: ignore[method-assign]


class SettlesFirst(Build):
    """An order is marked delivered before it is sent."""

    deliveries = _SettlesFirst


class _ForgetsJobs(ModelOrders):
    """Writes orders; their jobs are somebody else's business."""

    def __init__(self, ledger: ModelLedger) -> None:
        super().__init__(ledger.tables, ModelQueue(ledger.tables))


class _ForgetfulLedger(ModelLedger):
    def __init__(self, **named: Any) -> None:  # noqa: ANN401 -- as ModelLedger
        super().__init__(**named)
        self.orders = _ForgetsJobs(self)


class _QueuesLater(Store):
    async def confirm(self, wishes: Any) -> list[Confirmed]:  # noqa: ANN401 -- as the store's
        work, queue = self._store.confirm, self._link.world.ledger.model.queue
        found: list[Confirmed] = await self._link.call("confirm_only", lambda: run_now(work(wishes)), None, wishes)
        orders = [c.reservation.order for c in found if c.outcome.value == "confirmed" and c.reservation is not None]

        def put() -> None:
            for order in orders:
                queue.put(str(order))

        await self._link.call("confirm", put, None, orders)
        return found


class _LaterLink(LedgerLink):
    def __init__(self, world: World, process: Process) -> None:
        super().__init__(world, process)
        self.orders = _QueuesLater(self, world.ledger.model.orders)


class JobLater(Build):
    """The order is one transaction, and its job in the queue another."""

    ledger = _ForgetfulLedger
    ledger_link = _LaterLink


# How calls are sent.


class _Resends(GateLink):
    """A client library that sends a call again when its connection broke."""

    async def call(self, verb: str, args: tuple[Any, ...], named: dict[str, Any]) -> Any:  # noqa: ANN401 -- as GateLink
        if verb != "decide":
            return await super().call(verb, args, named)
        named = named | {"ids": self.world.new_ids(len(args[2]))}
        try:
            return await super().call(verb, args, named)
        except GateUnavailable:
            return await super().call(verb, args, named)


class _TakesIds(GateServer):
    async def decide(self, *args: Any, **named: Any) -> Any:  # noqa: ANN401 -- as the gate's, and with its ids
        ids = named.pop("ids")
        before, self._new_ids = self._new_ids, lambda _count: ids
        try:
            return await super().decide(*args, **named)
        finally:
            self._new_ids = before


class Resends(Build):
    """A decide call whose reply was lost is sent again with the same ids."""

    gate_link = _Resends
    gate_server = _TakesIds


class _OwnClock(GateLink):
    """Claims are judged by the clock of the machine that asks."""

    async def call(self, verb: str, args: tuple[Any, ...], named: dict[str, Any]) -> Any:  # noqa: ANN401 -- as GateLink
        if verb == "decide":
            named = named | {"skew_s": self.process.skew_s}
        return await super().call(verb, args, named)


class _Believes(GateServer):
    async def decide(self, *args: Any, **named: Any) -> Any:  # noqa: ANN401 -- as the gate's, and with a clock
        before, self.skew_s = self.skew_s, named.pop("skew_s")
        try:
            return await super().decide(*args, **named)
        finally:
            self.skew_s = before


class OwnClock(Build):
    """Windows open by the clock of the web process instead of the gate's."""

    gate_link = _OwnClock
    gate_server = _Believes


CONTROLS = {
    "pause_bump": NoPauseBump,
    "resize_bump": NoResizeBump,
    "janitor": NoJanitor,
    "outbox": NoOutbox,
    "rearm": NoRearm,
    "ledger_first": ReleasesFirst,
    "min_epoch": AnyEpoch,
    "keeps_place": KeepsNoPlace,
    "sent_before_settled": SettlesFirst,
    "job_in_transaction": JobLater,
    "id_once": Resends,
    "gate_clock": OwnClock,
}
