"""Plans of the hot statements, with statistics of a busy day and with those of an empty table that grows in a rush."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

import msgspec
import pytest

from flashsale.domain import State
from flashsale.ids import new_ids
from flashsale.ledger import Ledger
from flashsale.ledger.statements import sql
from tests.ledger.support import Sale, columns_of, new_database, open_sale, pool_of, words

ROWS: Final = 40_000
"""In five drops; a fifth has ended, a fiftieth of these is still in the outbox; a hundredth of the holds is due."""

FILL: Final = """
INSERT INTO reservations (id, member, expires_at, ended_at, epoch, quantity, slot, state, gate_released, drop_id,
    allocation_id, idempotency_key, payload)
SELECT gen_random_uuid(), 1000000 + n, now() + (n % 1000 - 10) * interval '1 second',
    CASE WHEN n % 5 = 0 THEN now() END, 1, 1, 1,
    CASE WHEN n % 5 > 0 THEN 'held' ELSE 'cancelled' END::reservation_state,
    CASE WHEN n % 5 = 0 THEN n % 250 > 0 END, $1, 'a', CASE WHEN n % 2 = 0 THEN 'k' || n END, 'a|1'
FROM generate_series(1::int, $2::int) n
"""

SCANS_BY_INDEX: Final = {"Index Scan", "Index Only Scan", "Bitmap Heap Scan", "Bitmap Index Scan"}
SCANS: Final = "SELECT seq_scan, idx_scan FROM pg_stat_xact_user_tables WHERE relname = 'reservations'"

Plan = dict[str, Any]


def nodes(plan: Plan) -> list[Plan]:
    """All nodes of a plan."""
    return [plan, *(node for child in plan.get("Plans", ()) for node in nodes(child))]


@pytest.fixture(scope="module")
async def busy(database_url: str) -> AsyncIterator[Sale]:
    """A sale in a database with five drops of many reservations, analyzed."""
    async with new_database(database_url) as url:
        ledger = await Ledger.connect(url, pool_max=1, timeout_s=30)
        sales = [await open_sale(ledger, 100_000, per_member=3) for _ in range(5)]
        for sale in sales:
            await sale.pool.execute(FILL, sale.drop.id, ROWS // 5)
        await pool_of(ledger).execute("ANALYZE")
        yield sales[2]
        await ledger.aclose()


async def explain(sale: Sale, name: str, *args: object) -> list[Plan]:
    """The nodes of a statement's plan that touch reservations, made as the product's sessions make it."""
    async with sale.pool.connection() as connection:
        assert await connection.fetchval("SHOW enable_seqscan") == "on"
        (row,) = await connection.fetch(f"EXPLAIN (FORMAT JSON) {sql(name)}", *args)
    found = nodes(msgspec.json.decode(row[0])[0]["Plan"])
    return [node for node in found if "reservations" in f"{node.get('Relation Name')} {node.get('Index Name')}"]


@pytest.mark.parametrize(
    ("name", "args", "indexes"),
    [
        ("holds_due", (1000,), {"reservations_due"}),
        ("outbox", ("$drop", 1000), {"reservations_outbox"}),
        ("reservation_get", ("$id",), {"reservations_pkey"}),
        ("reservation_list", (1_000_007, None, None, 50), {"reservations_limit", "reservations_ended"}),
        ("page_reservations", ("$drop", 1_000_007, 20), {"reservations_limit", "reservations_ended"}),
        ("page_holds", ("$drop",), {"reservations_due"}),
        ("drop_list", ("$drop", None, 1), set()),
        ("drop_lock", ("$drop",), set()),
        ("units_taken", (["$drop"],), set()),
    ],
)
async def test_a_hot_statement_goes_by_its_index(
    busy: Sale, name: str, args: tuple[object, ...], indexes: set[str]
) -> None:
    """The index bounds what is read: its condition stands in the plan, not only an order or a predicate."""
    values = {"$drop": busy.drop.id, "$id": new_ids(1)[0]}
    filled = [
        [values["$drop"]] if isinstance(arg, list) else values.get(arg, arg) if isinstance(arg, str) else arg
        for arg in args
    ]
    found = await explain(busy, name, *filled)
    assert {node["Node Type"] for node in found} <= SCANS_BY_INDEX
    assert {node["Index Name"] for node in found if "Index Name" in node} == indexes
    assert all("Index Cond" in node for node in found if "Index Name" in node)


async def test_without_its_index_a_statement_is_seen_to_read_everything(busy: Sale) -> None:
    """The check above can fail: without the index, and with a clock that moves while the statement runs."""
    async with busy.pool.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("DROP INDEX reservations_outbox")
        (row,) = await connection.fetch(f"EXPLAIN (FORMAT JSON) {sql('outbox')}", busy.drop.id, 10)
        plans = nodes(msgspec.json.decode(row[0])[0]["Plan"])
        await transaction.rollback()
        assert "Seq Scan" in {node["Node Type"] for node in plans}
        moving = sql("holds_due").replace("<= now()", "<= clock_timestamp()")
        assert moving != sql("holds_due")
        (row,) = await connection.fetch(f"EXPLAIN (FORMAT JSON) {moving}", 10)
        plans = nodes(msgspec.json.decode(row[0])[0]["Plan"])
        assert not any("Index Cond" in node for node in plans)


async def scans(sale: Sale, statement: str, *args: object, before: str | None = None) -> tuple[int, int]:
    """How often this call scans reservations from end to end, and how often by an index; what it wrote is undone."""
    async with sale.pool.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        if before is not None:
            await connection.execute(before)
        (start,) = await connection.fetch(SCANS)
        await connection.fetch(statement, *args)
        (end,) = await connection.fetch(SCANS)
        await transaction.rollback()
    return end["seq_scan"] - start["seq_scan"], end["idx_scan"] - start["idx_scan"]


def some_calls(sale: Sale) -> dict[str, tuple[str, tuple[object, ...]]]:
    """One call of each function, with eight grants that nobody has seen before."""
    grants = [sale.grant(member, key=f"k{member}") for member in range(1, 9)]
    columns = [list(column) for column in zip(*(columns_of(g) for g in grants), strict=True)]
    ids = [g.id for g in grants]
    void = (sale.drop.id, *columns[:7], sale.epoch)
    return {
        "commit": (sql("commit"), (sale.drop.id, *columns)),
        "void_grants": (sql("void_grants"), void),
        "end_holds": (sql("end_holds"), (sale.drop.id, ids, State.EXPIRED.value)),
        "mark_released": (sql("mark_released"), (sale.drop.id, ids, sale.epoch)),
    }


@pytest.mark.parametrize("name", ["commit", "void_grants", "end_holds", "mark_released"])
async def test_a_function_never_reads_all_reservations(busy: Sale, name: str) -> None:
    """Whatever its statements look up, they do by an index."""
    statement, args = some_calls(busy)[name]
    end_to_end, _ = await scans(busy, statement, *args)
    assert end_to_end == 0


async def test_drops_that_owe_the_gate_a_unit_are_found_by_hops(busy: Sale) -> None:
    """One step along the index for each of the five drops and one to see the end, however many units they owe."""
    over = "UPDATE allocations SET opens_at = now() - interval '3 hours', closes_at = now() - interval '2 hours'"
    assert await scans(busy, sql("drop_epochs"), before=over) == (0, 6)
    plain = """SELECT d.id FROM drops d WHERE EXISTS (
        SELECT 1 FROM reservations r WHERE r.drop_id = d.id AND NOT r.gate_released
    ) OR d.epoch = 0"""
    assert await scans(busy, plain, before=over) != (0, 6), "the plain way looks elsewhere, or reads all"


async def test_a_drop_is_looked_after_until_it_is_over_and_owes_nothing(database_url: str) -> None:
    """Over is an hour after its last window; then only as long as a unit must go back to its gate."""
    async with new_database(database_url) as url:
        ledger = await Ledger.connect(url, pool_max=1, timeout_s=10)
        coming, recent, old, owing = [await open_sale(ledger, 5, 5) for _ in range(4)]
        ended = owing.grant(1)
        await owing.commit(ended, owing.grant(2))
        await old.commit(old.grant(1))
        await owing.cancel(ended)
        close = "UPDATE allocations SET opens_at = now() - interval '9 hours', closes_at = now() - $2::interval"
        for sale, ago in ((recent, 59), (old, 61), (owing, 61)):
            await sale.pool.execute(f"{close} WHERE drop_id = $1", sale.drop.id, timedelta(minutes=ago))
        await recent.pool.execute(f"{close} WHERE drop_id = $1 AND id = 'b'", recent.drop.id, timedelta(minutes=500))
        expected = {(sale.drop.id, sale.epoch) for sale in (coming, recent, owing)}
        assert {(found.drop, found.epoch) for found in await ledger.drops.epochs()} == expected
        assert await ledger.reservations.mark_released(owing.drop.id, [ended.id], owing.epoch) == 1
        assert {found.drop for found in await ledger.drops.epochs()} == {coming.drop.id, recent.drop.id}
        await ledger.aclose()


async def test_the_count_of_scans_would_show_one(busy: Sale) -> None:
    """Without the function's own settings and without an index to go by, the same call does read everything."""
    statement, args = some_calls(busy)["commit"]
    blind = "ALTER FUNCTION commit_reservations RESET ALL; DROP INDEX reservations_key"
    end_to_end, _ = await scans(busy, statement, *args, before=blind)
    assert end_to_end > 0


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_plan_made_for_a_small_table_does_not_survive_its_growth(database_url: str, guarded: bool) -> None:
    """A session first meets a table of one page, for which a scan from end to end is the best plan.

    Then come tens of thousands of rows, with statistics as old as they are in the first minute of a rush. Without the
    settings of function and session, the old plan reads all rows for every grant.
    """
    async with new_database(database_url) as url:
        ledger = await Ledger.connect(url, pool_max=1, timeout_s=60)
        sale = await open_sale(ledger, 1_000_000, per_member=3)
        if not guarded:
            await sale.pool.execute("ALTER FUNCTION commit_reservations RESET ALL")
            await sale.pool.execute("SET plan_cache_mode = auto")
        await sale.commit(*(sale.grant(member) for member in range(1, 40)))
        await sale.pool.execute("ANALYZE reservations")
        for member in range(100, 112):
            g = sale.grant(member, key="k")
            assert words(await sale.commit(g) + await sale.commit(g)) == ["committed", "exists"]
            assert await ledger.reservations.get(g.id) is not None
        await sale.pool.execute(FILL, sale.drop.id, ROWS // 2)
        statement, args = some_calls(sale)["commit"]
        commit = await scans(sale, statement, *args)
        get = await scans(sale, sql("reservation_get"), new_ids(1)[0])
        await ledger.aclose()
    if guarded:
        assert (commit[0], get[0]) == (0, 0)
        assert min(commit[1], get[1]) > 0
    else:
        assert commit[0] > 8
