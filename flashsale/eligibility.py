"""Who may take from an allocation: the rules in sentences, and the gate's compact form of a list of members.

Pure: no client, no clock.

The gate holds the eligible members of a snapshot as one hash. A field is a thousand of member ids: the decimal digits
of the id without the last three (`""` below 1000). Its value tells which of that thousand are eligible by their last
three digits, `lo`, in the shorter of two forms, told apart by the first byte:

- `b`, then a bitmap: `lo` is bit `1 << (lo % 8)` of byte `1 + lo // 8`; zero bytes at the end are left out;
- `s`, then the `lo`s in ascending order, two bytes each, highest byte first.

Dense ids cost about a bit each that way, ids scattered over 63 bits one small field each. The field `#` holds the
number of the other fields: without it, or with another number, the hash is half a copy and decides nothing.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final, assert_never

import msgspec

from flashsale.domain import MEMBER_MAX, Access, Everyone, Fcode, Points, Tier

SENTINEL_FIELD: Final = "#"
FIELDS_PER_PART_MAX: Final = 2_000
LO_END: Final = 1_000

_BITMAP: Final = ord("b")
_LIST: Final = ord("s")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Eligible(msgspec.Struct, frozen=True):
    """The access rule lets the member in."""


class NotEligible(msgspec.Struct, frozen=True):
    """The access rule keeps the member out; `detail` is a sentence for the member."""

    detail: str


def judge(
    access: Access, *, tier: int, points: int | None = None, cutoff: datetime | None = None
) -> Eligible | NotEligible:
    """Tell whether the rule lets a member in, and if not, why.

    `tier` is the one in the member's token. For the rule `points`, `points` is the member's entry in the rule's
    snapshot (None: no entry) and `cutoff` the snapshot's, in the zone in which its day is to be told.
    """
    match access:
        case Everyone():
            return Eligible()
        case Points(at_least=at_least):
            return _judge_points(points, at_least, cutoff)
        case Tier(at_least=at_least) if tier >= at_least:
            return Eligible()
        case Tier(at_least=at_least):
            return NotEligible(f"Your tier is {tier}; this sale asks for tier {at_least} or higher.")
        case Fcode():
            return NotEligible("This sale asks for an F-code: send yours with the reservation.")
        case _:
            assert_never(access)


def _judge_points(points: int | None, at_least: int, cutoff: datetime | None) -> Eligible | NotEligible:
    day = "at the cut-off" if cutoff is None else f"on {cutoff.day} {_MONTHS[cutoff.month - 1]} {cutoff.year}"
    if points is None:
        asked = "an entry in it" if at_least == 0 else _count(at_least)
        return NotEligible(f"You were not in the points list {day}; this sale asks for {asked}.")
    if points >= at_least:
        return Eligible()
    return NotEligible(f"You had {_count(points)} {day}; this sale asks for {at_least}.")


def _count(points: int) -> str:
    return "1 point" if points == 1 else f"{points} points"


def gate_field(member: int) -> tuple[str, int]:
    """Split a member id into the gate's field and `lo`, the last three digits as a number."""
    if not 1 <= member <= MEMBER_MAX:
        raise ValueError(f"a member id is from 1 to {MEMBER_MAX}, not {member}")
    thousand, lo = divmod(member, LO_END)
    return (str(thousand) if thousand else "", lo)


def encode_chunk(los: Iterable[int]) -> bytes:
    """Encode the eligible members of one thousand, given by their last three digits, as the field's value."""
    members = sorted(set(los))
    if not members or members[0] < 0 or members[-1] >= LO_END:
        raise ValueError(f"a chunk holds numbers from 0 to {LO_END - 1}, and at least one")
    bitmap_bytes = members[-1] // 8 + 1
    if 2 * len(members) < bitmap_bytes:
        return bytes([_LIST]) + b"".join(lo.to_bytes(2, "big") for lo in members)
    bits = 0
    for lo in members:
        bits |= 1 << lo
    return bytes([_BITMAP]) + bits.to_bytes(bitmap_bytes, "little")


def contains(value: bytes, lo: int) -> bool:
    """Tell whether the field's value holds the member with these last three digits."""
    if value[0] == _BITMAP:
        byte = 1 + lo // 8
        return byte < len(value) and bool(value[byte] & (1 << (lo % 8)))
    wanted = lo.to_bytes(2, "big")
    return any(value[at : at + 2] == wanted for at in range(1, len(value), 2))
