"""A plain client beside the gate, and the rule that every key the gate leaves behind ends by itself."""

from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from flashsale import embedded
from flashsale.gate import Gate
from tests.gate.support import immortal_keys, plain_client
from tests.support import Node


@pytest.fixture(scope="session")
async def valkey(urls: embedded.Servers) -> AsyncIterator["redis.asyncio.Redis"]:
    """A plain client of the session's Valkey."""
    async with plain_client(urls.redis_url) as client:
        yield client


@pytest.fixture
def gate(node: Node) -> Gate:
    """The gate over the session's Valkey."""
    return node.gate


@pytest.fixture(autouse=True)
async def every_key_has_a_time_to_live(valkey: "redis.asyncio.Redis") -> AsyncIterator[None]:
    """Demands, after each test of this folder, that no key of the gate stays for ever, whatever the test did."""
    yield
    leaked = await immortal_keys(valkey)
    if leaked:
        await valkey.unlink(*leaked)  # so that the next test is not blamed
    assert leaked == []
