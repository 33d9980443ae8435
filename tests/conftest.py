"""Real servers for the whole session, and the parts of one process over them."""

from collections.abc import AsyncIterator

import pytest

from flashsale import embedded
from flashsale.domain import Allocation, Drop
from flashsale.ledger.migrate import migrate
from tests.support import NewDrop, Node, make_drop, make_node


@pytest.fixture(scope="session")
async def urls() -> AsyncIterator[embedded.Servers]:
    """`redis_url` and `database_url` of an embedded Valkey and a migrated embedded Postgres, and their `supervisor`."""
    async with embedded.temporary() as servers:
        await migrate(servers.database_url)
        yield servers


@pytest.fixture(scope="session")
async def node(urls: embedded.Servers) -> AsyncIterator[Node]:
    """One process over the session's servers, shared by tests that use drops of their own."""
    made = await make_node(urls)
    yield made
    await made.aclose()


@pytest.fixture
def new_drop(node: Node) -> NewDrop:
    """Set up a drop with these allocations, its limit and its hold time."""

    async def make(
        *allocations: Allocation, per_member: int = 1, hold_seconds: int = 900, rebuy_after_return: bool = False
    ) -> Drop:
        wanted = make_drop(
            *allocations, per_member=per_member, hold_seconds=hold_seconds, rebuy_after_return=rebuy_after_return
        )
        return await node.operations.create(wanted, actor="member:1", detail={})

    return make
