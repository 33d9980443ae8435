"""What every open page asks for: the gate's clock, and a drop's state just now."""

import asyncio
import hashlib
from datetime import datetime
from typing import Final

import msgspec
from aiohttp import web

from flashsale.domain import Drop
from flashsale.drops import unknown_drop
from flashsale.errors import GateUnavailable, Unavailable
from flashsale.web import views
from flashsale.web.auth import Identity
from flashsale.web.context import Context
from flashsale.web.page_schemas import ClockOut, NoticeOut, StatusOut
from flashsale.web.routing import Call, Param, answer, path_id
from flashsale.web.watching import WATCH, allocation_now

CACHE: Final = "public, max-age=1"
HOLDS_FRESH_S: Final = 2.0
"""When the last hold ends is asked of the ledger this often, however many look."""
_encode: Final = msgspec.json.Encoder().encode


class Holds:
    """When the last hold of each allocation ends, for drops that are all taken."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, asyncio.Future[dict[str, datetime]]]] = {}

    async def last(self, context: Context, drop_id: str) -> dict[str, datetime]:
        """By allocation; empty while the ledger cannot be asked: it is a hint, no promise."""
        now = asyncio.get_running_loop().time()
        known = self._known.get(drop_id)
        if known is None or known[0] < now - HOLDS_FRESH_S:
            asked = asyncio.ensure_future(context.ledger.pages.holds_last(drop_id))
            asked.add_done_callback(lambda done: done.cancelled() or done.exception())
            known = self._known[drop_id] = now, asked
        try:
            return await asyncio.shield(known[1])
        except Unavailable:
            return {}


HOLDS: Final = web.AppKey("holds", Holds)


async def known_drop(request: web.Request, context: Context) -> Drop:
    """The drop of the path."""
    drop_id = path_id(request, "drop")
    drop = await context.catalog.get(drop_id)
    if drop is None:
        raise unknown_drop(drop_id)
    return drop


async def clock(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/drops/{drop}/clock`: never kept by anybody on the way."""
    status = await context.board.status(await known_drop(request, context))
    if status is None:
        raise GateUnavailable("The gate cannot tell its time just now; ask again in a moment.")
    return answer(ClockOut(status.now_ms), headers={"Cache-Control": "no-store"})


async def status_now(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/drops/{drop}/status`."""
    drop = await known_drop(request, context)
    out = views.drop_out(drop, await context.board.status(drop), context.now())
    taken = any(a.state == "sold_out" for a in out.allocations)
    holds = await request.app[HOLDS].last(context, drop.id) if taken else {}
    poll_s = context.settings.status_poll_s
    body = StatusOut(
        drop=drop.id,
        epoch=drop.epoch,
        server_time=out.server_time,
        allocations=tuple(
            allocation_now(a, holds.get(a.id) if a.state == "sold_out" else None) for a in out.allocations
        ),
        notice=NoticeOut(drop.texts.zh.notice, drop.texts.en.notice),
        poll_s=poll_s,
        spread_s=poll_s,
        streams=request.app[WATCH].room > 0,
    )
    stable = msgspec.structs.replace(body, server_time=datetime.min)  # noqa: DTZ901 -- a stand-in that never leaves
    tag = f'W/"{hashlib.blake2b(_encode(stable), digest_size=12).hexdigest()}"'
    headers = {"Cache-Control": CACHE, "ETag": tag}
    if tag in {t.strip() for t in request.headers.get("If-None-Match", "").split(",")}:
        return web.Response(status=304, headers=headers)
    return answer(body, headers=headers)


_TAG: Final = Param("If-None-Match", "Tag of an answer you have.", {"type": "string"}, where="header")

CALLS: Final = (
    Call(
        method="GET",
        path="/v1/drops/{drop}/clock",
        handler=clock,
        summary="The gate's clock, by which windows open and close",
        access="public",
        answers={200: ClockOut},
        codes=("not_found",),
    ),
    Call(
        method="GET",
        path="/v1/drops/{drop}/status",
        handler=status_now,
        summary="The state of a drop just now, and when to ask again",
        access="public",
        params=(_TAG,),
        answers={200: StatusOut, 304: ""},
        codes=("not_found",),
    ),
)
