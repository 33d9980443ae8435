"""Tokens for tests: made well or badly; read by the service, by PyJWT, and by the contract's rules on claims."""

import base64
import hmac
import json
import re
from typing import Any, cast

import jwt
import pytest

from flashsale.errors import Unauthenticated
from flashsale.web.auth import Authenticator, Identity, Role

SECRET = "correct horse battery staple 0123"
OTHER_SECRET = "another secret of at least 32 bytes"
NOW = 1_800_000_000.0
LEEWAY_S = 30
MEMBER_MAX = 9_223_372_036_854_775_807
PLAIN_HEADER = {"alg": "HS256", "typ": "JWT"}
PLAIN_CLAIMS = {"sub": "1", "exp": NOW + 60}


def segment(data: bytes) -> bytes:
    """Encode as base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def signed(head: bytes, body: bytes, secret: str = SECRET) -> str:
    """Sign two segments as they are, well formed or not."""
    signature = hmac.digest(secret.encode(), head + b"." + body, "sha256")
    return (head + b"." + body + b"." + segment(signature)).decode("latin-1")


def token_of(claims: object, header: object = PLAIN_HEADER, secret: str = SECRET) -> str:
    """Sign any header and claims."""
    return signed(segment(json.dumps(header).encode()), segment(json.dumps(claims).encode()), secret)


def authenticator(secret: str = SECRET, now: float = NOW) -> Authenticator:
    """Make the service's reader of HS256 tokens, its clock standing still."""
    return Authenticator(secret=secret, jwks=None, now=lambda: now)


SHARED = authenticator()


def own(token: str, tokens: Authenticator = SHARED) -> Identity | None:
    """Say whom the service takes the token's sender for; None when it refuses."""
    try:
        return tokens.authenticate(f"Bearer {token}")
    except Unauthenticated:
        return None


def refusal(header: str | None, tokens: Authenticator | None = None) -> Unauthenticated:
    """Return the fault with which the service must refuse this header."""
    with pytest.raises(Unauthenticated) as caught:
        (tokens or authenticator()).authenticate(header)
    return caught.value


def by_library(token: str) -> dict[str, Any] | None:
    """Say which claims PyJWT accepts; None when it refuses."""
    options = {"require": ["exp", "sub"], "verify_aud": False, "verify_jti": False}
    try:
        return jwt.decode(token, SECRET, algorithms=["HS256"], leeway=LEEWAY_S, options=cast("Any", options))
    except jwt.PyJWTError:
        return None


def expected(token: str) -> Identity | None:
    """Say what PyJWT and the contract's rules on claims, written down once more, make of a token."""
    claims = by_library(token)
    if claims is None or "=" in token:
        return None
    sub, role, tier = claims["sub"], claims.get("role", "shopper"), claims.get("tier", 0)
    if not re.fullmatch("[1-9][0-9]{0,18}", sub) or int(sub) > MEMBER_MAX:
        return None
    if any(type(claims.get(date, 0)) not in {int, float} for date in ("exp", "nbf", "iat")):
        return None
    if role not in ("shopper", "ops", "payments") or type(tier) is not int or not 0 <= tier <= MEMBER_MAX:
        return None
    return Identity(int(sub), cast("Role", role), tier)
