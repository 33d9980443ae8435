"""A part of the noon rush that presses over HTTP: `outstanding` connections, a press at a time on each.

What is pressed is written before the opening, tokens and all, as browsers have their page loaded by then; over a tenth
of the noon rush that is some 500 bytes a member. The others of the crowd stand in front of the door, in their order.
"""

import asyncio
import contextlib
import json
import time
from random import Random

import uvloop

from loadtests.api import unix_s
from loadtests.client import Press, Rush
from loadtests.http1 import Answer, Target, post_bytes
from loadtests.part import ALLOCATION, GIVE_UP_S, NOT_OPEN, WINS, Heard, Part, attend, order, read_part
from loadtests.sale import REPEAT_AFTER_S, REPEATED_STATUSES, read_verdict
from loadtests.tokens import Minter

CONNECT_TIMEOUT_S = 60.0
TOKENS_LIVE_S = 4 * 3600
EARLY = 16
EARLY_EVERY_S = 0.1


def presses_of(part: Part) -> list[Press]:
    """A press of each member, in their order."""
    target = Target.parse(part.url)
    minter = Minter(part.secret, expires_at=int(time.time()) + TOKENS_LIVE_S)
    path, body = f"/v1/drops/{part.drop}/reservations", json.dumps({"allocation": ALLOCATION}).encode()
    return [Press(member, post_bytes(target, path, token=minter.shopper(member), body=body)) for member in order(part)]


class Shoppers:
    """The members of one part, with their connections."""

    def __init__(self, presses: list[Press], rush: Rush) -> None:
        self._presses = presses
        self._rush = rush

    async def press(self, heard: Heard) -> None:
        """The first few cannot wait for the opening; then everybody presses."""
        early = self._presses[:EARLY]
        while time.monotonic() + EARLY_EVERY_S < heard.opens_at and early:
            early = await self._press_early(heard, early)
            await asyncio.sleep(EARLY_EVERY_S)
        presses = [*early, *self._presses[EARLY:]]
        self._rush.on_lost = lambda _press: heard.repeat("a lost connection", 1)
        await self._rush.run(
            presses,
            lambda press, answer: _judge(heard, press, answer),
            start_at=heard.opens_at,
            give_up_at=time.monotonic() + GIVE_UP_S,
        )

    async def _press_early(self, heard: Heard, early: list[Press]) -> list[Press]:
        """Who has to press again."""
        again: list[Press] = []

        def judge(press: Press, answer: Answer) -> None:
            if _judge(heard, press, answer) is not None:
                again.append(press)

        now = time.monotonic()
        return again + await self._rush.run(early, judge, start_at=now, give_up_at=heard.opens_at)


def _judge(heard: Heard, press: Press, answer: Answer) -> float | None:
    """Note an answer; how long to wait, seconds, when the press must be repeated."""
    word, document = read_verdict(answer)
    if word == NOT_OPEN:
        heard.not_open(press.member, sent_at=press.sent_at, at=answer.at)
    elif answer.status in REPEATED_STATUSES:
        heard.repeat(word, 1)
    elif word in WINS:
        try:
            held, ends_s = str(document["id"]), unix_s(document["expires_at"])
        except (KeyError, TypeError, ValueError):
            heard.fault(f"a malformed {answer.status}", 1)
            return None
        heard.won(press.member, word, held, ends_s, sent_at=press.sent_at, at=answer.at)
        return None
    else:
        heard.refused(word, 1, press.member, sent_at=press.sent_at, at=answer.at)
        return None
    return REPEAT_AFTER_S if answer.retry_after_s is None else answer.retry_after_s


async def run(part: Part) -> None:
    """Be this part of the crowd."""
    presses = presses_of(part)
    rush = Rush(Target.parse(part.url), min(part.outstanding, len(presses)), random=Random(part.seed))
    async with contextlib.aclosing(rush):
        await rush.open(CONNECT_TIMEOUT_S)

        async def ready() -> None:
            await rush.open(CONNECT_TIMEOUT_S)

        await attend(part, Shoppers(presses, rush).press, ready)


if __name__ == "__main__":
    if (asked := read_part()) is not None:
        uvloop.run(run(asked))
