"""What the operators' console reads of the ledger beside what everybody does. It decides nothing."""

import asyncio
from datetime import datetime, timedelta, timezone
from typing import Any, Final

import msgspec

from flashsale.domain import Event, OrderState
from flashsale.ledger.drops import AuditLine
from flashsale.ledger.orders import ListedOrder, listed_of
from flashsale.ledger.pool import Pool
from flashsale.ledger.statements import sql


class Holds(msgspec.Struct, frozen=True):
    """Units that are held and confirmed; how many holds end within one minute, and within five."""

    held: int
    confirmed: int
    ending_1m: int
    ending_5m: int


class Outgoing(msgspec.Struct, frozen=True):
    """The orders of what is confirmed, by where they are."""

    waiting: int
    delivered: int
    dead: int


class Happened(msgspec.Struct, frozen=True):
    """What happened in a drop within a step of time that begins at `at`, Unix seconds; in units."""

    at: int
    granted: int
    confirmed: int
    cancelled: int
    expired: int
    returned: int


class AuditWanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which lines of the audit log: each None, all. `action` is a whole one, or its beginning before a dot."""

    subject: str | None = None
    actor: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class OrdersWanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which orders: each None, all."""

    state: OrderState | None = None
    event: Event | None = None
    order: str | None = None
    member: int | None = None
    drop: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class KnownSnapshot(msgspec.Struct, frozen=True):
    """A points snapshot; `cutoff` in the zone in which it was named at the import."""

    id: str
    cutoff: datetime
    members: int
    created_at: datetime
    created_by: str


FIRST_ID: Final = "00000000-0000-0000-0000-000000000000"
LAST_ID: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"
COUNT_MAX_S: Final = 300
KNOWN_MAX: Final = 64
REPORT_MAX_S: Final = 60
SKEW: Final = timedelta(minutes=5)
"""By so much the clock of who made an id may differ from the ledger's."""


def id_at(moment: datetime) -> str:
    """The least id that could be made at a moment: they begin with Unix milliseconds (`ids`)."""
    text = f"{max(0, int(moment.timestamp() * 1_000)):012x}"
    return f"{text[:8]}-{text[8:12]}-0000-0000-000000000000"


def asked_ms(reservation: str) -> int:
    """When the id was made, Unix ms."""
    return int(reservation[:8] + reservation[9:13], 16)


class ConsoleStore:
    """All of it is read through the pool of what people look at: no commit waits for an operator's page."""

    def __init__(self, reading: Pool) -> None:
        self._reading = reading
        self._counting = asyncio.Lock()
        self._thresholds: dict[str, list[tuple[int, int]]] = {}

    async def _patiently(self, max_s: int, statement: str, *args: object) -> list[Any]:
        """The rows of what may take longer than the pool lets a call last."""
        async with self._reading.transaction(max_s, readonly=True) as connection:
            await connection.execute(sql("arming_time"), f"{max_s}s")
            rows: list[Any] = await connection.fetch(statement, *args, timeout=max_s)
        return rows

    async def now(self) -> datetime:
        """The ledger's clock."""
        found: datetime = await self._reading.fetchval(sql("clock"))
        return found

    async def codes_alive(self, drop_id: str) -> dict[str, int]:
        """By allocation for F-codes, how many codes may still be spent."""
        rows = await self._reading.fetch(sql("allocation_alive"), drop_id)
        return {row["id"]: row["alive"] for row in rows}

    async def holds(self, drop_id: str, ending_max: int) -> Holds:
        """A drop's holds; of those that end soon, the next `ending_max` are counted."""
        row = await self._reading.fetchrow(sql("live_holds"), drop_id, ending_max)
        return Holds(int(row["held"]), int(row["confirmed"]), row["ending_1m"], row["ending_5m"])

    async def outgoing(self, drop_id: str) -> Outgoing:
        """Where a drop's orders are."""
        row = await self._reading.fetchrow(sql("live_orders"), drop_id)
        return Outgoing(row["waiting"], row["delivered"], row["dead"])

    async def happened(
        self, drop_id: str, step_s: int, between: tuple[datetime, datetime], limit: int
    ) -> list[Happened]:
        """What happened to the reservations that were made in that time, by steps of seconds; those with anything."""
        first, last = id_at(between[0] - SKEW), id_at(between[1] + SKEW)
        rows = await self._patiently(REPORT_MAX_S, sql("report_seconds"), drop_id, step_s, first, last, limit)
        return [Happened(*(int(row[name]) for name in Happened.__struct_fields__)) for row in rows]

    async def grants(
        self, drop_id: str, after: str | None, between: tuple[datetime, datetime], limit: int
    ) -> list[tuple[str, int]]:
        """Reservations that were made in that time, by their ids, after that one: id, and when it was written, us."""
        first, last = after or id_at(between[0] - SKEW), id_at(between[1] + SKEW)
        rows = await self._patiently(REPORT_MAX_S, sql("report_grants"), drop_id, first, last, limit)
        return [(str(row["id"]), row["created"]) for row in rows]

    async def audit(self, wanted: AuditWanted, before: int | None, limit: int) -> list[AuditLine]:
        """The audit log, newest first."""
        w = wanted
        args = (w.subject, before, w.actor, w.action, w.since, w.until, limit)
        return [
            AuditLine(r["id"], r["at"], r["actor"], r["action"], r["subject"], msgspec.json.decode(r["detail"]))
            for r in await self._reading.fetch(sql("audit_search"), *args)
        ]

    async def orders(self, wanted: OrdersWanted, before: str | None, limit: int) -> list[ListedOrder]:
        """Orders, newest first. Their ids grow with time: `since` and `until` go by when they were made."""
        w = wanted
        last = LAST_ID if w.until is None else id_at(w.until)
        args = (
            None if w.state is None else w.state.value,
            None if w.event is None else w.event.value,
            w.order,
            w.drop,
            FIRST_ID if w.since is None else id_at(w.since),
            last if before is None else min(last, before),
            limit,
        )
        if w.member is None:
            rows = await self._patiently(REPORT_MAX_S, sql("order_search"), *args)
        else:
            rows = await self._patiently(REPORT_MAX_S, sql("order_of_member"), *args, w.member)
        return [listed_of(row) for row in rows]

    async def snapshots(self, after: str | None, limit: int) -> list[KnownSnapshot]:
        """Points snapshots, by name."""
        return [
            KnownSnapshot(
                r["id"],
                r["cutoff"].astimezone(timezone(timedelta(seconds=r["cutoff_offset_s"]))),
                r["members"],
                r["created_at"],
                r["created_by"],
            )
            for r in await self._reading.fetch(sql("snapshot_list"), after, limit)
        ]

    async def thresholds(self, snapshot: str) -> list[tuple[int, int]]:
        """(points, members who have at least so many), ascending. A snapshot never changes: it is counted once."""
        async with self._counting:  # one at a time: each reads all of a snapshot
            if snapshot not in self._thresholds:
                rows = await self._patiently(COUNT_MAX_S, sql("snapshot_thresholds"), snapshot)
                if len(self._thresholds) >= KNOWN_MAX:
                    self._thresholds.clear()
                self._thresholds[snapshot] = [(row["at_least"], row["members"]) for row in rows]
            return self._thresholds[snapshot]

    async def qualify(self, snapshot: str, at_least: int) -> int:
        """How many members of a snapshot have at least so many points."""
        [row] = await self._patiently(COUNT_MAX_S, sql("snapshot_qualify"), snapshot, at_least)
        return int(row[0])
