"""Confirms a second: each request makes an order of another member's hold, durably and with its job.

The holds are made over HTTP before each run, and not measured. Nobody takes the orders away: no endpoint is set, so
that confirming is measured alone; they stay in the queue and are counted at the end.
"""

import time
from collections import deque
from functools import partial
from itertools import islice

from loadtests import stores
from loadtests.bench.contest import Contestant, Members
from loadtests.bench.customers import reserve
from loadtests.bench.house import TOKENS_LIVE_S, House
from loadtests.bench.table import Failed, Row, Target
from loadtests.bench.tokenfile import Hold, Requests, write_confirms
from loadtests.bench.wrk import CONNECTIONS, Expected
from loadtests.tokens import Minter

DROP = "confirmed"
UNITS = 2**31 - 1
FIRST_HOLDS = 1_000
FASTER = 6
"""A confirm is at most so many times as fast as the first reservations, on a cold service: sizes the first file."""
CONFIRMED = Expected(200, '"confirmed"')


class Holds:
    """Reservations that are held and that nobody has asked to confirm, and files of requests that do."""

    def __init__(self, house: House, members: Members) -> None:
        self._house = house
        self._members = members
        self._minter = Minter(house.at.secret, expires_at=int(time.time()) + TOKENS_LIVE_S // 2)
        self._free: deque[Hold] = deque()
        self.made = 0

    async def top_up(self, count: int) -> None:
        """Let new members reserve until there are so many."""
        missing = max(0, count - len(self._free))
        self._free += await reserve(self._house.at.url, self._house.minter, DROP, self._members.take(missing))
        self.made += missing

    async def prepare(self, count: int) -> Requests:
        """Confirms of the holds that come first, with other tokens than those with which they were made."""
        await self.top_up(count)
        return write_confirms(self._house.folder / "requests.bin", self._minter, islice(self._free, count))

    def sent(self, answered: int) -> None:
        """So many were answered: those, and those that were under way when wrk stopped, are not used again."""
        for _ in range(min(answered + under_way_max(1), len(self._free))):
            self._free.popleft()


def under_way_max(runs: int) -> int:
    """How many requests of so many runs may have been sent without an answer that counts.

    One on each connection when wrk stops; and wrk, which looks at a first request without sending it, skips that one.
    """
    return runs * (CONNECTIONS + 1)


async def contestant(house: House, members: Members) -> Contestant:
    """The row, and what it will confirm. `Failed` when nobody can reserve."""
    await house.create_drop(DROP, UNITS)
    holds = Holds(house, members)
    started_at = time.monotonic()
    await holds.top_up(FIRST_HOLDS)
    rate_guess = FASTER * FIRST_HOLDS / (time.monotonic() - started_at)
    row = Row("durable confirms, each with its order's job", "req/s", target=Target("at least", 5_000, absolute=True))
    each = Contestant(
        row, house.at.url, house.serving_pids, CONFIRMED, holds.prepare, holds.sent, rate_guess=rate_guess
    )
    each.check = partial(check, house, each, holds)
    return each


async def check(house: House, each: Contestant, holds: Holds) -> None:
    """Every answered confirm is one order with one job, nothing else is, and gate and ledger agree; else `Failed`."""
    await house.settled(DROP, holds.made)
    found = await stores.orders(house.at.database_url or "", DROP)
    if not each.answered <= found.confirmed <= each.answered + under_way_max(each.runs):
        raise Failed(f"{each.answered:,} confirms were answered, the ledger has {found.confirmed:,}")
    if found.wrong or found.waiting != found.confirmed:
        raise Failed(f"{found.confirmed:,} are confirmed, {found.waiting:,} orders wait, {found.wrong:,} are wrong")
