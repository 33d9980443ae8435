"""What a list of eligible members takes in a real Valkey."""

import random
import secrets
from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from flashsale import embedded
from flashsale.eligibility import SENTINEL_FIELD, encode_chunk, gate_field

MIB = 2**20


@pytest.fixture
async def valkey(urls: embedded.Servers) -> AsyncIterator["redis.asyncio.Redis"]:
    """A client of the real Valkey; answers are bytes."""
    client = redis.asyncio.Redis.from_url(urls.redis_url)
    yield client
    await client.aclose()


async def gate_bytes(valkey: "redis.asyncio.Redis", fields: dict[bytes, bytes]) -> int:
    """What the whole hash takes in the real Valkey, by its own count."""
    key, items = f"size-{secrets.token_hex(6)}", [*fields.items(), (SENTINEL_FIELD.encode(), b"%d" % len(fields))]
    for at in range(0, len(items), 5_000):
        await valkey.hset(key, mapping=dict(items[at : at + 5_000]))
    used = int(await valkey.memory_usage(key, samples=0) or 0)
    assert await valkey.delete(key) == 1
    return used


@pytest.mark.parametrize(("members", "most_mib"), [(10_000_000, 3), (29_000_000, 8)])
async def test_dense_members_take_about_a_bit_each(valkey: "redis.asyncio.Redis", members: int, most_mib: int) -> None:
    """Ten and twenty-nine million members, far below the 32 and 64 MiB that they may take."""
    full = encode_chunk(range(1_000))
    fields = {gate_field(1_000 * t or 1)[0].encode(): full for t in range(members // 1_000)}
    assert len(fields) == members // 1_000
    assert await gate_bytes(valkey, fields) <= most_mib * MIB


async def test_scattered_members_take_less_than_100_bytes_each(valkey: "redis.asyncio.Redis") -> None:
    """Ids over all 63 bits: a field each."""
    dice = random.Random(4)
    members = {dice.randrange(1, 2**63) for _ in range(200_000)}
    assert await gate_bytes(
        valkey, {gate_field(m)[0].encode(): encode_chunk([gate_field(m)[1]]) for m in members}
    ) <= 100 * len(members)
