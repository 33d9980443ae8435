"""Pictures of every page, to be looked at: build/pages/, on a phone and a desk, in both languages, light and dark."""

from importlib.resources import files
from pathlib import Path

import pytest
from playwright.async_api import expect

from flashsale.domain import Fcode, Text, Texts
from flashsale.drops import DropChange
from tests.pages.conftest import NewSale, Visit
from tests.pages.support import MEMBERS, Opened, Service
from tests.support import allocation

pytestmark = pytest.mark.long

FOLDER = Path(__file__).parents[2] / "build/pages"
SIZES = {"phone": {"width": 390, "height": 844}, "desk": {"width": 1440, "height": 900}}
PICTURE = files("flashsale").joinpath("demo.webp").read_bytes()
TEXTS = Texts(
    zh=Text(
        title="正午手机 工程版",
        description="六百台工程版，分批开售。与正式版同样的屏幕、同样的处理器，机身是第一批手工调色的赤陶橙。\n\n"
        "每位会员限购一台。",
    ),
    en=Text(
        title="Noon phone, engineering edition",
        description="A small first run, sold in batches. The same screen and the same processor as the phone that "
        "follows, in the first terracotta that was mixed by hand.\n\nOne for each member.",
    ),
)
BARE = Texts(
    zh=Text(title="论坛十周年纪念徽章", description="银色珐琅，直径三厘米，背面刻有会员号。"),
    en=Text(title="Tenth anniversary badge", description="Silver enamel, three centimetres, your number on the back."),
)


NOTICED = Texts(
    zh=Text(title="论坛十周年纪念徽章", notice="正在清点库存，中午十二点半继续。"),
    en=Text(title="Tenth anniversary badge", notice="We are counting the stock, and go on at half past twelve."),
)


async def put_picture(service: Service) -> str:
    """The demo's picture, in this service."""
    name = "0123456789abcdef0123-960x960.webp"
    await service.context.ledger.pages.put_picture(name, PICTURE)
    return name


async def shoot(opened: Opened, name: str) -> None:
    """Keep pictures of the whole page, light and dark."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        await opened.page.emulate_media(color_scheme=scheme)
        path = FOLDER / f"{name}-{scheme}.png"
        await opened.page.screenshot(path=path, full_page=True, animations="disabled")
        assert path.stat().st_size > 5_000


async def shoot_a_sale(opened: Opened, new_sale: NewSale, picture: str, lang: str, name: str) -> None:
    """To come, open, held, ordered."""
    batches = allocation("a", opens_in_s=754), allocation("b", opens_in_s=90_000, closes_in_s=99_000)
    upcoming = await new_sale(*batches, texts=TEXTS, picture=picture)
    await opened.page.goto(f"/{lang}/d/{upcoming.id}")
    await opened.state("upcoming")
    await shoot(opened, f"{name}-upcoming")
    drop = await new_sale(allocation("a", 1), allocation("v", 5, access=Fcode()), texts=TEXTS, picture=picture)
    await opened.page.goto(f"/{lang}/d/{drop.id}")
    await opened.state("open")
    await expect(opened.buy).to_have_attribute("aria-disabled", "false")
    await shoot(opened, f"{name}-open")
    await opened.buy.click()
    await opened.state("held")
    await shoot(opened, f"{name}-held")
    await opened.buy.click()
    await opened.state("confirmed")
    await shoot(opened, f"{name}-confirmed")


async def shoot_words(opened: Opened, new_sale: NewSale, service: Service, lang: str, name: str) -> None:
    """Several for each; a drop without a picture, days away; then paused, with what the shop has to say."""
    several = await new_sale(allocation("a"), texts=BARE, per_member=3)
    await opened.page.goto(f"/{lang}/d/{several.id}")
    await opened.state("open")
    await opened.page.locator("#many").select_option("2")
    await shoot(opened, f"{name}-several")
    bare = await new_sale(allocation("a", opens_in_s=200_000, closes_in_s=300_000), texts=BARE)
    await opened.page.goto(f"/{lang}/d/{bare.id}")
    await opened.state("upcoming")
    await shoot(opened, f"{name}-bare")
    await service.context.operations.edit(bare.id, DropChange(texts=NOTICED), actor="member:1")
    await service.context.operations.switch(bare.id, "pause", actor="member:1")
    await opened.state("paused")
    await expect(opened.page.locator("#notice")).to_be_visible()
    await shoot(opened, f"{name}-paused")


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("size", ["phone", "desk"])
async def test_every_page_has_its_picture(
    visit: Visit, new_sale: NewSale, service: Service, size: str, lang: str
) -> None:
    """Each is there and no blank; whether it is something to be proud of, a person tells."""
    member, name = next(MEMBERS), f"{size}-{lang}"
    picture = await put_picture(service)
    opened = await visit(f"/{lang}/none", member=member, viewport=SIZES[size], allow=("404 (Not Found)",))
    await shoot(opened, f"{name}-none")
    await shoot_a_sale(opened, new_sale, picture, lang, name)
    await shoot_words(opened, new_sale, service, lang, name)
    for page in ("", "reservations", "fcodes", "sign-in"):
        await opened.page.goto(f"/{lang}/{page}")
        if page == "reservations":
            await expect(opened.page.locator("#rows li")).to_have_count(1)
        await shoot(opened, f"{name}-{page or 'album'}")
