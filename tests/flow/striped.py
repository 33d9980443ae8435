"""Several processes that sell a striped drop, and a crowd that comes to all of them at once."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from flashsale.domain import Claim, Drop, Refusal
from flashsale.errors import Unavailable
from flashsale.gate import Unarmed
from tests.support import Node

STRIPES = 4
UNITS = 40
BUYERS = 500
PROCESSES = 3


async def rush(nodes: Sequence[Node], drop: Drop, presses: Sequence[Claim]) -> Counter[str]:
    """All press at once, through all processes; what they hear. Who is told to repeat does."""
    for each in nodes:
        await each.catalog.reload(drop.id)

    async def one(number: int, wanted: Claim) -> str:
        while True:
            try:
                answer = await nodes[number % len(nodes)].reservations.reserve(drop.id, wanted)
            except Unavailable:
                continue
            return answer.verdict.value if isinstance(answer, Refusal) else type(answer).__name__

    return Counter(await asyncio.gather(*(one(number, wanted) for number, wanted in enumerate(presses))))


async def units(node: Node, drop: Drop) -> list[int]:
    """What each stripe has left."""
    found = []
    for stripe in range(drop.stripes):
        status = await node.gate.status(drop, 0, stripe=stripe)
        assert not isinstance(status, Unarmed)
        found.append(sum(status.available.values()))
    return found
