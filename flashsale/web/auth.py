"""Who is asking: bearer tokens (RFC 7519, 7515) become an `Identity`, or are refused with a sentence.

HS256 has a path of its own: a general library takes as long as the rest of a refused request. The path accepts nothing
that PyJWT refuses (the tests drive both side by side) and refuses a little more: padded base64url, dates that are not
JSON numbers, JSON outside RFC 8259. Of a JSON key given twice the last one counts, as in PyJWT.
EdDSA, RS256 and ES256 are verified by PyJWT under the keys of a JWKS; their claims go through the same checks.
The claims of the contract are checked, and `nbf` and `iat` where present; others (`aud` and `iss` too) have no effect.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, Final, Literal

import jwt
import msgspec

from flashsale.domain import MEMBER_MAX
from flashsale.errors import SetupError, Unauthenticated
from flashsale.web.jwks import ALGORITHMS, Jwks

Role = Literal["shopper", "ops", "ops-read", "payments"]

HEADER_MAX_BYTES: Final = 8_192
LEEWAY_S: Final = 30
SECRET_MIN_BYTES: Final = 32
KNOWN_HEADERS_MAX: Final = 64
_DOTS: Final = 2
_MEMBER_DIGITS: Final = len(str(MEMBER_MAX))


class Identity(msgspec.Struct, frozen=True, gc=False):
    """Who a valid token speaks for. `member` 1 … 2^63-1; `tier` 0 when the token names none."""

    member: int
    role: Role
    tier: int


class _Header(msgspec.Struct):
    alg: str
    kid: str | msgspec.UnsetType = msgspec.UNSET
    b64: bool = True
    crit: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_Date = int | float
_Tier = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Claims(msgspec.Struct, gc=False):
    sub: str
    exp: _Date
    nbf: _Date = 0
    iat: _Date = 0
    role: Role = "shopper"
    tier: _Tier = 0


_decode_header = msgspec.json.Decoder(_Header).decode
_decode_claims = msgspec.json.Decoder(_Claims).decode

_MALFORMED: Final = (
    "The token is not a JWT: three parts in base64url without padding, joined by dots, the first naming `alg`. "
    "Send it exactly as it was issued."
)
_BAD_SIGNATURE: Final = "The token's signature does not match. Get a new token from this service's issuer."
_BAD_SUB: Final = 'The token\'s `sub` must be the member id, a decimal string from "1" to "9223372036854775807".'
_EXPIRED: Final = "The token has expired. Get a new one."
_CLAIMS: Final[tuple[tuple[str, Any, str], ...]] = (
    ("sub", str, _BAD_SUB),
    ("exp", _Date, "The token must expire: `exp` must be a number, in seconds since 1970."),
    ("nbf", _Date, "The token's `nbf` must be a number, in seconds since 1970."),
    ("iat", _Date, "The token's `iat` must be a number, in seconds since 1970."),
    ("role", Role, "The token's `role` must be `ops`, `ops-read` or `payments`, or absent for a shopper."),
    ("tier", _Tier, "The token's `tier` must be an integer of at least 0, or absent."),
)
_REQUIRED: Final = frozenset({"sub", "exp"})

# base64url to base64 and back. Standard base64's own `+`, `/` and `=` become `!`, which strict decoding refuses.
_TO_STANDARD: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
_TO_URLSAFE: Final = bytes.maketrans(b"+/", b"-_")
# By length modulo 4: the padding left out, and which last characters leave no stray bits behind.
_PADDING: Final = (b"", b"", b"==", b"=")
_LAST: Final = (b"", b"", b"AQgw", b"AEIMQUYcgkosw048")


def _base64url(segment: bytes) -> bytes:
    """Decode canonical, unpadded base64url (RFC 7515 section 2); anything else is a `ValueError`."""
    tail = len(segment) & 3
    if tail and segment[-1] not in _LAST[tail]:
        raise ValueError("not canonical base64url")
    return a2b_base64(segment.translate(_TO_STANDARD) + _PADDING[tail], strict_mode=True)


def _json(segment: bytes) -> bytes:
    """Decode a segment that must hold UTF-8; msgspec does not look inside the strings it skips."""
    text = _base64url(segment)
    if not text.isascii():
        text.decode()
    return text


class Authenticator:
    """Turns an Authorization header into an `Identity`. `now` is the wall clock, in seconds since 1970."""

    def __init__(self, *, secret: str | None, jwks: Jwks | None, now: Callable[[], float]) -> None:
        if secret is None and jwks is None:
            raise SetupError("No token could be verified: set FLASHSALE_JWT_SECRET or FLASHSALE_JWKS.")
        self._hmac = None if secret is None else _Hmac(_hs256_key(secret))
        self._jwks = jwks
        self._now = now
        # Header segments that a valid HS256 signature has covered: only the issuer can add one.
        self._known_headers: set[bytes] = set()
        self._jws = jwt.PyJWS(algorithms=ALGORITHMS)

    def authenticate(self, header: str | None) -> Identity:
        """Say who sent this header; `Unauthenticated` says what is wrong and what to do, and never quotes the token."""
        if header is None:
            raise Unauthenticated("Send a token: `Authorization: Bearer <JWT>`.")
        if len(header) > HEADER_MAX_BYTES:
            raise Unauthenticated(
                f"The Authorization header is over {HEADER_MAX_BYTES} bytes long. Send a smaller token."
            )
        scheme, _, text = header.partition(" ")
        if scheme != "Bearer" and scheme.lower() != "bearer":
            raise Unauthenticated("The Authorization header must be the word `Bearer`, a space and a JWT.")
        token = text.encode("ascii", "replace")
        signing_input, _, signature = token.rpartition(b".")
        head, _, body = signing_input.partition(b".")
        if head not in self._known_headers or self._hmac is None or not self._hmac.signed(signing_input, signature):
            self._verify(token, signing_input, signature, head)
        return _identity(body, self._now())

    def _verify(self, token: bytes, signing_input: bytes, signature: bytes, head: bytes) -> None:
        """Verify a token whose header is not known yet, or say why a token is refused."""
        header = _read_header(head)
        if header is None or token.count(b".") != _DOTS or b"=" in token:
            raise Unauthenticated(_MALFORMED)
        if header.crit is not msgspec.UNSET or not header.b64:
            raise Unauthenticated("The token's header asks for an extension (`crit`, `b64`). Send a plain JWT.")
        if header.alg == "HS256" and self._hmac is not None:
            if not self._hmac.signed(signing_input, signature):
                raise Unauthenticated(_BAD_SIGNATURE)
            if len(self._known_headers) < KNOWN_HEADERS_MAX:
                self._known_headers.add(head)
        elif header.alg in ALGORITHMS and self._jwks is not None:
            key = self._jwks.find(header.alg, None if header.kid is msgspec.UNSET else header.kid)
            verified = False
            with suppress(jwt.PyJWTError):
                self._jws.decode_complete(token, key, algorithms=[header.alg])
                verified = True
            if not verified:
                raise Unauthenticated(_BAD_SIGNATURE)
        else:
            accepted = ("HS256",) * (self._hmac is not None) + ALGORITHMS * (self._jwks is not None)
            raise Unauthenticated(f"The token's `alg` is not accepted here. Sign it with {' or '.join(accepted)}.")


class _Hmac:
    """HMAC-SHA-256 (RFC 2104) with the key's blocks hashed once, which halves what `hmac.digest` takes for a token."""

    def __init__(self, key: bytes) -> None:
        size = hashlib.sha256().block_size
        block = (key if len(key) <= size else hashlib.sha256(key).digest()).ljust(size, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def signed(self, signing_input: bytes, signature: bytes) -> bool:
        """Compare in constant time, as text: what is not the canonical base64url of the right bytes differs."""
        inner = self._inner.copy()
        inner.update(signing_input)
        outer = self._outer.copy()
        outer.update(inner.digest())
        expected = b2a_base64(outer.digest(), newline=False).translate(_TO_URLSAFE)[:43]
        return hmac.compare_digest(expected, signature)


def _hs256_key(secret: str) -> bytes:
    """Return the secret's bytes; one that is too short, or is a public key, is a `SetupError`."""
    key = secret.encode("utf-8", "surrogateescape")
    if len(key) < SECRET_MIN_BYTES:
        raise SetupError(
            f"FLASHSALE_JWT_SECRET is {len(key)} bytes long; HS256 needs {SECRET_MIN_BYTES} or more. "
            "`openssl rand -base64 48` makes a good one."
        )
    try:
        return jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).prepare_key(key)
    except jwt.InvalidKeyError:
        raise SetupError(
            "FLASHSALE_JWT_SECRET is a key or certificate of another kind. Give public keys as FLASHSALE_JWKS."
        ) from None


def _read_header(head: bytes) -> _Header | None:
    try:
        return _decode_header(_json(head))
    except (ValueError, RecursionError):
        return None


def _read_claims(body: bytes) -> _Claims | None:
    try:
        return _decode_claims(_json(body))
    except (ValueError, RecursionError):
        return None


def _identity(body: bytes, now_s: float) -> Identity:
    """Check the claims of a token whose signature is good. Dates count in whole seconds, as in PyJWT."""
    claims = _read_claims(body)
    if claims is None:
        raise Unauthenticated(_complaint(body))
    member = int(claims.sub) if claims.sub.isdecimal() and len(claims.sub) <= _MEMBER_DIGITS else 0
    if not 1 <= member <= MEMBER_MAX or str(member) != claims.sub:
        raise Unauthenticated(_BAD_SUB)
    if int(claims.exp) <= now_s - LEEWAY_S:
        raise Unauthenticated(_EXPIRED)
    latest = now_s + LEEWAY_S
    if int(claims.nbf) > latest or int(claims.iat) > latest:
        raise Unauthenticated("The token is not valid yet (`nbf`, `iat`). Use it later, or correct the issuer's clock.")
    return Identity(member, claims.role, claims.tier)


def _complaint(body: bytes) -> str:
    """Name the first claim that is missing or wrong."""
    try:
        found = msgspec.json.decode(_json(body), type=dict[str, Any])
    except (ValueError, RecursionError):
        return "The token's second part must be a JSON object of claims, at least `sub` and `exp`."
    for name, kind, sentence in _CLAIMS:
        if name in found or name in _REQUIRED:
            try:
                msgspec.convert(found.get(name), kind)
            except msgspec.ValidationError:
                return sentence
    return "The token's claims cannot be read. Get a new token from this service's issuer."


def mint(secret: str, *, member: int, role: Role | None = None, tier: int | None = None, expires_at: float) -> str:
    """Sign an HS256 token for a member. `expires_at` in seconds since 1970; errors: `SetupError`, `ValueError`."""
    if not 1 <= member <= MEMBER_MAX:
        raise ValueError(f"member must be from 1 to {MEMBER_MAX}")
    if tier is not None and tier < 0:
        raise ValueError("tier must be at least 0")
    claims: dict[str, object] = {"sub": str(member), "exp": int(expires_at)}
    if role is not None:
        claims["role"] = role
    if tier is not None:
        claims["tier"] = tier
    header, body = (
        urlsafe_b64encode(msgspec.json.encode(part)).rstrip(b"=") for part in ({"alg": "HS256", "typ": "JWT"}, claims)
    )
    signing_input = header + b"." + body
    signature = hmac.digest(_hs256_key(secret), signing_input, "sha256")
    return (signing_input + b"." + urlsafe_b64encode(signature).rstrip(b"=")).decode()
