"""The shop's end of the webhooks: it takes orders, now and then badly, and remembers every one that it took."""

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Final

from flashsale.domain import OrderState
from flashsale.endpoint import Delivered, Failed
from flashsale.errors import Unavailable

if TYPE_CHECKING:
    from tests.simulation.world import World

SLOW_S: Final = 2.0
HELP_PAUSE_S: Final = 0.3


class Shop:
    """`mood`: well, down (refuses), slow, lies (takes the order, and its answer is lost), gone (410)."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.mood = "well"
        self.taken: dict[str, bytes] = {}
        self.times: Counter[str] = Counter()

    async def receive(self, message_id: str, body: bytes) -> Delivered | Failed:
        """One message."""
        world, mood = self._world, self.mood
        draw = world.faults.random
        await world.loop.pause(0.01 * draw() + (SLOW_S * draw() if mood == "slow" else 0.0))
        if mood == "down":
            return Failed("connection refused")
        if mood == "gone":
            return Failed("410", gone=True)
        if self.taken.setdefault(message_id, body) != body:
            world.bad("I13", f"order {message_id} came with another body than before")
        self.times[message_id] += 1
        world.count("deliveries")
        if mood == "lies" and draw() < 0.7:
            return Failed("no answer within 10 s")
        return Delivered(200)

    async def help(self) -> None:
        """After the storm an operator replays what was given up, which opens an endpoint that was disabled, too."""
        world = self._world
        tables = world.ledger.model.tables
        while True:
            waiting = [o.id for o in tables.orders.values() if o.state is OrderState.DEAD]
            if tables.disabled:
                waiting += [o.id for o in tables.orders.values() if o.state is OrderState.QUEUED]
            for order in waiting[:1]:
                with contextlib.suppress(Unavailable):
                    await world.webs[0].ledger.orders.replay(order, actor="operator")
            await world.loop.pause(HELP_PAUSE_S)
