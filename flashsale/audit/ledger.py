"""Reads the ledger: statements of its own, in one read-only snapshot. Errors: `Unreadable`, `UnknownDrop`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import asyncpg
import msgspec

from flashsale.audit.facts import SERIALS_A_FIELD, Act, Allocation, Batch, Drop, Ledger, Order, Payment, Row
from flashsale.audit.report import UnknownDrop, Unreadable

CONNECT_S: Final = 5.0
STATEMENT_S: Final = 300.0
ROWS_AT_ONCE: Final = 5_000
MEMBER_BYTES: Final = 8
BITMAP_BYTES: Final = 125
"""Of a thousand members or codes."""

_FAULTS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)

_DROP = """
SELECT id, epoch, per_member, hold_seconds, paused, closed, price_amount, currency, stripes,
    fcodes_stopped, fcodes_stopped OR EXISTS (SELECT 1 FROM fcode_stop) AS codes_stopped,
    (extract(epoch FROM created_at) * 1000000)::bigint AS created,
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now
FROM drops WHERE id = $1
"""
_ALLOCATIONS = """
SELECT a.id, a.quantity, a.taken, (extract(epoch FROM a.opens_at) * 1000000)::bigint AS opens,
    (extract(epoch FROM a.closes_at) * 1000000)::bigint AS closes, a.access ->> 'kind' AS kind,
    a.access ->> 'snapshot' AS snapshot, (a.access ->> 'at_least')::bigint AS at_least, s.token::text AS eligible_set
FROM allocations a
LEFT JOIN eligible_sets s ON s.snapshot_id = a.access ->> 'snapshot' AND s.at_least = (a.access ->> 'at_least')::bigint
WHERE a.drop_id = $1 ORDER BY a.position
"""
_ROWS = """
SELECT uuid_send(id), member, allocation_id, quantity, slot, state::text, idempotency_key, payload, fcode,
    (extract(epoch FROM created_at) * 1000000)::bigint, (extract(epoch FROM expires_at) * 1000000)::bigint,
    (extract(epoch FROM ended_at) * 1000000)::bigint, gate_released, keeps_slot, uuid_send(order_id), home_stripe,
    unit_stripe
FROM reservations WHERE drop_id = $1
"""
_ORDERS = """
SELECT uuid_send(o.id), uuid_send(o.reservation_id), o.event, o.state::text, o.amount, o.currency, o.payment_id,
    (extract(epoch FROM o.created_at) * 1000000)::bigint, (extract(epoch FROM o.queued_at) * 1000000)::bigint,
    (extract(epoch FROM o.settled_at) * 1000000)::bigint, o.tries, coalesce(j.jobs, 0), j.due, j.taken
FROM orders o JOIN reservations r ON r.id = o.reservation_id
LEFT JOIN (
    SELECT dedupe_key, count(*) AS jobs, (extract(epoch FROM min(execute_after)) * 1000000)::bigint AS due,
        (extract(epoch FROM max(heartbeat) FILTER (WHERE status = 'picked')) * 1000000)::bigint AS taken
    FROM pgqueuer WHERE status IN ('queued', 'picked') GROUP BY dedupe_key
) j ON j.dedupe_key = o.id::text
WHERE r.drop_id = $1
"""
_PAYMENTS = """
SELECT p.id, uuid_send(p.reservation_id), p.amount, p.currency, p.applied,
    (extract(epoch FROM p.received_at) * 1000000)::bigint
FROM payments p JOIN reservations r ON r.id = p.reservation_id WHERE r.drop_id = $1
"""
_BATCHES = """
SELECT id, allocation_id, count, bound, (extract(epoch FROM created_at) * 1000000)::bigint,
    (extract(epoch FROM expires_at) * 1000000)::bigint, (extract(epoch FROM revoked_at) * 1000000)::bigint
FROM fcode_batches WHERE drop_id = $1
"""
_REVOKED = """
SELECT v.batch_id::bigint << 22 | v.serial, (extract(epoch FROM v.at) * 1000000)::bigint
FROM fcode_revoked v JOIN fcode_batches b ON b.id = v.batch_id WHERE b.drop_id = $1
"""
_OWNERS = """
SELECT DISTINCT r.fcode, o.member FROM reservations r
JOIN fcode_bound o ON o.batch_id = (r.fcode >> 22)::integer AND o.serial = (r.fcode & 4194303)::integer
WHERE r.drop_id = $1 AND r.fcode IS NOT NULL
"""
_LOG = """
SELECT id, (extract(epoch FROM at) * 1000000)::bigint, actor, action, subject, detail::text
FROM audit WHERE subject = $1 OR starts_with(subject, $1 || '/') ORDER BY id
"""
_TWICE_KEYED = """
SELECT member, idempotency_key, count(*) FROM reservations
WHERE drop_id = $1 AND idempotency_key IS NOT NULL AND state <> 'void'
GROUP BY member, idempotency_key HAVING count(*) > 1 LIMIT 10
"""
_JOBS_WITHOUT_ORDER = """
SELECT j.dedupe_key FROM pgqueuer j
WHERE j.entrypoint = 'order' AND NOT EXISTS (SELECT 1 FROM orders o WHERE o.id::text = j.dedupe_key) LIMIT 10
"""
_REST = """
SELECT d.epoch, d.stripes, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now,
    (SELECT count(*) FROM reservations r WHERE r.drop_id = d.id AND NOT r.gate_released) AS outbox,
    (SELECT (extract(epoch FROM min(r.ended_at)) * 1000000)::bigint FROM reservations r
        WHERE r.drop_id = d.id AND NOT r.gate_released) AS outbox_since,
    (SELECT count(*) FROM reservations r
        WHERE r.drop_id = d.id AND r.state = 'held' AND r.expires_at <= now()) AS overdue,
    (SELECT (extract(epoch FROM min(r.expires_at)) * 1000000)::bigint FROM reservations r
        WHERE r.drop_id = d.id AND r.state = 'held' AND r.expires_at <= now()) AS overdue_since
FROM drops d WHERE d.id = $1
"""
# A thousand members as a bitmap, the lowest in the highest bit of the first byte.
_ELIGIBLE = """
SELECT p.member / 1000, substring(bit_send(bit_or((1::bit(1000) << 999) >> (p.member % 1000)::integer)) FROM 5)
FROM snapshot_points p JOIN snapshots s ON s.no = p.snapshot_no
WHERE s.id = $1 AND p.points >= $2 GROUP BY 1
"""
_BOUND = "SELECT serial, member FROM fcode_bound WHERE batch_id = $1 ORDER BY serial"
_KNOWN_ORDERS = "SELECT uuid_send(id) FROM orders WHERE id = ANY ($1::uuid[])"


class Rest(msgspec.Struct, frozen=True):
    """What the ledger still has under way, how much and since when."""

    epoch: int
    stripes: int
    now: int
    outbox: int
    outbox_since: int | None
    overdue: int
    overdue_since: int | None


class LedgerReader:
    """One connection to Postgres."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def rest(self, drop: str) -> Rest:
        """What is still under way."""
        with _readable():
            row = await self._connection.fetchrow(_REST, drop)
        if row is None:
            raise UnknownDrop(drop)
        return Rest(*row)

    async def read(self, drop: str) -> Ledger:
        """Everything of a drop, in one snapshot."""
        with _readable():
            async with self._connection.transaction(isolation="repeatable_read", readonly=True):
                return await self._read(drop)

    async def _read(self, drop: str) -> Ledger:
        read = self._connection.fetch
        head = await self._connection.fetchrow(_DROP, drop)
        if head is None:
            raise UnknownDrop(drop)
        allocations = {row[0]: Allocation(*row) for row in await read(_ALLOCATIONS, drop)}
        words: dict[Any, Any] = {}
        rows = {r[0]: _row(r, words) async for r in self._cursor(_ROWS, drop)}
        orders = {o[0]: _order(o, words) async for o in self._cursor(_ORDERS, drop)}
        return Ledger(
            now=head["now"],
            drop=_drop(head, allocations),
            rows=rows,
            orders=orders,
            payments=[Payment(*row) for row in await read(_PAYMENTS, drop)],
            batches={row[0]: Batch(*row) for row in await read(_BATCHES, drop)},
            revoked={row[0]: row[1] async for row in self._cursor(_REVOKED, drop)},
            owners={row[0]: row[1] async for row in self._cursor(_OWNERS, drop)},
            log=[_act(row) for row in await read(_LOG, drop)],
            twice_keyed=[tuple(row) for row in await read(_TWICE_KEYED, drop)],
            jobs_without_order=[str(row[0]) for row in await read(_JOBS_WITHOUT_ORDER)],
        )

    def _cursor(self, query: str, *args: object) -> Any:  # noqa: ANN401 -- asyncpg's cursor is untyped
        return self._connection.cursor(query, *args, prefetch=ROWS_AT_ONCE)

    async def eligible(self, snapshot: str, at_least: int) -> dict[int, bytes]:
        """Who has the points: thousand of the member's id → bitmap, member `lo` in bit `1 << (lo % 8)` of a byte."""
        with _readable():
            async with self._connection.transaction(readonly=True):
                return {
                    row[0]: row[1][:BITMAP_BYTES].translate(_MIRRORED)
                    async for row in self._cursor(_ELIGIBLE, snapshot, at_least)
                }

    async def bound(self, batch: int) -> dict[int, bytes]:
        """Whose the codes of a batch are: thousand of the serial → its members, 8 bytes each."""
        thousands: dict[int, bytearray] = {}
        with _readable():
            async with self._connection.transaction(readonly=True):
                async for serial, member in self._cursor(_BOUND, batch):
                    thousand, lo = divmod(serial, SERIALS_A_FIELD)
                    listed = thousands.setdefault(thousand, bytearray())
                    listed.extend(bytes(lo * MEMBER_BYTES - len(listed)))
                    listed += member.to_bytes(MEMBER_BYTES, "big")
        return {thousand: bytes(listed) for thousand, listed in thousands.items()}

    async def known_orders(self, ids: list[str]) -> set[bytes]:
        """Which of these are orders, of whatever drop."""
        with _readable():
            return {row[0] for row in await self._connection.fetch(_KNOWN_ORDERS, ids)}


def _row(r: Any, words: dict[Any, Any]) -> Row:  # noqa: ANN401 -- asyncpg's Record is untyped
    """A row; of `words`, which many rows have in common, one object each is kept."""
    fields = list(r)
    for at in (2, 5, 7):
        fields[at] = words.setdefault(fields[at], fields[at])
    return Row(*fields)


def _order(o: Any, words: dict[Any, Any]) -> Order:  # noqa: ANN401 -- as above
    fields = list(o)
    for at in (2, 3, 5):
        fields[at] = words.setdefault(fields[at], fields[at])
    return Order(*fields)


def _drop(head: Any, allocations: dict[str, Allocation]) -> Drop:  # noqa: ANN401 -- as above
    fields = list(head)[: len(Drop.__struct_fields__) - 1]
    fields.append(allocations)
    return Drop(*fields)


def _act(row: Any) -> Act:  # noqa: ANN401 -- as above
    fields = list(row)
    fields[-1] = msgspec.json.decode(fields[-1])
    return Act(*fields)


def _mirror(byte: int) -> int:
    return int(f"{byte:08b}"[::-1], 2)


_MIRRORED: Final = bytes(map(_mirror, range(256)))


@contextlib.contextmanager
def _readable(*more: type[Exception]) -> Iterator[None]:
    try:
        yield
    except (*_FAULTS, *more) as error:
        raise Unreadable(f"The ledger could not be read ({type(error).__name__}: {_plain(error)}).") from error


def _plain(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else "no more is known"


@contextlib.asynccontextmanager
async def ledger_reader(url: str) -> AsyncIterator[LedgerReader]:
    """A connection to Postgres that only reads."""
    with _readable(ValueError):  # asyncpg's word for a URL that it does not understand
        async with asyncio.timeout(CONNECT_S):
            connection = await asyncpg.connect(
                url,
                statement_cache_size=0,
                command_timeout=STATEMENT_S,
                server_settings={"application_name": "flashsale-audit"},
            )
    try:
        yield LedgerReader(connection)
    finally:
        with contextlib.suppress(*_FAULTS):
            await connection.close(timeout=CONNECT_S)
