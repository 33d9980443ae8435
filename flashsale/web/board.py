"""What a drop's gate says of itself, asked at most a few times a second however many ask."""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from flashsale.domain import Drop
from flashsale.errors import GateUnavailable
from flashsale.gate import Gate, Status, Unarmed, whole

FRESH_S: Final = 0.25
CALLS_MAX: Final = 16
PAGE_WAIT_S: Final = 2.0


class Heard(msgspec.Struct, frozen=True):
    """A status, and when it came, by the loop's clock."""

    status: Status
    at: float


class Board:
    """Status of the gate by drop, at most `FRESH_S` old; one call for all who ask at the same time."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._known: dict[str, tuple[float, int, asyncio.Future[Heard | None]]] = {}

    async def status(self, drop: Drop) -> Status | None:
        """What the gate holds; None while it cannot be asked or is not armed. Its clock is brought up to now.

        It is counted on from when the answer came: never ahead, or who goes by it would press before the opening.
        """
        loop = asyncio.get_running_loop()
        known = self._known.get(drop.id)
        if known is None or loop.time() - known[0] > FRESH_S or known[1] != drop.epoch:
            known = self._known[drop.id] = (loop.time(), drop.epoch, asyncio.ensure_future(self._ask(drop)))
        heard = await asyncio.shield(known[2])
        if heard is None:
            return None
        passed_ms = int((loop.time() - heard.at) * 1000)
        return msgspec.structs.replace(heard.status, now_ms=heard.status.now_ms + passed_ms)

    async def statuses(self, drops: Sequence[Drop]) -> list[Status | None]:
        """The same for a page of drops. A gate that stalls costs one wait, not one for each of them."""
        slots = asyncio.Semaphore(CALLS_MAX)

        async def one(drop: Drop) -> Status | None:
            async with slots:
                return await self.status(drop)

        asked = [asyncio.create_task(one(drop)) for drop in drops]
        if asked:
            _, late = await asyncio.wait(asked, timeout=PAGE_WAIT_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        return [None if task.cancelled() else task.result() for task in asked]

    async def _ask(self, drop: Drop) -> Heard | None:
        try:
            status = await whole.status(self._gate, drop, drop.epoch)
        except GateUnavailable:
            return None
        return None if isinstance(status, Unarmed) else Heard(status, asyncio.get_running_loop().time())
