"""Plans of what the console reads beside a sale: bounded by an index, however many rows other drops have."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

import msgspec
import pytest

from flashsale.domain import Event, OrderState
from flashsale.ledger import Ledger
from flashsale.ledger.console import FIRST_ID, SKEW, OrdersWanted, id_at
from flashsale.ledger.statements import sql
from tests.ledger.support import Sale, new_database, open_sale, pool_of

ROWS: Final = 40_000
"""In ten drops, one after the other, an hour each: ids grow with time. Every second is confirmed, and has its order."""

FILL: Final = """
WITH made AS (
    SELECT n, (lpad(to_hex($3::bigint + n), 12, '0') || '70008000000000000000') AS hex
    FROM generate_series(1, $2::int) n
), rows AS (
    INSERT INTO reservations (id, member, expires_at, created_at, ended_at, epoch, quantity, slot, state, gate_released,
        drop_id, allocation_id, payload, order_id)
    SELECT hex::uuid, 1000000 + n, now() + (n % 1000) * interval '1 second', now(),
        CASE WHEN n % 5 = 0 THEN now() END, 1, 1, 1,
        (CASE WHEN n % 5 = 0 THEN 'cancelled' WHEN n % 2 = 0 THEN 'confirmed' ELSE 'held' END)::reservation_state,
        CASE WHEN n % 5 = 0 THEN true END, $1, 'a', 'a|1', CASE WHEN n % 5 > 0 AND n % 2 = 0 THEN hex::uuid END
    FROM made RETURNING id, order_id
)
INSERT INTO orders (id, event, reservation_id, amount, currency, state, settled_at)
SELECT order_id, 'order.confirmed', id, 1, 'CNY', 'delivered', now() FROM rows WHERE order_id IS NOT NULL
"""


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """All nodes of a plan."""
    return [plan, *(node for child in plan.get("Plans", ()) for node in nodes(child))]


@pytest.fixture(scope="module")
async def busy(database_url: str) -> AsyncIterator[Sale]:
    """The sixth of ten sales."""
    async with new_database(database_url) as url:
        ledger = await Ledger.connect(url, pool_max=1, timeout_s=30)
        sales = [await open_sale(ledger, 100_000, per_member=3) for _ in range(10)]
        for at, sale in enumerate(sales):
            first_ms = int((sale.drop.created_at + timedelta(hours=at)).timestamp() * 1_000)
            await sale.pool.execute(FILL, sale.drop.id, ROWS // 10, first_ms)
        await pool_of(ledger).execute("ANALYZE")
        yield sales[5]
        await ledger.aclose()


async def explain(sale: Sale, statement: str, *args: object) -> list[dict[str, Any]]:
    """The nodes of a plan that read a table."""
    async with sale.pool.connection() as connection:
        (row,) = await connection.fetch(f"EXPLAIN (FORMAT JSON) {statement}", *args)
    return [n for n in nodes(msgspec.json.decode(row[0])[0]["Plan"]) if "Relation Name" in n or "Index Name" in n]


def bounds(sale: Sale) -> tuple[str, str]:
    """Between which ids the sale's reservations are."""
    begin = sale.drop.created_at + timedelta(hours=5)
    return id_at(begin - timedelta(seconds=1)), id_at(begin + timedelta(minutes=5))


@pytest.mark.parametrize(
    ("name", "args", "indexes"),
    [
        ("live_holds", ("$drop", 20_000), {"reservations_limit", "reservations_due"}),
        ("live_orders", ("$drop",), {"reservations_limit", "orders_pkey"}),
        ("report_seconds", ("$drop", 1, "$first", "$last", 3_600), {"reservations_pkey", "orders_pkey"}),
        ("report_grants", ("$drop", "$first", "$last", 5_000), {"reservations_pkey"}),
        (
            "order_of_member",
            (None, None, None, None, "$zero", "$last", 51, 1_000_007),
            {"reservations_limit", "reservations_ended", "orders_once", "orders_refund"},
        ),
        ("order_search", (None, None, "$first", None, "$zero", "$last", 51), {"orders_pkey", "reservations_pkey"}),
        ("order_search", ("dead", None, None, "$drop", "$zero", "$last", 51), {"orders_dead", "reservations_pkey"}),
    ],
)
async def test_it_goes_by_an_index(busy: Sale, name: str, args: tuple[object, ...], indexes: set[str]) -> None:
    """Reservations, and where few are wanted orders, are not read from end to end; at most these indexes are used.

    Where all orders of a drop are counted, and it has a good share of them, it is right to read them all.
    """
    first, last = bounds(busy)
    values = {"$drop": busy.drop.id, "$first": first, "$last": last, "$zero": FIRST_ID}
    found = await explain(busy, sql(name), *(values.get(a, a) if isinstance(a, str) else a for a in args))
    counted = name in {"live_orders", "report_seconds"}
    large = [
        n for n in found if n.get("Relation Name") in ({"reservations"} if counted else {"reservations", "orders"})
    ]
    assert large
    assert "Seq Scan" not in {n["Node Type"] for n in large}, large
    used = {n["Index Name"] for n in found if n.get("Index Name", "").startswith(("reservations", "orders"))}
    assert used
    assert used <= indexes


async def test_without_bounds_a_report_reads_everything(busy: Sale) -> None:
    """The negative control: it is the range of ids that keeps it from reading what other drops sold."""
    first, last = bounds(busy)
    bounded = sql("report_grants")
    unbounded = bounded.replace("r.id > $2::uuid AND r.id < $3::uuid AND ", "")
    assert unbounded != bounded
    unbounded = unbounded.replace("$1", "$1::text").replace("ORDER BY r.id LIMIT $4", "AND $2 <> $3::text LIMIT $4")
    found = await explain(busy, unbounded, busy.drop.id, first, last, 5_000)
    assert "Seq Scan" in {n["Node Type"] for n in found}


async def test_the_statements_find_what_was_filled_in(busy: Sale) -> None:
    """So that plans of the right statements are looked at."""
    console = busy.ledger.console
    begin = busy.drop.created_at + timedelta(hours=5)
    span = (begin, begin + timedelta(minutes=5))
    holds = await console.holds(busy.drop.id, 20_000)
    assert (holds.held, holds.confirmed) == (ROWS // 25, ROWS // 25)
    assert (await console.outgoing(busy.drop.id)).delivered == ROWS // 25
    assert sum(h.granted for h in await console.happened(busy.drop.id, 60, span, 100)) == ROWS // 10
    assert len(await console.grants(busy.drop.id, None, span, ROWS)) == ROWS // 10
    wanted = OrdersWanted(
        drop=busy.drop.id, state=OrderState.DELIVERED, event=Event.CONFIRMED, since=begin - SKEW, until=span[1]
    )
    assert len(await console.orders(wanted, None, ROWS)) == ROWS // 25
    assert len(await console.orders(OrdersWanted(member=1_000_002), None, 50)) == 10
