"""Faults, planted where they would strike: calls held back, replies lost on the way. And what must hold after them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from flashsale.domain import Claim, Drop, Grant, Refusal
from flashsale.errors import Unavailable
from flashsale.gate import Gate, Unarmed
from flashsale.gate.client import Client
from flashsale.gate.scripts import Script
from flashsale.ledger import Commit, ReservationStore
from flashsale.ledger.pool import Pool
from flashsale.reservations import Held, Known
from tests.support import POLL_S, Node


class HeldBack(ReservationStore):
    """Commits wait, on their way to the ledger, until `go` is set; `waiting` is set when one does."""

    def __init__(self, pool: Pool, reading: Pool) -> None:
        super().__init__(pool, reading)
        self.go, self.waiting = asyncio.Event(), asyncio.Event()
        self.grants: list[Grant] = []

    async def commit(self, drop_id: str, grants: Sequence[Grant]) -> list[Commit]:
        self.grants += grants
        self.waiting.set()
        await self.go.wait()
        return await super().commit(drop_id, grants)


class SlowGate(Gate):
    """The last step of a rebuild waits until `go` is set; `waiting` is set when one does."""

    def __init__(self, client: Client, *, timeout_s: float, new_ids: Callable[[int], list[str]]) -> None:
        super().__init__(client, timeout_s=timeout_s, new_ids=new_ids)
        self.go, self.waiting = asyncio.Event(), asyncio.Event()
        self.go.set()

    async def arm_finish(
        self,
        drop: Drop,
        members: int,
        free: dict[str, int],
        *,
        codes: int = 0,
        bound: Sequence[int] = (),
        ttl_ms: int,
        leased_ms: int = 0,
        stripe: int = 0,
    ) -> Literal["ok", "lost", "superseded"]:
        if not self.go.is_set():
            self.waiting.set()
            await self.go.wait()
        return await super().arm_finish(
            drop, members, free, codes=codes, bound=bound, ttl_ms=ttl_ms, leased_ms=leased_ms, stripe=stripe
        )


class _DeafClient:
    """Answers a cancellation with a reply, as asyncio.wait_for of Python 3.11 does now and then: once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.asked = asyncio.Event()

    async def execute_command(self, *args: Any) -> Any:  # noqa: ANN401 -- as the library declares it
        renews = args[0] == "PEXPIRE" and args[1].endswith(":arming")
        looks = args[0] == "EVALSHA" and args[1] == Script("pending").sha
        if (renews or looks) and not self.asked.is_set():
            self.asked.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()
        return await self._client.execute_command(*args)

    async def aclose(self) -> None:
        await self._client.aclose()


class DeafGate(SlowGate):
    """A gate whose client loses the word when a lease's renewal or the janitor's look is cancelled: once.

    `asked` is set when it waits for that.
    """

    def __init__(self, client: Client, *, timeout_s: float, new_ids: Callable[[int], list[str]]) -> None:
        deaf = _DeafClient(client)
        super().__init__(deaf, timeout_s=timeout_s, new_ids=new_ids)
        self.asked = deaf.asked


class LeaselessGate(Gate):
    """Every process believes that the rebuild is its own."""

    async def take_lease(self, drop_id: str, *, stripe: int = 0) -> bool:  # noqa: ARG002 -- as the gate has it
        return True


class Wire:
    """A way to a server that loses replies: the server did what it was asked, and its answer never arrives."""

    def __init__(self) -> None:
        self.url = ""
        self.lost = 0
        self._to_lose = 0

    def lose_replies(self, count: int) -> None:
        """Lose each of the next `count` replies, and the connection that it was on."""
        self._to_lose = count

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        try:
            while data := await reader.read(1 << 16):
                if replies and self._to_lose:
                    self._to_lose -= 1
                    self.lost += 1
                    break
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def to(self, url: str) -> AsyncIterator["Wire"]:
        """Listen, and carry everything to the server at `url`; `self.url` is the way through here."""
        target = urlsplit(url)
        tasks: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            behind = await asyncio.open_connection(target.hostname, target.port)
            there = asyncio.create_task(self._carry(reader, behind[1], replies=False))
            back = asyncio.create_task(self._carry(behind[0], writer, replies=True))
            tasks.update((there, back))
            await asyncio.wait((there, back))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = urlunsplit(target._replace(netloc=f"{target.netloc.rpartition(':')[0]}:{port}"))
        try:
            yield self
        finally:
            server.close()
            await asyncio.gather(*tasks)


async def press(node: Node, drop_id: str, claim: Claim, deadline_s: float = 60.0) -> Held | Known | Refusal:
    """Press, and press again while the service says that it cannot answer: what a patient shopper does."""
    async with asyncio.timeout(deadline_s):
        while True:
            try:
                await node.catalog.get(drop_id)
                return await node.reservations.reserve(drop_id, claim)
            except Unavailable:
                await asyncio.sleep(POLL_S)


def id_of(answer: Held | Known | Refusal) -> str:
    """The reservation that a shopper was told of; a refusal fails the test."""
    match answer:
        case Held(grant=grant):
            return grant.id
        case Known(reservation=reservation):
            return reservation.id
        case Refusal(verdict=verdict):
            raise AssertionError(f"refused: {verdict}")


async def at_rest(node: Node, drop_id: str) -> dict[str, int]:
    """What is available, after a look whether gate and ledger agree: one epoch, every unit in its place."""
    drop = await node.ledger.drops.get(drop_id)
    assert drop is not None
    status = await node.gate.status(drop, drop.epoch)
    assert not isinstance(status, Unarmed)
    assert status.epoch == drop.epoch
    balance = await node.operations.balance(drop_id)
    assert [b for b in balance if not b.balanced] == []
    assert await node.ledger.reservations.outbox(drop_id, 10) == []
    return {b.id: b.available for b in balance}
