"""Where every unit is (I1, I2): the gate's entries against the ledger's rows, and both against the quantities."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from flashsale.audit.facts import CODES_STRIPE, Entry, Gate, Ledger, Row
from flashsale.audit.history import Over
from flashsale.audit.report import Balance, Check, Look, clock, count, unjudged, uuid_text

_SUM: Final = "what is left and what is held make the quantity"
_SAME: Final = "gate and ledger have the same reservations"
_COUNTER: Final = "the ledger's counter is what is held, and no more than there is"
_UNARMED: Final = "the gate is not armed for the ledger's epoch"
_EVER: Final = "no more was held than there was, at any instant"


def named(row: Row) -> str:
    """A reservation in a sentence."""
    return f"{uuid_text(row.id)} of member {row.member} in {row.allocation}"


class Matching:
    """Goes through the gate's entries once, and finds each one's row."""

    def __init__(self, ledger: Ledger, gate: Gate) -> None:
        self._ledger = ledger
        self._gate = gate
        self._pending = {(stripe, p.id_text, p.member) for stripe, head in gate.before.items() for p in head.pending}
        self._twice: set[tuple[int, bytes | None]] = set()
        self._same = Look("I1", _SAME)

    def take(self, entries: Iterable[Entry | str]) -> None:
        """More entries of the gate."""
        gate, rows = self._gate, self._ledger.rows
        for entry in entries:
            if isinstance(entry, str):
                self._same.wrong(entry)
                continue
            gate.entries += 1
            if entry.allocation and not entry.elsewhere:
                gate.entry_units[entry.allocation] = gate.entry_units.get(entry.allocation, 0) + entry.quantity
            row = rows.get(entry.id) if entry.id is not None else None
            counts = row is not None and (row.live or (row.keeps_slot and not entry.allocation))
            if row is not None and counts and entry.stripe in row.places:
                row.entries += 1
                self._compare(entry, row)
            else:
                self._under_way(entry, row)

    def _compare(self, entry: Entry, row: Row) -> None:
        allocation = "" if row.keeps_slot else row.allocation
        apart = entry.stripe not in {row.stripe, *(row.places if row.keeps_slot else ())}
        in_ledger = (row.member, allocation, row.quantity, row.slot, row.key or "", row.payload, row.code, apart)
        in_gate = (
            entry.member, entry.allocation, entry.quantity, entry.slot, entry.key, entry.payload, entry.code,
            entry.elsewhere,
        )  # fmt: skip
        if len(row.places) > 1:
            if (entry.stripe, entry.id) in self._twice:
                self._same.wrong(f"{named(row)} has two entries on stripe {entry.stripe} of the gate", row.created)
            self._twice.add((entry.stripe, entry.id))
        if in_ledger != in_gate:
            names = ("member", "allocation", "quantity", "slot", "key", "payload", "code", "unit elsewhere")
            differ = next(
                f"{n} is {g!r} in the gate and {w!r} in the ledger"
                for n, g, w in zip(names, in_gate, in_ledger, strict=True)
                if g != w
            )
            self._same.wrong(f"{named(row)}: {differ}", row.created)

    def _under_way(self, entry: Entry, row: Row | None) -> None:
        """An entry without a row that holds its unit: granted just now, or ended and on its way back."""
        pending = (entry.stripe, entry.id_text, entry.member) in self._pending
        if row is None or row.state == "void":
            allowed = pending
            why = "the ledger does not know it, and it is not pending"
        elif row.live:
            allowed = pending
            why = f"by the ledger it has nothing on stripe {entry.stripe}"
        else:
            allowed = row.released is False
            why = f"it is {row.state} since {clock(row.ended or 0)} in the ledger, and its unit never came back"
        if not allowed:
            at = 0 if row is None else row.created
            self._same.wrong(
                f"{entry.id_text} of member {entry.member} in {entry.allocation} is an entry of the gate: {why}", at
            )
            return
        if entry.elsewhere:
            return
        if entry.allocation:
            units = self._gate.pending_units
            units[entry.allocation] = units.get(entry.allocation, 0) + entry.quantity
        if entry.code is not None:
            self._gate.entry_codes.add(entry.code)

    def same(self) -> Check:
        """Each entry has its row, and each row that counts has one entry."""
        if not self._gate.armed:
            return unjudged("I1", _SAME, _UNARMED)
        live = 0
        for row in self._ledger.rows.values():
            if not (row.live or row.keeps_slot):
                continue
            live += row.live
            on_its_way = row.keeps_slot and row.released is False
            if row.entries != len(row.places) and not (on_its_way and row.entries == 0):
                have = "has no entry" if row.entries == 0 else f"has {count(row.entries, 'entry', 'entries')}"
                have += "" if len(row.places) == 1 else f", not {len(row.places)},"
                self._same.wrong(f"{named(row)} is {row.state} in the ledger, and the gate {have} of it", row.created)
        if self._gate.moved and not self._same.true:
            return unjudged("I1", _SAME, "the sale is in motion: the gate was changed while the stores were read")
        return self._same.done(f"{count(self._gate.entries, 'entry', 'entries')}, {count(live, 'live row')}")


def balance_of(ledger: Ledger, gate: Gate | None) -> list[Balance]:
    """Where every unit is; without a gate that is armed, what the ledger knows."""
    gate = gate if gate is not None and gate.armed else None
    held: dict[tuple[str, str], int] = {}
    for row in ledger.rows.values():
        if row.live:
            place = (row.allocation, row.state)
            held[place] = held.get(place, 0) + row.quantity
    found = []
    for a in ledger.drop.allocations.values():
        left = None if gate is None else available(gate, a.id)
        pending = None if gate is None else gate.pending_units.get(a.id, 0)
        in_ledger = held.get((a.id, "held"), 0), held.get((a.id, "confirmed"), 0)
        whole = left is None or (left >= 0 and left + (pending or 0) + sum(in_ledger) == a.quantity)
        balanced = whole and a.taken == sum(in_ledger) <= a.quantity
        found.append(Balance(a.id, a.quantity, left, pending, *in_ledger, balanced))
    return found


def available(gate: Gate, allocation: str) -> int | None:
    """How many units the gate has left; None where a stripe does not know."""
    left = [head.meta.get(f"n:{allocation}") for head in gate.after.values()]
    return None if None in left else sum(int(n) for n in left if n is not None)


def sums(ledger: Ledger, gate: Gate) -> Check:
    """I1 in figures, out of the gate alone: nothing is counted twice, nothing is missing."""
    if not gate.armed:
        return unjudged("I1", _SUM, _UNARMED)
    look, units = Look("I1", _SUM), 0
    for a in ledger.drop.allocations.values():
        left, held = available(gate, a.id), gate.entry_units.get(a.id, 0)
        units += a.quantity
        if left is None:
            look.wrong(f"the gate does not know how many units of {a.id} are left")
        elif left < 0 or left + held != a.quantity:
            look.wrong(f"{a.id}: {left} left and {held} in entries make {left + held} of {a.quantity} units")
    strange = sorted(gate.entry_units.keys() - ledger.drop.allocations.keys())
    if strange:
        look.wrong(f"the gate has entries in {strange[0]}, which is no allocation of this drop")
    places = count(len(ledger.drop.allocations), "allocation")
    if gate.moved and not look.true:
        return unjudged("I1", _SUM, "the sale is in motion: units changed place while the stores were read")
    return look.done(f"{places}, {count(units, 'unit')}")


def counters(ledger: Ledger) -> Check:
    """I2 now: `taken` is the sum of the live rows, and at most the quantity."""
    look, held = Look("I2", _COUNTER), dict.fromkeys(ledger.drop.allocations, 0)
    for row in ledger.rows.values():
        if row.live:
            if row.allocation not in held:
                look.wrong(f"{named(row)} is in no allocation of this drop", row.created)
                continue
            held[row.allocation] += row.quantity
    for a in ledger.drop.allocations.values():
        if a.taken != held[a.id]:
            look.wrong(f"{a.id}: {a.taken} counted as taken, and {held[a.id]} are held or confirmed")
        elif a.taken > a.quantity:
            look.wrong(f"{a.id}: {a.taken} of {a.quantity} units are held or confirmed")
    return look.done(f"{count(sum(held.values()), 'unit')} held or confirmed")


def never_over(over: dict[str, list[Over]], steps: int) -> Check:
    """I2 at every instant, out of the times at which the ledger's rows began and ended."""
    look = Look("I2", _EVER)
    for name, found in over.items():
        for one in found:
            look.wrong(
                f"{name} at {clock(one.at)}: {one.taken} of {one.quantity} units were held when {one.row} came", one.at
            )
    return look.done(f"{count(steps, 'step')} replayed")


def configuration(ledger: Ledger, gate: Gate) -> Check:
    """The gate decides by what the ledger says: limits, windows, rules, switches; units for codes are with these."""
    line = "the gate has the limits, windows and rules of the ledger"
    if not gate.armed:
        return unjudged("I10", line, _UNARMED)
    look, drop = Look("I10", line), ledger.drop
    for stripe, head in gate.after.items():
        wanted: dict[str, Any] = {
            "paused": b"1" if drop.paused else b"0",
            "closed": b"1" if drop.closed else b"0",
            "limit": str(drop.per_member).encode(),
            "order": list(drop.allocations),
        }
        for a in drop.allocations.values():
            rule: str | int = a.at_least or 0 if a.kind == "tier" else 0
            if a.kind == "fcode":
                rule = int(drop.codes_stopped)
            wanted[f"a:{a.id}"] = [-(-a.opens // 1000), a.closes // 1000, a.kind, rule]
            if a.kind == "fcode" and stripe != CODES_STRIPE:
                wanted[f"n:{a.id}"] = b"0"
        for field, value in wanted.items():
            has = head.meta.get(field)
            found = has if isinstance(value, bytes) or has is None else _unpacked(has)
            if isinstance(found, list) and len(found) == 4 and found[2] == "points":  # noqa: PLR2004 -- as above
                found[3] = 0 if str(found[3]).endswith(f":elig:{_eligible_set(ledger, field)}") else found[3]
            if found != value:
                look.wrong(f"{field} is {found!r} in the gate, stripe {stripe}, and by the ledger it is {value!r}")
    if gate.moved and not look.true:
        return unjudged("I10", line, "the sale is in motion: the gate was changed while it was read")
    return look.done(f"{count(len(drop.allocations), 'allocation')}, {count(len(gate.after), 'stripe')}")


def _eligible_set(ledger: Ledger, field: str) -> str | None:
    return ledger.drop.allocations[field.partition(":")[2]].eligible_set


def _unpacked(packed: bytes) -> object:
    try:
        return msgspec.msgpack.decode(packed)
    except msgspec.DecodeError:
        return packed
