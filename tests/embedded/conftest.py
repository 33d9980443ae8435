"""Folders that an unprivileged account can reach, and servers that several tests share."""

import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from flashsale import embedded


@contextlib.contextmanager
def _reachable_folder() -> Iterator[Path]:
    # pytest's own folders are closed to other accounts.
    with tempfile.TemporaryDirectory(prefix="flashsale-test-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture(scope="session")
def state_root() -> Iterator[Path]:
    """Stands in for /var/lib/flashsale; kept for the session, so that binaries are copied once at most."""
    with _reachable_folder() as folder:
        yield folder / "state"


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that every account can pass through."""
    with _reachable_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
async def servers() -> AsyncIterator[embedded.Servers]:
    """Both embedded servers, shared: a test may kill them but not change how they are set up."""
    async with embedded.temporary() as running:
        yield running
