"""Signing in: by the forum's token, which comes by a redirect or in a header; or, for trying out, by choosing a member.

The forum knows its members; we take its word, a JWT as everywhere, and make a session of it that outlives the sale.
"""

import re
import secrets
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from aiohttp import web

from flashsale.domain import MEMBER_MAX
from flashsale.errors import Refused, Unauthenticated
from flashsale.web.auth import Identity, Role
from flashsale.web.context import Context
from flashsale.web.pages.serving import send
from flashsale.web.pages.site import Site
from flashsale.web.pages.words import LANGUAGES, Language
from flashsale.web.session import Sessions

STATE: Final = "flashsale-state"
STATE_S: Final = 900
"""How long the forum may take to send the browser back."""
_HERE: Final = re.compile(r"/(?:[A-Za-z0-9_-][A-Za-z0-9/_.?=&-]{0,300})?")
HOMES: Final = frozenset(f"/{language}/" for language in LANGUAGES)
"""Where who came from nowhere goes; operators to the console instead."""
DEMO: Final[tuple[tuple[int, Role, int], ...]] = (
    (1_000_000_000, "shopper", 0),
    (2_000_000_001, "shopper", 0),
    (2_000_000_002, "shopper", 1),
    (2_000_000_003, "shopper", 2),
    (1, "ops", 0),
    (2, "ops-read", 0),
)
"""Whom one may be where anybody may be anybody: member, role, tier."""


def here(text: str | None, language: Language) -> str:
    """Where to go after signing in: an address of this site, and of no other."""
    return text if text is not None and _HERE.fullmatch(text) and "//" not in text else f"/{language}/"


def _sessions(context: Context) -> Sessions:
    if context.sessions is None:
        raise Refused("not_found", "There are no sessions here: neither FLASHSALE_SESSION_SECRET nor a secret is set.")
    return context.sessions


def _enter(request: web.Request, site: Site, sessions: Sessions, identity: Identity, to: str) -> web.Response:
    if identity.role in {"ops", "ops-read"} and to in HOMES:
        to += "ops"
    headers = {**site.headers, "Location": to, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    response = web.Response(status=303, headers=headers)
    sessions.put(request, response, sessions.open(identity))
    return response


async def sign_in_page(request: web.Request, context: Context, site: Site, language: Language) -> web.StreamResponse:
    """`GET /{language}/sign-in?next=`."""
    sessions, settings = _sessions(context), context.settings
    to = here(request.query.get("next"), language)
    token = None if settings.sign_in_header is None else request.headers.get(settings.sign_in_header)
    if token is not None:
        return _enter(request, site, sessions, context.auth.authenticate(f"Bearer {token}"), to)
    if settings.sign_in_url is not None:
        return _to_forum(request, context, site, settings.sign_in_url, to)
    members = DEMO if settings.sign_in_demo else ()
    body = site.render("sign-in.html", language, next=to, members=members, secure=sessions.secure(request))
    return send(request, body, site.headers, cache="no-store")


def _to_forum(request: web.Request, context: Context, site: Site, url: str, to: str) -> web.Response:
    sessions, public_url = _sessions(context), context.settings.public_url
    state = secrets.token_urlsafe(18)
    own = public_url or f"{'https' if sessions.secure(request) else 'http'}://{request.host}"
    parts = urlsplit(url)
    query = urlencode({"return_to": f"{own}/sign-in/return", "state": state})
    target = urlunsplit(parts._replace(query=f"{parts.query}&{query}" if parts.query else query))
    response = web.Response(status=302, headers={**site.headers, "Location": target, "Cache-Control": "no-store"})
    response.set_cookie(
        STATE,
        f"{state}|{to}",
        max_age=STATE_S,
        path="/sign-in",
        httponly=True,
        secure=sessions.secure(request),
        samesite="Lax",
    )
    return response


async def sign_in_return(request: web.Request, context: Context, site: Site, language: Language) -> web.StreamResponse:
    """`GET /sign-in/return?token=&state=`: from the forum. The state tells that this browser set out from here."""
    sessions = _sessions(context)
    state, _, to = request.cookies.get(STATE, "").partition("|")
    if not state or not secrets.compare_digest(state.encode(), request.query.get("state", "").encode()):
        raise Unauthenticated("This did not begin here; sign in from our own page.")
    identity = context.auth.authenticate(f"Bearer {request.query.get('token', '')}")
    response = _enter(request, site, sessions, identity, here(to, language))
    response.del_cookie(STATE, path="/sign-in")
    return response


async def sign_in(request: web.Request, context: Context, site: Site, language: Language) -> web.StreamResponse:
    """`POST /sign-in` with `member` or `who`: only where anybody may be anybody."""
    sessions = _sessions(context)
    if not context.settings.sign_in_demo:
        raise Refused("not_found", "Here one signs in at the forum.")
    sessions.check_meant(request)
    form = await request.post()
    who, to = str(form.get("who") or form.get("member") or ""), str(form.get("next", ""))
    member = int(who) if who.isascii() and who.isdecimal() and len(who) <= len(str(MEMBER_MAX)) else 0
    if not 1 <= member <= MEMBER_MAX:
        raise Refused("invalid_request", f"A member is a number from 1 to {MEMBER_MAX}.")
    known = {m[0]: Identity(*m) for m in DEMO}
    return _enter(request, site, sessions, known.get(member, Identity(member, "shopper", 0)), here(to, language))


async def sign_out(request: web.Request, context: Context, site: Site, language: Language) -> web.StreamResponse:
    """`POST /sign-out`."""
    sessions = _sessions(context)
    sessions.check_meant(request)
    headers = {**site.headers, "Location": f"/{language}/", "Cache-Control": "no-store"}
    response = web.Response(status=303, headers=headers)
    sessions.remove(request, response)
    return response
