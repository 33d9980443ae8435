"""Migrations, schema.sql and the statements: they fit each other, and every file is in use."""

import ast
import asyncio
import os
import re
from pathlib import Path

import asyncpg
import pytest

from flashsale.domain import LIVE, SPENDING, State, Verdict
from flashsale.errors import LedgerUnavailable
from flashsale.ledger import SCHEMA_VERSION, Ledger
from flashsale.ledger.migrate import dbmate, migrate
from tests.ledger.schema import FOLDER, SCHEMA, dump_schema, normalized
from tests.ledger.support import new_database, pool_of

STATEMENTS = sorted(FOLDER.glob("sql/*.sql"))
MIGRATIONS = sorted(FOLDER.glob("migrations/*.sql"))
CORE = MIGRATIONS[0].read_text(encoding="utf-8")


@pytest.mark.parametrize("path", STATEMENTS, ids=lambda path: path.stem)
async def test_every_statement_fits_the_schema_and_stands_alone(ledger: Ledger, path: Path) -> None:
    """Postgres prepares it, and would prepare no more than one. Its first line says what it is for."""
    text = path.read_text(encoding="utf-8")
    async with pool_of(ledger).connection() as connection:
        await connection.prepare(text)
        with pytest.raises(asyncpg.PostgresSyntaxError, match="multiple commands"):
            await connection.prepare(f"{text};\n{text}")
    assert text.startswith("-- ")
    assert ";" not in re.sub(r"--.*", "", text)


def test_every_statement_is_used_and_every_name_is_a_statement() -> None:
    """`sql("name")`, written with the name itself, is the only way to a file; none lies there unused."""
    used = [
        node.args[0]
        for path in FOLDER.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "sql"
    ]
    names = {node.value for node in used if isinstance(node, ast.Constant)}
    assert len(STATEMENTS) > 20
    assert all(isinstance(node, ast.Constant) for node in used)
    assert names == {path.stem for path in STATEMENTS}


async def test_schema_sql_is_what_the_migrations_make(database_url: str) -> None:
    """And it makes the same schema itself. If this fails after a migration was added: `make schema`."""
    schema = SCHEMA.read_text(encoding="utf-8")
    assert await dump_schema(database_url) == schema
    async with new_database(database_url, migrated=False) as url:
        connection = await asyncpg.connect(url)
        await connection.execute(schema)
        await connection.close()
        assert await dump_schema(url) == schema


async def test_a_change_of_the_schema_shows_in_the_dump(database_url: str) -> None:
    """The comparison would notice a constraint, an index, a body; and normalizing takes only noise away."""
    async with new_database(database_url) as url:
        connection = await asyncpg.connect(url)
        for change in (
            "ALTER TABLE allocations DROP CONSTRAINT never_oversold",
            "DROP INDEX reservations_key",
            "ALTER FUNCTION commit_reservations RESET enable_seqscan",
        ):
            before = await dump_schema(url)
            await connection.execute(change)
            assert await dump_schema(url) != before, change
        await connection.close()
    noise = "-- a comment\nSET x = 1;\n\\restrict abc\nSELECT pg_catalog.set_config('search_path', '', false);\n"
    assert normalized(f"{noise}\n\n\nCREATE TABLE a (\n    b int\n);\n\n\n\n{noise}") == normalized(
        "CREATE TABLE a (\n    b int\n);"
    )


async def test_migrating_again_changes_nothing(database_url: str) -> None:
    """Also several at once on an empty database: they take turns, and each finds the whole schema at its end."""
    async with new_database(database_url, migrated=False) as url:
        await asyncio.gather(*(migrate(url) for _ in range(3)))
        connection = await asyncpg.connect(url)
        applied = "SELECT version FROM schema_migrations ORDER BY version"
        first = [row["version"] for row in await connection.fetch(applied)]
        await migrate(url)
        assert [row["version"] for row in await connection.fetch(applied)] == first
        assert first == [path.name.partition("_")[0] for path in MIGRATIONS]
        assert await dump_schema(url) == SCHEMA.read_text(encoding="utf-8")
        await connection.close()


async def test_migrations_go_forward_only(database_url: str) -> None:
    """The way back is refused, with what to do instead, and nothing is gone."""
    for path in MIGRATIONS:
        text = path.read_text(encoding="utf-8")
        assert text.startswith("-- migrate:up\n")
        assert "RAISE EXCEPTION 'migrations go forward only" in text.partition("-- migrate:down")[2], path.name
    async with new_database(database_url) as url:
        process = await asyncio.create_subprocess_exec(
            dbmate(),
            *("--migrations-dir", str(FOLDER / "migrations"), "--no-dump-schema", "rollback"),
            env={**os.environ, "DATABASE_URL": url.replace("postgresql://", "postgres://")},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode != 0
        assert b"restore a backup instead" in output
        assert await dump_schema(url) == SCHEMA.read_text(encoding="utf-8")


async def test_a_ledger_of_another_version_is_not_ready(database_url: str) -> None:
    """The version that the code asks for is that of the newest migration; a database without it is refused by name."""
    assert MIGRATIONS[-1].name.startswith(f"{SCHEMA_VERSION}_")
    async with new_database(database_url) as url:
        ledger = await Ledger.connect(url, pool_max=1, timeout_s=5)
        await ledger.ping()
        await pool_of(ledger).execute("DELETE FROM schema_migrations WHERE version = $1", SCHEMA_VERSION)
        with pytest.raises(LedgerUnavailable, match=f"{SCHEMA_VERSION}.*flashsale migrate"):
            await ledger.ping()
        await ledger.aclose()


def test_the_words_of_the_schema_are_those_of_the_domain() -> None:
    """States in their order, the live ones wherever a statement or an index counts them, the second lock's verdicts."""
    (states,) = re.findall(r"CREATE TYPE reservation_state AS ENUM \((.*?)\)", CORE)
    assert re.findall(r"'(\w+)'", states) == [state.value for state in State]
    everything = "\n".join(path.read_text(encoding="utf-8") for path in (*MIGRATIONS, *STATEMENTS))
    live, spending = (", ".join(f"'{s.value}'" for s in State if s in states) for states in (LIVE, SPENDING))
    pairs = re.findall(r"state IN \(('held'.*?)\)", everything)
    assert len(pairs) > 5
    assert set(pairs) == {live, spending}
    outcomes = set(re.findall(r"outcome := '(\w+)'", CORE))
    verdicts = {v.value for v in (Verdict.SOLD_OUT, Verdict.MEMBER_LIMIT, Verdict.FCODE_SPENT)}
    assert outcomes == {"committed", "exists", "stale"} | verdicts


async def test_every_acknowledged_commit_waits_for_the_disk(ledger: Ledger) -> None:
    """The session says so itself, whatever the server's default is; and no statement waits for ever."""
    async with pool_of(ledger).connection() as connection:
        settings = {name: await connection.fetchval(f"SHOW {name}") for name in ("synchronous_commit", "fsync")}
        assert settings == {"synchronous_commit": "on", "fsync": "on"}
        for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            assert await connection.fetchval(f"SHOW {limit}") not in {"0", "0ms"}
