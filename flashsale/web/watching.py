"""`GET /v1/drops/{drop}/events`: changes of a drop as server-sent events, to so many pages of a process and no more.

One watcher a drop looks at the board, as long as anybody listens; what it finds changed goes to all of them.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from typing import Final

import msgspec
from aiohttp import web

from flashsale.domain import Drop
from flashsale.drops import unknown_drop
from flashsale.errors import Overloaded
from flashsale.web import views
from flashsale.web.auth import Identity
from flashsale.web.context import Context
from flashsale.web.page_schemas import StatusAllocation
from flashsale.web.routing import Call, path_id
from flashsale.web.schemas import AllocationOut

LOOK_S: Final = 0.4
"""How often a drop is looked at."""
KEEP_ALIVE_S: Final = 15.0
"""After so long without an event a comment is sent, so that nobody on the way takes the connection for dead."""
GONE_S: Final = 1.0
"""How soon it is noticed that a page was closed."""
BACKLOG_MAX: Final = 64
"""A page that reads so slowly is sent away; it asks again, or polls."""
RETRY_MS: Final = 5_000

_encode: Final = msgspec.json.Encoder().encode


def allocation_now(a: AllocationOut, back_by: datetime | None = None) -> StatusAllocation:
    """The state of an allocation."""
    return StatusAllocation(a.id, a.state, a.opens_at, a.closes_at, a.access, a.channel, back_by)


class Watch:
    """Who listens to what, in this process."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._max = context.settings.streams_max
        self._listeners: dict[str, set[asyncio.Queue[bytes | None]]] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._seen: dict[str, tuple[int, tuple[StatusAllocation, ...]]] = {}
        self._closed = False

    @property
    def room(self) -> int:
        """How many more may listen."""
        return 0 if self._closed else self._max - sum(map(len, self._listeners.values()))

    async def listen(self, drop: Drop) -> asyncio.Queue[bytes | None]:
        """Events of a drop from now on, beginning with how it is; None at their end. `Overloaded`: there is no room."""
        if self.room <= 0:
            raise Overloaded("As many pages as this process sends events to are listening; poll the status instead.")
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(BACKLOG_MAX)
        self._listeners.setdefault(drop.id, set()).add(queue)
        if drop.id not in self._watchers:
            self._watchers[drop.id] = asyncio.create_task(self._watch(drop.id))
        elif drop.id in self._seen:
            for event in _events(None, self._seen[drop.id]):
                queue.put_nowait(event)
        return queue

    def leave(self, drop_id: str, queue: asyncio.Queue[bytes | None]) -> None:
        """Listen no longer."""
        listeners = self._listeners.get(drop_id, set())
        listeners.discard(queue)
        if not listeners:
            self._listeners.pop(drop_id, None)
            self._seen.pop(drop_id, None)
            watcher = self._watchers.pop(drop_id, None)
            if watcher is not None:
                watcher.cancel()

    async def aclose(self) -> None:
        """End all streams: a process that stops waits for nobody who only listens."""
        self._closed = True
        for listeners in list(self._listeners.values()):
            for queue in list(listeners):
                _put(queue, None)
        await asyncio.sleep(0)

    async def _watch(self, drop_id: str) -> None:
        context = self._context
        while True:
            with suppress(Exception):  # a store that is away is asked again; who listens has the status call, too
                drop = await context.catalog.get(drop_id)
                if drop is not None:
                    out = views.drop_out(drop, await context.board.status(drop), context.now())
                    now = tuple(
                        StatusAllocation(a.id, a.state, a.opens_at, a.closes_at, a.access, a.channel)
                        for a in out.allocations
                    )
                    before = self._seen.get(drop_id)
                    self._seen[drop_id] = drop.epoch, now
                    for event in _events(before, (drop.epoch, now)):
                        for queue in list(self._listeners.get(drop_id, ())):
                            _put(queue, event)
            await asyncio.sleep(LOOK_S)


def _put(queue: asyncio.Queue[bytes | None], event: bytes | None) -> None:
    if queue.full():
        while not queue.empty():
            queue.get_nowait()
        event = None
    queue.put_nowait(event)


def _events(
    before: tuple[int, tuple[StatusAllocation, ...]] | None, now: tuple[int, tuple[StatusAllocation, ...]]
) -> list[bytes]:
    """What is to be told: an act of an operator as `drop`, allocations that changed as `allocation`."""
    known = () if before is None else before[1]
    told = [b"event: allocation\ndata: %b\n\n" % _encode(a) for a in now[1] if a not in known]
    if before is not None and before[0] != now[0]:
        told.insert(0, b'event: drop\ndata: {"epoch":%d}\n\n' % now[0])
    return told


async def _until_gone(request: web.Request, queue: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
    """Events as they come, and comments between them, until they end or nobody is there: a place is free at once."""
    loop = asyncio.get_running_loop()
    quiet_since = loop.time()
    while request.transport is not None and not request.transport.is_closing():
        try:
            async with asyncio.timeout(GONE_S):
                event = await queue.get()
        except TimeoutError:
            if loop.time() - quiet_since < KEEP_ALIVE_S:
                continue
            event = b":\n\n"
        if event is None:
            return
        quiet_since = loop.time()
        yield event


WATCH: Final = web.AppKey("watch", Watch)


async def events(request: web.Request, context: Context, _: Identity) -> web.StreamResponse:
    """`GET /v1/drops/{drop}/events`."""
    drop_id = path_id(request, "drop")
    drop = await context.catalog.get(drop_id)
    if drop is None:
        raise unknown_drop(drop_id)
    watch = request.app[WATCH]
    queue = await watch.listen(drop)
    try:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        await response.prepare(request)
        await response.write(b"retry: %d\n\n" % (RETRY_MS + random.randrange(RETRY_MS)))  # noqa: S311 -- spreads
        with suppress(ConnectionError):  # who listened went away
            async for event in _until_gone(request, queue):
                await response.write(event)
            await response.write_eof()
    finally:
        watch.leave(drop.id, queue)
    return response


CALLS: Final = (
    Call(
        method="GET",
        path="/v1/drops/{drop}/events",
        handler=events,
        summary="Changes of a drop as server-sent events: `allocation`, `drop`; comments keep the connection alive",
        access="public",
        answers={200: "text/event-stream"},
        codes=("not_found",),
    ),
)
