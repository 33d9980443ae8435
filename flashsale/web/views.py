"""How a drop looks over the wire: the words of its allocations' states, the same for shoppers and operators.

A state is told by the gate's clock and the gate's stock. While the gate cannot be asked, it is told by `now` and never
as `sold_out`: the next press finds out.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, assert_never

from flashsale.domain import Access, Allocation, Drop, Everyone, Fcode, Points, Tier
from flashsale.gate import Status
from flashsale.web.schemas import AccessOut, AllocationOut, DropOut, DropState, OpsAllocationOut, OpsDropOut

_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def state_of(drop: Drop, allocation: Allocation, available: int | None, now: datetime) -> DropState:
    """The first of these that holds: closed, paused, upcoming, sold_out, open.

    So nothing is sold out before it has opened (I11). A drop that is held is upcoming until its opening: nobody has
    stopped it, and it may be released in time. `available` is None where nobody knows.
    """
    if drop.closed or now >= allocation.closes_at:
        return "closed"
    if drop.held and now < allocation.opens_at:
        return "upcoming"
    if drop.paused or (drop.fcodes_stopped and isinstance(allocation.access, Fcode)):
        return "paused"
    if now < allocation.opens_at:
        return "upcoming"
    if available is not None and available <= 0:
        return "sold_out"
    return "open"


def drop_out(drop: Drop, status: Status | None, now: datetime) -> DropOut:
    """A drop, as a shopper sees it; `status` is None while the gate cannot be asked."""
    clock = _clock(status, now)
    return DropOut(
        id=drop.id,
        title=drop.title,
        price=drop.price,
        list_price=drop.list_price,
        per_member=drop.per_member,
        hold_seconds=drop.hold_seconds,
        server_time=clock,
        allocations=tuple(
            AllocationOut(
                id=a.id,
                state=state_of(drop, a, _available(status, a), clock),
                opens_at=a.opens_at,
                closes_at=a.closes_at,
                access=_access_out(a.access),
                channel=a.channel,
            )
            for a in drop.allocations
        ),
        texts=drop.texts,
        picture=drop.picture,
    )


def ops_drop_out(drop: Drop, status: Status | None, now: datetime, taken: Mapping[tuple[str, str], int]) -> OpsDropOut:
    """A drop, as an operator sees it; `taken` tells by (drop, allocation) how many units the ledger counts as taken."""
    clock = _clock(status, now)
    return OpsDropOut(
        id=drop.id,
        title=drop.title,
        price=drop.price,
        list_price=drop.list_price,
        per_member=drop.per_member,
        hold_seconds=drop.hold_seconds,
        rebuy_after_return=drop.rebuy_after_return,
        stripes=drop.stripes,
        paused=drop.paused,
        held=drop.held,
        closed=drop.closed,
        hidden=drop.hidden,
        fcodes_stopped=drop.fcodes_stopped,
        epoch=drop.epoch,
        created_at=drop.created_at,
        server_time=clock,
        allocations=tuple(
            OpsAllocationOut(
                id=a.id,
                state=state_of(drop, a, _available(status, a), clock),
                opens_at=a.opens_at,
                closes_at=a.closes_at,
                access=a.access,
                channel=a.channel,
                quantity=a.quantity,
                taken=taken.get((drop.id, a.id), 0),
                available=_available(status, a),
            )
            for a in drop.allocations
        ),
        texts=drop.texts,
        picture=drop.picture,
    )


def _clock(status: Status | None, now: datetime) -> datetime:
    return now if status is None else _UNIX_EPOCH + timedelta(milliseconds=status.now_ms)


def _available(status: Status | None, allocation: Allocation) -> int | None:
    return None if status is None else status.available.get(allocation.id)


def _access_out(access: Access) -> AccessOut:
    match access:
        case Everyone():
            return AccessOut("everyone")
        case Points(at_least=at_least):
            return AccessOut("points", at_least)
        case Tier(at_least=at_least):
            return AccessOut("tier", at_least)
        case Fcode():
            return AccessOut("fcode")
        case _:
            assert_never(access)
