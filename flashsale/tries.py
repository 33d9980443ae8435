"""The limit on failed tries of F-codes: counted in this process, shared with the others a few times a second.

A flood of forged codes must cost no call to a store each. So a failure only changes a few numbers here, and every
`exchange_every_s` one call tells the store what was counted since the last one and brings everybody's totals back.

**Windows.** A subject (a member, an address, or all of them together) may fail so often within a window. It begins
with the first failure that the store hears of, lasts `window_s` by the store's clock whatever follows, and then the
next failure begins another. Fixed windows let up to twice the limit through around a border; against codes of which
one guess in 2^50 succeeds that is nothing, and they cost one number each.

**Several processes** enforce one limit: each knows the total after its next exchange. Until then each lets through
what its own count allows, so that one that never met the subject before is late by one exchange.

**Faults.** While the store is away each process enforces the limit alone, and keeps what it could not tell. A call
whose reply was lost may have had its effect: those failures count twice, which is too strict for one window. What the
store has forgotten (it was emptied) is forgotten here with the next exchange, and counting begins anew.

**Memory.** Of members and of addresses `subjects_max` each are known at most; beyond it the oldest is forgotten first.
They are bounded apart, so that a flood from many addresses pushes no member out.
"""

import asyncio
import contextlib
import ipaddress
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import lru_cache
from itertools import islice
from typing import Final

import msgspec

from flashsale.errors import Unavailable

SUBJECTS_PER_CALL_MAX: Final = 500
"""One call holds up the store for two milliseconds or so then; more subjects wait for the next exchange."""
LOOKED_AT_MAX: Final = 5_000
"""So many are looked at, or forgotten, in one exchange: a few ms in which this process answers nobody."""
NETWORK_BITS: Final = 64
"""What one subscriber of IPv6 is given at least: an attacker has all addresses of it."""
NO_LIMIT: Final = 2**53
_FORGOTTEN: Final = float("-inf")

Share = Callable[[list[tuple[str, int]], int], Awaitable[list[tuple[int, int]]]]
"""(subject, failures since the last exchange; 0 only asks) of each, and the window in ms → everybody's total within
the subject's window and how long that still lasts, ms; (0, 0) when it has none."""


class Blocked(msgspec.Struct, frozen=True):
    """Who is at the limit: seconds until that ends, 0 for the one that is not.

    The caller treats the two differently. A member at the limit is refused unread: the account is the attacker's own.
    From an address at the limit a genuine code still passes, because honest holders may sit behind the same address
    (a campus, a carrier's gateway) and must not be locked out by an attacker there; it gives nothing away, as only one
    guess in 2^50 is genuine. Only what would fail anyway is answered `rate_limited` then.
    """

    member_s: float
    address_s: float


class Exchange(msgspec.Struct, frozen=True):
    """What one exchange did: subjects asked for, failures told, subjects that are left for the next one."""

    subjects: int
    failures: int
    left: int


class _Subject:
    """Who fails: its count within the window, and how much of that the store does not know yet.

    `full`: the store knows that the limit is reached, so that nothing changes until the window ends.
    """

    __slots__ = ("count", "ends_s", "full", "key", "kind", "unsent")

    def __init__(self, kind: "_Kind", key: int | str, ends_s: float) -> None:
        self.kind = kind
        self.key = key
        self.ends_s = ends_s
        self.count = 0
        self.unsent = 0
        self.full = False


class _Kind:
    """All subjects of one kind, oldest window first; `letter` begins their names in the store."""

    __slots__ = ("known", "letter", "limit")

    def __init__(self, letter: str, limit: int) -> None:
        self.letter = letter
        self.limit = limit
        # Not a plain dict, which takes longer to find its first item the more were deleted before it.
        self.known: OrderedDict[int | str, _Subject] = OrderedDict()


@lru_cache(maxsize=4_096)
def _network(address: str) -> str:
    """The network of an IPv6 address, or the IPv4 address that it stands for; other text as it is."""
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), NETWORK_BITS), strict=False).network_address)


def subject_of(address: str) -> str:
    """What an address counts as: IPv4 by itself (also when it is written as IPv6), IPv6 by its /64."""
    return _network(address) if ":" in address else address


class Tries:
    """Failed tries of this process and, as of the last exchange, of all.

    `now` is a monotonic clock, s. `alert(failures)` is called once a window, in each process that fails too, when all
    members together fail more than `alert_max` times: an attack, or a batch that was printed wrongly. It blocks nobody:
    a limit for all of them would let an attacker lock out every honest holder.
    """

    def __init__(
        self,
        *,
        share: Share,
        now: Callable[[], float],
        member_max: int,
        address_max: int,
        window_s: float = 60.0,
        subjects_max: int = 100_000,
        exchange_every_s: float = 0.3,
        alert_max: int = NO_LIMIT,
        alert: Callable[[int], None] = lambda _failures: None,
    ) -> None:
        self._share = share
        self._now = now
        self._window_s = window_s
        self._subjects_max = subjects_max
        self._exchange_every_s = exchange_every_s
        self._alert_max = alert_max
        self._alert = alert
        self._members = _Kind("m", member_max)
        self._addresses = _Kind("a", address_max)
        self._service = _Kind("all", NO_LIMIT)
        self._unsent: dict[_Subject, None] = {}
        self._near: dict[_Subject, None] = {}
        self._alerted: _Subject | None = None

    def blocked_s(self, member: int, address: str | None) -> Blocked | None:
        """Who of the two is at the limit, and for how long; None when neither is."""
        member_s = self._left_s(self._members.known.get(member))
        address_s = 0.0 if address is None else self._left_s(self._addresses.known.get(subject_of(address)))
        return Blocked(member_s, address_s) if member_s or address_s else None

    def _left_s(self, found: _Subject | None) -> float:
        if found is None or found.count < found.kind.limit:
            return 0.0
        return max(0.0, found.ends_s - self._now())

    def failed(self, member: int, address: str | None) -> None:
        """Count one failed try; which those are, the caller decides. `address` None: it is not known."""
        now_s = self._now()
        self._count(self._members, member, now_s)
        if address is not None:
            self._count(self._addresses, subject_of(address), now_s)
        self._check_alert(self._count(self._service, "", now_s))

    def _count(self, kind: _Kind, key: int | str, now_s: float) -> _Subject:
        found = kind.known.get(key)
        if found is None or found.ends_s <= now_s:
            found = self._open(kind, key, found, now_s)
        found.count += 1
        if not found.full:
            found.unsent += 1
            self._unsent[found] = None
        return found

    def _open(self, kind: _Kind, key: int | str, ended: _Subject | None, now_s: float) -> _Subject:
        if ended is not None:
            self._forget(ended)
        elif len(kind.known) >= self._subjects_max:
            self._forget(next(iter(kind.known.values())))
        found = kind.known[key] = _Subject(kind, key, now_s + self._window_s)
        return found

    def _forget(self, subject: _Subject) -> None:
        del subject.kind.known[subject.key]
        subject.ends_s = _FORGOTTEN
        self._unsent.pop(subject, None)
        self._near.pop(subject, None)

    def _check_alert(self, service: _Subject) -> None:
        if service.count > self._alert_max and self._alerted is not service:
            self._alerted = service
            self._alert(service.count)

    @property
    def failures_in_window(self) -> int:
        """Failures of all members in the window that this process fails in: everybody's, as of the last exchange."""
        found = self._service.known.get("")
        return found.count if found is not None and found.ends_s > self._now() else 0

    @property
    def known(self) -> int:
        """How many members and addresses this process remembers."""
        return len(self._members.known) + len(self._addresses.known)

    async def run(self) -> None:
        """Exchange for ever. A store that is away is asked again next time."""
        while True:
            await asyncio.sleep(self._exchange_every_s)
            with contextlib.suppress(Unavailable):
                await self.run_once()

    async def run_once(self) -> Exchange | None:
        """Tell what is new, ask again for who is near the limit: one call at most, none (None) when there is neither.

        Raises what `share` raises; what was not told is kept for the next time.
        """
        self._forget_ended()
        told = [(subject, subject.unsent) for subject in self._due()]
        if not told:
            return None
        for subject, _ in told:
            subject.unsent = 0
            self._unsent.pop(subject, None)
            self._near.pop(subject, None)
        names = [(f"{subject.kind.letter}:{subject.key}", count) for subject, count in told]
        try:
            totals = await self._share(names, round(self._window_s * 1_000))
        except BaseException:
            self._keep(told)
            raise
        now_s = self._now()
        for (subject, _), (total, left_ms) in zip(told, totals, strict=True):
            if subject.ends_s != _FORGOTTEN:
                self._adopt(subject, total, left_ms, now_s)
        return Exchange(len(told), sum(count for _, count in told), len(self._unsent))

    def _due(self) -> list[_Subject]:
        """The service's total, then who failed since the last exchange, oldest first, then who is near the limit."""
        chosen = dict.fromkeys(subject for subject in self._service.known.values() if subject in self._unsent)
        now_s = self._now()
        for waiting in (self._unsent, self._near):
            for subject in islice(waiting, LOOKED_AT_MAX):
                if len(chosen) == SUBJECTS_PER_CALL_MAX:
                    break
                if subject.ends_s > now_s:
                    chosen[subject] = None
        return list(chosen)

    def _keep(self, told: list[tuple[_Subject, int]]) -> None:
        for subject, count in told:
            if subject.ends_s != _FORGOTTEN:
                subject.unsent += count
                self._unsent[subject] = None

    def _adopt(self, subject: _Subject, total: int, left_ms: int, now_s: float) -> None:
        """What the store says holds, and what failed since it was asked comes on top."""
        subject.count = total + subject.unsent
        limit = subject.kind.limit
        subject.full = total >= limit
        if left_ms > 0:
            subject.ends_s = now_s + left_ms / 1_000
        elif subject.unsent == 0:
            self._forget(subject)
            return
        if not subject.full and 2 * subject.count >= limit:
            self._near[subject] = None
        if subject.kind is self._service:
            self._check_alert(subject)

    def _forget_ended(self) -> None:
        now_s = self._now()
        for kind in (self._members, self._addresses, self._service):
            for _ in range(LOOKED_AT_MAX):
                oldest = next(iter(kind.known.values()), None)
                if oldest is None or oldest.ends_s > now_s:
                    break
                self._forget(oldest)
