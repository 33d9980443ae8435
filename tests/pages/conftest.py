"""The whole application with its pages, and one browser for all tests: Debian's Chromium, driven by Playwright."""

import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import ClientSession, web
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from fcodes import new_master
from flashsale import embedded
from flashsale.domain import Allocation, Drop, Texts
from flashsale.settings import Settings
from flashsale.web.app import Runner, make_runner
from flashsale.web.auth import mint
from flashsale.web.context import Context
from flashsale.web.routing import CONTEXT
from tests.pages.support import MEMBERS, WAIT_MS, Opened, Service
from tests.support import PATIENT, make_drop

FCODE_KEY = new_master(bytes(range(32)))
SECRET = "tests' secret, long enough for HS256: 32 bytes and more"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
REFUSALS = re.compile(r"responded with a status of (?:401|403|409|410|422|429|503)\b")
"""A browser reports them as if they were faults; they are answers, and the page shows each."""
PHONE = {"width": 390, "height": 844}

expect.set_options(timeout=WAIT_MS)

NewSale = Callable[..., Awaitable[Drop]]
Visit = Callable[..., Awaitable[Opened]]


@pytest.fixture(scope="module")
def changes() -> dict[str, Any]:
    """The settings that a file of tests has otherwise."""
    return {}


@pytest.fixture(scope="module")
async def runner(urls: embedded.Servers, changes: dict[str, Any]) -> AsyncIterator[Runner]:
    """The application, set up; anybody may sign in as anybody."""
    settings = Settings(
        redis_url=urls.redis_url,
        database_url=urls.database_url,
        jwt_secret=SECRET,
        fcode_keys=FCODE_KEY,
        fcode_tries_member_max=3,
        fcode_tries_address_max=100_000,  # all tests come from one address
        sign_in_demo=True,
        status_poll_s=0.5,
        streams_max=3,
        shutdown_timeout_s=5.0,
        **PATIENT,
        **changes,
    )
    made = await make_runner(settings)
    await made.setup()
    yield made
    await made.cleanup()


@pytest.fixture(scope="module")
async def service(runner: Runner) -> Service:
    """The running application: its address, its parts, tokens for its members."""
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    context: Context = runner.app[CONTEXT]

    def token(member: int, role: str | None = None, tier: int | None = None) -> str:
        return mint(SECRET, member=member, role=role, tier=tier, expires_at=time.time() + 3600)  # type: ignore[arg-type]

    return Service(url=f"http://127.0.0.1:{runner.addresses[0][1]}", context=context, token=token)


@pytest.fixture(scope="module")
async def http(service: Service) -> AsyncIterator[ClientSession]:
    """A client without a browser."""
    async with ClientSession(service.url) as session:
        yield session


@pytest.fixture
def new_sale(service: Service) -> NewSale:
    """Set up a drop with these allocations, its words and its picture."""

    async def make(
        *allocations: Allocation,
        texts: Texts | None = None,
        picture: str | None = None,
        per_member: int = 1,
        hold_seconds: int = 900,
    ) -> Drop:
        wanted = make_drop(
            *allocations, per_member=per_member, hold_seconds=hold_seconds, texts=texts or Texts(), picture=picture
        )
        return await service.context.operations.create(wanted, actor="member:1", detail={})

    return make


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium; without one the tests say so and, on CI, fail."""
    chromium = shutil.which("chromium")
    if chromium is None:
        reason = "chromium is not installed (Debian: apt install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; on CI that is a failure.")
        pytest.skip(reason)
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield launched
        await launched.close()


@pytest.fixture
async def visit(browser: Browser, service: Service) -> AsyncIterator[Visit]:
    """Open a page: `visit("/en/d/x", member=7)`. What its console complains about fails the test.

    `context` opens it as another tab of the same browser window; `allow` names complaints that are expected.
    """
    async with AsyncExitStack() as closing:
        complaints: list[str] = []

        async def open_page(
            path: str,
            *,
            member: int | None = None,
            role: str | None = None,
            context: BrowserContext | None = None,
            before: Callable[[Page], Awaitable[None]] | None = None,
            allow: tuple[str, ...] = (),
            **options: Any,  # noqa: ANN401 -- playwright's
        ) -> Opened:
            window = context
            if window is None:
                window = await browser.new_context(**{"base_url": service.url, "viewport": PHONE, **options})
                closing.push_async_callback(window.close)
                window.set_default_timeout(WAIT_MS)
            if member is not None:
                await service.sign_in(window, member, role)
            page = await window.new_page()

            def complain(text: str) -> None:
                if not REFUSALS.search(text) and not any(each in text for each in allow):
                    complaints.append(text)

            page.on("console", lambda m: complain(f"{m.text} {m.location}") if m.type in {"error", "warning"} else None)
            page.on("pageerror", lambda e: complain(str(e)))
            if before is not None:
                await before(page)
            await page.goto(path)
            return Opened(page=page, window=window)

        yield open_page
    assert complaints == []


@pytest.fixture
def member() -> int:
    """A member that no other test uses."""
    return next(MEMBERS)
