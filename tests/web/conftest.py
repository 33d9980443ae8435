"""The whole application over real servers, served on a free port in this process."""

import time
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import ClientSession, web

from fcodes import new_master
from flashsale import embedded
from flashsale.settings import Settings
from flashsale.web.app import Runner, make_runner
from flashsale.web.auth import mint
from tests.support import PATIENT

FCODE_KEY = new_master(bytes(range(32)))
SECRET = "tests' secret, long enough for HS256: 32 bytes and more"


@pytest.fixture(scope="module")
async def runner(urls: embedded.Servers) -> AsyncIterator[Runner]:
    """The application, set up."""
    settings = Settings(
        redis_url=urls.redis_url,
        database_url=urls.database_url,
        jwt_secret=SECRET,
        fcode_keys=FCODE_KEY,
        fcode_tries_address_max=100_000,  # all tests come from one address
        shutdown_timeout_s=5.0,
        **PATIENT,
    )
    made = await make_runner(settings)
    await made.setup()
    yield made
    await made.cleanup()


@pytest.fixture(scope="module")
async def service(runner: Runner) -> str:
    """Base URL of the running application."""
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}"


@pytest.fixture(scope="module")
async def http(service: str) -> AsyncIterator[ClientSession]:
    """A client of the application: `http.get("/v1/drops")`."""
    async with ClientSession(service) as session:
        yield session


Token = Callable[..., dict[str, str]]


@pytest.fixture(scope="session")
def token() -> Token:
    """Headers of a member: `token(7)`, `token(7, role="ops")`, `token(7, tier=2)`."""

    def headers(member: int = 1, role: str | None = None, tier: int | None = None) -> dict[str, str]:
        text = mint(SECRET, member=member, role=role, tier=tier, expires_at=time.time() + 3600)  # type: ignore[arg-type]
        return {"Authorization": f"Bearer {text}"}

    return headers
