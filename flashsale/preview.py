"""What a press would hear: the contract's verdicts by the pure rules, for any member at any moment.

Pure: no client, no clock. The gate decides by the same rules in the same order; this tells an operator beforehand, and
takes nothing.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from flashsale.domain import LIVE, Allocation, Drop, Fcode, Points, Reservation, Verdict
from flashsale.eligibility import NotEligible, judge


class Rights(msgspec.Struct, frozen=True):
    """What a points rule has to go by: the member's points in its snapshot (None: no entry), and its cut-off."""

    points: int | None
    cutoff: datetime | None


class Seen(msgspec.Struct, frozen=True):
    """What a press for one allocation would hear, and why. `opens_at` with `not_open`."""

    allocation: str
    verdict: Verdict
    detail: str
    opens_at: datetime | None = None


_CODE: Final = "It asks for an F-code; with a good one of this allocation the press goes on."


def preview(
    drop: Drop,
    *,
    at: datetime,
    tier: int,
    rights: Mapping[str, Rights],
    mine: Sequence[Reservation],
    available: Mapping[str, int] | None,
    with_code: bool,
) -> list[Seen]:
    """The verdict of one press for each allocation, in the contract's precedence.

    `rights` by snapshot, `mine` the member's reservations of this drop, `available` what the gate has left (None: it
    cannot be asked, and stock is taken to be there); `with_code`: as if a good F-code of the allocation was shown.
    """
    live = [r for r in mine if r.state in LIVE]
    used = sum(r.quantity for r in mine if r.state in LIVE or r.keeps_slot)
    seen = []
    for a in drop.allocations:
        own = next((r for r in live if r.allocation == a.id), None)
        verdict, detail = _judged(
            drop, a, at=at, tier=tier, rights=rights, own=own, used=used, available=available, with_code=with_code
        )
        seen.append(Seen(a.id, verdict, detail, a.opens_at if verdict is Verdict.NOT_OPEN else None))
    return seen


def _judged(
    drop: Drop,
    a: Allocation,
    *,
    at: datetime,
    tier: int,
    rights: Mapping[str, Rights],
    own: Reservation | None,
    used: int,
    available: Mapping[str, int] | None,
    with_code: bool,
) -> tuple[Verdict, str]:
    if own is not None and drop.per_member == 1:
        return Verdict.AGAIN, f"The member has reservation {own.id} here already, and hears of it again."
    if drop.closed or at >= a.closes_at:
        return Verdict.CLOSED, "The drop is closed." if drop.closed else "Its window is over by then."
    for_codes = isinstance(a.access, Fcode)
    if drop.paused or (drop.fcodes_stopped and for_codes):
        why = "F-codes are stopped" if not drop.paused else "it waits for its release" if drop.held else "it is paused"
        return Verdict.PAUSED, f"Nobody hears anything else: {why}."
    if not for_codes:
        known = (
            rights.get(a.access.snapshot, Rights(None, None)) if isinstance(a.access, Points) else Rights(None, None)
        )
        told = judge(a.access, tier=tier, points=known.points, cutoff=known.cutoff)
        if isinstance(told, NotEligible):
            return Verdict.NOT_ELIGIBLE, told.detail
    if at < a.opens_at:
        return Verdict.NOT_OPEN, "It is not open yet by then."
    if for_codes != with_code:
        return Verdict.FCODE_INVALID, _CODE if for_codes else "It sells without F-codes, and takes none."
    if used + 1 > drop.per_member:
        return Verdict.MEMBER_LIMIT, f"The member has {used} of {drop.per_member}."
    if available is not None and available.get(a.id, 0) < 1:
        return Verdict.SOLD_OUT, "Nothing is left just now."
    return Verdict.HELD, "The member would get a unit."
