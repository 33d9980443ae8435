"""Where a member may have several: how many one asks for, what one hears, and how many more one may have."""

import pytest
from playwright.async_api import expect

from flashsale.domain import State
from flashsale.drops import AllocationChange
from tests.pages.conftest import NewSale, Visit
from tests.pages.support import Opened, Service, hold, pressed_paths, uninformed
from tests.support import allocation

pytestmark = pytest.mark.long


async def offered(opened: Opened) -> list[str]:
    """The numbers that one may choose."""
    return await opened.page.locator("#many option:not([disabled])").all_inner_texts()


async def test_several_are_bought_with_one_press_and_the_rest_with_another(
    visit: Visit, new_sale: NewSale, service: Service, member: int
) -> None:
    """Chosen before the opening; after two of three are ordered, one more may be had, and no more."""
    drop = await new_sale(allocation(quantity=5, opens_in_s=3000), per_member=3)
    opened = await visit(f"/en/d/{drop.id}", member=member)
    await opened.state("upcoming")
    many, text = opened.page.get_by_label("How many"), opened.page.locator("#act-text")
    await many.select_option("2")
    now = AllocationChange(opens_at=allocation().opens_at)
    await service.context.operations.change_allocation(drop.id, "a", now, actor="member:1")
    await opened.state("open")
    await expect(opened.buy).to_have_text("Buy 2 for CN¥3,398")
    await opened.buy.click()
    await opened.state("held")
    await expect(many).to_be_hidden()
    await expect(text).to_contain_text("2 are held for you until")
    await opened.buy.click()
    await opened.state("confirmed")
    await expect(text).to_contain_text("of 2 is on its way")
    assert await offered(opened) == ["1"]
    await expect(opened.buy).to_have_text("Buy for CN¥1,699")
    await opened.buy.click()
    await opened.state("held")
    await expect(text).to_contain_text("It is held for you until")
    await opened.buy.click()
    await opened.state("confirmed")
    await expect(opened.buy).to_have_text("My reservations")
    found = await service.context.ledger.pages.reservations(drop.id, member, 5)
    assert sorted((r.quantity, r.state) for r in found) == [(1, State.CONFIRMED), (2, State.CONFIRMED)]
    await opened.page.goto("/en/reservations")
    titles = opened.page.locator("#rows .title")
    await expect(titles).to_have_text([drop.title, f"2 × {drop.title}"])


async def test_who_asks_for_more_than_are_left_is_told_so_and_may_have_them(
    visit: Visit, new_sale: NewSale, member: int
) -> None:
    """Not sold out: two are there, and three were asked for."""
    drop = await new_sale(allocation(quantity=2), per_member=3)
    opened = await visit(f"/en/d/{drop.id}", member=member)
    await opened.state("open")
    sent = pressed_paths(opened.page)
    many = opened.page.get_by_label("How many")
    await many.select_option("3")
    await opened.buy.click()
    await opened.state("fewer")
    await expect(many).to_have_value("1")
    await many.select_option("2")
    await opened.buy.click()
    await opened.state("held")
    assert [request.post_data_json for request in sent] == [{"allocation": "a", "quantity": n} for n in (3, 2)]


async def test_who_asks_for_several_when_all_are_gone_hears_that(
    visit: Visit, new_sale: NewSale, service: Service, member: int
) -> None:
    """The status takes the advice back, long before it would go by itself."""
    drop = await new_sale(allocation(quantity=1), per_member=3)
    opened = await visit(f"/en/d/{drop.id}", member=member, before=uninformed, allow=("503",))
    await opened.state("open")
    await opened.page.get_by_label("How many").select_option("3")
    await hold(service, drop.id, member + 500_000)
    await opened.buy.click()
    await opened.state("fewer")
    await opened.page.unroute("**/status")
    await opened.page.evaluate("window.dispatchEvent(new Event('online'))")  # the page asks for the status
    await opened.state("taken")


async def test_where_one_is_all_there_is_nothing_to_choose(visit: Visit, new_sale: NewSale, member: int) -> None:
    drop = await new_sale()
    opened = await visit(f"/en/d/{drop.id}", member=member)
    await opened.state("open")
    await expect(opened.page.locator("#many")).to_have_count(0)
