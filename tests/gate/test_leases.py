"""When the gate gives a lease, for how long, and what it tells of who came late."""

import asyncio
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from flashsale import embedded
from flashsale.domain import Allocation, Drop, Grant
from flashsale.gate import LEASE_MS, Decisions, Gate, Lease, keys
from tests.gate.support import armed
from tests.support import allocation, claim

FIRST = ("", 0)


async def decide(gate: Gate, drop: Drop, *members: int, lease: tuple[str, int] | None = FIRST) -> Decisions:
    """Claims of these members, by who asks for a lease."""
    decided = await gate.decide(drop, 0, [claim(member) for member in members], lease=lease)
    assert isinstance(decided, Decisions)
    return decided


async def test_a_lease_is_given_when_nothing_is_left(gate: Gate) -> None:
    """Not with the last unit still there; with the call that took it."""
    drop = await armed(gate, allocation(quantity=2))
    assert (await decide(gate, drop, 1)).lease is None
    decided = await decide(gate, drop, 2)
    assert decided.lease is not None
    assert (decided.lease.lasts_ms, decided.lease.members) == (LEASE_MS, frozenset())
    assert decided.out_ms == LEASE_MS
    after = await decide(gate, drop, 3, lease=None)
    assert after.out_ms == max(0, LEASE_MS - (after.now_ms - decided.now_ms))


WINDOWS: list[tuple[str, Callable[[], list[Allocation]]]] = [
    ("one opens", lambda: [allocation(quantity=0), allocation("b", 5, opens_in_s=30)]),
    ("one closes", lambda: [allocation(quantity=0, closes_in_s=30)]),
]


@pytest.mark.parametrize("allocations", [row[1] for row in WINDOWS], ids=[row[0] for row in WINDOWS])
async def test_no_lease_lasts_beyond_the_edge_of_a_window(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, allocations: Callable[[], list[Allocation]]
) -> None:
    """Something else is true from then on: what opens is for sale, what has closed is not sold out but closed."""
    monkeypatch.setattr("flashsale.gate.LEASE_MS", 60_000)
    drop = await armed(gate, *allocations())
    lease = (await decide(gate, drop, 1)).lease
    assert lease is not None
    assert 0 < lease.lasts_ms <= 30_001  # a window opens with the first whole millisecond


async def test_a_lease_is_renewed_in_its_second_half(gate: Gate) -> None:
    """Sooner it is shared as it is: who keeps a yes back does not wait for longer and longer."""
    drop = await armed(gate, allocation(quantity=0))
    first = (await decide(gate, drop, 1)).lease
    second = (await decide(gate, drop, 1)).lease
    assert first is not None
    assert second is not None
    assert second.lasts_ms <= first.lasts_ms
    await asyncio.wait_for(_passed(gate, drop, LEASE_MS // 2), 30)
    third = (await decide(gate, drop, 1)).lease
    assert third is not None
    assert third.lasts_ms == LEASE_MS


async def _passed(gate: Gate, drop: Drop, ms: int) -> None:
    """Return when so much time has passed on the gate's clock."""
    since = (await decide(gate, drop, 1, lease=None)).now_ms
    while (await decide(gate, drop, 1, lease=None)).now_ms - since <= ms:
        pass


async def test_who_comes_late_is_told_once(gate: Gate) -> None:
    """To each asker by what it has read; to one that knows another log, nothing: it reads all members."""
    drop = await armed(gate, allocation(quantity=1))
    decided = await decide(gate, drop, 1)
    lease = decided.lease
    assert lease is not None
    granted = decided.results[0]
    assert isinstance(granted, Grant)
    await gate.release(drop.id, [(granted.id, 1)])
    again = await decide(gate, drop, 2, lease=(lease.log, lease.length))
    assert isinstance(again.results[0], Grant)
    assert again.out_ms > 0
    assert again.lease == Lease(again.out_ms, lease.log, lease.length + 1, frozenset({2}))
    assert (await _members(gate, drop, (lease.log, lease.length + 1))) == frozenset()
    assert (await _members(gate, drop, ("another", 1))) == frozenset()
    assert await gate.members(drop.id) == {2}


async def _members(gate: Gate, drop: Drop, lease: tuple[str, int]) -> frozenset[int]:
    found = (await decide(gate, drop, 9, lease=lease)).lease
    assert found is not None
    return found.members


async def test_a_log_that_is_lost_begins_under_another_name(gate: Gate) -> None:
    """Whoever had read it reads all members again."""
    drop = await armed(gate, allocation(quantity=0))
    first = (await decide(gate, drop, 1)).lease
    await gate._command("UNLINK", keys.stripe(drop.id).late)
    second = (await decide(gate, drop, 1)).lease
    assert first is not None
    assert second is not None
    assert second.log != first.log


async def test_a_clock_that_is_put_back_makes_no_lease_longer(gate: Gate, urls: embedded.Servers) -> None:
    """A lease that seems to last for an hour is one that lasts as long as any."""
    drop = await armed(gate, allocation(quantity=0))
    now_ms = (await decide(gate, drop, 1)).now_ms
    client: Redis = Redis.from_url(urls.redis_url)
    await client.hset(keys.stripe(drop.id).meta, "lease", now_ms + 3_600_000)
    await client.aclose()
    assert (await decide(gate, drop, 1, lease=None)).out_ms <= LEASE_MS
    assert (await decide(gate, drop, 1, lease=None)).out_ms < LEASE_MS + 1


async def test_many_members_are_read(gate: Gate) -> None:
    """In parts, each once."""
    drop = await armed(gate, allocation(quantity=12_000))
    for first in range(1, 12_001, 1_000):
        await decide(gate, drop, *range(first, first + 1_000), lease=None)
    assert await gate.members(drop.id) == set(range(1, 12_001))
