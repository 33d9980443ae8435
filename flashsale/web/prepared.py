"""Answers as bytes: what a reservation is answered with, without building a response object's headers.

aiohttp's own response object costs about as much as everything else that a refusal needs; an answer that never
changes is kept whole, with only the date put in (RFC 9110, section 6.6.1, asks for one).
"""

import time
from email.utils import formatdate
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest

_REASONS: Final = {
    200: "OK",
    201: "Created",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    410: "Gone",
    413: "Content Too Large",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    503: "Service Unavailable",
}


class HttpDate:
    """The current `Date` header, made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._line = b""

    def __call__(self) -> bytes:
        """`Date: …` and the empty line that ends the headers."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._line = f"Date: {formatdate(second, usegmt=True)}\r\n\r\n".encode()
        return self._line


http_date: Final = HttpDate()


class Template:
    """Status line and headers of an answer, all but its length, its date and its body."""

    def __init__(self, status: int, content_type: str, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} {_REASONS[status]}", f"Content-Type: {content_type}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.status = status
        self._head = ("\r\n".join(lines) + "\r\nContent-Length: ").encode()

    def answer(self, body: bytes) -> "Prepared":
        """An answer with this body."""
        return Prepared(self.status, b"%b%d\r\n" % (self._head, len(body)), body)


class Prepared(web.StreamResponse):
    """An answer whose bytes are ready. It may be sent any number of times, to any number of clients."""

    def __init__(self, status: int, head: bytes, body: bytes) -> None:
        super().__init__(status=status)
        self._head = head
        self._tail = body
        self._keep_alive = True

    def closing(self) -> "Prepared":
        """The same answer, for a client that wants the connection closed."""
        head = self._head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        answer = Prepared(self.status, head, self._tail)
        answer.force_close()
        return answer

    def as_bytes(self) -> bytes:
        """Head and body in one piece, with the present date."""
        return b"".join((self._head, http_date(), self._tail))

    @property
    def prepared(self) -> bool:
        """Whether the headers are sent: not a question for bytes that go out in one piece."""
        return True

    @property
    def body_length(self) -> int:
        """Bytes of the body."""
        return len(self._tail)

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        """Send head and body in one write, and wait only when the client does not read."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client went away")
        transport.write(self.as_bytes())
        await request.writer.drain()
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to send."""
