"""Scratch."""
import asyncio
from collections import Counter

from flashsale.domain import Refusal
from flashsale.reservations import Held
from tests.support import Node, allocation, claim, make_drop


async def test_x(node: Node) -> None:
    drop = await node.operations.create(make_drop(allocation(quantity=50), stripes=4), actor="member:1", detail={})
    heard = Counter()
    async def press(m):
        a = await node.reservations.reserve(drop.id, claim(m))
        heard[a.verdict.value if isinstance(a, Refusal) else type(a).__name__] += 1
    await asyncio.gather(*(press(m) for m in range(1, 301)))
    print(heard)
    print(await node.operations.balance(drop.id))
    assert heard == {"Held": 50, "sold_out": 250}
