"""How fast a drop's page is on a slow phone in a slow network: figures are printed, only layout shift is asserted."""

import sys

from playwright.async_api import Page, expect

from tests.pages.conftest import NewSale, Visit
from tests.pages.support import Service
from tests.pages.test_screens import TEXTS, put_picture
from tests.support import allocation

SLOW = {"offline": False, "latency": 150, "downloadThroughput": 1_600_000 / 8, "uploadThroughput": 750_000 / 8}
OBSERVE = """
window.seen = { lcp: 0, fcp: 0, what: "", inp: 0, shift: 0 };
const watch = (type, use, more = {}) =>
  new PerformanceObserver((list) => list.getEntries().forEach(use)).observe({ type, buffered: true, ...more });
watch("paint", (e) => (window.seen.fcp = e.startTime));
watch("largest-contentful-paint", (e) => {
  window.seen.lcp = e.startTime;
  window.seen.what = e.element?.id || e.element?.tagName;
});
watch("layout-shift", (e) => (window.seen.shift += e.hadRecentInput ? 0 : e.value));
watch("event", (e) => (window.seen.inp = Math.max(window.seen.inp, e.duration)), { durationThreshold: 16 });
"""


async def test_a_slow_phone_in_a_slow_network(visit: Visit, new_sale: NewSale, service: Service, member: int) -> None:
    """150 ms, 1.6 Mbit/s, a quarter of the processor: from nothing in the cache to the hold, across the opening."""
    drop = await new_sale(allocation(opens_in_s=6), texts=TEXTS, picture=await put_picture(service))

    async def slow(page: Page) -> None:
        session = await page.context.new_cdp_session(page)
        await session.send("Network.enable")
        await session.send("Network.emulateNetworkConditions", SLOW)
        await session.send("Emulation.setCPUThrottlingRate", {"rate": 4})
        await page.add_init_script(OBSERVE)

    opened = await visit(f"/en/d/{drop.id}", member=member, before=slow)
    await opened.state("upcoming", "open")
    await opened.state("open")
    await expect(opened.buy).to_have_attribute("aria-disabled", "false")
    await opened.buy.click()
    await opened.state("held")
    seen = await opened.page.evaluate("window.seen")
    painted = f"first paint {seen['fcp']:.0f} ms, LCP {seen['lcp']:.0f} ms ({seen['what']})"
    sys.stderr.write(f"{painted}, INP {seen['inp']:.0f} ms, layout shift {seen['shift']:.4f}\n")
    assert seen["shift"] <= 0.01
