"""The calls about F-codes: operators mint, see, export and revoke; members see their own."""

import re
from datetime import datetime
from functools import partial
from typing import Final

import msgspec
from aiohttp import web

from flashsale.domain import Timestamp
from flashsale.errors import Refused
from flashsale.ledger import Batch, Counts
from flashsale.owners import owners_of
from flashsale.web.auth import Identity
from flashsale.web.context import Context
from flashsale.web.fcode_schemas import (
    BatchDetailOut,
    BatchList,
    BatchOut,
    CountsOut,
    FcodesIn,
    OwnCodeList,
    OwnCodeOut,
    RevokedOut,
    RevokeIn,
    SpentOut,
)
from flashsale.web.ops import actor_of, limited
from flashsale.web.routing import PAGING, Call, Param, answer, page_after, page_limit, path_id, read_body

NUMBER_PATTERN: Final = "^[0-9]{1,15}$"
NOTE_MAX_CHARS: Final = 1_000

_fcodes_in: Final = msgspec.json.Decoder(FcodesIn)
_revoke_in: Final = msgspec.json.Decoder(RevokeIn)


def batch_id(request: web.Request) -> int:
    """The batch of the path; `Refused` when there can be none of that name."""
    text = request.match_info["batch"]
    if re.fullmatch("[1-9][0-9]{0,6}", text) is None:
        raise Refused("not_found", f"There is no batch {text[:64]!r}.")
    return int(text)


def _fields(b: Batch) -> dict[str, object]:
    return {
        "batch": str(b.id),
        "drop": b.drop,
        "allocation": b.allocation,
        "count": b.count,
        "bound": b.bound,
        "key": f"{b.key_version}:{b.key_fingerprint}",
        "created_at": b.created_at,
        "expires_at": b.expires_at,
        "revoked_at": b.revoked_at,
        "note": b.note,
    }


def _batch_out(b: Batch) -> BatchOut:
    return BatchOut(**_fields(b))  # type: ignore[arg-type]


def _counts_out(count: int, c: Counts) -> CountsOut:
    unspent = count - c.held - c.confirmed - c.returned - c.revoked
    return CountsOut(unspent, c.held, c.confirmed, c.returned, c.revoked)


async def mint(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`POST /v1/ops/drops/{drop}/allocations/{allocation}/fcodes`: JSON for bearer codes, CSV for bound ones."""
    drop, allocation = path_id(request, "drop"), path_id(request, "allocation")
    if request.content_type == "text/csv":
        batch = await context.batches.mint_bound(
            drop,
            allocation,
            owners_of(limited(request, context.settings.fcodes_body_max_bytes)),
            expires_at=_time(request.query.get("expires_at")),
            note=_note(request.query.get("note")),
            actor=actor_of(caller),
        )
    else:
        body = await read_body(request, _fcodes_in)
        batch = await context.batches.mint(
            drop,
            allocation,
            count=body.count,
            expires_at=body.expires_at,
            note=body.note,
            actor=actor_of(caller),
        )
    return answer(_batch_out(batch), 201, {"Location": f"/v1/ops/fcodes/{batch.id}"})


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found: datetime = msgspec.convert(text, Timestamp)
    except msgspec.ValidationError:
        raise Refused(
            "invalid_request",
            "`expires_at` is a time in RFC 3339 with its zone, like 2026-12-31T00:00:00%2B08:00 (a `+` as `%2B`).",
        ) from None
    return found


def _note(text: str | None) -> str | None:
    if text is not None and (len(text) > NOTE_MAX_CHARS or not text.isprintable()):
        raise Refused("invalid_request", f"`note` is one line of at most {NOTE_MAX_CHARS} characters.")
    return text or None


async def list_batches(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/ops/fcodes`: newest first."""
    after, limit = page_after(request, "^[1-9][0-9]{0,6}$"), page_limit(request)
    found = await context.ledger.fcodes.page(None if after is None else int(after), limit + 1)
    items = tuple(_batch_out(b) for b in found[:limit])
    return answer(BatchList(items, items[-1].batch if len(found) > limit else None))


async def get_batch(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/ops/fcodes/{batch}`: counts by state, and who spent when, by serial."""
    batch = await context.batches.get(batch_id(request))
    after, limit = page_after(request, NUMBER_PATTERN), page_limit(request)
    counts = await context.ledger.fcodes.counts(batch.id)
    spent = await context.ledger.fcodes.spent(batch.id, -1 if after is None else int(after), limit + 1)
    items = tuple(SpentOut(s.serial, s.reservation, s.member, s.state, s.at) for s in spent[:limit])
    following = str(items[-1].serial) if len(spent) > limit else None
    out = BatchDetailOut(
        **_fields(batch),  # type: ignore[arg-type]
        counts=_counts_out(batch.count, counts),
        spent=items,
        next=following,
    )
    return answer(out)


async def export(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`GET /v1/ops/fcodes/{batch}.csv`: the codes, streamed. An audited act."""
    batch, lines = await context.batches.export(
        batch_id(request), actor=actor_of(caller), reason=_note(request.query.get("reason"))
    )
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/csv; charset=utf-8",
            "Content-Disposition": f'attachment; filename="fcodes-{batch.id}.csv"',
            "Cache-Control": "no-store",
        }
    )
    await response.prepare(request)
    async for part in lines:
        await response.write(part)
    await response.write_eof()
    return response


async def revoke(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`POST /v1/ops/fcodes/{batch}/revoke`."""
    batch = batch_id(request)
    body = await read_body(request, _revoke_in)
    done = await context.batches.revoke(
        batch, serials=body.serials, to=body.to_allocation, reason=body.reason, actor=actor_of(caller)
    )
    count = (await context.batches.get(batch)).count
    return answer(RevokedOut(str(batch), done.revoked, _counts_out(count, done.counts)))


async def my_fcodes(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`GET /v1/me/fcodes`: the codes that belong to me, with what became of each."""
    after, limit = page_after(request, NUMBER_PATTERN), page_limit(request)
    found = await context.batches.mine(caller.member, None if after is None else int(after), limit + 1)
    items = tuple(
        OwnCodeOut(
            code=c.code,
            drop=c.own.batch.drop,
            allocation=c.own.batch.allocation,
            state=c.state,
            expires_at=c.own.batch.expires_at,
            note=c.own.note or c.own.batch.note,
            reservation=c.own.reservation,
        )
        for c in found[:limit]
    )
    following = str(found[limit - 1].own.number) if len(found) > limit else None
    return answer(OwnCodeList(items, following), headers={"Cache-Control": "private, no-store"})


_REASON: Final = Param("reason", "Why, for the audit log.", {"type": "string", "maxLength": NOTE_MAX_CHARS})
_EXPIRES: Final = Param(
    "expires_at", "With CSV: until when the codes are honoured.", {"type": "string", "format": "date-time"}
)
_NOTE: Final = Param("note", "With CSV: a note.", {"type": "string", "maxLength": NOTE_MAX_CHARS})
_call: Final = partial(Call, access="ops")

CALLS: Final = (
    _call(
        method="POST",
        path="/v1/ops/drops/{drop}/allocations/{allocation}/fcodes",
        handler=mint,
        summary="Mint F-codes: so many (JSON), or one for each member of a CSV file with the header `member_id[,note]`",
        body=FcodesIn,
        params=(_EXPIRES, _NOTE),
        answers={201: BatchOut},
        codes=("not_found", "conflict"),
    ),
    _call(
        method="GET",
        path="/v1/ops/fcodes",
        handler=list_batches,
        summary="Batches of F-codes, newest first",
        params=PAGING,
        answers={200: BatchList},
    ),
    _call(
        method="GET",
        path="/v1/ops/fcodes/{batch}.csv",
        act=True,
        handler=export,
        summary="The codes of a batch, as CSV with the header `code[,member_id,note]`",
        params=(_REASON,),
        answers={200: "text/csv"},
        codes=("not_found", "conflict"),
    ),
    _call(
        method="GET",
        path="/v1/ops/fcodes/{batch}",
        handler=get_batch,
        summary="One batch: its codes by state, and who spent when",
        params=PAGING,
        answers={200: BatchDetailOut},
        codes=("not_found",),
    ),
    _call(
        method="POST",
        path="/v1/ops/fcodes/{batch}/revoke",
        handler=revoke,
        summary="Honour a batch, or some of its codes, no more",
        body=RevokeIn,
        answers={200: RevokedOut},
        codes=("not_found", "conflict"),
    ),
    Call(
        method="GET",
        path="/v1/me/fcodes",
        handler=my_fcodes,
        summary="F-codes that belong to me",
        access="member",
        params=PAGING,
        answers={200: OwnCodeList},
        codes=("conflict",),
    ),
)
