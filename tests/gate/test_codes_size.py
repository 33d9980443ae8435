"""What F-codes take in a real Valkey, in the very keys of an armed gate."""

from collections.abc import Sequence

import redis.asyncio

from flashsale.domain import Fcode, FcodeBatch
from flashsale.gate import Gate, keys
from flashsale.gate.codes import bound_fields
from tests.gate.support import Told, arm, at_epoch, fcodes, number
from tests.support import allocation, make_drop

MIB = 2**20
MILLION = 1_000_000


async def armed_bytes(gate: Gate, valkey: "redis.asyncio.Redis", told: Told) -> int:
    """What the drop's codes take, by the server's own count of the key."""
    drop = at_epoch(make_drop(allocation("codes", MILLION, access=Fcode())), 1)
    assert await arm(gate, drop, told=told) == "ok"
    key = keys.stripe(drop.id).codes
    used = int(await valkey.memory_usage(key, samples=0) or 0)
    await valkey.unlink(key)
    return used


def some_batches(sizes: Sequence[int]) -> tuple[list[FcodeBatch], list[int]]:
    """Batches of these sizes, and the numbers of all their codes."""
    batches = [fcodes(n, count=size) for n, size in enumerate(sizes, 1)]
    return batches, [number(batch.id, serial) for batch in batches for serial in range(batch.count)]


async def test_a_million_codes_take_less_than_a_mebibyte_when_all_are_spent(
    gate: Gate, valkey: "redis.asyncio.Redis"
) -> None:
    """In one batch, and in a thousand."""
    for sizes in ([MILLION], [1_000] * 1_000):
        batches, codes = some_batches(sizes)
        assert await armed_bytes(gate, valkey, Told(batches, spent=codes)) <= MIB


async def test_revoked_as_well_they_still_do(gate: Gate, valkey: "redis.asyncio.Redis") -> None:
    """The worst there is for codes that anybody may spend."""
    batches, codes = some_batches([MILLION])
    assert await armed_bytes(gate, valkey, Told(batches, spent=codes, revoked=codes)) <= MIB


async def test_codes_that_nobody_has_spent_take_nothing(gate: Gate, valkey: "redis.asyncio.Redis") -> None:
    """A batch is one small field, whatever its size."""
    assert await armed_bytes(gate, valkey, Told([fcodes(1, count=4 * MILLION)])) <= 1_000


async def test_a_million_bound_codes_take_nine_mebibytes(gate: Gate, valkey: "redis.asyncio.Redis") -> None:
    """Eight bytes each for the owner, and as much as others for what is spent."""
    drop = make_drop()
    staging = await gate.bound_begin(drop.id)
    for first in range(0, MILLION, 10_000):
        part = bound_fields((serial, 2**62 + serial) for serial in range(first, first + 10_000))
        assert await gate.bound_chunk(staging, part)
    assert await gate.bound_finish(drop.id, 1, staging, fields=1_000, ttl_ms=60_000)
    key = keys.bound(drop.id, 0, 1)
    assert int(await valkey.memory_usage(key, samples=0) or 0) <= 9 * MIB
    await valkey.unlink(key)
