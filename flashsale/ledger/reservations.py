"""Reservations in the ledger: commit, void, end, and what the gate still has to learn of them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from flashsale.domain import Grant, Reservation, State, Verdict
from flashsale.ledger.pool import Pool
from flashsale.ledger.rows import reservation_of
from flashsale.ledger.statements import sql


class Committed(msgspec.Struct, frozen=True):
    """The grant is a reservation now, durably."""

    expires_at: datetime


class Existing(msgspec.Struct, frozen=True):
    """A reservation stands under this id, or under this member's key, already."""

    reservation: Reservation


class Stale(msgspec.Struct, frozen=True):
    """The grant was made under another epoch than the ledger's; nothing was written."""

    epoch: int
    paused: bool


class SecondLock(msgspec.Struct, frozen=True):
    """The ledger refused what the gate of this very epoch had granted: the gate is wrong."""

    verdict: Verdict


Commit = Committed | Existing | Stale | SecondLock

_SECOND_LOCK: Final = {v.value: SecondLock(v) for v in (Verdict.SOLD_OUT, Verdict.MEMBER_LIMIT, Verdict.FCODE_SPENT)}


class Ended(msgspec.Struct, frozen=True):
    """A reservation that has ended, as far as the gate must hear of it."""

    id: str
    drop: str
    member: int
    keeps_slot: bool = False
    """It was returned, and still counts under its member's limit."""
    returned: bool = False
    """It was returned: an F-code that it was given for stays spent."""
    home: int = 0
    unit: int = 0


class Standing(msgspec.Struct, frozen=True):
    """What stands under an id that was granted: a tombstone, or the reservation that was quicker."""

    id: str
    member: int
    state: State
    keeps_slot: bool = False
    home: int = 0
    unit: int = 0


class ReservationStore:
    """The reservations of all drops."""

    def __init__(self, pool: Pool, reading: Pool) -> None:
        self._pool = pool
        self._reading = reading

    async def commit(self, drop_id: str, grants: Sequence[Grant]) -> list[Commit]:
        """Commit grants in one transaction; one outcome each. Durable when this returns.

        After `LedgerUnavailable` the outcome is unknown: call again with the same ids, which waits for the first call.
        """
        columns = (
            [g.id for g in grants],
            [g.member for g in grants],
            [g.allocation for g in grants],
            [g.quantity for g in grants],
            [g.slot for g in grants],
            [g.key for g in grants],
            [g.payload for g in grants],
            [g.code for g in grants],
            [g.epoch for g in grants],
            [g.stripe for g in grants],
            [g.unit_stripe for g in grants],
        )
        rows = await self._pool.fetch(sql("commit"), drop_id, *columns)
        if rows[0]["ordinal"] == 0:
            return [Committed(rows[0]["expires_at"])] * len(grants)
        return [self._commit_of(row) for row in rows]

    @staticmethod
    def _commit_of(row: object) -> Commit:
        outcome = row["outcome"]  # type: ignore[index]
        match outcome:
            case "committed":
                return Committed(row["expires_at"])  # type: ignore[index]
            case "exists":
                return Existing(reservation_of(row["existing"]))  # type: ignore[index]
            case "stale":
                return Stale(row["epoch"], row["paused"])  # type: ignore[index]
            case _:
                return _SECOND_LOCK[outcome]

    async def void(self, drop_id: str, grants: Sequence[Grant]) -> list[Standing]:
        """Put a tombstone under each id that has no reservation; returns what stands there."""
        rows = await self._pool.fetch(
            sql("void_grants"),
            drop_id,
            [g.id for g in grants],
            [g.member for g in grants],
            [g.allocation for g in grants],
            [g.quantity for g in grants],
            [g.slot for g in grants],
            [g.key for g in grants],
            [g.payload for g in grants],
            grants[0].epoch if grants else 0,
        )
        return [
            Standing(
                str(row["id"]),
                row["member"],
                State(row["state"]),
                row["keeps_slot"],
                row["home_stripe"],
                row["unit_stripe"],
            )
            for row in rows
        ]

    async def cancel(self, drop_id: str, ids: Sequence[str]) -> list[Reservation]:
        """Cancel holds of one drop in one transaction; returns those that were still held."""
        return await self._end(drop_id, ids, State.CANCELLED)

    async def due(self, limit: int) -> dict[str, list[str]]:
        """The oldest holds whose time is over by the ledger's clock, by drop."""
        rows = await self._pool.fetch(sql("holds_due"), limit)
        by_drop: dict[str, list[str]] = {}
        for row in rows:
            by_drop.setdefault(row["drop_id"], []).append(str(row["id"]))
        return by_drop

    async def expire(self, drop_id: str, ids: Sequence[str]) -> list[Reservation]:
        """End those of these holds that are due; returns what it ended."""
        return await self._end(drop_id, ids, State.EXPIRED)

    async def _end(self, drop_id: str, ids: Sequence[str], state: State) -> list[Reservation]:
        return [reservation_of(row) for row in await self._pool.fetch(sql("end_holds"), drop_id, ids, state.value)]

    async def outbox(self, drop_id: str, limit: int) -> list[Ended]:
        """Up to `limit` ended reservations of a drop whose units the gate may not have back yet."""
        rows = await self._pool.fetch(sql("outbox"), drop_id, limit)
        return [
            Ended(
                str(row["id"]),
                row["drop_id"],
                row["member"],
                row["keeps_slot"],
                row["returned"],
                row["home_stripe"],
                row["unit_stripe"],
            )
            for row in rows
        ]

    async def mark_released(self, drop_id: str, ids: Sequence[str], epoch: int) -> int:
        """The gate of `epoch` has these units back: done, if that is still the ledger's epoch."""
        count = await self._pool.fetchval(sql("mark_released"), drop_id, ids, epoch)
        return int(count)

    async def get(self, reservation_id: str) -> Reservation | None:
        """One reservation."""
        row = await self._reading.fetchrow(sql("reservation_get"), reservation_id)
        return None if row is None else reservation_of(row)

    async def list_of(self, member: int, after: tuple[datetime, str] | None, limit: int) -> list[Reservation]:
        """A member's reservations, newest first; after that (created_at, id) when given."""
        created_at, last_id = after or (None, None)
        rows = await self._reading.fetch(sql("reservation_list"), member, created_at, last_id, limit)
        return [reservation_of(row) for row in rows]
