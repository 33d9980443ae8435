"""What the auditor says: checks with their counts and first contradictions; and why it could not look."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

US: Final = 1_000_000
"""Microseconds in a second: times of the ledger are Unix time in whole microseconds."""
_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Unreadable(Exception):
    """A store could not be looked into; the sentence says which, and why."""


class UnknownDrop(Exception):
    """The ledger has no drop of that id."""


class BadJournal(Exception):
    """A journal cannot be read; the sentence names file and line."""


class Check(msgspec.Struct, frozen=True):
    """One line of the audit: what it asserts, what was looked at, and the first contradiction if it does not hold.

    The first one is the earliest of the `contradictions`. `judged` False: it could not be told, and `found` says why.
    """

    invariant: str
    line: str
    found: str
    contradictions: int = 0
    contradiction: str | None = None
    judged: bool = True


class Balance(msgspec.Struct, frozen=True):
    """Where an allocation's units are, read out of the stores. None: the gate is not there to be asked."""

    id: str
    quantity: int
    available: int | None
    pending: int | None
    held: int
    confirmed: int
    balanced: bool


class LogLine(msgspec.Struct, frozen=True):
    """A line of the audit log."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole audit of a drop. `waited_s`: how long it took until nothing moved, or the time that was allowed."""

    drop: str
    at: datetime
    waited_s: float
    at_rest: bool
    balance: list[Balance]
    checks: list[Check]
    notes: list[str]
    log: list[LogLine]
    journal_lines: int | None

    @property
    def contradiction(self) -> str | None:
        """The first contradiction in the order of the invariants; None: there is none."""
        wrong = (c for c in self.checks if c.contradiction is not None)
        return next((f"{c.invariant}: {c.line}: {c.contradiction}" for c in wrong), None)

    @property
    def balanced(self) -> bool:
        """Whether every unit has its place."""
        return all(b.balanced for b in self.balance)


class Look:
    """A check under way: counts contradictions, and keeps the earliest."""

    __slots__ = ("_at", "_count", "_first", "_invariant", "_line")

    def __init__(self, invariant: str, line: str) -> None:
        self._invariant = invariant
        self._line = line
        self._count = 0
        self._at = float("inf")
        self._first: str | None = None

    def wrong(self, text: str, at: float = 0.0) -> None:
        """Something contradicts; `at` is when, on whatever clock all of this check's times are."""
        self._count += 1
        if at < self._at or self._first is None:
            self._at, self._first = at, text

    @property
    def true(self) -> bool:
        """Whether nothing has contradicted so far."""
        return self._count == 0

    def done(self, found: str, *, judged: bool = True) -> Check:
        """The check's line. What was contradicted is judged."""
        return Check(self._invariant, self._line, found, self._count, self._first, judged or self._count > 0)


def unjudged(invariant: str, line: str, why: str) -> Check:
    """A check that could not be made."""
    return Check(invariant, line, why, judged=False)


def moment(us: float) -> datetime:
    """A time of the ledger for people."""
    return _UNIX_EPOCH + timedelta(microseconds=us)


def us_of(when: datetime) -> int:
    """A moment as the ledger's times are counted here."""
    return (when - _UNIX_EPOCH) // timedelta(microseconds=1)


def clock(us: float) -> str:
    """A time of the ledger in a sentence."""
    return moment(us).isoformat().replace("+00:00", "Z")


def heard(unix_s: float) -> str:
    """A time of the journal in a sentence."""
    return clock(round(unix_s * US))


def uuid_text(raw: bytes) -> str:
    """An id as everybody writes it."""
    h = raw.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def uuid_bytes(text: str) -> bytes | None:
    """An id in one spelling, however it is written; None when it is none."""
    try:
        raw = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        return None
    return raw if len(raw) == 16 else None  # noqa: PLR2004 -- a UUID's bytes


def count(number: int, one: str, many: str | None = None) -> str:
    """`1 unit`, `1,200 units`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
