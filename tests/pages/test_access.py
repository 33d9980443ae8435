"""Everybody can use the pages: axe finds nothing, the keyboard is enough, nothing is cut off at 320 pixels."""

import json
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from flashsale.domain import Fcode
from tests.pages.conftest import NewSale, Visit
from tests.pages.support import Service, hold
from tests.support import allocation

RULES: dict[str, Any] = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]},
    "rules": {"target-size": {"enabled": True}},
}
PAGES = [
    "/{lang}/",
    "/{lang}/d/{drop}",
    "/{lang}/reservations",
    "/{lang}/fcodes",
    "/{lang}/sign-in",
    "/{lang}/none/such",
]
TOO_SMALL = """
[...document.querySelectorAll("a, button, input")]
  .filter((each) => each.offsetParent !== null && !each.closest(".skip") && !each.classList.contains("skip"))
  .map((each) => [each.id || each.textContent.trim() || each.className, each.getBoundingClientRect()])
  .filter(([name, box]) => box.height < (name === "buy" ? 56 : 44) - 0.01)
  .map(([name, box]) => `${name}: ${box.height}`)
"""


async def findings(page: Page) -> list[str]:
    """What axe finds."""
    found = await Axe().run(page, options=RULES)
    return [
        f"{each['id']}: {node['html']} {json.dumps(node['any'])[:300]}"
        for each in found.response["violations"]
        for node in each["nodes"]
    ]


async def a_drop(new_sale: NewSale) -> str:
    """One with batches and a lane."""
    drop = await new_sale(allocation(), allocation("b", opens_in_s=3000), allocation("v", access=Fcode()))
    return drop.id


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_on_any_page(
    visit: Visit, new_sale: NewSale, service: Service, member: int, scheme: str
) -> None:
    """Also of an F-code with a typo, and of what is held; in both languages."""
    drop = await a_drop(new_sale)
    await hold(service, (await new_sale()).id, member)
    wrong = []
    opened = await visit(
        "/en/", member=member, color_scheme=scheme, reduced_motion="reduce", allow=("404 (Not Found)",)
    )  # calm: no colour is half-way when it is looked at
    for number, path in enumerate(PAGES):
        lang = ("en", "zh")[(number + (scheme == "dark")) % 2]
        await opened.page.goto(path.format(lang=lang, drop=drop))
        if path.endswith("{drop}"):
            await opened.state("open")
            await opened.page.locator("#code").fill("0110-0000-8BX2-CFN8-2VW2")
        if path.endswith("reservations"):
            await expect(opened.page.locator("#rows li")).to_have_count(2)
        wrong += [f"{path} {each}" for each in await findings(opened.page)]
        if path.endswith("{drop}"):
            await opened.buy.click()
            await opened.state("held")
            wrong += [f"held {each}" for each in await findings(opened.page)]
    assert wrong == []


async def test_axe_can_find_something(visit: Visit) -> None:
    """The negative control: a picture without words, a small link."""
    opened = await visit("/en/")
    await opened.page.evaluate("document.querySelector('main').append(document.createElement('img'))")
    assert any("image-alt" in each for each in await findings(opened.page))


async def test_targets_are_large_and_nothing_is_cut_off_at_320_pixels(
    visit: Visit, new_sale: NewSale, member: int
) -> None:
    drop = await a_drop(new_sale)
    narrow = {"width": 320, "height": 640}
    opened = await visit("/en/", member=member, viewport=narrow, allow=("404 (Not Found)",))
    for lang in ("en", "zh"):
        for path in PAGES:
            await opened.page.goto(path.format(lang=lang, drop=drop))
            assert await opened.page.evaluate("document.scrollingElement.scrollWidth") <= 320, path
            assert await opened.page.evaluate(TOO_SMALL) == [], path


async def test_the_keyboard_is_enough(visit: Visit, new_sale: NewSale, member: int) -> None:
    """Tab to the button, Enter to press, Enter to confirm: the focus stays where it is, and can be seen."""
    drop = await new_sale()
    opened = await visit(f"/en/d/{drop.id}", member=member)
    await opened.state("open")
    await expect(opened.buy).to_have_attribute("aria-disabled", "false")
    keyboard = opened.page.keyboard
    await keyboard.press("Tab")
    await expect(opened.page.locator(".skip")).to_be_focused()
    await keyboard.press("Enter")
    await expect(opened.page.locator("#main")).to_be_focused()
    await keyboard.press("Tab")
    await expect(opened.buy).to_be_focused()
    assert await opened.buy.evaluate("(e) => getComputedStyle(e).outlineStyle") == "solid"
    await keyboard.press("Enter")
    await opened.state("held")
    await expect(opened.buy).to_be_focused()
    await keyboard.press("Tab")
    await expect(opened.page.locator("#more")).to_be_focused()
    await keyboard.press("Shift+Tab")
    await keyboard.press("Enter")
    await opened.state("confirmed")
    await expect(opened.buy).to_be_focused()


async def test_forced_colours_and_reduced_motion(visit: Visit, new_sale: NewSale, member: int) -> None:
    """The button has an edge where colours are taken away; nothing moves where that is asked for."""
    drop = await new_sale()
    opened = await visit(f"/en/d/{drop.id}", member=member, forced_colors="active", reduced_motion="reduce")
    await opened.state("open")
    assert await opened.buy.evaluate("(e) => getComputedStyle(e).borderTopWidth") == "3px"
    assert await opened.buy.evaluate("(e) => getComputedStyle(e).transitionProperty") == "none"
