"""An event loop without a clock and without I/O: time jumps to the next timer, and a seed decides who runs next.

What is to run belongs to a machine: each process of the simulation is one. What asyncio promises within one process
(callbacks run in the order in which they were scheduled) holds within a machine; which machine runs next is drawn. A
machine can be stopped (nothing of it runs, its timers and replies wait for it) or killed (nothing of it ever runs
again: no `finally`, no `except`, as after kill -9).
"""

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from typing import Any

CLOSES_MAX = 100


# Of all that asyncio's loops can do, what the product asks of one: no sockets, no signals, no subprocesses.
_Loop: Any = asyncio.AbstractEventLoop


class Machine:
    """What runs by itself: one process, or the world around all of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready: deque[Turn] = deque()
        self.stopped = False
        self.dead = False
        self.listed = False
        self.context = copy_context()
        self.context.run(_here.set, self)


_here: ContextVar[Machine] = ContextVar("machine")


def here() -> Machine:
    """The machine on which the caller runs."""
    return _here.get()


class Turn:
    """What is to run, as asyncio's own handles are, and no more than that: thousands are made in every schedule."""

    __slots__ = ("args", "callback", "cancelled", "context", "when_s")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context, when_s: float = 0.0
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.cancelled = False
        self.when_s = when_s

    def cancel(self) -> None:
        """It will not run."""
        self.cancelled = True

    def when(self) -> float:
        """When it was to run."""
        return self.when_s


class Stuck(AssertionError):
    """Nothing is left that could run, and what is waited for has not come."""


class SimLoop(_Loop):  # type: ignore[misc]  # see there
    """The loop of one schedule. `time()` is in seconds from its beginning."""

    def __init__(self, dice: random.Random) -> None:
        self._draw = dice.random
        self._now = 0.0
        self._timers: list[tuple[float, int, Turn | None, Callable[..., object], tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        self._runnable: list[Machine] = []
        self._tasks: list[tuple[asyncio.Task[Any], Machine]] = []
        self.world = Machine("world")
        self.broken: list[dict[str, Any]] = []
        self.steps = 0

    # What asyncio asks of a loop.

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None, **_: object
    ) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append((task, (context or copy_context()).get(_here, self.world)))
        return task

    def call_soon(self, callback: Callable[..., object], *args: object, context: Context | None = None) -> Turn:
        if context is None:
            context = copy_context()
        turn = Turn(callback, args, context)
        machine = context.get(_here, self.world)
        if not machine.dead:
            machine.ready.append(turn)
            if not machine.listed and not machine.stopped:
                machine.listed = True
                self._runnable.append(machine)
        return turn

    def call_at(
        self, when: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> Turn:
        turn = Turn(callback, args, context or copy_context(), when)
        heappush(self._timers, (when, next(self._numbers), turn, callback, ()))
        return turn

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> Turn:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def run_in_executor(self, _executor: object, func: Callable[..., Any], *args: object) -> "asyncio.Future[Any]":
        """At once: threads would bring an order of their own."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 -- it belongs to who asked
            future.set_exception(error)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.broken.append(context)

    # What the simulation adds.

    def after(self, delay_s: float, act: Callable[..., object], *args: object) -> None:
        """Let the world act, whatever becomes of the machine that asked for it."""
        heappush(self._timers, (self._now + delay_s, next(self._numbers), None, act, args))

    def pause(self, delay_s: float) -> "asyncio.Future[None]":
        """Done after so long."""
        future = self.create_future()
        self.after(delay_s, _wake, future)
        return future

    def spawn(self, machine: Machine, coro: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Begin a task on a machine."""
        return self.create_task(coro, context=machine.context)

    def stop_machine(self, machine: Machine) -> None:
        """SIGSTOP."""
        machine.stopped = True
        self._unlist(machine)

    def resume_machine(self, machine: Machine) -> None:
        """SIGCONT: what was waiting runs."""
        machine.stopped = False
        if machine.ready and not machine.listed:
            machine.listed = True
            self._runnable.append(machine)

    def kill_machine(self, machine: Machine) -> None:
        """SIGKILL."""
        machine.dead = True
        machine.ready.clear()
        self._unlist(machine)

    def _unlist(self, machine: Machine) -> None:
        if machine.listed:
            machine.listed = False
            self._runnable.remove(machine)

    def run(self, done: Callable[[], bool], *, until_s: float) -> bool:
        """Run until `done()`, or until it is `until_s`; whether it was done in time."""
        runnable, timers, draw = self._runnable, self._timers, self._draw
        asyncio._set_running_loop(self)
        try:
            while not done():
                while runnable:
                    count = len(runnable)
                    machine = runnable[0] if count == 1 else runnable[int(draw() * count)]
                    turn = machine.ready.popleft()
                    if not machine.ready:
                        machine.listed = False
                        runnable.remove(machine)
                    if not turn.cancelled:
                        self.steps += 1
                        try:
                            turn.context.run(turn.callback, *turn.args)
                        except Exception as fault:  # noqa: BLE001 -- of a callback; tasks keep their own
                            self.broken.append({"message": "a callback broke off", "exception": fault})
                if done():
                    break
                if not timers:
                    raise Stuck("nothing is left that could run")
                when_s = timers[0][0]
                if when_s > until_s:
                    self._now = max(self._now, until_s)
                    return False
                _, _, timer, act, args = heappop(timers)
                if timer is not None and timer.cancelled:
                    continue
                self._now = max(self._now, when_s)
                if timer is None:
                    act(*args)
                else:
                    self._due(timer)
            return True
        finally:
            asyncio._set_running_loop(None)

    def _due(self, timer: Turn) -> None:
        machine = timer.context.get(_here, self.world)
        if not machine.dead:
            machine.ready.append(timer)
            if not machine.listed and not machine.stopped:
                machine.listed = True
                self._runnable.append(machine)

    def unseen(self) -> list[dict[str, Any]]:
        """Faults that nobody has heard of: of callbacks, of futures, of tasks whose end nobody looked at."""
        ended = (task for task, machine in self._tasks if task.done() and not task.cancelled() and not machine.dead)
        silent = [task for task in ended if getattr(task, "_log_traceback", False)]
        return self.broken + [{"message": str(task.get_coro()), "exception": task.exception()} for task in silent]

    def abandon(self) -> None:
        """Let go of what is still under way: nobody waits for it any more."""
        asyncio._set_running_loop(self)
        try:
            for task, _ in self._tasks:
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    _close(task.get_coro())
                elif not task.cancelled():
                    task.exception()
        finally:
            asyncio._set_running_loop(None)
        self._tasks.clear()
        self._timers.clear()
        self._runnable.clear()


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _close(coro: Any) -> None:  # noqa: ANN401 -- a coroutine or a generator
    """Close a coroutine, also one that awaits something on its way out."""
    for _ in range(CLOSES_MAX):
        try:
            coro.close()
        except Exception:  # noqa: BLE001, S112 -- it is on its way out; what it says there is heard by nobody
            continue
        return
