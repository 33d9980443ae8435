"""The sale that is audited, made once."""

from collections.abc import AsyncIterator

import pytest

from flashsale import embedded
from tests.audit.world import World, sold


@pytest.fixture(scope="session")
async def end_of_sale(urls: embedded.Servers) -> AsyncIterator[World]:
    """A sale with everything in it, at its end."""
    async with sold(urls) as world:
        yield world


@pytest.fixture
async def world(end_of_sale: World) -> AsyncIterator[World]:
    """The sale, as it was after the test, too."""
    yield end_of_sale
    await end_of_sale.restore()
