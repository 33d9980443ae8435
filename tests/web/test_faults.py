"""The gate burns down in the middle of a rush: nothing acknowledged is lost, nothing is sold twice, all is sold."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import psutil
import pytest
from aiohttp import ClientError, ClientSession
from redis.asyncio import Redis

from flashsale import embedded
from flashsale.domain import Grant, State
from flashsale.gate import Decisions
from tests.support import NewDrop, Node, allocation, claim, until
from tests.web.conftest import Token

pytestmark = pytest.mark.long  # and quick at the beginning: the fewer drops are in the ledger, the fewer are rebuilt

UNITS = 300
SHOPPERS = 40
DEADLINE_S = 90.0


class Rush:
    """Shoppers, one after the other on each of some connections, who press until they hear a verdict."""

    def __init__(self, http: ClientSession, token: Token, drop_id: str) -> None:
        self._http = http
        self._token = token
        self._drop_id = drop_id
        self._members = itertools.count(1)
        self.acknowledged: dict[str, int] = {}
        self.words: Counter[str] = Counter()
        self.sold_out = asyncio.Event()

    async def _press(self, member: int) -> None:
        headers = self._token(member) | {"Idempotency-Key": f"press-{member}"}
        while True:
            try:
                async with self._http.post(
                    f"/v1/drops/{self._drop_id}/reservations", json={}, headers=headers
                ) as answer:
                    body = await answer.json(content_type=None)
            except ClientError:
                self.words["broken"] += 1
                continue
            if answer.status in {200, 201}:
                self.acknowledged[body["id"]] = member
                self.words["yes"] += 1
                return
            self.words[body["code"]] += 1
            assert answer.status in {409, 503}, body
            if body["code"] == "sold_out":
                return

    async def _shopper(self) -> None:
        """Press for one member after the other, until everything is sold for good."""
        while not self.sold_out.is_set():
            await self._press(next(self._members))

    @asynccontextmanager
    async def under_way(self) -> AsyncIterator[None]:
        """Shoppers press while the body runs, and on until `sold_out` is set."""
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as shoppers:
            for _ in range(SHOPPERS):
                shoppers.create_task(self._shopper())
            yield

    async def reached(self, yeses: int) -> None:
        """Return when so many have heard yes."""

        async def enough() -> bool:
            return len(self.acknowledged) >= yeses

        await until(enough, f"{yeses} acknowledged")


async def _run(node: Node, rush: Rush, drop_id: str, strikes: list[tuple[int, Callable[[], Awaitable[None]]]]) -> None:
    """The rush with its strikes, each when so many have heard yes, and the repairs of a worker, until all is sold."""

    async def all_sold() -> bool:
        await node.reconciler.run_once()
        return sum(u.held for u in await node.ledger.drops.balance(drop_id, [])) == UNITS

    async with rush.under_way():
        for yeses, strike in strikes:
            await rush.reached(yeses)
            await strike()
        await until(all_sold, "every unit sold", DEADLINE_S)
        rush.sold_out.set()


async def _audit(node: Node, rush: Rush, drop_id: str) -> None:
    for reservation_id, member in rush.acknowledged.items():
        stored = await node.ledger.reservations.get(reservation_id)
        assert stored is not None, f"{reservation_id} was acknowledged and is not in the ledger"
        assert (stored.member, stored.state, stored.drop) == (member, State.HELD, drop_id)
    assert max(Counter(rush.acknowledged.values()).values()) == 1, "a member has two"
    await until(lambda: _balanced(node, drop_id), "gate and ledger agree")


async def _balanced(node: Node, drop_id: str) -> bool:
    await node.reconciler.run_once()
    (balance,) = await node.operations.balance(drop_id)
    return balance.balanced and balance.available == 0 and balance.held == UNITS


async def test_a_gate_that_says_yes_by_itself_loses_and_oversells(
    node: Node, new_drop: NewDrop, urls: embedded.Servers
) -> None:
    """The negative control: the same fault, without a ledger between the grant and the yes."""
    drop = await new_drop(allocation(quantity=10))
    promised: list[str] = []
    redis = Redis.from_url(urls.redis_url)
    for first in (1, 101):
        decided = await node.gate.decide(drop, 0, [claim(m) for m in range(first, first + 10)])
        assert isinstance(decided, Decisions)
        promised += [grant.id for grant in decided.results if isinstance(grant, Grant)]
        await redis.flushall()
        await node.arming.arm(drop.id)
    await redis.aclose()
    assert len(promised) == 20, "ten units, promised twice"
    assert [await node.ledger.reservations.get(i) for i in promised] == [None] * 20


async def test_flushall_three_times_in_a_rush(
    node: Node, new_drop: NewDrop, http: ClientSession, token: Token, urls: embedded.Servers
) -> None:
    drop = await new_drop(allocation(quantity=UNITS))
    rush = Rush(http, token, drop.id)
    redis = Redis.from_url(urls.redis_url)

    async def flush() -> None:
        await redis.flushall()

    await _run(node, rush, drop.id, [(60, flush), (120, flush), (200, flush)])
    await redis.aclose()
    await _audit(node, rush, drop.id)


async def test_kill_9_of_valkey_in_a_rush(
    node: Node, new_drop: NewDrop, http: ClientSession, token: Token, urls: embedded.Servers
) -> None:
    drop = await new_drop(allocation(quantity=UNITS))
    rush = Rush(http, token, drop.id)

    async def kill() -> None:
        pid = urls.supervisor.pids["valkey"]
        psutil.Process(pid).kill()
        await urls.supervisor.ready("valkey", other_than=pid)

    await _run(node, rush, drop.id, [(100, kill), (200, kill)])
    await _audit(node, rush, drop.id)
    assert rush.words["unavailable"] > 0, "the strikes did not hit the rush"


async def test_kill_9_of_postgres_in_a_rush(
    node: Node, new_drop: NewDrop, http: ClientSession, token: Token, urls: embedded.Servers
) -> None:
    drop = await new_drop(allocation(quantity=UNITS))
    rush = Rush(http, token, drop.id)

    async def kill() -> None:
        pid = urls.supervisor.pids["postgres"]
        psutil.Process(pid).kill()
        await urls.supervisor.ready("postgres", other_than=pid)

    await _run(node, rush, drop.id, [(100, kill)])
    await _audit(node, rush, drop.id)
