"""A running service, as an operator calls it: over HTTP, like anybody else."""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from flashsale.cli import options
from flashsale.errors import Refused, Unavailable
from flashsale.process import RUN_FILE, url_of
from flashsale.settings import Settings
from flashsale.web.auth import mint

TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 5.0
TOKEN_S: Final = 600.0
REPEAT_S: Final = 10.0
"""The service is back after the restart of a store within a few seconds."""
REPEAT_EVERY_S: Final = 1.0
CHUNK_BYTES: Final = 256 * 1024
PIECE_BYTES: Final = 4 * 1024
"""Of an answer that is handed on: what is made of a piece may take a hundred times as long as to read it."""

Answer = TypeVar("Answer")

encode: Final = msgspec.json.Encoder().encode


class _Run(msgspec.Struct):
    url: str


def add_service(to: argparse.ArgumentParser) -> None:
    """`--url`, `--token`, `--member`, `--data-dir`."""
    to.add_argument(
        "--url", help="the service (default: the one that runs in the data directory, or http://127.0.0.1:8080)"
    )
    to.add_argument("--token", help="an operator's token (default: one is made, as by `flashsale token --role ops`)")
    to.add_argument(
        "--member",
        type=options.member,
        default=1,
        metavar="N",
        help="the operator whom the audit log names (default: 1)",
    )
    options.add_data_dir(to)


def _url(args: argparse.Namespace, settings: Settings) -> str:
    if args.url:
        return str(args.url).rstrip("/")
    try:
        return msgspec.json.decode((Path(settings.data_dir) / RUN_FILE).read_bytes(), type=_Run).url
    except (OSError, msgspec.DecodeError):  # none runs there, or it is another account's
        return url_of(settings.host, settings.port)


def path(*parts: str) -> str:
    """The path of an operators' call."""
    return "/".join(["/v1/ops", *(quote(part, safe="") for part in parts)])


class Service:
    """Calls of the contract. What the service refuses is `Refused`; no answer is `Unavailable`."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
        timeout_s: float | None = TIMEOUT_S,
    ) -> dict[str, Any]:
        """The answer's JSON. `body` is bytes or an iterator of bytes; `timeout_s` None: as long as it takes.

        Reading is repeated for `REPEAT_S` while the service says that it is unavailable.
        """
        return await _repeated(
            method,
            lambda: self._once(method, path, params=params, body=body, content_type=content_type, timeout_s=timeout_s),
        )

    async def download(
        self, path: str, *, params: dict[str, str] | None = None, content_type: str, to: Callable[[bytes], None]
    ) -> None:
        """Hand each piece of a long answer to `to` as it comes; returns when all of it was there.

        It may take as long as it takes, but each piece must come within `TIMEOUT_S`.
        """
        await _repeated("GET", lambda: self._stream(path, params, content_type, to))

    async def _stream(
        self, path: str, params: dict[str, str] | None, content_type: str, to: Callable[[bytes], None]
    ) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=TIMEOUT_S)
        with self._faults():
            async with self._session.get(self._url + path, params=params, timeout=timeout) as answer:
                if answer.status != HTTPStatus.OK:
                    self._read(answer.status, await answer.read())
                if answer.status != HTTPStatus.OK or answer.content_type != content_type:
                    raise self._another_service(answer.status)
                async for piece in answer.content.iter_chunked(PIECE_BYTES):
                    to(piece)
                    await asyncio.sleep(0)  # pieces that are here already are read without a pause: hear of Ctrl-C

    async def _once(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None,
        body: object,
        content_type: str,
        timeout_s: float | None,
    ) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        headers = {} if body is None else {"Content-Type": content_type}
        with self._faults():
            async with self._session.request(
                method, self._url + path, params=params, data=body, headers=headers, timeout=timeout
            ) as answer:
                return self._read(answer.status, await answer.read())

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except aiohttp.InvalidURL:
            raise Unavailable(f"{self._url} is no URL of a service; it begins with http:// or https://.") from None
        except aiohttp.ClientConnectorError:
            raise Unavailable(
                f"Nothing answers at {self._url}. Start `flashsale up`, or name the service with --url."
            ) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(
                f"The answer of {self._url} was lost ({type(error).__name__}); the call may have had its effect."
            ) from None

    def _another_service(self, status: int) -> Unavailable:
        return Unavailable(f"What answers at {self._url} is not this service (status {status}); name it with --url.")

    def _read(self, status: int, body: bytes) -> dict[str, Any]:
        try:
            found = msgspec.json.decode(body, type=dict[str, Any])
            if status < 300:  # noqa: PLR2004 -- 2xx
                return found
            code, detail = str(found.pop("code")), str(found.pop("detail"))
        except (msgspec.DecodeError, KeyError):
            raise self._another_service(status) from None
        raise Refused(code, detail, **{name: found[name] for name in found.keys() - {"type", "title", "status"}})


async def _repeated(method: str, once: Callable[[], Awaitable[Answer]]) -> Answer:
    began = time.monotonic()
    while True:
        try:
            return await once()
        except Refused as refused:
            lasted = time.monotonic() - began
            if method != "GET" or refused.code not in {"unavailable", "rate_limited"} or lasted >= REPEAT_S:
                raise
        await asyncio.sleep(REPEAT_EVERY_S)


@asynccontextmanager
async def service(args: argparse.Namespace) -> AsyncIterator[Service]:
    """The service that the options of this call name."""
    settings = options.settings_of(args)
    token = args.token or mint(
        options.secret_of(settings), member=args.member, role="ops", expires_at=time.time() + TOKEN_S
    )
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        yield Service(session, _url(args, settings))
