"""The shoppers' calls."""

import hashlib
import uuid
from datetime import datetime
from typing import Final

import msgspec
from aiohttp import web

from flashsale.domain import ID_PATTERN, Access, Points, Reservation, State, Verdict
from flashsale.drops import unknown_drop
from flashsale.eligibility import Eligible, NotEligible, judge
from flashsale.errors import Refused
from flashsale.web import confirm, hot, views
from flashsale.web.auth import Identity
from flashsale.web.context import Context
from flashsale.web.routing import (
    KEY_PATTERN,
    PAGING,
    Call,
    Param,
    answer,
    check_id,
    page_after,
    page_limit,
    path_id,
    required_query,
)
from flashsale.web.schemas import (
    ConfirmIn,
    DropList,
    DropOut,
    EligibilityItem,
    EligibilityOut,
    ReservationList,
    ReservationOut,
    ReserveIn,
)
from flashsale.web.session import SAFE

CACHE: Final = "public, max-age=1"
_encode: Final = msgspec.json.Encoder().encode


def _cached(request: web.Request, body: DropOut | DropList, stable: object) -> web.Response:
    """A public answer. The tag leaves the clock out: two answers with one tag mean the same (a weak tag)."""
    tag = f'W/"{hashlib.blake2b(_encode(stable), digest_size=12).hexdigest()}"'
    headers = {"Cache-Control": CACHE, "ETag": tag}
    wanted = {t.strip() for t in request.headers.get("If-None-Match", "").split(",")}
    if tag in wanted or "*" in wanted:
        return web.Response(status=304, headers=headers)
    return answer(body, headers=headers)


def _stable(drop: DropOut) -> DropOut:
    return msgspec.structs.replace(drop, server_time=datetime.min)  # noqa: DTZ901 -- a stand-in that never leaves


async def list_drops(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/drops`."""
    after, limit = page_after(request, ID_PATTERN), page_limit(request)
    found = await context.catalog.page(after, limit + 1)
    drops = found[:limit]
    statuses = await context.board.statuses(drops)
    items = tuple(views.drop_out(d, s, context.now()) for d, s in zip(drops, statuses, strict=True))
    page = DropList(items, drops[-1].id if len(found) > limit else None)
    return _cached(request, page, DropList(tuple(_stable(d) for d in items), page.next))


async def get_drop(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/drops/{drop}`."""
    drop_id = path_id(request, "drop")
    drop = await context.catalog.get(drop_id)
    if drop is None or drop.hidden:
        raise unknown_drop(drop_id)
    out = views.drop_out(drop, await context.board.status(drop), context.now())
    return _cached(request, out, _stable(out))


async def reserve(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`POST /v1/drops/{drop}/reservations` where the path is written unusually; else `hot` has answered already."""
    return await hot.reserve(request, context, path_id(request, "drop"))


async def eligibility(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`GET /v1/me/eligibility`."""
    drop_id = check_id(required_query(request, "drop"))
    drop = await context.catalog.get(drop_id)
    if drop is None or drop.hidden:
        raise unknown_drop(drop_id)
    items = [_item(a.id, await _judge(context, a.access, caller)) for a in drop.allocations]
    return answer(EligibilityOut(drop.id, tuple(items)), headers={"Cache-Control": "private, no-store"})


async def _judge(context: Context, access: Access, caller: Identity) -> Eligible | NotEligible:
    if not isinstance(access, Points):
        return judge(access, tier=caller.tier)
    snapshot = await context.ledger.points.snapshot(access.snapshot)
    points = await context.ledger.points.points_of(access.snapshot, caller.member)
    return judge(access, tier=caller.tier, points=points, cutoff=None if snapshot is None else snapshot.cutoff)


def _item(allocation_id: str, judged: Eligible | NotEligible) -> EligibilityItem:
    if isinstance(judged, Eligible):
        return EligibilityItem(allocation_id, eligible=True)
    return EligibilityItem(allocation_id, eligible=False, code=Verdict.NOT_ELIGIBLE.value, detail=judged.detail)


async def my_reservations(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`GET /v1/me/reservations`."""
    limit = page_limit(request)
    found = await context.ledger.reservations.list_of(caller.member, _cursor(request.query.get("after")), limit)
    last = found[-1] if len(found) == limit else None
    cursor = None if last is None else f"{last.created_at.isoformat()}~{last.id}"
    return answer(ReservationList(tuple(hot.reservation_out(r) for r in found), cursor))


def _cursor(text: str | None) -> tuple[datetime, str] | None:
    if text is None:
        return None
    at, _, last_id = text.replace(" ", "+").partition("~")
    try:
        moment, known = datetime.fromisoformat(at), str(uuid.UUID(last_id))
    except ValueError:
        moment, known = None, ""
    if moment is None or moment.tzinfo is None:
        raise Refused("invalid_request", "`after` is not a cursor of this list; use the `next` of the page before.")
    return moment, known


def _sees_all(request: web.Request, caller: Identity) -> bool:
    return caller.role == "ops" or (caller.role == "ops-read" and request.method in SAFE)


async def _own(request: web.Request, context: Context, caller: Identity) -> Reservation:
    """The reservation of the path, if it is the caller's (or an operator asks)."""
    reservation_id = request.match_info["reservation"]
    try:
        found = await context.ledger.reservations.get(str(uuid.UUID(reservation_id)))
    except ValueError:
        found = None
    if found is None or (found.member != caller.member and not _sees_all(request, caller)):
        raise Refused("not_found", f"You have no reservation {reservation_id[:64]!r}.")
    return found


async def get_reservation(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`GET /v1/reservations/{id}`."""
    return answer(hot.reservation_out(await _own(request, context, caller)))


async def confirm_hold(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`POST /v1/reservations/{id}/confirm` where the path is written unusually; else `confirm` has answered already."""
    return await confirm.confirm(request, context, request.match_info["reservation"])


async def cancel(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`DELETE /v1/reservations/{id}`: repeated, it answers the same."""
    found = await _own(request, context, caller)
    if found.state is State.HELD:
        found = await context.reservations.cancel(found) or await _own(request, context, caller)
    match found.state:
        case State.CANCELLED:
            return answer(hot.reservation_out(found))
        case State.EXPIRED:
            raise Refused("expired", "The hold has expired; its unit has gone back to the sale.")
        case _:
            raise Refused("conflict", f"The reservation is {found.state.value}; only a held one can be cancelled.")


_DROP = Param("drop", "The drop.", {"type": "string", "pattern": ID_PATTERN}, required=True)
_KEY = Param(
    "Idempotency-Key",
    "Names the reservation: the same key with the same body gives the same reservation.",
    {"type": "string", "pattern": KEY_PATTERN},
    where="header",
)
_TAG = Param("If-None-Match", "Tag of an answer you have.", {"type": "string"}, where="header")

RESERVE = Call(
    method="POST",
    path="/v1/drops/{drop}/reservations",
    handler=reserve,
    summary="Press the button: reserve units of a drop",
    access="public",  # hot.reserve asks for the token itself
    body=ReserveIn,
    params=(_KEY,),
    answers={201: ReservationOut, 200: ReservationOut},
    codes=("unauthenticated", *(v.value for v in Verdict if v.value not in {"again", "held"})),
)

CALLS: Final = (
    Call(
        method="GET",
        path="/v1/drops",
        handler=list_drops,
        summary="All drops",
        access="public",
        params=(*PAGING, _TAG),
        answers={200: DropList, 304: ""},
    ),
    Call(
        method="GET",
        path="/v1/drops/{drop}",
        handler=get_drop,
        summary="One drop with the state of its allocations",
        access="public",
        params=(_TAG,),
        answers={200: DropOut, 304: ""},
        codes=("not_found",),
    ),
    RESERVE,
    Call(
        method="GET",
        path="/v1/me/eligibility",
        handler=eligibility,
        summary="Whether I may buy, and if not, why not",
        access="member",
        params=(_DROP,),
        answers={200: EligibilityOut},
        codes=("not_found",),
    ),
    Call(
        method="GET",
        path="/v1/me/reservations",
        handler=my_reservations,
        summary="My reservations, newest first",
        access="member",
        params=PAGING,
        answers={200: ReservationList},
    ),
    Call(
        method="GET",
        path="/v1/reservations/{reservation}",
        handler=get_reservation,
        summary="One reservation of mine",
        access="member",
        answers={200: ReservationOut},
        codes=("not_found",),
    ),
    Call(
        method="POST",
        path="/v1/reservations/{reservation}/confirm",
        handler=confirm_hold,
        summary="Confirm a hold: by its member, or by a payment, as the service is set up",
        access="public",  # confirm.confirm asks for the token itself
        body=ConfirmIn,
        answers={200: ReservationOut},
        codes=("unauthenticated", "forbidden", "not_found", "expired", "conflict"),
    ),
    Call(
        method="DELETE",
        path="/v1/reservations/{reservation}",
        handler=cancel,
        summary="Cancel a hold",
        access="member",
        answers={200: ReservationOut},
        codes=("not_found", "expired", "conflict"),
    ),
)
