"""The audit log: who did what, when, on what, and why; to look through, and to take along."""

import csv
import io
import re
from functools import partial
from typing import Final

import msgspec
from aiohttp import web

from flashsale.domain import ID_PATTERN
from flashsale.errors import Refused
from flashsale.ledger import AuditLine
from flashsale.ledger.console import AuditWanted
from flashsale.web.auth import Identity
from flashsale.web.console import READER, query_time, time_param
from flashsale.web.context import Context
from flashsale.web.routing import PAGING, Call, Param, answer, page_after, page_limit
from flashsale.web.schemas import AuditList, AuditOut

SUBJECT_PATTERN: Final = f"{ID_PATTERN[:-1]}(/{ID_PATTERN[1:-1]})?$"
CURSOR_PATTERN: Final = "^[1-9][0-9]{0,17}$"
ACTOR_PATTERN: Final = "^(member:)?[1-9][0-9]{0,18}$"
ACTION_PATTERN: Final = r"^[a-z]{1,40}(\.[a-z]{1,40})?$"
EXPORT_PART: Final = 500
COLUMNS: Final = ("id", "at", "actor", "action", "subject", "detail")


def _matching(request: web.Request, name: str, pattern: str, what: str) -> str | None:
    text = request.query.get(name)
    if text is not None and re.fullmatch(pattern, text) is None:
        raise Refused("invalid_request", f"`{name}` is {what}; correct or omit it.")
    return text


def _wanted(request: web.Request) -> AuditWanted:
    actor = _matching(request, "actor", ACTOR_PATTERN, "an operator's member id, like `7` or `member:7`")
    return AuditWanted(
        subject=_matching(
            request, "subject", SUBJECT_PATTERN, "a drop's or a snapshot's id, an order's, or `drop/allocation`"
        ),
        actor=None if actor is None else f"member:{actor.removeprefix('member:')}",
        action=_matching(request, "action", ACTION_PATTERN, "an action, like `drop.pause`, or its first half"),
        since=query_time(request, "since"),
        until=query_time(request, "until"),
    )


async def audit(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/ops/audit`: newest first."""
    wanted = _wanted(request)
    after, limit = page_after(request, CURSOR_PATTERN), page_limit(request)
    lines = await context.ledger.console.audit(wanted, None if after is None else int(after), limit + 1)
    items = tuple(AuditOut(str(a.id), a.at, a.actor, a.action, a.subject, a.detail) for a in lines[:limit])
    return answer(AuditList(items, items[-1].id if len(lines) > limit else None))


def _rows(lines: list[AuditLine]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for a in lines:
        writer.writerow((a.id, a.at.isoformat(), a.actor, a.action, a.subject, msgspec.json.encode(a.detail).decode()))
    return text.getvalue().encode()


async def export(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/ops/audit.csv`: the same as a file, streamed, newest first."""
    wanted = _wanted(request)
    lines = await context.ledger.console.audit(wanted, None, EXPORT_PART)
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/csv; charset=utf-8",
            "Content-Disposition": 'attachment; filename="audit.csv"',
            "Cache-Control": "no-store",
        }
    )
    await response.prepare(request)
    await response.write(",".join(COLUMNS).encode() + b"\n")
    while lines:
        await response.write(_rows(lines))
        if len(lines) < EXPORT_PART:
            break
        lines = await context.ledger.console.audit(wanted, lines[-1].id, EXPORT_PART)
    await response.write_eof()
    return response


_FILTERS: Final = (
    Param(
        "subject",
        "Only what was done to this: a drop with its allocations, one allocation (`drop/allocation`), or a snapshot.",
        {"type": "string", "pattern": SUBJECT_PATTERN},
    ),
    Param("actor", "Only by this operator: `7` or `member:7`.", {"type": "string", "pattern": ACTOR_PATTERN}),
    Param("action", "Only this: `drop.pause`, or all of `drop`.", {"type": "string", "pattern": ACTION_PATTERN}),
    time_param("since", "Not before this."),
    time_param("until", "Before this."),
)
_read: Final = partial(Call, access=READER, method="GET")

CALLS: Final = (
    _read(
        path="/v1/ops/audit",
        handler=audit,
        summary="The audit log, newest first",
        params=(*_FILTERS, *PAGING),
        answers={200: AuditList},
    ),
    _read(
        path="/v1/ops/audit.csv",
        handler=export,
        summary=f"The audit log as CSV with the header `{','.join(COLUMNS)}`",
        params=_FILTERS,
        answers={200: "text/csv"},
    ),
)
