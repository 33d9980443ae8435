"""The console's calls about rehearsals, and how the auditor is asked: as the command that it is, at the lowest rank."""

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web

from flashsale.domain import Timestamp
from flashsale.errors import Refused, Unavailable
from flashsale.ledger.rehearsals import Rehearsal, RehearsalState
from flashsale.rehearsals import MEMBERS_MAX, OPENS_IN_MAX_S, OVER_MAX_S, Asked
from flashsale.settings import PREFIX, Settings
from flashsale.web import ops
from flashsale.web.auth import Identity
from flashsale.web.console import READER
from flashsale.web.console_drops import the_drop
from flashsale.web.context import Context
from flashsale.web.orders import UUID_PATTERN, uuid_of
from flashsale.web.routing import PAGING, Call, answer, page_after, page_limit, path_id, read_body

AUDIT_MAX_S: Final = 120.0
SETTLE_S: Final = 15
SHOWN: Final = ("at", "true", "contradiction", "at_rest", "waited_s", "checks", "notes")


class RehearsalIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A crowd: so many simulated members press within `over_s` seconds after the copy's opening."""

    members: Annotated[int, msgspec.Meta(ge=1, le=MEMBERS_MAX)] = 200
    over_s: Annotated[float, msgspec.Meta(ge=1, le=OVER_MAX_S)] = 10.0
    opens_in_s: Annotated[float, msgspec.Meta(ge=0, le=OPENS_IN_MAX_S)] = 5.0
    confirm_share: Annotated[float, msgspec.Meta(ge=0, le=1, description="Of the holds.")] = 0.5


class Progress(msgspec.Struct, frozen=True):
    """How many have pressed, what they heard by word, how many holds were confirmed."""

    pressed: int
    heard: dict[str, int]
    confirmed: int


class RehearsalOut(msgspec.Struct, frozen=True):
    """A rehearsal; `copy` is the hidden drop that is sold, `audit` what the auditor says of it in the end."""

    id: str
    drop: str
    copy: str
    state: RehearsalState
    started_at: Timestamp
    ended_at: Timestamp | None
    by: str
    asked: dict[str, Any]
    progress: Progress
    audit: dict[str, Any] | None
    notes: tuple[str, ...]


class RehearsalList(msgspec.Struct, frozen=True):
    """A page of rehearsals, newest first."""

    items: tuple[RehearsalOut, ...]
    next: str | None


_rehearsal_in: Final = msgspec.json.Decoder(RehearsalIn)


def auditor(settings: Settings) -> Callable[[str], Coroutine[Any, Any, dict[str, Any]]]:
    """Lets the auditor look at a drop. It is another program, which shares no code with what it checks."""
    known = {"REDIS_URL": settings.redis_url, "DATABASE_URL": settings.database_url}
    environ = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environ |= {f"{PREFIX}{name}": value for name, value in known.items() if value is not None}
    nice = shutil.which("nice")
    before = (nice, "-n", "19") if nice is not None else ()

    async def audit(drop_id: str) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            *before,
            *(sys.executable, "-m", "flashsale", "audit", drop_id, "--json", "--settle-s", str(SETTLE_S)),
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(AUDIT_MAX_S):
                told, complaint = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        try:
            found = msgspec.json.decode(told, type=dict[str, Any])
        except msgspec.DecodeError:
            raise Unavailable(f"The auditor said nothing: {complaint.decode(errors='replace').strip()[:300]}") from None
        return {name: found.get(name) for name in SHOWN}

    return audit


def _out(r: Rehearsal) -> RehearsalOut:
    told = r.told
    progress = Progress(told.get("pressed", 0), told.get("heard", {}), told.get("confirmed", 0))
    notes = tuple(told.get("notes", ()))
    return RehearsalOut(
        id=r.id,
        drop=r.drop,
        copy=r.copy,
        state=r.state,
        started_at=r.started_at,
        ended_at=r.ended_at,
        by=r.actor,
        asked=r.asked,
        progress=progress,
        audit=told.get("audit"),
        notes=notes,
    )


async def _one(request: web.Request, context: Context) -> Rehearsal:
    drop_id, rehearsal = path_id(request, "drop"), uuid_of(request, "rehearsal", "rehearsal")
    found = await context.ledger.rehearsals.get(drop_id, rehearsal)
    if found is None:
        raise Refused("not_found", f"Drop {drop_id!r} has no rehearsal {rehearsal!r}.")
    return found


async def start(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`POST /v1/ops/drops/{drop}/rehearsals`."""
    body = await read_body(request, _rehearsal_in)
    drop = await the_drop(request, context)
    asked = Asked(body.members, body.over_s, body.opens_in_s, body.confirm_share)
    begun = await context.rehearsals.start(drop, asked, actor=ops.actor_of(caller))
    return answer(_out(begun), 202, {"Location": f"/v1/ops/drops/{drop.id}/rehearsals/{begun.id}"})


async def show(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/ops/drops/{drop}/rehearsals/{rehearsal}`."""
    return answer(_out(await _one(request, context)))


async def stop(request: web.Request, context: Context, caller: Identity) -> web.StreamResponse:
    """`POST /v1/ops/drops/{drop}/rehearsals/{rehearsal}/stop`: its crowd goes home within a second or two."""
    found = await _one(request, context)
    await context.ledger.rehearsals.stop(found.id, found.drop, actor=ops.actor_of(caller))
    return answer(_out(await _one(request, context)))


async def page(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/ops/drops/{drop}/rehearsals`."""
    after, limit = page_after(request, UUID_PATTERN), page_limit(request)
    drop = await the_drop(request, context)
    found = await context.ledger.rehearsals.page(drop.id, after, limit + 1)
    items = tuple(map(_out, found[:limit]))
    return answer(RehearsalList(items, items[-1].id if len(found) > limit else None))


_PATH: Final = "/v1/ops/drops/{drop}/rehearsals"
_change: Final = partial(Call, access="ops", method="POST")
_read: Final = partial(Call, access=READER, method="GET")

CALLS: Final = (
    _change(
        path=_PATH,
        handler=start,
        summary="Rehearse: sell a hidden copy of the drop to simulated members, and audit it",
        body=RehearsalIn,
        answers={202: RehearsalOut},
        codes=("not_found", "conflict"),
    ),
    _read(
        path=_PATH,
        handler=page,
        summary="Rehearsals of a drop, newest first",
        params=PAGING,
        answers={200: RehearsalList},
        codes=("not_found",),
    ),
    _read(
        path=f"{_PATH}/{{rehearsal}}",
        handler=show,
        summary="One rehearsal: how far it is, and what the auditor said",
        answers={200: RehearsalOut},
        codes=("not_found",),
    ),
    _change(
        path=f"{_PATH}/{{rehearsal}}/stop",
        handler=stop,
        summary="Stop a rehearsal",
        answers={200: RehearsalOut},
        codes=("not_found",),
    ),
)
