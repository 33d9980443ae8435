"""Nothing that the gate writes stays for ever, at whatever step it is left; and nothing ends before its time."""

import pytest
import redis.asyncio

from flashsale.domain import Grant
from flashsale.gate import STAGING_TTL_MS, Decisions, Gate, eligible_keys, keys
from flashsale.gate.keys import LAYOUT
from tests.gate.support import TTL_MS, arm, at_epoch, immortal_keys, listed, put_eligible
from tests.support import NewDrop, Node, allocation, claim, make_drop, unique


async def lifetimes(valkey: "redis.asyncio.Redis", drop_id: str) -> dict[str, int]:
    """The gate's keys of a drop, by what follows its tag, and how long they will live, ms."""
    names = [name.decode() async for name in valkey.scan_iter(match=f"{LAYOUT}:{{{drop_id}:0}}:*", count=5_000)]
    return {name.partition("}:")[2]: await valkey.pttl(name) for name in names}


async def test_a_key_without_an_end_is_noticed(valkey: "redis.asyncio.Redis") -> None:
    """The rule that is checked after each test of this folder can be broken."""
    name = f"{LAYOUT}:{{{unique('leak')}:0}}:meta"
    await valkey.hset(name, "epoch", "1")
    assert await immortal_keys(valkey) == [name]
    await valkey.unlink(name)
    assert await immortal_keys(valkey) == []


async def test_every_step_of_a_rebuild_leaves_only_keys_that_end(gate: Gate, valkey: "redis.asyncio.Redis") -> None:
    """A process may die after any of them: lease and stagings end within a minute."""
    drop = at_epoch(make_drop(listed()), 1)
    assert await gate.take_lease(drop.id)
    await gate.keep_lease(drop.id)
    await gate.eligible_begin(drop.id)
    assert await gate.arm_begin(drop.id, drop.epoch) == "ok"
    left = await lifetimes(valkey, drop.id)
    assert len(left) == 3
    assert all(0 < ms <= STAGING_TTL_MS for ms in left.values())


async def test_a_staging_that_still_grows_does_not_end(gate: Gate, valkey: "redis.asyncio.Redis") -> None:
    """Its time counts from the last part, so that a long copy is not lost because it is long."""
    drop = at_epoch(make_drop(), 1)
    await gate.arm_begin(drop.id, drop.epoch)
    staging = keys.staging(drop.id, 0, "1")
    assert await valkey.pexpire(staging, 5_000)
    assert await gate.arm_chunk(drop.id, drop.epoch, ["7", "r\ta\t1\t1\t\t|1"])
    assert 5_000 < await valkey.pttl(staging) <= STAGING_TTL_MS


async def test_what_is_armed_lives_as_long_as_it_was_armed_for(gate: Gate, valkey: "redis.asyncio.Redis") -> None:
    """Claims, releases and settles change nothing in that; the eligible set lives as long as the rest."""
    drop = at_epoch(make_drop(listed(), per_member=3), 1)
    await put_eligible(gate, drop, [1, 2, 3], ttl_ms=TTL_MS // 2)
    assert await arm(gate, drop, ttl_ms=TTL_MS * 2) == "ok"
    decided = await gate.decide(drop, 0, [claim(1), claim(2), claim(3), claim(1)])
    assert isinstance(decided, Decisions)
    grants = [result for result in decided.results if isinstance(result, Grant)]
    assert len(grants) == 4
    await gate.settle(drop.id, [(g.id, g.member) for g in grants[:2]])
    await gate.release(drop.id, [(g.id, g.member) for g in grants])
    left = await lifetimes(valkey, drop.id)
    assert left.keys() == {"meta", "ent", "pend", *(key.partition("}:")[2] for key in eligible_keys(drop))}
    assert all(TTL_MS < ms <= TTL_MS * 2 for ms in left.values())


async def test_a_rebuild_sets_the_time_anew(gate: Gate, valkey: "redis.asyncio.Redis") -> None:
    """A window that was moved moves the end of the keys, in both directions."""
    drop = make_drop(listed())
    await put_eligible(gate, drop, [1])
    for epoch, ttl_ms in ((1, TTL_MS), (2, 10 * TTL_MS), (3, TTL_MS)):
        assert await arm(gate, at_epoch(drop, epoch), ttl_ms=ttl_ms) == "ok"
        assert all(ttl_ms - 30_000 < ms <= ttl_ms for ms in (await lifetimes(valkey, drop.id)).values())


@pytest.mark.parametrize("closes_in_s", [60, 3_600])
async def test_a_drops_keys_outlive_its_last_window(
    node: Node, new_drop: NewDrop, valkey: "redis.asyncio.Redis", closes_in_s: int
) -> None:
    """As the product arms it: until the end and an hour more (the setting of these tests)."""
    drop = await new_drop(allocation("short", closes_in_s=30), allocation("long", closes_in_s=closes_in_s))
    await node.reservations.reserve(drop.id, claim(1))
    left = await lifetimes(valkey, drop.id)
    assert left.keys() == {"meta", "ent", "pend"}
    assert all((closes_in_s + 3_570) * 1_000 < ms <= (closes_in_s + 3_600) * 1_000 for ms in left.values())
