"""What is personal about a drop, and the press of the button by who is signed in to the pages."""

from typing import Final

from aiohttp import web
from aiohttp.web_request import BaseRequest

from flashsale.domain import Access, Claim, Drop, Points, Tier, Verdict
from flashsale.eligibility import Eligible, judge
from flashsale.errors import Refused
from flashsale.web import hot
from flashsale.web.api import RESERVE
from flashsale.web.auth import Identity
from flashsale.web.context import Context
from flashsale.web.live import known_drop
from flashsale.web.page_schemas import MyAllocation, MyDropOut, SessionOut
from flashsale.web.routing import Call, answer, read_body
from flashsale.web.schemas import ReservationOut, ReserveIn
from flashsale.web.session import Session

OWN_MAX: Final = 20
FCODES_MAX: Final = 100
PRIVATE: Final = {"Cache-Control": "private, no-store"}


async def my_drop(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`GET /v1/me/drops/{drop}`. A session of the pages is made to outlive the drop and its last hold."""
    drop = await known_drop(request, context)
    found = await context.ledger.pages.reservations(drop.id, caller.member, OWN_MAX)
    session, renewed = _renewed(request, context, needed_until_s=drop.ends_at.timestamp() + drop.hold_seconds)
    body = MyDropOut(
        drop=drop.id,
        member=caller.member,
        role=caller.role,
        allocations=tuple([await _mine(context, a.id, a.access, caller) for a in drop.allocations]),
        reservations=tuple(hot.reservation_out(r) for r in found),
        fcodes=await _fcodes(context, drop, caller.member),
        session_ends_at=None if session is None else session.ends_at,
    )
    return _with_session(request, context, answer(body, headers=PRIVATE), session, renewed=renewed)


async def _mine(context: Context, allocation_id: str, access: Access, caller: Identity) -> MyAllocation:
    points, cutoff = None, None
    if isinstance(access, Points):
        snapshot = await context.ledger.points.snapshot(access.snapshot)
        cutoff = None if snapshot is None else snapshot.cutoff
        points = await context.ledger.points.points_of(access.snapshot, caller.member)
    judged = judge(access, tier=caller.tier, points=points, cutoff=cutoff)
    if isinstance(judged, Eligible):
        return MyAllocation(allocation_id, eligible=True)
    return MyAllocation(
        allocation_id,
        eligible=False,
        code=Verdict.NOT_ELIGIBLE.value,
        detail=judged.detail,
        have=caller.tier if isinstance(access, Tier) else points,
        need=access.at_least if isinstance(access, Points | Tier) else None,
        cutoff=cutoff,
    )


async def _fcodes(context: Context, drop: Drop, member: int) -> int:
    """How many codes of this drop the member may still spend. Where codes cannot be read, there are none to show."""
    try:
        found = await context.batches.mine(member, None, FCODES_MAX)
    except Refused:
        return 0
    return sum(c.own.batch.drop == drop.id and c.state == "unspent" for c in found)


def _renewed(request: BaseRequest, context: Context, *, needed_until_s: float = 0) -> tuple[Session | None, bool]:
    """The session of the pages that this request has, made longer if it can be; and whether it was."""
    sessions = context.sessions
    session = None if sessions is None or "Authorization" in request.headers else sessions.of(request)
    if sessions is None or session is None:
        return None, False
    longer = sessions.renewed(session, needed_until_s)
    return longer or session, longer is not None


def _with_session(
    request: BaseRequest, context: Context, response: web.Response, session: Session | None, *, renewed: bool
) -> web.Response:
    if renewed and session is not None and context.sessions is not None:
        context.sessions.put(request, response, session)
    return response


async def my_session(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/me/session`: also for who is not signed in."""
    session, renewed = _renewed(request, context)
    if session is None:
        return answer(SessionOut(signed_in=False), headers=PRIVATE)
    body = SessionOut(signed_in=True, member=session.member, role=session.role, session_ends_at=session.ends_at)
    return _with_session(request, context, answer(body, headers=PRIVATE), session, renewed=renewed)


async def press(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`POST /v1/me/drops/{drop}/reservations`: the press of the button, of who is signed in to the pages."""
    wanted = await read_body(request, hot.decoder)
    drop = await known_drop(request, context)
    peername = request.transport.get_extra_info("peername") if request.transport is not None else None
    found = hot.claimed(context, drop, caller, wanted, headers=request.headers, peername=peername)
    if isinstance(found, Claim):
        outcome = await context.reservations.reserve(drop.id, found)
        done = hot.verdict(context, drop.id, found, outcome, peername=peername)
    else:
        done = hot.answer(context, drop.id, found)
    return done if request.keep_alive else done.closing()


_DROP: Final = "/v1/me/drops/{drop}"

CALLS: Final = (
    Call(
        method="GET",
        path="/v1/me/session",
        handler=my_session,
        summary="Whether I am signed in to the pages, and until when",
        access="public",
        answers={200: SessionOut},
    ),
    Call(
        method="GET",
        path=_DROP,
        handler=my_drop,
        summary="What is personal about a drop: whether I may buy, and what I have; by token or session",
        access="member",
        answers={200: MyDropOut},
        codes=("not_found",),
    ),
    Call(
        method="POST",
        path=f"{_DROP}/reservations",
        handler=press,
        summary="Press the button: the same as without `me`, also with a session of the pages",
        access="member",
        body=ReserveIn,
        params=RESERVE.params,
        answers={201: ReservationOut, 200: ReservationOut},
        codes=("forbidden", *RESERVE.codes),
    ),
)
