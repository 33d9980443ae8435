"""A part of the noon rush that presses without HTTP: on the product's own reservation path, in a process of its own.

The only module of the load tests that knows the product from inside. It puts the parts of a web process together as
`flashsale serve` does, with the settings that are shipped, and its members press where the web's handler would:
`Reservations.reserve_together`, which sends them the way of every press, to the gate and, if granted, to the ledger.

All press at the opening; at most `outstanding` of them at a time are inside, the others are the crowd before the door.
Nobody has a task or a future of their own: a few pressers take the next `group` of members each time they have the
verdicts of the group before, and what a member leaves behind is a count. So memory does not grow with the crowd.
"""

import asyncio
import time
from collections.abc import Sequence

import uvloop

from flashsale import log
from flashsale.domain import Claim, Refusal, Verdict
from flashsale.errors import Unavailable
from flashsale.reservations import Held, Known, Outcome
from flashsale.settings import Settings
from flashsale.web.app import make_context
from flashsale.web.context import Context
from loadtests.part import ALLOCATION, Heard, Part, attend, order, read_part

TICK_S = 1.0
EARLY = 16
EARLY_EVERY_S = 0.1
REPEAT_AFTER_S = 0.5


class Crowd:
    """The members of one part, and how far they are."""

    def __init__(self, part: Part, context: Context) -> None:
        self._part = part
        self._reservations = context.reservations
        self._members = order(part)
        self._next = 0

    async def press(self, heard: Heard) -> None:
        """The first few cannot wait for the opening; then everybody presses."""
        early = self._take(min(EARLY, self._part.group))
        while time.monotonic() < heard.opens_at and early:
            early = await self._press(heard, early)
            await asyncio.sleep(max(0.0, min(EARLY_EVERY_S, heard.opens_at - time.monotonic())))
        pressers = max(1, self._part.outstanding // self._part.group)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._presser(heard, early))
            for _ in range(pressers - 1):
                group.create_task(self._presser(heard, ()))

    def _take(self, count: int) -> Sequence[int]:
        """The next members in order, at most so many; none when all have pressed."""
        first = self._next
        self._next = first + count
        return self._members[first : self._next]

    async def _presser(self, heard: Heard, members: Sequence[int]) -> None:
        while members := members or self._take(self._part.group):
            members = await self._press(heard, members)

    async def _press(self, heard: Heard, members: Sequence[int]) -> Sequence[int]:
        """These press together; returns who must press again."""
        claims = [Claim(member, ALLOCATION, 1, None, 0) for member in members]
        sent_at = time.monotonic()
        answers: list[Outcome | Exception | None] = [None] * len(claims)
        await self._reservations.reserve_together(self._part.drop, claims, answers.__setitem__)
        again = _note(heard, members, answers, sent_at)
        if any(isinstance(answer, Exception) for answer in answers):
            await asyncio.sleep(REPEAT_AFTER_S)
        return again


def _note(
    heard: Heard, members: Sequence[int], answers: Sequence[Outcome | Exception | None], sent_at: float
) -> Sequence[int]:
    """Count the answers of a group; returns who must press again: who came too early, or heard that it is safe."""
    at = time.monotonic()
    first = answers[0]
    if isinstance(first, Refusal) and first.verdict is not Verdict.NOT_OPEN and answers.count(first) == len(answers):
        heard.refused(first.verdict.value, len(answers), members[0], sent_at=sent_at, at=at)
        return ()
    again = []
    for member, answer in zip(members, answers, strict=True):
        match answer:
            case Held(grant=grant, expires_at=expires_at):
                heard.won(member, "held", grant.id, expires_at.timestamp(), sent_at=sent_at, at=at)
            case Known(reservation=found):
                heard.won(member, "again", found.id, found.expires_at.timestamp(), sent_at=sent_at, at=at)
            case Refusal(verdict=Verdict.NOT_OPEN):
                heard.not_open(member, sent_at=sent_at, at=at)
                again.append(member)
            case Refusal(verdict=verdict):
                heard.refused(verdict.value, 1, member, sent_at=sent_at, at=at)
            case Unavailable():
                heard.repeat(type(answer).__name__, 1)
                again.append(member)
            case _:  # counted, and the audit's line of it is not true
                heard.fault(f"{type(answer).__name__}: {answer}", 1)
    return again


async def run(part: Part) -> None:
    """Be this part of the crowd."""
    settings = Settings(redis_url=part.redis_url, database_url=part.database_url, jwt_secret=part.secret)
    log.configure(settings.log_format)
    tally = log.Tally(settings.log_format)
    context = await make_context(settings, jwks=None, tally=tally)

    async def ready() -> None:
        if await context.catalog.get(part.drop) is None:
            raise LookupError(f"there is no drop {part.drop}")

    async def tick() -> None:
        """What a web process does each second."""
        while True:
            await asyncio.sleep(TICK_S)
            tally.flush()
            await context.catalog.refresh()

    ticking = asyncio.create_task(tick())
    try:
        await attend(part, Crowd(part, context).press, ready)
    finally:
        ticking.cancel()
        await context.reservations.drain()
        await context.gate.aclose()
        await context.ledger.aclose()


if __name__ == "__main__":
    if (asked := read_part()) is not None:
        uvloop.run(run(asked))
