"""The shop's endpoint, as the worker calls it: one signed message out, one verdict back, and nothing that hurts us.

What comes back may be slow, endless, broken or hostile, so all of it is bounded: one time limit over everything, at
most `ANSWER_MAX_BYTES` read, no redirect followed, nothing decompressed, no cookie kept, no proxy taken from the
environment. `connections` sees to it that an answer is the answer to its own message, `addresses` to where it may go.
"""

import asyncio
import math
import re
import ssl
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final, Self

import aiohttp
import msgspec
import structlog

from flashsale.endpoint.addresses import NotPublic, check_url, public_socket
from flashsale.endpoint.connections import Connector
from flashsale.webhooks import signed_headers

ANSWER_MAX_BYTES: Final = 65_536
"""Waited for of an answer's body, only to use its connection again; that of a larger one is closed."""
DRAIN_TIMEOUT_S: Final = 0.25
"""For a body that did not come with its headers. Waiting longer costs more than a new connection."""
REASON_MAX_CHARS: Final = 200

_log = structlog.get_logger()


class Delivered(msgspec.Struct, frozen=True):
    """The receiver has taken the message: it answered with a status of 200 to 299."""

    status: int


class Failed(msgspec.Struct, frozen=True):
    """The receiver has not (or not provably) taken the message.

    `reason` is one printable line of at most `REASON_MAX_CHARS`, without secrets; `retry_after_s` is what the receiver
    asked for, however much; `gone` means that it wants no more messages (410).
    """

    reason: str
    retry_after_s: float | None = None
    gone: bool = False


class Endpoint:
    """One receiver of messages at one URL; `https` or `http` (then the message is signed, but anybody can read it).

    `SetupError` for a URL that cannot be meant: other schemes, credentials, a fragment, no host, a host spelled
    misleadingly, an address that is not public. Names are checked when they are resolved, at each new connection.
    `timeout_s` covers one message from beginning to end, waiting for one of `connections_max` connections included;
    `now` gives Unix time in seconds. Use it inside one event loop, and close it.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: bytes,
        allow_private: bool,
        timeout_s: float,
        connections_max: int,
        now: Callable[[], float],
    ) -> None:
        check_url(url, allow_private=allow_private)
        self.url = url
        self._secret = secret
        self._allow_private = allow_private
        self._timeout_s = timeout_s
        self._connections_max = connections_max
        self._now = now
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections. A later message opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def send(self, message_id: str, body: bytes) -> Delivered | Failed:
        """Send one message, once, and say how it went. Raises nothing but `CancelledError`.

        The verdict stands with the status line: a body that breaks off or never ends does not change it. A status of
        2xx counts even when the rest of the message had not been read, for that is the receiver's own word.
        """
        verdict: Delivered | Failed | None = None
        try:
            headers = signed_headers(self._secret, message_id, int(self._now()), body)
            session = self._session or self._open()
            async with session.post(self.url, data=body, headers=headers, allow_redirects=False) as answer:
                verdict = self._verdict(answer)
                if not answer.content.is_eof():
                    await _drain(answer)
        except Exception as error:  # noqa: BLE001 -- whatever a receiver does to us is its verdict
            return verdict or Failed(_plain(self._reason(error)))
        return verdict

    def _open(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=Connector(
                connections_max=self._connections_max,
                socket_factory=None if self._allow_private else public_socket,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s, ceil_threshold=math.inf),  # to the moment
            headers={"accept": "*/*", "accept-encoding": "identity"},
            auto_decompress=False,
            trust_env=False,
            read_bufsize=ANSWER_MAX_BYTES,
        )
        return self._session

    def _verdict(self, answer: aiohttp.ClientResponse) -> Delivered | Failed:
        status = answer.status
        if 200 <= status <= 299:  # noqa: PLR2004 -- that is what success is
            return Delivered(status)
        try:
            phrase = f" ({HTTPStatus(status).phrase})"
        except ValueError:
            phrase = ""
        remark = "; redirects are not followed" if 300 <= status <= 399 else ""  # noqa: PLR2004 -- as above
        return Failed(
            f"it answered {status}{phrase}{remark}",
            retry_after_s(answer.headers.get("Retry-After"), now_s=self._now()),
            gone=status == HTTPStatus.GONE,
        )

    def _reason(self, error: Exception) -> str:
        match error:
            case TimeoutError():
                return f"no answer within {self._timeout_s:g} s"
            case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as wrong):
                return f"its certificate is not trusted: {wrong.verify_message}"
            case aiohttp.ClientConnectorCertificateError():
                return "its certificate is not trusted"
            case aiohttp.ClientConnectorSSLError(os_error=wrong):
                return f"no TLS connection: {getattr(wrong, 'reason', None) or wrong.strerror or 'it broke off'}"
            case aiohttp.ClientConnectorDNSError(os_error=wrong):
                return f"its name cannot be resolved: {wrong.strerror or wrong}"
            case aiohttp.ClientConnectorError(os_error=NotPublic() as wrong):
                return str(wrong)
            case aiohttp.ClientConnectorError(os_error=wrong):
                return f"no connection: {wrong.strerror or wrong}"
            case aiohttp.ServerDisconnectedError():
                return "it closed the connection without an answer"
            case aiohttp.ClientResponseError():
                return "what it sent is not an answer in HTTP"
            case OSError():
                return f"the connection broke: {error.strerror or type(error).__name__}"
            case aiohttp.ClientError():
                return f"the message could not be sent: {type(error).__name__}"
            case _:
                _log.error("endpoint.fault", exc_info=error)
                return f"the message could not be sent: {type(error).__name__}"


def retry_after_s(value: str | None, *, now_s: float) -> float | None:
    """Seconds of a `Retry-After` header: a whole number or an HTTP date, from `now_s` on; None when it is neither."""
    text = (value or "").strip()
    if re.fullmatch(r"[0-9]{1,12}", text, re.ASCII):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


async def _drain(answer: aiohttp.ClientResponse) -> None:
    """Read the rest of a small and prompt body; the connection of any other is closed when the answer is left."""
    size = 0
    async with asyncio.timeout(DRAIN_TIMEOUT_S):
        async for piece in answer.content.iter_any():
            size += len(piece)
            if size > ANSWER_MAX_BYTES:
                return


def _plain(text: str) -> str:
    """One printable line, cut to length."""
    return "".join(sign if sign.isprintable() else " " for sign in text)[:REASON_MAX_CHARS]
