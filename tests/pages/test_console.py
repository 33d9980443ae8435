"""Operators set up and run a drop in the browser."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from playwright.async_api import Page, expect

from flashsale.domain import Drop, Fcode
from tests.pages.conftest import NewSale, Visit
from tests.pages.console import DESK, keep, open_console, shown, told
from tests.pages.support import Service, hold
from tests.support import allocation, unique


def local(service: Service, moment: datetime) -> str:
    """A moment as one types it: the wall clock of the pages' zone."""
    return moment.astimezone(ZoneInfo(service.context.settings.zone)).strftime("%Y-%m-%dT%H:%M:%S")


async def the_drop(service: Service, drop_id: str) -> Drop:
    """The drop as the ledger has it."""
    found = await service.context.ledger.drops.get(drop_id)
    assert found is not None
    return found


async def audit(service: Service, drop_id: str) -> list[str]:
    """What was done to a drop, oldest first."""
    return [line.action for line in reversed(await service.context.operations.audit(drop_id, None, 100))]


async def fill_in(page: Page, service: Service, drop_id: str) -> datetime:
    """Fill in the form of a new drop; when it opens."""
    opens = (datetime.now(UTC) + timedelta(hours=2)).replace(microsecond=0)
    await page.fill("#id", drop_id)
    await page.fill("#plain-title", "Noon phone")
    await page.fill("#price", "1699")
    await page.fill("#list-price", "1999.50")
    await page.fill("#zh-title", "正午手机")
    await page.fill("#en-title", "Noon phone")
    first = page.locator("#allocations fieldset").first
    await first.get_by_label("Opens").fill(local(service, opens))
    await first.get_by_label("Closes").fill(local(service, opens + timedelta(hours=1)))
    await first.get_by_label("Units").fill("200")
    return opens


async def test_an_operator_sets_up_a_drop_and_releases_it(visit: Visit, service: Service) -> None:
    """It waits for its release; what is missing is said, and is passed over only with a reason."""
    page, drop_id = await open_console(visit, "/new"), unique("noon")
    opens = await fill_in(page, service, drop_id)
    await page.click("#add")
    await page.locator("#allocations fieldset").nth(1).get_by_label("Name").fill("b")
    await page.click("#save")
    await page.wait_for_url(f"**/en/ops/drops/{drop_id}")
    await shown(page)
    drop = await the_drop(service, drop_id)
    assert drop.held
    assert (drop.price.amount, drop.list_price.amount if drop.list_price else 0) == (169_900, 199_950)
    assert [(a.id, a.quantity, a.opens_at) for a in drop.allocations] == [("a", 200, opens), ("b", 200, opens)]
    assert drop.texts.zh.title == "正午手机"
    await expect(page.locator("#ready")).to_contain_text("Missing before the opening")
    await page.click("#resume")
    await page.locator(".ask .yes").click()
    await told(page, "something is missing")
    await page.locator(".ask .yes").click()
    await expect(page.locator(".ask .error")).to_have_text("Fill this in.")
    await page.locator(".ask input").fill("the shop comes later")
    await page.locator(".ask .yes").click()
    await told(page, "Released")
    assert not (await the_drop(service, drop_id)).paused


async def test_what_is_wrong_is_said_at_its_field(visit: Visit, service: Service, new_sale: NewSale) -> None:
    """First what is empty; then the API's own message, at the field that it is about, which has the focus."""
    taken, page = await new_sale(), await open_console(visit, "/new")
    await page.click("#save")
    await expect(page.locator("#id")).to_be_focused()
    await expect(page.locator("#id-error")).to_have_text("Fill this in.")
    await fill_in(page, service, taken.id)
    await page.click("#save")
    await expect(page.locator("#id-error")).to_contain_text("is taken by another drop")
    await page.fill("#id", unique("wrong"))
    await page.fill("#per-member", "0")
    await page.click("#save")
    await expect(page.locator("#per-member")).to_be_focused()
    assert "per-member-error" in (await page.locator("#per-member").get_attribute("aria-describedby") or "")
    await page.fill("#per-member", "1")
    closes = page.locator("#allocations fieldset").first.get_by_label("Closes")
    await closes.fill(local(service, datetime.now(UTC)))
    await page.click("#save")
    await expect(closes).to_be_focused()
    await expect(page.locator("#allocations .error:not(:empty)")).to_contain_text("closes before it opens")
    await keep(page, "desk-en-wrong")


async def test_a_past_drop_is_copied(visit: Visit, service: Service, new_sale: NewSale) -> None:
    """Its windows move into the future, and its name is free."""
    drop = await new_sale(allocation("x", 7, opens_in_s=-7200, closes_in_s=-3600))
    page = await open_console(visit, f"/new?copy={drop.id}")
    assert await page.input_value("#id") not in {"", drop.id}
    name = unique("copied")
    await page.fill("#id", name)
    await page.click("#save")
    await page.wait_for_url(f"**/ops/drops/{name}")
    copied = await the_drop(service, name)
    assert [(a.id, a.quantity) for a in copied.allocations] == [("x", 7)]
    assert copied.held
    assert copied.allocations[0].opens_at > datetime.now(UTC)


async def test_stopping_is_one_press_and_the_rest_asks(visit: Visit, service: Service, new_sale: NewSale) -> None:
    """By the keyboard alone; Escape leaves it as it is."""
    drop = await new_sale()
    page = await open_console(visit, f"/drops/{drop.id}")
    await page.focus("#stop")
    await page.keyboard.press("Enter")
    await told(page, "Stopped")
    assert (await the_drop(service, drop.id)).paused
    await expect(page.locator("#resume")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator(".ask .no")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.locator(".ask")).to_have_count(0)
    assert (await the_drop(service, drop.id)).paused
    await page.keyboard.press("Enter")
    await page.locator(".ask .yes").press("Enter")
    await told(page, "The sale goes on")
    assert not (await the_drop(service, drop.id)).paused
    await page.click("#close")
    await page.locator(".ask input").fill("all found")
    await keep(page, "desk-en-asked")
    await page.locator(".ask .yes").click()
    await told(page, "Closed for good")
    assert (await the_drop(service, drop.id)).closed
    assert (await audit(service, drop.id))[1:] == ["drop.pause", "drop.resume", "drop.close"]


async def test_units_move_and_a_batch_is_added_while_it_sells(
    visit: Visit, service: Service, new_sale: NewSale, member: int
) -> None:
    """Before and after are shown; what is taken cannot be moved away."""
    drop = await new_sale(allocation("a", 10), allocation("b", 5))
    await hold(service, drop.id, member)
    page = await open_console(visit, f"/drops/{drop.id}")
    await page.click("#move-box summary")
    await page.fill("#move-count", "10")
    await page.click("#move-save")
    await expect(page.locator("#move-count-error")).to_contain_text("9 units")
    await page.fill("#move-count", "4")
    await expect(page.locator("#move-sum")).to_have_text("a: 10 → 6 units. b: 5 → 9 units.")
    await page.click("#move-save")
    await told(page, "Units moved: 4.")
    rows = page.locator("#moved tbody tr")
    assert [await row.locator("td").all_inner_texts() for row in await rows.all()] == [
        ["10", "6", "9", "5"],
        ["5", "9", "5", "9"],
    ]
    await keep(page, "desk-en-moved")
    await page.click("#batch-box summary")
    fields = page.locator("#batch-fields")
    await fields.get_by_label("Name").fill("c")
    await fields.get_by_label("Units").fill("3")
    await expect(page.locator("#batch-sum")).to_have_text("Units of the drop: 15 → 18")
    await page.click("#batch-save")
    await told(page, "The batch is added")
    await page.locator("#allocations tbody tr").nth(2).get_by_role("button").click()
    await page.fill("#edit-quantity", "8")
    await page.click("#edit-save")
    await told(page, "Saved")
    assert [a.quantity for a in (await the_drop(service, drop.id)).allocations] == [6, 9, 8]


async def test_of_two_operators_who_edit_the_second_hears_of_the_first(
    visit: Visit, service: Service, new_sale: NewSale
) -> None:
    """Nothing is overwritten, and a reload shows what the other one did."""
    drop = await new_sale()
    one, other = [await open_console(visit, f"/drops/{drop.id}") for _ in range(2)]
    await one.fill("#notice-en", "We count the stock.")
    await one.fill("#notice-zh", "正在清点库存。")
    await one.click("#notice-save")
    await told(one, "The notice is published")
    await other.fill("#notice-en", "Back at one.")
    await other.click("#notice-save")
    await told(other, "Somebody else changed this")
    texts = (await the_drop(service, drop.id)).texts
    assert (texts.en.notice, texts.zh.notice) == ("We count the stock.", "正在清点库存。")
    await expect(other.locator("#reload")).to_be_focused()
    async with other.expect_navigation():
        await other.click("#reload")
    await shown(other)
    await expect(other.locator("#notice-en")).to_have_value("We count the stock.")
    await other.fill("#notice-en", "Back at one.")
    await other.click("#notice-save")
    await told(other, "The notice is published")


async def test_the_texts_are_edited_and_what_is_typed_survives_a_stop(
    visit: Visit, service: Service, new_sale: NewSale
) -> None:
    """A press of Stop does not take away what somebody is typing."""
    drop = await new_sale()
    page = await open_console(visit, f"/drops/{drop.id}")
    await page.click("#words-box summary")
    await page.fill("#en-title", "A badge")
    await page.click("#stop")
    await told(page, "Stopped")
    await expect(page.locator("#en-title")).to_have_value("A badge")
    await page.click("#words-save")
    await told(page, "Saved")
    assert (await the_drop(service, drop.id)).texts.en.title == "A badge"


async def test_a_drop_is_seen_as_any_member_at_any_moment(visit: Visit, service: Service, new_sale: NewSale) -> None:
    drop = await new_sale(allocation("a", opens_in_s=3600, closes_in_s=7200), allocation("v", access=Fcode()))
    page = await open_console(visit, f"/drops/{drop.id}")
    await page.fill("#preview-member", "42")
    await page.click("#preview-ask")
    verdicts = page.locator("#seen .state")
    await expect(verdicts).to_have_text(["not open yet", "F-code not valid"])
    await page.fill("#preview-at", local(service, datetime.now(UTC) + timedelta(seconds=5000)))
    await page.click("#preview-ask")
    await expect(verdicts.first).to_have_text("got a unit")


async def test_the_fcodes_of_one_drop_are_stopped(visit: Visit, service: Service, new_sale: NewSale) -> None:
    """With a reason; the drop's page says so, and turns it back."""
    drop = await new_sale(allocation("v", access=Fcode()))
    page = await open_console(visit, f"/drops/{drop.id}")
    for label, said in (("Stop its F-codes", "are stopped"), ("Honour its F-codes again", "are honoured")):
        await expect(page.locator("#lane-switch")).to_have_text(label)
        await page.click("#lane-switch")
        await page.locator(".ask input").fill("a list leaked")
        await page.locator(".ask .yes").click()
        await told(page, f"The F-codes of this drop {said}")
    assert (await audit(service, drop.id))[1:] == ["fcodes.stop", "fcodes.start"]


async def test_an_observer_sees_all_and_changes_nothing(visit: Visit, service: Service, new_sale: NewSale) -> None:
    """No control that changes anything is there; and were one pressed, the server refuses."""
    drop = await new_sale()
    page = await open_console(visit, f"/drops/{drop.id}", role="ops-read")
    await expect(page.locator("#reader")).to_be_visible()
    await expect(page.locator("#allocations tbody tr")).to_have_count(1)
    for name in ("#stop", "#edit-box", "#notice-save", "#words-save", "#allocations button"):
        await expect(page.locator(name)).to_be_hidden()
    await expect(page.locator("#notice-en")).to_be_disabled()
    status = await page.evaluate(
        "path => fetch(path, {method: 'POST', body: '{}'}).then((answer) => answer.status)",
        f"/v1/ops/drops/{drop.id}/pause",
    )
    assert status == 403
    assert not (await the_drop(service, drop.id)).paused


async def test_who_is_no_operator_is_told_so_and_offered_the_sign_in(visit: Visit, member: int) -> None:
    """The way leads back to the page, for an operator of the demo."""
    nobody = await visit("/en/ops/audit")
    await expect(nobody.page.locator("#barred")).to_contain_text("Sign in as an operator")
    opened = await visit("/en/ops/audit", member=member)
    await expect(opened.page.locator("#barred")).to_contain_text("not as an operator")
    await expect(opened.page.locator("#page")).to_be_hidden()
    await opened.page.locator("#barred a").click()
    await opened.page.get_by_role("button", name="Operator").click()
    await opened.page.wait_for_url("**/en/ops/audit")
    await shown(opened.page)
    await expect(opened.page.locator("#list")).to_be_visible()


async def test_an_operator_who_signs_in_from_nowhere_comes_to_the_console(visit: Visit) -> None:
    """Shoppers come to the sales, operators to theirs."""
    opened = await visit("/zh/sign-in", viewport=DESK)
    await opened.page.get_by_role("button", name="运营").click()
    await opened.page.wait_for_url("**/zh/ops")
    await shown(opened.page)
