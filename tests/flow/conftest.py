"""An order queue of its own, and a shop: other tests leave orders waiting in theirs."""

from collections.abc import AsyncIterator

import pytest

from flashsale import embedded
from tests.flow.workers import Shop, opened_shop
from tests.ledger.support import new_database
from tests.support import Node, make_node


@pytest.fixture(scope="session")
async def database_url(urls: embedded.Servers) -> AsyncIterator[str]:
    """A database whose queue nobody else uses."""
    async with new_database(urls.database_url) as url:
        yield url


@pytest.fixture(scope="session")
async def queue_node(urls: embedded.Servers, database_url: str) -> AsyncIterator[Node]:
    """A process over that database."""
    made = await make_node(urls, database_url=database_url)
    yield made
    await made.aclose()


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with opened_shop() as opened:
        yield opened
