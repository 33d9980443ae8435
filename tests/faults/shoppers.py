"""The crowd: shoppers who arrive at a fixed rate, whatever the answers, and behave as shoppers do.

Who arrives, what they want and what they do with it comes out of the seed; when it happens is real time's business.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple

from tests.faults.client import OPERATOR, Answer, Asked, Client, never
from tests.faults.journal import CallName, Line
from tests.faults.pace import lasts
from tests.faults.sales import Sale, SoldCode

PATIENCE_S: Final = 20.0
RETRY_AFTER_MAX_S: Final = 90.0
"""Nothing opens later than that, and nothing is away for so long."""
EARLY_S: Final = 0.3
"""Some press before the opening."""
ANSWERED: Final = frozenset({200, 201, 403, 409, 410, 422, 429, 503, 0})
ACTS_EVERY_S: Final = 2.5
PAUSED_MAX_S: Final = 1.5


class _Press(NamedTuple):
    member: int
    key: str | None
    allocation: str | None
    quantity: int
    code: SoldCode | None


class Crowd:
    """All shoppers of a round, and the operators. `odd` counts answers that nobody should hear.

    `opening` is called just before each drop opens.
    """

    def __init__(
        self, client: Client, sales: list[Sale], random: Random, opening: Callable[[], None] = lambda: None
    ) -> None:
        self._opening = opening
        self._to_open = sorted(sale.opens_at for sale in sales)
        self._client = client
        self._sales = sales
        self._random = random
        self._keys = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = True
        self.arrived = 0
        self.odd: Counter[str] = Counter()

    async def arrive(self, rate: float) -> None:
        """Let shoppers in until the doors close: `rate` a second, whatever becomes of them."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while self._open:
            while self._to_open and self._to_open[0] <= time.time() + EARLY_S:
                self._to_open.pop(0)
                self._opening()
            due = int((loop.time() - began) * rate) + 1
            while self.arrived < due:
                self.arrived += 1
                self._start()
            await lasts(began + due / rate - loop.time())

    def close_doors(self) -> None:
        """Nobody else comes in; who is inside finishes."""
        self._open = False

    async def leave(self, within_s: float) -> int:
        """Wait until all have left, at most `within_s`; how many were still inside then, and are sent away."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)
        left = [task for task in self._tasks if not task.done()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return len(left)

    @property
    def inside(self) -> int:
        """How many shoppers are under way."""
        return len(self._tasks)

    def _start(self) -> None:
        task = asyncio.create_task(self._shop(self._choose(), Random(self._random.getrandbits(64))))
        self._tasks.add(task)
        task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.odd[repr(task.exception())] += 1

    def _choose(self) -> Sale:
        """The drop that somebody comes for: the large one, the one that opened last, or one that may have a unit."""
        now = time.time() + EARLY_S
        small = [sale for sale in self._sales if not sale.large and sale.opens_at <= now]
        if not small or self._random.random() < 0.35:
            return self._sales[0]
        return small[-1] if self._random.random() < 0.6 else self._random.choice(small)

    def _press_of(self, sale: Sale, random: Random) -> _Press:
        first, count = sale.members
        code = random.choice(sale.codes) if sale.codes and random.random() < 0.25 else None
        quantity = 2 if code is None and sale.per_member == 2 and random.random() < 0.3 else 1
        allocation = None
        if code is None and random.random() < 0.3:
            allocation = random.choice([name for name in sale.units if name != sale.lane])
        key = f"k{next(self._keys)}" if random.random() < 0.75 else None
        return _Press(first + random.randrange(count), key, allocation, quantity, code)

    async def _shop(self, sale: Sale, random: Random) -> None:
        press = self._press_of(sale, random)
        asked = self._reserve(sale, press)

        def again(answer: Answer) -> bool:
            return answer.code == "not_open"

        tries = [self._client.until_answered(asked, PATIENCE_S, also=again)]
        if random.random() < 0.06:  # from two connections at once, with the same key, another one, or none
            other = press._replace(key=random.choice([press.key, f"k{next(self._keys)}", None]))
            tries.append(self._client.until_answered(self._reserve(sale, other), PATIENCE_S, also=again))
        answers = await asyncio.gather(*tries)
        for answer in answers:
            self._look(answer, sale, "reserve")
        held = {str(a.document["id"]): a for a in answers if a.status in {200, 201}}
        for answer in held.values():
            await self._decide(sale, press.member, answer, random)
        if not held and answers[0].code == "sold_out" and random.random() < 0.3:
            await lasts(random.uniform(0.5, 3.0))  # perhaps somebody gave one back
            self._look(await self._client.until_answered(asked, PATIENCE_S, also=again), sale, "reserve")

    async def _decide(self, sale: Sale, member: int, answer: Answer, random: Random) -> None:
        """What becomes of a hold: an order, a cancellation, or nothing."""
        reservation = str(answer.document["id"])
        what = random.random()
        if what < 0.45:
            await lasts(random.uniform(0.0, 2.0))
            await self._ask(sale, member, reservation, "confirm")
            if random.random() < 0.2:
                await self._ask(sale, member, reservation, random.choice(["confirm", "cancel", "get"]))
        elif what < 0.70:
            await lasts(random.uniform(0.0, 2.0))
            await self._ask(sale, member, reservation, "cancel")
            if random.random() < 0.2:
                await self._ask(sale, member, reservation, random.choice(["confirm", "cancel", "get"]))
        elif what < 0.75:  # in the last moment, or just after it
            await lasts(max(0.0, sale.hold_s + random.uniform(-0.2, 0.1)))
            await self._ask(sale, member, reservation, "confirm")

    async def _ask(self, sale: Sale, member: int, reservation: str, call: CallName) -> None:
        method = {"confirm": "POST", "cancel": "DELETE"}.get(call, "GET")
        path = f"/v1/reservations/{reservation}" + ("/confirm" if call == "confirm" else "")
        line = Line(call=call, drop=sale.drop, sent_at=0, member=member, reservation=reservation, status=0)
        answer = await self._client.until_answered(Asked(line, method, path), PATIENCE_S, also=never)
        self._look(answer, sale, call)

    def _look(self, answer: Answer, sale: Sale, call: CallName) -> None:
        """Answers that the contract does not have for such a call are odd."""
        if (answer.retry_after_s or 0.0) > RETRY_AFTER_MAX_S:
            self.odd[f"{call} of {sale.drop}: come again in {answer.retry_after_s:.0f} s"] += 1
        fine = answer.status in ANSWERED and answer.code not in {"not_found", "invalid_request", "forbidden"}
        if not fine or (call != "reserve" and answer.status in {403, 410, 422, 429}):
            self.odd[f"{call} of {sale.drop}: {answer.status} {answer.code}"] += 1

    @staticmethod
    def _reserve(sale: Sale, press: _Press) -> Asked:
        body: dict[str, object] = {}
        if press.allocation is not None:
            body["allocation"] = press.allocation
        if press.quantity != 1:
            body["quantity"] = press.quantity
        if press.code is not None:
            body["fcode"] = press.code.text
        line = Line(
            call="reserve",
            drop=sale.drop,
            sent_at=0,
            member=press.member,
            key=press.key,
            allocation=press.allocation,
            quantity=press.quantity,
            fcode=None if press.code is None else press.code.number,
            status=0,
        )
        return Asked(line, "POST", f"/v1/drops/{sale.drop}/reservations", body)

    async def operate(self) -> None:
        """Operators act on drops that run, until the doors close; nothing stays paused."""
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        while self._open:
            next_at += ACTS_EVERY_S * self._random.uniform(0.5, 1.5)
            await lasts(next_at - loop.time())
            running = [sale for sale in self._sales if not sale.large and sale.opens_at <= time.time()]
            if running and self._open:
                await self._act(self._random.choice(running))

    async def _act(self, sale: Sale) -> None:
        what = self._random.choice(["pause", "pause", "resize", "resize", "revoke"])
        if what == "pause":
            await self._operator(sale, "pause", "POST", f"/v1/ops/drops/{sale.drop}/pause")
            await lasts(self._random.uniform(0.1, PAUSED_MAX_S))
            await self._operator(sale, "resume", "POST", f"/v1/ops/drops/{sale.drop}/resume")
        elif what == "resize":
            quantity = max(1, sale.units["main"] + self._random.randint(-8, 12))
            path = f"/v1/ops/drops/{sale.drop}/allocations/main"
            more = {"quantity": quantity, "allocation": "main"}
            answer = await self._operator(sale, "resize", "PATCH", path, {"quantity": quantity}, **more)
            if answer.status == 200:
                sale.units["main"] = quantity
        elif sale.codes:
            code = self._random.choice(sale.codes)
            body: dict[str, object] = {"serials": [code.number % (1 << 22)], "reason": "lost in the post"}
            path = f"/v1/ops/fcodes/{sale.batch}/revoke"
            await self._operator(sale, "revoke", "POST", path, body, fcode=code.number)

    async def _operator(
        self,
        sale: Sale,
        call: CallName,
        method: str,
        path: str,
        body: dict[str, object] | None = None,
        **more: object,
    ) -> Answer:
        """An operator's act, repeated until it is known what became of it."""
        line = Line(call=call, drop=sale.drop, sent_at=0, actor=f"member:{OPERATOR}", status=0, **more)  # type: ignore[arg-type]
        while True:
            answer = await self._client.until_answered(Asked(line, method, path, body), PATIENCE_S, also=never)
            if not answer.worth_repeating:
                break
        if answer.status not in {200, 409}:
            self.odd[f"{call} of {sale.drop}: {answer.status} {answer.code}"] += 1
        return answer


async def last_call(client: Client, sale: Sale, available: dict[str, int]) -> list[str]:
    """Fresh members take what is left, after everything has settled; what they did not get, in words.

    Holds that lapse meanwhile only add to what there is. Only what everybody may buy.
    """
    members = itertools.count(sale.members[0] + 5_000)
    missing = []
    for allocation, left in available.items():
        if allocation == sale.lane:
            continue
        units = min(left, 40)
        asked = []
        for member in itertools.islice(members, units):
            line = Line(
                call="reserve",
                drop=sale.drop,
                sent_at=0,
                member=member,
                key=f"last-{member}",
                allocation=allocation,
                quantity=1,
                status=0,
            )
            asked.append(Asked(line, "POST", f"/v1/drops/{sale.drop}/reservations", {"allocation": allocation}))
        answers = await asyncio.gather(*(client.until_answered(each, PATIENCE_S, also=never) for each in asked))
        granted = sum(answer.status in {200, 201} for answer in answers)
        if granted < units:
            missing.append(f"{sale.drop}/{allocation}: {units} were free, {granted} could be bought")
    return missing
