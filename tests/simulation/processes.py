"""The processes of a schedule: the product's own parts, put together as its composition roots do, over lossy links.

`Build` names the parts. A control replaces one of them; nothing else of a schedule changes.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from fcodes import Keys
from flashsale.batches import Batches
from flashsale.catalog import Catalog
from flashsale.circuit import Circuit
from flashsale.domain import Claim, Payment, Reservation, State
from flashsale.drops import Operations
from flashsale.endpoint import Delivered, Failed
from flashsale.errors import Refused, Unavailable
from flashsale.gate import Gate
from flashsale.ledger import Confirmed, Ledger, OrderStore, ReservationStore
from flashsale.orders import Deliveries
from flashsale.process import until_available
from flashsale.reconcile import Arming, Reconciler, Report
from flashsale.reservations import Limits, Reservations
from tests.ledger.model import ModelLedger
from tests.ledger.model_queue import Job
from tests.simulation.links import GateLink, LedgerLink
from tests.simulation.loop import Machine
from tests.simulation.stores import NOON, GateServer

if TYPE_CHECKING:
    from tests.simulation.world import World

TICK_S: Final = 1.0
BEAT_S: Final = 3.0
POLL_S: Final = 0.3
CALM_ROUND_S: Final = 2.0
URL: Final = "https://shop.example/orders"
RETRIES_S: Final = (0.5, 1.0, 1.5, *[2.0] * 20)
KEYS: Final = Keys({0: bytes(range(32))})
TTL_AFTER_CLOSE_S: Final = 3_600


class Answer(msgspec.Struct, frozen=True):
    """What came back of a request. Status 0: nothing, and nobody knows what it did. `code` as in problem documents."""

    status: int
    code: str | None = None
    id: str | None = None
    state: str | None = None
    allocation: str | None = None
    order: str | None = None
    expires_at: datetime | None = None


class Build:
    """Which parts the product is put together of."""

    gate_server: type[GateServer] = GateServer
    ledger: Callable[..., ModelLedger] = ModelLedger
    gate_link: type[GateLink] = GateLink
    ledger_link: type[LedgerLink] = LedgerLink
    catalog: type[Catalog] = Catalog
    arming: type[Arming] = Arming
    reservations: type[Reservations] = Reservations
    operations: type[Operations] = Operations
    batches: type[Batches] = Batches
    reconciler: type[Reconciler] = Reconciler
    deliveries: type[Deliveries] = Deliveries
    judged: tuple[str, ...] = ()
    """Only these invariants; none named: all of them."""


class Process:
    """One run of a process: its memory is gone with it."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.machine = Machine(name)
        self.skew_s = world.plan.skew_s * (2 * world.faults.random() - 1)
        self.gate_servers: list[GateServer] = [*world.primaries]
        """By stripe, whom it takes for the primary."""
        self.stops = 0
        self.told_epoch = 0
        """The latest that the ledger has told this process when it asked for all of them, as it does each second."""
        build = world.build
        self.gate = cast(Gate, build.gate_link(world, self))
        self.link = build.ledger_link(world, self)
        self.ledger = cast(Ledger, self.link)
        self.catalog = build.catalog(self.ledger.drops)
        self.arming = build.arming(
            gate=self.gate,
            ledger=self.ledger,
            catalog=self.catalog,
            ttl_after_close_s=TTL_AFTER_CLOSE_S,
            now=self.clock,
        )

    def clock(self) -> datetime:
        """This machine's clock."""
        return NOON + timedelta(seconds=self.world.loop.time() + self.skew_s)

    def jitter(self) -> float:
        """In [0, 1)."""
        return self.world.faults.random()

    def spawn(self, coro: Any) -> asyncio.Task[Any]:  # noqa: ANN401 -- any coroutine
        """Begin a task of this process, for who waits for it."""
        return self.world.loop.spawn(self.machine, coro)

    def begin(self, coro: Any) -> None:  # noqa: ANN401 -- as above
        """Begin a task of this process that nobody waits for."""
        self.spawn(coro).add_done_callback(self.world.watch)


class Web(Process):
    """A web process, without HTTP: what its handlers do with the product's parts."""

    def __init__(self, world: "World", name: str) -> None:
        super().__init__(world, name)
        build = world.build

        async def arm(drop_id: str, force: bool) -> None:
            await self.arming.arm(drop_id, force)

        plan = world.plan
        self.reservations = build.reservations(
            gate=self.gate,
            ledger=cast(ReservationStore, self.link.reservations),
            orders=cast(OrderStore, self.link.orders),
            catalog=self.catalog,
            arm=arm,
            new_ids=world.new_ids,
            now=world.loop.time,
            jitter=self.jitter,
            limits=Limits(gate_batch_max=plan.batch_max, ledger_batch_max=plan.batch_max, leases_from=plan.leases_from),
        )
        self.operations = build.operations(
            ledger=self.ledger, gate=self.gate, catalog=self.catalog, arm=self.arming.arm, new_ids=world.new_ids
        )
        self.batches = build.batches(ledger=self.ledger, keys=KEYS, after=self.operations.after, now=self.clock)
        self.begin(self._tick())

    async def _tick(self) -> None:
        """Each second: notice new epochs."""
        loop = self.world.loop
        while True:
            with contextlib.suppress(Unavailable):
                await self.catalog.refresh()
            await loop.pause(TICK_S)

    async def press(self, drop_id: str, claim: Claim) -> Answer:
        """`POST /v1/drops/{drop}/reservations`."""
        drop = self.catalog.known(drop_id) or await self.catalog.get(drop_id)
        if drop is None:
            raise Refused("not_found", "no such drop")
        if claim.quantity > drop.per_member:
            raise Refused("invalid_request", "too many")
        outcome: Any = await self.reservations.reserve(drop_id, claim)
        match type(outcome).__name__:  # by name: the flow may be another edition of its module
            case "Held":
                g = outcome.grant
                return Answer(201, None, g.id, "held", g.allocation, None, outcome.expires_at)
            case "Known":
                return answer_of(outcome.reservation)
        return Answer(503 if outcome.verdict == "paused" else 409, outcome.verdict.value)

    async def confirm(self, reservation_id: str, member: int, payment: Payment | None) -> Answer:
        """`POST /v1/reservations/{id}/confirm`."""
        found: Confirmed = await self.reservations.confirm(reservation_id, member=member, payment=payment)
        if found.outcome.value in {"confirmed", "again"} and found.reservation is not None:
            return answer_of(found.reservation)
        return Answer(409, found.outcome.value)

    async def cancel(self, reservation_id: str) -> Answer:
        """`DELETE /v1/reservations/{id}`."""
        found = await self.ledger.reservations.get(reservation_id)
        if found is None:
            raise Refused("not_found", "no such reservation")
        if found.state is State.HELD:
            ended = await self.reservations.cancel(found)
            found = ended or await self.ledger.reservations.get(reservation_id)
            assert found is not None
        if found.state is State.CANCELLED:
            return answer_of(found)
        return Answer(409, "expired" if found.state is State.EXPIRED else "conflict")

    async def look(self, reservation_id: str) -> Answer:
        """`GET /v1/reservations/{id}`."""
        found = await self.ledger.reservations.get(reservation_id)
        return Answer(404, "not_found") if found is None else answer_of(found)


def answer_of(r: Reservation) -> Answer:
    """200 with a reservation."""
    return Answer(200, None, r.id, r.state.value, r.allocation, r.order, r.expires_at)


class ShopLink:
    """A worker's way to the shop's endpoint."""

    url = URL

    def __init__(self, process: Process) -> None:
        self._process = process

    async def send(self, message_id: str, body: bytes) -> Delivered | Failed:
        """One try."""
        return await self._process.world.shop.receive(message_id, body)


class Worker(Process):
    """A worker: repairs, and deliveries out of the queue."""

    def __init__(self, world: "World", name: str) -> None:
        super().__init__(world, name)
        build = world.build
        self.reconciler = build.reconciler(gate=self.gate, ledger=self.ledger, arming=self.arming)
        self.deliveries = build.deliveries(
            store=cast(OrderStore, self.link.orders),
            endpoint=ShopLink(self),
            circuit=Circuit(now=world.loop.time, jitter=self.jitter),
            delays_s=RETRIES_S,
            at_once_max=2,
            jitter=self.jitter,
            stopping=asyncio.Event(),
        )
        self._at_work: set[str] = set()
        self.begin(self._repair())
        self.begin(until_available(self._deliver, jitter=self.jitter))

    async def _repair(self) -> None:
        """Round after round: in the reconciler's own loop, or at a pace that the seed draws."""
        loop, plan, once = self.world.loop, self.world.plan, self.reconciler.run_once

        async def run_once() -> Report:
            report = await once()
            self.world.note_report(self, report)
            return report

        self.reconciler.run_once = run_once  # type: ignore[method-assign]
        if plan.round_s == 0:
            await self.reconciler.run()
        while True:
            await run_once()
            at_most_s = plan.round_s if self.world.stormy else CALM_ROUND_S
            await loop.pause(at_most_s * (0.5 + 0.5 * self.world.faults.random()))

    async def _deliver(self) -> None:
        """What the queue's library does with its table, at the model's."""
        await self.deliveries.begin()
        queue = self.world.ledger.model.queue
        while True:
            while not queue.jobs:  # the queue tells its workers when there is something to do
                await self.world.loop.pause(POLL_S)
            wanted = await self.deliveries.admit(4)
            jobs: list[Job] = []
            try:
                jobs = await self._call("jobs_take", partial(queue.take, wanted))
            finally:
                self.deliveries.admitted(len(jobs))
            for job in jobs:
                if job.order not in self._at_work:
                    self._at_work.add(job.order)
                    self.begin(self._work(job))
            await self.world.loop.pause(POLL_S)

    async def _call(self, verb: str, act: Callable[[], Any]) -> Any:  # noqa: ANN401 -- as the queue has it
        return await self.link.call(verb, act, None, None)

    async def _work(self, job: Job) -> None:
        """Until the queue knows what became of the job; meanwhile it hears that somebody works on it."""
        queue = self.world.ledger.model.queue
        beating = self.spawn(self._beat(job))
        try:
            later = await self.deliveries.deliver(job.order, job.attempts)
            if later is None:
                await self._insist("job_done", lambda: queue.done(job))
            else:
                await self._insist("job_put_off", lambda: queue.put_off(job, later.delay_s))
        finally:
            beating.cancel()
            self._at_work.discard(job.order)

    async def _insist(self, verb: str, act: Callable[[], Any]) -> None:
        async def once() -> None:
            await self._call(verb, act)

        attempt: Callable[[], Awaitable[None]] = once
        await until_available(attempt, jitter=self.jitter)

    async def _beat(self, job: Job) -> None:
        queue = self.world.ledger.model.queue
        while True:
            await self.world.loop.pause(BEAT_S)
            try:
                await self._call("job_beat", lambda: queue.beat(job))
            except Unavailable:
                continue
