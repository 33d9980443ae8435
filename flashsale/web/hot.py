"""The hot path: one press of the button, from the bytes of the request to the bytes of the answer.

It is dispatched before routing and middleware, which cost as much as all that is done here, and does what they
would do: reads token, key and body, and turns refusals and faults into problem documents.
"""

import math
import random
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.streams import StreamReader
from aiohttp.web_request import BaseRequest

from flashsale.domain import Claim, Drop, Refusal, Reservation, State, Verdict
from flashsale.errors import Refused
from flashsale.reservations import Held, Known, Outcome
from flashsale.spending import Limited
from flashsale.web import problems
from flashsale.web.auth import Identity
from flashsale.web.context import Context
from flashsale.web.prepared import Prepared, Template
from flashsale.web.routing import check_id, decode_body, idempotency_key
from flashsale.web.schemas import ReservationOut, ReserveIn

PREFIX: Final = "/v1/drops/"
SUFFIX: Final = "/reservations"

_DETAILS: Final = {
    Verdict.IDEMPOTENCY_MISMATCH: "This Idempotency-Key names another request of yours; take a new key.",
    Verdict.NOT_FOUND: "This drop has no such allocation; GET /v1/drops/{drop} lists them.",
    Verdict.CLOSED: "This sale is over.",
    Verdict.NOT_ELIGIBLE: "You are not entitled to this; GET /v1/me/eligibility?drop=… says why.",
    Verdict.FCODE_INVALID: "This F-code is not valid here; check it, or buy without one.",
    Verdict.FCODE_SPENT: "This F-code has been used.",
    Verdict.MEMBER_LIMIT: "You have as many as one member may buy; GET /v1/me/reservations lists them.",
    Verdict.SOLD_OUT: "All units are taken. Units of cancelled or expired reservations may come back.",
    Verdict.PAUSED: "The sale is paused; repeat the same request in a moment.",
}
_encode: Final = msgspec.json.Encoder().encode
decoder: Final = msgspec.json.Decoder(ReserveIn)
_created: Final = Template(201, "application/json")
_known: Final = Template(200, "application/json")


PAUSED_RETRY_S: Final = (2, 3, 4, 5)
"""One of these is told to each: a crowd that waits must not come back all at once."""


def _refusal(verdict: Verdict, **headers: str) -> Prepared:
    template = Template(problems.STATUS[verdict.value], problems.CONTENT_TYPE, **headers)
    return template.answer(problems.document(verdict.value, _DETAILS[verdict]))


_REFUSALS: Final[dict[Verdict, Prepared]] = {
    verdict: _refusal(verdict) for verdict in _DETAILS if verdict is not Verdict.PAUSED
}
_PAUSED: Final = [_refusal(Verdict.PAUSED, Retry_After=str(seconds)) for seconds in PAUSED_RETRY_S]


@lru_cache(maxsize=256)
def _not_open(opens_at_ms: int, retry_after_s: int) -> Prepared:
    opens_at = _rfc3339(opens_at_ms)
    body = problems.document("not_open", f"This opens at {opens_at}; press again then.", opens_at=opens_at)
    return Template(403, problems.CONTENT_TYPE, Retry_After=str(retry_after_s)).answer(body)


def _rfc3339(ms: int) -> str:
    seconds, rest = divmod(ms, 1000)
    fraction = f".{rest:03d}" if rest else ""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + fraction + "Z"


def reservation_out(r: Reservation) -> ReservationOut:
    """A reservation as the contract shows it."""
    order = msgspec.UNSET if r.order is None else r.order
    return ReservationOut(r.id, r.drop, r.allocation, r.member, r.quantity, r.state, r.expires_at, order)


def drop_of_path(path: str) -> str | None:
    """The drop in `/v1/drops/{drop}/reservations`, or None when the path is not exactly that."""
    if path.startswith(PREFIX) and path.endswith(SUFFIX):
        drop_id = path[len(PREFIX) : -len(SUFFIX)]
        if "/" not in drop_id and "%" not in drop_id and "?" not in drop_id:
            return drop_id
    return None


def whole(content: StreamReader, max_bytes: int) -> bytes:
    """A body that has come in full."""
    body = content.read_nowait()
    if len(body) > max_bytes:
        raise web.HTTPRequestEntityTooLarge(max_bytes, len(body))
    return body


async def read_at_once(request: BaseRequest, max_bytes: int) -> bytes:
    """The body: at once when it came together with the headers, as a press of the button does."""
    return whole(request.content, max_bytes) if request.content.is_eof() else await request.read()


async def reserve(request: BaseRequest, context: Context, drop_id: str) -> web.StreamResponse:
    """`POST /v1/drops/{drop}/reservations`: 201, 200 or a refusal. The ordinary way; most take the one in `express`."""
    try:
        identity = context.auth.authenticate(request.headers.get("Authorization"))
        wanted = decode_body(await read_at_once(request, context.settings.body_max_bytes), decoder)
        drop = context.catalog.known(drop_id) or await context.catalog.get(check_id(drop_id))
        if drop is None:
            raise Refused("not_found", f"There is no drop {drop_id!r}.")
        peername = request.transport.get_extra_info("peername") if request.transport is not None else None
        found = claimed(context, drop, identity, wanted, headers=request.headers, peername=peername)
        if isinstance(found, Claim):
            outcome = await context.reservations.reserve(drop_id, found)
            done = verdict(context, drop_id, found, outcome, peername=peername)
        else:
            done = answer(context, drop_id, found)
    except Exception as error:  # noqa: BLE001 -- the last line before the client: nothing may leave without an answer
        return problems.answer_to(request, error)
    return done if request.keep_alive else done.closing()


def claimed(
    context: Context,
    drop: Drop,
    identity: Identity,
    wanted: ReserveIn,
    *,
    headers: Mapping[str, str],
    peername: object,
) -> Claim | Refusal | Limited:
    """What the gate is asked, or why it is not: all that needs no store.

    A code that we did not make is refused here: a flood of guesses reaches no store.
    """
    if wanted.quantity > drop.per_member:
        raise Refused("invalid_request", f"`quantity` is at most {drop.per_member} in this drop (`per_member`).")
    key = idempotency_key(headers)
    if wanted.fcode is None:
        return Claim(identity.member, wanted.allocation, wanted.quantity, key, identity.tier)
    if wanted.quantity != 1:
        raise Refused("invalid_request", "An F-code buys one unit: `quantity` is 1 with it.")
    code = context.spending.read(wanted.fcode, member=identity.member, address=address_of(peername))
    if isinstance(code, Limited):
        return code
    if code is not None:
        return Claim(identity.member, wanted.allocation, 1, key, identity.tier, code)
    if wanted.allocation is not None and drop.allocation(wanted.allocation) is None:
        return Refusal(Verdict.NOT_FOUND)
    return Refusal(Verdict.CLOSED if drop.closed else Verdict.PAUSED if drop.paused else Verdict.FCODE_INVALID)


def verdict(context: Context, drop_id: str, claim: Claim, outcome: Outcome, *, peername: object) -> Prepared:
    """The verdict, as it is sent. A genuine code that is refused as none counts as a failed try, too."""
    if claim.code is not None and isinstance(outcome, Refusal) and outcome.verdict is Verdict.FCODE_INVALID:
        context.spending.refused(member=claim.member, address=address_of(peername))
    return answer(context, drop_id, outcome)


def address_of(peername: object) -> str | None:
    """The client's address; None on a Unix socket."""
    return str(peername[0]) if isinstance(peername, tuple) else None


@lru_cache(maxsize=256)
def _rate_limited(retry_after_s: int) -> Prepared:
    detail = "Too many F-codes that are not valid; check the code, and try again when Retry-After is over."
    return Template(429, problems.CONTENT_TYPE, Retry_After=str(retry_after_s)).answer(
        problems.document("rate_limited", detail)
    )


def answer(context: Context, drop_id: str, outcome: Held | Known | Refusal | Limited) -> Prepared:
    """An outcome as it is sent."""
    match outcome:
        case Limited(seconds=seconds):
            return _rate_limited(max(1, math.ceil(seconds)))
        case Refusal(verdict=Verdict.NOT_OPEN, opens_at_ms=int(opens_at_ms)):
            left_s = (opens_at_ms - context.reservations.gate_now_ms()) / 1000
            return _not_open(opens_at_ms, max(1, math.ceil(left_s)))
        case Refusal(verdict=Verdict.PAUSED):
            return random.choice(_PAUSED)  # noqa: S311 -- spreads, and keeps nothing secret
        case Refusal(verdict=verdict):
            return _REFUSALS[verdict]
        case Held(grant=g, expires_at=expires_at):
            out = ReservationOut(g.id, drop_id, g.allocation, g.member, g.quantity, State.HELD, expires_at)
            return _created.answer(_encode(out))
        case Known(reservation=found):
            return _known.answer(_encode(reservation_out(found)))
