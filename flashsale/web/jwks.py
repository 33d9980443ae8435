"""The issuer's public keys (a JWK set, RFC 7517): from a file or a URL, kept fresh, each bound to one algorithm."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

import aiohttp
import jwt
import msgspec
import structlog

from flashsale.errors import SetupError, Unauthenticated

Fetch = Callable[[str], Awaitable[bytes]]

ALGORITHMS: Final = ("EdDSA", "RS256", "ES256")
JWKS_MAX_BYTES: Final = 1_048_576
JWKS_TIMEOUT_S: Final = 5.0
JWKS_PERIOD_S: Final = 300.0
JWKS_RETRY_S: Final = 30.0

_ALGORITHM_OF: Final = {("OKP", "Ed25519"): "EdDSA", ("RSA", None): "RS256", ("EC", "P-256"): "ES256"}

log = structlog.get_logger(__name__)


class Jwks:
    """The issuer's public keys; the last good set stays while its source is unreachable.

    `now` is a monotonic clock in seconds. `run()` reads the source again every `period_s`, and soon after a token named
    an unknown key, but for that reason at most once per `JWKS_RETRY_S`.
    """

    def __init__(self, source: str, fetch: Fetch, *, now: Callable[[], float], period_s: float = JWKS_PERIOD_S) -> None:
        self._source = source
        self._fetch = fetch
        self._now = now
        self._period_s = period_s
        self._keys: tuple[jwt.PyJWK, ...] = ()
        self._tried_at = now()
        self._wanted = asyncio.Event()

    @classmethod
    async def load(
        cls, source: str, fetch: Fetch, *, now: Callable[[], float], period_s: float = JWKS_PERIOD_S
    ) -> Self:
        """Read the keys for the first time; a source that cannot be read or used is a `SetupError`."""
        jwks = cls(source, fetch, now=now, period_s=period_s)
        try:
            await jwks._read()
        except (OSError, aiohttp.ClientError, ValueError) as error:
            reason = _reason(error)
            raise SetupError(f"FLASHSALE_JWKS cannot be read ({reason}). Give a readable file or URL.") from None
        return jwks

    def find(self, alg: str, kid: str | None) -> jwt.PyJWK:
        """Return the key a token names; without a `kid`, the only key for its algorithm. Else `Unauthenticated`."""
        named = [key for key in self._keys if kid is None or key.key_id == kid]
        fitting = [key for key in named if key.algorithm_name == alg]
        if len(fitting) == 1 or (fitting and kid is not None):
            return fitting[0]
        if fitting:
            raise Unauthenticated("The token must name its key by `kid`: this service trusts several of that kind.")
        if kid is not None and named:
            raise Unauthenticated("The token's `alg` does not fit the key that its `kid` names.")
        if self._now() - self._tried_at >= JWKS_RETRY_S:
            self._wanted.set()
        raise Unauthenticated(
            "The token is signed with a key that this service does not know. Get a new token from its issuer; "
            f"if the issuer has just changed keys, repeat the request in {JWKS_RETRY_S:.0f} seconds."
        )

    async def refresh(self) -> bool:
        """Read the source again: True when its keys are now in use, False when it failed and the old ones stay."""
        try:
            await self._read()
        except (OSError, aiohttp.ClientError, ValueError, SetupError) as error:
            log.warning("jwks_refresh_failed", reason=_reason(error), keys_kept=len(self._keys))
            return False
        return True

    async def run(self) -> None:
        """Refresh whenever it is due, until cancelled."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), self._period_s)
            await self.refresh()

    async def _read(self) -> None:
        self._tried_at = self._now()
        self._wanted.clear()
        self._keys = _trusted_keys(await self._fetch(self._source))


def fetch_with(session: aiohttp.ClientSession) -> Fetch:
    """Read a JWKS from an http(s) URL, or from a file by path or `file:` URL.

    At most `JWKS_MAX_BYTES` within `JWKS_TIMEOUT_S`; a redirect is not followed: keys are trusted by their address.
    Errors: `OSError` (time-outs too), `aiohttp.ClientError`, `ValueError`.
    """

    async def fetch(source: str) -> bytes:
        if urlsplit(source).scheme in {"http", "https"}:
            body = await _get(session, source)
        else:
            body = await asyncio.to_thread(_read_file, source.removeprefix("file://"))
        if len(body) > JWKS_MAX_BYTES:
            raise ValueError(f"it is larger than {JWKS_MAX_BYTES} bytes")
        return body

    return fetch


async def _get(session: aiohttp.ClientSession, url: str) -> bytes:
    timeout = aiohttp.ClientTimeout(total=JWKS_TIMEOUT_S)
    async with session.get(url, timeout=timeout, allow_redirects=False) as answer:
        if answer.status != HTTPStatus.OK:
            raise ValueError(f"it answered with status {answer.status}")
        body = bytearray()
        async for chunk in answer.content.iter_chunked(65_536):
            body += chunk
            if len(body) > JWKS_MAX_BYTES:
                break
        return bytes(body)


def _read_file(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(JWKS_MAX_BYTES + 1)


def _reason(error: Exception) -> str:
    """Say why without quoting a URL, which may carry a password."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return type(error).__name__ if isinstance(error, aiohttp.ClientError) else str(error)


def _trusted_keys(body: bytes) -> tuple[jwt.PyJWK, ...]:
    """Take the keys that may verify tokens out of a JWK set (RFC 7517); a set with none is a `SetupError`."""
    try:
        members = msgspec.json.decode(body, type=dict[str, Any]).get("keys")
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, list):
        raise SetupError('FLASHSALE_JWKS does not hold a JWK set: a JSON object `{"keys": [...]}`.')
    keys = tuple(key for member in members if (key := _trusted_key(member)) is not None)
    if not keys:
        raise SetupError(
            "FLASHSALE_JWKS holds no key for EdDSA (Ed25519), RS256 (at least 2,048 bits) or ES256 (P-256)."
        )
    return keys


def _trusted_key(member: object) -> jwt.PyJWK | None:
    """Build one verification key, its algorithm bound to its type; None for keys of other kinds and uses."""
    if not isinstance(member, dict):
        return None
    found = [alg for kind, alg in _ALGORITHM_OF.items() if kind == (member.get("kty"), member.get("crv"))]
    operations = member.get("key_ops", ["verify"])
    if not found or member.get("alg", found[0]) != found[0] or member.get("use", "sig") != "sig":
        return None
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    if "d" in member:
        raise SetupError("FLASHSALE_JWKS holds a private key. Give the public keys only, and replace that key.")
    try:
        key = jwt.PyJWK(member, algorithm=found[0])
    except jwt.PyJWTError:
        return None
    return None if key.Algorithm.check_key_length(key.key) else key
