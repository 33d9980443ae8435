"""Whether all stripes are dry: looks at what others have left, asked once for a whole batch of claims.

A look is of use to a press when the call that saw it began after the press was submitted. So it is asked for when the
batch is formed or later, and answered by the first call to the other stripe that begins after that.
"""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from flashsale.errors import Unavailable
from flashsale.gate import UNARMED, Unarmed


class Seen(msgspec.Struct, frozen=True):
    """What a stripe had left in a call; and, if a code was asked for, whether it was spent there."""

    epoch: int
    left: dict[str, int]
    spent: bool = False


Dry = bool | int | Unarmed
"""Whether there is nothing elsewhere; or, when that cannot be told, a later epoch that is about, or just UNARMED."""


def are_dry(told: Sequence[Seen | Unarmed], epoch: int, names: Sequence[str], quantity: int) -> Dry:
    """Whether none of these stripes, all of this epoch, had so many units of any of these allocations."""
    seen = [each for each in told if isinstance(each, Seen)]
    if len(seen) < len(told):
        return UNARMED
    if any(each.epoch != epoch for each in seen):
        return max(epoch, *(each.epoch for each in seen))
    return all(each.left.get(name, 0) < quantity for each in seen for name in names)


class Turn:
    """One call for a batch of claims at their home: what the others have left is asked, and thought about, once.

    `look()` asks all others, by calls that begin after it is called. Hundreds wait for the same answer.
    """

    def __init__(self, look: Callable[[], "list[asyncio.Future[Seen | Unarmed]]"]) -> None:
        self._look = look
        self._asking: asyncio.Task[None] | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._seen: list[Seen | Unarmed] | Exception | None = None
        self._dry: dict[tuple[int, tuple[str, ...], int], Dry] = {}

    def ask(self) -> None:
        """Look around: all claims of the batch have been submitted."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        try:
            self._seen = await asyncio.gather(*self._look())
        except Exception as fault:  # noqa: BLE001 -- whatever it was, it belongs to those who wait for it
            self._seen = fault
        finally:
            for each in self._waiting:
                if not each.done():
                    each.set_result(None)

    def answered(self) -> "asyncio.Future[None]":
        """Done when all others have been seen. A future of one's own, without a coroutine around: there are many."""
        future = asyncio.get_running_loop().create_future()
        if self._seen is not None:
            future.set_result(None)
        else:
            self._waiting.append(future)
            self.ask()
        return future

    def others_are_dry(self, epoch: int, names: tuple[str, ...], quantity: int) -> Dry:
        """As `are_dry`, of all other stripes, once they have been seen."""
        asked = epoch, names, quantity
        if asked not in self._dry:
            if self._seen is None:
                raise Unavailable("The service is stopping; repeat the same request.")
            if isinstance(self._seen, Exception):
                raise self._seen
            self._dry[asked] = are_dry(self._seen, epoch, names, quantity)
        return self._dry[asked]
