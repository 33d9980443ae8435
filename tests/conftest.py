"""Real servers for the whole session, and the parts of one process over them; how several processes share the tests."""

import os
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, settings

from flashsale import embedded
from flashsale.domain import Allocation, Drop
from flashsale.ledger.migrate import migrate
from tests.support import NewDrop, Node, make_drop, make_node

PROCESSES_MAX = 4

settings.register_profile(
    "anywhere", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)  # the same examples each time, on machines however slow
settings.load_profile("anywhere")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: a test often waits. Each has servers of its own, so there are not many."""
    return min(PROCESSES_MAX, (os.cpu_count() or 1) + 1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes take the tests file by file, the files that last long come first, or all wait for one."""
    if hasattr(config, "workerinput"):
        long = {item.path for item in items if item.get_closest_marker("long")}
        items.sort(key=lambda item: item.path not in long)


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
    """Set up a drop with these allocations, its limit, its hold time, its stripes."""

    async def make(
        *allocations: Allocation,
        per_member: int = 1,
        hold_seconds: int = 900,
        rebuy_after_return: bool = False,
        stripes: int = 1,
    ) -> Drop:
        wanted = make_drop(
            *allocations,
            per_member=per_member,
            hold_seconds=hold_seconds,
            rebuy_after_return=rebuy_after_return,
            stripes=stripes,
        )
        return await node.operations.create(wanted, actor="member:1", detail={})

    return make
