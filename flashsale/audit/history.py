"""What was in force when: pauses, windows and quantities, rebuilt from the audit log; and how many units were free.

What the log does not tell (a drop set up without its body in the log) is unknown for that time, and not judged.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from datetime import datetime
from heapq import merge
from typing import Any, Final

import msgspec

from flashsale.audit.facts import Act, Ledger
from flashsale.audit.report import clock, us_of, uuid_bytes, uuid_text

FOREVER: Final = 1 << 62
_FIELDS: Final = ("quantity", "opens_at", "closes_at")


class Steps:
    """A value that changes at known times; None where it is not known."""

    def __init__(self, value: int | None) -> None:
        self._at = [-FOREVER]
        self._values: list[int | None] = [value]

    def step(self, at: int, value: int | None) -> None:
        """From `at` on it is `value`; later steps come later."""
        self._at.append(at)
        self._values.append(value)

    def at(self, when: int) -> int | None:
        """What it was then."""
        return self._values[bisect_right(self._at, when) - 1]

    @property
    def last(self) -> int | None:
        """What it is in the end."""
        return self._values[-1]

    @property
    def all(self) -> list[int] | None:
        """Everything that it ever was; None when some of it is not known."""
        known = [value for value in self._values if value is not None]
        return known if len(known) == len(self._values) else None

    def changes(self) -> Iterator[tuple[int, int | None]]:
        """When it became what."""
        return zip(self._at, self._values, strict=True)


class History(msgspec.Struct, frozen=True):
    """What was in force when, by the ledger's clock; `unexplained`: what the tables say and the log does not."""

    paused: list[tuple[int, int]]
    closed: int | None
    quantity: dict[str, Steps]
    opens: dict[str, Steps]
    closes: dict[str, Steps]
    unexplained: list[str]


def history_of(ledger: Ledger) -> History:
    """Go through the audit log, oldest first."""
    steps = _first(ledger)
    paused, closed = _switches(ledger.log)
    for act in ledger.log:
        if act.action == "allocation.edit":
            _edit(steps, act)
        for name, change in _moves(ledger, act):
            was = steps["quantity"][name].last
            steps["quantity"][name].step(act.at, None if was is None else was + change)
    is_paused = bool(paused) and paused[-1][1] == FOREVER
    unexplained = []
    for what, said, logged in (
        ("paused", ledger.drop.paused, is_paused),
        ("closed", ledger.drop.closed, closed is not None),
        ("refusing its F-codes", ledger.drop.own_codes_stopped, _codes_stopped(ledger.log)),
    ):
        if said != logged:
            unexplained.append(f"the drop is {'' if said else 'not '}{what}, and the log says otherwise")
    for field in _FIELDS:
        for name, found in steps[field].items():
            is_now = _now(ledger, name, field)
            if found.last is not None and found.last != is_now:
                shown = (is_now, found.last) if field == "quantity" else (clock(is_now), clock(found.last))
                unexplained.append(f"{field} of {name} is {shown[0]}, and the log accounts for {shown[1]}")
    return History(paused, closed, steps["quantity"], steps["opens_at"], steps["closes_at"], unexplained)


def _switches(log: list[Act]) -> tuple[list[tuple[int, int]], int | None]:
    """From when until when the drop was paused, and when it was closed."""
    paused: list[tuple[int, int]] = []
    closed: int | None = None
    for act in log:
        runs = not paused or paused[-1][1] != FOREVER
        if (act.action == "drop.pause" and runs) or (act.action == "drop.create" and act.detail.get("hold")):
            paused.append((act.at, FOREVER))
        elif act.action == "drop.resume" and not runs:
            paused[-1] = (paused[-1][0], act.at)
        elif act.action == "drop.close" and closed is None:
            closed = act.at
    return paused, closed


def _codes_stopped(log: list[Act]) -> bool:
    """Whether the drop's own switch of its F-codes is off in the end."""
    own = [act.action for act in log if act.action in {"fcodes.stop", "fcodes.start"} and not act.detail.get("all")]
    return bool(own) and own[-1] == "fcodes.stop"


def _now(ledger: Ledger, allocation: str, field: str) -> int:
    found = ledger.drop.allocations[allocation]
    return {"quantity": found.quantity, "opens_at": found.opens, "closes_at": found.closes}[field]


def _first(ledger: Ledger) -> dict[str, dict[str, Steps]]:
    """What each allocation began with: from the log, or, where nothing has set it since, from what it is now."""
    told: dict[str, dict[str, Any]] = {}
    edited: set[tuple[str, str]] = set()
    moved = dict.fromkeys(ledger.drop.allocations, 0)
    for act in ledger.log:
        name = act.subject.partition("/")[2]
        match act.action:
            case "drop.create":
                told |= {a["id"]: a for a in act.detail.get("allocations", [])}
            case "allocation.create":
                told[name] = act.detail
            case "allocation.edit":
                edited |= {(name, field) for field in act.detail}
        for place, change in _moves(ledger, act):
            moved[place] += change
    first: dict[str, dict[str, Steps]] = {field: {} for field in _FIELDS}
    for name in ledger.drop.allocations:
        for field in _FIELDS:
            value = _value(told.get(name, {}).get(field))
            if value is None and (name, field) not in edited:
                value = _now(ledger, name, field) - (moved[name] if field == "quantity" else 0)
            first[field][name] = Steps(value)
    return first


def _moves(ledger: Ledger, act: Act) -> list[tuple[str, int]]:
    """How a return, a revocation or a move changed the quantities of allocations."""
    own, to, units = act.subject.partition("/")[2], act.detail.get("to"), 0
    if act.action == "reservation.return":
        raw = uuid_bytes(str(act.detail.get("reservation")))
        row = ledger.rows.get(raw) if raw is not None else None
        units = 0 if row is None else row.quantity
        to = (to or own) if act.detail.get("restock", True) else None
    elif act.action == "fcodes.revoke" and to:
        units = act.detail.get("freed", 0)
    elif act.action == "allocation.move":
        own, units = str(act.detail.get("from")), act.detail.get("count", 0)
    if to == own or not units:
        return []
    return [(name, change) for name, change in ((own, -units), (to, units)) if name in ledger.drop.allocations]


def _value(told: object) -> int | None:
    if isinstance(told, str):
        return us_of(datetime.fromisoformat(told))
    return told if isinstance(told, int) else None


def _edit(steps: dict[str, dict[str, Steps]], act: Act) -> None:
    name = act.subject.partition("/")[2]
    for field in _FIELDS:
        if field in act.detail and name in steps[field]:
            steps[field][name].step(act.at, _value(act.detail[field]))


class Free:
    """When an allocation, once it was open, had units that nobody held, as the ledger has it: spans, in order.

    A span ends, and another begins, when a unit is sold.
    """

    def __init__(self, opened: int) -> None:
        self._from = opened
        self._sold = False
        self._begins = array("q")
        self._ends = array("q")

    def add(self, begin: int, end: int) -> None:
        """It had some from `begin` until `end`; spans that touch are one, unless a unit was sold between them."""
        begin = max(begin, self._from)
        if begin >= end:
            return
        if self._ends and self._ends[-1] >= begin and not self._sold:
            self._ends[-1] = end
        else:
            self._begins.append(begin)
            self._ends.append(end)
        self._sold = False

    def sold(self) -> None:
        """A unit was sold."""
        self._sold = True

    def span(self, when: int) -> tuple[int, int] | None:
        """The span in which that time lies."""
        at = bisect_right(self._begins, when) - 1
        return (self._begins[at], self._ends[at]) if at >= 0 and when < self._ends[at] else None

    def longest(self) -> int:
        """The longest span, microseconds."""
        return max((e - b for b, e in zip(self._begins, self._ends, strict=True)), default=0)


class Over(msgspec.Struct, frozen=True):
    """That more was held than there was."""

    at: int
    taken: int
    quantity: int
    row: str


def replay_units(ledger: Ledger, history: History) -> tuple[dict[str, Free], dict[str, list[Over]], int]:
    """Replay every hold and every end of one, in order.

    Returns when each allocation had free units, when it held more than its quantity, and how many steps there were.
    """
    free: dict[str, Free] = {}
    over: dict[str, list[Over]] = {}
    events: dict[str, list[tuple[int, int, bytes]]] = {name: [] for name in ledger.drop.allocations}
    steps = 0
    for row in ledger.rows.values():
        if row.state != "void" and row.allocation in events:
            events[row.allocation].append((row.created, row.quantity, row.id))
            if row.ended is not None:
                events[row.allocation].append((row.ended, -row.quantity, row.id))
    for name, found in events.items():
        found.sort()  # at one instant, ends come first: they are negative
        steps += len(found)
        opened = max([ledger.drop.created, *(history.opens[name].all or [])])
        free[name], over[name] = _replay(found, history.quantity[name], ledger, opened)
    return free, over, steps


def _replay(
    events: list[tuple[int, int, bytes]], quantity: Steps, ledger: Ledger, opened: int
) -> tuple[Free, list[Over]]:
    free, over = Free(opened), list[Over]()
    taken, since, at_most = 0, ledger.drop.created, quantity.at(ledger.drop.created)
    changes = [(at, 0, b"") for at, _ in quantity.changes() if at > ledger.drop.created]
    for at, units, row in merge(changes, events, [(ledger.now, 0, b"")]):
        if at_most is not None and taken < at_most:
            free.add(since, at)
        since, at_most = at, quantity.at(at)
        taken += units
        if units > 0:
            free.sold()
        if at_most is not None and units > 0 and taken > at_most:
            over.append(Over(at, taken, at_most, uuid_text(row)))
    return free, over
