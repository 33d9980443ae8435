"""Pressing buy many times at once: a thin HTTP/1.1 client.

`Rush` sends requests that are bytes already over a fixed number of persistent connections, one request at a time on
each, and repeats what the caller's judge wants repeated. What is not in a hurry goes through `api`.
"""

import asyncio
import ssl
from collections import Counter, deque
from collections.abc import Callable, Iterable
from random import Random
from time import monotonic
from typing import cast

from loadtests.http1 import Answer, Malformed, Target, parse_answer

CONNECTING_MAX = 100  # connections being opened at once: a listen queue is usually 128 long
CONNECT_TIMEOUT_S = 10.0
RECONNECT_DELAY_S = 0.05
TIMER_SLACK_S = 0.001
RECONNECT_DELAY_MAX_S = 1.0


class Press:
    """One request of one member, with what became of it so far. `sent_at` is by `time.monotonic`."""

    __slots__ = ("member", "sent_at", "tries", "wire")

    def __init__(self, member: int, wire: bytes) -> None:
        self.member = member
        self.wire = wire
        self.tries = 0
        self.sent_at = 0.0


Judge = Callable[[Press, Answer], float | None]
"""Takes an answer; returns None when it is the press's last, or how many seconds to wait before the same again."""


class _Connection(asyncio.Protocol):
    """One persistent connection with at most one request on it."""

    def __init__(self, rush: "Rush") -> None:
        self._rush = rush
        self._data = b""
        self._transport: asyncio.Transport | None = None
        self.press: Press | None = None
        self.why_lost = "closed"
        self.alive = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.alive = True

    def send(self, press: Press) -> None:
        self.press = press
        press.tries += 1
        press.sent_at = monotonic()
        cast("asyncio.Transport", self._transport).write(press.wire)

    def drop(self, why: str) -> None:
        """End the connection at once; its press is then repeated over another."""
        self.why_lost = why
        self.alive = False
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._data:
            data = self._data + data
        try:
            found = parse_answer(data, monotonic())
        except Malformed:
            self.drop("malformed")
            return
        if found is None:
            self._data = data
            return
        answer, end = found
        press = self.press
        if press is None or len(data) != end:
            self.drop("malformed")  # more than was asked for: which answer is whose is no longer known
            return
        self._data = b""
        self.press = None
        if not answer.keep_alive:
            self.drop("closed")
        self._rush.answered(self, press, answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        if exc is not None and self.why_lost == "closed":
            self.why_lost = "reset"
        press, self.press = self.press, None
        self._rush.lost(self, press)


class Rush:
    """Many presses over at most `connections` persistent connections.

    A press whose connection breaks or that is not answered within `timeout_s` is sent again over another connection:
    the same bytes, hence the same Idempotency-Key. `broken` counts such losses by cause: `closed`, `reset`, `timeout`,
    `malformed`, `refused` (a connection that could not be opened); `on_lost` hears of each press whose answer was lost.
    `started_at` is when the last run really began, by `time.monotonic`. `random` spreads repetitions a little.
    """

    def __init__(self, target: Target, connections: int, *, random: Random, timeout_s: float = 30.0) -> None:
        self._target = target
        self._size = connections
        self._random = random
        self._timeout_s = timeout_s
        self._tls = ssl.create_default_context() if target.tls else None
        self._queue: deque[Press] = deque()
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(CONNECTING_MAX)
        self._judge: Judge | None = None
        self._left = 0
        self._done: asyncio.Future[None] | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._released = False
        self._closed = False
        self.broken: Counter[str] = Counter()
        self.on_lost: Callable[[Press], None] = lambda _press: None
        self.started_at = 0.0

    @property
    def open_connections(self) -> int:
        """How many connections stand."""
        return len(self._open)

    @property
    def left(self) -> int:
        """How many presses have no last answer yet."""
        return self._left

    async def open(self, timeout_s: float) -> None:
        """Open the connections that are missing, before they are needed; `TimeoutError` when they do not come."""
        self._top_up()
        async with asyncio.timeout(timeout_s):
            while self._connecting:
                await asyncio.wait(set(self._connecting))

    async def run(self, presses: Iterable[Press], judge: Judge, *, start_at: float, give_up_at: float) -> list[Press]:
        """Press everything at `start_at`, together, and return the presses that had no last answer at `give_up_at`.

        One press a member. Both instants are by `time.monotonic`: a loop's own clock stands still while it works
        through what is ready.
        """
        loop = asyncio.get_running_loop()
        waiting = {press.member: press for press in presses}
        self._queue.extend(waiting.values())
        self._left = len(waiting)
        self._done = loop.create_future()

        def judge_and_forget(press: Press, answer: Answer) -> float | None:
            wait_s = judge(press, answer)
            if wait_s is None:
                del waiting[press.member]
            return wait_s

        self._judge = judge_and_forget
        if self._left == 0:
            self._done.set_result(None)
        self._top_up()  # connections may have ended since they were opened
        self._at(start_at, self._start)
        try:
            async with asyncio.timeout(give_up_at - monotonic()):
                await self._done
        except TimeoutError:
            pass
        finally:
            self._stop()
        return list(waiting.values())

    async def aclose(self) -> None:
        """Close every connection."""
        self._closed = True
        self._stop()
        for connection in list(self._open):
            connection.drop("closed")
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)

    def answered(self, connection: _Connection, press: Press, answer: Answer) -> None:
        """A connection has its answer: judge it and put the connection to its next press."""
        if self._judge is None:
            return  # the run is over; nobody listens any more
        wait_s = self._judge(press, answer)
        if wait_s is None:
            self._left -= 1
            if self._left == 0 and self._done is not None and not self._done.done():
                self._done.set_result(None)
        else:
            self._later(press, wait_s)
        if connection.alive:
            self._next(connection)

    def lost(self, connection: _Connection, press: Press | None) -> None:
        """A connection has ended, perhaps with a press on it: repeat that, and open another."""
        self._open.discard(connection)
        if self._done is None or self._closed:
            return
        if press is not None:
            self.broken[connection.why_lost] += 1
            self.on_lost(press)
            self._later(press, RECONNECT_DELAY_S)
        self._top_up()

    def _stop(self) -> None:
        """Nothing is pressed any more; connections with a press still on them cannot be used again."""
        self._done = self._judge = None
        self._released = False
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._queue.clear()
        for connection in [connection for connection in self._open if connection.press is not None]:
            connection.drop("closed")

    def _at(self, when: float, call: Callable[[], None]) -> None:
        def fire() -> None:
            self._timers.discard(timer)
            call()

        # Loops count whole milliseconds and may round down: one more keeps "not before" true.
        timer = asyncio.get_running_loop().call_later(max(0.0, when - monotonic()) + TIMER_SLACK_S, fire)
        self._timers.add(timer)

    def _later(self, press: Press, wait_s: float) -> None:
        def again() -> None:
            self._queue.append(press)
            self._release()

        self._at(monotonic() + wait_s * (1 + 0.1 * self._random.random()), again)

    def _start(self) -> None:
        self.started_at = monotonic()
        self._released = True
        self._release()
        self._sweep()

    def _release(self) -> None:
        """Put idle connections to work on what waits."""
        idle, self._idle = self._idle, []
        for connection in idle:
            if connection.alive:
                self._next(connection)

    def _next(self, connection: _Connection) -> None:
        if self._queue and self._released:
            connection.send(self._queue.popleft())
        else:
            self._idle.append(connection)

    def _sweep(self) -> None:
        now = monotonic()
        for connection in list(self._open):
            if connection.press is not None and now - connection.press.sent_at > self._timeout_s:
                connection.drop("timeout")
        self._at(now + 1.0, self._sweep)

    def _top_up(self) -> None:
        for _ in range(self._size - len(self._open) - len(self._connecting)):
            task = asyncio.get_running_loop().create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        delay_s = RECONNECT_DELAY_S
        loop = asyncio.get_running_loop()
        while not self._closed:
            try:
                async with self._slots, asyncio.timeout(CONNECT_TIMEOUT_S):
                    _, connection = await loop.create_connection(
                        lambda: _Connection(self), self._target.host, self._target.port, ssl=self._tls
                    )
            except OSError:  # TimeoutError is one
                self.broken["refused"] += 1
                await asyncio.sleep(delay_s * (1 + self._random.random()))
                delay_s = min(2 * delay_s, RECONNECT_DELAY_MAX_S)
                continue
            if connection.alive:
                self._open.add(connection)
                self._next(connection)
                return
