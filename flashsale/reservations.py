"""Reserve, confirm and cancel: the whole flow.

A claim goes to the gate; a grant goes to the ledger; only what the ledger has committed is answered
with yes. Every branch below is a step of the protocol; what breaks without it was found by its model.
To confirm is the ledger's business alone: the gate holds a unit in the same way before and after.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec

from flashsale import metrics
from flashsale.catalog import Catalog
from flashsale.combining import Lane
from flashsale.domain import LIVE, Claim, Grant, Payment, Refusal, Reservation, State, Verdict
from flashsale.errors import LedgerUnavailable, Overloaded, Unavailable
from flashsale.gate import UNARMED, Gate, Unarmed
from flashsale.ledger import (
    Commit,
    Committed,
    Confirmed,
    Existing,
    OrderStore,
    ReservationStore,
    SecondLock,
    Stale,
    Wish,
)

ATTEMPTS_MAX: Final = 5
COMMIT_TRIES_MAX: Final = 3
COMMIT_RETRY_S: Final = 0.05
COMMIT_MAX_S: Final = 6.0
WAIT_MAX_S: Final = 5.0
SETTLED_PER_CALL_MAX: Final = 1_000
ARM_WAIT_S: Final = 5.0
CONFIRM_LANES: Final = 2
"""Confirms of different holds wait for nothing in common: while one transaction is written, the next is under way."""

Result = TypeVar("Result")


class Held(msgspec.Struct, frozen=True):
    """The grant is a reservation since just now: 201."""

    grant: Grant
    expires_at: datetime


class Known(msgspec.Struct, frozen=True):
    """The same one again: 200."""

    reservation: Reservation


class Limits(msgspec.Struct, frozen=True):
    """Sizes of batches and queues, per drop and process."""

    gate_batch_max: int = 256
    gate_queue_max: int = 20_000
    ledger_batch_max: int = 512
    ledger_queue_max: int = 20_000


class _Lanes:
    """One drop's way through this process: claims to the gate, grants to the ledger, settled grants riding along."""

    def __init__(
        self,
        decide: Callable[[list[Claim]], Awaitable[list[Grant | Refusal | Unarmed]]],
        commit: Callable[[list[Grant]], Awaitable[list[Commit]]],
        cancel: Callable[[list[str]], Awaitable[list[Reservation | None]]],
        limits: Limits,
    ) -> None:
        self.gate: Lane[Claim, Grant | Refusal | Unarmed] = Lane(
            decide,
            batch_max=limits.gate_batch_max,
            queue_max=limits.gate_queue_max,
            wait_max_s=WAIT_MAX_S,
            observe=metrics.gate_batch.observe,
        )
        self.ledger: Lane[Grant, Commit] = Lane(
            commit,
            batch_max=limits.ledger_batch_max,
            queue_max=limits.ledger_queue_max,
            wait_max_s=WAIT_MAX_S,
            observe=metrics.ledger_batch.observe,
        )
        self.cancels: Lane[str, Reservation | None] = Lane(
            cancel, batch_max=limits.ledger_batch_max, queue_max=limits.ledger_queue_max, wait_max_s=WAIT_MAX_S
        )
        self.settled: list[Grant] = []


class Reservations:
    """The flow of all drops in this process.

    `arm(drop, force)` rebuilds a drop's gate when it is not armed, or in any case with `force`; `on_decided(drop,
    results)` and `on_committed(drop, grants)` hear of every batch (metrics, logs).
    """

    def __init__(
        self,
        *,
        gate: Gate,
        ledger: ReservationStore,
        orders: OrderStore,
        catalog: Catalog,
        arm: Callable[[str, bool], Awaitable[None]],
        new_ids: Callable[[int], list[str]],
        limits: Limits | None = None,
        on_decided: Callable[[str, list[Grant | Refusal]], None] = lambda _drop, _results: None,
        on_committed: Callable[[str, list[Grant]], None] = lambda _drop, _grants: None,
    ) -> None:
        self._gate = gate
        self._ledger = ledger
        self._orders = orders
        self._new_ids = new_ids
        self._catalog = catalog
        self._arm = arm
        self._limits = limits or Limits()
        self._on_decided = on_decided
        self._on_committed = on_committed
        self._lanes: dict[str, _Lanes] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._confirms: list[Lane[tuple[str, int, Payment | None], Confirmed]] = [
            Lane(
                self._confirm,
                batch_max=self._limits.ledger_batch_max,
                queue_max=self._limits.ledger_queue_max,
                wait_max_s=WAIT_MAX_S,
                observe=metrics.confirm_batch.observe,
            )
            for _ in range(CONFIRM_LANES)
        ]

    async def reserve(self, drop_id: str, claim: Claim) -> Held | Known | Refusal:
        """Decide `claim` and, if a unit is granted, make it durable. The drop is known to exist."""
        lanes = self._lanes.get(drop_id) or self._open_lanes(drop_id)
        for _ in range(ATTEMPTS_MAX):
            if lanes.ledger.depth >= self._limits.ledger_queue_max:  # a grant that cannot be kept helps nobody
                raise Overloaded("Too many reservations are waiting to be stored; repeat the same request.")
            grant = await lanes.gate.submit(claim)
            if isinstance(grant, Refusal):
                return grant
            if isinstance(grant, Unarmed):
                await self._rebuilt(drop_id)
                continue
            answer = await self._answer(drop_id, claim, grant, await lanes.ledger.submit(grant), lanes)
            if answer is not None:
                return answer
        raise Unavailable("The sale is being put in order; repeat the same request.")

    async def _rebuilt(self, drop_id: str, *, force: bool = False) -> None:
        """Return when the gate has been rebuilt; a rebuild that takes long goes on without this request."""
        try:
            async with asyncio.timeout(ARM_WAIT_S):
                await self._arm(drop_id, force)
        except TimeoutError:
            raise Unavailable("The sale is being put in order; repeat the same request.") from None

    async def _answer(
        self, drop_id: str, claim: Claim, grant: Grant, outcome: Commit, lanes: _Lanes
    ) -> Held | Known | Refusal | None:
        """What the shopper hears of a commit's outcome; None: ask the gate again, under a new id."""
        match outcome:
            case Committed(expires_at=expires_at):
                lanes.settled.append(grant)
                return Held(grant, expires_at)
            case Existing(reservation=found):
                if found.state in LIVE and found.id == grant.id:
                    if grant.pending:
                        lanes.settled.append(grant)
                else:  # our grant was never committed, or has ended since: the gate must have its unit back
                    keep = [grant.id] if found.id == grant.id and found.keeps_slot else []
                    spent = [grant.id] if found.id == grant.id and found.state is State.RETURNED else []
                    await self._gate.release(drop_id, [(grant.id, grant.member)], keep=keep, spent=spent)
                same_key = claim.key is not None and found.key == claim.key
                if found.state is State.VOID or not (found.state in LIVE or same_key):
                    return None
                if same_key and found.payload != claim.payload:
                    return Refusal(Verdict.IDEMPOTENCY_MISMATCH)
                return Known(found)
            case Stale(epoch=epoch, paused=paused):
                self._catalog.raise_epoch(drop_id, epoch)
                return Refusal(Verdict.PAUSED) if paused else None
            case SecondLock(verdict=verdict):  # a wrong gate: rebuild it, and let it decide again
                metrics.second_lock.labels(drop_id, verdict.value).inc()
                await self._gate.release(drop_id, [(grant.id, grant.member)])
                await self._rebuilt(drop_id, force=True)
                return None

    async def confirm(self, reservation_id: str, *, member: int, payment: Payment | None = None) -> Confirmed:
        """Make an order of a hold: for its member, or, whoever's it is, for a payment. Repeating it is safe.

        The state, the order and its job in the queue are one transaction, durable when this returns.
        """
        lane = min(self._confirms, key=lambda lane: (not lane.idle, lane.depth))
        return await lane.submit((reservation_id, member, payment))

    async def _confirm(self, asked: list[tuple[str, int, Payment | None]]) -> list[Confirmed]:
        ids = self._new_ids(len(asked))
        wishes = [Wish(found, order, member, paid) for (found, member, paid), order in zip(asked, ids, strict=True)]

        async def confirm() -> list[Confirmed]:
            with metrics.confirm_seconds.time():
                return await self._orders.confirm(wishes)

        return await _until_known(confirm)

    async def cancel(self, reservation: Reservation) -> Reservation | None:
        """Cancel a hold; None when it is no longer held. The gate has its unit back soon after."""
        lanes = self._lanes.get(reservation.drop) or self._open_lanes(reservation.drop)
        return await lanes.cancels.submit(reservation.id)

    async def _return_units(self, drop_id: str, ended: list[Reservation]) -> None:
        try:
            epoch = await self._gate.release(drop_id, [(r.id, r.member) for r in ended])
            if not isinstance(epoch, Unarmed):
                await self._ledger.mark_released(drop_id, [r.id for r in ended], epoch)
        except Unavailable:
            pass  # reconcile's outbox returns them within seconds

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _open_lanes(self, drop_id: str) -> _Lanes:
        async def decide(claims: list[Claim]) -> list[Grant | Refusal | Unarmed]:
            drop = self._catalog.known(drop_id)
            assert drop is not None, drop_id
            settled, lanes.settled[:] = lanes.settled[:SETTLED_PER_CALL_MAX], lanes.settled[SETTLED_PER_CALL_MAX:]
            with metrics.gate_seconds.time():
                decided = await self._gate.decide(drop, self._catalog.min_epoch(drop_id), claims, settled)
            if isinstance(decided, Unarmed):
                return [UNARMED] * len(claims)
            # Who only listens is told afterwards, so that no fault of theirs can take an answer from anybody.
            asyncio.get_running_loop().call_soon(self._on_decided, drop_id, decided.results)
            return list(decided.results)

        async def commit(grants: list[Grant]) -> list[Commit]:
            outcomes = await self._commit(drop_id, grants)
            committed = [g for g, o in zip(grants, outcomes, strict=True) if isinstance(o, Committed)]
            asyncio.get_running_loop().call_soon(self._on_committed, drop_id, committed)
            return outcomes

        async def cancel(ids: list[str]) -> list[Reservation | None]:
            ended = await self._ledger.cancel(drop_id, ids)
            if ended:
                self._later(self._return_units(drop_id, ended))
            by_id = {r.id: r for r in ended}
            return [by_id.get(i) for i in ids]

        lanes = self._lanes[drop_id] = _Lanes(decide, commit, cancel, self._limits)
        return lanes

    async def _commit(self, drop_id: str, grants: list[Grant]) -> list[Commit]:
        async def commit() -> list[Commit]:
            with metrics.ledger_seconds.time():
                return await self._ledger.commit(drop_id, grants)

        return await _until_known(commit)

    def waiting(self) -> tuple[int, int]:
        """How many requests wait for the gate, and how many for the ledger."""
        lanes = self._lanes.values()
        return sum(lane.gate.depth for lane in lanes), sum(lane.ledger.depth for lane in lanes)

    async def drain(self) -> None:
        """Return when what runs in the background is done."""
        while self._background:
            await asyncio.gather(*self._background, return_exceptions=True)


async def _until_known(call: Callable[[], Awaitable[Result]]) -> Result:
    """The ledger's answer; when that is lost, the same call with the same ids again, which waits for the first one."""
    began = time.monotonic()
    for attempt in range(1, COMMIT_TRIES_MAX + 1):
        try:
            return await call()
        except LedgerUnavailable:
            if attempt == COMMIT_TRIES_MAX or time.monotonic() - began > COMMIT_MAX_S:
                raise
            await asyncio.sleep(COMMIT_RETRY_S * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311 -- jitter
    raise AssertionError("unreachable")
