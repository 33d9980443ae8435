"""A part of a crowd, in a process of its own: what it is asked, in which order it presses, what it tells.

Who starts it writes two lines of JSON to its standard input: the `Part` that it is, and, once it has answered with a
line, the `Opening`. From then on it writes what it has heard so far (`Told`) every `TELL_EVERY_S`, all of it each
time, the last time with `done`.
"""

import asyncio
import contextlib
import sys
import time
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Protocol, Self

import msgspec

TELL_EVERY_S = 0.25
GIVE_UP_S = 900.0
JOURNAL_REFUSALS_EACH = 256
"""Of so many refusals one is written down: all of 3,470,000 would cost the audit minutes, and tell it nothing more."""
JOURNAL_BUFFER_BYTES = 1 << 20

ALLOCATION = "all"
WINS = frozenset({"held", "again"})
NOT_OPEN = "not_open"


class Part(msgspec.Struct, frozen=True):
    """Members `number` + 1, `number` + 1 + `parts`, … of 1 to `contenders`, `outstanding` of whom press at a time.

    `group`: how many press together in one call.
    """

    drop: str
    number: int
    parts: int
    contenders: int
    seed: int
    outstanding: int
    group: int
    url: str
    redis_url: str
    database_url: str
    secret: str
    journal: str


class Opening(msgspec.Struct, frozen=True):
    """When the drop opens (Unix time, seconds), and how long a unit is held."""

    opens_at_s: float
    hold_s: int


class Told(msgspec.Struct):
    """What a part has heard so far. Times in seconds from the opening.

    `heard`: word → verdicts by second. `early`: words heard by those who pressed before the opening. `repeated`: why
    presses were made again. `faults`: what nobody had foreseen; whoever met it has no verdict. `first_created_s`: when
    the first reservation was written down, by the ledger's clock.
    """

    done: bool = False
    heard: dict[str, list[int]] = {}
    early: dict[str, int] = {}
    repeated: dict[str, int] = {}
    faults: dict[str, int] = {}
    first_refusal_s: float | None = None
    last_win_s: float | None = None
    last_verdict_s: float | None = None
    first_created_s: float | None = None


def order(part: Part) -> "array[int]":
    """The part's members in the order in which they press: random, and the same for the same seed."""
    members = array("I", range(part.number + 1, part.contenders + 1, part.parts))
    Random(f"{part.seed}/{part.number}").shuffle(members)
    return members


class Heard:
    """What a part hears: counted by second, and the wins written down for the auditor, with some of the refusals."""

    def __init__(self, drop: str, opening: Opening, journal: Path) -> None:
        self.told = Told()
        self.drop = drop
        self.opening = opening
        self.opens_at = time.monotonic() + opening.opens_at_s - time.time()
        self._unix_s = opening.opens_at_s - self.opens_at
        self._repeated: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._early: Counter[str] = Counter()
        self._refusals = JOURNAL_REFUSALS_EACH - 1
        self._journal = journal.open("wb", buffering=JOURNAL_BUFFER_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._journal.close()

    def won(self, member: int, word: str, reservation: str, expires_at_s: float, *, sent_at: float, at: float) -> None:
        """A member has a unit. `sent_at`, `at`: by `time.monotonic`; `expires_at_s`: Unix time, as it was told."""
        after_s = at - self.opens_at
        self._count(word, 1, after_s)
        told = self.told
        told.last_win_s = max(after_s, told.last_win_s or 0.0)
        created_s = expires_at_s - self.opening.hold_s - self.opening.opens_at_s
        if told.first_created_s is None or created_s < told.first_created_s:
            told.first_created_s = created_s
        status = 201 if word == "held" else 200
        self._write(
            member, sent_at, at, status=status, reservation=reservation, state="held", expires_at=expires_at_s,
            **{"in": ALLOCATION},
        )  # fmt: skip

    def refused(self, word: str, count: int, member: int, *, sent_at: float, at: float) -> None:
        """So many heard this word at once, `member` among them."""
        after_s = at - self.opens_at
        self._count(word, count, after_s)
        if self.told.first_refusal_s is None:
            self.told.first_refusal_s = after_s
        self._refusals += count
        if self._refusals >= JOURNAL_REFUSALS_EACH:
            self._refusals %= JOURNAL_REFUSALS_EACH
            self._write(member, sent_at, at, status=409, code=word)

    def not_open(self, member: int, *, sent_at: float, at: float) -> None:
        """A member pressed too early, and will press again."""
        (self._early if sent_at < self.opens_at else self._repeated)[NOT_OPEN] += 1
        self._write(member, sent_at, at, status=403, code=NOT_OPEN)

    def repeat(self, why: str, count: int) -> None:
        """So many were asked to press again, or lost their answer."""
        self._repeated[why] += count

    def fault(self, what: str, count: int) -> None:
        """So many met something unforeseen."""
        self._faults[what] += count

    def tell(self, *, done: bool = False) -> None:
        """Write everything so far to standard output."""
        told = self.told
        told.early, told.repeated, told.faults = dict(self._early), dict(self._repeated), dict(self._faults)
        told.done = done
        say(told)

    def _count(self, word: str, count: int, after_s: float) -> None:
        second = max(0, int(after_s))
        counts = self.told.heard.get(word)
        if counts is None:
            counts = self.told.heard[word] = []
        if second >= len(counts):
            counts.extend([0] * (second + 1 - len(counts)))
        counts[second] += count
        self.told.last_verdict_s = after_s

    def _write(self, member: int, sent_at: float, at: float, **told: object) -> None:
        line = {
            "call": "reserve", "drop": self.drop, "member": member, "allocation": ALLOCATION, "quantity": 1,
            "sent_at": sent_at + self._unix_s, "heard_at": at + self._unix_s, **told,
        }  # fmt: skip
        self._journal.write(_encode(line) + b"\n")


_encode = msgspec.json.Encoder().encode


def say(what: object) -> None:
    """One line to whoever started this process."""
    sys.stdout.buffer.write(_encode(what) + b"\n")
    sys.stdout.buffer.flush()


class Press(Protocol):
    """How a part presses."""

    async def __call__(self, heard: Heard) -> None:
        """Return when all of its members have their verdicts."""


@contextlib.contextmanager
def told_regularly(heard: Heard) -> Iterator[None]:
    """Tell what is heard, now and then, until the block ends, and then for the last time."""

    async def tell() -> None:
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            heard.tell()

    telling = asyncio.create_task(tell())
    try:
        yield
    finally:
        telling.cancel()
    heard.tell(done=True)


async def attend(part: Part, press: Press, ready: Callable[[], Awaitable[None]]) -> None:
    """Say that this part is ready, hear when the drop opens, get `ready` for it, and press until all is heard."""
    say({"ready": part.number})
    line = await asyncio.to_thread(sys.stdin.buffer.readline)
    if not line:
        return  # whoever started this is gone
    opening = msgspec.json.decode(line, type=Opening)
    await ready()
    with (
        Heard(part.drop, opening, Path(part.journal)) as heard,
        told_regularly(heard),
        contextlib.suppress(TimeoutError),
    ):
        async with asyncio.timeout(GIVE_UP_S):  # who has no verdict by then has none: the sum says so
            await press(heard)
    await asyncio.to_thread(sys.stdin.buffer.readline)  # what it has cost can be read until it is let go


def read_part() -> Part | None:
    """What this process is asked to be; None when whoever started it is gone."""
    line = sys.stdin.buffer.readline()
    return msgspec.json.decode(line, type=Part) if line else None
