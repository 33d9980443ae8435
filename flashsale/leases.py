"""Local verdicts: after the sell-out, a process refuses by itself for a moment, under a lease from the gate.

Of 3.77 million who press for 300,000 units, 3.47 million are refused, nearly all after the last unit has gone: the gate
said `sold_out` a moment ago, and says it again. So, in a rush, a call to the gate also asks for a **lease**: for
`LEASE_MS` the process may say `sold_out` by itself

- to who asks for what was refused as sold out in that call, by rules that are nobody's own (`everyone`, `tier`: the
  token was read), without a key and without an F-code;
- if that member is known to have nothing. Who has something, or had, is asked of the gate, which knows what it is.

**Why nobody hears a wrong word.**

- *The same one again* (I8). Who is told yes, and presses again, must not hear `sold_out` from a process that has not
  heard of it. All who had something when the lease was given are known: they were read once (`members`), and with each
  lease the gate tells who came since (its log of late members). Who gets something while a lease is out is not known,
  and so must not know either: the process that got the grant keeps it back, neither committed nor answered, until every
  lease has ended that was out at that moment (`out_ms`). Then the next lease names that member.
- *Not before the opening, and not beyond a change* (I10, I11). The gate gives a lease only while nothing is left in any
  allocation that is open and not for codes, and none lasts beyond the moment at which one opens or closes. An
  operator's act ends leases: it is a new epoch, and it is acknowledged when the leases of before are over.
- *A unit that comes back* is for sale at once: to who has a key or a code, or asks through a process without a lease;
  and to everybody when the lease ends, within `LEASE_MS`. That somebody got it is not known sooner: yes is kept back.

**Clocks.** A lease is a time on the gate's clock, and is compared with nothing else: the process counts `lasts_ms` on
its own monotonic clock from before it asked, who keeps a yes back counts `out_ms` from after it heard, so that messages
that take long only shorten the one and lengthen the other. The gate's clock put back makes no lease longer than one
from now. Put forward while a lease is out, it may let a wrong `sold_out` out for `LEASE_MS`, and so may a machine that
is suspended as a whole in that moment. A press that was judged before its lease ended may be answered after that: it
came before.

**A gate that is lost** takes its leases' end with it. Whoever arms the next one lets it keep everything back for what
may be left of a lease, counted from the beginning of the rebuild; except a drop's first gate, before which there was
none. A log that is lost begins anew under another name, and with it the reading of all members. An old primary that is
still reachable may give leases as it may refuse: until the process hears of the new epoch, for a second at most.

Only where it pays: a process asks for leases from `leases_from` refusals in `LEASE_MS` on, and a striped drop has none;
there, the stripes share the rush.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from flashsale.domain import SOLD_OUT, Claim, Drop, Everyone, Fcode, Tier
from flashsale.errors import Unavailable
from flashsale.gate import LEASE_MS, Decisions, Gate

LEASE_S: Final = LEASE_MS / 1_000
WISHES_MAX: Final = 1_000
"""Different things that are asked for, remembered at most."""

Wish = tuple[str | None, int, int]
"""What a press asks for: allocation, quantity, and with which tier."""


class Leases:
    """One drop's leases in one process.

    `now` is a monotonic clock, seconds; `min_epoch()` the least epoch that counts; `told` hears how many were refused.
    """

    def __init__(
        self,
        gate: Gate,
        drop_id: str,
        *,
        min_epoch: Callable[[], int],
        now: Callable[[], float],
        told: Callable[[int], None],
        leases_from: int,
    ) -> None:
        self._gate = gate
        self._drop_id = drop_id
        self._min_epoch = min_epoch
        self._now = now
        self._told = told
        self._from = leases_from
        self._since, self._refused, self._refused_before = now(), 0, 0
        self._log, self._known = "", 0
        self._members: set[int] = set()
        self._reading: asyncio.Task[None] | None = None
        self._are_read = False
        self._epoch = 0
        self._ends: dict[Wish, float] = {}
        self._renew: dict[Wish, float] = {}
        self._last_end = 0.0
        self._out_until = 0.0

    @property
    def log(self) -> tuple[str, int] | None:
        """What the next call to the gate asks for a lease with; None: there is no rush, and it asks for none."""
        self._count(0)
        return (self._log, self._known) if max(self._refused, self._refused_before) >= self._from else None

    @property
    def kept_back_s(self) -> float:
        """How long what the gate has just granted must not be committed, seconds."""
        return max(0.0, self._out_until - self._now()) if self._out_until else 0.0

    def refused(self, claims: Sequence[Claim]) -> list[bool] | None:
        """Which of these presses, which have come by now, are refused as sold out; None: none of them."""
        now = self._now()
        if now >= self._last_end or self._epoch < self._min_epoch():
            return None
        found = [self._is_refused(claim, now) for claim in claims]
        count = sum(found)
        if not count:
            return None
        self._count(count)
        self._told(count)
        return found

    def _is_refused(self, claim: Claim, now: float) -> bool:
        if claim.key is not None or claim.code is not None or claim.member in self._members:
            return False
        wish = claim.allocation, claim.quantity, claim.tier
        if now >= self._ends.get(wish, 0.0):
            return False
        if now >= self._renew[wish]:  # one asks the gate, and with it for the next lease
            self._renew[wish] = self._ends[wish]
            return False
        return True

    def heard(self, began: float, drop: Drop, claims: Sequence[Claim], decided: Decisions) -> None:
        """A call that began then has answered; it asked for a lease if `log` said so. `drop` is what was asked with."""
        if decided.out_ms:
            self._out_until = max(self._out_until, self._now() + decided.out_ms / 1_000)
        self._count(decided.results.count(SOLD_OUT))
        lease = decided.lease
        if lease is None:
            if SOLD_OUT not in decided.results:
                self._ends.clear()
            return
        if lease.log == self._log:
            self._members.update(lease.members)
        else:
            self._ends.clear()
            self._log, self._are_read = lease.log, False
        self._known = lease.length
        if decided.epoch != drop.epoch:
            self._ends.clear()
        elif not self._are_read:
            self._read()
        else:
            if decided.epoch != self._epoch or len(self._ends) > WISHES_MAX:
                self._ends.clear()
            self._epoch = decided.epoch
            ends, nobodys = began + lease.lasts_ms / 1_000, _nobodys_own(drop)
            for claim, result in zip(claims, decided.results, strict=True):
                if result == SOLD_OUT and claim.key is None and claim.code is None and nobodys(claim.allocation):
                    wish = claim.allocation, claim.quantity, claim.tier
                    self._ends[wish], self._renew[wish] = ends, ends - LEASE_S / 2
                    self._last_end = max(self._last_end, ends)

    def _read(self) -> None:
        """Read who has something, once for each log: who comes after its beginning is in it."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_members(self._log))

    async def _read_members(self, log: str) -> None:
        try:
            members = await self._gate.members(self._drop_id)
            if log == self._log:
                self._members |= members
                self._are_read = True
        except Unavailable:
            pass  # the next lease begins anew
        finally:
            self._reading = None

    def _count(self, refused: int) -> None:
        """How many were refused in this stretch of `LEASE_S`, and in the one before."""
        now = self._now()
        if now - self._since >= LEASE_S:
            self._refused_before = self._refused if now - self._since < 2 * LEASE_S else 0
            self._since, self._refused = now, 0
        self._refused += refused


def _nobodys_own(drop: Drop) -> Callable[[str | None], bool]:
    """Whether `sold_out` of that allocation (None: of the drop) says the same to everybody of one tier."""
    by_name: dict[str | None, bool] = {
        a.id: isinstance(a.access, Everyone | Tier) for a in drop.allocations if not isinstance(a.access, Fcode)
    }
    by_name[None] = all(by_name.values())
    return lambda name: by_name.get(name, False)
