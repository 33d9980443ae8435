"""The operators' calls. Handlers read, call `drops.Operations` or `points`, and answer; decisions are made there."""

from collections.abc import AsyncIterator
from datetime import datetime
from functools import partial
from typing import Final, Literal

import msgspec
from aiohttp import web

from flashsale.domain import ID_PATTERN, Allocation, Drop, Timestamp
from flashsale.drops import EARLIEST, LATEST, AllocationChange, DropChange, unknown_drop
from flashsale.errors import Refused
from flashsale.points import import_points
from flashsale.web import views
from flashsale.web.auth import Identity
from flashsale.web.console import IF_MATCH, if_match, tag
from flashsale.web.console_imports import announced
from flashsale.web.context import Context
from flashsale.web.routing import (
    PAGING,
    Body,
    Call,
    Param,
    answer,
    page_after,
    page_limit,
    path_id,
    read_body,
    required_query,
)
from flashsale.web.schemas import (
    AllocationIn,
    AllocationPatch,
    BalanceItem,
    BalanceOut,
    DropIn,
    DropPatch,
    OpsDropList,
    OpsDropOut,
    SnapshotOut,
    SwitchIn,
)

_drop_in: Final = msgspec.json.Decoder(DropIn)
_drop_patch: Final = msgspec.json.Decoder(DropPatch)
_allocation_in: Final = msgspec.json.Decoder(AllocationIn)
_allocation_patch: Final = msgspec.json.Decoder(AllocationPatch)
_switch_in: Final = msgspec.json.Decoder(SwitchIn)


def actor_of(caller: Identity) -> str:
    """Who did it, as the audit log names them."""
    return f"member:{caller.member}"


def _allocation(given: AllocationIn) -> Allocation:
    return Allocation(
        id=given.id,
        quantity=given.quantity,
        opens_at=given.opens_at,
        closes_at=given.closes_at,
        access=given.access,
        channel=given.channel,
    )


async def _read_patch(request: web.Request, decoder: msgspec.json.Decoder[Body]) -> Body:
    """The body of a PATCH, which must name something to change."""
    patch = await read_body(request, decoder)
    names = patch.__struct_fields__  # type: ignore[attr-defined]
    if all(getattr(patch, name) is msgspec.UNSET for name in names):
        raise Refused("invalid_request", f"There is nothing to change in the body; name {_or(names)}.")
    return patch


def _or(names: tuple[str, ...]) -> str:
    return " or ".join(f"`{name}`" for name in names)


async def drop_out(context: Context, drop: Drop) -> OpsDropOut:
    """A drop, as an operator sees it."""
    taken = await context.ledger.drops.taken([drop.id])
    return views.ops_drop_out(drop, await context.board.status(drop), context.now(), taken)


async def post_points(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`POST /v1/ops/points`: the file is checked and stored while it arrives; memory stays flat."""
    name, cutoff, actor = required_query(request, "name"), _cutoff(required_query(request, "cutoff")), actor_of(caller)
    body = limited(request, context.settings.points_body_max_bytes)
    bytes_total = request.content_length
    async with announced(context, snapshot=name, actor=actor, bytes_total=bytes_total, now=context.now()) as progress:
        imported = await import_points(
            context.ledger.points, progress.counted(body), snapshot=name, cutoff=cutoff, actor=actor
        )
    return answer(SnapshotOut(imported.snapshot, imported.cutoff, imported.members), 201)


async def limited(request: web.Request, bytes_max: int) -> AsyncIterator[bytes]:
    """The body in the pieces in which it arrives. Refused as soon as it is known to be too large."""
    size = request.content_length or 0
    if size <= bytes_max:
        size = 0
        try:
            async for piece in request.content.iter_any():
                size += len(piece)
                if size > bytes_max:
                    break
                yield piece
        except ConnectionError as error:
            raise web.RequestPayloadError(str(error)) from None  # no fault of the ledger's connection
    if size > bytes_max:
        raise Refused("too_large", f"The file has over {bytes_max} bytes. Nothing was imported; send a smaller file.")


def _cutoff(text: str) -> datetime:
    try:
        cutoff: datetime = msgspec.convert(text, Timestamp)
    except msgspec.ValidationError:
        raise Refused(
            "invalid_request",
            "`cutoff` is a time in RFC 3339 with its zone, like 2011-08-16T00:00:00%2B08:00 (a `+` is written `%2B`).",
        ) from None
    if not EARLIEST <= cutoff <= LATEST:
        raise Refused("invalid_request", f"`cutoff` must lie between {EARLIEST.year} and {LATEST.year}; correct it.")
    return cutoff


async def create_drop(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`POST /v1/ops/drops`."""
    body = await read_body(request, _drop_in)
    wanted = Drop(
        id=body.id,
        title=body.title,
        price=body.price,
        list_price=body.list_price,
        per_member=body.per_member,
        hold_seconds=body.hold_seconds,
        rebuy_after_return=body.rebuy_after_return,
        stripes=body.stripes,
        epoch=0,
        paused=False,
        closed=False,
        held=body.hold,
        allocations=tuple(_allocation(a) for a in body.allocations),
        created_at=context.now(),
        texts=body.texts,
        picture=body.picture,
    )
    drop = await context.operations.create(wanted, actor=actor_of(caller), detail=body)
    return answer(await drop_out(context, drop), 201, {"Location": f"/v1/ops/drops/{drop.id}", **tag(drop)})


async def list_drops(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/ops/drops`."""
    after, limit = page_after(request, ID_PATTERN), page_limit(request)
    drops = await context.ledger.drops.page(after, limit + 1)
    page = drops[:limit]
    taken = await context.ledger.drops.taken([d.id for d in page])
    statuses = await context.board.statuses(page)
    items = [views.ops_drop_out(d, s, context.now(), taken) for d, s in zip(page, statuses, strict=True)]
    return answer(OpsDropList(tuple(items), page[-1].id if len(drops) > limit else None))


async def get_drop(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/ops/drops/{drop}`."""
    drop_id = path_id(request, "drop")
    drop = await context.catalog.reload(drop_id)
    if drop is None:
        raise unknown_drop(drop_id)
    return answer(await drop_out(context, drop), headers=tag(drop))


async def edit_drop(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`PATCH /v1/ops/drops/{drop}`."""
    patch = await _read_patch(request, _drop_patch)
    change = DropChange(patch.title, patch.texts, patch.picture)
    drop = await context.operations.edit(
        path_id(request, "drop"), change, actor=actor_of(caller), expected=if_match(request)
    )
    return answer(await drop_out(context, drop), headers=tag(drop))


async def add_allocation(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`POST /v1/ops/drops/{drop}/allocations`."""
    allocation = _allocation(await read_body(request, _allocation_in))
    drop = await context.operations.add_allocation(
        path_id(request, "drop"), allocation, actor=actor_of(caller), expected=if_match(request)
    )
    return answer(await drop_out(context, drop), 201, tag(drop))


async def edit_allocation(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`PATCH /v1/ops/drops/{drop}/allocations/{allocation}`."""
    patch = await _read_patch(request, _allocation_patch)
    change = AllocationChange(patch.quantity, patch.opens_at, patch.closes_at, patch.channel)
    drop = await context.operations.change_allocation(
        path_id(request, "drop"),
        path_id(request, "allocation"),
        change,
        actor=actor_of(caller),
        expected=if_match(request),
    )
    return answer(await drop_out(context, drop), headers=tag(drop))


async def _switch(
    act: Literal["pause", "close"], request: web.Request, context: Context, caller: Identity
) -> web.StreamResponse:
    """`POST /v1/ops/drops/{drop}/pause` and `/close`. The body may say why."""
    body = await read_body(request, _switch_in)
    drop = await context.operations.switch(path_id(request, "drop"), act, actor=actor_of(caller), reason=body.reason)
    return answer(await drop_out(context, drop), headers=tag(drop))


async def balance(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/ops/drops/{drop}/balance`."""
    drop_id = path_id(request, "drop")
    units = await context.operations.balance(drop_id)
    items = tuple(BalanceItem(u.id, u.quantity, u.available, u.pending, u.held, u.confirmed, u.balanced) for u in units)
    return answer(BalanceOut(drop_id, all(item.balanced for item in items), items))


_NAME: Final = Param("name", "Name of the new snapshot.", {"type": "string", "pattern": ID_PATTERN}, required=True)
_CUTOFF: Final = Param(
    "cutoff",
    "As of when the points count, RFC 3339 with zone (a `+` is written `%2B`).",
    {"type": "string", "format": "date-time"},
    required=True,
)
_DROPS: Final = "/v1/ops/drops"
_ONE: Final = f"{_DROPS}/{{drop}}"
_call: Final = partial(Call, access="ops")


def _switch_call(act: Literal["pause", "close"], summary: str, codes: tuple[str, ...]) -> Call:
    return _call(
        method="POST",
        path=f"{_ONE}/{act}",
        handler=partial(_switch, act),
        summary=summary,
        body=SwitchIn,
        answers={200: OpsDropOut},
        codes=codes,
    )


CALLS: Final = (
    _call(
        method="POST",
        path="/v1/ops/points",
        handler=post_points,
        summary="Import a points snapshot: CSV with the header `member_id,points`, all or nothing",
        body="text/csv",
        params=(_NAME, _CUTOFF),
        answers={201: SnapshotOut},
        codes=("conflict",),
    ),
    _call(
        method="POST",
        path=_DROPS,
        handler=create_drop,
        summary="Set up a drop",
        body=DropIn,
        answers={201: OpsDropOut},
        codes=("conflict",),
    ),
    _call(
        method="GET",
        path=_DROPS,
        handler=list_drops,
        summary="All drops, with everything an operator sees",
        params=PAGING,
        answers={200: OpsDropList},
    ),
    _call(
        method="GET",
        path=_ONE,
        handler=get_drop,
        summary="One drop, with everything an operator sees",
        answers={200: OpsDropOut},
        codes=("not_found",),
    ),
    _call(
        method="PATCH",
        path=_ONE,
        handler=edit_drop,
        summary="Change the drop itself",
        body=DropPatch,
        params=(IF_MATCH,),
        answers={200: OpsDropOut},
        codes=("not_found", "precondition_failed"),
    ),
    _call(
        method="POST",
        path=f"{_ONE}/allocations",
        handler=add_allocation,
        summary="Add an allocation, also while the drop runs",
        body=AllocationIn,
        params=(IF_MATCH,),
        answers={201: OpsDropOut},
        codes=("not_found", "conflict", "precondition_failed"),
    ),
    _call(
        method="PATCH",
        path=f"{_ONE}/allocations/{{allocation}}",
        handler=edit_allocation,
        summary="Resize an allocation or move its window, also while the drop runs",
        body=AllocationPatch,
        params=(IF_MATCH,),
        answers={200: OpsDropOut},
        codes=("not_found", "conflict", "precondition_failed"),
    ),
    _switch_call("pause", "Pause: no grant from the answer on", ("not_found", "conflict")),
    _switch_call("close", "Close for good", ("not_found",)),
    _call(
        method="GET",
        path=f"{_ONE}/balance",
        handler=balance,
        summary="Where every unit is, in gate and ledger",
        answers={200: BalanceOut},
        codes=("not_found",),
    ),
)
