"""The shop's endpoint, against real receivers that are well, slow, broken, endless or hostile."""

import asyncio
import contextlib
import ipaddress
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from flashsale.endpoint import ANSWER_MAX_BYTES, Delivered, Failed, retry_after_s
from flashsale.webhooks import Verified, verify
from tests.flow.command import until
from tests.flow.shop import BODY, ID, OK, SECRET, Script, Shop, endpoint, failed, resolve_to, shop


async def test_a_message_arrives_signed_and_its_connection_is_used_again() -> None:
    """One POST, its body as given, signed for now; no compression is asked for."""
    async with shop(OK) as there, endpoint(there.url) as sender:
        for _ in range(3):
            assert await sender.send(ID, BODY) == Delivered(200)
        assert there.connections == 1
        for headers, body in there.requests:
            assert body == BODY
            assert verify(SECRET, headers, body, now_s=time.time()) == Verified(ID, int(headers["webhook-timestamp"]))
            assert headers["accept-encoding"] == "identity"
            assert headers["content-type"] == "application/json"


async def test_cookies_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even under a name; addresses have none anyway."""
    async with shop(OK.replace(b"OK\r\n", b"OK\r\nSet-Cookie: a=b\r\n")) as there:
        resolve_to(monkeypatch, "127.0.0.1")
        async with endpoint(there.url.replace("127.0.0.1", "shop.example")) as sender:
            for _ in range(2):
                assert await sender.send(ID, BODY) == Delivered(200)
        assert [headers.get("cookie") for headers, _ in there.requests] == [None, None]


async def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with shop(OK) as there, endpoint(there.url) as sender:
        assert await sender.send(ID, BODY) == Delivered(200)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 205, 299])
async def test_every_2xx_is_a_delivery(status: int) -> None:
    async with (
        shop(f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n".encode()) as there,
        endpoint(there.url) as sender,
    ):
        assert await sender.send(ID, BODY) == Delivered(status)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (300, "it answered 300 (Multiple Choices); redirects are not followed"),
        (304, "it answered 304 (Not Modified); redirects are not followed"),
        (400, "it answered 400 (Bad Request)"),
        (401, "it answered 401 (Unauthorized)"),
        (404, "it answered 404 (Not Found)"),
        (500, "it answered 500 (Internal Server Error)"),
        (599, "it answered 599"),
        (999, "it answered 999"),
    ],
)
async def test_every_other_status_is_a_failure(status: int, reason: str) -> None:
    """Named in words of ours: what the receiver calls it could hold anything."""
    answer = f"HTTP/1.1 {status} \x1b[31m secret\r\nContent-Length: 0\r\n\r\n".encode()
    async with shop(answer) as there, endpoint(there.url) as sender:
        found = failed(await sender.send(ID, BODY))
        assert found == Failed(reason)


async def test_410_says_that_the_endpoint_is_gone() -> None:
    async with shop(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n") as there, endpoint(there.url) as sender:
        assert await sender.send(ID, BODY) == Failed("it answered 410 (Gone)", gone=True)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    async with shop(OK) as elsewhere:
        answer = f"HTTP/1.1 {status} x\r\nLocation: {elsewhere.url}\r\nContent-Length: 0\r\n\r\n".encode()
        async with shop(answer) as there, endpoint(there.url) as sender:
            assert "redirects are not followed" in failed(await sender.send(ID, BODY)).reason
            assert (len(there.requests), elsewhere.connections) == (1, 0)


async def test_announcements_are_waited_through() -> None:
    """Answers of 100 to 199 come before the one that counts; 101 would end HTTP and counts as a failure."""
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with shop(early + OK) as there, endpoint(there.url) as sender:
        assert [await sender.send(ID, BODY) for _ in range(3)] == [Delivered(200)] * 3
        assert there.connections == 1
    upgrade = b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    async with shop(upgrade) as there, endpoint(there.url) as sender:
        assert "101" in failed(await sender.send(ID, BODY)).reason


async def test_retry_after_is_passed_on() -> None:
    answer = b"HTTP/1.1 503 x\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n"
    async with shop(answer) as there, endpoint(there.url) as sender:
        assert failed(await sender.send(ID, BODY)).retry_after_s == 120


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        (" 7 ", 7),
        ("999999999999", 999_999_999_999),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 30),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 30),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0),
        ("Wednesday, 21-Oct-15 07:28:00 GMT", 30),
        (None, None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("\u0661", None),
        ("9" * 5000, None),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("Wed, 21 Oct 99999999999 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    now_s = datetime(2015, 10, 21, 7, 27, 30, tzinfo=UTC).timestamp()
    assert retry_after_s(value, now_s=now_s) == seconds


async def test_an_endless_body_is_not_read() -> None:
    """The verdict stands with the status line; the receiver can get rid of little more than the bound."""
    written = 0

    async def script(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            written += 65_536
            await writer.drain()

    async with shop(script) as there, endpoint(there.url) as sender:
        assert await sender.send(ID, BODY) == Delivered(200)
        await until(lambda: there.open == 0, "the connection is closed")
        assert written < 200 * ANSWER_MAX_BYTES  # the buffers of the system, above all


@pytest.mark.parametrize(
    ("answer", "connections"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000, 2),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60_000, 1),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\nx", 2),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\nno gzip!", 1),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 1),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", 2),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", 2),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil I close", 2),
    ],
)
async def test_a_body_never_undoes_a_delivery(answer: bytes, connections: int) -> None:
    """Small bodies are read, and their connections used again; all others are left, and their connections closed."""
    async with shop(answer) as there, endpoint(there.url, timeout_s=2.0) as sender:
        assert [await sender.send(ID, BODY) for _ in range(2)] == [Delivered(200)] * 2
        assert there.connections == connections


async def test_a_dripping_body_holds_nobody_up() -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nx")

    async with shop(script) as there, endpoint(there.url, timeout_s=60.0) as sender:
        began = time.monotonic()
        assert await sender.send(ID, BODY) == Delivered(200)
        assert time.monotonic() - began < 30
        await until(lambda: there.open == 0, "the connection is closed")


async def drip(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """Write it again and again until nobody listens."""
    async with asyncio.timeout(60):
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)


async def silent(_: asyncio.StreamWriter) -> None:
    """Say nothing."""


async def dripping_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    await drip(writer, b"x")


async def announcing(writer: asyncio.StreamWriter) -> None:
    await drip(writer, b"HTTP/1.1 102 Processing\r\n\r\n")


@pytest.mark.parametrize("script", [silent, dripping_headers, announcing])
async def test_time_is_bounded_over_everything(script: Script) -> None:
    """However busy the receiver looks, the try ends; so does one that only waits for a connection."""
    async with shop(script) as there, endpoint(there.url, timeout_s=0.3, connections_max=1) as sender:
        began = time.monotonic()
        found = await asyncio.gather(sender.send(ID, BODY), sender.send(ID, BODY))
        assert list(found) == [Failed("no answer within 0.3 s")] * 2
        assert time.monotonic() - began > 0.25


@pytest.mark.parametrize("rest", [b"", b"nonsense\r\n"])
async def test_a_body_that_breaks_off_does_not_undo_a_delivery(rest: bytes) -> None:
    """Nor does one that becomes nonsense after its headers have come."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
        loop = asyncio.get_running_loop()
        loop.call_later(0.02, writer.write, rest)
        loop.call_later(0.02, writer.close)

    async with shop(script) as there, endpoint(there.url) as sender:
        assert [await sender.send(ID, BODY) for _ in range(2)] == [Delivered(200)] * 2
        assert there.connections == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "it closed the connection without an answer"),
        (b"HTTP/1.1 200", "it closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "what it sent is not an answer in HTTP"),
        (b"\0\1\2\3\r\n\r\n", "what it sent is not an answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "what it sent is not an answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"\r\n", "what it sent is not an answer in HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
            "what it sent is not an answer in HTTP",
        ),
    ],
)
async def test_what_is_no_answer_is_a_failure(answer: bytes, reason: str) -> None:
    """Nothing of it is repeated in the reason."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with shop(script) as there, endpoint(there.url) as sender:
        assert await sender.send(ID, BODY) == Failed(reason)


async def test_a_receiver_that_is_not_there_is_a_failure() -> None:
    async with shop(OK) as there:
        url = there.url
    async with endpoint(url) as sender:
        assert failed(await sender.send(ID, BODY)).reason.startswith("no connection: Connect call failed")


async def test_an_id_that_cannot_be_signed_is_a_failure() -> None:
    """Whatever happens is a verdict; a fault of ours is in the log as well."""
    with structlog.testing.capture_logs() as lines:
        async with shop(OK) as there, endpoint(there.url) as sender:
            assert "ValueError" in failed(await sender.send("a.b", BODY)).reason
            assert there.connections == 0
    assert [line["event"] for line in lines] == ["endpoint.fault"]


async def test_after_closing_it_opens_again() -> None:
    async with shop(OK) as there:
        sender = endpoint(there.url)
        for _ in range(2):
            assert await sender.send(ID, BODY) == Delivered(200)
            await sender.aclose()
            await until(lambda: there.open == 0, "the connection is closed")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a receiver of the tests")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "receiver.pem"
    pem = serialization.Encoding.PEM
    kept = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(pem) + kept)
    return path


@contextlib.asynccontextmanager
async def tls_shop(certificate: Path) -> AsyncIterator[Shop]:
    """A receiver behind TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with shop(OK, tls=context) as there:
        yield there


async def test_a_certificate_that_nobody_vouches_for_is_a_failure(certificate: Path) -> None:
    """The message does not leave; nor does it when the other end speaks no TLS at all."""
    async with tls_shop(certificate) as there, endpoint(there.url) as sender:
        assert await sender.send(ID, BODY) == Failed("its certificate is not trusted: self-signed certificate")
        assert there.requests == []
    async with shop(OK) as there, endpoint(there.url.replace("http:", "https:"), timeout_s=0.3) as sender:
        failed(await sender.send(ID, BODY))
        assert there.requests == []


async def test_a_certificate_that_the_system_trusts_is_enough(certificate: Path) -> None:
    """Connections behind TLS are used again, too. The system's trust is read once, by a process of its own here."""
    program = (
        "import asyncio, sys, time; from flashsale.endpoint import Endpoint\n"
        "async def main():\n"
        "    async with Endpoint(sys.argv[1], secret=b'x' * 32, allow_private=True, timeout_s=10, connections_max=1,\n"
        "                        now=time.time) as sender:\n"
        "        print([await sender.send('a', b'{}') for _ in range(3)])\n"
        "asyncio.run(main())\n"
    )
    async with tls_shop(certificate) as there:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, there.url, stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "SSL_CERT_FILE": str(certificate), "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
        async with asyncio.timeout(30):
            out, _ = await process.communicate()
        assert out.decode() == f"{[Delivered(200)] * 3}\n"
        assert (len(there.requests), there.connections) == (3, 1)
