"""F-codes in the page: forgiving, grouped, and a typo is caught before anything is sent."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from importlib.resources import files

from playwright.async_api import Page, Route, expect

from flashsale.domain import Fcode
from flashsale.owners import owners_of
from tests.pages.conftest import NewSale, Visit
from tests.pages.support import Opened, Service, pressed_paths
from tests.support import allocation

VECTORS = json.loads(files("fcodes").joinpath("vectors.json").read_text(encoding="ascii"))


async def lane(new_sale: NewSale, service: Service, count: int = 3) -> tuple[str, list[str]]:
    """A drop with a public batch to come and a lane for codes; and the codes."""
    drop = await new_sale(allocation("a", opens_in_s=3000), allocation("v", 10, access=Fcode()))
    batch = await service.context.batches.mint(drop.id, "v", count=count, expires_at=None, note=None, actor="member:1")
    _, parts = await service.context.batches.export(batch.id, actor="member:1", reason=None)
    text = b"".join([part async for part in parts]).decode()
    return drop.id, text.splitlines()[1:]


def typo(code: str) -> str:
    """The same with its first symbol mistaken."""
    return ("8" if code[0] != "8" else "7") + code[1:]


async def use(opened: Opened, text: str) -> None:
    """Type a code and send it, when the page knows who asks."""
    await expect(opened.page.locator("#who")).to_contain_text("Member ")
    await opened.page.locator("#code").fill(text)
    await opened.page.get_by_role("button", name="Use it").click()


async def test_a_code_that_is_sent_before_it_is_known_who_asks_is_not_lost(
    visit: Visit, new_sale: NewSale, service: Service, member: int
) -> None:
    """The page is quicker than the call that tells what is mine: the press waits for it."""
    drop, codes = await lane(new_sale, service)
    told = asyncio.Event()

    async def slow(page: Page) -> None:
        async def answer(route: Route) -> None:
            await told.wait()
            await route.continue_()

        await page.route(re.compile(r"/v1/me/drops/[^/]+$"), answer)

    opened = await visit(f"/en/d/{drop}", member=member, before=slow)
    await opened.state("upcoming")
    await opened.page.locator("#code").fill(codes[0])
    await opened.page.get_by_role("button", name="Use it").click()
    told.set()
    await opened.state("held")


async def test_a_typo_is_caught_and_the_code_buys(
    visit: Visit, new_sale: NewSale, service: Service, member: int
) -> None:
    """Typed in small letters with spaces; grouped as it is typed; nothing is sent while it is wrong."""
    drop, codes = await lane(new_sale, service)
    opened = await visit(f"/en/d/{drop}", member=member)
    sent = pressed_paths(opened.page)
    await opened.state("upcoming")
    await use(opened, typo(codes[0]))
    error = opened.page.locator("#code-error")
    await expect(error).to_have_text("Something is mistyped: compare it letter by letter.")
    await expect(opened.page.locator("#code")).to_have_attribute("aria-invalid", "true")
    await use(opened, codes[0][:9])
    await expect(error).to_have_text("A code has 20 letters and digits; this has 8.")
    await use(opened, "U" * 4)
    await expect(error).to_have_text("“U” occurs in no code.")
    assert sent == []
    await opened.page.locator("#code").fill("")
    await opened.page.locator("#code").press_sequentially(codes[0].replace("-", "").lower())
    await expect(opened.page.locator("#code")).to_have_value(codes[0])
    await expect(error).to_have_text("")
    await opened.page.keyboard.press("Enter")
    await opened.state("held")
    [found] = await service.context.ledger.pages.reservations(drop, member, 5)
    assert found.allocation == "v"


async def test_a_pasted_code_may_look_anyhow(visit: Visit, new_sale: NewSale, service: Service, member: int) -> None:
    """Full width, with dashes of any kind, O for 0."""
    drop, codes = await lane(new_sale, service)
    opened = await visit(f"/zh/d/{drop}", member=member)
    odd = "".join(chr(ord(sign) + 0xFEE0) if sign != "-" else " — " for sign in codes[0].replace("0", "O"))
    await opened.page.locator("#code").fill(odd)
    await expect(opened.page.locator("#code")).to_have_value(codes[0])


async def test_what_the_service_says_of_a_code_stands_at_the_code(
    visit: Visit, new_sale: NewSale, service: Service, member: int
) -> None:
    """A forged one, well formed; one that has been used."""
    drop, codes = await lane(new_sale, service)
    opened = await visit(f"/en/d/{drop}", member=member)
    await opened.state("upcoming")
    await use(opened, VECTORS["valid"][0]["code"])
    await expect(opened.page.locator("#code-error")).to_have_text("This F-code is not valid here.")
    other = await visit(f"/en/d/{drop}", member=member + 1_000_000)
    await other.state("upcoming")
    await use(other, codes[1])
    await other.state("held")
    await use(opened, codes[1])
    await expect(opened.page.locator("#code-error")).to_have_text("This F-code has been used.")


async def test_the_module_reads_codes_as_the_library_does(visit: Visit, new_sale: NewSale, service: Service) -> None:
    """The published vectors, valid and not."""
    drop, _ = await lane(new_sale, service, 1)
    opened = await visit(f"/en/d/{drop}")
    read = await parse_all(opened.page, [each["code"] for each in VECTORS["valid"]])
    assert [each.get("code") for each in read] == [each["code"] for each in VECTORS["valid"]]
    forgiving = await parse_all(opened.page, [each["text"] for each in VECTORS["forgiving"]])
    assert [each.get("code") for each in forgiving] == [each["code"] for each in VECTORS["forgiving"]]
    typos = await parse_all(opened.page, [each["text"] for each in VECTORS["typos"]])
    assert [each.get("slip") for each in typos] == [each["slip"] for each in VECTORS["typos"]]


async def parse_all(page: Page, texts: list[str]) -> list[dict[str, str]]:
    """What the page's module makes of these."""
    path = await page.evaluate("document.querySelector('link[href$=\"fcode.js\"]').href")
    found: list[dict[str, str]] = await page.evaluate(
        "async ([path, texts]) => { const { parse } = await import(path); return texts.map(parse); }", [path, texts]
    )
    return found


async def test_my_codes_are_listed_and_lead_to_their_sale(
    visit: Visit, new_sale: NewSale, service: Service, member: int
) -> None:
    """The one that is bound to me, and nobody else's; its code is in the field, and in no address that is sent."""
    drop = await new_sale(allocation("v", 10, access=Fcode()))

    async def owners() -> AsyncIterator[bytes]:
        yield b"member_id,note\n%d,a gift\n%d,\n" % (member, member + 1_000_000)

    await service.context.batches.mint_bound(
        drop.id, "v", owners_of(owners()), expires_at=None, note=None, actor="member:1"
    )
    opened = await visit("/en/fcodes", member=member)
    row = opened.page.locator("#rows li")
    await expect(row).to_have_count(1)
    await expect(row).to_contain_text("a gift")
    code = await row.locator(".code").text_content()
    await row.get_by_role("link", name="Use it").click()
    await expect(opened.page.locator("#code")).to_have_value(code or "")
    assert "code" not in opened.page.url
    await expect(opened.page.locator("#who")).to_contain_text(f"Member {member}")
    await opened.page.get_by_role("button", name="Use it").click()
    await opened.state("held")
