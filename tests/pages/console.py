"""What tests of the console share: opening a page of it, and waiting until it is filled."""

from typing import Any, Final

from playwright.async_api import Page, expect

from tests.pages.conftest import Visit
from tests.pages.support import MEMBERS, WAIT_MS, Opened
from tests.pages.test_screens import shoot

DESK: Final = {"width": 1440, "height": 900}


async def open_console(visit: Visit, path: str, *, role: str | None = "ops", lang: str = "en", **options: Any) -> Page:  # noqa: ANN401 -- playwright's
    """A page of the console, filled, as somebody with this role sees it."""
    options = {"viewport": DESK, "allow": ("404 (Not Found)", "status of 412"), **options}
    opened = await visit(f"/{lang}/ops{path}", member=next(MEMBERS), role=role, **options)
    await shown(opened.page)
    return opened.page


async def shown(page: Page) -> None:
    """Return when the page is filled."""
    await expect(page.locator("html[data-ready]")).to_be_attached(timeout=WAIT_MS)


async def keep(page: Page, name: str) -> None:
    """Keep pictures of the page as it is, light and dark."""
    await shoot(Opened(page=page, window=page.context), f"console-{name}")


async def told(page: Page, text: str) -> None:
    """Return when the page has said this."""
    await expect(page.locator("#told")).to_contain_text(text, timeout=WAIT_MS)
