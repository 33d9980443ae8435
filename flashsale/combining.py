"""Flat combining: while one call is under way, later requests pile up and go together in the next.

No timers: an idle lane calls at once with a batch of one, a busy lane's batches grow with the
load. (The technique: Hendler, Incze, Shavit, Tzafrir, "Flat combining and the synchronization-
parallelism tradeoff", SPAA 2010; databases call it group commit.)
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from flashsale.errors import Overloaded, Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Group(list[Item]):
    """Items that came together: they wait as one, go in one call, and have one future for all their results."""


Entry: TypeAlias = tuple[Item | _Group[Item], asyncio.Future[Any], float]
"""What waits, its future, and since when."""


def _size(entry: Entry[Item]) -> int:
    return len(entry[0]) if type(entry[0]) is _Group else 1


class Lane(Generic[Item, Result]):
    """Turns single requests into batched calls, one call at a time.

    `call` takes up to `batch_max` items and returns one result per item in their order. When it
    raises, the items of that batch, and no others, get the exception. At most `queue_max` items
    wait, and none for longer than `wait_max_s`: more, or later, is `Overloaded`, so that memory stays
    bounded and a store that stalls does not keep thousands waiting for one time-out after the other.
    A call is given up when its oldest item is `answer_max_s` old: each is answered within that time.
    `answered(seconds, items)` hears of each call that was answered: how old its oldest item was then.
    """

    def __init__(
        self,
        call: Callable[[list[Item]], Awaitable[Sequence[Result]]],
        *,
        batch_max: int,
        queue_max: int,
        wait_max_s: float = 60.0,
        answer_max_s: float = 3_600.0,
        observe: Callable[[int], None] | None = None,
        answered: Callable[[float, int], None] | None = None,
    ) -> None:
        self._call = call
        self._batch_max = batch_max
        self._queue_max = queue_max
        self._wait_max_s = wait_max_s
        self._answer_max_s = answer_max_s
        self._observe = observe
        self._answered = answered
        self._waiting: deque[Entry[Item]] = deque()
        self._depth = 0
        self._runner: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def depth(self) -> int:
        """How many items wait for the next call."""
        return self._depth

    @property
    def idle(self) -> bool:
        """Whether no call is under way and none is due."""
        return self._runner is None

    def submit(self, item: Item) -> "asyncio.Future[Result]":
        """Queue `item`; the future gets its result. A caller may drop the future: no other item notices."""
        return self._queue(item, 1)

    def submit_many(self, items: Iterable[Item]) -> "asyncio.Future[list[Result]]":
        """Queue items that came together, `batch_max` at most; the future gets their results in their order.

        A future and its callbacks are paid for once. They go in one call, and are refused or fail together.
        """
        group = _Group(items)
        if not 0 < len(group) <= self._batch_max:
            raise ValueError(f"{len(group)} items came together; one call takes 1 to {self._batch_max}")
        return self._queue(group, len(group))

    def _queue(self, item: Item | _Group[Item], size: int) -> "asyncio.Future[Any]":
        if self._depth + size > self._queue_max:
            raise Overloaded("Too many requests are waiting; try again in a moment.")
        loop = self._loop
        if loop is None:  # kept, because get_running_loop() asks the system for the process id each time
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((item, future, loop.time()))
        self._depth += size
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
            self._runner.add_done_callback(self._ended)
        return future

    async def _run(self) -> None:
        while self._waiting:
            self._refuse_late(asyncio.get_running_loop().time() - self._wait_max_s)
            batch: list[Entry[Item]] = []
            room = self._batch_max
            while self._waiting and (room := room - _size(self._waiting[0])) >= 0:
                batch.append(self._next())
            if batch:
                await self._run_batch(batch, batch[0][2] + self._answer_max_s)
        self._runner = None

    def _next(self) -> Entry[Item]:
        """Who has waited longest waits no more."""
        entry = self._waiting.popleft()
        self._depth -= _size(entry)
        return entry

    def _ended(self, runner: asyncio.Task[None]) -> None:
        """Also when it was cancelled before its first step: nobody hangs, and the next item starts another."""
        if self._runner is runner:
            self._runner = None
            self._fail_rest()

    def _refuse_late(self, before: float) -> None:
        """The oldest are in front; who has waited since `before` or longer is told to come back."""
        while self._waiting and self._waiting[0][2] <= before:
            future = self._next()[1]
            if not future.done():
                future.set_exception(Overloaded("This has waited for too long; repeat the same request."))

    def _fail_rest(self) -> None:
        """Only a cancelled runner leaves anything behind: tell those who wait instead of letting them hang."""
        while self._waiting:
            future = self._next()[1]
            if not future.done():
                future.set_exception(Unavailable("The service is stopping; repeat the same request."))

    async def _run_batch(self, batch: list[Entry[Item]], give_up_at: float) -> None:
        items: list[Item] = []
        for item, _, _ in batch:
            if type(item) is _Group:
                items.extend(item)
            else:
                items.append(item)  # type: ignore[arg-type]  # told apart by `type`, which mypy does not follow
        try:
            if self._observe is not None:
                self._observe(len(items))
            async with asyncio.timeout_at(give_up_at):
                results = await self._call(items)
            if len(results) != len(items):
                raise RuntimeError(f"a batch of {len(items)} came back with {len(results)} results")
        except asyncio.CancelledError:
            self._settle_all(batch, Unavailable("The service is stopping; repeat the same request."))
            raise
        except TimeoutError:
            self._settle_all(batch, Unavailable("This could not be answered in time; repeat the same request."))
            return
        except Exception as error:  # noqa: BLE001 -- whatever it was, it belongs to the requests of this batch
            self._settle_all(batch, error)
            return
        at = 0
        for entry in batch:
            future, size = entry[1], _size(entry)
            if not future.done():
                future.set_result(list(results[at : at + size]) if type(entry[0]) is _Group else results[at])
            at += size
        if self._answered is not None:
            self._answered(asyncio.get_running_loop().time() - batch[0][2], len(items))

    @staticmethod
    def _settle_all(batch: list[Entry[Item]], error: Exception) -> None:
        for _, future, _ in batch:
            if not future.done():
                future.set_exception(error)
                future.exception()  # mark as seen: a caller that went away must not log "never retrieved"
