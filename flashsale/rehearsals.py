"""Rehearsals: a hidden copy of a drop is sold to simulated members, on this installation's own way of a press.

What is rehearsed is what sells: the copy is a drop like any other, in the same gate and ledger, with the same limits,
stripes and F-codes, and its presses take the flow of `reservations`, in one web process and without HTTP. What is not:
the real drop and its units are not touched; the copy is in no list; its orders end in a sink (`orders`), and never
reach the shop; who has how many points is left out, because simulated members have none (such an allocation is open
to everyone in the copy). At the end the copy is closed, and the auditor, which knows nothing of any of this, says
whether every invariant held. One at a time, in the whole installation; a bounded crowd, for a bounded time.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final

import msgspec
import structlog

from flashsale.batches import Batches
from flashsale.domain import MEMBER_MAX, Claim, Drop, Everyone, Fcode, Points, Refusal, Tier
from flashsale.drops import Operations
from flashsale.errors import Refused, Unavailable
from flashsale.ids import new_ids
from flashsale.ledger.fcodes import SERIAL_BITS
from flashsale.ledger.rehearsals import Rehearsal, RehearsalStore
from flashsale.reservations import Held, Reservations

MEMBERS_MAX: Final = 20_000
OVER_MAX_S: Final = 300.0
PER_S_MAX: Final = 2_000.0
OPENS_IN_MAX_S: Final = 60.0
AT_ONCE_MAX: Final = 500
"""Presses under way at the same time: more wait, so that shoppers of a real sale wait no longer for it."""
BEAT_S: Final = 1.0
LINGERS_S: Final = 60.0
"""So long after the last press the copy's windows are open: then they close, whatever has become of the process."""

log = structlog.get_logger()


class Asked(msgspec.Struct, frozen=True):
    """What kind of crowd: so many members press within `over_s` from the opening; a share of the holds is confirmed."""

    members: int
    over_s: float
    opens_in_s: float
    confirm_share: float


class Told(msgspec.Struct):
    """How far a rehearsal is, and what came of it."""

    pressed: int = 0
    heard: Counter[str] = msgspec.field(default_factory=Counter)
    confirmed: int = 0
    audit: dict[str, Any] | None = None
    notes: list[str] = []


def copy_of(drop: Drop, name: str, now: datetime, asked: Asked) -> tuple[Drop, list[str]]:
    """The hidden copy, opening soon, with notes on what differs from the drop."""
    opens_at = now + timedelta(seconds=asked.opens_in_s)
    closes_at = opens_at + timedelta(seconds=asked.over_s + LINGERS_S)
    notes = ["All windows open together: what is rehearsed is one opening."] if len(drop.allocations) > 1 else []
    allocations = []
    for a in drop.allocations:
        access = a.access
        if isinstance(access, Points):
            access = Everyone()
            notes.append(f"{a.id}: open to everyone here; simulated members have no points.")
        allocations.append(
            msgspec.structs.replace(a, opens_at=opens_at, closes_at=closes_at, access=access, eligible_set=None)
        )
    copied = msgspec.structs.replace(
        drop,
        id=name,
        hidden=True,
        held=False,
        paused=False,
        closed=False,
        fcodes_stopped=False,
        allocations=tuple(allocations),
        created_at=now,
    )
    return copied, notes


class Crowd:
    """Simulated members: what each of them presses, and when. `codes` by allocation are numbers of F-codes."""

    def __init__(self, drop: Drop, asked: Asked, codes: list[tuple[str, int]], dice: Random) -> None:
        tiers = [a.access.at_least for a in drop.allocations if isinstance(a.access, Tier)]
        self.presses: list[tuple[float, Claim]] = []
        for n in range(asked.members):
            name, code = codes[n] if n < len(codes) else (None, None)
            tier = dice.randrange(max(tiers) + 1) if tiers else 0
            claim = Claim(MEMBER_MAX - n, name, 1, secrets.token_hex(8), tier, code)
            self.presses.append((dice.random() * asked.over_s, claim))
        self.presses.sort(key=lambda press: press[0])


class Rehearsals:
    """Starts them here, and tells of all. `audit(drop)` lets the auditor look at a drop, and returns its report."""

    def __init__(
        self,
        *,
        store: RehearsalStore,
        operations: Operations,
        batches: Batches,
        reservations: Reservations,
        audit: Callable[[str], Coroutine[Any, Any, dict[str, Any]]],
        now: Callable[[], datetime],
        dice: Random,
    ) -> None:
        self._store = store
        self._operations = operations
        self._batches = batches
        self._reservations = reservations
        self._audit = audit
        self._now = now
        self._dice = dice
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, drop: Drop, asked: Asked, *, actor: str) -> Rehearsal:
        """Set up the copy and let the crowd come; returns at once. `Refused` while another one runs."""
        if asked.members / asked.over_s > PER_S_MAX:
            raise Refused(
                "invalid_request", f"A rehearsal presses {PER_S_MAX:g} times a second at most; give it more seconds."
            )
        if drop.hidden:
            raise Refused("conflict", "This drop is a rehearsal's copy itself; rehearse the drop that it was made of.")
        [rehearsal], name = new_ids(1), f"rehearsal-{secrets.token_hex(8)}"
        running = await self._store.start(rehearsal, drop.id, name, actor=actor, asked=asked)
        if running is not None:
            raise Refused("conflict", "A rehearsal is under way; wait for its end, or stop it.", rehearsal=running)
        copied, notes = copy_of(drop, name, self._now(), asked)
        told = Told(notes=notes)
        try:
            detail = {"rehearsal_of": drop.id, "allocations": copied.allocations}
            copied = await self._operations.create(copied, actor=actor, detail=detail)
            codes = await self._codes(copied, asked, actor, told)
        except BaseException:
            await self._store.end(rehearsal, "failed")
            raise
        task = asyncio.create_task(self._run(rehearsal, copied, asked, codes, told, actor=actor))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        found = await self._store.get(drop.id, rehearsal)
        assert found is not None
        return found

    async def _codes(self, drop: Drop, asked: Asked, actor: str, told: Told) -> list[tuple[str, int]]:
        """F-codes of the copy's own, a tenth of the crowd at most for each lane."""
        codes: list[tuple[str, int]] = []
        for a in drop.allocations:
            count = min(a.quantity, max(1, asked.members // 10))
            if not isinstance(a.access, Fcode) or count == 0:
                continue
            try:
                batch = await self._batches.mint(
                    drop.id, a.id, count=count, expires_at=None, note="rehearsal", actor=actor
                )
            except Refused as fault:
                told.notes.append(f"{a.id}: no F-codes could be minted. {fault}")
                continue
            codes += [(a.id, batch.id << SERIAL_BITS | serial) for serial in range(count)]
        return codes

    async def _run(
        self, rehearsal: str, drop: Drop, asked: Asked, codes: list[tuple[str, int]], told: Told, *, actor: str
    ) -> None:
        selling = asyncio.create_task(self._sell(drop, asked, Crowd(drop, asked, codes, self._dice), told))
        stopped = False
        try:
            while not stopped and not selling.done():
                await asyncio.wait([selling], timeout=BEAT_S)
                stopped = not await self._still(rehearsal, told)
            if stopped:
                selling.cancel()
            await asyncio.gather(selling, return_exceptions=stopped)
            await self._operations.switch(drop.id, "close", actor=actor, reason="the rehearsal is over")
            auditing = asyncio.create_task(self._audit(drop.id))
            while not auditing.done():
                await asyncio.wait([auditing], timeout=BEAT_S)
                stopped = not await self._still(rehearsal, told) or stopped
            told.audit = auditing.result()
            await self._store.tell(rehearsal, told)
            await self._store.end(rehearsal, "done")
        except asyncio.CancelledError:
            await self._failed(rehearsal, selling, told, "The process that ran it was stopped.")
            raise
        except Exception as fault:  # whatever it was, it is told where the rehearsal is looked at
            log.exception("rehearsal.failed", drop=drop.id)
            await self._failed(rehearsal, selling, told, f"It broke off: {type(fault).__name__} {fault}")

    async def _failed(self, rehearsal: str, selling: asyncio.Task[None], told: Told, why: str) -> None:
        selling.cancel()
        await asyncio.gather(selling, return_exceptions=True)
        told.notes.append(why)
        await self._store.tell(rehearsal, told)
        await self._store.end(rehearsal, "failed")

    async def _still(self, rehearsal: str, told: Told) -> bool:
        """Tell how far it is; False when somebody has stopped it. A ledger that is away is told later."""
        try:
            return await self._store.beat(rehearsal, told)
        except Unavailable:
            return True

    async def _sell(self, drop: Drop, asked: Asked, crowd: Crowd, told: Told) -> None:
        loop, slots = asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE_MAX)
        opens_at = drop.allocations[0].opens_at
        begin = loop.time() + max(0.0, (opens_at - self._now()).total_seconds())
        async with asyncio.TaskGroup() as pressing:
            for at_s, claim in crowd.presses:
                await asyncio.sleep(max(0.0, begin + at_s - loop.time()))
                await slots.acquire()
                pressing.create_task(self._press(drop.id, claim, asked, told)).add_done_callback(
                    lambda _: slots.release()
                )

    async def _press(self, drop_id: str, claim: Claim, asked: Asked, told: Told) -> None:
        try:
            outcome = await self._reservations.reserve(drop_id, claim)
        except Unavailable:
            told.heard["unavailable"] += 1
            return
        finally:
            told.pressed += 1
        match outcome:
            case Refusal(verdict=verdict):
                told.heard[verdict.value] += 1
            case Held(grant=grant):
                told.heard["held"] += 1
                if self._dice.random() < asked.confirm_share:
                    await self._confirm(grant.id, claim.member, told)
            case _:
                told.heard["again"] += 1

    async def _confirm(self, reservation: str, member: int, told: Told) -> None:
        try:
            await self._reservations.confirm(reservation, member=member)
        except Unavailable:
            told.heard["confirm unavailable"] += 1
        else:
            told.confirmed += 1

    async def aclose(self) -> None:
        """End what runs here."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
