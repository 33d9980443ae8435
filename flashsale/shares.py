"""One process's share of what is counted: handed to all processes once a second, through the gate's server.

Presses are counted per batch elsewhere (`log.Tally`); here the sums of a second are sent on, one call for each drop
that was pressed on. So a press costs nothing more, and a second of a rush one small call a process.
"""

import asyncio
import contextlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from flashsale.errors import Unavailable
from flashsale.gate.sharing import Sharing

EVERY_S: Final = 1.0
WAITS_MS: Final = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1_000, 2_000, 5_000, 10_000)
"""Upper ends of the classes of waits; one more is for what is longer."""
WON: Final = frozenset({"held", "again"})
PROCESSES: Final = "processes"
NOTE_LIVES_MS: Final = 5_000


class Waiting(msgspec.Struct, frozen=True):
    """Presses that wait in all processes, for the gate and for the ledger; as of `at_ms` by the gate's clock."""

    at_ms: int
    processes: int
    gate: int
    ledger: int


def wait_field(seconds: float) -> str:
    """The class of a wait, as it is counted."""
    return f"w:{bisect_left(WAITS_MS, seconds * 1_000)}"


def waits_of(counts: Mapping[str, int]) -> list[int]:
    """How many waits of each class were counted."""
    return [counts.get(f"w:{n}", 0) for n in range(len(WAITS_MS) + 1)]


def quantile_ms(waits: list[int], share: float) -> float | None:
    """The upper end of the class in which that share of the waits ends, ms: never less than it was. None: no waits."""
    total, below = sum(waits), 0
    for n, count in enumerate(waits):
        below += count
        if total and below >= share * total:
            return float(WAITS_MS[min(n, len(WAITS_MS) - 1)])
    return None


class Shares:
    """Collects what this process (`name`) counted, and hands it on; kept for `ttl_s` after the last press on a drop."""

    def __init__(self, sharing: Sharing, *, name: str, ttl_s: int) -> None:
        self._sharing = sharing
        self._name = name
        self._ttl_s = ttl_s
        self._more: dict[str, Counter[str]] = {}
        self.everybody: Waiting | None = None
        """As it was heard last."""

    def waited(self, drop_id: str, seconds: float, presses: int) -> None:
        """A call of the gate was answered, in which so many presses had waited for so long at most."""
        self._of(drop_id)[wait_field(seconds)] += presses

    def decided(self, counted: Mapping[tuple[str, str], int]) -> None:
        """Verdicts, by drop and word."""
        for (drop_id, word), count in counted.items():
            self._of(drop_id)[word] += count

    def _of(self, drop_id: str) -> Counter[str]:
        found = self._more.get(drop_id)
        if found is None:
            found = self._more[drop_id] = Counter()
        return found

    async def publish(self, waiting: tuple[int, int]) -> None:
        """Hand on what was counted since the last time, and how many presses wait here before gate and ledger.

        What cannot be handed on is dropped: twice is worse.
        """
        counted, self._more = self._more, {}
        await asyncio.gather(self._note(*waiting), *(self._tell(drop_id, more) for drop_id, more in counted.items()))

    async def _tell(self, drop_id: str, more: Counter[str]) -> None:
        refused = {word: n for word, n in more.items() if word not in WON and not word.startswith("w:")}
        with contextlib.suppress(Unavailable):
            await self._sharing.tally(drop_id, more, refused, ttl_ms=self._ttl_s * 1_000)

    async def _note(self, gate: int, ledger: int) -> None:
        try:
            at_ms, notes = await self._sharing.notice(PROCESSES, self._name, f"{gate} {ledger}", lives_ms=NOTE_LIVES_MS)
        except Unavailable:
            return
        depths = [tuple(map(int, text.split())) for text in notes.values()]
        self.everybody = Waiting(at_ms, len(depths), sum(d[0] for d in depths), sum(d[1] for d in depths))

    async def run(self, waiting: Callable[[], tuple[int, int]]) -> None:
        """Publish each second, until cancelled."""
        while True:
            await self.publish(waiting())
            await asyncio.sleep(EVERY_S)
