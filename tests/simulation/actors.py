"""The people of a schedule: members who press, press twice, give up or come back; operators who change the sale."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from flashsale.domain import Claim, Payment
from flashsale.drops import AllocationChange
from tests.simulation.plan import CODES, DROP, MAIN, PRICE, SIDE
from tests.simulation.processes import Answer, Web
from tests.simulation.stores import NOON

if TYPE_CHECKING:
    from tests.simulation.world import World

TRIES_MAX: Final = 8
BACK_OFF_S: Final = 0.8
LOOKS_MAX: Final = 6
LOOK_S: Final = 0.4
HASTY: Final = 200
"""The number of the first of them."""
HASTY_COUNT: Final = 4
HASTY_PRESSES: Final = 60
HASTY_PAUSE_S: Final = 0.04
HASTY_REST_S: Final = 0.5
REPEATABLE: Final = frozenset({0, 503})


def begin_actors(world: "World") -> "asyncio.Future[Any]":
    """Everybody begins; done when all of them have finished."""
    plan, loop = world.plan, world.loop
    members = [Member(world, number + 1).live() for number in range(plan.members)]
    operators = [Operator(world, number + 1).live() for number in range(plan.operators)]
    hasty = [Hasty(world, HASTY + number).live() for number in range(HASTY_COUNT if plan.leased else 0)]
    acting = [loop.spawn(loop.world, life) for life in (*members, *operators, *hasty)]

    async def all_of_them() -> None:
        for task in acting:
            await task

    for task in acting:
        task.add_done_callback(world.watch)
    return loop.spawn(loop.world, all_of_them())


class Member:
    """A member, with a mind drawn from the seed."""

    def __init__(self, world: "World", number: int) -> None:
        self._world = world
        self._number = number
        self._dice = random.Random(f"member {world.seed} {number}")
        self._tier = self._dice.choice((0, 2, 3))

    async def live(self) -> None:
        """A few wishes, one after the other, or several at once."""
        world, dice = self._world, self._dice
        await world.loop.pause(dice.random() ** 2 * world.plan.storm_s * 0.7)
        for number in range(dice.randint(1, 3)):
            if number and not world.stormy:
                return
            claim = self.claim()
            if dice.random() < 0.25:  # a double press, from two tabs
                second = world.loop.spawn(world.loop.world, self._want(claim))
                second.add_done_callback(world.watch)
                await self._want(claim)
                await second
            else:
                await self._want(claim)
            await world.loop.pause(dice.random() * 1.5)

    def claim(self) -> Claim:
        """What this member wants; a key always stands for the same."""
        dice, plan = self._dice, self._world.plan
        key = f"k{dice.randint(1, 2)}" if dice.random() < 0.6 else None
        if key is not None and dice.random() < 0.85:
            dice = random.Random(f"claim {self._world.seed} {self._number} {key}")
        names = [a.id for a in plan.drop.allocations if a.id != CODES]
        where = dice.choice((*names, MAIN, None))
        quantity = 2 if plan.drop.per_member > 1 and dice.random() < 0.2 else 1
        code = None
        codes = self._world.checker.codes
        if codes and dice.random() < 0.4:
            mine = [c for c in codes if c.owner in {None, self._number}] or codes
            code, quantity, where = dice.choice(mine if dice.random() < 0.9 else codes).number, 1, None
        return Claim(self._number, where, quantity, key, self._tier, code)

    async def _want(self, claim: Claim) -> None:
        """Press until there is an answer; then confirm, cancel, or let it lapse."""
        world, dice = self._world, self._dice
        answer = await press(world, claim, dice)
        if answer.status not in {200, 201} or answer.id is None or answer.state != "held":
            return
        chance = dice.random()
        if chance < 0.25:
            return
        await world.loop.pause(dice.random() ** 2 * world.plan.drop.hold_seconds * 1.3)
        if chance < 0.7:
            await confirm(world, answer.id, self._number, dice)
        else:
            await cancel(world, answer.id, dice)
            if dice.random() < 0.2:
                await confirm(world, answer.id, self._number, dice)


class Hasty(Member):
    """One of those who press all the time, without a key, and again when they have one; only where there are leases.

    What they get they give back soon, so that units come and go.
    """

    async def live(self) -> None:
        world, dice = self._world, self._dice
        await world.loop.pause(dice.random() * world.plan.storm_s * 0.4)
        for _ in range(HASTY_PRESSES):
            if not world.stormy:
                return
            claim = Claim(self._number, dice.choice((MAIN, None)), 1, None, self._tier)
            answer = await self._once(claim)
            if answer.status in {200, 201} and answer.id is not None and answer.state == "held":
                for _ in range(2):
                    await self._once(claim)
                if dice.random() < 0.5:
                    await world.loop.pause(dice.random() * HASTY_REST_S)
                    await cancel(world, answer.id, dice)
            await world.loop.pause(dice.random() * (HASTY_REST_S if dice.random() < 0.1 else HASTY_PAUSE_S))

    async def _once(self, claim: Claim) -> Answer:
        """A press through some process, answered or not."""
        world, web = self._world, self._dice.choice(self._world.webs)
        seen = world.checker.before_press(claim)
        answer = await world.request(web, ("press", claim), lambda: web.press(DROP, claim))
        world.checker.after_press(claim, answer, seen)
        return answer


async def repeated(world: "World", dice: random.Random, once: Callable[[Web], Coroutine[Any, Any, Answer]]) -> Answer:
    """Ask some process, and ask again while the answer is that none could be given."""
    answer = Answer(0)
    for attempt in range(TRIES_MAX):
        answer = await once(dice.choice(world.webs))
        if answer.status not in REPEATABLE or (world.stormy and dice.random() < 0.1):
            break
        await world.loop.pause(BACK_OFF_S * (0.2 + dice.random()) * min(attempt + 1, 4))
    return answer


async def press(world: "World", claim: Claim, dice: random.Random) -> Answer:
    """Press the button, with the same claim until it is answered."""

    async def once(web: Web) -> Answer:
        seen = world.checker.before_press(claim)
        answer = await world.request(web, ("press", claim), lambda: web.press(DROP, claim))
        world.checker.after_press(claim, answer, seen)
        return answer

    return await repeated(world, dice, once)


async def confirm(world: "World", reservation: str, member: int, dice: random.Random) -> None:
    """Confirm a hold, or pay for it."""
    checker = world.checker
    paid = None
    if world.plan.pays:
        row = world.ledger.model.tables.reservations[reservation]
        wrong = dice.random() < 0.1
        amount = PRICE.amount * row.quantity + (1 if wrong else 0)
        name = f"p-{reservation}" if dice.random() < 0.8 else f"p-{reservation}-{dice.randint(1, 2)}"
        paid = Payment(name, amount, PRICE.currency)
    checker.wants("confirmed", reservation)

    async def once(web: Web) -> Answer:
        answer = await world.request(
            web, ("confirm", reservation, paid), lambda: web.confirm(reservation, member, paid)
        )
        checker.after_confirm(reservation, answer, paid)
        return answer

    await repeated(world, dice, once)
    if dice.random() < 0.2:  # a second press, from another tab
        await repeated(world, dice, once)


async def cancel(world: "World", reservation: str, dice: random.Random) -> None:
    """Cancel a hold."""
    world.checker.wants("cancelled", reservation)

    async def once(web: Web) -> Answer:
        answer = await world.request(web, ("cancel", reservation), lambda: web.cancel(reservation))
        world.checker.after_cancel(reservation, answer)
        return answer

    await repeated(world, dice, once)


class Operator:
    """Somebody who cannot leave the sale alone."""

    def __init__(self, world: "World", number: int) -> None:
        self._world = world
        self._name = f"operator{number}"
        self._dice = random.Random(f"operator {world.seed} {number}")

    async def live(self) -> None:
        """A few acts; a sale that was paused is resumed, also after the storm."""
        world, dice = self._world, self._dice
        acts = [self._pause, self._resize, self._move_window, self._take_back, self._take_back, self._revoke]
        for _ in range(dice.randint(1, 3)):
            await world.loop.pause(dice.random() * world.plan.storm_s / 2)
            if not world.stormy:
                return
            await dice.choice(acts)()
        if dice.random() < 0.04:
            await self._do("close", lambda web: web.operations.switch(DROP, "close", actor=self._name))

    async def _do(self, what: str, make: Callable[[Web], Coroutine[Any, Any, Any]], *, once_for: str = "") -> bool:
        """One act, repeated until it is known to be done or refused. `once_for`: doing it twice for this is one act."""
        world, dice = self._world, self._dice

        async def once(web: Web) -> Answer:
            async def act() -> Answer:
                await make(web)
                return Answer(200)

            return await world.request(web, (self._name, what), act)

        for _ in range(40):
            answer = await once(dice.choice(world.webs))
            if answer.status not in REPEATABLE:
                world.checker.acted(answer, once_for)
                return answer.status == 200
            await world.loop.pause(BACK_OFF_S * dice.random())
        return False

    async def _pause(self) -> None:
        done = await self._do("pause", lambda web: web.operations.switch(DROP, "pause", actor=self._name))
        if done:
            await self._world.loop.pause(self._dice.random() * 1.5)
        await self._do("resume", lambda web: web.operations.switch(DROP, "resume", actor=self._name))

    async def _resize(self) -> None:
        tables = self._world.ledger.model.tables
        name = self._dice.choice([a.id for a in tables.allocations.values()])
        now = tables.allocations[DROP, name].quantity
        change = AllocationChange(quantity=max(0, now + self._dice.choice((-1, 1, 1, 2))))
        await self._change(name, change)

    async def _move_window(self) -> None:
        """A little later, or earlier: never beyond the storm."""
        name = self._dice.choice([a.id for a in self._world.plan.drop.allocations])
        at_s = self._dice.uniform(-10.0, self._world.plan.storm_s)
        await self._change(name, AllocationChange(opens_at=NOON + timedelta(seconds=at_s)))

    async def _change(self, name: str, change: AllocationChange) -> None:
        await self._do(
            f"change {name} {change}",
            lambda web: web.operations.change_allocation(DROP, name, change, actor=self._name),
        )

    async def _take_back(self) -> None:
        """A confirmed reservation comes back."""
        world, dice = self._world, self._dice
        found: list[str] = []
        for _ in range(LOOKS_MAX):
            found = [r.id for r in world.ledger.model.tables.reservations.values() if r.state.value == "confirmed"]
            if found:
                break
            await world.loop.pause(LOOK_S)
        if not found or not world.stormy:
            return
        which, restock = dice.choice(found), dice.random() < 0.8
        to = dice.choice((None, None, MAIN, SIDE)) if restock else None
        world.checker.wants("returned", which)
        await self._do(
            f"takes back {which} to {to} restock {restock}",
            lambda web: web.operations.take_back(which, restock=restock, to=to, reason="", actor=self._name),
            once_for=which,
        )

    async def _revoke(self) -> None:
        """One code, or a whole batch; its unit may go to everybody."""
        checker, dice = self._world.checker, self._dice
        if not checker.codes:
            return
        code = dice.choice(checker.codes).number
        serials = [code & 0x3FFFFF] if dice.random() < 0.7 else None
        to = dice.choice((None, MAIN))
        await self._do(
            f"revokes {code} {serials} to {to}",
            lambda web: web.batches.revoke(code >> 22, serials=serials, to=to, reason="", actor=self._name),
        )
