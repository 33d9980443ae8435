"""A migrated database for the tests of this folder, apart from everybody else's drops."""

from collections.abc import AsyncIterator

import pytest

from flashsale import embedded
from flashsale.ledger import Ledger
from tests.ledger.support import new_database
from tests.support import TIMEOUT_S


@pytest.fixture(scope="package")
async def database_url(urls: embedded.Servers) -> AsyncIterator[str]:
    """Its URL."""
    async with new_database(urls.database_url) as url:
        yield url


@pytest.fixture(scope="package")
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    """The ledger in it, with connections enough for a race."""
    made = await Ledger.connect(database_url, pool_max=10, timeout_s=TIMEOUT_S)
    yield made
    await made.aclose()
