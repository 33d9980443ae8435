"""500 buyers on 10 units: exactly 10 through the product, and far more through a gate that reads before it writes.

The same with 50 codes that ten members show each. The harness is the same for all; the naive gates show that it can
see an oversell, and a code that is spent twice.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import redis.asyncio

from flashsale import embedded
from flashsale.domain import Drop, Fcode, Grant, Refusal, Verdict
from flashsale.gate import Decisions, Gate, Unarmed, connect
from flashsale.ids import new_ids
from flashsale.reservations import Held, Limits
from tests.gate.support import Told, armed, fcodes, number, plain_client
from tests.support import PATIENCE_S, TIMEOUT_S, NewDrop, Node, allocation, claim, make_node, unique

BUYERS = 500
UNITS = 10
CODES = 50


async def rush(press: Callable[[int], Awaitable[bool]]) -> int:
    """All buyers press at once; how many heard yes."""
    opening = asyncio.Event()

    async def buyer(member: int) -> bool:
        await opening.wait()
        return await press(member)

    buyers = [asyncio.create_task(buyer(member)) for member in range(1, BUYERS + 1)]
    opening.set()
    return sum(await asyncio.gather(*buyers))


class NaiveGate:
    """Reads what is left, and in a second round trip takes one.

    Each first reply comes before any second call: a delay that any network may add.
    """

    def __init__(self, client: "redis.asyncio.Redis") -> None:
        self._client = client
        self._key = unique("naive-left")
        self._all_have_read = asyncio.Barrier(BUYERS)

    async def open(self) -> None:
        """Put the units in."""
        await self._client.set(self._key, UNITS, px=60_000)

    async def left(self) -> int:
        """What it thinks is left."""
        return int(await self._client.get(self._key) or 0)

    async def take(self) -> bool:
        """A unit, if one was left when it looked."""
        left = await self.left()
        await self._all_have_read.wait()
        if left < 1:
            return False
        await self._client.decr(self._key)
        return True


@pytest.fixture
async def crowd(urls: embedded.Servers) -> AsyncIterator["redis.asyncio.Redis"]:
    """A client with a connection for each buyer."""
    async with plain_client(urls.redis_url, connections_max=BUYERS) as client:
        yield client


async def test_a_naive_gate_oversells_in_this_harness(crowd: "redis.asyncio.Redis") -> None:
    """The negative control: everyone is told yes."""
    naive = NaiveGate(crowd)
    await naive.open()
    assert await rush(lambda _: naive.take()) == BUYERS
    assert await naive.left() == UNITS - BUYERS


async def test_exactly_as_many_as_there_are_units_hear_yes(
    urls: embedded.Servers, node: Node, new_drop: NewDrop
) -> None:
    """Through three processes, one Lua call and one transaction for each press, and combined in batches."""
    for limits in (
        Limits(gate_batch_max=1, ledger_batch_max=1, answer_max_s=PATIENCE_S),
        Limits(answer_max_s=PATIENCE_S),
    ):
        drop = await new_drop(allocation(quantity=UNITS))
        nodes = [await make_node(urls, limits=limits) for _ in range(3)]
        try:
            for each in nodes:
                await each.catalog.reload(drop.id)
            heard: Counter[str] = Counter()

            async def press(member: int, drop: Drop = drop, nodes: list[Node] = nodes) -> bool:
                answer = await nodes[member % 3].reservations.reserve(drop.id, claim(member))
                heard[answer.verdict if isinstance(answer, Refusal) else type(answer).__name__] += 1  # noqa: B023 -- one round
                return isinstance(answer, Held)

            assert await rush(press) == UNITS
            assert heard == {"Held": UNITS, "sold_out": BUYERS - UNITS}
        finally:
            for each in nodes:
                await each.aclose()
        (balance,) = await node.operations.balance(drop.id)
        assert (balance.available, balance.held, balance.balanced) == (0, UNITS, True)


async def test_one_member_from_many_devices_gets_one(urls: embedded.Servers, node: Node, new_drop: NewDrop) -> None:
    """The member's limit holds in the same rush: 500 presses of one member through two processes."""
    drop = await new_drop(allocation(quantity=UNITS))
    other = await make_node(urls)
    try:
        await other.catalog.reload(drop.id)

        async def press(number: int) -> bool:
            through = (node, other)[number % 2]
            answer = await through.reservations.reserve(drop.id, claim(7, key=f"device-{number}"))
            assert isinstance(answer, Held) or answer == Refusal(Verdict.MEMBER_LIMIT)
            return isinstance(answer, Held)

        assert await rush(press) == 1
    finally:
        await other.aclose()
    (balance,) = await node.operations.balance(drop.id)
    assert (balance.available, balance.held) == (UNITS - 1, 1)


async def test_behind_a_naive_gate_the_ledger_sells_no_more_than_there_is(
    urls: embedded.Servers, node: Node, new_drop: NewDrop, crowd: "redis.asyncio.Redis"
) -> None:
    """The second lock: 500 grants under the right epoch, 10 rows."""
    drop = await new_drop(allocation(quantity=UNITS))
    naive = NaiveGate(crowd)
    await naive.open()
    grants: list[Grant] = []

    async def press(member: int) -> bool:
        if await naive.take():
            grants.append(Grant(new_ids(1)[0], member, "a", 1, 1, None, "|1", drop.epoch))
        return True

    await rush(press)
    assert len(grants) == BUYERS
    outcomes = Counter(type(o).__name__ for o in await node.ledger.reservations.commit(drop.id, grants))
    assert outcomes == {"Committed": UNITS, "SecondLock": BUYERS - UNITS}
    taken = await node.ledger.drops.taken([drop.id])
    assert taken == {(drop.id, "a"): UNITS}


class NaiveCodes:
    """Looks whether a code is spent, and in a second round trip notes that it is."""

    def __init__(self, client: "redis.asyncio.Redis") -> None:
        self._client = client
        self._key = unique("naive-codes")
        self._all_have_read = asyncio.Barrier(BUYERS)

    async def open(self) -> None:
        """No code is spent."""
        await self._client.set(self._key, b"", px=60_000)

    async def spend(self, serial: int) -> bool:
        """Whether the code was not spent when it looked."""
        spent = await self._client.getbit(self._key, serial)
        await self._all_have_read.wait()
        await self._client.setbit(self._key, serial, 1)
        return spent == 0


async def test_naive_codes_are_spent_ten_times_in_this_harness(crowd: "redis.asyncio.Redis") -> None:
    """The negative control: everyone who shows a code is told yes."""
    naive = NaiveCodes(crowd)
    await naive.open()
    assert await rush(lambda member: naive.spend(member % CODES)) == BUYERS


@pytest.mark.parametrize("together", [1, 7, BUYERS])
async def test_each_code_is_honoured_once(urls: embedded.Servers, gate: Gate, together: int) -> None:
    """50 codes, each shown by ten members at once, through three clients, a call for each press and for many.

    There are units for all presses: it is the codes that run out.
    """
    lane = allocation("codes", BUYERS, access=Fcode())
    drop = await armed(gate, lane, allocation("all", BUYERS), told=Told([fcodes(1, count=CODES)]))
    gates = [Gate(connect(urls.redis_url, timeout_s=TIMEOUT_S), timeout_s=TIMEOUT_S, new_ids=new_ids) for _ in range(3)]
    presses = [claim(member, code=number(1, member % CODES)) for member in range(1, BUYERS + 1)]
    calls = [presses[at : at + together] for at in range(0, BUYERS, together)]
    try:
        answers = await asyncio.gather(*(gates[n % 3].decide(drop, 0, call) for n, call in enumerate(calls)))
    finally:
        for each in gates:
            await each.aclose()
    results = [result for answer in answers if isinstance(answer, Decisions) for result in answer.results]
    grants = [result for result in results if isinstance(result, Grant)]
    assert sorted(grant.code for grant in grants if grant.code is not None) == [number(1, n) for n in range(CODES)]
    assert len(grants) == len({grant.member for grant in grants}) == CODES
    assert [r for r in results if r not in grants] == [Refusal(Verdict.FCODE_SPENT)] * (BUYERS - CODES)
    status = await gate.status(drop, 0)
    assert not isinstance(status, Unarmed)
    assert status.available == {"codes": BUYERS - CODES, "all": BUYERS}


async def test_more_calls_at_once_than_connections_wait_for_one(urls: embedded.Servers, node: Node) -> None:
    """500 single calls through one gate: none is turned away for want of a connection."""
    gate = Gate(connect(urls.redis_url, timeout_s=TIMEOUT_S), timeout_s=TIMEOUT_S, new_ids=new_ids)
    drop_id = unique("nobody")
    try:
        answers = await asyncio.gather(*(gate.has_eligible(drop_id, "list-1") for _ in range(BUYERS)))
    finally:
        await gate.aclose()
    assert answers == [False] * BUYERS
