"""Every page of the console can be used by everybody, and has its picture: build/pages/console-*.png."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from playwright.async_api import Page, expect

from flashsale.domain import Fcode, OrderState, Points, Text, Texts, Tier
from flashsale.ledger.orders import Tried
from flashsale.points import import_points
from tests.pages.conftest import NewSale, Visit
from tests.pages.console import DESK, keep, open_console, shown
from tests.pages.support import MEMBERS, Service, hold
from tests.pages.test_access import findings
from tests.support import allocation, make_drop, unique

PHONE = {"width": 390, "height": 844}
NARROW = {"width": 320, "height": 640}
PAGES = (
    "",
    "/new",
    "/drops/{drop}",
    "/drops/{drop}/live",
    "/drops/{drop}/report",
    "/drops/{drop}/rehearsals",
    "/fcodes",
    "/fcodes/{batch}",
    "/points",
    "/orders",
    "/audit",
)
TOO_SMALL = """
[...document.querySelectorAll("a, button, summary, select, textarea, input:not([type=checkbox]), .check")]
  .filter((each) => each.offsetParent !== null && !each.classList.contains("skip"))
  .map((each) => [each.id || each.textContent.trim() || each.className, each.getBoundingClientRect()])
  .filter(([, box]) => box.height < 43.99 || box.width < 43.99)
  .map(([name, box]) => `${name}: ${box.width} × ${box.height}`)
"""


@pytest.fixture(scope="module")
async def sale(service: Service) -> dict[str, str]:
    """A drop with all kinds of allocations, of which some is sold, an order of it is dead, and F-codes are minted."""
    operations, ledger = service.context.operations, service.context.ledger
    snapshot = unique("august")

    async def points() -> AsyncIterator[bytes]:
        yield b"member_id,points\n" + b"".join(b"%d,%d\n" % (n, n * n % 997) for n in range(1, 400))

    cutoff = datetime(2026, 8, 16, tzinfo=UTC)
    await import_points(ledger.points, points(), snapshot=snapshot, cutoff=cutoff, actor="member:1")
    drop = await operations.create(
        make_drop(
            allocation("members", 200, access=Points(snapshot, 100), opens_in_s=-300),
            allocation("core", 40, access=Tier(2), opens_in_s=600),
            allocation("friends", 30, access=Fcode(), opens_in_s=-900),
            allocation("everyone", 60, opens_in_s=-60, closes_in_s=1800),
            texts=Texts(zh=Text(title="正午手机 工程版"), en=Text(title="Noon phone, engineering edition")),
        ),
        actor="member:1",
        detail={},
    )
    await service.context.batches.mint(
        drop.id, "friends", count=20, expires_at=None, note="campus club", actor="member:1"
    )
    batches = await ledger.fcodes.page(None, 1)
    for number in range(9):
        held = await hold(service, drop.id, next(MEMBERS))
        if number < 4:
            confirmed = await service.context.reservations.confirm(held.id, member=held.member)
            if number == 0 and confirmed.reservation is not None and confirmed.reservation.order is not None:
                dead = Tried(confirmed.reservation.order, OrderState.DEAD, "The shop answered 500.")
                await ledger.orders.settle([dead])
    return {"drop": drop.id, "batch": str(batches[0].id)}


async def settled(page: Page, path: str) -> None:
    """Return when the page shows what it is about."""
    await shown(page)
    if path.endswith("/live"):
        await expect(page.locator("[data-part=balance]")).to_have_attribute("data-state", "good")
        await expect(page.locator("[data-part=rates] canvas")).to_be_visible()
    if path.endswith("{drop}"):
        await expect(page.locator("#checks li").first).to_be_visible()
    if path == "/points":
        await expect(page.locator("#chart canvas")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_on_any_page_of_the_console(visit: Visit, sale: dict[str, str], scheme: str) -> None:
    """In one language each, with its folded parts open."""
    wrong, page = [], await open_console(visit, "", color_scheme=scheme)
    for number, path in enumerate(PAGES):
        lang = ("en", "zh")[(number + (scheme == "dark")) % 2]
        await page.goto(f"/{lang}/ops{path.format(**sale)}")
        await settled(page, path)
        await page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        wrong += [f"{path} {each}" for each in await findings(page)]
    assert wrong == []


async def test_targets_are_large_and_nothing_of_the_console_is_cut_off_at_320_pixels(
    visit: Visit, sale: dict[str, str]
) -> None:
    """Wide tables scroll within themselves; nothing else does."""
    page = await open_console(visit, "", viewport=NARROW)
    for number, path in enumerate(PAGES):
        lang = ("en", "zh")[number % 2]
        await page.goto(f"/{lang}/ops{path.format(**sale)}")
        await settled(page, path)
        await page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        assert await page.evaluate("document.scrollingElement.scrollWidth") <= NARROW["width"], path
        assert await page.evaluate(TOO_SMALL) == [], path


async def test_the_balance_and_the_stop_can_be_told_without_colours(visit: Visit, sale: dict[str, str]) -> None:
    """Where colours are taken away there are words, signs and edges; where motion is unwelcome nothing moves."""
    page = await open_console(
        visit, "/drops/{drop}/live".format(**sale), forced_colors="active", reduced_motion="reduce"
    )
    sign = page.locator(".balance .sign")
    await expect(page.locator("[data-part=balance]")).to_have_attribute("data-state", "good")
    assert await sign.evaluate("(e) => getComputedStyle(e, '::before').content") == '"✓"'
    assert await page.locator("#stop").evaluate("(e) => getComputedStyle(e).borderTopWidth") == "2px"
    bar = page.locator(".lefts .bar span").first
    assert await bar.evaluate("(e) => getComputedStyle(e).transitionProperty") == "none"


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("size", ["phone", "desk"])
async def test_every_page_of_the_console_has_its_picture(
    visit: Visit, sale: dict[str, str], size: str, lang: str
) -> None:
    """Each is there and no blank; whether it is something to be proud of, a person tells."""
    viewport = {"phone": PHONE, "desk": DESK}[size]
    page = await open_console(visit, "", lang=lang, viewport=viewport)
    for path in PAGES:
        await page.goto(f"/{lang}/ops{path.format(**sale)}")
        await settled(page, path)
        name = path.replace("/drops/{drop}", "/drop").replace("/{batch}", "-one").strip("/").replace("/", "-")
        await keep(page, f"{size}-{lang}-{name or 'drops'}")


async def test_the_way_in_has_its_picture(visit: Visit) -> None:
    """Who is nobody is asked to sign in."""
    opened = await visit("/en/ops", viewport=DESK)
    await expect(opened.page.locator("#barred")).to_be_visible()
    assert await findings(opened.page) == []
    await keep(opened.page, "desk-en-barred")


async def test_a_page_without_its_drop_says_so(visit: Visit, new_sale: NewSale) -> None:
    """There is no such drop: the page says what the API says."""
    await new_sale()
    page = await open_console(visit, "/drops/no-such-drop")
    await expect(page.locator("#told")).to_contain_text("There is no drop 'no-such-drop'")
