"""The worst moments: what passes on the ways to the servers, so that a fault can strike just then."""

import asyncio
from collections import defaultdict
from typing import Literal

Moment = Literal["press", "grant", "commit", "committed", "delivery", "opening"]
"""A call to the gate; the gate has granted a unit and nobody knows; the ledger is asked to write; it has written and
nobody knows; the shop has taken an order and not said so; a drop opens."""

WRITE_MIN_BYTES = 250
"""What asks the ledger to write names reservations, members and keys; smaller requests only look."""


class Moments:
    """Tells who waits for a moment that it is there."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._awaited = 0
        self._writing = False

    async def wait(self, moment: Moment, timeout_s: float) -> bool:
        """Return at that moment; whether it came within `timeout_s`."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[moment].add(future)
        self._awaited += 1
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            return False
        finally:
            self._awaited -= 1
            self._waiting[moment].discard(future)
        return True

    def fire(self, moment: Moment) -> None:
        """It is there."""
        for future in self._waiting[moment]:
            if not future.done():
                future.set_result(None)

    def at_gate(self, reply: bool, data: bytes) -> None:
        """A piece on the way to the gate, or back."""
        if not self._awaited:
            return
        if not reply:
            self.fire("press")
        elif b"held" in data:
            self.fire("grant")

    def at_ledger(self, reply: bool, data: bytes) -> None:
        """A piece on the way to the ledger, or back."""
        if not self._awaited:
            return
        if not reply and len(data) >= WRITE_MIN_BYTES:
            self._writing = True
            self.fire("commit")
        elif reply and self._writing:
            self._writing = False
            self.fire("committed")
