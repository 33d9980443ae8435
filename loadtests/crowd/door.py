"""The door of one process: lets its guests in when they are due, whatever became of those before.

How a guest's visit is started, and how time passes, is the caller's to know.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from loadtests.crowd.book import Book
from loadtests.crowd.contract import OK, Call, heard
from loadtests.crowd.guests import Guest, Sale
from loadtests.crowd.visit import Clock, Hands
from loadtests.http1 import Answer

CLOCK_SAMPLES = 25
CLOCK_EVERY_S = 0.05
"""25 samples span the second for which the drop may be cached."""
LAG_EVERY_S = 0.02
CPU_EVERY_S = 1.0


def read_clock(sale: Sale, hands: Hands, clock: Clock) -> None:
    """Learn the server's clock before anybody comes. An answer that cannot be read teaches nothing."""
    call = Call("clock", "GET", f"/v1/drops/{sale.drop}", frozenset({OK}), hands.now())

    def judged(answer: Answer | None, sent_at: float, at: float) -> str | None:
        said = heard(call, answer, sent_at, at)
        if said.word != OK:
            return said.word
        clock.learn(said.document["server_time"], said.at)
        return None

    for _ in range(CLOCK_SAMPLES):
        hands.ask(call, judged)
        call = call._replace(due=hands.now() + CLOCK_EVERY_S)
        hands.wait_until(call.due)


def let_in(
    guests: Sequence[Guest], opening: Callable[[], float], hands: Hands, book: Book, start: Callable[[Guest], None]
) -> None:
    """Start each guest's visit when the schedule says: an open arrival, which waits for nobody.

    `opening` is asked each time: the clock is known better and better. Whether a guest came late is counted.
    """
    for guest in sorted(guests, key=arrives_s):
        due = opening() + arrives_s(guest)
        hands.wait_until(due)
        book.tally.took("came late", seconds=hands.now() - due)
        book.tally.add("came", guest.role)
        start(guest)


def arrives_s(guest: Guest) -> float:
    """When a guest comes in: to look at the drop, or just before the press for those who do not look."""
    return min(guest.look_at_s, guest.press_at_s)


class Health:
    """What the generator itself suffers: how late its own ticks come, how busy it and its machine are."""

    def __init__(self, hands: Hands, book: Book, share: int) -> None:
        self._hands = hands
        self._book = book
        self._share = share
        self._cpu_at = hands.now()
        self._cpu_s = time.process_time()

    def tick(self) -> None:
        """Wait a moment, and count by how much it was longer than that."""
        due = self._hands.now() + LAG_EVERY_S
        self._hands.wait_until(due)
        now = self._hands.now()
        self._book.tally.took("lag", seconds=now - due)
        if now - self._cpu_at >= CPU_EVERY_S:
            used_s = time.process_time()
            percent = round(100 * (used_s - self._cpu_s) / (now - self._cpu_at))
            self._book.tally.add("cpu", self._share, self._book.second(now), percent)
            self._book.tally.add("load", round(100 * os.getloadavg()[0] / (os.cpu_count() or 1)))
            self._cpu_at, self._cpu_s = now, used_s


def parcel(book: Book, share: int, *, inside: int, done: bool) -> dict[str, Any]:
    """What is sent to who gathers: everything new, of which share, how many are inside, whether it was the last."""
    return {"share": share, "inside": inside, "done": done, **book.drain()}
