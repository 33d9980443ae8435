"""The two ledgers that a story is told to, behind one face: their queues, their clocks, and carrying a command out."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Protocol, assert_never
from uuid import UUID

import asyncpg
import msgspec
from pgqueuer.adapters.drivers.asyncpg import AsyncpgPoolDriver
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.domain import models
from pgqueuer.domain.types import QueueEntrypoint, QueueManagerId
from pgqueuer.ports.repository import EntrypointExecutionParameter

from flashsale.domain import Reservation
from flashsale.errors import Refused
from flashsale.ledger import Act, ArmState, Ended, Epoch, Ledger, Standing
from flashsale.ledger.queue import ENTRYPOINT, SILENT_MAX_S, _queries
from tests.ledger.commands import EVERYTHING, START, Acting, Arming, Call, Command, Tick, Working
from tests.ledger.model import BrokenRule, ModelLedger
from tests.ledger.model_queue import Job

WORKER = QueueManagerId(UUID(int=7))
DROPPED = """
DELETE FROM pgqueuer; DELETE FROM pgqueuer_log; DELETE FROM orders; DELETE FROM payments; DELETE FROM reservations;
DELETE FROM fcode_revoked; DELETE FROM fcode_bound; DELETE FROM fcode_batches; DELETE FROM allocations;
DELETE FROM drops; DELETE FROM audit; DELETE FROM fcode_stop; DELETE FROM disabled_endpoints;
SELECT setval(pg_get_serial_sequence('audit', 'id'), 1, false),
    setval(pg_get_serial_sequence('fcode_batches', 'id'), 1, false)
"""


class Work(Protocol):
    """What becomes of jobs. One is named by its place among all that were taken."""

    async def take(self, limit: int) -> list[tuple[str, int]]:
        """Orders, each with how often its job was put off."""

    async def beat(self, place: int) -> None: ...

    async def done(self, place: int) -> None: ...

    async def put_off(self, place: int, delay_s: float) -> None: ...

    async def lose(self, order: str) -> None:
        """The job of an order vanishes."""


class Side(Protocol):
    """One of the two ledgers."""

    @property
    def ledger(self) -> Ledger: ...

    @property
    def work(self) -> Work: ...

    async def pass_time(self, seconds: float) -> None: ...


class _ModelWork:
    def __init__(self, ledger: ModelLedger) -> None:
        self._queue = ledger.queue
        self._taken: list[Job] = []

    def _at(self, place: int) -> Job:
        return self._taken[place % len(self._taken)]

    async def take(self, limit: int) -> list[tuple[str, int]]:
        taken = self._queue.take(limit)
        self._taken += taken
        return [(job.order, job.attempts) for job in taken]

    async def beat(self, place: int) -> None:
        if self._taken:
            self._queue.beat(self._at(place))

    async def done(self, place: int) -> None:
        if self._taken:
            self._queue.done(self._at(place))

    async def put_off(self, place: int, delay_s: float) -> None:
        if self._taken:
            self._queue.put_off(self._at(place), delay_s)

    async def lose(self, order: str) -> None:
        self._queue.take_away(order)


class ModelSide:
    """The model, at the beginning of a story."""

    def __init__(self) -> None:
        self._now = START
        self.ledger = ModelLedger(now=lambda: self._now)
        self.work = _ModelWork(self.ledger)

    async def pass_time(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


class _RealWork:
    """The library that the product's worker uses."""

    def __init__(self, connections: asyncpg.Pool) -> None:
        self._connections = connections
        self._queries = _queries(Queries, AsyncpgPoolDriver(connections))
        self._taken: list[models.Job] = []

    def _at(self, place: int) -> models.Job:
        return self._taken[place % len(self._taken)]

    async def take(self, limit: int) -> list[tuple[str, int]]:
        entrypoints = {QueueEntrypoint(ENTRYPOINT): EntrypointExecutionParameter(0)}
        silent = timedelta(seconds=SILENT_MAX_S)
        taken = await self._queries.dequeue(limit, entrypoints, WORKER, None, silent)
        self._taken += taken
        return [((job.payload or b"").decode(), job.attempts) for job in taken]

    async def beat(self, place: int) -> None:
        if self._taken:
            await self._queries.update_heartbeat([self._at(place).id])

    async def done(self, place: int) -> None:
        if self._taken:
            await self._queries.log_jobs([(self._at(place), "successful", None)])

    async def put_off(self, place: int, delay_s: float) -> None:
        if self._taken:
            await self._queries.retry_job(self._at(place), timedelta(seconds=delay_s), None)

    async def lose(self, order: str) -> None:
        await self._connections.execute("DELETE FROM pgqueuer WHERE dedupe_key = $1", order)


class RealSide:
    """The real ledger, on a clock that stands still (`clocked_database`), emptied for a story by `begin`."""

    def __init__(self, ledger: Ledger, connections: asyncpg.Pool) -> None:
        self.ledger = ledger
        self._connections = connections
        self.work = _RealWork(connections)

    async def begin(self) -> None:
        """Nothing is left of the story before, not even the numbers that were given."""
        self.work = _RealWork(self._connections)
        await self._connections.execute(DROPPED)
        await self._connections.execute("UPDATE clock SET at = $1", START)

    async def pass_time(self, seconds: float) -> None:
        await self._connections.execute("UPDATE clock SET at = at + $1", timedelta(seconds=seconds))


async def carry_out(side: Side, command: Command) -> object:
    """Do it on one of the sides; returns what can be compared."""
    try:
        match command:
            case Call():
                return await _called(side.ledger, command)
            case Acting():
                return await _acted(side.ledger, command)
            case Arming():
                return await _read_for_arming(side.ledger, command)
            case Tick():
                await side.pass_time(command.seconds)
                return None
            case Working():
                return await getattr(side.work, command.method)(*command.args)
            case _:
                assert_never(command)
    except (BrokenRule, asyncpg.IntegrityConstraintViolationError, asyncpg.NoDataFoundError):
        return "a constraint refused it"
    except Refused as refused:
        return refused.detail


def _id_of(found: Standing | Reservation | Ended | Epoch) -> str:
    return found.drop if isinstance(found, Epoch) else found.id


async def _called(ledger: Ledger, call: Call) -> object:
    answer = await getattr(getattr(ledger, call.store), call.method)(*call.args, **call.kwargs)
    match call.method:
        case "void" | "cancel" | "expire" | "outbox" | "epochs":  # in no order that is promised
            return sorted(answer, key=_id_of)
        case "due" if call.args[0] == EVERYTHING:
            return {drop_id: sorted(ids) for drop_id, ids in answer.items()}
        case "due":  # of several that ended at the same moment, any
            found = [await ledger.reservations.get(i) for ids in answer.values() for i in ids]
            return sorted(r.expires_at for r in found if r is not None)
        case _:
            return answer


async def _acted(ledger: Ledger, command: Acting) -> object:
    kwargs: dict[str, Any] = {"actor": "member:1", "action": "drop.act", "subject": f"{command.drop}/a"}
    if command.owners is None:
        async with ledger.drops.act(command.drop, **kwargs, detail={"sets": command.sets}) as act:
            return await _within(act, command)
    blocks, max_s = _blocks(command.owners), 5.0
    async with ledger.drops.act_after_binding(command.drop, blocks, **kwargs, detail={}, max_s=max_s) as bound:
        return None if bound is None else (await _within(bound[0], command), *bound[1:])


async def _blocks(text: bytes) -> AsyncIterator[bytes]:
    for line in text.splitlines(keepends=True):
        yield line


async def _within(act: Act | None, command: Acting) -> object:
    if act is None:
        return "there is no such drop"
    answers: list[object] = [act.title, act.paused, act.closed]
    for method, args, kwargs in command.does:
        answer = await getattr(act, method)(*args, **kwargs)
        answers.append(dict(answer) if method == "lock_allocation" and answer is not None else answer)
    if command.mints is not None:
        answers.append(await act.mint(command.mints))
    for name, value in command.sets:
        setattr(act, name, value)
    if command.given_up:
        raise Refused("conflict", f"given up after {answers}")
    return answers


async def _read_for_arming(ledger: Ledger, command: Arming) -> object:
    async with ledger.drops.read_for_arming(command.drop, command.epoch) as found:
        if found is None:
            return "superseded"
        state, parts = found
        fields = [(stripe, text) async for stripe, part in parts for text in part]
    entries = {(stripe, member): text for (stripe, member), (_, text) in zip(fields[::2], fields[1::2], strict=True)}
    assert len(entries) == len(fields) // 2, "a member comes once to a stripe"
    told = ArmState(state.drop, state.free, state.batches, sorted(state.spent), sorted(state.revoked))
    return msgspec.structs.asdict(told), {member: sorted(text.split("\n")) for member, text in entries.items()}
