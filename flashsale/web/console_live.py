"""The live page's feeds: one reader a drop and process, however many look; each stream gets the newest frame.

Each group of figures has a rhythm of its own, and is read no more often than it can be afforded: what takes long is
read seldom (`SHARE_MAX` of the time at most), and its age shows. A store that is away leaves the last figures standing,
with the time at which they were true. A stream that is slow misses frames; it never holds up the reader.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog

from flashsale.catalog import Catalog
from flashsale.domain import Drop
from flashsale.drops import Operations
from flashsale.errors import Refused, Unavailable
from flashsale.gate import Gate
from flashsale.ledger import Ledger
from flashsale.shares import Shares
from flashsale.web import views
from flashsale.web.board import Board
from flashsale.web.console_frames import (
    WRONG_MAX,
    BalanceFigures,
    Frame,
    GateAllocation,
    GateFigures,
    LedgerFigures,
    OrderFigures,
    Rates,
    WaitingFigures,
    event_of,
)

FRAME_EVERY_S: Final = 0.5
GATE_EVERY_S: Final = 0.5
COUNTS_EVERY_S: Final = 1.0
LEDGER_EVERY_S: Final = 1.0
BALANCE_EVERY_S: Final = 1.5
"""Pages call a figure late from 2 s on. Where reading takes long, `SHARE_MAX` makes it rarer, and late it is."""
SHARE_MAX: Final = 0.05
"""Of the time, a group's reading may take so much."""
ENDING_MAX: Final = 20_000
BUSY_RETRY_S: Final = 5

_log = structlog.get_logger()


class Feed:
    """The figures of one drop, read as long as somebody looks."""

    def __init__(self, drop: Drop, live: "Live") -> None:
        self._drop = drop
        self._live = live
        self._groups: dict[str, Any] = {}
        self._rates = Rates()
        self._ahead_s = 0.0
        self._event = b""
        self._number = 0
        self._changed = asyncio.Condition()
        self._reading: asyncio.Task[None] | None = None
        self.streams = 0

    def start(self) -> None:
        """Begin to read."""
        self._reading = asyncio.create_task(self._read())

    async def stop(self) -> None:
        """Read no more; streams end."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            self._reading = None
        async with self._changed:
            self._changed.notify_all()

    async def frames(self) -> AsyncIterator[bytes]:
        """Each frame that is new when one asks for it, until the feed stops."""
        seen = 0
        while self._reading is not None:
            async with self._changed:
                while self._number == seen and self._reading is not None:
                    await self._changed.wait()
            if self._number > seen:
                seen = self._number
                yield self._event

    async def _read(self) -> None:
        groups = (
            ("gate", GATE_EVERY_S, self._gate),
            ("verdicts", COUNTS_EVERY_S, self._counts),
            ("waiting", COUNTS_EVERY_S, self._waiting),
            ("ledger", LEDGER_EVERY_S, self._ledger),
            ("orders", LEDGER_EVERY_S, self._orders),
            ("balance", BALANCE_EVERY_S, self._balance),
        )
        async with asyncio.TaskGroup() as tasks:
            for name, every_s, read in groups:
                tasks.create_task(self._again(name, every_s, read))
            tasks.create_task(self._compose())

    async def _again(self, name: str, every_s: float, read: Callable[[], Awaitable[Any]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                found = await read()
            except (Unavailable, Refused):
                found = None
            except Exception as error:  # noqa: BLE001 -- one group that fails must not take the others with it
                _log.error("live.failed", group=name, drop=self._drop.id, exc_info=error)
                found = None
            if found is not None:
                self._groups[name] = found
            took_s = loop.time() - began
            await asyncio.sleep(max(every_s - took_s, took_s / SHARE_MAX))

    async def _compose(self) -> None:
        while True:
            await asyncio.sleep(FRAME_EVERY_S)
            drop = self._live.catalog.known(self._drop.id) or self._drop
            groups = {**self._groups}
            counted = groups.pop("verdicts", None)
            if counted is not None:
                at = datetime.fromtimestamp(counted.at_ms / 1_000, UTC)
                groups |= {"verdicts": self._rates.verdicts(at), "verdict_ms": self._rates.waits(at)}
            frame = Frame(
                drop=drop.id,
                at=self._now(),
                epoch=drop.epoch,
                paused=drop.paused,
                held=drop.held,
                closed=drop.closed,
                fcodes_stopped=drop.fcodes_stopped,
                **groups,
            )
            async with self._changed:
                self._number += 1
                self._event = event_of(frame, self._number)
                self._changed.notify_all()

    def _now(self) -> datetime:
        """The server's clock: the gate's, as it was last heard."""
        return datetime.fromtimestamp(self._live.now().timestamp() + self._ahead_s, UTC)

    async def _gate(self) -> GateFigures:
        drop = self._live.catalog.known(self._drop.id) or self._drop
        status, here = await self._live.board.status(drop), self._live.now()
        if status is not None:
            self._ahead_s = status.now_ms / 1_000 - here.timestamp()
        at = self._now()
        left = {} if status is None else status.available
        return GateFigures(
            at,
            status is not None,
            None if status is None else round(self._ahead_s * 1_000),
            tuple(
                GateAllocation(a.id, views.state_of(drop, a, left.get(a.id), at), left.get(a.id), a.quantity)
                for a in drop.allocations
            ),
        )

    async def _counts(self) -> Any:  # noqa: ANN401 -- becomes two groups
        counted = await self._live.gate.sharing.counts(self._drop.id)
        self._rates.add(counted)
        return counted

    async def _waiting(self) -> WaitingFigures | None:
        heard = self._live.shares.everybody
        if heard is None:
            return None
        at = datetime.fromtimestamp(heard.at_ms / 1_000, UTC)
        return WaitingFigures(at, heard.gate, heard.ledger, heard.processes)

    async def _timed(self, read: Awaitable[Any]) -> tuple[Any, datetime, float]:
        """What was read, as of when (the time at which it was asked: it is no newer), and how long it took, ms."""
        loop, at = asyncio.get_running_loop(), self._now()
        began = loop.time()
        found = await read
        return found, at, round((loop.time() - began) * 1_000, 1)

    async def _ledger(self) -> LedgerFigures:
        console = self._live.ledger.console
        holds, at, took_ms = await self._timed(console.holds(self._drop.id, ENDING_MAX))
        capped = holds.ending_5m >= ENDING_MAX
        return LedgerFigures(at, took_ms, holds.held, holds.confirmed, holds.ending_1m, holds.ending_5m, capped)

    async def _orders(self) -> OrderFigures:
        found, at, took_ms = await self._timed(self._live.ledger.console.outgoing(self._drop.id))
        queue = await self._live.ledger.orders.health()
        return OrderFigures(
            at, took_ms, found.waiting, found.delivered, found.dead, queue.waiting, round(queue.oldest_s, 1)
        )

    async def _balance(self) -> BalanceFigures:
        found, at, took_ms = await self._timed(self._live.operations.balance(self._drop.id))
        names = ("quantity", "available", "pending", "held", "confirmed")
        sums = {name: sum(getattr(b, name) for b in found) for name in names}
        wrong = tuple(b.id for b in found if not b.balanced)
        return BalanceFigures(at=at, took_ms=took_ms, balanced=not wrong, wrong=wrong[:WRONG_MAX], **sums)


class Live(msgspec.Struct, kw_only=True):
    """All feeds of a process. At most `streams_max` look at the same time."""

    gate: Gate
    ledger: Ledger
    catalog: Catalog
    operations: Operations
    board: Board
    shares: Shares
    now: Callable[[], datetime]
    streams_max: int
    feeds: dict[str, Feed] = {}
    streams: int = 0
    closed: bool = False

    @contextlib.asynccontextmanager
    async def joined(self, drop: Drop) -> AsyncIterator[AsyncIterator[bytes]]:
        """The frames of a drop, for one stream; `Unavailable` when there are too many already."""
        if self.closed or self.streams >= self.streams_max:
            raise Unavailable(
                f"{self.streams} live streams are open in this process; close one, or ask again in a moment.",
                retry_after_s=BUSY_RETRY_S,
            )
        self.streams += 1
        feed = self.feeds.get(drop.id)
        if feed is None:
            feed = self.feeds[drop.id] = Feed(drop, self)
            feed.start()
        feed.streams += 1
        try:
            yield feed.frames()
        finally:
            self.streams -= 1
            feed.streams -= 1
            if feed.streams == 0 and self.feeds.get(drop.id) is feed:
                del self.feeds[drop.id]
                await feed.stop()

    async def aclose(self) -> None:
        """End all streams, and let no other begin."""
        self.closed = True
        await asyncio.gather(*(feed.stop() for feed in self.feeds.values()))
