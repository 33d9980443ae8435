"""What pages say of drops and show of them: words, pictures, and how things stand. No sale depends on it."""

from datetime import datetime

import msgspec

from flashsale.domain import Reservation, Texts
from flashsale.ledger.pool import Executor, Pool
from flashsale.ledger.rows import reservation_of
from flashsale.ledger.statements import sql


async def put_words(connection: Executor, drop_id: str, texts: Texts, picture: str | None) -> None:
    """What pages say of a drop from now on."""
    await connection.execute(sql("page_words_put"), drop_id, msgspec.json.encode(texts).decode(), picture)


async def words_of(connection: Executor, drop_id: str) -> tuple[Texts, str | None]:
    """What pages say of a drop."""
    row = await connection.fetchrow(sql("page_words_get"), drop_id)
    return (Texts(), None) if row is None else (msgspec.json.decode(row["texts"], type=Texts), row["picture"])


class PageStore:
    """What pages look at, and nothing decides by."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def put_picture(self, picture_id: str, content: bytes) -> None:
        """Keep a picture, under an id that is made of its content; it may be there already."""
        await self._pool.execute(sql("page_picture_put"), picture_id, content)

    async def picture(self, picture_id: str) -> bytes | None:
        """A picture; None when there is none of that name."""
        content: bytes | None = await self._pool.fetchval(sql("page_picture_get"), picture_id)
        return content

    async def has_picture(self, picture_id: str) -> bool:
        """Whether there is such a picture."""
        return bool(await self._pool.fetchval(sql("page_picture_known"), picture_id))

    async def reservations(self, drop_id: str, member: int, limit: int) -> list[Reservation]:
        """A member's reservations in one drop: the live ones first, each kind newest first."""
        rows = await self._pool.fetch(sql("page_reservations"), drop_id, member, limit)
        return [reservation_of(row) for row in rows]

    async def holds_last(self, drop_id: str) -> dict[str, datetime]:
        """By allocation, when the last hold ends that is under way; allocations without one are left out."""
        rows = await self._pool.fetch(sql("page_holds"), drop_id)
        return {r["id"]: r["until"] for r in rows if r["until"] is not None}
