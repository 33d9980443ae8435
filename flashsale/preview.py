"""What a press would hear: the contract's verdicts by the pure rules, for any member at any moment.

Pure: no client, no clock. The gate decides by the same rules in the same order; this tells an operator beforehand, and
takes nothing.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from flashsale.domain import LIVE, Allocation, Drop, Fcode, Points, Reservation, Tier, Verdict
from flashsale.eligibility import NotEligible, judge
from flashsale.said import Said, said


class Seen(msgspec.Struct, frozen=True):
    """What a press for one allocation would hear, and why. `opens_at` with `not_open`."""

    allocation: str
    verdict: Verdict
    detail: Said
    opens_at: datetime | None = None


_CODE: Final = said("It asks for an F-code; with a good one of this allocation the press goes on.")
_NO_CODE: Final = said("It sells without F-codes, and takes none.")


def preview(
    drop: Drop,
    *,
    at: datetime,
    tier: int,
    points: Mapping[str, int],
    mine: Sequence[Reservation],
    available: Mapping[str, int] | None,
    with_code: bool,
) -> list[Seen]:
    """The verdict of one press for each allocation, in the contract's precedence.

    `points` of the member by snapshot, where it has an entry; `mine` the member's reservations of this drop;
    `available` what the gate has left (None: it cannot be asked, and stock is taken to be there); `with_code`: as if a
    good F-code of the allocation was shown.
    """
    live = [r for r in mine if r.state in LIVE]
    used = sum(r.quantity for r in mine if r.state in LIVE or r.keeps_slot)
    seen = []
    for a in drop.allocations:
        own = next((r for r in live if r.allocation == a.id), None)
        verdict, detail = _judged(
            drop, a, at=at, tier=tier, points=points, own=own, used=used, available=available, with_code=with_code
        )
        seen.append(Seen(a.id, verdict, detail, a.opens_at if verdict is Verdict.NOT_OPEN else None))
    return seen


def _judged(
    drop: Drop,
    a: Allocation,
    *,
    at: datetime,
    tier: int,
    points: Mapping[str, int],
    own: Reservation | None,
    used: int,
    available: Mapping[str, int] | None,
    with_code: bool,
) -> tuple[Verdict, Said]:
    if own is not None and drop.per_member == 1:
        return Verdict.AGAIN, said("The member has reservation {id} here already, and hears of it again.", id=own.id)
    if drop.closed or at >= a.closes_at:
        return Verdict.CLOSED, said("The drop is closed.") if drop.closed else said("Its window is over by then.")
    for_codes = isinstance(a.access, Fcode)
    if drop.paused or (drop.fcodes_stopped and for_codes):
        if not drop.paused:
            return Verdict.PAUSED, said("Nobody hears anything else: F-codes are stopped.")
        if drop.held:
            return Verdict.PAUSED, said("Nobody hears anything else: it waits for its release.")
        return Verdict.PAUSED, said("Nobody hears anything else: it is paused.")
    if isinstance(a.access, Points | Tier):
        known = points.get(a.access.snapshot) if isinstance(a.access, Points) else None
        if isinstance(judge(a.access, tier=tier, points=known), NotEligible):
            return Verdict.NOT_ELIGIBLE, _why_not(a.access, tier, known)
    if at < a.opens_at:
        return Verdict.NOT_OPEN, said("It is not open yet by then.")
    if for_codes != with_code:
        return Verdict.FCODE_INVALID, _CODE if for_codes else _NO_CODE
    if used + 1 > drop.per_member:
        return Verdict.MEMBER_LIMIT, said("The member has {n} of {all}.", n=used, all=drop.per_member)
    if available is not None and available.get(a.id, 0) < 1:
        return Verdict.SOLD_OUT, said("Nothing is left just now.")
    return Verdict.HELD, said("The member would get a unit.")


def _why_not(rule: Points | Tier, tier: int, points: int | None) -> Said:
    """Why a rule keeps the member out."""
    need = rule.at_least
    if isinstance(rule, Tier):
        return said("It asks for tier {need}, and the member's is {have}.", need=need, have=tier)
    if points is None:
        return said("The member is not in {name}; it asks for {need} points.", need=need, name=rule.snapshot)
    return said("The member has {have} of {need} points in {name}.", have=points, need=need, name=rule.snapshot)
