"""The proxy does to connections what it says, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.faults.proxy import HOST, Proxy
from tests.support import until

LATE_S = 0.2


class Echo:
    """A server that answers each line with itself, once it is allowed to; `heard` are the lines that reached it."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.heard.append(line)
                writer.write(line)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[Echo, Proxy]]:
    """An echo, and a proxy in front of it."""
    echo = Echo()
    server = await asyncio.start_server(echo.serve, HOST, 0, limit=1 << 24)
    proxy = Proxy((HOST, server.sockets[0].getsockname()[1]))
    await proxy.start()
    try:
        yield echo, proxy
    finally:
        await proxy.aclose()
        server.close()


class Caller:
    """A connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, line: bytes) -> bytes:
        """What comes back; nothing when the connection ends instead."""
        self.writer.write(line)
        return await self.hear()

    async def hear(self) -> bytes:
        try:
            return await asyncio.wait_for(self.reader.readline(), 10)
        except ConnectionError:
            return b""


@asynccontextmanager
async def calling(proxy: Proxy) -> AsyncIterator[Caller]:
    """Connect, and close in the end."""
    reader, writer = await asyncio.open_connection(HOST, proxy.port, limit=1 << 24)
    try:
        yield Caller(reader, writer)
    finally:
        writer.close()


async def test_it_carries_everything_both_ways() -> None:
    """Many lines, one of them larger than any buffer on the way, over several connections."""
    async with echoing() as (echo, proxy), calling(proxy) as one, calling(proxy) as other:
        large = b"x" * 5_000_000 + b"\n"
        assert await one.say(b"a\n") == b"a\n"
        assert tuple(await asyncio.gather(one.say(large), other.say(b"b\n"))) == (large, b"b\n")
        assert sorted(echo.heard) == sorted([b"a\n", b"b\n", large])
        assert len(proxy.links) == 2


async def test_it_ends_a_connection_when_either_side_does() -> None:
    """No link stays behind, and what was on its way still arrives."""
    async with echoing() as (echo, proxy):
        async with calling(proxy) as one:
            one.writer.write(b"last words\n")

        async def gone() -> bool:
            return not proxy.links and echo.heard == [b"last words\n"]

        await until(gone, "the echo has heard it, and the link is gone")


async def test_a_lost_reply_takes_its_connection_along() -> None:
    """The server did what it was asked to; as many replies are lost as were asked for, and no more."""
    async with echoing() as (echo, proxy):
        proxy.lose_replies(2)
        for line in (b"1\n", b"2\n"):
            async with calling(proxy) as caller:
                assert await caller.say(line) == b""
        async with calling(proxy) as caller:
            assert await caller.say(b"3\n") == b"3\n"
        assert (echo.heard, proxy.lost) == ([b"1\n", b"2\n", b"3\n"], 2)


async def test_what_is_late_comes_late_and_in_order() -> None:
    """Requests and replies each by their own time; what follows does not overtake, also when the way is good again."""
    async with echoing() as (_, proxy), calling(proxy) as caller:
        loop = asyncio.get_running_loop()
        proxy.requests_late_s, proxy.replies_late_s = LATE_S, LATE_S
        began = loop.time()
        assert await caller.say(b"1\n") == b"1\n"
        assert loop.time() - began >= 2 * LATE_S
        caller.writer.write(b"2\n")
        proxy.heal()
        caller.writer.write(b"3\n")
        assert [await caller.hear() for _ in range(2)] == [b"2\n", b"3\n"]


async def test_silence_delivers_nothing_and_then_everything() -> None:
    """Also what came over a connection that was opened meanwhile."""
    async with echoing() as (echo, proxy), calling(proxy) as before:
        assert await before.say(b"0\n") == b"0\n"
        proxy.silence()
        assert proxy.silent
        async with calling(proxy) as during:
            before.writer.write(b"1\n")
            during.writer.write(b"2\n")

            async def held() -> bool:
                return sum(bool(link._waiting[False]) for link in proxy.links) == 2

            await until(held, "both lines have reached the proxy")
            assert echo.heard == [b"0\n"]
            proxy.heal()
            assert await before.hear() == b"1\n"
            assert await during.hear() == b"2\n"


async def test_cut_and_closed() -> None:
    """A cut resets what there is; a closed way takes no new connection until it is healed."""
    async with echoing() as (_, proxy), calling(proxy) as caller:
        assert await caller.say(b"1\n") == b"1\n"
        proxy.closed = True
        assert proxy.cut() == 1
        assert await caller.hear() == b""
        async with calling(proxy) as refused:
            assert await refused.say(b"2\n") == b""
        proxy.heal()
        async with calling(proxy) as again:
            assert await again.say(b"3\n") == b"3\n"


async def test_replication_can_be_held_while_clients_are_served() -> None:
    """A link that asks to follow is a replica's: it alone gets nothing, is not cut with the clients, and catches up."""
    async with echoing() as (echo, proxy), calling(proxy) as client, calling(proxy) as replica:
        assert await replica.say(b"PSYNC ? -1\n") == b"PSYNC ? -1\n"
        assert await client.say(b"1\n") == b"1\n"
        proxy.replication_held = True
        replica.writer.write(b"ACK\n")
        assert await client.say(b"2\n") == b"2\n"
        assert b"ACK\n" not in echo.heard
        assert proxy.cut(clients_only=True) == 1
        proxy.heal()
        assert await replica.hear() == b"ACK\n"


async def test_who_has_seen_a_piece_may_cut_before_it_is_delivered() -> None:
    """The worst moment is just before: the request never reaches its server."""
    async with echoing() as (echo, proxy), calling(proxy) as caller:

        def seen(reply: bool, data: bytes) -> None:
            if not reply and b"now" in data:
                proxy.cut()

        proxy.seen.append(seen)
        assert await caller.say(b"before\n") == b"before\n"
        assert await caller.say(b"now\n") == b""
        assert echo.heard == [b"before\n"]
