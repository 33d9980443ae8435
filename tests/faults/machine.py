"""One round: a sale under strikes, then rest, then the audit. And all rounds of a run, stage by stage."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Final

import aiohttp
import msgspec

from flashsale.supervise import Program
from tests.faults import audit, sales, shoppers
from tests.faults.client import CLIENT_TIMEOUT_S, Client
from tests.faults.hit import Hit
from tests.faults.journal import LOST, Journal, Line
from tests.faults.pace import lasts
from tests.faults.rest import look, until_at_rest
from tests.faults.schedule import Planned, Round
from tests.faults.world import SECRET, World

STAY_OPEN_S: Final = 2.0
"""So long after the last strike shoppers still come: is anybody served again?"""
LEAVE_S: Final = 45.0
STRIKE_MAX_S: Final = 120.0
IN_THE_WAY: Final = frozenset({"gate", "ledger", "web", "door"})
"""Lanes whose faults keep shoppers from being served."""
LENGTH_GUESS_S: Final = 6.0
"""What a strike and the pause before it take, about: so many drops are put on sale."""


class Outcome(msgspec.Struct, kw_only=True):
    """What came of a round."""

    name: str
    hits: list[Hit] = []
    calls: Counter[str] = Counter()
    acknowledged: int = 0
    settle_s: float | None = None
    findings: list[audit.Finding] = []
    audited: int = 0
    seconds: float = 0.0

    @property
    def true(self) -> bool:
        """Whether nothing was found that contradicts the promise."""
        return not self.findings


class Machine:
    """Runs rounds on one world. `settle_s`: within how many seconds everything must be settled after the last fault.

    `say` hears of each strike, as they happen.
    """

    def __init__(
        self,
        world: World,
        auditor: Program,
        *,
        seed: int,
        rate: float,
        settle_s: float,
        say: Callable[[str], None],
    ) -> None:
        self._world = world
        self._auditor = auditor
        self._seed = seed
        self._rate = rate
        self._settle_s = settle_s
        self._say = say

    async def round(self, name: str, strikes: Round) -> Outcome:
        """A sale with these strikes, rest, last call, audit."""
        began = time.monotonic()
        random = Random(f"{self._seed} {name} shoppers")
        outcome = Outcome(name=name)
        lengths = (sum(LENGTH_GUESS_S for _ in lane) for lane in strikes.values())
        async with self._client(name, random) as (client, journal):
            opened = await sales.set_up(client, sales.round_of(random, name, max(lengths, default=LENGTH_GUESS_S)))
            crowd = shoppers.Crowd(client, opened, random, lambda: self._world.moments.fire("opening"))
            closing: asyncio.TimerHandle | None = None
            arriving = [asyncio.create_task(crowd.arrive(self._rate)), asyncio.create_task(crowd.operate())]
            try:
                lanes = (self._lane(lane, opened, outcome) for lane in strikes.values())
                await asyncio.gather(*lanes)
                closing = asyncio.get_running_loop().call_later(STAY_OPEN_S, crowd.close_doors)
                outcome.settle_s = await self._rest(opened, outcome)  # while the last come, and finish
                await asyncio.gather(*arriving)
                left = await crowd.leave(LEAVE_S)
                if left:
                    outcome.findings.append(audit.Finding("I16", f"{left} shoppers got no answer in {LEAVE_S:g} s"))
                await self._rest(opened, outcome)
                await self._last_call(client, opened, outcome)
                for odd, times in crowd.odd.items():
                    outcome.findings.append(audit.Finding("contract", f"{times} times: {odd}"))
            finally:
                if closing is not None:
                    closing.cancel()
                for task in arriving:
                    task.cancel()
                await crowd.leave(0)
            journal.flush()
            _count(outcome, journal.lines)
            names = [sale.drop for sale in opened]
            outcome.findings += await audit.drops(
                self._world, self._auditor, names, journal.path, settle_s=self._settle_s
            )
            outcome.audited = len(names)
            await self._over(names)
        outcome.seconds = time.monotonic() - began
        return outcome

    @contextlib.asynccontextmanager
    async def _client(self, name: str, random: Random) -> AsyncIterator[tuple[Client, Journal]]:
        journal = Journal(self._world.home / f"{name}.jsonl")
        self._world.use(journal)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        timeout = aiohttp.ClientTimeout(total=CLIENT_TIMEOUT_S)
        try:
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                yield Client(session, self._world.url, SECRET, journal, random), journal
        finally:
            self._world.use(None)
            journal.close()

    async def _lane(self, planned: list[Planned], opened: list[sales.Sale], outcome: Outcome) -> None:
        for strike in planned:
            await lasts(strike.after_s)
            hit = Hit(strike.kind, self._world, opened, Random(strike.seed))
            outcome.hits.append(hit)
            try:
                async with asyncio.timeout(STRIKE_MAX_S):
                    await strike.kind.strike(hit)
            except (Exception, TimeoutError) as error:  # noqa: BLE001 -- the others go on, and it is told
                outcome.findings.append(audit.Finding("machine", f"{strike.kind.name}: {error!r}"))
            hit.struck()
            hit.healed()
            self._say(_told(hit))

    async def _rest(self, opened: list[sales.Sale], outcome: Outcome) -> float:
        """Wait for rest; how long it took, seconds."""
        took_s, found = await until_at_rest(self._world, opened, self._settle_s)
        if found.astir:
            outcome.findings.append(audit.Finding("I16", f"after {took_s:.1f} s: {'; '.join(found.astir[:5])}"))
        return took_s

    async def _last_call(self, client: Client, opened: list[sales.Sale], outcome: Outcome) -> None:
        """Whatever is left can be bought (I4)."""
        available = (await look(self._world, opened)).available
        for sale in opened:
            if not sale.large:
                for missing in await shoppers.last_call(client, sale, available.get(sale.drop, {})):
                    outcome.findings.append(audit.Finding("I4", missing))

    async def _over(self, names: list[str]) -> None:
        """These drops are long over: nobody looks after them any more."""
        async with self._world.database() as connection:
            await connection.execute(
                "UPDATE allocations SET opens_at = opens_at - interval '1 day',"
                " closes_at = closes_at - interval '1 day' WHERE drop_id = ANY ($1)",
                names,
            )


def _told(hit: Hit) -> str:
    struck_at, healed_at = hit.times
    return f"{hit.kind.name} ({', '.join(hit.details)}), {healed_at - struck_at:.1f} s"


def _count(outcome: Outcome, lines: list[Line]) -> None:
    """What was heard; for each strike, how many asked in vain while it lasted, and when somebody was served again.

    The latter is known only where no other strike was in the way, and None elsewhere.
    """
    asked = [line for line in lines if line.call not in {"delivery", "get"}]
    outcome.calls = Counter("lost" if line.status == LOST else str(line.status) for line in asked)
    outcome.acknowledged = sum(line.status == 201 for line in asked)
    verdicts = sorted(
        (line.sent_at, line.heard_at, line.status)
        for line in asked
        if line.call == "reserve" and line.heard_at is not None and line.status != 503
    )
    trouble = [line.sent_at for line in asked if line.status in {LOST, 503} and line.code != "paused"]
    for hit in outcome.hits:
        struck_at, healed_at = hit.times
        hit.unavailable = sum(struck_at <= sent_at <= healed_at for sent_at in trouble)
        until = _undisturbed(hit, outcome.hits)
        after = [found for found in verdicts if found[0] >= healed_at and found[1] <= until]
        hit.first_verdict_s = min((heard - healed_at for _, heard, _ in after), default=None)
        hit.first_grant_s = min((heard - healed_at for _, heard, status in after if status == 201), default=None)


def _undisturbed(hit: Hit, hits: list[Hit]) -> float:
    """Until when, after a strike was healed, no other one stood in the way of a sale; at once when one does then."""
    _, healed_at = hit.times
    others = [other.times for other in hits if other is not hit and other.kind.needs & IN_THE_WAY]
    if any(struck_at <= healed_at < other_healed_at for struck_at, other_healed_at in others):
        return healed_at
    return min((struck_at for struck_at, _ in others if struck_at > healed_at), default=float("inf"))
