"""What the tests of failed tries share: a clock, a store that can be away, and processes that count."""

import asyncio
from typing import Any

from flashsale.errors import Unavailable
from flashsale.tries import Tries

MEMBER_MAX = 5
ADDRESS_MAX = 20
WINDOW_S = 60.0


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


class Store:
    """What the gate's script does, in Python: a count and an end per subject; and what a network can do to a call."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.windows: dict[str, tuple[int, float]] = {}
        self.calls: list[list[tuple[str, int]]] = []
        self.away = False
        self.reply_is_lost = False
        self.doing: asyncio.Event | None = None

    async def share(self, increments: list[tuple[str, int]], window_ms: int) -> list[tuple[int, int]]:
        """Count, and answer everybody's totals and what is left of the windows."""
        if self.away:
            raise Unavailable
        self.calls.append(increments)
        if self.doing is not None:
            await self.doing.wait()
        answer = [self._count(subject, more, window_ms) for subject, more in increments]
        if self.reply_is_lost:
            raise Unavailable
        return answer

    def _count(self, subject: str, more: int, window_ms: int) -> tuple[int, int]:
        count, ends_s = self.windows.get(subject, (0, 0.0))
        if ends_s <= self.clock():
            if not more:
                return 0, 0
            count, ends_s = 0, self.clock() + window_ms / 1_000
        self.windows[subject] = count + more, ends_s
        return count + more, round((ends_s - self.clock()) * 1_000)

    def total(self, subject: str) -> int:
        """What is counted in the subject's present window."""
        count, ends_s = self.windows.get(subject, (0, 0.0))
        return count if ends_s > self.clock() else 0


def process(store: Store, **changes: Any) -> Tries:  # noqa: ANN401 -- any argument of Tries
    """One process's count."""
    given = {"member_max": MEMBER_MAX, "address_max": ADDRESS_MAX, "window_s": WINDOW_S, **changes}
    return Tries(share=store.share, now=store.clock, **given)


def fail(tries: Tries, times: int, member: int = 7, address: str | None = "192.0.2.1") -> None:
    for _ in range(times):
        tries.failed(member, address)
