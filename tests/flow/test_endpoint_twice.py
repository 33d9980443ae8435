"""A receiver that answers twice: the second answer is never taken for that of the next message."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import aiohttp
import pytest
import structlog
import uvloop

from flashsale.endpoint import Delivered, Failed, connections
from tests.flow.command import until
from tests.flow.shop import BAD, BODY, ID, OK, Script, endpoint, shop

Result = TypeVar("Result")


def pauses(first: bytes, second: bytes, kind: str) -> Script:
    """Answer twice: in one piece, in two packets, a little later, or with the packets cut inside an answer."""

    async def script(writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        match kind:
            case "together":
                writer.write(first + second)
            case "two packets":
                writer.write(first)
                await asyncio.sleep(0)
                writer.write(second)
            case "later":
                writer.write(first)
                loop.call_later(0.002, writer.write, second)
            case "end of the first with the second":
                writer.write(first[:-1])
                loop.call_later(0.002, writer.write, first[-1:] + second)
            case "half of the second":
                writer.write(first + second[:20])
                loop.call_later(0.002, writer.write, second[20:])

    return script


@pytest.fixture(autouse=True)
def long_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may hold up both sides, and a second answer of ours comes by a timer: leave it the time."""
    monkeypatch.setattr(connections, "REST_S", 0.1)
    monkeypatch.setattr("flashsale.endpoint.DRAIN_TIMEOUT_S", 10.0)


KINDS = ["together", "two packets", "later", "end of the first with the second", "half of the second"]


def on_loop(work: Callable[[], Coroutine[Any, Any, Result]], factory: Callable[[], Any]) -> Awaitable[Result]:
    """Run it on an event loop of its own."""

    def run() -> Result:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(work())

    return asyncio.to_thread(run)


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("at_once", [1, 8])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("answers", "verdict"),
    [((BAD, OK), Failed("it answered 500 (Internal Server Error)")), ((OK, BAD), Delivered(200))],
    ids=["no, then yes", "yes, then no"],
)
async def test_the_second_answer_is_never_that_of_the_next_message(
    answers: tuple[bytes, bytes],
    verdict: Delivered | Failed,
    kind: str,
    at_once: int,
    factory: Callable[[], Any],
) -> None:
    """50 messages to a receiver that answers each one twice: every verdict is that of the first answer."""

    async def work() -> tuple[list[Delivered | Failed], int]:
        async with shop(pauses(*answers, kind)) as there, endpoint(there.url) as sender:
            found: list[Delivered | Failed] = []
            for _ in range(0, 50, at_once):
                found += await asyncio.gather(*[sender.send(ID, BODY) for _ in range(at_once)])
            return found, len(there.requests)

    with structlog.testing.capture_logs() as lines:
        found, requests = await on_loop(work, factory)
    assert found == [verdict] * len(found)
    assert len(found) == requests >= 50
    assert [line["event"] for line in lines] == ["endpoint.answers_twice"]


@pytest.mark.parametrize("kind", KINDS[2:4])
async def test_without_our_connections_it_would_be(kind: str) -> None:
    """The client as it comes takes the second answer for that of the next message: an order would be lost."""
    async with (
        shop(pauses(BAD, OK, kind)) as there,
        aiohttp.TCPConnector() as connector,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        async with session.post(there.url, data=BODY) as first:
            await first.read()

        def there_is_more() -> bool:
            return any(connection._buffer for idle in connector._conns.values() for connection, _ in idle)

        await until(there_is_more, "the second answer has come")
        async with session.post(there.url, data=BODY) as second:
            assert [first.status, second.status] == [500, 200]


async def test_who_answers_twice_once_gets_a_connection_for_each_message() -> None:
    """The first second answer is caught while its connection rests; after that nothing depends on its being in time.

    Connections that were idle at that moment are not used again either, and none stays open.
    """
    asked = 0
    both = asyncio.Event()

    async def script(writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        if asked <= 2:
            both.set() if asked == 2 else await both.wait()
        writer.write(OK + BAD if asked == 3 else OK)

    async with shop(script) as there, endpoint(there.url) as sender:
        assert await asyncio.gather(*[sender.send(ID, BODY) for _ in range(2)]) == [Delivered(200)] * 2
        assert (there.connections, there.open) == (2, 2)
        for _ in range(4):
            assert await sender.send(ID, BODY) == Delivered(200)
        assert there.connections == 2 + 3
        assert sender._session is not None
        assert isinstance(sender._session.connector, connections.Connector)
        assert not sender._session.connector._conns
        await until(lambda: there.open == 0, "all are closed")


@pytest.mark.parametrize("cut", [-1, 20])
async def test_an_answer_in_pieces_is_one_answer(cut: int) -> None:
    """Wherever it is cut, its connection is used again."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(OK[:cut])
        asyncio.get_running_loop().call_later(0.002, writer.write, OK[cut:])

    with structlog.testing.capture_logs() as lines:
        async with shop(script) as there, endpoint(there.url) as sender:
            assert [await sender.send(ID, BODY) for _ in range(5)] == [Delivered(200)] * 5
            assert there.connections == 1
    assert lines == []


async def test_what_the_event_loop_has_not_read_yet_counts_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second answer that came while this process was busy waits in the system: it is looked for there."""
    monkeypatch.setattr(connections, "REST_S", 0.0)
    writers = []

    async def script(writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(OK)

    async with shop(script) as there, endpoint(there.url) as sender:
        assert await sender.send(ID, BODY) == Delivered(200)
        writers[0].write(BAD)  # and the event loop does not come round before the next message
        assert await sender.send(ID, BODY) == Delivered(200)
        assert there.connections == 2


async def test_what_nobody_asked_for_closes_the_connection_at_once() -> None:
    """An idle connection takes nothing in: no flood of answers fills our memory."""
    writers = []

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        writers.append(writer)

    async with shop(script) as there, endpoint(there.url) as sender:
        assert await sender.send(ID, BODY) == Delivered(200)
        assert there.open == 1
        writers[0].write(b"HTT")
        await until(lambda: there.open == 0, "the connection is closed")
        assert await sender.send(ID, BODY) == Delivered(200)


async def test_an_abandoned_message_is_no_second_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelling is passed on, at the worst moment, too: when the answer is there and nobody has looked at it."""
    sending: asyncio.Task[Delivered | Failed] | None = None
    received = connections._Connection.data_received

    def cancelling(self: connections._Connection, data: bytes) -> None:
        received(self, data)
        if sending is not None:
            sending.cancel()

    monkeypatch.setattr(connections._Connection, "data_received", cancelling)
    with structlog.testing.capture_logs() as lines:
        async with shop(OK) as there, endpoint(there.url) as sender:
            sending = asyncio.create_task(sender.send(ID, BODY))
            with pytest.raises(asyncio.CancelledError):
                await sending
            sending = None
            for _ in range(3):
                assert await sender.send(ID, BODY) == Delivered(200)
            assert there.connections == 2
    assert lines == []


async def test_a_connection_that_the_receiver_closed_is_not_used_again() -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        asyncio.get_running_loop().call_soon(writer.close)

    async with shop(script) as there, endpoint(there.url) as sender:
        for _ in range(20):
            assert await sender.send(ID, BODY) == Delivered(200)
        assert there.connections == 20
