"""What tests of the pages share: the service, and what they do in a page."""

import itertools
from collections.abc import Callable

import msgspec
from playwright.async_api import BrowserContext, Locator, Page, Request, expect

from flashsale.domain import Reservation
from flashsale.reservations import Held
from flashsale.web.auth import Identity
from flashsale.web.context import Context
from flashsale.web.session import COOKIE, HINT
from tests.support import claim

MEMBERS = itertools.count(7_000_001)
WAIT_MS = 30_000


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


def pressed_paths(page: Page) -> list[Request]:
    """The presses that this page sends from now on."""
    sent: list[Request] = []
    page.on("request", lambda r: sent.append(r) if r.method == "POST" and r.url.endswith("/reservations") else None)
    return sent


async def uninformed(page: Page) -> None:
    """The page hears nothing of how the sale goes."""
    for path in ("status", "events"):
        await page.route(f"**/{path}", lambda route: route.fulfill(status=503))


async def hold(service: Service, drop_id: str, member: int) -> Reservation:
    """Another member takes a unit, without a browser."""
    outcome = await service.context.reservations.reserve(drop_id, claim(member))
    assert isinstance(outcome, Held), outcome
    found = await service.context.ledger.reservations.get(outcome.grant.id)
    assert found is not None
    return found
