"""Order of arrival against order of grant: how far a sale was first come, first served. Pure: figures in, figures out.

What can honestly be compared. Of a reservation two moments are kept, and no third was added for this: the millisecond
in its id, which its web process read from its clock when it sent the press to the gate; and the time at which the
ledger wrote the row. The first is arrival but for the wait in the process's queue, which is at most one call of the
gate (the waits that were counted are told beside it), and but for the clocks of several machines. The second is the
grant made durable: what a shopper calls "I have it". Two presses of one millisecond came together, and are not judged.
Who was refused is not in it: at the gate, refusals and grants are decided one after the other, in the order of calls.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from typing import Final

import msgspec

US_PER_MS: Final = 1_000


class Fairness(msgspec.Struct, frozen=True):
    """`pairs` of presses of different milliseconds, and how many of them were granted the other way round.

    `overtaking` presses were granted before one that had come earlier, by so many ms (`p50_ms` … of all that were
    judged, 0 for those that overtook nobody). `ties` are pairs that came in the same millisecond.
    """

    judged: int
    pairs: int
    out_of_order: int
    ties: int
    overtaking: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


class Orders:
    """Takes presses by the time at which they came, and tells in the end."""

    def __init__(self) -> None:
        self._before: list[int] = []
        """When those that came in earlier milliseconds were granted, us, sorted."""
        self._together: list[int] = []
        self._came_ms = -1
        self._ahead_us: list[int] = []
        self._pairs = self._out_of_order = self._ties = 0

    def add(self, presses: Iterable[tuple[int, int]]) -> None:
        """(came in this ms, was granted at this us), none before those that were added."""
        for came_ms, granted_us in presses:
            if came_ms != self._came_ms:
                self._close()
                self._came_ms = came_ms
            self._together.append(granted_us)

    def _close(self) -> None:
        """Those who came together are judged by those before, and not by each other."""
        count = len(self._together)
        self._ties += count * (count - 1) // 2
        self._pairs += count * len(self._before)
        for granted_us in self._together:
            later = len(self._before) - bisect_right(self._before, granted_us)
            self._out_of_order += later
            self._ahead_us.append(self._before[-1] - granted_us if later else 0)
        for granted_us in self._together:
            insort(self._before, granted_us)
        self._together.clear()

    def told(self) -> Fairness:
        """How it was."""
        self._close()
        ahead = sorted(self._ahead_us)

        def share(of: float) -> float:
            return ahead[min(len(ahead) - 1, int(of * len(ahead)))] / US_PER_MS if ahead else 0.0

        return Fairness(
            judged=len(ahead),
            pairs=self._pairs,
            out_of_order=self._out_of_order,
            ties=self._ties,
            overtaking=len(ahead) - bisect_left(ahead, 1),
            p50_ms=share(0.5),
            p90_ms=share(0.9),
            p99_ms=share(0.99),
            max_ms=share(1.0),
        )
