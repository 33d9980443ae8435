"""Sessions of the pages: a signed cookie that scripts cannot read, and the check that a request was meant.

The cookie holds who it speaks for and until when, signed; nothing is stored. It goes to this site alone (SameSite),
over HTTPS alone, except on the loopback, where browsers have no HTTPS and nobody listens. A page that is the same for
everybody can carry no token against forged requests, so a request that changes something says where it comes from:
browsers send Sec-Fetch-Site or Origin, and a script on another site can forge neither.
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Final
from urllib.parse import SplitResult, urlsplit

import msgspec
from aiohttp import web
from aiohttp.web_request import BaseRequest

from flashsale.domain import MEMBER_MAX
from flashsale.errors import Refused
from flashsale.web.auth import Identity, Role

COOKIE: Final = "flashsale"
SECURE_COOKIE: Final = "__Host-flashsale"
"""A browser takes a cookie of that prefix only from this very host, over HTTPS."""
HINT: Final = "flashsale-in"
"""Beside it, and for scripts: somebody is signed in, so asking for what is personal has a point. It proves nothing."""
COOKIE_MAX_CHARS: Final = 512
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOPBACK: Final = frozenset({"localhost", "::1"})


class Session(msgspec.Struct, frozen=True, array_like=True):
    """Who signed in, when, and until when it holds; times in seconds since 1970."""

    member: Annotated[int, msgspec.Meta(ge=1, le=MEMBER_MAX)]
    role: Role
    tier: int
    since: int
    until: int

    @property
    def identity(self) -> Identity:
        """Whom it speaks for."""
        return Identity(self.member, self.role, self.tier)

    @property
    def ends_at(self) -> datetime:
        """When it ends."""
        return datetime.fromtimestamp(self.until, UTC)


_decode: Final = msgspec.json.Decoder(Session).decode


class Sessions:
    """Makes, reads and renews sessions. `now` is the wall clock, seconds since 1970."""

    def __init__(
        self, key: bytes, *, session_s: int, session_max_s: int, now: Callable[[], float], public_url: str | None = None
    ) -> None:
        self._key = hmac.digest(key, b"flashsale: sessions of the pages", hashlib.sha256)
        self._session_s = session_s
        self._max_s = session_max_s
        self._now = now
        self._public = None if public_url is None else urlsplit(public_url)

    def open(self, identity: Identity) -> Session:
        """A new session."""
        now = int(self._now())
        return Session(identity.member, identity.role, identity.tier, now, now + min(self._session_s, self._max_s))

    def renewed(self, session: Session, needed_until_s: float = 0) -> Session | None:
        """The session made longer, for a visit or until that time; None while that is not needed, or not allowed."""
        now = int(self._now())
        wanted = max(now + self._session_s, int(needed_until_s))
        until = min(session.since + self._max_s, wanted)
        worth = until > session.until and (session.until < needed_until_s or session.until - now < self._session_s / 2)
        return msgspec.structs.replace(session, until=until) if worth else None

    def text(self, session: Session) -> str:
        """The cookie's value."""
        body = _base64(msgspec.json.encode(session))
        return f"{body}.{self._signature(body)}"

    def read(self, text: str) -> Session | None:
        """The session of a cookie that we made and that holds still."""
        body, _, signature = text.partition(".")
        if (
            len(text) > COOKIE_MAX_CHARS
            or not text.isascii()
            or not hmac.compare_digest(self._signature(body), signature)
        ):
            return None
        session = _decode(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return session if session.until > self._now() else None

    def of(self, request: BaseRequest) -> Session | None:
        """The session of a request, if it has one."""
        text = request.cookies.get(SECURE_COOKIE if self.secure(request) else COOKIE)
        return None if text is None else self.read(text)

    def secure(self, request: BaseRequest) -> bool:
        """Whether cookies are for HTTPS only: always, but for a site that is asked for under a loopback name."""
        if self._public is not None:
            return self._public.scheme == "https" or not _is_loopback(self._public.hostname)
        return not _is_loopback(_parts(f"//{request.host}").hostname)

    def put(self, request: BaseRequest, response: web.StreamResponse, session: Session) -> None:
        """Set the cookie."""
        secure = self.secure(request)
        max_age = max(0, session.until - int(self._now()))
        name = SECURE_COOKIE if secure else COOKIE
        response.set_cookie(
            name, self.text(session), max_age=max_age, path="/", httponly=True, secure=secure, samesite="Lax"
        )
        response.set_cookie(HINT, "1", max_age=max_age, path="/", secure=secure, samesite="Lax")

    def remove(self, request: BaseRequest, response: web.StreamResponse) -> None:
        """Take the cookie away."""
        secure = self.secure(request)
        name = SECURE_COOKIE if secure else COOKIE
        response.del_cookie(name, path="/", httponly=True, secure=secure, samesite="Lax")
        response.del_cookie(HINT, path="/", secure=secure, samesite="Lax")

    def check_meant(self, request: BaseRequest) -> None:
        """`Refused` when a request does not come from our own pages."""
        site = request.headers.get("Sec-Fetch-Site")
        if site is not None:
            meant = site == "same-origin"
        else:
            origin = _parts(request.headers.get("Origin", ""))
            hosts = {request.host} if self._public is None else {request.host, self._public.netloc}
            meant = origin.netloc != "" and origin.netloc in hosts
        if not meant:
            raise Refused("forbidden", "This came from another site, so nothing was done; use this site's own pages.")

    def _signature(self, body: str) -> str:
        return _base64(hmac.digest(self._key, body.encode(), hashlib.sha256))


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _parts(address: str) -> SplitResult:
    """The parts of an address; of one that is none, nothing."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _is_loopback(host: str | None) -> bool:
    return host is not None and (host in _LOOPBACK or host.startswith("127.") or host.endswith(".localhost"))
