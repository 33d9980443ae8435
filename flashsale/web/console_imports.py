"""How far a points import is, told to all processes: whoever asks need not reach the one that reads the file."""

import asyncio
import contextlib
import re
import secrets
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final

import msgspec

from flashsale.domain import ID_PATTERN, Timestamp
from flashsale.errors import Unavailable
from flashsale.web.context import Context

BOARD: Final = "imports"
EVERY_S: Final = 0.5
LIVES_MS: Final = 5_000


class ImportOut(msgspec.Struct, kw_only=True):
    """An import that is under way: `reading` its file, or `storing` what was read. `bytes_total` if it was told."""

    snapshot: str
    actor: str
    phase: str
    started_at: Timestamp
    at: Timestamp
    bytes: int
    bytes_total: int | None
    lines: int


class Progress:
    """Counts what passes by."""

    def __init__(self, told: ImportOut) -> None:
        self.told = told

    async def counted(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same pieces."""
        async for piece in pieces:
            self.told.bytes += len(piece)
            self.told.lines += piece.count(b"\n")
            yield piece
        self.told.phase = "storing"


@contextlib.asynccontextmanager
async def announced(
    context: Context, *, snapshot: str, actor: str, bytes_total: int | None, now: datetime
) -> AsyncIterator[Progress]:
    """As long as it lasts, everybody can see how far it is."""
    told = ImportOut(
        snapshot=snapshot,
        actor=actor,
        phase="reading",
        started_at=now,
        at=now,
        bytes=0,
        bytes_total=bytes_total,
        lines=0,
    )
    if re.fullmatch(ID_PATTERN, snapshot) is None:  # it will be refused
        yield Progress(told)
        return
    note = f"{snapshot}/{secrets.token_hex(4)}"
    telling = asyncio.create_task(_tell(context, note, told))
    try:
        yield Progress(told)
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        with contextlib.suppress(Unavailable):
            await context.gate.sharing.notice(BOARD, note, lives_ms=LIVES_MS)


async def _tell(context: Context, note: str, told: ImportOut) -> None:
    while True:
        told.at = context.now()
        with contextlib.suppress(Unavailable):
            text = msgspec.json.encode(told).decode()
            await context.gate.sharing.notice(BOARD, note, text, lives_ms=LIVES_MS)
        await asyncio.sleep(EVERY_S)


async def imports(context: Context) -> list[ImportOut]:
    """All imports that are under way, in whatever process."""
    _, notes = await context.gate.sharing.notice(BOARD, lives_ms=LIVES_MS)
    return [msgspec.json.decode(text, type=ImportOut) for _, text in sorted(notes.items())]
