"""Failed tries are counted in windows that end by themselves, for all processes, however many subjects a call names."""

import hashlib
import itertools
import time
from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from flashsale import embedded
from flashsale.errors import GateUnavailable
from flashsale.gate import Gate, connect, keys
from flashsale.ids import new_ids
from flashsale.tries import SUBJECTS_PER_CALL_MAX
from tests.gate.model import ModelGate
from tests.support import TIMEOUT_S, unique, until

WINDOW_MS = 60_000


@pytest.fixture
async def apart(urls: embedded.Servers) -> AsyncIterator[Gate]:
    """A gate of this test's own, whose scripts it may break."""
    made = Gate(connect(urls.redis_url, timeout_s=TIMEOUT_S), timeout_s=TIMEOUT_S, new_ids=new_ids)
    yield made
    await made.aclose()


async def totals(gate: Gate, *increments: tuple[str, int], window_ms: int = WINDOW_MS) -> list[int]:
    """Everybody's totals; each window ends after now, and not later than a new one would."""
    answer = await gate.tries(increments, window_ms)
    assert all(0 <= left_ms <= window_ms if total else left_ms == 0 for total, left_ms in answer), answer
    return [total for total, _ in answer]


async def story(gate: Gate) -> None:
    """What must hold of any gate: counting, asking, windows that begin with the first and do not move."""
    one, two, never = (unique("m:") for _ in range(3))
    assert await totals(gate, (never, 0)) == [0]
    assert await totals(gate, (one, 3), (never, 0), (two, 1)) == [3, 0, 1]
    assert await totals(gate, (two, 4), (one, 0)) == [5, 3]
    assert await totals(gate, (never, 0), (one, 2)) == [0, 5]

    async def has_less_left() -> bool:
        ((total, left_ms),) = await gate.tries([(one, 1)], WINDOW_MS)
        assert total > 5
        return left_ms < WINDOW_MS - 20

    await until(has_less_left, "time counts from the first, not from the last", 5)

    async def is_over() -> bool:
        return await totals(gate, (short, 0), window_ms=50) == [0]

    short = unique("m:")
    assert await totals(gate, (short, 9), window_ms=50) == [9]
    await until(is_over, "a window ends by itself", 5)
    assert await totals(gate, (short, 2)) == [2]


async def test_counting_in_windows(gate: Gate) -> None:
    """The script."""
    await story(gate)


async def test_the_model_counts_in_the_same_way() -> None:
    """What stands in for the gate elsewhere."""
    model = ModelGate(new_ids=new_ids, now_ms=lambda: time.monotonic_ns() // 1_000_000)
    await story(model)
    model.away = True
    with pytest.raises(GateUnavailable):
        await model.tries([("m:1", 1)], WINDOW_MS)


async def test_the_models_clock_may_go_on_within_a_call() -> None:
    """A window is no longer than it was meant to be, by the call's own reading."""
    ticks = itertools.count(1_000)
    model = ModelGate(new_ids=new_ids, now_ms=lambda: next(ticks))
    assert await totals(model, ("m:1", 3), ("m:2", 0), ("m:3", 1)) == [3, 0, 1]


@pytest.mark.parametrize(
    ("sound", "broken"),
    [
        ("total = redis.call('INCRBY', key, more[i])", "total = total + more[i]"),
        ("left = redis.call('PTTL', key)", "redis.call('PTTL', key)"),
        ("redis.call('SET', key, total, 'PX', window)", "redis.call('SET', key, total)"),
        ("redis.call('SET', key, total, 'PX', window)", "window = window"),
        ("elseif total > 0 then", "elseif total >= 0 then"),
        ("more[i] > 0", "false"),
        ("    left = 0\n", ""),
        ("if counts[i] then", "if false then"),
    ],
)
async def test_a_fault_in_the_script_is_noticed(
    apart: Gate, valkey: "redis.asyncio.Redis", sound: str, broken: str
) -> None:
    """The same story fails as soon as one condition or one write is wrong."""
    script = apart._scripts["tries"]
    assert script.source.count(sound) == 1
    script.source = script.source.replace(sound, broken, 1)
    script.sha = hashlib.sha1(script.source.encode(), usedforsecurity=False).hexdigest()
    with pytest.raises(Exception):  # noqa: B017, PT011 -- a wrong total, or a script that fails
        await story(apart)
    left = [name async for name in valkey.scan_iter(match=keys.tries("*"), count=5_000)]
    await valkey.unlink("none", *left)  # a broken script may leave keys that never end


async def test_a_full_call_is_answered_in_its_order(gate: Gate, valkey: "redis.asyncio.Redis") -> None:
    """As many subjects as one call may name, each with its own number, every key with an end."""
    prefix = unique("many")
    increments = [(f"{prefix}:{number}", number % 7) for number in range(SUBJECTS_PER_CALL_MAX)]
    assert await totals(gate, *increments) == [count for _, count in increments]
    assert await totals(gate, *increments) == [2 * count for _, count in increments]
    found = [name async for name in valkey.scan_iter(match=f"*{prefix}:*", count=5_000)]
    assert len(found) == sum(1 for _, count in increments if count)


async def test_all_subjects_are_in_one_slot(valkey: "redis.asyncio.Redis") -> None:
    """So that a cluster takes one call for all of them, whatever an address looks like."""
    subjects = ["m:1", "m:9223372036854775807", "a:192.0.2.1", "a:2001:db8::", "a:{x}", "all:"]
    slots = {await valkey.cluster("KEYSLOT", keys.tries(name)) for name in subjects}
    assert len(slots) == 1


async def test_processes_count_together(gate: Gate, apart: Gate) -> None:
    """Through connections of their own."""
    member = unique("m:")
    assert await totals(gate, (member, 2)) == [2]
    assert await totals(apart, (member, 3)) == [5]
    assert await totals(gate, (member, 0)) == [5]


async def test_a_server_that_does_not_know_the_script_is_told(gate: Gate, valkey: "redis.asyncio.Redis") -> None:
    """After a restart the first call brings it along, and counts once."""
    member = unique("m:")
    await valkey.script_flush()
    assert await totals(gate, (member, 2)) == [2]


async def test_a_full_memory_is_a_fault_and_not_an_answer(gate: Gate, valkey: "redis.asyncio.Redis") -> None:
    """The counters are worth less than the sale: they are refused first, and the processes go on alone."""
    member = unique("m:")
    assert await totals(gate, (member, 2)) == [2]
    await valkey.config_set("maxmemory", 1)
    try:
        with pytest.raises(GateUnavailable):
            await gate.tries([(member, 1)], WINDOW_MS)
    finally:
        await valkey.config_set("maxmemory", 0)
    assert await totals(gate, (member, 1)) == [3]
