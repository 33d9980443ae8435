"""A flood of forged codes against two processes: one limit for both, and a few calls a second to Redis."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from flashsale import embedded
from flashsale.gate import Gate, connect
from flashsale.ids import new_ids
from flashsale.tries import Blocked, Tries
from tests.gate.support import plain_client
from tests.support import TIMEOUT_S, until

MEMBER_MAX = 5
ADDRESS_MAX = 20
FLOOD = 10_000
EVERY_S = 0.05
MEMBERS = iter(range(10**15, 10**16, 10**6))
"""A million ids for each test, which no other test uses: the windows of one outlive it."""


@asynccontextmanager
async def processes(urls: embedded.Servers, alerts: list[int]) -> AsyncIterator[tuple[Tries, Tries]]:
    """Two processes' counts, each with a connection of its own."""
    async with AsyncExitStack() as stack:
        gates = [Gate(connect(urls.redis_url, timeout_s=TIMEOUT_S), timeout_s=TIMEOUT_S, new_ids=new_ids) for _ in "ab"]
        for gate in gates:
            stack.push_async_callback(gate.aclose)
        one, two = (
            Tries(
                share=gate.tries,
                now=time.monotonic,
                member_max=MEMBER_MAX,
                address_max=ADDRESS_MAX,
                exchange_every_s=EVERY_S,
                alert_max=FLOOD,
                alert=alerts.append,
            )
            for gate in gates
        )
        yield one, two


async def calls(urls: embedded.Servers) -> int:
    """How often the server was asked to run a script."""
    async with plain_client(urls.redis_url) as client:
        found = await client.info("commandstats")
        return sum(found.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))


async def test_a_flood_is_blocked_everywhere_and_costs_a_few_calls_a_second(urls: embedded.Servers) -> None:
    """Ten thousand forged codes of one member, and ten thousand of others, through two processes."""
    alerts: list[int] = []
    async with processes(urls, alerts) as (one, two):
        me = next(MEMBERS)
        before, began_s = await calls(urls), time.monotonic()
        loops = [asyncio.create_task(each.run()) for each in (one, two)]
        for number in range(FLOOD):
            for each in (one, two):
                each.failed(me, f"2001:db8:0:{number % 250:x}::1")
                each.failed(me + 1 + number % 300, f"198.51.100.{number % 250}")
            if not number % 50:
                await asyncio.sleep(0)

        async def all_told() -> bool:
            return not one._unsent and not two._unsent

        await until(all_told, "both processes have told everything")
        lasted_s = time.monotonic() - began_s
        spent = await calls(urls) - before
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        for each in (one, two):
            found = each.blocked_s(me, "2001:db8::2")
            assert found is not None
            assert min(found.member_s, found.address_s) > 0
        assert 2 <= spent <= 2 * (lasted_s / EVERY_S + 2)
        assert len(alerts) == 2
        assert max(one.failures_in_window, two.failures_in_window) >= 2 * 2 * FLOOD


async def test_three_failures_here_and_two_there_are_five(urls: embedded.Servers) -> None:
    """Neither process blocks by itself; within an exchange of each both do, for the same time."""
    async with processes(urls, []) as (one, two):
        me = next(MEMBERS)
        for _ in range(3):
            one.failed(me, None)
        for _ in range(2):
            two.failed(me, None)
        assert one.blocked_s(me, None) is two.blocked_s(me, None) is None
        for each in (one, two, one):
            await each.run_once()
        blocked = [each.blocked_s(me, None) for each in (one, two)]
        assert all(isinstance(each, Blocked) and 0 < each.member_s <= 60 for each in blocked)
        left = [each.member_s for each in blocked if each is not None]
        assert max(left) - min(left) < 1


@pytest.mark.parametrize("address", ["192.0.2.77", "2001:db8:77:1::/64"])
async def test_one_address_is_limited_through_both(urls: embedded.Servers, address: str) -> None:
    """Twenty members behind it, ten at each process; the twenty-first is told to wait, and its own account is not."""
    async with processes(urls, []) as (one, two):
        me = next(MEMBERS)
        for number in range(ADDRESS_MAX // 2):
            one.failed(me + number, address.replace("/64", f"{number:x}"))
            two.failed(me + 1_000 + number, address.replace("/64", f"f{number:x}"))
        for each in (one, two, one):
            await each.run_once()
        for each in (one, two):
            found = each.blocked_s(me, address.replace("/64", "abcd"))
            assert found is not None
            assert (found.member_s, found.address_s > 0) == (0, True)
