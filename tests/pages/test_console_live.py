"""Operators watch a sale: frames with their age, a balance that is told in words, a report, a rehearsal."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.async_api import Page, expect

from flashsale import embedded
from tests.ledger.support import new_database
from tests.pages.conftest import NewSale, Visit
from tests.pages.console import keep, open_console, told
from tests.pages.support import MEMBERS, Service, hold
from tests.support import allocation, until

FAKE_STREAM = """
window.EventSource = class extends EventTarget {
  constructor(path) {
    super();
    this.readyState = 1;
    window.stream = this;
    window.send = (data) => this.dispatchEvent(new MessageEvent("frame", {data: JSON.stringify(data)}));
    setTimeout(() => this.dispatchEvent(new Event("open")));
  }
  close() { this.readyState = 2; }
};
"""
UNITS = {"quantity": 10, "available": 7, "pending": 0, "held": 2, "confirmed": 1, "took_ms": 1.0}


@pytest.fixture(scope="module")
async def urls(urls: embedded.Servers) -> AsyncIterator[embedded.Servers]:
    """The session's servers, with a database of this module: the auditor looks at all orders and jobs there are."""
    async with new_database(urls.database_url) as url:
        yield embedded.Servers(urls.redis_url, url, urls.supervisor)


def frame(at: str, read_at: str, **other: Any) -> dict[str, Any]:  # noqa: ANN401 -- groups of a frame
    """A frame of `at`, whose balance was read at `read_at`."""
    balance = {"at": read_at, "balanced": True, "wrong": [], **UNITS}
    known = {"drop": "d", "epoch": 1, "paused": False, "held": False, "closed": False, "fcodes_stopped": False}
    nothing = dict.fromkeys(("gate", "verdicts", "verdict_ms", "waiting", "ledger", "orders"))
    return {**known, **nothing, "at": at, "balance": balance, "allocations_more": 0, **other}


async def test_an_operator_watches_a_sale(visit: Visit, service: Service, new_sale: NewSale) -> None:
    """What is left, what was said, the balance, the tables behind the charts; stopping is shown at once."""
    drop = await new_sale(allocation("a", 10), allocation("b", 5, opens_in_s=600))
    page = await open_console(visit, f"/drops/{drop.id}/live")
    await expect(page.locator("[data-part=balance]")).to_have_attribute("data-state", "good")
    await expect(page.locator("[data-part=balance-word]")).to_have_text("Every unit is accounted for.")
    await expect(page.locator("[data-part=stream]")).to_have_text("Live")
    for _ in range(3):
        await hold(service, drop.id, next(MEMBERS))
    rows = page.locator("[data-part=left] tr")
    await expect(rows.first.locator(".left")).to_have_text("7")
    assert await rows.locator("th").all_inner_texts() == ["a", "b"]
    await expect(rows.nth(1).locator(".state")).to_have_text("to come")
    await expect(page.locator("[data-part=held]")).to_have_text("3")
    await expect(page.locator("[data-part=balance-sum]")).to_contain_text("12 left + 0 on their way + 3 held")
    await page.locator("[data-group=verdicts] summary").click()
    await expect(page.locator("[data-part=rates-table] tr").first).to_contain_text("got a unit")
    await expect(page.locator("[data-part=rates] canvas")).to_be_visible()
    await page.click("#stop")
    await told(page, "Stopped")
    await keep(page, "desk-en-watched")
    await expect(rows.first.locator(".state")).to_have_text("paused")
    await expect(page.locator("#pill")).to_have_text("Stopped")


async def test_each_figure_says_how_old_it_is(visit: Visit, new_sale: NewSale) -> None:
    """By the server's times: fresh below 2 s, late from 2 s on, old from 5 s on; in words and by a sign."""
    drop = await new_sale()

    async def fake(page: Page) -> None:
        await page.clock.install()
        await page.add_init_script(FAKE_STREAM)

    page = await open_console(visit, f"/drops/{drop.id}/live", before=fake)
    await page.clock.pause_at(datetime.now(UTC) + timedelta(minutes=1))  # it grows older when the test says so
    age = page.locator("[data-age=balance]")
    for read_at, state, words in (
        ("2030-01-01T00:00:09.900Z", "fresh", "s ago"),
        ("2030-01-01T00:00:07.500Z", "amber", "late: "),
        ("2030-01-01T00:00:04.000Z", "grey", "old: "),
    ):
        await page.evaluate("frame => send(frame)", frame("2030-01-01T00:00:10Z", read_at))
        await expect(age).to_have_attribute("data-state", state)
        await expect(age).to_contain_text(words)
    await page.evaluate("frame => send(frame)", frame("2030-01-01T00:00:10Z", "2030-01-01T00:00:10Z"))
    await expect(age).to_have_attribute("data-state", "fresh")
    await page.clock.run_for(2_500)
    await expect(age).to_have_attribute("data-state", "amber")  # nothing more comes: it grows old by itself
    assert await age.evaluate("(e) => getComputedStyle(e, '::before').content") == '"! "'


async def test_updates_can_be_paused_and_units_that_do_not_add_up_are_told_in_words(
    visit: Visit, new_sale: NewSale
) -> None:
    """While updates are paused nothing moves but the ages; then the last frame is shown."""
    drop = await new_sale()

    async def fake(page: Page) -> None:
        await page.add_init_script(FAKE_STREAM)

    page = await open_console(visit, f"/drops/{drop.id}/live", before=fake)
    good = frame("2030-01-01T00:00:10Z", "2030-01-01T00:00:10Z")
    await page.evaluate("frame => send(frame)", good)
    await page.click("[data-part=pause]")
    wrong = {**good, "balance": {**good["balance"], "balanced": False, "available": 8, "wrong": ["a"]}}
    await page.evaluate("frame => send(frame)", wrong)
    line = page.locator("[data-part=balance]")
    await expect(page.locator("[data-part=pause]")).to_have_attribute("aria-pressed", "true")
    await expect(line).to_have_attribute("data-state", "good")
    await page.click("[data-part=pause]")
    await expect(line).to_have_attribute("data-state", "bad")
    await expect(line).to_contain_text("Units do not add up. Run the audit.")
    await expect(line).to_contain_text("In: a.")
    await keep(page, "desk-en-unbalanced")


async def test_after_the_sale_there_is_a_report(visit: Visit, service: Service, new_sale: NewSale) -> None:
    """What happened by the second, and whether who came first was served first."""
    drop = await new_sale(allocation("a", 3))
    for number in range(3):
        held = await hold(service, drop.id, next(MEMBERS))
        if number == 0:
            await service.context.reservations.confirm(held.id, member=held.member)
    page = await open_console(visit, f"/drops/{drop.id}/report")
    totals = page.locator("#totals dd")
    await expect(totals).to_have_text(["3", "1", "0", "0", "0"])
    await expect(page.locator("#granted canvas")).to_be_visible()
    await page.click("#table-box summary")
    granted = await page.locator("#seconds tbody td:nth-child(2)").all_inner_texts()
    assert sum(map(int, granted)) == 3
    await expect(page.locator("#fairness dd").first).to_have_text("3")
    await expect(page.locator("#arrival")).to_contain_text("Arrival")


async def test_a_sale_is_rehearsed(visit: Visit, service: Service, new_sale: NewSale) -> None:
    """One press: a hidden copy sells under the same live page, and the auditor finds no contradiction."""
    drop = await new_sale(allocation("a", 5, opens_in_s=3000))
    page = await open_console(visit, f"/drops/{drop.id}/rehearsals")
    await page.click("#form summary")
    for name, value in (("members", "20"), ("over", "1"), ("opens", "1")):
        await page.fill(f"#{name}", value)
    await page.click("#start")
    await expect(page.locator("#state")).to_have_text("Under way")
    await expect(page.locator("[data-part=left] tr")).to_have_count(1)
    await expect(page.locator("#audit-word")).to_have_text("The auditor found no contradiction.", timeout=60_000)
    await expect(page.locator("#state")).to_have_text("Done")
    await expect(page.locator("#pressed")).to_have_text("20")
    assert await page.locator("#checks tbody tr").count() > 5
    await keep(page, "desk-en-rehearsed")
    await expect(page.locator("#before tbody tr")).to_have_count(1)

    async def untouched() -> bool:
        return all(units.available == 5 for units in await service.context.operations.balance(drop.id))

    await until(untouched, "the real drop is as it was")
