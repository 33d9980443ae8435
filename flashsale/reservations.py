"""Reserve, confirm and cancel: the whole flow.

A claim goes to the gate; a grant goes to the ledger; only what the ledger has committed is answered
with yes. Every branch below is a step of the protocol; what breaks without it was found by its model.
To confirm is the ledger's business alone: the gate holds a unit in the same way before and after.

A store that is away costs nobody more than `answer_max_s`: each step has its share of it, and who runs out of time is
told that repeating is safe. While the ledger keeps nothing, the gate grants nothing: who would be refused hears so as
ever, who would win is asked to come back, and no unit lies about that nobody was told of.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from flashsale import metrics
from flashsale.catalog import Catalog
from flashsale.circuit import Circuit
from flashsale.combining import Lane
from flashsale.domain import (
    LIVE,
    SOLD_OUT,
    Claim,
    Decision,
    Drop,
    Grant,
    Payment,
    Refusal,
    Reservation,
    State,
    Verdict,
    Withheld,
)
from flashsale.errors import LedgerUnavailable, Overloaded, Unavailable
from flashsale.gate import UNARMED, Gate, Unarmed, whole
from flashsale.lanes import Lanes, Limits, gate_lane, ledger_lane
from flashsale.leases import Leases
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
from flashsale.stripes import SETTLED_PER_CALL_MAX, Stripes
from flashsale.together import Held, Known, Outcome, Tell, Together

__all__ = ["Held", "Known", "Limits", "Outcome", "Reservations", "Tell"]

ATTEMPTS_MAX: Final = 5
COMMIT_TRIES_MAX: Final = 3
COMMIT_RETRY_S: Final = 0.05

# Shares of `answer_max_s`, beside those of `lanes`. A press may begin another attempt in the first of it, and then has
# time for gate and ledger.
LAST_ATTEMPT_SHARE: Final = 0.25
REBUILD_SHARE: Final = 0.25
CONFIRM_SHARE: Final = 0.8

KEEPS_NOTHING_AFTER: Final = 2
KEEPS_NOTHING_BASE_S: Final = 0.5
KEEPS_NOTHING_MAX_S: Final = 2.0
"""So many batches in a row could not be committed, and a drop grants nothing; after a pause, one unit, to see."""

CONFIRM_LANES: Final = 2
"""Confirms of different holds wait for nothing in common: while one transaction is written, the next is under way."""

Result = TypeVar("Result")


class Reservations:
    """The flow of all drops in this process.

    `arm(drop, force)` rebuilds a drop's gate when it is not armed, or in any case with `force`; `on_decided(drop,
    results)` and `on_committed(drop, grants)` hear of every batch (metrics, logs), and `on_waited(drop, seconds,
    presses)` how long the oldest press of a call had waited when it was answered (not of a striped drop: there a press
    takes several calls). `now` is a monotonic clock in seconds, `jitter` gives numbers in [0, 1).
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
        now: Callable[[], float],
        jitter: Callable[[], float],
        limits: Limits | None = None,
        on_decided: Callable[[str, list[Decision]], None] = lambda _drop, _results: None,
        on_committed: Callable[[str, list[Grant]], None] = lambda _drop, _grants: None,
        on_waited: Callable[[str, float, int], None] = lambda _drop, _seconds, _presses: None,
    ) -> None:
        self._gate = gate
        self._ledger = ledger
        self._orders = orders
        self._new_ids = new_ids
        self._catalog = catalog
        self._arm = arm
        self._now = now
        self._gate_heard = 0, now()
        self._jitter = jitter
        self._limits = limits or Limits()
        self._on_decided = on_decided
        self._on_committed = on_committed
        self._on_waited = on_waited
        self._lanes: dict[str, Lanes] = {}
        self._together = Together(reserve=self.reserve, lanes=self._lanes_of, limits=self._limits)
        self._cancels: dict[str, Lane[str, Reservation | None]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._confirms: list[Lane[tuple[str, int, Payment | None], Confirmed]] = [
            ledger_lane(self._confirm, self._limits, CONFIRM_SHARE, metrics.confirm_batch.observe)
            for _ in range(CONFIRM_LANES)
        ]

    async def reserve(
        self, drop_id: str, claim: Claim, *, decision: Decision | Unarmed | None = None, outcome: Commit | None = None
    ) -> Outcome:
        """Decide `claim` and, if a unit is granted, make it durable. The drop is known to exist.

        `decision`, and then `outcome`, are given where gate and ledger have been asked already.
        """
        lanes = self._lanes_of(drop_id)
        if decision is None and lanes.leases is not None and lanes.leases.refused([claim]):
            return SOLD_OUT
        began = self._now()
        for attempt in range(ATTEMPTS_MAX):
            if attempt and self._now() - began > LAST_ATTEMPT_SHARE * self._limits.answer_max_s:
                break
            if lanes.ledger.depth >= self._limits.ledger_queue_max:  # a grant that cannot be kept helps nobody
                raise Overloaded("Too many reservations are waiting to be stored; repeat the same request.")
            grant, decision = decision or await lanes.gate.submit(claim), None
            if isinstance(grant, Refusal):
                return grant
            if isinstance(grant, Withheld):
                raise LedgerUnavailable(
                    "Nothing can be stored just now, so nothing is given; repeat the same request.", retry_after_s=2
                )
            if isinstance(grant, Unarmed):
                await self._rebuilt(drop_id)
                continue
            if outcome is None:
                await lanes.kept_back([grant])
            kept, outcome = outcome or await lanes.ledger.submit(grant), None
            answer = await self._answer(drop_id, claim, grant, kept, lanes)
            if answer is not None:
                return answer
        raise Unavailable("The sale is being put in order; repeat the same request.")

    async def reserve_together(self, drop_id: str, claims: Sequence[Claim], tell: Tell) -> None:
        """`reserve` for presses that came together: each hears its answer, or its fault, as soon as there is one."""
        await self._together.reserve(drop_id, claims, tell)

    async def _rebuilt(self, drop_id: str, *, force: bool = False) -> None:
        """Return when the gate has been rebuilt; a rebuild that takes long goes on without this request."""
        try:
            async with asyncio.timeout(REBUILD_SHARE * self._limits.answer_max_s):
                await self._arm(drop_id, force)
        except TimeoutError:
            raise Unavailable("The sale is being put in order; repeat the same request.") from None

    async def _answer(
        self, drop_id: str, claim: Claim, grant: Grant, outcome: Commit, lanes: Lanes
    ) -> Held | Known | Refusal | None:
        """What the shopper hears of a commit's outcome; None: ask the gate again, under a new id."""
        match outcome:
            case Committed(expires_at=expires_at):
                lanes.settle(grant)
                return Held(grant, expires_at)
            case Existing(reservation=found):
                if found.state in LIVE and found.id == grant.id:
                    if grant.pending:
                        lanes.settle(grant)
                else:  # our grant was never committed, or has ended since: the gate must have its unit back
                    keep = [grant.id] if found.id == grant.id and found.keeps_slot else []
                    spent = [grant.id] if found.id == grant.id and found.state is State.RETURNED else []
                    gone = whole.place_of(grant, found.unit if grant.elsewhere and grant.unit is None else None)
                    await whole.release(self._gate, drop_id, [gone], keep=keep, spent=spent)
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
                await whole.release(self._gate, drop_id, [whole.place_of(grant)])
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

        return await self._until_known(confirm)

    async def cancel(self, reservation: Reservation) -> Reservation | None:
        """Cancel a hold; None when it is no longer held. The gate has its unit back soon after."""
        lane = self._cancels.get(reservation.drop) or self._open_cancels(reservation.drop)
        return await lane.submit(reservation.id)

    async def _return_units(self, drop_id: str, ended: list[Reservation]) -> None:
        try:
            for epoch, ids in (await whole.release(self._gate, drop_id, ended)).items():
                await self._ledger.mark_released(drop_id, ids, epoch)
        except Unavailable:
            pass  # reconcile's outbox returns them within seconds

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _lanes_of(self, drop_id: str) -> Lanes:
        return self._lanes.get(drop_id) or self._open_lanes(drop_id)

    def _open_lanes(self, drop_id: str) -> Lanes:
        async def commit(grants: list[Grant]) -> list[Commit]:
            try:
                outcomes = await self._commit(drop_id, grants)
            except BaseException:  # also when it was given up
                lanes.keeps.note(ok=False)
                raise
            committed = [g for g, o in zip(grants, outcomes, strict=True) if isinstance(o, Committed)]
            if committed:  # any other outcome does not say that the ledger can write
                lanes.keeps.note(ok=True)
            asyncio.get_running_loop().call_soon(self._on_committed, drop_id, committed)
            return outcomes

        keeps = Circuit(
            now=self._now,
            jitter=self._jitter,
            failures_max=KEEPS_NOTHING_AFTER,
            base_s=KEEPS_NOTHING_BASE_S,
            max_s=KEEPS_NOTHING_MAX_S,
        )
        stripes, lanes = self._drop(drop_id).stripes, Lanes(commit, self._limits, keeps)
        if stripes == 1:
            self._open_one(drop_id, lanes)
        else:
            self._open_stripes(drop_id, stripes, lanes)
        self._lanes[drop_id] = lanes
        return lanes

    def _drop(self, drop_id: str) -> Drop:
        drop = self._catalog.known(drop_id)
        assert drop is not None, drop_id
        return drop

    def _heard_clock(self, now_ms: int) -> None:
        self._gate_heard = now_ms, self._now()

    def _open_one(self, drop_id: str, lanes: Lanes) -> None:
        waiting: list[Grant] = []

        def told(refused: int) -> None:
            self._on_waited(drop_id, 0.0, refused)
            asyncio.get_running_loop().call_soon(self._on_decided, drop_id, list[Decision]([SOLD_OUT] * refused))

        lanes.leases = leases = Leases(
            self._gate,
            drop_id,
            min_epoch=lambda: self._catalog.min_epoch(drop_id),
            now=self._now,
            told=told,
            leases_from=self._limits.leases_from,
        )

        async def decide(claims: list[Claim]) -> list[Decision | Unarmed]:
            settled, waiting[:] = waiting[:SETTLED_PER_CALL_MAX], waiting[SETTLED_PER_CALL_MAX:]
            grants_max, drop, began = lanes.grants_max(), self._drop(drop_id), self._now()
            min_epoch = self._catalog.min_epoch(drop_id)
            with metrics.gate_seconds.time():
                decided = await self._gate.decide(
                    drop, min_epoch, claims, settled, grants_max=grants_max, lease=leases.log
                )
            if isinstance(decided, Unarmed):
                return [UNARMED] * len(claims)
            self._heard_clock(decided.now_ms)
            leases.heard(began, drop, claims, decided)
            # Who only listens is told afterwards, so that no fault of theirs can take an answer from anybody.
            asyncio.get_running_loop().call_soon(self._on_decided, drop_id, decided.results)
            return list(decided.results)

        lanes.gate = gate_lane(decide, self._limits, partial(self._on_waited, drop_id))
        lanes.settle = waiting.append

    def _open_stripes(self, drop_id: str, count: int, lanes: Lanes) -> None:
        lanes.gate = stripes = Stripes(
            self._gate,
            count,
            drop=lambda: self._drop(drop_id),
            min_epoch=lambda: self._catalog.min_epoch(drop_id),
            heard_epoch=lambda epoch: self._catalog.raise_epoch(drop_id, epoch),
            grants_max=lanes.grants_max,
            lane=lambda call: gate_lane(call, self._limits),
            heard=self._heard_clock,
            told=lambda decisions: self._on_decided(drop_id, decisions),
            now=self._now,
            jitter=self._jitter,
            patience_s=LAST_ATTEMPT_SHARE * self._limits.answer_max_s,
        )
        lanes.settle = stripes.settle

    def _open_cancels(self, drop_id: str) -> Lane[str, Reservation | None]:
        async def cancel(ids: list[str]) -> list[Reservation | None]:
            ended = await self._ledger.cancel(drop_id, ids)
            if ended:
                self._later(self._return_units(drop_id, ended))
            by_id = {r.id: r for r in ended}
            return [by_id.get(i) for i in ids]

        lane: Lane[str, Reservation | None] = ledger_lane(cancel, self._limits, CONFIRM_SHARE)
        self._cancels[drop_id] = lane
        return lane

    async def _commit(self, drop_id: str, grants: list[Grant]) -> list[Commit]:
        async def commit() -> list[Commit]:
            with metrics.ledger_seconds.time():
                return await self._ledger.commit(drop_id, grants)

        return await self._until_known(commit)

    async def _until_known(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """The ledger's answer; when it is lost, the same call with the same ids again, which waits for the first."""
        for attempt in range(1, COMMIT_TRIES_MAX + 1):
            try:
                return await call()
            except LedgerUnavailable:
                if attempt == COMMIT_TRIES_MAX:
                    raise
                await asyncio.sleep(COMMIT_RETRY_S * 2**attempt * (0.5 + self._jitter()))
        raise AssertionError("unreachable")

    def gate_now_ms(self) -> float:
        """The gate's clock, which windows go by, as it was last heard; this machine's own clock may be wrong."""
        now_ms, heard = self._gate_heard
        return now_ms + (self._now() - heard) * 1_000

    def waiting(self) -> tuple[int, int]:
        """How many requests wait for the gate, and how many for the ledger."""
        lanes = self._lanes.values()
        return sum(lane.gate.depth for lane in lanes), sum(lane.ledger.depth for lane in lanes)

    async def drain(self) -> None:
        """Return when what runs in the background is done."""
        while self._background:
            await asyncio.gather(*self._background, return_exceptions=True)
