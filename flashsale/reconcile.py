"""Repairs: rebuilds the gate, expires holds, returns units, voids grants that nobody committed.

**Who is authoritative when.** The ledger, always, for what is: who has a unit, what is left, what the operators
decided. The gate only for what may be asked next, and only while it is *the* gate: armed for the ledger's present
epoch, on the very server that it was armed on. The first is checked where it matters, at the commit: a grant carries
the epoch under which the Lua call made it, and the ledger compares it under the lock that covers the insert. The
second is checked in every script: it compares the server's replication id with the one noted when the gate was armed,
and that id changes at a restart and at a failover. So there are three ways to be wrong, and each has its end. A gate
that was emptied, or lost one key, knows that it knows nothing: `unarmed`, and whoever heard it rebuilds it. A gate
that came back old, by a snapshot, a cut log or a lagging replica, is another server than it was: `unarmed` as well,
with or without its append-only file. A gate that is whole, and of the past (a primary that was replaced and is still
reachable by some) can refuse somebody wrongly, for the second until each process has polled the epochs; what it grants
is stale, and was never told to anybody. None of them can sell.

**Why the gate may be lost.** It holds nothing that is not in the ledger, but for grants on their way there; and of
these nobody has been told. A yes leaves only after the commit, and after the commit the ledger has it. So losing the
gate loses time. What a shopper notices is a second answer for the same press, "repeat", and the repetition finds the
reservation by its key, or by its member, in the ledger if it got there, and gets a new grant if it did not.

**How it comes back.** First the epoch is raised, in a transaction of its own: from its commit on nothing that was
granted before can be committed, so that what is read next is all there is. (Read first, and a commit slips in between:
a unit sold and for sale.) Then live reservations and configuration are read in one snapshot of the ledger, brought into
a staging key in parts, counted, and swapped into place by one script, which checks again that the server is the same
and that nobody was quicker with a later epoch. Old pending grants go with the old gate; their commits are stale. Two
processes that rebuild at once do twice the work and no harm: the later epoch wins. A lease keeps them from it. (Leases
of another kind, under which processes refuse by themselves, may outlive the gate that gave them: see `leases`.)

**What a crash leaves behind** is one of three things, each found by looking, none by remembering:

- *A grant that was never committed*: its process died, or the ledger was away. It lies in `pend`, for longer than a
  commit should take. The janitor first writes a tombstone under its id into the ledger, and only then gives the unit
  back. The other order sells a unit twice: a commit that is still on its way (a stopped process, a slow network) would
  land after the unit had gone to another. With the tombstone it finds its id taken, and inserts nothing. If the commit
  was quicker, the janitor finds a live reservation, and settles it instead.
- *A reservation that ended while the gate could not be told*: the row says so (`gate_released` is false), which is an
  outbox. It is told again, by whoever comes first, as often as it takes: a release acts only on an entry of that id, so
  that twice is once. It is done only when the gate that heard it is the gate of the ledger's present epoch: an older
  one may be about to be replaced by a copy that was read before the end, and would then keep the unit for ever.
- *A hold whose shopper never came back*: expired by the ledger's clock, the same that confirms it, so that a payment
  and the expiry cannot both win. No other clock has a say in it.

**What is not repaired here.** Orders: state, order and job are one transaction (`orders` delivers, `keep_house` looks
for jobs that are gone). Requests in flight: `reservations` repeats a commit whose answer was lost, under the same ids,
which waits for the first one. A wrong gate under the right epoch cannot come about by a fault that we know; should it,
the ledger's own constraints refuse the commit (the second lock), and that refusal rebuilds the gate.

Every act here may be done twice, late, or by several processes at once. That is why there is no leader, and why any
worker may die at any line.
"""

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from functools import partial
from typing import Final

import msgspec
import structlog

from flashsale import metrics
from flashsale.catalog import Catalog
from flashsale.domain import CODES_STRIPE, LIVE, Drop, Points, State
from flashsale.errors import Unavailable
from flashsale.gate import LEASE_MS, Gate, Unarmed, whole
from flashsale.gate.codes import Field, batch_field, bit_fields, bound_fields
from flashsale.ledger import ArmState, Ledger, Part

PENDING_MAX_MS: Final = 3_000
BATCH_MAX: Final = 1_000
TICK_S: Final = 0.5
LEASE_POLL_S: Final = 0.02
LEASE_RENEW_S: Final = 1.0
LEASE_RENEWALS_MAX: Final = 60
DROPS_AT_ONCE_MAX: Final = 4
DROP_ROUND_MAX_S: Final = 10.0
REBUILD_TRIES_MAX: Final = 3

log = structlog.get_logger()


class Report(msgspec.Struct):
    """What one round did."""

    rebuilt: list[str] = []
    expired: int = 0
    returned: int = 0
    voided: int = 0
    settled: int = 0
    failed: list[str] = []


class Arming:
    """Rebuilds gates from the ledger, one at a time per drop and process."""

    def __init__(
        self, *, gate: Gate, ledger: Ledger, catalog: Catalog, ttl_after_close_s: int, now: Callable[[], datetime]
    ) -> None:
        self._now = now
        self._gate = gate
        self._ledger = ledger
        self._catalog = catalog
        self._ttl_after_close_s = ttl_after_close_s
        self._under_way: dict[tuple[str, bool], asyncio.Task[bool]] = {}

    async def arm(self, drop_id: str, force: bool = False) -> bool:  # noqa: FBT001, FBT002 -- one switch, said at each call
        """Make the gate of a drop one of the ledger's present epoch. Returns whether this call rebuilt it.

        Unless `force` says that the gate is wrong, one that is armed is left alone. Callers at the same time share
        one rebuild. One that began earlier may have read the ledger before what this caller knows of was written:
        when it is done, one more look for all of them tells whether it was enough. (A forced one always is: a grant
        that the ledger refused for another reason than its epoch came before that rebuild's new epoch.)
        """
        key = (drop_id, force)
        task = self._under_way.get(key)
        if task is not None and not force:
            await asyncio.shield(task)
            task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._arm(drop_id, force=force))
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    def _forget(self, key: tuple[str, bool], done: asyncio.Task[bool]) -> None:
        self._under_way.pop(key, None)
        if not done.cancelled():
            done.exception()  # seen, also when everybody who waited for it has gone

    async def _arm(self, drop_id: str, *, force: bool) -> bool:
        if not force and await self._armed(drop_id):
            return False
        while not await self._gate.take_lease(drop_id):  # noqa: ASYNC110 -- another's lease; unless renewed, it ends
            await asyncio.sleep(LEASE_POLL_S)
        keeping = asyncio.create_task(self._keep_lease(drop_id))
        try:
            return (force or not await self._armed(drop_id)) and await self._rebuild(drop_id)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await self._gate.drop_lease(drop_id)

    async def _keep_lease(self, drop_id: str) -> None:
        """A rebuild that outlasts its lease would be overtaken by the next, and that one by the one after it."""
        for _ in range(LEASE_RENEWALS_MAX):
            await asyncio.sleep(LEASE_RENEW_S)
            with contextlib.suppress(Unavailable):
                await self._gate.keep_lease(drop_id)

    def known(self, drop_id: str) -> Drop | None:
        """The drop as it was last read."""
        return self._catalog.known(drop_id)

    async def _armed(self, drop_id: str) -> bool:
        """Whether nothing is to be done: the gate is at the ledger's epoch, or there is no such drop.

        A ledger that is behind an epoch this process has seen was restored: then a new epoch is called for.
        """
        drop = await self._catalog.reload(drop_id)
        if drop is None:
            return True
        if drop.epoch < self._catalog.min_epoch(drop_id):
            return False
        status = await whole.status(self._gate, drop, drop.epoch)
        return not isinstance(status, Unarmed) and status.epoch == drop.epoch

    async def _rebuild(self, drop_id: str) -> bool:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(REBUILD_TRIES_MAX):
            drop = await self._catalog.reload(drop_id)
            if drop is None:
                return False
            await whole.each(drop.stripes, partial(self._bring_eligible, drop))
            await whole.each(drop.stripes, partial(self._bring_bound, drop))
            epoch = await self._ledger.drops.bump(drop.id)
            if epoch is None:
                return False
            self._catalog.raise_epoch(drop.id, epoch)
            result = await self._copy(drop.id, epoch, leased_s=0.0 if drop.is_new else LEASE_MS / 1_000)
            metrics.rebuilds.labels(drop.id, result).inc()
            took_s = loop.time() - began
            log.info("gate.rebuild", drop=drop.id, epoch=epoch, result=result, seconds=took_s)
            if result != "lost":
                await self._catalog.reload(drop.id)
                return result == "ok"
        raise Unavailable("The gate was lost again while it was being rebuilt; repeat the same request.")

    async def _copy(self, drop_id: str, epoch: int, *, leased_s: float) -> str:
        async with self._ledger.drops.read_for_arming(drop_id, epoch) as found:
            if found is None:
                return "superseded"
            state, parts = found
            stripes = state.drop.stripes
            begun_at = asyncio.get_running_loop().time()
            begun = await whole.each(stripes, lambda stripe: self._gate.arm_begin(drop_id, epoch, stripe=stripe))
            if set(begun) != {"ok"}:
                return "superseded"
            members = await self._copy_entries(drop_id, epoch, parts)
            if members is None:
                return "lost"
            finish = partial(self._finish, state, members, leased_until=begun_at + leased_s)
            finished = await whole.each(stripes, finish)
            return next((answer for answer in ("superseded", "lost") if answer in finished), "ok")

    async def _copy_entries(self, drop_id: str, epoch: int, parts: AsyncIterator[Part]) -> Counter[int] | None:
        """How many members each stripe was told of; None: one has lost what it was told."""
        members, sent = Counter[int](), dict[int, asyncio.Task[bool]]()
        try:
            async for stripe, part in parts:  # the ledger reads the next part while the gate takes this one
                if stripe in sent and not await sent[stripe]:
                    return None
                sent[stripe] = asyncio.create_task(self._gate.arm_chunk(drop_id, epoch, part, stripe=stripe))
                members[stripe] += len(part) // 2
            for task in sent.values():
                if not await task:
                    return None
        finally:
            await asyncio.gather(*sent.values(), return_exceptions=True)
        return members

    async def _finish(self, state: ArmState, members: Counter[int], stripe: int, *, leased_until: float) -> str:
        drop = state.drop
        # A million spent codes take most of a second.
        codes = await asyncio.to_thread(_code_fields, state, stripe)
        if codes and not await self._gate.arm_codes(drop.id, drop.epoch, codes, stripe=stripe):
            return "lost"
        return await self._gate.arm_finish(
            drop,
            members[stripe],
            state.free_at(stripe),
            codes=len(codes) // 2,
            bound=[b.id for b in state.batches if b.bound],
            ttl_ms=self._ttl_ms(drop),
            leased_ms=max(0, math.ceil(1_000 * (leased_until - asyncio.get_running_loop().time()))),
            stripe=stripe,
        )

    async def _bring_eligible(self, drop: Drop, stripe: int) -> None:
        """Copy the eligible sets that the drop's rules name and the stripe does not have: all of each.

        Its own members would do, but a set is packed by thousands of ids, and one for all stripes is built once.
        """
        for name, rule in {(a.eligible_set, a.access) for a in drop.allocations if isinstance(a.access, Points)}:
            assert name is not None, f"the list of {rule} was computed before the rule was set up, and never goes"
            if await self._gate.has_eligible(drop.id, name, stripe=stripe):
                continue
            info = await self._ledger.points.build_eligible(rule.snapshot, rule.at_least)
            assert info is not None, f"snapshot {rule.snapshot} never goes"
            staging = await self._gate.eligible_begin(drop.id, stripe=stripe)
            async for part in self._ledger.points.eligible_parts(rule.snapshot, rule.at_least):
                if not await self._gate.eligible_chunk(staging, part):
                    break
            await self._gate.eligible_finish(
                drop.id, name, staging, fields=info.chunks, ttl_ms=self._ttl_ms(drop), stripe=stripe
            )  # when it was lost half-way, arm_finish notices, and the rebuild is tried again

    async def _bring_bound(self, drop: Drop, stripe: int) -> None:
        """Copy to whom the codes of bound batches belong, where the gate does not know it. It never changes."""
        for batch in await self._ledger.fcodes.of_drop(drop.id):
            if not batch.bound or await self._gate.has_bound(drop.id, batch.id, stripe=stripe):
                continue
            staging, fields, after = await self._gate.bound_begin(drop.id, stripe=stripe), 0, -1
            while owners := await self._ledger.fcodes.bound(batch.id, after):
                after = owners[-1].serial
                part = bound_fields((o.serial, o.member) for o in owners)
                fields += len(part) // 2
                if not await self._gate.bound_chunk(staging, part):
                    break
            await self._gate.bound_finish(
                drop.id, batch.id, staging, fields=fields, ttl_ms=self._ttl_ms(drop), stripe=stripe
            )

    def _ttl_ms(self, drop: Drop) -> int:
        left_s = max(0.0, (drop.ends_at - self._now()).total_seconds())
        return int((left_s + self._ttl_after_close_s) * 1000)


class Reconciler:
    """Compares gate with ledger, round after round."""

    def __init__(self, *, gate: Gate, ledger: Ledger, arming: Arming) -> None:
        self._gate = gate
        self._ledger = ledger
        self._arming = arming

    async def run(self, *, beat: Callable[[], None] = lambda: None) -> None:
        """Round after round, until cancelled; `beat` is called after each."""
        failed: list[str] = []
        while True:
            report = await self.run_once()
            if report.failed != failed:  # one line when something begins to fail, one when that is over
                failed = report.failed
                log.warning("reconcile.failed", steps=failed) if failed else log.info("reconcile.recovered")
            beat()
            if max(report.expired, report.returned, report.voided + report.settled) < BATCH_MAX:
                await asyncio.sleep(TICK_S)  # after a full batch, more is likely to be waiting

    async def run_once(self) -> Report:
        """One round over all drops. What is wrong with one drop, or one step, holds up no other."""
        report = Report()
        try:
            epochs = await self._ledger.drops.epochs()
            due = await self._ledger.reservations.due(BATCH_MAX)
        except Unavailable as fault:
            report.failed.append(f"ledger: {fault.detail}")
            return report
        slots = asyncio.Semaphore(DROPS_AT_ONCE_MAX)

        async def look_after(drop_id: str) -> None:
            async with slots:
                await self._look_after(drop_id, due.get(drop_id, []), report)

        await asyncio.gather(*(look_after(i) for i in dict.fromkeys([*due, *(e.drop for e in epochs)])))
        report.failed.sort()
        return report

    async def _look_after(self, drop_id: str, due: list[str], report: Report) -> None:
        async def expire(drop_id: str, report: Report) -> None:
            if due:
                ended = await self._ledger.reservations.expire(drop_id, due)
                report.expired += len(ended)
                metrics.repaired.labels("expired").inc(len(ended))

        for step in (expire, self._rearm, self._return_units, self._void_orphans):
            name = f"{step.__name__.strip('_')} {drop_id}"
            try:
                async with asyncio.timeout(DROP_ROUND_MAX_S):  # a rebuild that takes longer goes on by itself
                    await step(drop_id, report)
            except Unavailable as fault:
                report.failed.append(f"{name}: {fault.detail}")
            except TimeoutError:
                report.failed.append(f"{name}: not done within {DROP_ROUND_MAX_S:g} s")
            except Exception as fault:  # a drop that cannot be mended must not keep the others from it
                log.exception("reconcile.broken", step=name)
                report.failed.append(f"{name}: {type(fault).__name__}")

    async def _rearm(self, drop_id: str, report: Report) -> None:
        if await self._arming.arm(drop_id):
            report.rebuilt.append(drop_id)

    async def _return_units(self, drop_id: str, report: Report) -> None:
        """The outbox: ended, and the gate may not know."""
        ended = await self._ledger.reservations.outbox(drop_id, BATCH_MAX)
        if not ended:
            return
        released = await whole.release(
            self._gate,
            drop_id,
            ended,
            keep={e.id for e in ended if e.keeps_slot},
            spent={e.id for e in ended if e.returned},
        )
        for epoch, ids in released.items():
            done = await self._ledger.reservations.mark_released(drop_id, ids, epoch)
            report.returned += done
            metrics.repaired.labels("returned").inc(done)

    async def _void_orphans(self, drop_id: str, report: Report) -> None:
        """The janitor: grants that have been pending for too long, on each stripe by itself."""
        drop = self._arming.known(drop_id)
        if drop is not None:
            await whole.each(drop.stripes, partial(self._void_orphans_at, drop_id, report))

    async def _void_orphans_at(self, drop_id: str, report: Report, stripe: int) -> None:
        """Also what stands, but neither its claim nor its unit here: of a fetch whose answer was lost."""
        grants = await self._gate.pending(drop_id, older_than_ms=PENDING_MAX_MS, limit=BATCH_MAX, stripe=stripe)
        if isinstance(grants, Unarmed) or not grants:
            return
        standing = await self._ledger.reservations.void(drop_id, grants)
        live = [s for s in standing if s.state in LIVE and stripe in {s.home, s.unit}]
        dead = [s for s in standing if s.state not in LIVE or stripe not in {s.home, s.unit}]
        if live:
            await self._gate.settle(drop_id, [(s.id, s.member) for s in live], stripe=stripe)
        if dead:
            keep = {s.id for s in dead if s.keeps_slot and s.home == stripe}
            spent = {s.id for s in dead if s.state is State.RETURNED}
            await self._gate.release(drop_id, [(s.id, s.member) for s in dead], keep=keep, spent=spent, stripe=stripe)
        report.settled += len(live)
        report.voided += len(dead)
        metrics.repaired.labels("voided").inc(len(dead))


def _code_fields(state: ArmState, stripe: int) -> list[Field]:
    """What a stripe must know of F-codes: all of them which there are, and one of them which are spent."""
    fields: list[Field] = []
    for batch in state.batches:
        fields += batch_field(batch)
    spent = state.spent if stripe == CODES_STRIPE else []
    return [*fields, *bit_fields("s", spent), *bit_fields("r", state.revoked)]
