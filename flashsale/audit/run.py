"""The order of work: wait for rest, read both stores, listen to the journal, judge."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from flashsale.audit import acts, codes, holds, members, orders, units, windows
from flashsale.audit.facts import Gate, Ledger
from flashsale.audit.gate import GateReader, gate_reader
from flashsale.audit.hearing import Hearing
from flashsale.audit.history import history_of, replay_units
from flashsale.audit.journal import read
from flashsale.audit.ledger import LedgerReader, ledger_reader
from flashsale.audit.report import (
    US,
    BadJournal,
    Check,
    LogLine,
    Report,
    clock,
    moment,
    unjudged,
    uuid_text,
)
from flashsale.audit.rest import Probe, gone, settled

POLL_S: Final = 0.25
UNSOLD_S: Final = 10.0
"""So much longer than a hold a unit may be free in the ledger before nobody may hear `sold_out` any more."""
SAY_EVERY_LINES: Final = 50_000

Say = Callable[[str], None]


class Seen(msgspec.Struct, frozen=True):
    """One reading of both stores, with what is judged by it alone."""

    probe: Probe
    ledger: Ledger
    gate: Gate | None
    checks: list[Check]

    @property
    def wrong(self) -> list[str]:
        """What contradicts."""
        return [c.contradiction for c in self.checks if c.contradiction is not None]


class _Auditor:
    def __init__(self, drop: str, ledger: LedgerReader, gate: GateReader, settle_s: float, say: Say) -> None:
        self._drop = drop
        self._ledger = ledger
        self._gate = gate
        self._settle_s = settle_s
        self._say = say
        self._stripes: list[int] = []
        self._eligible: members.Eligible = {}

    async def _probe(self) -> Probe:
        rest = await self._ledger.rest(self._drop)
        self._stripes = [*range(rest.stripes)]
        return Probe(rest, {stripe: await self._gate.head(self._drop, stripe) for stripe in self._stripes})

    async def look(self) -> tuple[Seen, float]:
        """Both stores at rest, or as they are when the time is over; and how long it took.

        A contradiction between them counts when nothing moved and it is there twice, or when the time is over.
        """
        began, before = time.monotonic(), None
        while True:
            probe, waited_s = await self._probe(), time.monotonic() - began
            time_over = waited_s >= self._settle_s
            if not probe.at_rest and not time_over:
                self._say(f"waiting until nothing moves: {probe.told()}")
                await asyncio.sleep(min(POLL_S, self._settle_s - waited_s))
                continue
            seen = await self._read(probe)
            again = before is not None and before == seen.wrong
            still = seen.gate is None or not seen.gate.moved
            if (not seen.wrong and still) or time_over or (again and still):
                return seen, waited_s
            before = seen.wrong if still else None
            await asyncio.sleep(min(POLL_S, self._settle_s))

    async def _read(self, probe: Probe) -> Seen:
        """The ledger between two readings of the gate."""
        self._say("reading the ledger")
        ledger = await self._ledger.read(self._drop)
        for a in ledger.drop.allocations.values():
            if a.kind == "points" and a.id not in self._eligible:
                self._eligible[a.id] = await self._ledger.eligible(str(a.snapshot), a.at_least or 0)
        rest = settled(probe, ledger.drop.ends, self._settle_s)
        if any(gone(head, ledger.now, ledger.drop.ends) for head in probe.heads.values()):
            return Seen(probe, ledger, None, [rest])
        gate = Gate(epoch=ledger.drop.epoch, before=probe.heads, after=probe.heads)
        self._say("reading the gate")
        matching = units.Matching(ledger, gate)
        for stripe in self._stripes:
            gate.codes[stripe] = await self._gate.codes(self._drop, stripe)
            async for entries in self._gate.entries(self._drop, stripe):
                matching.take(entries)
        lists, owners = await self._lists(ledger), await self._owners(ledger)
        gate.after = {stripe: await self._gate.head(self._drop, stripe) for stripe in self._stripes}
        checks = [
            units.sums(ledger, gate),
            matching.same(),
            codes.gate_bits(ledger, gate, codes.by_code(ledger), owners),
            members.same_list(ledger, self._eligible, gate, lists),
            units.configuration(ledger, gate),
            rest,
        ]
        return Seen(probe, ledger, gate, checks)

    async def _lists(self, ledger: Ledger) -> members.Lists:
        return {
            (a.id, stripe): await self._gate.eligible(self._drop, stripe, str(a.eligible_set))
            for a in ledger.drop.allocations.values()
            if a.kind == "points"
            for stripe in self._stripes
        }

    async def _owners(self, ledger: Ledger) -> dict[int, codes.Owners]:
        """Of the bound batches whose codes can still be spent."""
        return {
            b.id: (await self._ledger.bound(b.id), [await self._gate.bound(self._drop, s, b.id) for s in self._stripes])
            for b in ledger.batches.values()
            if b.bound and b.revoked is None and (b.expires is None or b.expires > ledger.now)
        }

    def listen(self, journals: Sequence[Path], hearing: Hearing) -> None:
        """All lines of all journals."""
        for path in journals:
            first = hearing.lines
            for line in read(path):
                try:
                    hearing.take(line)
                except BadJournal as fault:
                    raise BadJournal(f"The journal {path}, line {hearing.lines - first}: {fault}.") from None
                if hearing.lines % SAY_EVERY_LINES == 0:
                    self._say(f"{hearing.lines:,} lines of the journal")

    async def judge(self, seen: Seen, journals: Sequence[Path], unsold_s: float) -> tuple[list[Check], Hearing | None]:
        """Everything else than what lies between the stores."""
        ledger, history = seen.ledger, history_of(seen.ledger)
        free, over, steps = replay_units(ledger, history)
        ahead_s = _gate_ahead_s(seen)
        late = windows.too_late(ledger, history)
        checks = [
            units.counters(ledger),
            units.never_over(over, steps),
            members.limit(ledger),
            codes.spent_once(ledger, codes.by_code(ledger), round((abs(ahead_s) + windows.CLOCKS_APART_S) * US)),
            members.let_in(ledger, self._eligible),
            members.keys(ledger),
            holds.states(ledger),
            holds.payments(ledger),
            windows.opening(ledger, history, ahead_s),
            windows.pauses(ledger, history),
            orders.one_each(ledger),
            acts.accounted(ledger, history),
            orders.queue_moves(ledger),
        ]
        if not journals:
            return [*checks, windows.closing(ledger, history, late, None), *_unheard()], None
        hearing = Hearing(ledger, self._eligible, free, late={row.member for row in late}, unsold_s=unsold_s)
        self.listen(journals, hearing)
        checks += [
            windows.closing(ledger, history, late, hearing),
            windows.sold_out_early(ledger, history, hearing, ahead_s),
            windows.unsold(hearing, free, ledger.drop.hold_s + unsold_s),
        ]
        return [*checks, *await self._heard(ledger, hearing)], hearing

    async def _heard(self, ledger: Ledger, hearing: Hearing) -> list[Check]:
        """What is judged by the journal and the rows."""
        elsewhere = await self._ledger.known_orders([uuid_text(o) for o in hearing.deliveries.strangers])
        return [
            holds.acknowledged(ledger, hearing.lost),
            *hearing.checks(),
            holds.heard_in_order(ledger, hearing.offset_s()),
            windows.pauses_heard(ledger, hearing.acts),
            hearing.deliveries.check(elsewhere),
            acts.written_down(ledger, hearing.acts, hearing.offset_s()),
        ]


def _gate_ahead_s(seen: Seen) -> float:
    """The gate's clock before the ledger's, at most: it was read just after that."""
    return max(((head.now - seen.probe.rest.now) / US for head in seen.probe.heads.values()), key=abs, default=0.0)


def _unheard() -> list[Check]:
    why = "there is no journal of what was heard"
    return [
        unjudged("I3", "what was acknowledged is in the ledger, and its state has a cause", why),
        unjudged("I4", "no sold_out for long while units lie free and unsold", why),
        unjudged("I11", "no sold_out before the opening, no not_open after it", why),
    ]


def _number(check: Check) -> int:
    return int(check.invariant[1:])


async def audit(
    drop: str,
    *,
    database_url: str,
    redis_url: str,
    journals: Sequence[Path] = (),
    settle_s: float = 30.0,
    unsold_s: float = UNSOLD_S,
    say: Say = lambda _: None,
) -> Report:
    """Audit a drop. Errors: `UnknownDrop`, `Unreadable`, `BadJournal`.

    `settle_s`: how long to wait until nothing moves (I16). `unsold_s`: how much longer than a hold a unit may lie free
    (I4). `say` hears, now and then, how far it is.
    """
    async with contextlib.AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(ledger_reader(database_url))
        gate = await stack.enter_async_context(gate_reader(redis_url))
        auditor = _Auditor(drop, ledger, gate, settle_s, say)
        seen, waited_s = await auditor.look()
        judged, hearing = await auditor.judge(seen, journals, unsold_s)
    found = seen.ledger
    return Report(
        drop=drop,
        at=datetime.now(UTC),
        waited_s=round(waited_s, 3),
        at_rest=seen.probe.at_rest,
        balance=units.balance_of(found, seen.gate),
        checks=sorted([*seen.checks, *judged], key=_number),
        notes=_notes(seen, hearing),
        log=[LogLine(a.id, moment(a.at), a.actor, a.action, a.subject, a.detail) for a in found.log],
        journal_lines=None if hearing is None else hearing.lines,
    )


def _notes(seen: Seen, hearing: Hearing | None) -> list[str]:
    ahead_s = _gate_ahead_s(seen)
    notes = [f"the ledger was read at {clock(seen.ledger.now)}; the gate's clock differs from its by {ahead_s:+.3f} s"]
    if seen.gate is None:
        notes.append("the gate was not read: the drop is over, and the gate has forgotten it")
    if hearing is not None:
        low, high = hearing.offset_s()
        words = ", ".join(f"{number:,} {word}" for word, number in hearing.words.most_common())
        notes.append(f"the journal has {hearing.lines:,} lines, {hearing.of_others:,} of other drops; heard: {words}")
        notes.append(f"the ledger's clock is between {low:+.3f} and {high:+.3f} s ahead of the journal's")
    return notes
