"""`flashsale receiver`: what a shop sees while it tries webhooks, and how it can be made to misbehave."""

import asyncio
import base64
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import aiohttp
import pytest
from standardwebhooks.webhooks import Webhook

from flashsale.cli import main
from flashsale.endpoint import Delivered, Endpoint, Failed
from flashsale.webhooks import make_secret, signed_headers
from tests.flow.command import Running, running, until

SECRET = b"a secret of the tests, 32 bytes!"
TEXT = make_secret(SECRET)
ID = "0198f000-0000-7000-8000-000000000001"
DATA = {
    "order": ID,
    "reservation": "0198f000-0000-7000-8000-000000000002",
    "drop": "engineering-edition",
    "allocation": "day-1",
    "member": 4711,
    "quantity": 1,
}


def body(kind: str = "order.confirmed", **data: Any) -> bytes:  # noqa: ANN401 -- JSON
    return json.dumps({"type": kind, "timestamp": "2011-08-29T12:00:00Z", "data": DATA | data}).encode()


@asynccontextmanager
async def receiving(*arguments: str) -> AsyncIterator[tuple[Running, str]]:
    """A receiver on a free port, ready, and its URL."""
    async with running("receiver", "--port", "0", *arguments, fulfilment_secret=TEXT) as started:
        yield started, (await started.said(r"^receiving at (http://127\.0\.0\.1:\d+/)$"))[1]


def calling(url: str, *, timeout_s: float = 10.0, connections_max: int = 8) -> Endpoint:
    """The worker's side."""
    return Endpoint(
        url, secret=SECRET, allow_private=True, timeout_s=timeout_s, connections_max=connections_max, now=time.time
    )


async def line(of: Running) -> str:
    """The next line of standard output."""
    assert of.process.stdout is not None
    async with asyncio.timeout(60):
        return (await of.process.stdout.readline()).decode()


async def stop(it: Running, by: signal.Signals = signal.SIGTERM) -> str:
    """End it as a person does: the exit code is 0; what was left of standard output."""
    it.process.send_signal(by)
    code, rest = await it.ended()
    assert code == 0, it.stderr
    return rest


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
async def test_a_line_for_each_event(by: signal.Signals) -> None:
    """Readable, the repeat marked; everything else goes to standard error; either signal ends it well."""
    async with receiving() as (it, url), calling(url) as sender:
        assert await sender.send(ID, body()) == Delivered(200)
        assert await line(it) == f"order.confirmed {ID} engineering-edition/day-1 member 4711 1 unit\n"
        assert await sender.send(ID, body()) == Delivered(200)
        assert await line(it) == f"order.confirmed {ID} engineering-edition/day-1 member 4711 1 unit again (try 2)\n"
        assert await sender.send("other", body("order.returned", quantity=2)) == Delivered(200)
        assert await line(it) == "order.returned other engineering-edition/day-1 member 4711 2 units\n"
        assert await stop(it, by) == ""
        said = it.stderr.splitlines()
        assert said == [f"receiving at {url}", "received 3 events under 2 ids in 3 verified tries"]


async def test_a_document_for_each_event() -> None:
    """With --json, one document a line, whatever the event holds."""
    async with receiving("--json") as (it, url), calling(url) as sender:
        data = {"text": 'line\nbreak, "quotes", ü', "n": 12345678901234567890, "x": None}
        pretty = json.dumps({"type": "test.event", "data": data}, indent=2).encode()
        assert await sender.send(ID, pretty) == Delivered(200)
        assert await sender.send(ID, pretty) == Delivered(200)
        first, second = json.loads(await line(it)), json.loads(await line(it))
        assert first == {"id": ID, "type": "test.event", "data": data, "again": False, "tries": 1}
        assert second == first | {"again": True, "tries": 2}


async def test_control_signs_of_an_event_do_not_reach_the_terminal() -> None:
    async with receiving() as (it, url), calling(url) as sender:
        assert await sender.send(ID, body("a\nb\x1b[2J", drop="x\r")) == Delivered(200)
        assert await line(it) == f"a?b?[2J {ID} x?/day-1 member 4711 1 unit\n"


async def test_what_the_standards_library_signs_is_accepted() -> None:
    """Another implementation's signature counts, and the path does not matter."""
    async with receiving() as (it, url), aiohttp.ClientSession() as session:
        webhook, now = Webhook(TEXT), int(time.time())
        signed = signed_headers(SECRET, ID, now, b"")
        signed["webhook-signature"] = webhook.sign(ID, datetime.fromtimestamp(now, UTC), body().decode())
        async with session.post(url + "some/where?x=y", data=body(), headers=signed) as answer:
            assert (answer.status, await answer.read()) == (200, b"{}")
        assert (await line(it)).startswith(f"order.confirmed {ID} ")


async def test_what_cannot_be_verified_is_refused_with_its_reason() -> None:
    """401 for anybody's messages, 400 for signed nonsense, 405 for other methods; nothing of it in the output."""
    now = int(time.time())
    good = signed_headers(SECRET, ID, now, body())
    calls: list[tuple[dict[str, str], bytes, int, str]] = [
        ({}, body(), 401, "it has no webhook-id, webhook-timestamp, webhook-signature"),
        (signed_headers(b"x" * 32, ID, now, body()), body(), 401, "its signature is not made with this secret"),
        (good, body(member=1), 401, "its signature is not made with this secret over this message"),
        (signed_headers(SECRET, ID, now - 900, body()), body(), 401, "s in the past, more than 300 s"),
        (signed_headers(SECRET, ID, now, b"{"), b"{", 400, f"{ID} is signed, but no event: "),
        (signed_headers(SECRET, ID, now, b"[]"), b"[]", 400, f"{ID} is signed, but no event: "),
        (good, b"x" * (2**20 + 1), 413, ""),
    ]
    async with receiving() as (it, url), aiohttp.ClientSession() as session:
        for headers, sent, status, reason in calls:
            async with session.post(url, data=BytesIO(sent), headers=headers) as answer:
                assert answer.status == status
                assert reason in await answer.text()
        async with session.get(url) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        for _, _, status, reason in calls[:-1]:
            assert f"refused with {status}: " in it.stderr
            assert reason in it.stderr
        assert await stop(it) == ""
        assert it.stderr.endswith("\nreceived 0 events under 0 ids in 0 verified tries\n")


async def test_the_first_tries_of_each_event_fail_on_purpose() -> None:
    """What fails is not accepted: one line comes for each event, with the number of its try, and no `again`."""
    async with receiving("--fail", "2", "--status", "503", "--json") as (it, url), calling(url) as sender:
        for message_id in ("a", "b"):
            found = [await sender.send(message_id, body()) for _ in range(4)]
            assert found == [Failed("it answered 503 (Service Unavailable)")] * 2 + [Delivered(200)] * 2
            assert [(e["id"], e["tries"], e["again"]) for e in [json.loads(await line(it)) for _ in range(2)]] == [
                (message_id, 3, False),
                (message_id, 4, True),
            ]
        assert "answered 503 on purpose: order.confirmed a, try 2\n" in it.stderr


async def test_it_can_fail_always() -> None:
    async with receiving("--fail", "always", "--status", "410") as (it, url), calling(url) as sender:
        for _ in range(3):
            assert await sender.send(ID, body()) == Failed("it answered 410 (Gone)", gone=True)
        assert await stop(it) == ""


async def test_it_can_answer_late() -> None:
    """An event that came in is written down, whether or not its sender waits for the answer; the repeat tells."""
    async with receiving("--delay", "0.4") as (it, url):
        async with calling(url, timeout_s=0.1) as impatient:
            assert await impatient.send(ID, body()) == Failed("no answer within 0.1 s")
        assert "again" not in await line(it)
        async with calling(url) as patient:
            began = time.monotonic()
            assert await patient.send(ID, body()) == Delivered(200)
            assert time.monotonic() - began >= 0.4
        assert "again" in await line(it)


async def test_it_can_answer_twice() -> None:
    """Both answers are whole; the worker counts the first."""
    async with receiving("--twice", "--fail", "1") as (it, url):
        port = int(url.rsplit(":", 1)[1].strip("/"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        headers = {"host": "x", "connection": "close", **signed_headers(SECRET, "a", int(time.time()), body())}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"POST / HTTP/1.1\r\n{head}content-length: {len(body())}\r\n\r\n".encode() + body())
        async with asyncio.timeout(60):
            answers = await reader.read()
        assert answers.count(b"HTTP/1.1 500 Internal Server Error\r\n") == 2
        writer.close()
        async with calling(url) as sender:
            for message_id in ("b", "c"):
                found = [await sender.send(message_id, body()) for _ in range(2)]
                assert found == [Failed("it answered 500 (Internal Server Error)"), Delivered(200)]
        await stop(it)


async def test_what_was_answered_had_been_written() -> None:
    """Killed in the middle of many: whatever a sender counts as delivered stands in the output, under its id."""
    async with receiving("--json") as (it, url), calling(url) as sender:
        delivered: list[str] = []
        written = bytearray()

        async def read() -> None:
            assert it.process.stdout is not None
            while piece := await it.process.stdout.read(65_536):
                written.extend(piece)

        async def send(numbers: Any) -> None:  # noqa: ANN401 -- a shared iterator
            for number in numbers:
                if await sender.send(f"order-{number}", body()) != Delivered(200):
                    return
                delivered.append(f"order-{number}")

        reading, numbers = asyncio.create_task(read()), iter(range(100_000))
        sending = [asyncio.create_task(send(numbers)) for _ in range(8)]
        await until(lambda: len(delivered) > 500, "500 are delivered", 60)
        it.process.kill()
        await asyncio.gather(*sending, reading)
        lines = bytes(written).split(b"\n")[:-1]
        found = Counter(json.loads(each)["id"] for each in lines)
        assert set(delivered) <= set(found)
        assert set(found.values()) == {1}


async def test_who_stops_reading_ends_it() -> None:
    """As in a pipe to `head`: no event is acknowledged that nobody can read, and there is no traceback."""
    async with receiving() as (it, url), calling(url, timeout_s=5.0) as sender:
        transport: Any = it.process._transport  # type: ignore[attr-defined]
        transport.get_pipe_transport(1).close()
        assert isinstance(await sender.send(ID, body()), Failed)
        assert await it.process.wait() == 1
        assert "Traceback" not in it.stderr


async def test_it_says_why_it_cannot_listen() -> None:
    async with receiving() as (_, url):
        port = url.rsplit(":", 1)[1].strip("/")
        async with running("receiver", "--port", port, "--secret", TEXT) as second:
            code, out = await second.ended()
            assert (code, out) == (2, "")
            assert second.stderr.startswith(f"flashsale: Cannot listen on port {port} of 127.0.0.1: ")
            assert second.stderr.count("\n") == 1


def test_without_a_secret_it_says_how_to_make_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FLASHSALE_FULFILMENT_SECRET", raising=False)
    assert main(["receiver"]) == 2
    assert "echo whsec_$(openssl rand -base64 32)" in capsys.readouterr().err
    assert main(["receiver", "--secret", "whsec_" + base64.b64encode(b"short").decode()]) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--fail", "-1"],
        ["--fail", "often"],
        ["--status", "200"],
        ["--status", "600"],
        ["--delay", "-1"],
        ["--delay", "nan"],
        ["--delay", "inf"],
        ["--delay", "soon"],
        ["--port", "65536"],
        ["--port", "x"],
        ["--twi"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_explained(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["receiver", "--secret", TEXT, *arguments])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: flashsale")
