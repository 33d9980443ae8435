"""F-codes, points, orders, the audit log: what an operator does with them in the browser."""

import csv
import io
import uuid
from pathlib import Path

from aiohttp import ClientSession
from playwright.async_api import Page, expect

from flashsale.domain import Drop, Fcode, OrderState
from flashsale.ledger.orders import Tried
from tests.pages.conftest import NewSale, Visit
from tests.pages.console import open_console, shown, told
from tests.pages.support import Service, hold
from tests.support import allocation, unique


async def mint(page: Page, drop: Drop, **fields: str) -> None:
    """Choose the drop, fill in what is asked for, and mint."""
    await page.select_option("#drop", drop.id)
    for name, value in fields.items():
        await page.fill(f"#{name}", value)
    await page.click("#mint-it")


async def download(page: Page, button: str) -> str:
    """What a button makes the browser keep."""
    async with page.expect_download() as coming:
        await page.get_by_text(button, exact=True).click()
    return Path(await (await coming.value).path()).read_text(encoding="utf-8")


async def test_fcodes_are_minted_exported_and_revoked(
    visit: Visit, service: Service, new_sale: NewSale, http: ClientSession, member: int
) -> None:
    """Too many are refused at the field; the export is in the audit log; who spent which is shown."""
    drop = await new_sale(allocation("a"), allocation("v", 5, access=Fcode()))
    page = await open_console(visit, "/fcodes")
    await mint(page, drop, count="6")
    await expect(page.locator("#count-error")).not_to_be_empty()
    await mint(page, drop, count="3", note="press day")
    await told(page, "is minted. Codes: 3.")
    batch = page.locator("#batches tbody tr").first
    await expect(batch).to_contain_text("press day")
    await batch.get_by_role("link").click()
    await shown(page)
    codes = [row["code"] for row in csv.DictReader(io.StringIO(await download(page, "Export as CSV")))]
    assert len(codes) == 3
    token = {"Authorization": f"Bearer {service.token(member)}"}
    async with http.post(f"/v1/drops/{drop.id}/reservations", headers=token, json={"fcode": codes[0]}) as answer:
        assert answer.status == 201
    await page.reload()
    await shown(page)
    await expect(page.locator("#spent tbody tr")).to_contain_text(str(member))
    await page.locator("#revoke").locator("xpath=..").locator("summary").click()
    await page.fill("#reason", "lost")
    await page.click("#revoke-it")
    await page.locator(".ask .yes").click()
    await told(page, "Codes revoked: 2.")
    await expect(page.locator("#pill")).to_have_text("revoked")
    actions = [line.action for line in await service.context.operations.audit(drop.id, None, 50)]
    assert {"fcodes.mint", "fcodes.export", "fcodes.revoke"} <= set(actions)


async def test_fcodes_are_bound_by_csv_and_printed_as_cards(
    visit: Visit, new_sale: NewSale, tmp_path: Path, member: int
) -> None:
    """A line that is wrong is said at the file; the cards open beside the page."""
    drop = await new_sale(allocation("v", 5, access=Fcode()))
    page = await open_console(visit, "/fcodes")
    await page.select_option("#drop", drop.id)
    await page.select_option("#kind", "bound")
    owners = tmp_path / "owners.csv"
    owners.write_text("member_id,note\nx,\n", encoding="utf-8")
    await page.set_input_files("#owners", owners)
    await page.click("#mint-it")
    await expect(page.locator("#owners-error")).to_contain_text("2")
    owners.write_text(f"member_id,note\n{member},first\n{member + 1},second\n", encoding="utf-8")
    await page.set_input_files("#owners", owners)
    await page.click("#mint-it")
    await told(page, "Codes: 2.")
    await page.locator("#batches tbody tr", has_text=drop.id).get_by_role("link").click()
    await shown(page)
    async with page.context.expect_page() as coming:
        await page.get_by_text("Cards to print").click()
    cards = await coming.value
    await expect(cards.locator("body")).to_contain_text("first")


async def test_one_switch_stops_all_fcodes(visit: Visit, service: Service, new_sale: NewSale) -> None:
    """It asks why, says so in words, and is turned back."""
    drop = await new_sale(allocation("v", 5, access=Fcode()))
    page = await open_console(visit, "/fcodes")
    await expect(page.locator("#switch-word")).to_have_text("F-codes are honoured.")
    await page.click("#stop")
    await page.locator(".ask input").fill("a list leaked")
    await page.locator(".ask .yes").click()
    await expect(page.locator("#switch-word")).to_have_text("All F-codes are stopped.")
    await expect(page.locator("#switch-why")).to_contain_text("a list leaked")
    stopped = await service.context.ledger.drops.get(drop.id)
    assert stopped is not None
    assert stopped.fcodes_stopped
    await page.click("#go")
    await page.locator(".ask input").fill("new codes are out")
    await page.locator(".ask .yes").click()
    await expect(page.locator("#switch-word")).to_have_text("F-codes are honoured.")


async def test_points_are_checked_imported_and_a_threshold_is_chosen(visit: Visit, tmp_path: Path) -> None:
    """Wrong lines are listed by their number; then all is stored, and the chart says how many qualify."""
    page, name = await open_console(visit, "/points"), unique("points")
    points = tmp_path / "points.csv"
    points.write_text("member_id,points\n1,5\nx,9\n3,-\n", encoding="utf-8")
    await page.set_input_files("#file", points)
    await page.click("#check")
    await expect(page.locator("#wrong-title")).to_have_text("Wrong lines: 2. Nothing was stored.")
    assert await page.locator("#wrong tbody th").all_inner_texts() == ["3", "4"]
    await page.fill("#name", name)
    await page.fill("#cutoff", "2026-08-16T00:00:00")
    await page.click("#import-it")
    await expect(page.locator("#wrong tbody th")).to_have_text(["3"])
    points.write_text("member_id,points\n" + "".join(f"{n},{n * 10}\n" for n in range(1, 51)), encoding="utf-8")
    await page.set_input_files("#file", points)
    await page.click("#import-it")
    await told(page, f"50 members imported as {name}.")
    await page.locator("#list tbody tr", has_text=name).get_by_role("button").click()
    await expect(page.locator("#qualify")).to_have_text("41 of 50 members have at least 100 points.")
    await page.fill("#least", "451")
    await expect(page.locator("#qualify")).to_have_text("5 of 50 members have at least 451 points.")
    await expect(page.locator("#chart canvas")).to_be_visible()


async def a_dead_order(service: Service, drop_id: str, member: int) -> str:
    """An order that the shop did not take."""
    held = await hold(service, drop_id, member)
    confirmed = await service.context.reservations.confirm(held.id, member=member)
    assert confirmed.reservation is not None
    order = confirmed.reservation.order
    assert order is not None
    await service.context.ledger.orders.settle([Tried(order, OrderState.DEAD, "The shop answered 500.")])
    return order


async def test_a_dead_order_is_found_and_delivered_again(
    visit: Visit, service: Service, new_sale: NewSale, member: int
) -> None:
    """By its state and its member; the address keeps the search."""
    order = await a_dead_order(service, (await new_sale()).id, member)
    page = await open_console(visit, f"/orders?state=dead&member={member}")
    await expect(page.locator("#f-member")).to_have_value(str(member))
    row = page.locator("#list tbody tr")
    await expect(row).to_have_count(1)
    await expect(row).to_contain_text(order)
    await expect(row).to_contain_text("The shop answered 500.")
    await row.get_by_role("button").click()
    await told(page, "on its way again")
    await expect(row.locator(".state")).to_have_text("queued")
    await page.click("#search")
    await expect(page.locator("#none")).to_be_visible()
    await page.select_option("#f-state", "")
    await page.fill("#f-order", str(uuid.UUID(order)))
    await page.click("#search")
    await expect(row).to_have_count(1)
    assert f"order={order}" in page.url


async def test_the_audit_log_is_filtered_and_exported(visit: Visit, service: Service, new_sale: NewSale) -> None:
    """What is on the page is what leaves as CSV."""
    drop, other = await new_sale(), await new_sale()
    for each in (drop, other):
        await service.context.operations.switch(each.id, "pause", actor="member:77", reason="lunch")
    page = await open_console(visit, "/audit")
    await page.fill("#f-subject", drop.id)
    await page.fill("#f-action", "drop.pause")
    await page.fill("#f-actor", "77")
    await page.click("#search")
    rows = page.locator("#list tbody tr")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("reason: lunch")
    lines = list(csv.DictReader(io.StringIO(await download(page, "Export as CSV"))))
    assert [(line["actor"], line["action"], line["subject"]) for line in lines] == [
        ("member:77", "drop.pause", drop.id)
    ]
    await page.fill("#f-actor", "?")
    await page.click("#search")
    await expect(page.locator("#f-actor-error")).to_contain_text("actor")
