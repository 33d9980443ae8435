"""Who may have a unit (I5, I7, I8): the limit at every instant, the snapshot's points, the keys."""

from typing import Final

from flashsale.audit.facts import Gate, Ledger, Row
from flashsale.audit.ledger import BITMAP_BYTES
from flashsale.audit.report import Check, Look, clock, count, unjudged
from flashsale.audit.units import named

_LIMIT: Final = "no member over the limit, at any instant"
_LET_IN: Final = "who has a unit was let in by the snapshot"
_LIST: Final = "the gate lets in whom the snapshot lets in"

Eligible = dict[str, dict[int, bytes]]
"""By allocation with a points rule: thousand of the member's id → bitmap."""
Lists = dict[tuple[str, int], dict[bytes, bytes]]
"""By allocation and stripe: the fields of the gate's hash."""


def limit(ledger: Ledger) -> Check:
    """I5: units of a member that are held, confirmed, or returned and still counting; and a slot for each."""
    look, per_member = Look("I5", _LIMIT), ledger.drop.per_member
    first: dict[int, Row] = {}
    several: dict[int, list[Row]] = {}
    for row in ledger.rows.values():
        if row.state == "void":
            continue
        other = first.setdefault(row.member, row)
        if other is not row:
            several.setdefault(row.member, [other]).append(row)
        if not 1 <= row.slot <= per_member or row.quantity > per_member:
            look.wrong(
                f"{named(row)} has {row.quantity} units and slot {row.slot}, {per_member} allowed a member", row.created
            )
    for member, rows in several.items():
        rows.sort(key=lambda row: row.created)
        active: list[Row] = []
        for row in rows:
            active = [a for a in active if a.until is None or a.until > row.created]
            units = sum(a.quantity for a in active) + row.quantity
            if units > per_member:
                others = ", ".join(named(a) for a in active)
                look.wrong(
                    f"member {member} was given {named(row)} at {clock(row.created)} and had {others} already: "
                    f"{units} units, {per_member} allowed",
                    row.created,
                )
            elif any(a.slot == row.slot for a in active):
                look.wrong(f"{named(row)} has slot {row.slot}, as another of that member has", row.created)
            active.append(row)
    return look.done(f"{count(len(first), 'member')}, {len(several):,} of them with more than one reservation")


def has(eligible: dict[int, bytes], member: int) -> bool:
    """Whether a list has that member."""
    bitmap = eligible.get(member // 1000)
    lo = member % 1000
    return bitmap is not None and bool(bitmap[lo >> 3] & 1 << (lo & 7))


def let_in(ledger: Ledger, eligible: Eligible) -> Check:
    """I7: each reservation in an allocation with a points rule, whatever became of it."""
    look, judged, tiers = Look("I7", _LET_IN), 0, 0
    for row in ledger.rows.values():
        rule = ledger.drop.allocations.get(row.allocation)
        if rule is None or row.state == "void":
            continue
        tiers += rule.kind == "tier"
        if rule.kind == "points":
            judged += 1
            if not has(eligible[row.allocation], row.member):
                look.wrong(f"{named(row)}: {lacks(rule.snapshot, rule.at_least)}", row.created)
        if (rule.kind == "fcode") != (row.code is not None):
            with_code = "shows no F-code" if row.code is None else "shows an F-code"
            look.wrong(f"{named(row)} {with_code}, and the allocation is for {rule.kind}", row.created)
    by_token = f"; {tiers:,} by a tier, which only their tokens knew" if tiers else ""
    return look.done(f"{count(judged, 'reservation')} by points{by_token}")


def lacks(snapshot: str | None, at_least: int | None) -> str:
    """Why a member is not let in."""
    return f"the member is not among those with {at_least} points or more in snapshot {snapshot}"


def same_list(ledger: Ledger, eligible: Eligible, gate: Gate, lists: Lists) -> Check:
    """I7: the gate's lists, member by member."""
    if lists and not gate.armed:
        return unjudged("I7", _LIST, "the gate is not armed for the ledger's epoch")
    look, members = Look("I7", _LIST), 0
    for (allocation, stripe), fields in lists.items():
        rule = ledger.drop.allocations[allocation]
        wanted = eligible[allocation]
        told = fields.get(b"#")
        found = {int(name or b"0"): bitmap(value) for name, value in fields.items() if name != b"#"}
        members += sum(int.from_bytes(each).bit_count() for each in wanted.values())
        if told != str(len(found)).encode():
            look.wrong(f"the list of {allocation} in stripe {stripe} says {told!r} and has {len(found)} fields")
        for thousand in wanted.keys() | found.keys():
            by_snapshot, by_gate = wanted.get(thousand, _NOBODY), found.get(thousand, _NOBODY)
            if by_snapshot != by_gate:
                differ = int.from_bytes(by_snapshot, "little") ^ int.from_bytes(by_gate, "little")
                member = thousand * 1000 + (differ & -differ).bit_length() - 1
                lets = "lets in" if has({thousand: by_gate}, member) else "does not let in"
                look.wrong(
                    f"member {member} in {allocation}: the gate {lets} who, by {rule.at_least} points in "
                    f"{rule.snapshot}, is {'' if has(wanted, member) else 'not '}let in",
                    member,
                )
    return look.done(f"{count(members, 'member')} in {count(len(lists), 'list')}")


_NOBODY: Final = bytes(BITMAP_BYTES)


def bitmap(value: bytes) -> bytes:
    """A field of the gate's list as a bitmap of a thousand members."""
    if value[:1] == b"b":
        return value[1:].ljust(BITMAP_BYTES, b"\0")
    bits = bytearray(BITMAP_BYTES)
    for at in range(1, len(value), 2):
        lo = int.from_bytes(value[at : at + 2])
        bits[lo >> 3] |= 1 << (lo & 7)
    return bytes(bits)


def keys(ledger: Ledger) -> Check:
    """I8 in the ledger: a member's key names one reservation."""
    look = Look("I8", "a key names one reservation of its member")
    for member, key, times in ledger.twice_keyed:
        look.wrong(f"{times} reservations of member {member} have the key {key!r}", member)
    keyed = sum(row.key is not None and row.state != "void" for row in ledger.rows.values())
    return look.done(f"{count(keyed, 'keyed reservation')}")
