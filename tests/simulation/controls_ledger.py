"""Ledgers, and ways to them, without one of their safeguards: to show that schedules need it, and find it missing."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import msgspec

from flashsale.domain import Grant, Reservation, State
from flashsale.errors import LedgerUnavailable
from flashsale.ledger import Commit, Committed, Existing, SecondLock, Standing
from tests.ledger.model import ModelLedger
from tests.ledger.model_orders import ModelOrders
from tests.ledger.model_reservations import ModelReservations
from tests.ledger.model_rows import ReservationRow
from tests.simulation.links import Drops, LedgerLink, Store
from tests.simulation.processes import Build, Process
from tests.simulation.stores import NOON, run_now
from tests.simulation.world import World


def _at(grants: Sequence[Grant], epoch: int) -> list[Grant]:
    return [msgspec.structs.replace(g, epoch=epoch) for g in grants]


class _Unfenced(ModelReservations):
    async def commit(self, drop_id: str, grants: Sequence[Grant]) -> list[Commit]:
        return await super().commit(drop_id, _at(grants, self._tables.drops[drop_id].epoch))


class _UnfencedLedger(ModelLedger):
    def __init__(self, *, now: Callable[[], datetime]) -> None:
        super().__init__(now=now)
        self.reservations = _Unfenced(self.tables)


class NoFence(Build):
    """A commit does not compare the epoch of its grants with the ledger's."""

    ledger = _UnfencedLedger


class _OneLock(_Unfenced):
    """Neither epoch nor stock nor limit nor codes: the gate is believed."""

    async def commit(self, drop_id: str, grants: Sequence[Grant]) -> list[Commit]:
        outcomes: list[Commit] = []
        for g in grants:
            found = (await super().commit(drop_id, [g]))[0]
            if isinstance(found, SecondLock):
                now, drop = self._tables.now(), self._tables.drops[drop_id]
                expires = now + timedelta(seconds=drop.hold_seconds)
                row = ReservationRow(
                    id=g.id,
                    drop=drop_id,
                    allocation=g.allocation,
                    member=g.member,
                    quantity=g.quantity,
                    slot=g.slot,
                    key=g.key,
                    payload=g.payload,
                    code=g.code,
                    epoch=g.epoch,
                    state=State.HELD,
                    expires_at=expires,
                    created_at=now,
                )
                self._tables._put_reservation(row)
                found = Committed(expires)
            outcomes.append(found)
        return outcomes


class _OneLockLedger(ModelLedger):
    def __init__(self, *, now: Callable[[], datetime]) -> None:
        super().__init__(now=now)
        self.reservations = _OneLock(self.tables)


SAVED_BY_SECOND_LOCK = ("I2", "I5")


class OnlySecondLock(Build):
    """Without the fence; judged is only what the ledger's own CHECK and unique rows save."""

    ledger = _UnfencedLedger
    judged = SAVED_BY_SECOND_LOCK


class NoSecondLock(Build):
    """Without the fence, and without the ledger's own CHECK and unique rows. Judged is only what these would save."""

    judged = SAVED_BY_SECOND_LOCK

    ledger = _OneLockLedger


class _NoEpochWhenDone(ModelReservations):
    async def mark_released(self, drop_id: str, ids: Sequence[str], epoch: int) -> int:  # noqa: ARG002 -- the point
        return await super().mark_released(drop_id, ids, self._tables.drops[drop_id].epoch)


class _NoEpochLedger(ModelLedger):
    def __init__(self, *, now: Callable[[], datetime]) -> None:
        super().__init__(now=now)
        self.reservations = _NoEpochWhenDone(self.tables)


class NoDoneIfEpoch(Build):
    """A unit counts as returned whichever gate took it."""

    ledger = _NoEpochLedger


class _NoTombstone(ModelReservations):
    async def void(self, drop_id: str, grants: Sequence[Grant]) -> list[Standing]:  # noqa: ARG002 -- as the ledger's
        rows = self._tables.reservations
        known = {g.id: rows[g.id] for g in grants if g.id in rows}
        return [
            Standing(g.id, g.member, known[g.id].state, known[g.id].keeps_slot)
            if g.id in known
            else Standing(g.id, g.member, State.VOID)
            for g in grants
        ]


class _NoTombstoneLedger(ModelLedger):
    def __init__(self, *, now: Callable[[], datetime]) -> None:
        super().__init__(now=now)
        self.reservations = _NoTombstone(self.tables)


class NoTombstone(Build):
    """The janitor looks whether a grant was committed, and leaves nothing in the way of a commit that comes later."""

    ledger = _NoTombstoneLedger


class _Timeless(ModelOrders):
    def _runs(self, row: ReservationRow) -> bool:
        return row.state is State.HELD


class _TimelessLedger(ModelLedger):
    def __init__(self, *, now: Callable[[], datetime]) -> None:
        super().__init__(now=now)
        self.orders = _Timeless(self.tables, self.queue)


class NoConfirmGuard(Build):
    """A hold can be confirmed after its time."""

    ledger = _TimelessLedger


# Ways to the ledger.


class _Reservations(Store):
    """The store of reservations as a process reaches it."""

    async def _commit(
        self, drop_id: str, grants: Sequence[Grant], fresh: Callable[[], Sequence[Grant]]
    ) -> list[Commit]:
        work = self._store.commit
        outcomes: list[Commit] = await self._link.call(
            "commit", lambda: run_now(work(drop_id, fresh())), drop_id, (drop_id, grants)
        )
        return outcomes


class _TwoSteps(_Reservations):
    async def commit(self, drop_id: str, grants: Sequence[Grant]) -> list[Commit]:
        drops = self._link.world.ledger.model.tables.drops
        seen = await self._link.call("epoch", lambda: drops[drop_id].epoch, None, drop_id)

        def fresh() -> list[Grant]:
            now = drops[drop_id].epoch
            return [msgspec.structs.replace(g, epoch=now) if g.epoch == seen else g for g in grants]

        return await self._commit(drop_id, grants, fresh)


class _FromMemory(_Reservations):
    async def commit(self, drop_id: str, grants: Sequence[Grant]) -> list[Commit]:
        epoch = self._link.process.catalog.min_epoch(drop_id)
        return await self._commit(drop_id, grants, lambda: _at(grants, epoch))


class _AgainByGate(_Reservations):
    async def commit(self, drop_id: str, grants: Sequence[Grant]) -> list[Commit]:
        new = [g for g in grants if not g.again]
        outcomes = iter(await self._commit(drop_id, new, lambda: new) if new else [])
        rows = self._link.world.ledger.model.tables.reservations  # for what is beside the point: when the hold ends
        known = {i: row.told() for i, row in rows.items()}
        return [
            next(outcomes) if not g.again else Existing(known[g.id]) if g.id in known else _made_up(drop_id, g)
            for g in grants
        ]


def _made_up(drop_id: str, g: Grant, state: State = State.HELD) -> Existing:
    return Existing(
        Reservation(
            id=g.id,
            drop=drop_id,
            allocation=g.allocation,
            member=g.member,
            quantity=g.quantity,
            state=state,
            expires_at=NOON,
            created_at=NOON,
            key=g.key,
            payload=g.payload,
            code=g.code,
        )
    )


class _LooksUp(_Reservations):
    async def commit(self, drop_id: str, grants: Sequence[Grant]) -> list[Commit]:
        try:
            return await self._commit(drop_id, grants, lambda: grants)
        except LedgerUnavailable:
            found = [await self.get(g.id) for g in grants]
            return [
                _made_up(drop_id, g, State.VOID) if r is None else Existing(r)
                for g, r in zip(grants, found, strict=True)
            ]


class _Releases(_Reservations):
    async def commit(self, drop_id: str, grants: Sequence[Grant]) -> list[Commit]:
        try:
            return await self._commit(drop_id, grants, lambda: grants)
        except LedgerUnavailable:
            return [_made_up(drop_id, g, State.VOID) for g in grants]


def _reached_by(store: type[_Reservations]) -> type[LedgerLink]:
    class Way(LedgerLink):
        def __init__(self, world: World, process: Process) -> None:
            super().__init__(world, process)
            self.reservations = store(self, world.ledger.model.reservations)

    return Way


class NoAtomicFence(Build):
    """The epoch is compared in a step of its own, before the insert."""

    ledger_link = _reached_by(_TwoSteps)


class EpochFromMemory(Build):
    """A commit carries the epoch that its process knows, and not the one of the call that granted."""

    ledger_link = _reached_by(_FromMemory)


class AgainByGate(Build):
    """The same one again is answered by the gate alone."""

    ledger_link = _reached_by(_AgainByGate)


class NoUnknownRetry(Build):
    """After a commit whose outcome is unknown, a look whether it is there decides."""

    ledger_link = _reached_by(_LooksUp)


class UnknownReleased(Build):
    """A commit whose outcome is unknown is taken for one that failed."""

    ledger_link = _reached_by(_Releases)


class _ReadsFirst(Drops):
    """Reads, and then bumps."""

    async def bump(self, drop_id: str) -> int | None:
        self._read = await self._link.call("read_early", lambda: self._snapshot(drop_id), None, drop_id)
        work = self._store.bump
        epoch: int | None = await self._link.call("bump", lambda: run_now(work(drop_id)), drop_id, drop_id)
        return epoch

    def _snapshot(self, drop_id: str) -> Any:  # noqa: ANN401 -- as links.Drops has it
        epoch = self._link.world.ledger.model.tables.drops[drop_id].epoch
        return self.read_now(drop_id, epoch)

    @asynccontextmanager
    async def read_for_arming(self, drop_id: str, epoch: int) -> AsyncIterator[Any]:  # noqa: ARG002 -- as the ledger's
        state, parts = self._read
        drop = msgspec.structs.replace(state.drop, epoch=epoch)
        yield msgspec.structs.replace(state, drop=drop), self.parts(parts)


class _TwoSnapshots(Drops):
    """Reads what is left in one snapshot, and who has it in another."""

    @asynccontextmanager
    async def read_for_arming(self, drop_id: str, epoch: int) -> AsyncIterator[Any]:
        first = await self._link.call("read_state", lambda: self.read_now(drop_id, epoch), None, drop_id)
        second = await self._link.call("read_entries", lambda: self.read_now(drop_id, epoch), None, drop_id)
        if first is None or second is None:
            yield None
        else:
            yield first[0], self.parts(second[1])


def _drops_by(store: type[Drops]) -> type[LedgerLink]:
    class Way(LedgerLink):
        def __init__(self, world: World, process: Process) -> None:
            super().__init__(world, process)
            self.drops = store(self, world.ledger.model.drops)

    return Way


class NoBumpFirst(Build):
    """A rebuild reads before it bumps the epoch."""

    ledger_link = _drops_by(_ReadsFirst)


class NoOneSnapshot(Build):
    """A rebuild reads twice, and something happens in between."""

    ledger_link = _drops_by(_TwoSnapshots)


CONTROLS = {
    "fence": NoFence,
    "second_lock": NoSecondLock,
    "fence_atomic": NoAtomicFence,
    "epoch_from_gate": EpochFromMemory,
    "bump_first": NoBumpFirst,
    "one_snapshot": NoOneSnapshot,
    "done_if_epoch": NoDoneIfEpoch,
    "tombstone": NoTombstone,
    "again_via_ledger": AgainByGate,
    "unknown_retry": NoUnknownRetry,
    "unknown_not_released": UnknownReleased,
    "confirm_guard": NoConfirmGuard,
}
