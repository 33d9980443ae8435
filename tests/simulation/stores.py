"""The two stores of a schedule as servers that can be harmed: a gate that forgets, a ledger that is away or slow.

What they do when they answer is the business of the models, which are proved equal to the Lua and to the SQL. Here they
get what a server has around that: it can be gone, stand still, be full, have another clock; calls wait for a drop's
lock; and what was on its way when its caller gave up is done all the same.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from flashsale.ledger.pool import SERVER_GIVES_UP
from flashsale.settings import Settings
from tests.gate.model import ModelGate, Staging
from tests.gate.model_rules import Codes, Meta
from tests.ledger.model import ModelLedger
from tests.simulation.loop import SimLoop

Result = TypeVar("Result")

NOON: Final = datetime(2011, 8, 29, 12, tzinfo=UTC)
"""When each schedule begins, by a clock that is right."""
NOON_MS: Final = int(NOON.timestamp() * 1000)
REMEMBERED_MAX: Final = 8
"""So many states of the past can come back, of a replica that lagged behind or out of a file."""
GATE_TIMEOUT_S: Final = Settings().gate_timeout_s
LEDGER_TIMEOUT_S: Final = Settings().ledger_timeout_s
LOCK_TIMEOUT_S: Final = LEDGER_TIMEOUT_S * SERVER_GIVES_UP

GATE_WRITES: Final = frozenset(
    {
        "decide",
        "take",
        "release",
        "settle",
        "arm_begin",
        "arm_chunk",
        "arm_codes",
        "arm_finish",
        "take_lease",
        "drop_lease",
    }
    | {f"{what}_{verb}" for what in ("eligible", "bound") for verb in ("begin", "chunk", "finish")}
)
GATE_MATTERS: Final = frozenset({"decide", "take", "release", "settle", "arm_finish"})
"""After these, something may have changed that a gate is judged by."""
NEEDS_MEMORY: Final = GATE_WRITES - {"release", "settle", "drop_lease"}
LEDGER_WRITES: Final = frozenset(
    {"commit", "void", "cancel", "expire", "mark_released", "bump", "act", "create", "note", "confirm", "take_back"}
    | {"settle", "replay", "requeue_lost", "disable", "build_eligible", "job_done", "job_put_off", "jobs_take"}
)
LOCKS_DROP: Final = frozenset(
    {"commit", "void", "cancel", "expire", "mark_released", "bump", "act", "act_after_binding", "take_back"}
)


def run_now(coro: Coroutine[Any, Any, Result]) -> Result:
    """What a model's coroutine returns: it never waits."""
    try:
        coro.send(None)
    except StopIteration as done:
        result: Result = done.value
        return result
    coro.close()
    raise AssertionError(f"{coro} waits")


class Call:
    """One message on its way to a store: what it does there, and who hears what came of it.

    `patient_until_s`: when the caller gives up. `listened` is False when nobody will hear the answer, whatever it is.
    """

    __slots__ = ("act", "back_s", "drop", "future", "listened", "loop", "patient_until_s", "verb")

    def __init__(
        self, loop: SimLoop, verb: str, act: Callable[[], Any], *, drop: str | None, timeout_s: float, back_s: float
    ) -> None:
        self.loop = loop
        self.verb = verb
        self.act = act
        self.drop = drop
        self.patient_until_s = loop.time() + timeout_s
        self.back_s = back_s
        self.listened = True
        self.future: asyncio.Future[Any] = loop.create_future()

    def answer(self, result: Any, fault: Exception | None = None) -> None:  # noqa: ANN401 -- whatever the store answers
        """The answer is on its way back."""
        if self.listened:
            self.listened = False
            if self.back_s > 0:
                self.loop.after(self.back_s, self._tell, result, fault)
            else:
                self._tell(result, fault)

    def _tell(self, result: Any, fault: Exception | None) -> None:  # noqa: ANN401 -- as above
        if not self.future.done():
            if fault is None:
                self.future.set_result(result)
            else:
                self.future.set_exception(fault)

    def give_up(self) -> None:
        """The caller waits no longer."""
        self._tell(None, Lost("no answer"))

    def carry_out(self) -> None:
        """At the store, at once."""
        try:
            result = self.act()
        except Exception as fault:  # noqa: BLE001 -- it belongs to who asked
            self.answer(None, fault)
            return
        self.answer(result)


class Lost(Exception):
    """The connection broke, or nothing came back in time: the effect is unknown."""


class Gone(Exception):
    """The server is not there, or has lost the connection."""


class Full(Exception):
    """The server has no room for what this call writes."""


class Locked(Exception):
    """The lock did not become free in time."""


class Server:
    """What both kinds of server can be: away, or standing still."""

    def __init__(self, loop: SimLoop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.up = True
        self.stalled = False
        self.full = False
        self.skew_s = 0.0
        self.life = 0
        self._backlog: list[Call] = []

    def receive(self, call: Call) -> None:
        """A call arrives."""
        if not self.up:
            call.answer(None, Gone())
        elif self.stalled:
            self._backlog.append(call)
            self.delay(call)
        else:
            self.work(call)

    def delay(self, call: Call) -> None:
        """It may take long: who called gives up in time."""
        self.loop.after(call.patient_until_s - self.loop.time(), call.give_up)

    def work(self, call: Call) -> None:
        """Do what is asked."""
        call.carry_out()

    def go_on(self) -> None:
        """SIGCONT: what has arrived meanwhile is done now, also for those who no longer wait."""
        self.stalled = False
        waiting, self._backlog = self._backlog, []
        for call in waiting:
            self.receive(call)

    def die(self) -> None:
        """SIGKILL."""
        self.up = self.stalled = False
        self.life += 1
        waiting, self._backlog = self._backlog, []
        for call in waiting:
            call.answer(None, Gone())


class GateServer(Server, ModelGate):
    """One run of a Redis server: a restart, or a replica that takes over, is another one with another `replid`.

    It has the keys of one stripe, as a primary of a cluster may.
    """

    def __init__(self, loop: SimLoop, name: str, replid: int, new_ids: Callable[[int], list[str]]) -> None:
        Server.__init__(self, loop, name)
        self.stripe = 0
        ModelGate.__init__(self, new_ids=new_ids, now_ms=self.clock_ms)
        self._replid = replid
        self.past: deque[tuple[dict[str, object], dict[str, int]]] = deque(maxlen=REMEMBERED_MAX)

    def clock_ms(self) -> int:
        """This server's clock."""
        return NOON_MS + int((self.loop.time() + self.skew_s) * 1000)

    def work(self, call: Call) -> None:
        if self.full and call.verb in NEEDS_MEMORY:
            call.answer(None, Full())
        else:
            call.carry_out()

    def remember(self) -> None:
        """Keep the present state, for one that comes back with it."""
        self.past.append((_copied(self._keys), dict(self._ends)))

    def come_back_with(self, state: tuple[dict[str, object], dict[str, int]]) -> None:
        """Begin with an older state."""
        self._keys, self._ends = _copied(state[0]), dict(state[1])

    def look(self, key: str) -> object:
        """What stands under a key, for who checks."""
        return self._keys.get(key)

    @property
    def replid(self) -> int:
        """What tells this run of the server from every other."""
        return self._replid

    @property
    def keys(self) -> list[str]:
        """The names of all keys."""
        return [*self._keys]


def _copied(keys: dict[str, object]) -> dict[str, object]:
    return {name: _copy_of(value) for name, value in keys.items()}


def _copy_of(value: object) -> object:
    match value:
        case list():
            return [*value]
        case dict():
            return {name: [*inner] if isinstance(inner, list) else inner for name, inner in value.items()}
        case Meta():
            again = copy(value)
            again.left = dict(value.left)
            return again
        case Codes():
            return Codes(value.batches, set(value.spent), value.revoked)
        case Staging():
            return Staging(value.replid, dict(value.fields))
    return value


class LedgerServer(Server):
    """The Postgres server: the model ledger, behind locks that calls wait for."""

    def __init__(self, loop: SimLoop, make: Callable[..., ModelLedger]) -> None:
        super().__init__(loop, "ledger")
        self.model = make(now=self.clock)
        self.slow_s = 0.0
        self._waiting: dict[str, deque[Call]] = {}
        self._locked: dict[str, bool] = {}
        self._foreign: set[str] = set()
        self.transactions: list[Any] = []

    def clock(self) -> datetime:
        """This server's clock."""
        return NOON + timedelta(seconds=self.loop.time() + self.skew_s)

    def die(self) -> None:
        self.up = False
        for transaction in [*self.transactions]:
            transaction.roll_back()
        super().die()
        self._locked.clear()
        self._foreign.clear()
        for waiting in self._waiting.values():
            for call in waiting:
                call.answer(None, Gone())
            waiting.clear()

    def work(self, call: Call) -> None:
        if self.full and call.verb in LEDGER_WRITES:
            call.answer(None, Full())
        elif call.drop is None or call.verb not in LOCKS_DROP:
            call.carry_out()
        elif call.drop in self._locked:
            self._waiting.setdefault(call.drop, deque()).append(call)
            self.loop.after(LOCK_TIMEOUT_S, self._give_up, call)
        elif self.slow_s > 0 and call.verb not in {"act", "act_after_binding"}:
            self._carry_out_slowly(call, call.drop)
        else:
            call.carry_out()

    def _carry_out_slowly(self, call: Call, drop_id: str) -> None:
        """A commit that waits for the disk keeps its locks; others see what it wrote when it is done."""
        self.lock(drop_id)
        self.delay(call)
        life = self.life

        def end() -> None:
            if self.life == life:
                self.free(drop_id, wake=False)
                call.carry_out()
                self._wake(drop_id)

        self.loop.after(self.slow_s, end)

    def _give_up(self, call: Call) -> None:
        waiting = self._waiting.get(call.drop or "")
        if waiting is not None and call in waiting:
            waiting.remove(call)
            call.answer(None, Locked())

    def lock(self, drop_id: str) -> None:
        """Keep every other writer of this drop waiting."""
        self._locked[drop_id] = True

    def free(self, drop_id: str, *, wake: bool = True) -> None:
        """Let them go on."""
        self._locked.pop(drop_id, None)
        if wake:
            self._wake(drop_id)

    def begin(self, transaction: Any, drop_id: str) -> None:  # noqa: ANN401 -- a `links.Transaction`
        """A transaction of several calls has the drop's lock."""
        self.transactions.append(transaction)
        self.lock(drop_id)

    def end(self, transaction: Any, drop_id: str) -> None:  # noqa: ANN401 -- as above
        """It is over."""
        self.transactions.remove(transaction)
        self.free(drop_id)

    def lock_foreign(self, drop_id: str) -> bool:
        """Somebody else's transaction takes the lock, if it is free."""
        if not self.up or drop_id in self._locked:
            return False
        self._locked[drop_id] = True
        self._foreign.add(drop_id)
        return True

    def free_foreign(self, drop_id: str) -> None:
        """That transaction is over."""
        if drop_id in self._foreign:
            self._foreign.discard(drop_id)
            self.free(drop_id)

    def _wake(self, drop_id: str) -> None:
        waiting = self._waiting.get(drop_id)
        while waiting and drop_id not in self._locked and self.up:
            self.work(waiting.popleft())
