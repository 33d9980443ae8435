"""Calls, declared once: the router and `/openapi.json` are both made out of these."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, TypeVar

import msgspec
from aiohttp import web
from aiohttp.web_request import BaseRequest

from flashsale.domain import ID_PATTERN, IDEMPOTENCY_KEY_MAX_CHARS
from flashsale.errors import Refused
from flashsale.web.auth import Identity
from flashsale.web.context import Context
from flashsale.web.session import SAFE

Access = Literal["public", "probe", "member", "ops"]
Handler = Callable[[web.Request, Context, Identity], Awaitable[web.StreamResponse]]
CONTEXT: Final = web.AppKey("context", Context)
NOBODY: Final = Identity(member=0, role="shopper", tier=0)
PAGE_DEFAULT: Final = 50
PAGE_MAX: Final = 500
Body = TypeVar("Body")

_CHARS_MAX: Final = IDEMPOTENCY_KEY_MAX_CHARS
KEY_PATTERN: Final = rf'^(?:"((?:[ !#-\[\]-~]|\\["\\]){{1,{_CHARS_MAX}}})"|([!#-~]{{1,{_CHARS_MAX}}}))$'
_KEY: Final = re.compile(KEY_PATTERN)


class Param(msgspec.Struct, frozen=True):
    """A query parameter or header of a call."""

    name: str
    description: str
    schema: dict[str, Any]
    where: Literal["query", "header"] = "query"
    required: bool = False


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call of the contract. `codes` are the problem codes it may answer beside the general ones.

    `act` says of a GET that it is an act of an operator all the same, which who may only read may not do.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    access: Access
    answers: dict[int, type | str]
    body: type | Literal["text/csv", "application/octet-stream"] | None = None
    params: tuple[Param, ...] = ()
    codes: tuple[str, ...] = ()
    act: bool = False

    @property
    def reads(self) -> bool:
        """Whether it changes nothing."""
        return self.method == "GET" and not self.act


PAGING: Final = (
    Param("after", "Cursor of the page before: its `next`.", {"type": "string", "maxLength": 200}),
    Param(
        "limit", "How many at most.", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT}
    ),
)


def register(app: web.Application, calls: tuple[Call, ...]) -> None:
    """Put the calls on the router, each behind its check of who calls."""
    for call in calls:
        if call.method == "GET":
            app.router.add_get(call.path, _guarded(call))  # HEAD, too
        else:
            app.router.add_route(call.method, call.path, _guarded(call))


def _guarded(call: Call) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        context = request.app[CONTEXT]
        return await call.handler(request, context, identify(request, context, call.access, reads=call.reads))

    return handle


def caller_of(request: BaseRequest, context: Context, *, reads: bool = False) -> Identity:
    """Who calls: by the token or, without one, by the session of the pages. `Unauthenticated` when there is neither.

    A browser adds the session to whatever a page of any site makes it ask for. So a request by session that does not
    only read must come from our own pages; `Refused` otherwise.
    """
    header = request.headers.get("Authorization")
    if header is None and context.sessions is not None:
        session = context.sessions.of(request)
        if session is not None:
            if not reads or request.method not in SAFE:
                context.sessions.check_meant(request)
            return session.identity
    return context.auth.authenticate(header)


def identify(request: web.Request, context: Context, access: Access, *, reads: bool = False) -> Identity:
    """Who calls, and whether they may; `Refused` or `Unauthenticated` otherwise."""
    if access == "public":
        return NOBODY
    if access == "probe":
        if not context.settings.public_probes and not _from_loopback(request):
            raise Refused("forbidden", "This is answered to the loopback only; FLASHSALE_PUBLIC_PROBES=1 opens it.")
        return NOBODY
    identity = caller_of(request, context, reads=reads)
    if access == "ops" and identity.role != "ops" and not (reads and identity.role == "ops-read"):
        also = " or `ops-read`" if reads else ""
        raise Refused("forbidden", f"This call needs a token with the role `ops`{also}.")
    return identity


def _from_loopback(request: web.Request) -> bool:
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    if not isinstance(peer, tuple):
        return True  # a Unix socket
    host = str(peer[0])
    return host == "::1" or host.startswith(("127.", "::ffff:127."))


async def read_body(request: web.Request, decoder: msgspec.json.Decoder[Body]) -> Body:
    """The JSON body; what is wrong with it is `Refused("invalid_request")` with the place and the reason."""
    return decode_body(await request.read(), decoder)


def decode_body(body: bytes, decoder: msgspec.json.Decoder[Body]) -> Body:
    """The same, from bytes. An empty body stands for `{}`."""
    try:
        return decoder.decode(body or b"{}")
    except msgspec.ValidationError as error:
        raise Refused("invalid_request", f"The body does not fit: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused("invalid_request", f"The body is not valid JSON: {error}.") from None


def idempotency_key(headers: Mapping[str, str]) -> str | None:
    """The `Idempotency-Key`, bare or quoted; None when absent."""
    header = headers.get("Idempotency-Key")
    if header is None:
        return None
    found = _KEY.fullmatch(header)
    if found is None:
        raise Refused(
            "invalid_request",
            f"Idempotency-Key takes 1 to {IDEMPOTENCY_KEY_MAX_CHARS} visible ASCII characters, bare or quoted.",
        )
    quoted, bare = found.groups()
    return bare if quoted is None else quoted.replace('\\"', '"').replace("\\\\", "\\")


def page_after(request: web.Request, pattern: str) -> str | None:
    """`after` of a list, whose cursors match `pattern`."""
    after = request.query.get("after")
    if after is not None and re.fullmatch(pattern, after) is None:
        raise Refused("invalid_request", "`after` is not a cursor of this list; use the `next` of the page before.")
    return after


def page_limit(request: web.Request) -> int:
    """`limit` of a list."""
    text = request.query.get("limit")
    if text is None:
        return PAGE_DEFAULT
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:6]) <= PAGE_MAX:
        raise Refused("invalid_request", f"`limit` is a number from 1 to {PAGE_MAX}.")
    return int(text)


def path_id(request: web.Request, name: Literal["drop", "allocation", "snapshot"]) -> str:
    """An id in the path; `Refused` when nothing can be called that."""
    return check_id(request.match_info[name])


def check_id(text: str) -> str:
    """The id of a drop, an allocation or a snapshot; `Refused` when nothing can be called that."""
    if re.fullmatch(ID_PATTERN, text) is None:
        raise Refused(
            "not_found", f"Nothing is called {text[:64]!r}: ids are 1 to 63 small letters, digits and hyphens."
        )
    return text


def required_query(request: web.Request, name: str) -> str:
    """A query parameter that must be there."""
    value = request.query.get(name)
    if not value:
        raise Refused("invalid_request", f"The query parameter `{name}` is missing.")
    return value


_encode: Final = msgspec.json.Encoder().encode


def answer(body: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(body=_encode(body), status=status, content_type="application/json", headers=headers)


__all__ = [
    "CONTEXT",
    "KEY_PATTERN",
    "PAGING",
    "Call",
    "Param",
    "answer",
    "caller_of",
    "check_id",
    "decode_body",
    "idempotency_key",
    "identify",
    "page_after",
    "page_limit",
    "path_id",
    "read_body",
    "register",
    "required_query",
]
