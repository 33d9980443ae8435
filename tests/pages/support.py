"""What tests of the pages share: the service, and what they do in a page."""

import itertools
from collections.abc import Callable

import msgspec
from playwright.async_api import BrowserContext, Locator, Page, expect

from flashsale.web.auth import Identity
from flashsale.web.context import Context
from flashsale.web.session import COOKIE, HINT

MEMBERS = itertools.count(7_000_001)
WAIT_MS = 20_000


class Service(msgspec.Struct, frozen=True):
    """The running application."""

    url: str
    context: Context
    token: Callable[..., str]

    async def sign_in(self, window: BrowserContext, member: int, role: str | None = None, tier: int = 0) -> None:
        """Give a browser window the session of a member."""
        sessions = self.context.sessions
        assert sessions is not None
        session = sessions.open(Identity(member, role or "shopper", tier))  # type: ignore[arg-type]
        text = sessions.text(session)
        await window.add_cookies(
            [
                {"name": COOKIE, "value": text, "url": self.url, "httpOnly": True, "sameSite": "Lax"},
                {"name": HINT, "value": "1", "url": self.url, "sameSite": "Lax"},
            ]
        )


class Opened(msgspec.Struct, frozen=True):
    """A page that was opened, and its window."""

    page: Page
    window: BrowserContext

    @property
    def act(self) -> Locator:
        """The panel with the button."""
        return self.page.locator("#act")

    @property
    def buy(self) -> Locator:
        """The button."""
        return self.page.locator("#buy")

    async def state(self, *names: str) -> None:
        """Return when the panel is in one of these states."""
        await expect(self.page.locator(",".join(f'#act[data-state="{n}"]' for n in names))).to_be_visible(
            timeout=WAIT_MS
        )
