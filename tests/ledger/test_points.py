"""Points snapshots on a real Postgres: imported all or nothing, never changed; and the lists made of them."""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
import redis.asyncio

from flashsale import embedded
from flashsale.circuit import Circuit
from flashsale.domain import MEMBER_MAX
from flashsale.eligibility import FIELDS_PER_PART_MAX, contains, encode_chunk, gate_field
from flashsale.errors import Refused
from flashsale.ledger import PointsStore
from flashsale.ledger.migrate import migrate
from flashsale.ledger.points import EligibleInfo, Snapshot
from flashsale.ledger.pool import Pool, open_pool
from flashsale.points import Imported, import_points

CUTOFF = datetime(2011, 8, 16, tzinfo=timezone(timedelta(hours=8)))
HEADER = b"member_id,points\n"
SQL = sorted((Path(__file__).parents[2] / "flashsale/ledger/sql").glob("points_*.sql"))


@pytest.fixture(scope="module")
async def pool(urls: embedded.Servers) -> AsyncIterator[Pool]:
    """A migrated database of this module's own."""
    name = f"points_{secrets.token_hex(4)}"
    admin = await asyncpg.connect(urls.database_url)
    await admin.execute(f"CREATE DATABASE {name}")
    url = f"{urls.database_url.rpartition('/')[0]}/{name}"
    await migrate(url)
    circuit = Circuit(now=time.monotonic, jitter=random.random)
    pool = await open_pool(url, size_max=4, timeout_s=5, circuit=circuit)
    yield pool
    await pool.close()
    await admin.execute(f"DROP DATABASE {name}")
    await admin.close()


@pytest.fixture
def store(pool: Pool) -> PointsStore:
    """The store under test."""
    return PointsStore(pool)


@pytest.fixture
def name() -> str:
    """A snapshot's name that no other test uses."""
    return f"s-{secrets.token_hex(6)}"


@pytest.fixture
async def valkey(urls: embedded.Servers) -> AsyncIterator["redis.asyncio.Redis"]:
    """A client of the real Valkey; answers are bytes."""
    client = redis.asyncio.Redis.from_url(urls.redis_url)
    yield client
    await client.aclose()


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    """A body as it comes in from the network."""
    for part in parts:
        yield part


def csv_of(entries: dict[int, int]) -> bytes:
    """A points file in random order."""
    lines = [b"%d,%d\n" % entry for entry in entries.items()]
    random.Random(7).shuffle(lines)
    return HEADER + b"".join(lines)


async def put(store: PointsStore, name: str, file: bytes) -> Imported:
    """Import a file that is right."""
    return await import_points(store, pieces(file), snapshot=name, cutoff=CUTOFF, actor="ops:1")


async def traces(pool: Pool) -> list[tuple[Any, ...]]:
    """Everything that an import can leave behind: names, tables, audit lines."""
    rows = await pool.fetch(
        """
        SELECT 'snapshot', id FROM snapshots
        UNION ALL SELECT 'audit', subject FROM audit
        UNION ALL SELECT 'table', relname FROM pg_class WHERE relname LIKE '%points%' OR relname LIKE 'eligible%'
        ORDER BY 1, 2
        """
    )
    return [tuple(row) for row in rows]


async def decoded(store: PointsStore, name: str, at_least: int) -> list[list[bytes]]:
    """The computed list as its parts hold it; read by hand, because MessagePack's strings are bytes here."""
    parts = []
    async for part in store.eligible_parts(name, at_least):
        assert part[0] == 0xDC
        items, at = [], 3
        while at < len(part):
            start, size = (at + 2, part[at + 1]) if part[at] == 0xD9 else (at + 1, part[at] - 0xA0)
            items.append(part[start : start + size])
            at = start + size
        assert len(items) == int.from_bytes(part[1:3], "big")
        parts.append(items)
    return parts


def fields_of(members: set[int]) -> dict[bytes, bytes]:
    """What the gate's hash must hold for these members, computed the plain way."""
    thousands: dict[str, list[int]] = {}
    for member in members:
        field, lo = gate_field(member)
        thousands.setdefault(field, []).append(lo)
    return {field.encode(): encode_chunk(los) for field, los in thousands.items()}


async def test_an_import_keeps_every_members_points_and_says_so(store: PointsStore, pool: Pool, name: str) -> None:
    """Points, count, the cut-off in the operator's own zone, and one audit line."""
    file = (
        b'\xef\xbb\xbfmember_id,points,note\r\n7,100,x\r\n"9223372036854775807","0","a\r\nb"\r\n1,9223372036854775807,'
    )
    done = await import_points(store, pieces(file[:9], file[9:]), snapshot=name, cutoff=CUTOFF, actor="ops:42")
    assert done == Imported(name, CUTOFF, 3)
    assert [await store.points_of(name, member) for member in (7, MEMBER_MAX, 1, 8)] == [100, 0, 2**63 - 1, None]
    assert await store.points_of("unknown", 7) is None
    found = await store.snapshot(name)
    assert found == Snapshot(name, CUTOFF, 3)
    assert found is not None
    assert found.cutoff.isoformat() == "2011-08-16T00:00:00+08:00"
    assert await store.snapshot("unknown") is None
    (line,) = await pool.fetch("SELECT actor, action, detail FROM audit WHERE subject = $1", name)
    assert (line["actor"], line["action"]) == ("ops:42", "points.import")
    assert msgspec.json.decode(line["detail"]) == {"cutoff": "2011-08-16T00:00:00+08:00", "members": 3}


async def test_a_wrong_line_leaves_nothing_behind(store: PointsStore, pool: Pool, name: str) -> None:
    """The last of thirty thousand lines is wrong: no name, no rows, no table, no audit line, and the name is free."""
    before = await traces(pool)
    good = csv_of(dict.fromkeys(range(1, 30_001), 5))
    with pytest.raises(Refused) as caught:
        await put(store, name, good + b"30001,-1\n")
    assert (caught.value.code, caught.value.extra) == ("invalid_request", {"line": 30_002})
    assert await traces(pool) == before
    assert (await put(store, name, good)).members == 30_000


@pytest.mark.parametrize(
    ("file", "line", "earlier"),
    [
        (HEADER + b"7,1\n8,1\n7,2\n8,2\n7,3\n", 4, "member 7 is on line 2 already"),
        (HEADER + b"9,1\n8,1\n8,1\n9,1\n", 4, "member 8 is on line 3 already"),
        (HEADER + b"7,1\n007,1\n", 3, "member 7 is on line 2 already"),
        (b'member_id,points,note\n7,1,"a\nb"\n8,1,\n7,1,\n', 5, "member 7 is on line 2 already"),
        (HEADER + b"".join(b"%d,1\n" % m for m in range(1, 20_001)) + b"77,1\n", 20_002, "member 77 is on line 78"),
    ],
)
async def test_a_member_twice_is_refused_naming_both_lines(pool: Pool, file: bytes, line: int, earlier: str) -> None:
    """Of several, the first second line in the file is named, by the file's own numbering; nothing is kept."""
    store, name = PointsStore(pool), "twice"
    before = await traces(pool)
    with pytest.raises(Refused) as caught:
        await put(store, name, file)
    assert (caught.value.code, caught.value.extra) == ("invalid_request", {"line": line})
    assert earlier in caught.value.detail
    assert await traces(pool) == before


@pytest.mark.parametrize("wrong", ["", "-a", "Forum", "a_b", "a b", "a\n", "x" * 64, "ä"])
async def test_a_name_that_is_no_id_is_refused(store: PointsStore, wrong: str) -> None:
    """Before anything of the body is read."""
    with pytest.raises(Refused, match="cannot be a snapshot's") as caught:
        await put(store, wrong, HEADER + b"7,1\n")
    assert caught.value.code == "invalid_request"


async def test_a_cut_off_without_zone_is_refused(store: PointsStore, name: str) -> None:
    """Nobody can tell whose midnight it would be."""
    naive = CUTOFF.replace(tzinfo=None)
    with pytest.raises(Refused, match="has no zone") as caught:
        await import_points(store, pieces(HEADER, b"7,1\n"), snapshot=name, cutoff=naive, actor="ops:1")
    assert caught.value.code == "invalid_request"


async def test_a_later_import_has_no_effect_on_a_snapshot(store: PointsStore, pool: Pool, name: str) -> None:
    """The name is taken: the second file is not even read, and the points are those of the first (I7)."""
    await put(store, name, HEADER + b"7,100\n")
    before = await traces(pool)
    unread = pieces(HEADER, b"7,999\n")
    with pytest.raises(Refused, match="snapshots never change") as caught:
        await import_points(store, unread, snapshot=name, cutoff=CUTOFF, actor="ops:1")
    assert caught.value.code == "conflict"
    assert [part async for part in unread] == [HEADER, b"7,999\n"]
    assert await store.points_of(name, 7) == 100
    assert await traces(pool) == before


async def test_of_two_imports_of_one_name_at_a_time_one_is_kept(store: PointsStore, name: str) -> None:
    """The second is told to wait while the first is still being read; the first ends well."""
    reading, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield HEADER + b"7,1\n"
        reading.set()
        await go_on.wait()

    first = asyncio.create_task(import_points(store, slow(), snapshot=name, cutoff=CUTOFF, actor="ops:1"))
    await reading.wait()
    with pytest.raises(Refused, match="being imported just now") as caught:
        await put(store, name, HEADER + b"7,2\n")
    assert caught.value.code == "conflict"
    go_on.set()
    assert (await first).members == 1
    assert await store.points_of(name, 7) == 1


@pytest.mark.parametrize("how", ["broken", "cancelled"])
async def test_a_client_that_goes_away_leaves_nothing(store: PointsStore, pool: Pool, name: str, how: str) -> None:
    """Half a body, then nothing more: all is undone, and the name can be used at once."""
    before = await traces(pool)
    reading = asyncio.Event()

    async def half() -> AsyncIterator[bytes]:
        yield HEADER + b"7,1\n"
        reading.set()
        if how == "broken":
            raise ValueError("the connection was reset")
        await asyncio.Event().wait()

    task = asyncio.create_task(import_points(store, half(), snapshot=name, cutoff=CUTOFF, actor="ops:1"))
    await reading.wait()
    if how == "cancelled":
        task.cancel()
    with pytest.raises(ValueError if how == "broken" else asyncio.CancelledError):
        await task
    assert await traces(pool) == before
    assert (await put(store, name, HEADER + b"7,1\n")).members == 1


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO snapshot_points SELECT 8, 500, 3, no FROM snapshots WHERE id = $1",
        "UPDATE snapshot_points SET points = 500 FROM snapshots WHERE no = snapshot_no AND id = $1",
        "DELETE FROM snapshot_points USING snapshots WHERE no = snapshot_no AND id = $1",
        "UPDATE snapshots SET cutoff = now() WHERE id = $1",
        "DELETE FROM snapshots WHERE id = $1",
        "UPDATE eligible_sets SET members = 0 WHERE snapshot_id = $1",
        "DELETE FROM eligible_sets WHERE snapshot_id = $1",
        "UPDATE eligible_chunks SET fields = '' WHERE snapshot_id = $1",
        "DELETE FROM eligible_chunks WHERE snapshot_id = $1",
    ],
)
async def test_a_snapshot_cannot_be_changed_by_anybody(
    store: PointsStore, pool: Pool, name: str, statement: str
) -> None:
    """The ledger itself refuses each kind of write on each of the tables (I7)."""
    await put(store, name, HEADER + b"7,100\n")
    await store.build_eligible(name, 100)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="a points snapshot never changes"):
        await pool.execute(statement, name)


@pytest.mark.parametrize("statement", ["INSERT INTO {} VALUES (8, 500, 3, {})", "DELETE FROM {}", "TRUNCATE {}"])
async def test_nor_through_the_table_behind_it(store: PointsStore, pool: Pool, name: str, statement: str) -> None:
    """A snapshot's own partition is closed as well."""
    await put(store, name, HEADER + b"7,100\n")
    no = await pool.fetchval("SELECT no FROM snapshots WHERE id = $1", name)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="a points snapshot never changes"):
        await pool.execute(statement.format(f"snapshot_points_{no}", no))


async def test_one_members_points_are_found_by_the_index_of_one_snapshot(
    store: PointsStore, pool: Pool, name: str
) -> None:
    """With several snapshots the plan runs one index scan, whatever was planned for the others."""
    for suffix in "abc":
        await put(store, name + suffix, csv_of(dict.fromkeys(range(1, 5_001), 5)))
    query = (SQL[0].parent / "points_of_member.sql").read_text()
    async with pool.connection() as connection, connection.transaction():
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        plan = await connection.fetch(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {query}", name + "b", 77)
    ran = [
        line["QUERY PLAN"]
        for line in plan
        if "snapshot_points" in line["QUERY PLAN"] and "actual" in line["QUERY PLAN"]
    ]
    assert len(ran) == 1
    assert "Index" in ran[0]


@pytest.mark.parametrize("path", SQL, ids=lambda path: str(path.stem))
async def test_each_statement_is_understood_by_the_schema(pool: Pool, path: Path) -> None:
    """Every file of points can be prepared."""
    async with pool.connection() as connection:
        await connection.prepare(path.read_text(encoding="utf-8"))


SHAPES = {
    "dense": set(range(1, 12_345)),
    "thin": {random.Random(1).randrange(1, 200_000) for _ in range(4_000)},
    "scattered": {random.Random(2).randrange(1, 2**63) for _ in range(1)}
    | {r.randrange(1, 2**63) for r in [random.Random(3)] for _ in range(5_000)},
    "edges": {1, 7, 999, 1_000, 1_001, 1_999, 2_000, 999_999, 1_000_000, MEMBER_MAX, MEMBER_MAX - 1},
    "first thousand": {1, 2, 3},
    "nobody": set(),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_the_list_that_postgres_computes_is_the_plain_one(store: PointsStore, name: str, shape: str) -> None:
    """Field by field and byte by byte what `eligibility` encodes, for those at the threshold and above it alone."""
    members = SHAPES[shape]
    others = {member + 1 for member in members if member < MEMBER_MAX} - members | {5_000_000}
    points = {member: 100 + member % 3 for member in members} | dict.fromkeys(others, 99)
    await put(store, name, csv_of(points))
    expected = fields_of(members)
    assert await store.eligible_info(name, 100) is None
    info = await store.build_eligible(name, 100)
    assert info == EligibleInfo(len(members), len(expected)) == await store.eligible_info(name, 100)
    parts = await decoded(store, name, 100)
    assert len(parts) == -(-len(expected) // FIELDS_PER_PART_MAX)
    pairs = [pair for part in parts for pair in zip(part[::2], part[1::2], strict=True)]
    assert len(pairs) == len(expected)
    assert dict(pairs) == expected


async def test_a_list_is_computed_once_also_by_many_at_a_time(store: PointsStore, pool: Pool, name: str) -> None:
    """Others wait for the one that computes; a threshold of its own is a list of its own."""
    await put(store, name, csv_of({member: member % 200 for member in range(1, 5_001)}))
    many = await asyncio.gather(*(store.build_eligible(name, 100) for _ in range(6)))
    assert set(many) == {EligibleInfo(2_500, 5)}
    when = "SELECT created_at, xmin::text FROM eligible_sets WHERE snapshot_id = $1 AND at_least = 100"
    first = await pool.fetchrow(when, name)
    assert await store.build_eligible(name, 100) == many[0]
    assert await pool.fetchrow(when, name) == first
    assert await store.build_eligible(name, 0) == EligibleInfo(5_000, 6)
    assert await store.build_eligible("unknown", 0) is None


async def test_a_part_stays_small_enough_for_one_call(store: PointsStore, name: str) -> None:
    """Even of the largest values, bitmaps with the last bit set, a part takes 300 KB at most."""
    base = 10**18 // 1000
    members = {(base + t) * 1000 + lo for t in range(FIELDS_PER_PART_MAX + 1) for lo in range(999, 999 - 63, -1)}
    await put(store, name, csv_of(dict.fromkeys(members, 1)))
    await store.build_eligible(name, 1)
    sizes = [len(part) async for part in store.eligible_parts(name, 1)]
    assert len(sizes) == 2
    assert 280_000 < sizes[0] <= 300_000


COPY = """
local fields = cmsgpack.unpack(ARGV[1])
for i = 1, #fields, 4000 do
  redis.call('HSET', KEYS[1], unpack(fields, i, math.min(i + 3999, #fields)))
end
return #fields
"""


@pytest.mark.parametrize("shape", ["thin", "scattered", "edges"])
async def test_a_real_gate_copies_the_parts_as_they_are(
    store: PointsStore, valkey: "redis.asyncio.Redis", name: str, shape: str
) -> None:
    """What Lua unpacks are byte strings; the hash then knows every member and nobody beside them."""
    members = SHAPES[shape]
    await put(store, name, csv_of(dict.fromkeys(members, 1)))
    await store.build_eligible(name, 1)
    async for part in store.eligible_parts(name, 1):
        await valkey.eval(COPY, 1, name, part)
    found = await valkey.hgetall(name)
    hash_ = {f: v for f, v in found.items() if isinstance(f, bytes) and isinstance(v, bytes)}
    await valkey.delete(name)
    assert hash_ == fields_of(members)
    for member in [*members, *({member ^ 1 for member in members} - members - {0})]:
        field, lo = gate_field(member)
        value = hash_.get(field.encode())
        assert (value is not None and contains(value, lo)) == (member in members)
