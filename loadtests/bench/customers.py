"""Customers who prepare what is measured next: a given number of them reserves, or confirms, over HTTP, one by one."""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from random import Random
from time import monotonic

from loadtests.bench.table import Failed
from loadtests.bench.tokenfile import Hold, confirm, press
from loadtests.client import Press, Rush
from loadtests.http1 import Answer, Target
from loadtests.tokens import Minter

CONNECTIONS = 256
"""More than are measured with: the batches are larger, and the preparation is over sooner."""
OPEN_TIMEOUT_S = 30.0
GIVE_UP_S = 60.0
AT_ONCE = 20_000
SAID_CHARS = 300


async def reserve(url: str, minter: Minter, drop: str, members: Iterable[int]) -> list[Hold]:
    """Let each of these members take a unit. `Failed` when one does not get it."""
    holds: list[Hold] = []

    def held(member: int, answer: Answer) -> None:
        holds.append(Hold(member, json.loads(answer.body)["id"]))

    await _rush(url, ((member, press(drop, minter.shopper(member))) for member in members), {200, 201}, held)
    return holds


async def confirm_all(url: str, minter: Minter, holds: Iterable[Hold]) -> None:
    """Let each member confirm what they hold. `Failed` when one cannot."""
    wires = ((hold.member, confirm(hold.reservation, minter.shopper(hold.member))) for hold in holds)
    await _rush(url, wires, {200}, lambda _, __: None)


async def _rush(
    url: str, wires: Iterator[tuple[int, bytes]], expected: set[int], note: Callable[[int, Answer], None]
) -> None:
    """Send every request, and again what was lost on the way: who asks again has the same reservation or order."""
    rush = Rush(Target.parse(url), CONNECTIONS, random=Random())  # spreads repeats in time
    odd: list[str] = []

    def judge(one: Press, answer: Answer) -> None:
        if answer.status in expected:
            note(one.member, answer)
        else:
            odd.append(f"member {one.member} was answered {answer.status} {answer.body[:SAID_CHARS]!r}")

    try:
        await rush.open(OPEN_TIMEOUT_S)
        while some := [Press(member, wire) for member, wire in islice(wires, AT_ONCE)]:
            left = await rush.run(some, judge, start_at=monotonic(), give_up_at=monotonic() + GIVE_UP_S)
            if odd or left:
                raise Failed(odd[0] if odd else f"{len(left):,} customers had no answer within {GIVE_UP_S:.0f} s")
    except TimeoutError:
        raise Failed(f"{url} did not accept {CONNECTIONS} connections within {OPEN_TIMEOUT_S:.0f} s") from None
    finally:
        await rush.aclose()
