"""The console's calls about F-codes: the switch that stops them, of all drops or of one, and cards to print."""

import csv
from functools import partial
from typing import Final

import msgspec
from aiohttp import web

from flashsale.cards import About, Card, Sheet
from flashsale.errors import Refused
from flashsale.web import ops
from flashsale.web.auth import Identity
from flashsale.web.console import READER, tag
from flashsale.web.console_schemas import FcodeSwitchIn, FcodeSwitchOut
from flashsale.web.context import Context
from flashsale.web.fcodes import batch_id
from flashsale.web.routing import Call, Param, answer, path_id, read_body
from flashsale.web.schemas import OpsDropOut

REASON_MAX_CHARS: Final = 200
"""So that it fits into an address, however it is written."""
_switch_in: Final = msgspec.json.Decoder(FcodeSwitchIn)
_HEADERS: Final = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""The sheet holds codes and loads nothing: nobody keeps it, and nothing in it runs."""


async def _switch_out(context: Context) -> FcodeSwitchOut:
    stop = await context.ledger.fcodes.stop()
    return FcodeSwitchOut(stop.since is not None, tuple(stop.drops), stop.since, stop.reason, stop.actor)


async def show_switch(_request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/ops/fcode-switch`."""
    return answer(await _switch_out(context))


async def switch_all(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`POST /v1/ops/fcode-switch`: from the answer on it holds, in all drops."""
    body = await read_body(request, _switch_in)
    await context.batches.switch_all(stopped=body.stopped, reason=body.reason, actor=ops.actor_of(caller))
    return answer(await _switch_out(context))


async def switch_one(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`POST /v1/ops/drops/{drop}/fcode-switch`: the same for one drop."""
    body = await read_body(request, _switch_in)
    drop = await context.batches.switch(
        path_id(request, "drop"), stopped=body.stopped, reason=body.reason, actor=ops.actor_of(caller)
    )
    return answer(await ops.drop_out(context, drop), headers=tag(drop))


async def cards(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`GET /v1/ops/fcodes/{batch}/cards`: ten cards a page, streamed. An audited act, as every export."""
    batch, lines = await context.batches.export(
        batch_id(request), actor=ops.actor_of(caller), reason=_reason_of(request)
    )
    drop = await context.catalog.get(batch.drop)
    title = batch.drop if drop is None else drop.title
    sheet = Sheet(About(title, batch.drop, batch.allocation, str(batch.id), batch.expires_at))
    response = web.StreamResponse(headers=_HEADERS)
    await response.prepare(request)
    await response.write(sheet.begin().encode())
    header = True
    async for part in lines:
        if not header:
            made = (_card(row, batch.note) for row in csv.reader(part.decode().splitlines()))
            await response.write("".join(map(sheet.add, made)).encode())
        header = False
    await response.write(sheet.end().encode())
    await response.write_eof()
    return response


def _reason_of(request: web.Request) -> str | None:
    text = request.query.get("reason")
    if text is not None and (len(text) > REASON_MAX_CHARS or not text.isprintable()):
        raise Refused("invalid_request", f"`reason` is one line of at most {REASON_MAX_CHARS} characters.")
    return text or None


def _card(row: list[str], note: str | None) -> Card:
    """A line of the export: `code`, or `code,member,note`; the batch's note where a code has none of its own."""
    return Card(row[0], row[1], row[2] or note) if len(row) > 1 else Card(row[0], None, note)


_REASON: Final = Param("reason", "Why, for the audit log.", {"type": "string", "maxLength": REASON_MAX_CHARS})
_change: Final = partial(Call, access="ops")

CALLS: Final = (
    Call(
        method="GET",
        path="/v1/ops/fcode-switch",
        handler=show_switch,
        summary="Whether F-codes are stopped: all of them, or those of single drops",
        access=READER,
        answers={200: FcodeSwitchOut},
    ),
    _change(
        method="POST",
        path="/v1/ops/fcode-switch",
        handler=switch_all,
        summary="Stop the F-codes of all drops, or honour them again; no code is lost by it",
        body=FcodeSwitchIn,
        answers={200: FcodeSwitchOut},
    ),
    _change(
        method="POST",
        path="/v1/ops/drops/{drop}/fcode-switch",
        handler=switch_one,
        summary="Stop the F-codes of one drop, or honour them again",
        body=FcodeSwitchIn,
        answers={200: OpsDropOut},
        codes=("not_found",),
    ),
    _change(
        method="GET",
        path="/v1/ops/fcodes/{batch}/cards",
        act=True,
        handler=cards,
        summary="The codes of a batch as cards to print, with QR codes",
        params=(_REASON,),
        answers={200: "text/html"},
        codes=("not_found", "conflict"),
    ),
)
