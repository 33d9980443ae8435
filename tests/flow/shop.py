"""A shop's receiver that says exactly what a test wants, and the endpoint that calls it."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import pytest

from flashsale.endpoint import REASON_MAX_CHARS, Delivered, Endpoint, Failed

SECRET: Final = b"a secret of the tests, 32 bytes!"
ID: Final = "0198f000-0000-7000-8000-000000000001"
BODY: Final = b'{"type":"order.confirmed","data":{}}'
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
BAD: Final = b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}"

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Shop:
    """Reads requests, and answers each with these bytes, or as its script does."""

    def __init__(self, script: Script | bytes) -> None:
        self._script = script
        self.url = ""
        self.connections = 0
        self.open = 0
        self.requests: list[tuple[dict[str, str], bytes]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        self.open += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
                self.requests.append((headers, await reader.readexactly(int(headers["content-length"]))))
                if isinstance(self._script, bytes):
                    writer.write(self._script)
                else:
                    await self._script(writer)
                await writer.drain()
        self.open -= 1
        writer.close()


@contextlib.asynccontextmanager
async def shop(script: Script | bytes, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Shop]:
    """Run a receiver on a free port."""
    there = Shop(script)
    server = await asyncio.start_server(there, "127.0.0.1", 0, ssl=tls)
    scheme = "http" if tls is None else "https"
    there.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/orders?from=sale"
    try:
        yield there
    finally:
        server.close()


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Let every name lead to these addresses; the names that were asked for."""
    asked: list[str] = []

    def resolve(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(host)
        six, four = socket.AF_INET6, socket.AF_INET
        infos = [(six, (a, port, 0, 0)) if ":" in a else (four, (a, port)) for a in addresses]
        return [(family, socket.SOCK_STREAM, 6, "", address) for family, address in infos]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


def endpoint(url: str, *, allow_private: bool = True, timeout_s: float = 10.0, connections_max: int = 8) -> Endpoint:
    """The endpoint under test, allowed to call this machine unless the test says otherwise."""
    return Endpoint(
        url,
        secret=SECRET,
        allow_private=allow_private,
        timeout_s=timeout_s,
        connections_max=connections_max,
        now=time.time,
    )


def failed(found: Delivered | Failed) -> Failed:
    """The failure, fit for a line of the log."""
    assert isinstance(found, Failed), found
    assert 0 < len(found.reason) <= REASON_MAX_CHARS
    assert found.reason.isprintable()
    return found
