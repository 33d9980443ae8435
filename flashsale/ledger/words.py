"""What pages say of drops, and the pictures that they show."""

import msgspec

from flashsale.domain import Texts
from flashsale.ledger.pool import Executor, Pool
from flashsale.ledger.statements import sql


async def put_words(connection: Executor, drop_id: str, texts: Texts, picture: str | None) -> None:
    """What pages say of a drop from now on."""
    await connection.execute(sql("words_put"), drop_id, msgspec.json.encode(texts).decode(), picture)


async def words_of(connection: Executor, drop_id: str) -> tuple[Texts, str | None]:
    """What pages say of a drop."""
    row = await connection.fetchrow(sql("words_get"), drop_id)
    return (Texts(), None) if row is None else (msgspec.json.decode(row["texts"], type=Texts), row["picture"])


class PictureStore:
    """All pictures, by ids that are made of their content."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def put(self, picture_id: str, content: bytes) -> None:
        """Keep a picture; it may be there already."""
        await self._pool.execute(sql("picture_put"), picture_id, content)

    async def get(self, picture_id: str) -> bytes | None:
        """A picture; None when there is none of that name."""
        content: bytes | None = await self._pool.fetchval(sql("picture_get"), picture_id)
        return content

    async def known(self, picture_id: str) -> bool:
        """Whether there is such a picture."""
        return bool(await self._pool.fetchval(sql("picture_known"), picture_id))
