"""The drops as this process knows them: read from the ledger, watched by their epochs.

A gate is asked with the least epoch this process knows of, so that one left behind (an old primary
that is still reachable) is noticed within about a second.
"""

import asyncio
from typing import Final

from flashsale.domain import Drop
from flashsale.ledger import DropStore

UNKNOWN_TTL_S: Final = 1.0
UNKNOWN_MAX: Final = 10_000
PAGE_TTL_S: Final = 0.5
PAGES_MAX: Final = 256


class Catalog:
    """A cache of drops, kept true by `refresh` (each second) and by whoever learns of a newer epoch."""

    def __init__(self, store: DropStore) -> None:
        self._store = store
        self._drops: dict[str, Drop] = {}
        self._min_epoch: dict[str, int] = {}
        self._unknown: dict[str, float] = {}
        self._asked: dict[str, asyncio.Future[Drop | None]] = {}
        self._pages: dict[tuple[str | None, int], tuple[float, asyncio.Future[list[Drop]]]] = {}

    def known(self, drop_id: str) -> Drop | None:
        """The drop, if this process has it at hand."""
        return self._drops.get(drop_id)

    def min_epoch(self, drop_id: str) -> int:
        """The least epoch a gate must have been armed for."""
        return self._min_epoch.get(drop_id, 0)

    def raise_epoch(self, drop_id: str, epoch: int) -> None:
        """The ledger is at `epoch` or later."""
        if epoch > self._min_epoch.get(drop_id, 0):
            self._min_epoch[drop_id] = epoch

    def put(self, drop: Drop) -> None:
        """Take a drop just read from the ledger, unless a newer one is here already."""
        known = self._drops.get(drop.id)
        if known is None or known.epoch <= drop.epoch:
            self._drops[drop.id] = drop
            self.raise_epoch(drop.id, drop.epoch)
            self._unknown.pop(drop.id, None)

    async def get(self, drop_id: str) -> Drop | None:
        """The drop; asks the ledger once when it is not at hand, and not again for a second when there is none."""
        drop = self._drops.get(drop_id)
        if drop is not None:
            return drop
        now = asyncio.get_running_loop().time()
        if self._unknown.get(drop_id, 0.0) > now:
            return None
        asked = self._asked.get(drop_id)
        if asked is None:
            asked = self._asked[drop_id] = asyncio.ensure_future(self.reload(drop_id))
            asked.add_done_callback(lambda done: self._answered(drop_id, done))
        return await asyncio.shield(asked)

    def _answered(self, drop_id: str, done: asyncio.Future[Drop | None]) -> None:
        del self._asked[drop_id]
        if not done.cancelled():
            done.exception()  # seen, also when everybody who asked has gone

    async def page(self, after: str | None, limit: int) -> list[Drop]:
        """A page of all drops, as the ledger had it at most `PAGE_TTL_S` ago: everybody looks at the first one."""
        now = asyncio.get_running_loop().time()
        known = self._pages.get((after, limit))
        if known is not None and known[0] > now:
            return await asyncio.shield(known[1])
        if len(self._pages) >= PAGES_MAX:
            self._pages.clear()
        asked = asyncio.ensure_future(self._store.page(after, limit))
        asked.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._pages[after, limit] = (now + PAGE_TTL_S, asked)
        return await asyncio.shield(asked)

    async def reload(self, drop_id: str) -> Drop | None:
        """The drop as the ledger has it now."""
        drop = await self._store.get(drop_id)
        if drop is None:
            if len(self._unknown) >= UNKNOWN_MAX:
                self._unknown.clear()
            self._unknown[drop_id] = asyncio.get_running_loop().time() + UNKNOWN_TTL_S
            return None
        self.put(drop)
        return drop

    async def refresh(self) -> list[str]:
        """Poll the epochs; reload what changed. Returns the ids of the drops that did."""
        epochs = await self._store.epochs()
        for found in epochs:  # all of them first: reloading one may fail
            self.raise_epoch(found.drop, found.epoch)
        changed = []
        for found in epochs:
            known = self._drops.get(found.drop)
            if known is None or known.epoch != found.epoch:
                await self.reload(found.drop)
                changed.append(found.drop)
        return changed
