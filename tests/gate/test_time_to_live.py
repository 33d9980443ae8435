"""Nothing that the gate writes stays for ever, at whatever step it is left; and nothing ends before its time."""

import pytest
import redis.asyncio

from flashsale.domain import Fcode, Grant
from flashsale.gate import STAGING_TTL_MS, Decisions, Gate, keys
from flashsale.gate.codes import batch_field
from flashsale.gate.keys import LAYOUT
from tests.gate.support import (
    TTL_MS,
    Told,
    arm,
    at_epoch,
    entry,
    fcodes,
    immortal_keys,
    listed,
    number,
    put_bound,
    put_eligible,
)
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
    await gate.bound_begin(drop.id)
    assert await gate.arm_begin(drop.id, drop.epoch) == "ok"
    left = await lifetimes(valkey, drop.id)
    assert len(left) == 5
    assert all(0 < ms <= STAGING_TTL_MS for ms in left.values())


async def test_a_staging_that_still_grows_does_not_end(gate: Gate, valkey: "redis.asyncio.Redis") -> None:
    """Its time counts from the last part of either, so that a long copy is not lost because it is long."""
    drop = at_epoch(make_drop(), 1)
    await gate.arm_begin(drop.id, drop.epoch)
    stagings = [keys.staging(drop.id, 0, name) for name in ("1", "codes-1")]
    for part in ("entries", "codes"):
        for staging in stagings:
            assert await valkey.pexpire(staging, 5_000)
        if part == "entries":
            assert await gate.arm_chunk(drop.id, drop.epoch, ["7", entry("r")])
        else:
            assert await gate.arm_codes(drop.id, drop.epoch, batch_field(fcodes()))
        for staging in stagings:
            assert 5_000 < await valkey.pttl(staging) <= STAGING_TTL_MS


async def test_what_is_armed_lives_as_long_as_it_was_armed_for(gate: Gate, valkey: "redis.asyncio.Redis") -> None:
    """Claims, releases and settles change nothing in that; the lists of members live as long as the rest."""
    drop = at_epoch(make_drop(listed(), allocation("codes", access=Fcode()), per_member=3), 1)
    await put_eligible(gate, drop, [1, 2, 3], ttl_ms=TTL_MS // 2)
    await put_bound(gate, drop, 1, {0: 4}, ttl_ms=TTL_MS // 2)
    assert await arm(gate, drop, ttl_ms=TTL_MS * 2, told=Told([fcodes(bound=True)])) == "ok"
    asked = [claim(1), claim(2), claim(3), claim(1), claim(4, code=number(1, 0))]
    decided = await gate.decide(drop, 0, asked)
    assert isinstance(decided, Decisions)
    grants = [result for result in decided.results if isinstance(result, Grant)]
    assert len(grants) == 5
    await gate.settle(drop.id, [(g.id, g.member) for g in grants[:2]])
    await gate.release(drop.id, [(g.id, g.member) for g in grants])
    left = await lifetimes(valkey, drop.id)
    lists = (*keys.eligible_of(drop), *keys.bound_of(drop.id, 0, [1]))
    assert left.keys() == {"meta", "ent", "pend", "codes", *(key.partition("}:")[2] for key in lists)}
    assert all(TTL_MS < ms <= TTL_MS * 2 for ms in left.values())


async def test_a_rebuild_sets_the_time_anew(gate: Gate, valkey: "redis.asyncio.Redis") -> None:
    """A window that was moved moves the end of the keys, in both directions."""
    drop = make_drop(listed())
    await put_eligible(gate, drop, [1])
    await put_bound(gate, drop, 1, {0: 4})
    for epoch, ttl_ms in ((1, TTL_MS), (2, 10 * TTL_MS), (3, TTL_MS)):
        assert await arm(gate, at_epoch(drop, epoch), ttl_ms=ttl_ms, told=Told([fcodes(bound=True)])) == "ok"
        assert all(ttl_ms - 30_000 < ms <= ttl_ms for ms in (await lifetimes(valkey, drop.id)).values())


@pytest.mark.parametrize("closes_in_s", [60, 3_600])
async def test_a_drops_keys_outlive_its_last_window(
    node: Node, new_drop: NewDrop, valkey: "redis.asyncio.Redis", closes_in_s: int
) -> None:
    """As the product arms it: until the end and an hour more (the setting of these tests)."""
    drop = await new_drop(allocation("short", closes_in_s=30), allocation("long", closes_in_s=closes_in_s))
    await node.reservations.reserve(drop.id, claim(1))
    left = await lifetimes(valkey, drop.id)
    assert left.keys() == {"meta", "ent", "pend", "codes"}
    assert all((closes_in_s + 3_570) * 1_000 < ms <= (closes_in_s + 3_600) * 1_000 for ms in left.values())
