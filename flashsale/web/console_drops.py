"""The console's calls about one drop: its release and pre-flight list, moves, preview, copy, timeline."""

import asyncio
import contextlib
import re
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from flashsale.checklist import Facts, Item, checklist, shifted, tried
from flashsale.domain import ID_PATTERN, LIVE, MEMBER_MAX, QUANTITY_MAX, Drop, Fcode, Points
from flashsale.drops import check_window, unknown_drop
from flashsale.errors import Refused, Unavailable
from flashsale.preview import preview
from flashsale.said import Said, said
from flashsale.web import language, ops, views
from flashsale.web.auth import Identity
from flashsale.web.console import (
    IF_MATCH,
    READER,
    if_match,
    number_param,
    query_number,
    query_switch,
    query_time,
    tag,
    time_param,
)
from flashsale.web.console_schemas import (
    Mark,
    MovedOut,
    MoveIn,
    MoveOut,
    PreflightItem,
    PreflightOut,
    PreviewItem,
    PreviewOut,
    ResumeIn,
    Span,
    TimelineOut,
)
from flashsale.web.context import Context
from flashsale.web.routing import PAGE_MAX, Call, Param, answer, check_id, path_id, read_body
from flashsale.web.schemas import AllocationIn, DropIn, OpsDropOut

CONNECT_MAX_S: Final = 1.0
MARKS_MAX: Final = 200
COPIES_MAX: Final = 100
_resume_in: Final = msgspec.json.Decoder(ResumeIn)
_move_in: Final = msgspec.json.Decoder(MoveIn)


async def the_drop(request: web.Request, context: Context) -> Drop:
    """The drop of the path, as the ledger has it now; `Refused` when there is none."""
    drop_id = path_id(request, "drop")
    drop = await context.catalog.reload(drop_id)
    if drop is None:
        raise unknown_drop(drop_id)
    return drop


async def _endpoint_problem(context: Context) -> Said | None:
    """What is wrong with where orders go, None for nothing. Nothing is sent to it."""
    url = context.settings.fulfilment_url
    if url is None:
        return said("No endpoint is set (FLASHSALE_FULFILMENT_URL): orders would wait in the queue.")
    parts = urlsplit(url)
    shown = f"{parts.scheme}://{parts.hostname}"
    if await context.ledger.orders.disabled(url):
        return said("The endpoint {url} said that it is gone; replay an order to try it again.", url=shown)

    async def connect() -> None:
        async with asyncio.timeout(CONNECT_MAX_S):
            _, writer = await asyncio.open_connection(
                parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
            )
            writer.close()

    return await tried(connect, shown)


async def _facts(context: Context, drop: Drop) -> Facts:
    ledger, loop = context.ledger, asyncio.get_running_loop()
    began, asked_at = loop.time(), context.now()
    ledger_now = await ledger.console.now()
    halfway_s = (loop.time() - began) / 2
    status = await context.board.status(drop)
    heard_at = context.now()
    balanced: bool | None = None
    with contextlib.suppress(Unavailable):
        balanced = all(units.balanced for units in await context.operations.balance(drop.id))
    eligible, cutoffs = {}, {}
    for a in drop.allocations:
        if isinstance(a.access, Points):
            info = await ledger.points.eligible_info(a.access.snapshot, a.access.at_least)
            snapshot = await ledger.points.snapshot(a.access.snapshot)
            if info is not None and snapshot is not None:
                eligible[a.id], cutoffs[a.id] = info.members, snapshot.cutoff
    lanes = any(isinstance(a.access, Fcode) for a in drop.allocations)
    gate_now = None if status is None else datetime.fromtimestamp(status.now_ms / 1000, UTC)
    return Facts(
        now=context.now(),
        status=status,
        balanced=balanced,
        eligible=eligible,
        cutoffs=cutoffs,
        codes=await ledger.console.codes_alive(drop.id) if lanes else {},
        codes_can_be_read=context.settings.fcode_ring is not None,
        fulfilment=await _endpoint_problem(context),
        gate_ahead_s=None if gate_now is None else (gate_now - heard_at).total_seconds(),
        ledger_ahead_s=(ledger_now - asked_at).total_seconds() - halfway_s,
    )


async def listed(context: Context, drop: Drop) -> list[Item]:
    """The drop's pre-flight list."""
    return checklist(drop, await _facts(context, drop))


def missing_of(items: list[Item]) -> list[Item]:
    """What blocks the opening."""
    return [item for item in items if item.blocking and not item.ok]


async def preflight(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/ops/drops/{drop}/preflight`."""
    drop = await the_drop(request, context)
    items = await listed(context, drop)
    words = language.of(request)
    told = tuple(PreflightItem(i.id, i.blocking, i.ok, words(i.detail), i.allocation) for i in items)
    body = PreflightOut(drop.id, not missing_of(items), drop.held, context.now(), told)
    return answer(body, headers=words.headers)


async def resume(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`POST /v1/ops/drops/{drop}/resume`: a held drop is released, when nothing is missing or by force."""
    body = await read_body(request, _resume_in)
    if body.force and body.reason is None:
        raise Refused("invalid_request", "`force` needs a `reason`: it is kept in the audit log.")
    drop = await the_drop(request, context)
    missing = missing_of(await listed(context, drop)) if drop.held else []
    if missing and not body.force:
        words = language.of(request)
        told = [(i.id, i.allocation, words(i.detail)) for i in missing]
        sentences = " ".join(f"{allocation}: {detail}" if allocation else detail for _, allocation, detail in told)
        raise Refused(
            "conflict",
            f"The drop stays held, because something is missing. {sentences} With `force` and a `reason` it is "
            "released all the same.",
            missing=[{"id": name, "allocation": allocation, "detail": detail} for name, allocation, detail in told],
        )
    names = {f"{item.id}/{item.allocation}" if item.allocation else item.id for item in missing}
    done = await context.operations.switch(
        drop.id, "resume", actor=ops.actor_of(caller), reason=body.reason, missing=names
    )
    return answer(await ops.drop_out(context, done), headers=tag(done))


async def move(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`POST /v1/ops/drops/{drop}/moves`."""
    body = await read_body(request, _move_in)
    drop, before, after = await context.operations.move_units(
        path_id(request, "drop"),
        body.from_,
        body.to,
        body.count,
        actor=ops.actor_of(caller),
        reason=body.reason,
        expected=if_match(request),
    )
    shown = [tuple(MovedOut(m.id, m.quantity, m.taken, m.free) for m in side) for side in (before, after)]
    return answer(MoveOut(drop.id, body.from_, body.to, body.count, *shown), headers=tag(drop))


async def show_preview(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/ops/drops/{drop}/preview`."""
    member = query_number(request, "member", 1, MEMBER_MAX)
    if member is None:
        raise Refused("invalid_request", "The query parameter `member` is missing.")
    at, tier = query_time(request, "at"), query_number(request, "tier", 0, QUANTITY_MAX) or 0
    with_code = query_switch(request, "with_code")
    drop = await the_drop(request, context)
    points: dict[str, int] = {}
    for name in {a.access.snapshot for a in drop.allocations if isinstance(a.access, Points)}:
        if (found := await context.ledger.points.points_of(name, member)) is not None:
            points[name] = found
    mine = [r for r in await context.ledger.reservations.list_of(member, None, PAGE_MAX) if r.drop == drop.id]
    status = await context.board.status(drop)
    left = None if status is None else status.available
    clock = context.now() if status is None else datetime.fromtimestamp(status.now_ms / 1000, UTC)
    at = at or clock
    seen = preview(drop, at=at, tier=tier, points=points, mine=mine, available=left, with_code=with_code)
    words = language.of(request)
    items = tuple(
        PreviewItem(
            s.allocation,
            views.state_of(drop, a, None if left is None else left.get(a.id), at),
            s.verdict,
            words(s.detail),
            s.opens_at,
        )
        for a, s in zip(drop.allocations, seen, strict=True)
    )
    used = sum(r.quantity for r in mine if r.state in LIVE or r.keeps_slot)
    body = PreviewOut(drop.id, member, at, tier, drop.per_member, used, items)
    return answer(body, headers=words.headers)


async def copy(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/ops/drops/{drop}/copy`: a body to set up the drop again, another time. Nothing is set up."""
    drop, opens_at = await the_drop(request, context), query_time(request, "opens_at")
    name = request.query.get("id")
    name = await _free_name(context, drop.id) if name is None else check_id(name)
    by = shifted(drop, opens_at, context.now())
    try:
        allocations = [
            AllocationIn(a.id, a.quantity, a.opens_at + by, a.closes_at + by, a.access, a.channel)
            for a in drop.allocations
        ]
    except OverflowError:
        raise Refused("invalid_request", "`opens_at` is too far away; correct it.") from None
    for a in allocations:
        check_window(a.id, a.opens_at, a.closes_at)
    return answer(draft_of(drop, id=name, allocations=tuple(allocations), hold=True))


def draft_of(drop: Drop, **other: Any) -> DropIn:  # noqa: ANN401 -- fields of the body
    """A body that would set up the same drop, but for `other`."""
    kept = {name: getattr(drop, name) for name in DropIn.__struct_fields__ if hasattr(drop, name)}
    return DropIn(**(kept | other))


async def _free_name(context: Context, name: str) -> str:
    """The first of name-2, name-3 … that no drop has."""
    found = re.fullmatch("(.*)-([2-9]|[1-9][0-9]{1,3})", name)
    stem, number = (found[1], int(found[2]) + 1) if found else (name, 2)
    for n in range(number, number + COPIES_MAX):
        wanted = f"{stem[: 62 - len(str(n))]}-{n}"
        if await context.ledger.drops.get(wanted) is None:
            return wanted
    raise Refused("conflict", f"The names after {name!r} are all taken; choose one with `id`.")


async def timeline(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/ops/drops/{drop}/timeline`."""
    drop = await the_drop(request, context)
    lines = await context.operations.audit(drop.id, None, MARKS_MAX)
    spans = tuple(Span(a.id, a.quantity, a.opens_at, a.closes_at, a.access, a.channel) for a in drop.allocations)
    marks = tuple(Mark(a.at, a.action, a.actor, a.subject, a.detail) for a in reversed(lines))
    starts_at = min((a.opens_at for a in drop.allocations), default=drop.created_at)
    return answer(TimelineOut(drop.id, context.now(), starts_at, drop.ends_at, spans, marks))


_ONE: Final = "/v1/ops/drops/{drop}"
_change: Final = partial(Call, access="ops")
_read: Final = partial(Call, access=READER, method="GET")

CALLS: Final = (
    _change(
        method="POST",
        path=f"{_ONE}/resume",
        handler=resume,
        summary="Resume a paused drop; release a held one, if its pre-flight list lets it",
        body=ResumeIn,
        answers={200: OpsDropOut},
        codes=("not_found", "conflict"),
    ),
    _change(
        method="POST",
        path=f"{_ONE}/moves",
        handler=move,
        summary="Move free units from one allocation to another, also while the drop runs",
        body=MoveIn,
        params=(IF_MATCH,),
        answers={200: MoveOut},
        codes=("not_found", "conflict", "precondition_failed"),
    ),
    _read(
        path=f"{_ONE}/preflight",
        handler=preflight,
        summary="What is missing before the drop can open",
        answers={200: PreflightOut},
        codes=("not_found",),
    ),
    _read(
        path=f"{_ONE}/preview",
        handler=show_preview,
        summary="What a member's press would hear, by allocation, at any moment",
        params=(
            number_param("member", "The member.", 1, MEMBER_MAX, required=True),
            time_param("at", "When; absent: now. What is left, and what the member has, is that of now."),
            number_param("tier", "The tier in the member's token; absent: 0.", 0, QUANTITY_MAX),
            Param("with_code", "As if a good F-code was shown.", {"type": "boolean", "default": False}),
        ),
        answers={200: PreviewOut},
        codes=("not_found",),
    ),
    _read(
        path=f"{_ONE}/copy",
        handler=copy,
        summary="A body that sets up the same drop another time; nothing is set up",
        params=(
            Param("id", "The new drop's id; absent: the next free one.", {"type": "string", "pattern": ID_PATTERN}),
            time_param("opens_at", "When its first window opens; absent: moved by whole days into the future."),
        ),
        answers={200: DropIn},
        codes=("not_found", "conflict"),
    ),
    _read(
        path=f"{_ONE}/timeline",
        handler=timeline,
        summary="The drop in time: its windows, and what operators did to it",
        answers={200: TimelineOut},
        codes=("not_found",),
    ),
)
