"""How a process reaches the stores: every call may be late, lost, or half lost, as the seed has it.

A call that fails has failed before its effect, or after it, or has it later, when its caller has given up long ago:
the caller cannot tell. Time-outs are those of the product's own clients, and so is the circuit before Postgres.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from flashsale.circuit import Circuit
from flashsale.errors import GateUnavailable, LedgerUnavailable, Unavailable
from flashsale.ledger import Part
from flashsale.ledger.pool import AWAY_AFTER, AWAY_BASE_S, AWAY_MAX_S, IDLE_IN_TRANSACTION_S
from tests.simulation.stores import (
    GATE_TIMEOUT_S,
    GATE_WRITES,
    LEDGER_TIMEOUT_S,
    Call,
    Full,
    Gone,
    Locked,
    Lost,
    run_now,
)

if TYPE_CHECKING:
    from tests.simulation.processes import Process
    from tests.simulation.world import World

SOON_S: Final = 0.05
ZOMBIE_MAX_S: Final = 8.0


AWAY: Final = (Gone, Lost)


class Link:
    """What is common to both ways. A fault is drawn with probability `chance` a call."""

    def __init__(self, world: "World", process: "Process") -> None:
        self.world = world
        self.loop = world.loop
        self.process = process
        self.draw = world.faults.random

    def back_s(self) -> float:
        """How long an answer takes to come back; mostly that is part of the way there."""
        return self.world.latency_s * self.draw() if self.draw() < 0.3 else 0.0

    async def ask(self, call: Call, arrive: Callable[[Call], None], *, timeout_s: float, chance: float) -> Any:  # noqa: ANN401
        """Send one call and return its answer, or raise `Gone`, `Full`, `Locked`, `Lost`, or a fault of the model's."""
        draw = self.draw
        there_s = self.world.latency_s * draw()
        if chance > 0 and draw() < chance:
            there_s = self._misfortune(call, timeout_s)
        elif self.world.stormy and draw() < self.world.plan.slow:
            there_s = draw() ** 3 * 1.5 * timeout_s
        if there_s >= 0:
            self.loop.after(there_s, arrive, call)
        if there_s > timeout_s:
            self.loop.after(timeout_s, call.give_up)
        try:
            return await call.future
        except asyncio.CancelledError:
            if draw() < 0.5:
                call.act = _nothing
            raise

    def _misfortune(self, call: Call, timeout_s: float) -> float:
        """One of the ways to lose a call; returns when it arrives after all, below 0: never."""
        draw = self.draw
        kind = ("before", "after", "late", "silent", "unanswered")[int(draw() * 5)]
        self.world.count(f"call {kind}")
        self.world.tell(self.process.name, f"{call.verb}: will be lost, {kind}")
        call.listened = False
        soon_s = SOON_S * draw()
        broken = kind in {"before", "after", "late"}  # the connection is; else nothing comes back
        self.loop.after(soon_s if broken else timeout_s, call.give_up)
        if kind in {"before", "silent"}:
            return -1.0
        if kind == "late":
            return soon_s + draw() * ZOMBIE_MAX_S
        return soon_s * draw()


def _nothing() -> None:
    """A call that was recalled in time."""


STAGED: Final = frozenset({"eligible_chunk", "bound_chunk"})
"""What names a staging, and no stripe: a cluster goes by the key."""


def stripe_of(key: str) -> int:
    """The stripe in a key's hash tag."""
    return int(key.partition("{")[2].partition("}")[0].rpartition(":")[2])


class GateLink(Link):
    """The methods of `Gate`, at the server that this process takes for the primary of the stripe."""

    def __getattr__(self, verb: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def method(*args: Any, **named: Any) -> Any:  # noqa: ANN401 -- as the gate's method of that name
            return await self.call(verb, args, named)

        self.__dict__[verb] = method
        return method

    async def call(self, verb: str, args: tuple[Any, ...], named: dict[str, Any]) -> Any:  # noqa: ANN401 -- as above
        """One call of the gate's method `verb`."""
        stripe: int = named["stripe"] if "stripe" in named else stripe_of(args[0]) if verb in STAGED else 0
        world, server = self.world, self.process.gate_servers[stripe]
        if verb in {"decide", "take"}:
            world.checker.asks(self.process.name, args[1], self.process.told_epoch)

        def act() -> object:
            if verb in GATE_WRITES:
                world.before_gate_write(server)
            result = run_now(getattr(server, verb)(*args, **named))
            world.after_gate(self.process, server, verb, args, result)
            return result

        call = Call(self.loop, verb, act, drop=None, timeout_s=GATE_TIMEOUT_S, back_s=self.back_s())
        try:
            return await self.ask(call, server.receive, timeout_s=GATE_TIMEOUT_S, chance=world.chance_gate)
        except (Gone, Full, Lost) as fault:
            world.note_gate_fault(self.process, stripe)
            raise GateUnavailable(f"Redis cannot answer ({fault!r}); repeat the same request.") from None


class LedgerLink(Link):
    """The stores of `Ledger`, each of whose methods is one call to the server."""

    def __init__(self, world: "World", process: "Process") -> None:
        super().__init__(world, process)
        model = world.ledger.model
        self.circuit = Circuit(
            now=world.loop.time,
            jitter=world.faults.random,
            failures_max=AWAY_AFTER,
            base_s=AWAY_BASE_S,
            max_s=AWAY_MAX_S,
        )
        self.drops = Drops(self, model.drops)
        self.reservations = Store(self, model.reservations)
        self.orders = Store(self, model.orders)
        self.fcodes = Store(self, model.fcodes)
        self.points = Points(self, model.points)

    async def call(self, verb: str, act: Callable[[], Any], drop: str | None = None, tale: Any = None) -> Any:  # noqa: ANN401
        """One call; `tale` is what the story says of its arguments."""
        world = self.world
        if not self.circuit.admit():
            raise LedgerUnavailable("Postgres is away; repeat the same request.")

        def seen() -> object:
            result = act()
            world.after_ledger(self.process, verb, tale, result)
            return result

        call = Call(self.loop, verb, seen, drop=drop, timeout_s=LEDGER_TIMEOUT_S, back_s=self.back_s())
        try:
            result = await self.ask(call, world.ledger.receive, timeout_s=LEDGER_TIMEOUT_S, chance=world.chance_ledger)
        except (Gone, Full, Locked, Lost) as fault:
            self.circuit.note(ok=not isinstance(fault, AWAY))
            raise LedgerUnavailable(f"Postgres cannot answer ({fault!r}); repeat the same request.") from None
        self.circuit.note(ok=True)
        if verb == "epochs":
            self.process.told_epoch = max([self.process.told_epoch, *(e.epoch for e in result)])
        return result


class Store:
    """One store of the ledger: its methods, on the way to the server."""

    def __init__(self, link: LedgerLink, store: Any) -> None:  # noqa: ANN401 -- any store of the model's
        self._link = link
        self._store = store

    def __getattr__(self, verb: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        link, work = self._link, getattr(self._store, verb)

        async def method(*args: Any, **named: Any) -> Any:  # noqa: ANN401 -- as the store's method of that name
            drop = args[0] if args and isinstance(args[0], str) else None
            if verb == "take_back":
                row = link.world.ledger.model.tables.reservations.get(args[0])
                drop = None if row is None else row.drop
            return await link.call(verb, lambda: run_now(work(*args, **named)), drop, args)

        self.__dict__[verb] = method
        return method


class Points(Store):
    """Points: lists come in parts."""

    async def eligible_parts(self, snapshot: str, at_least: int) -> AsyncIterator[bytes]:
        """Each part is a call of its own; a list never changes."""
        parts = _all_now(self._store.eligible_parts(snapshot, at_least))
        for part in parts:
            yield await self._link.call("eligible_part", partial(bytes, part))


class Drops(Store):
    """Drops: with what is more than one call."""

    @asynccontextmanager
    async def act(self, drop_id: str, **said: Any) -> AsyncIterator[Any]:  # noqa: ANN401 -- as the store has it
        """An operator's act: a transaction that holds the drop's lock for as long as it lasts."""
        open_act = Transaction(self._link, drop_id, self._store.act(drop_id, **said))
        act = await open_act.begin()
        try:
            yield None if act is None else Acting(open_act, act)
        except BaseException:
            open_act.roll_back()
            raise
        await open_act.commit()

    @asynccontextmanager
    async def act_after_binding(
        self,
        drop_id: str,
        rows: AsyncIterator[bytes],
        **said: Any,  # noqa: ANN401 -- as the store has it
    ) -> AsyncIterator[Any]:
        """As `act`; the rows have come before."""
        blocks = [block async for block in rows]

        async def come() -> AsyncIterator[bytes]:
            for block in blocks:
                yield block

        open_act = Transaction(self._link, drop_id, self._store.act_after_binding(drop_id, come(), **said))
        bound = await open_act.begin()
        try:
            yield None if bound is None else (Acting(open_act, bound[0]), *bound[1:])
        except BaseException:
            open_act.roll_back()
            raise
        await open_act.commit()

    @asynccontextmanager
    async def read_for_arming(self, drop_id: str, epoch: int) -> AsyncIterator[Any]:
        """One snapshot, read at once; its parts, one or two members each, arrive one after the other."""
        found = await self._link.call("read_for_arming", lambda: self.read_now(drop_id, epoch), None, (drop_id, epoch))
        yield None if found is None else (found[0], self.parts(found[1]))

    def read_now(self, drop_id: str, epoch: int) -> Any:  # noqa: ANN401 -- the state and its parts, or None
        """At the server."""
        reading = self._store.read_for_arming(drop_id, epoch)
        found = run_now(reading.__aenter__())
        state = None if found is None else (found[0], _all_now(found[1]))
        run_now(reading.__aexit__(None, None, None))
        return state

    async def parts(self, found: list[Part]) -> AsyncIterator[Part]:
        """What was found, a member or two at a time."""
        size = 2 + 2 * int(self._link.world.faults.random() * 2)
        for stripe in sorted({stripe for stripe, _ in found}):
            fields = [text for to, part in found if to == stripe for text in part]
            for at in range(0, len(fields), size):
                yield stripe, await self._link.call("part", partial(list[str], fields[at : at + size]))


class Transaction:
    """A transaction of several calls. It ends with its process, or when that has been silent for too long."""

    def __init__(self, link: LedgerLink, drop_id: str, model: Any) -> None:  # noqa: ANN401 -- of the model's act
        self._link = link
        self._drop_id = drop_id
        self._model = model
        self._open = False
        self._last = 0
        self.process = link.process

    async def begin(self) -> Any:  # noqa: ANN401 -- what the model's act yields
        """With the drop locked."""

        def lock() -> object:
            if self._link.process.machine.dead:
                raise Lost("nobody is there")
            found = run_now(self._model.__aenter__())
            self._open = True
            self._link.world.ledger.begin(self, self._drop_id)
            self._watch()
            return found

        return await self._link.call("act", lock, self._drop_id, "begins")

    def _watch(self) -> None:
        self._last += 1
        last = self._last
        self._link.loop.after(IDLE_IN_TRANSACTION_S, self._was_idle, last)

    def _was_idle(self, last: int) -> None:
        if self._last == last:
            self.roll_back()

    async def step(self, verb: str, work: Callable[[], Any]) -> Any:  # noqa: ANN401 -- as the model has it
        """One statement inside."""

        def act() -> object:
            if not self._open:
                raise Lost("the transaction is over")
            self._watch()
            return work()

        return await self._link.call(verb, act, None, None)

    async def commit(self) -> None:
        """Change, epoch and audit line together."""

        def end() -> None:
            if not self._open:
                raise Lost("the transaction is over")
            self._close(None)

        await self._link.call("act_commits", end, None, self._drop_id)

    def roll_back(self) -> None:
        """Nothing of it stays."""
        if self._open:
            self._close(Unavailable("rolled back"))

    def _close(self, fault: Exception | None) -> None:
        self._open = False
        try:
            run_now(self._model.__aexit__(None if fault is None else type(fault), fault, None))
        except Unavailable:
            pass
        finally:
            self._link.world.ledger.end(self, self._drop_id)


class Acting:
    """An act, each of whose methods is a statement of its own."""

    def __init__(self, transaction: Transaction, act: Any) -> None:  # noqa: ANN401 -- the model's act
        object.__setattr__(self, "_transaction", transaction)
        object.__setattr__(self, "_act", act)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- as the model's act has it
        value = getattr(self._act, name)
        if not callable(value):
            return value
        transaction = self._transaction

        async def method(*args: Any, **named: Any) -> Any:  # noqa: ANN401 -- as above
            return await transaction.step(name, lambda: run_now(value(*args, **named)))

        return method

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._act, name, value)


def _all_now(parts: AsyncIterator[Any]) -> list[Any]:
    async def collect() -> list[Any]:
        return [part async for part in parts]

    return run_now(collect())
