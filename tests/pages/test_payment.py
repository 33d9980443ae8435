"""Where a payment confirms: pages send who holds a unit to pay, and see by themselves that it was paid."""

from typing import Any

import pytest
from aiohttp import ClientSession
from playwright.async_api import Route, expect

from flashsale.errors import SetupError
from flashsale.settings import load
from tests.pages.conftest import NewSale, Visit
from tests.pages.support import Service

pytestmark = pytest.mark.long

PAY_URL = "https://pay.example/now?for={reservation}"


@pytest.fixture(scope="module", params=[PAY_URL, None], ids=["pages", "shop"])
def changes(request: pytest.FixtureRequest) -> dict[str, Any]:
    """With an address to pay at, and without."""
    return {"confirm_by": "payment", "pay_url": request.param}


async def test_who_holds_a_unit_is_sent_to_pay_and_finds_it_paid(
    visit: Visit, new_sale: NewSale, service: Service, member: int, changes: dict[str, Any]
) -> None:
    """The payment comes by the shop's own call; back on the page, it is ordered."""
    drop = await new_sale()
    opened = await visit(f"/en/d/{drop.id}", member=member)
    await opened.state("open")
    await opened.buy.click()
    await opened.state("held")
    await expect(opened.page.locator("#act-text")).to_contain_text("yours for good once it is paid")
    [held] = await service.context.ledger.pages.reservations(drop.id, member, 5)
    address = PAY_URL.replace("{reservation}", held.id)
    if changes["pay_url"] is None:
        await expect(opened.buy).to_have_attribute("aria-disabled", "true")
    else:

        async def answer(route: Route) -> None:
            await route.fulfill(status=200, content_type="text/html", body="<title>Pay here</title>")

        await opened.page.route("https://pay.example/**", answer)
        await expect(opened.buy).to_have_text("Pay")
        await opened.buy.click()
        await opened.page.wait_for_url(address)
        await opened.page.go_back()
        await opened.state("held")
    await opened.page.goto("/en/reservations")
    links = opened.page.locator("#rows .pay")
    if changes["pay_url"] is None:
        await expect(opened.page.locator("#rows li")).to_have_count(1)
        await expect(links).to_have_count(0)
    else:
        await expect(links).to_have_attribute("href", address)
    await expect(opened.page.locator("#rows .yes")).to_have_count(0)
    await opened.page.go_back()
    await opened.state("held")
    paid = {"payment_id": f"pay-{held.id}", "amount": drop.price.amount, "currency": drop.price.currency}
    headers = {"Authorization": f"Bearer {service.token(1, 'payments')}"}
    path = f"/v1/reservations/{held.id}/confirm"
    async with ClientSession(service.url) as http, http.post(path, json=paid, headers=headers) as response:
        assert response.status == 200, await response.text()
    await opened.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # the shopper comes back
    await opened.state("confirmed")


def test_an_address_to_pay_at_says_where_the_reservation_goes() -> None:
    """One that does not would send everybody to the same payment."""
    with pytest.raises(SetupError, match="pay_url"):
        load({"FLASHSALE_PAY_URL": "https://pay.example/now"})
