"""HTTP/1.1 as bytes: requests written once, answers read with little work. Pure: no sockets, no clock."""

from typing import NamedTuple
from urllib.parse import urlsplit

from loadtests.errors import SetupError

ANSWER_BYTES_MAX = 1 << 20


class Target(NamedTuple):
    """Where the service listens."""

    host: str
    port: int
    tls: bool

    @classmethod
    def parse(cls, url: str) -> "Target":
        """`http://host[:port]` or `https://…`; anything else is a `SetupError`."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise SetupError(f"{url} is not a URL of a service, as in http://127.0.0.1:8080.") from None
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/"):
            raise SetupError(f"{url} is not a URL of a service, as in http://127.0.0.1:8080.")
        tls = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if tls else 80), tls)

    @property
    def authority(self) -> str:
        """The value of the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def post_bytes(target: Target, path: str, *, token: str, body: bytes, key: str | None = None) -> bytes:
    """A whole POST request with a JSON body, ready to be written; `key` is its Idempotency-Key."""
    idempotency = f"Idempotency-Key: {key}\r\n" if key is not None else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {target.authority}\r\nAuthorization: Bearer {token}\r\n{idempotency}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1") + body


class Answer(NamedTuple):
    """One HTTP answer. `at`: when its last byte was read, by `time.monotonic`; `retry_after_s`: None when not sent."""

    status: int
    body: bytes
    retry_after_s: float | None
    keep_alive: bool
    at: float


class Malformed(Exception):
    """What came is not an HTTP/1.1 answer with a known length."""


def _header(head: bytes, name: bytes) -> bytes | None:
    """The value of a header; `head` and `name` are in lower case."""
    start = head.find(b"\r\n" + name + b":")
    if start < 0:
        return None
    start += len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else None].strip()


def _chunked(data: bytes, start: int) -> tuple[bytes, int] | None:
    """The body of a chunked answer and where it ends; None while it is not complete."""
    body = b""
    while True:
        line_end = data.find(b"\r\n", start)
        if line_end < 0:
            return None
        size = int(data[start:line_end].split(b";")[0], 16)
        start = line_end + 2
        if size == 0:
            while True:  # trailers, then an empty line
                line_end = data.find(b"\r\n", start)
                if line_end < 0:
                    return None
                if line_end == start:
                    return body, start + 2
                start = line_end + 2
        if len(data) < start + size + 2:
            return None
        body += data[start : start + size]
        start += size + 2


def parse_answer(data: bytes, at: float) -> tuple[Answer, int] | None:
    """The first answer in `data` and its length in bytes; None while it is not complete.

    Errors: `Malformed`. Source: RFC 9112.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > ANSWER_BYTES_MAX:
            raise Malformed("headers without an end")
        return None
    head = data[:end].lower()
    start = end + 4
    try:
        if not head.startswith(b"http/1."):
            raise Malformed("not HTTP/1.1")
        status = int(head[9:12])
        if 100 <= status < 200:  # an interim answer: the real one follows
            rest = parse_answer(data[start:], at)
            return (rest[0], rest[1] + start) if rest else None
        if status in {204, 304}:
            body: bytes = b""
            end = start
        elif (length := _header(head, b"content-length")) is not None:
            end = start + int(length)
            if end - start > ANSWER_BYTES_MAX:
                raise Malformed("longer than a verdict can be")
            if len(data) < end:
                return None
            body = data[start:end]
        elif (_header(head, b"transfer-encoding") or b"").endswith(b"chunked"):
            if (found := _chunked(data, start)) is None:
                return None
            body, end = found
        else:
            raise Malformed("neither Content-Length nor chunked")
    except ValueError:
        raise Malformed("a number is not a number") from None
    wait = _header(head, b"retry-after")
    keep_alive = head.startswith(b"http/1.1") and _header(head, b"connection") != b"close"
    return Answer(status, body, float(wait) if wait and wait.isdigit() else None, keep_alive, at), end
