"""A way to a server that can be cut, slowed down, silenced, closed, or made to lose replies.

Bytes are carried as they come. A reply that is lost takes its connection along, as on a real network: the server did
what it was asked to, and nobody hears of it. What is held back while the way is silent arrives late, not never, as TCP
would have it.
"""

import asyncio
import functools
from collections import deque
from collections.abc import Callable
from typing import Final, cast

HOST: Final = "127.0.0.1"
HELD_MAX_BYTES: Final = 1 << 20
"""Beyond this much undelivered, the sender is made to wait."""

Seen = Callable[[bool, bytes], None]
"""Hears of each piece that arrives: whether it is a reply, and its bytes."""


class _End(asyncio.Protocol):
    """One of the two ends of a carried connection."""

    def __init__(self, link: "_Link", *, inner: bool) -> None:
        self._link = link
        self._inner = inner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._link.made(cast("asyncio.Transport", transport), inner=self._inner)

    def data_received(self, data: bytes) -> None:
        self._link.got(data, reply=self._inner)

    def eof_received(self) -> None:
        return None  # both directions end together

    def connection_lost(self, _exc: Exception | None) -> None:
        self._link.lost(inner=self._inner)

    def pause_writing(self) -> None:
        self._link.hold_reading(of_inner=not self._inner, hold=True)

    def resume_writing(self) -> None:
        self._link.hold_reading(of_inner=not self._inner, hold=False)


class _Link:
    """A connection from a client, and the one to the server that belongs to it."""

    def __init__(self, proxy: "Proxy") -> None:
        self._proxy = proxy
        self._ends: dict[bool, asyncio.Transport] = {}  # by `inner`: the server's side is the inner one
        self._waiting: dict[bool, deque[tuple[float, bytes]]] = {False: deque(), True: deque()}  # by `reply`
        self._held: dict[bool, int] = {False: 0, True: 0}
        self._timers: dict[bool, asyncio.TimerHandle] = {}
        self._closing: set[bool] = set()
        self._full: set[bool] = set()
        self._gone = False
        self.replicates = False

    def outer(self) -> _End:
        return _End(self, inner=False)

    def made(self, transport: asyncio.Transport, *, inner: bool) -> None:
        if self._gone:
            transport.abort()
            return
        self._ends[inner] = transport
        if inner:
            self.flush()
        elif self._proxy.closed:
            self.abort()
        else:
            self._proxy.links.add(self)
            connecting = asyncio.get_running_loop().create_task(self._connect())
            self._proxy.connecting.add(connecting)
            connecting.add_done_callback(self._proxy.connecting.discard)

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: _End(self, inner=True), *self._proxy.target)
        except OSError:
            self.abort()

    def got(self, data: bytes, *, reply: bool) -> None:
        proxy = self._proxy
        if not reply and not self.replicates and b"PSYNC" in data[:64]:
            self.replicates = True
        for seen in proxy.seen:
            seen(reply, data)
        if self._gone:  # whoever has seen it cut the way
            return
        if reply and proxy.loses(self):
            self.abort()
            return
        due = asyncio.get_running_loop().time() + (proxy.replies_late_s if reply else proxy.requests_late_s)
        waiting = self._waiting[reply]
        waiting.append((max(due, waiting[-1][0]) if waiting else due, data))
        self._held[reply] += len(data)
        if self._held[reply] > HELD_MAX_BYTES:
            self._full.add(reply)
            self.hold_reading(of_inner=reply, hold=True)
        self.flush()

    def flush(self) -> None:
        """Deliver what is due, and come back for the rest."""
        for reply in (False, True):
            self._flush(reply)

    def _flush(self, reply: bool) -> None:
        waiting, to = self._waiting[reply], self._ends.get(not reply)
        if to is None or self._proxy.silent or (self.replicates and self._proxy.replication_held):
            return
        loop = asyncio.get_running_loop()
        while waiting and waiting[0][0] <= loop.time():
            data = waiting.popleft()[1]
            self._held[reply] -= len(data)
            to.write(data)
        if reply in self._full and self._held[reply] <= HELD_MAX_BYTES:
            self._full.discard(reply)
            self.hold_reading(of_inner=reply, hold=False)
        if waiting and reply not in self._timers:
            self._timers[reply] = loop.call_at(waiting[0][0], functools.partial(self._on_time, reply))
        if not waiting and reply in self._closing:
            to.close()

    def _on_time(self, reply: bool) -> None:
        del self._timers[reply]
        self._flush(reply)

    def hold_reading(self, *, of_inner: bool, hold: bool) -> None:
        end = self._ends.get(of_inner)
        if end is not None and not end.is_closing():
            (end.pause_reading if hold else end.resume_reading)()

    def lost(self, *, inner: bool) -> None:
        """One end is gone: the other one gets what is on its way to it, and goes as well."""
        self._ends.pop(inner, None)
        if not self._ends:
            self._end()
            return
        self._closing.add(inner)  # what came from the inner end are the replies
        self._flush(inner)

    def abort(self) -> None:
        """Both ends are gone at once; what was on its way is lost."""
        for end in list(self._ends.values()):
            end.abort()
        self._end()

    def _end(self) -> None:
        self._gone = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._proxy.links.discard(self)


class Proxy:
    """Listens on a port of its own and carries every connection to `target`.

    `closed`: connections are refused with a reset. `silent`: nothing is delivered, in neither direction.
    `requests_late_s`, `replies_late_s`: how late things are delivered, seconds. `replication_held`: the same as silent,
    for the link of a replica alone. `seen` hears of every piece. `lost` counts the replies that were lost.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.port = 0
        self.closed = False
        self.requests_late_s = 0.0
        self.replies_late_s = 0.0
        self.replication_held = False
        self.seen: list[Seen] = []
        self.links: set[_Link] = set()
        self.connecting: set[asyncio.Task[None]] = set()
        self.lost = 0
        self._silent = False
        self._to_lose = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Link(self).outer(), HOST, 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        """Cut everything and listen no more."""
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in list(self.connecting):
            task.cancel()
        await asyncio.gather(*self.connecting, return_exceptions=True)

    @property
    def silent(self) -> bool:
        """Whether nothing is delivered."""
        return self._silent

    def lose_replies(self, count: int) -> None:
        """Lose each of the next `count` replies, with its connection; 0: no more."""
        self._to_lose = count

    def loses(self, link: _Link) -> bool:
        """Whether this reply is one to lose."""
        if self._to_lose == 0 or link.replicates:
            return False
        self._to_lose -= 1
        self.lost += 1
        return True

    def silence(self) -> None:
        """Deliver nothing from now on."""
        self._silent = True

    def heal(self) -> None:
        """A good way again: what was held back is delivered."""
        self.closed = self._silent = self.replication_held = False
        self.requests_late_s = self.replies_late_s = 0.0
        self._to_lose = 0
        for link in list(self.links):
            link.flush()

    def cut(self, *, clients_only: bool = False) -> int:
        """Reset the connections there are (not a replica's, with `clients_only`); how many."""
        cut = [link for link in self.links if not (clients_only and link.replicates)]
        for link in cut:
            link.abort()
        return len(cut)
