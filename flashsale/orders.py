"""Orders on their way out: each is delivered to the shop's endpoint as a signed webhook, at least once, under its id.

A confirmed hold, its order and its job are one transaction; the worker takes jobs, sends, writes down what came of it,
and only then is the job taken away. Whatever dies in between, the job is there, and the order goes out again under the
same id: who receives it tells the second from the first.

An order that is not accepted is tried again after growing delays, and is `dead` after the last, with its reason, until
an operator replays it. When nothing at all is accepted, the circuit opens: jobs stay where they are, and only a probe
goes out now and then, which costs one order one try. An endpoint that answers 410 is disabled until one is replayed.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Protocol

import msgspec
import structlog

from flashsale import metrics
from flashsale.circuit import Circuit
from flashsale.combining import Lane
from flashsale.domain import Event, Money, Order, OrderState
from flashsale.endpoint import Delivered, Failed
from flashsale.errors import Unavailable
from flashsale.ledger import Later, OrderStore, Tried

JITTER: Final = 0.2
"""Delays are lengthened by up to this share, so that orders that failed together do not all come back together."""
RETRY_AFTER_MAX_S: Final = 3_600.0
LEDGER_AGAIN_S: Final = 1.0
DISABLED_LOOK_S: Final = 1.0
BATCH_MAX: Final = 500
WAIT_MAX_S: Final = 5.0
TAKEN_PER_SENT: Final = 4
"""A worker takes so many times more orders on than it sends at once: taking costs Postgres the less the more come."""
HOUSEKEEPING_EVERY_S: Final = 30.0
PRUNED_PER_CALL_MAX: Final = 5_000
LOOKED_AT_PER_CALL_MAX: Final = 10_000

log = structlog.get_logger()


class Sender(Protocol):
    """What sends a message, as `flashsale.endpoint.Endpoint` does."""

    url: str

    async def send(self, message_id: str, body: bytes) -> Delivered | Failed:
        """One try."""


class _Sold(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    order: str | None
    reservation: str
    drop: str
    allocation: str
    member: int
    quantity: int
    price: Money
    fcode_batch: str | None = None
    payment_id: str | None = None
    confirmed_at: datetime


class _TakenBack(msgspec.Struct, frozen=True, kw_only=True):
    order: str | None
    reservation: str
    drop: str
    allocation: str
    member: int
    quantity: int
    price: Money
    reason: str
    restocked_to: str | None
    returned_at: datetime


class _RefundDue(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    order: str | None = None
    reservation: str
    drop: str
    allocation: str
    member: int
    quantity: int
    payment_id: str
    refund: Money
    received_at: datetime


class _Message(msgspec.Struct, frozen=True):
    type: str
    timestamp: datetime
    data: _Sold | _TakenBack | _RefundDue


_encode: Final = msgspec.json.Encoder().encode


def message_of(order: Order) -> bytes:
    """The webhook's body: the same bytes at every try."""
    return _encode(_Message(order.event.value, order.created_at, _data(order)))


def _data(o: Order) -> _Sold | _TakenBack | _RefundDue:
    of = {
        "order": o.confirmed_as,
        "reservation": o.reservation,
        "drop": o.drop,
        "allocation": o.allocation,
        "member": o.member,
        "quantity": o.quantity,
    }
    match o.event:
        case Event.CONFIRMED:
            return _Sold(
                **of,  # type: ignore[arg-type]
                price=o.money,
                fcode_batch=None if o.fcode_batch is None else str(o.fcode_batch),
                payment_id=o.payment_id,
                confirmed_at=o.created_at,
            )
        case Event.RETURNED:
            return _TakenBack(
                **of,  # type: ignore[arg-type]
                price=o.money,
                reason=o.detail["reason"],
                restocked_to=(o.detail["to"] or o.allocation) if o.detail["restock"] else None,
                returned_at=o.created_at,
            )
        case Event.REFUND_DUE:
            assert o.payment_id is not None
            return _RefundDue(**of, payment_id=o.payment_id, refund=o.money, received_at=o.created_at)  # type: ignore[arg-type]


class Deliveries:
    """One worker's deliveries to one endpoint.

    `delays_s`: before each further try of an order. `at_once_max`: how many are sent at the same time. `jitter` gives
    numbers in [0, 1).
    """

    def __init__(
        self,
        *,
        store: OrderStore,
        endpoint: Sender,
        circuit: Circuit,
        delays_s: Sequence[float],
        at_once_max: int,
        jitter: Callable[[], float],
        stopping: asyncio.Event,
    ) -> None:
        self._sending = asyncio.Semaphore(at_once_max)
        self._store = store
        self._endpoint = endpoint
        self._shown_url = endpoint.url.partition("?")[0]  # a query may hold a secret of the shop's
        self._circuit = circuit
        self._delays_s = delays_s
        self._jitter = jitter
        self._stopping = stopping
        self._changed = asyncio.Event()
        self._probing = False
        self._disabled = False
        self._loads: Lane[str, Order | None] = Lane(
            self._load, batch_max=BATCH_MAX, queue_max=BATCH_MAX * 10, wait_max_s=WAIT_MAX_S
        )
        self._notes: Lane[Tried, None] = Lane(
            self._note, batch_max=BATCH_MAX, queue_max=BATCH_MAX * 10, wait_max_s=WAIT_MAX_S
        )

    async def _load(self, ids: list[str]) -> list[Order | None]:
        found = await self._store.load(ids)
        return [found.get(i) for i in ids]

    async def _note(self, tried: list[Tried]) -> list[None]:
        await self._store.settle(tried)
        return [None] * len(tried)

    async def admit(self, wanted: int) -> int:
        """How many orders may be taken on now: waits while the endpoint is given a rest; 0 when stopping."""
        while not self._stopping.is_set():
            if self._disabled and await self._still_disabled():
                await self._wait(DISABLED_LOOK_S)
            elif self._circuit.closed:
                return wanted
            elif self._circuit.wait_s > 0:
                await self._wait(self._circuit.wait_s)
            elif not self._probing:
                self._probing = True
                return 1
            else:
                await self._wait(None)
        return 0

    def admitted(self, count: int) -> None:
        """So many were taken on."""
        if count == 0:
            self._probed()

    async def _still_disabled(self) -> bool:
        with contextlib.suppress(Unavailable):
            self._disabled = await self._store.disabled(self._endpoint.url)
            if not self._disabled:
                log.info("fulfilment.enabled", url=self._shown_url)
        return self._disabled

    async def begin(self) -> None:
        """Find out whether the endpoint was disabled earlier."""
        self._disabled = await self._store.disabled(self._endpoint.url)

    async def _wait(self, seconds: float | None) -> None:
        """Until something changed, or it is time to stop, or to look."""
        self._changed.clear()
        waiting = [asyncio.create_task(event.wait()) for event in (self._changed, self._stopping)]
        try:
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    def _probed(self) -> None:
        self._probing = False
        self._changed.set()

    async def deliver(self, order_id: str, _put_off: int) -> Later | None:
        """One try. None: this job is done, the order delivered or dead; otherwise when to try again."""
        try:
            order = await self._loads.submit(order_id)
            if order is None or order.state is not OrderState.QUEUED:
                return None  # delivered already, by a worker that died before it could take the job away
            if order.sink:  # of a rehearsal: no shop hears of it
                done = Tried(order.id, OrderState.DELIVERED, None)
                await self._notes.submit(done)
                return None
            async with self._sending:
                if self._stopping.is_set():
                    return Later(0.0, "its worker stops")
                if self._circuit.wait_s > 0 or self._disabled:  # since it was taken on: it has not been tried
                    return Later(max(self._circuit.wait_s, DISABLED_LOOK_S), "the endpoint is given a rest")
                with metrics.delivery_seconds.time():
                    answer = await self._endpoint.send(order.id, message_of(order))
            was_closed = self._circuit.closed
            self._circuit.note(ok=isinstance(answer, Delivered))
            if was_closed != self._circuit.closed:
                self._tell_circuit(answer)
            return await self._after(order, answer)
        except Unavailable as fault:  # the same order under the same id, once the ledger is back
            return Later(LEDGER_AGAIN_S, fault.detail)
        finally:
            self._probed()

    def _tell_circuit(self, answer: Delivered | Failed) -> None:
        metrics.circuit_open.set(0 if self._circuit.closed else 1)
        if isinstance(answer, Failed):
            log.warning("fulfilment.away", url=self._shown_url, reason=answer.reason)
        else:
            log.info("fulfilment.back", url=self._shown_url)

    async def _after(self, order: Order, answer: Delivered | Failed) -> Later | None:
        match answer:
            case Delivered():
                await self._notes.submit(Tried(order.id, OrderState.DELIVERED, None))
                metrics.deliveries.labels("delivered").inc()
                return None
            case Failed(gone=True):
                self._disabled = True
                await self._store.disable(self._endpoint.url)
                await self._notes.submit(Tried(order.id, OrderState.QUEUED, answer.reason))
                metrics.deliveries.labels("failed").inc()
                log.error("fulfilment.disabled", url=self._shown_url, reason=answer.reason)
                return Later(self._delays_s[0], answer.reason)
            case Failed() if order.tries >= len(self._delays_s):
                await self._notes.submit(Tried(order.id, OrderState.DEAD, answer.reason))
                metrics.deliveries.labels("dead").inc()
                log.error("order.dead", order=order.id, tries=order.tries + 1, reason=answer.reason)
                return None
            case Failed():
                await self._notes.submit(Tried(order.id, OrderState.QUEUED, answer.reason))
                metrics.deliveries.labels("failed").inc()
                delay_s = self._delays_s[order.tries] * (1 + JITTER * self._jitter())
                asked_s = min(answer.retry_after_s or 0.0, RETRY_AFTER_MAX_S)
                return Later(max(delay_s, asked_s), answer.reason)


class Housekeeping(msgspec.Struct):
    """What one round of housekeeping did."""

    requeued: int = 0
    pruned: int = 0


async def keep_house(store: OrderStore, *, log_kept_s: float) -> Housekeeping:
    """Give orders that lost their job a new one, and forget finished jobs that are older than `log_kept_s`."""
    done = Housekeeping()
    while (pruned := await store.prune_log(log_kept_s, PRUNED_PER_CALL_MAX)) > 0:
        done.pruned += pruned
    after: str | None = None
    while True:
        lost, after = await store.requeue_lost(after, LOOKED_AT_PER_CALL_MAX)
        if lost:
            log.error("order.job_lost", count=len(lost), orders=lost[:10])
            metrics.repaired.labels("requeued").inc(len(lost))
        done.requeued += len(lost)
        if after is None:
            return done
