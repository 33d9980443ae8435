"""The console's calls about points: snapshots, how many members qualify, a look at a file, imports under way."""

from functools import partial
from typing import Annotated, Final

import msgspec
from aiohttp import web

from flashsale.domain import ID_PATTERN, MEMBER_MAX, Timestamp
from flashsale.errors import Refused
from flashsale.points import Checked, check_points
from flashsale.web.auth import Identity
from flashsale.web.console import READER, number_param, query_number
from flashsale.web.console_imports import ImportOut, imports
from flashsale.web.context import Context
from flashsale.web.ops import limited
from flashsale.web.routing import PAGING, Call, answer, page_after, page_limit, path_id

Members = Annotated[int, msgspec.Meta(ge=0)]


class SnapshotItem(msgspec.Struct, frozen=True):
    """A points snapshot."""

    snapshot: str
    cutoff: Timestamp
    members: Members
    created_at: Timestamp
    created_by: str


class SnapshotList(msgspec.Struct, frozen=True):
    """A page of points snapshots, by name."""

    items: tuple[SnapshotItem, ...]
    next: str | None


class Threshold(msgspec.Struct, frozen=True):
    """How many members have at least so many points."""

    at_least: int
    members: Members


class ThresholdsOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """How many members qualify at each threshold of two digits and zeros that matters; and at the one asked."""

    snapshot: str
    members: Members
    thresholds: tuple[Threshold, ...]
    asked: Threshold | None = None


class ImportList(msgspec.Struct, frozen=True):
    """Imports that are under way."""

    items: tuple[ImportOut, ...]


async def snapshots(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/ops/points`."""
    after, limit = page_after(request, ID_PATTERN), page_limit(request)
    found = await context.ledger.console.snapshots(after, limit + 1)
    items = tuple(SnapshotItem(s.id, s.cutoff, s.members, s.created_at, s.created_by) for s in found[:limit])
    return answer(SnapshotList(items, items[-1].snapshot if len(found) > limit else None))


async def thresholds(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/ops/points/{snapshot}/thresholds`."""
    name, at_least = path_id(request, "snapshot"), query_number(request, "at_least", 0, MEMBER_MAX)
    snapshot = await context.ledger.points.snapshot(name)
    if snapshot is None:
        raise Refused("not_found", f"There is no points snapshot {name!r}.")
    found = await context.ledger.console.thresholds(name)
    asked = None if at_least is None else Threshold(at_least, await context.ledger.console.qualify(name, at_least))
    return answer(ThresholdsOut(name, snapshot.members, tuple(Threshold(p, m) for p, m in found), asked))


async def check(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`POST /v1/ops/points/check`: what an import would say, line by line. Nothing is stored, so nothing is audited."""
    return answer(await check_points(limited(request, context.settings.points_body_max_bytes)))


async def under_way(_request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/ops/points/imports`."""
    return answer(ImportList(tuple(await imports(context))))


_PATH: Final = "/v1/ops/points"
_read: Final = partial(Call, access=READER, method="GET")

CALLS: Final = (
    _read(
        path=_PATH, handler=snapshots, summary="Points snapshots, by name", params=PAGING, answers={200: SnapshotList}
    ),
    _read(
        path=f"{_PATH}/imports",
        handler=under_way,
        summary="Points imports that are under way, in all processes",
        answers={200: ImportList},
    ),
    Call(
        method="POST",
        path=f"{_PATH}/check",
        handler=check,
        summary="What an import would say of a points file: all lines that are wrong; nothing is stored",
        access=READER,
        body="text/csv",
        answers={200: Checked},
    ),
    _read(
        path=f"{_PATH}/{{snapshot}}/thresholds",
        handler=thresholds,
        summary="How many members qualify at each threshold",
        params=(number_param("at_least", "One more threshold to count.", 0, MEMBER_MAX),),
        answers={200: ThresholdsOut},
        codes=("not_found",),
    ),
)
