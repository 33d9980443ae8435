"""Tried as a shop would: orders leave for a receiver, and arrive, whatever is killed on the way."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flashsale import embedded
from flashsale.web.auth import mint
from tests.flow.command import SECRET, Running, Up, get, post, reachable_folder, run, running, until, up
from tests.flow.workers import SECRET as SIGNING
from tests.flow.workers import sell
from tests.support import Node, make_node

ORDERS = int(os.environ.get("SHOP_ORDERS", "2500"))
"""So many orders arrive through four kills; `SHOP_ORDERS=10000` sells a larger batch (half a minute more)."""
QUICK = {"fulfilment_secret": SIGNING, "fulfilment_allow_private": "1", "jwt_secret": SECRET}


@pytest.fixture
def home() -> Iterator[Path]:
    with reachable_folder() as folder:
        yield folder


class Receiver(Running):
    """`flashsale receiver`, and what it has printed so far."""

    def __init__(self, running: Running, url: str) -> None:
        super().__init__(running.process, running._errors)
        self.url = url
        self.events: list[dict[str, Any]] = []
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.events.append(json.loads(line))

    @property
    def ids(self) -> set[str]:
        """All that arrived."""
        return {event["id"] for event in self.events}


@asynccontextmanager
async def receiver(*arguments: str, port: int = 0) -> AsyncIterator[Receiver]:
    """A receiver that listens."""
    settings = {"fulfilment_secret": SIGNING}
    async with running("receiver", "--json", "--port", str(port), *arguments, **settings) as started:
        found = await started.said(r"receiving at (http://127\.0\.0\.1:\d+/)")
        opened = Receiver(started, found[1])
        try:
            yield opened
        finally:
            with contextlib.suppress(ProcessLookupError):
                started.process.kill()
            await opened.reading


def token(member: int, role: str | None = None) -> str:
    return mint(SECRET, member=member, role=role, expires_at=time.time() + 3600)  # type: ignore[arg-type]


async def buy(service: Up, drop: str, member: int) -> dict[str, Any]:
    """Reserve and confirm."""
    _, held = await post(f"{service.url}/v1/drops/{drop}/reservations", token(member), {}, wanted=201)
    _, confirmed = await post(f"{service.url}/v1/reservations/{held['id']}/confirm", token(member), wanted=200)
    return confirmed


async def orders(service: Up, **wanted: str) -> list[dict[str, Any]]:
    query = "&".join(f"{name}={value}" for name, value in {"limit": "500", **wanted}.items())
    items: list[dict[str, Any]] = (await get(f"{service.url}/v1/ops/orders?{query}", token(1, "ops")))["items"]
    return items


async def test_the_way_of_an_order(home: Path) -> None:
    """Reserve, confirm, see it arrive; kill the receiver, see tries and `dead`; start it again, replay."""
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(receiver())
        port = int(first.url.rstrip("/").rpartition(":")[2])
        settings = {**QUICK, "fulfilment_url": first.url, "fulfilment_retry_s": "0.1,0.2"}
        service = await stack.enter_async_context(up(home / "data", "--no-demo", **settings))
        options = ("--data-dir", str(home / "data"))
        window = {"opens_at": "2020-01-01T00:00:00Z", "closes_at": "2099-01-01T00:00:00Z"}
        drop = {
            "id": "phones",
            "title": "A phone",
            "price": {"amount": 169_900, "currency": "CNY"},
            "allocations": [{"id": "all", "quantity": 10, "access": {"kind": "everyone"}, **window}],
        }
        await post(f"{service.url}/v1/ops/drops", token(1, "ops"), drop, wanted=201)

        bought = await buy(service, "phones", 7)
        await until(lambda: bought["order"] in first.ids, "the order has arrived")
        [event] = first.events
        assert (event["type"], event["again"]) == ("order.confirmed", False)
        assert {"reservation": bought["id"], "drop": "phones", "member": 7}.items() <= event["data"].items()

        first.process.kill()
        await first.process.wait()
        lost = await buy(service, "phones", 8)

        dead: list[dict[str, Any]] = []
        async with asyncio.timeout(30):
            while not dead:
                dead = await orders(service, state="dead")
                await asyncio.sleep(0.05)
        assert [(o["order"], o["tries"]) for o in dead] == [(lost["order"], 3)]
        assert "connection" in dead[0]["reason"]
        code, said, _ = await run("orders", "list", "--state", "dead", *options, jwt_secret=SECRET)
        assert (code, lost["order"] in said, "1 dead" in said) == (0, True, True)

        second = await stack.enter_async_context(receiver(port=port))
        code, said, _ = await run("orders", "replay", "--dead", "--json", *options, jwt_secret=SECRET)
        assert (code, json.loads(said)) == (0, {"replayed": [lost["order"]]})
        await until(lambda: second.ids == {lost["order"]}, "the replayed order has arrived")

        code, said, errors = await run(
            "reservation", "return", lost["id"], "--reason", "changed their mind", *options, jwt_secret=SECRET
        )
        assert (code, "returned" in said) == (0, True), errors
        await until(lambda: len(second.events) == 2, "the return has arrived")
        assert second.events[1]["type"] == "order.returned"
        assert second.events[1]["data"]["order"] == lost["order"]


async def fill(service: Up, count: int) -> set[str]:
    """That many orders in the queue of a running service."""
    servers = embedded.Servers(service.run["redis_url"], service.run["database_url"], None)  # type: ignore[arg-type]
    node: Node = await make_node(servers)
    try:
        return set(await sell(node, count))
    finally:
        await node.aclose()


@pytest.mark.long
async def test_all_orders_arrive_though_worker_and_postgres_are_killed(home: Path) -> None:
    """Every id arrives, none is missing; what arrives twice has the id it had before. The ledger agrees.

    Each kill comes while orders leave: `ORDERS` of them are in the queue from the start.
    """
    async with receiver() as shop, up(home / "data", "--no-demo", **QUICK, fulfilment_url=shop.url) as service:
        ids = await fill(service, ORDERS)
        for share, name in ((0.2, "worker"), (0.4, "postgres"), (0.6, "worker"), (0.7, "postgres")):
            reached = int(share * ORDERS)
            await until(lambda reached=reached: len(shop.ids) >= reached, f"{reached} have arrived", 60)  # type: ignore[misc]
            before = service.run["pids"][name]
            os.kill(before, signal.SIGKILL)
            assert len(shop.ids) < ORDERS, f"{name} was to be killed while orders leave"
            await until(lambda was=before, name=name: service.run["pids"].get(name, was) != was, f"{name} is back")  # type: ignore[misc]
        await until(lambda: shop.ids >= ids, "all have arrived", 90)
        assert shop.ids == ids
        firsts = [event["id"] for event in shop.events if not event["again"]]
        assert len(firsts) == len(set(firsts)) == ORDERS
        async with asyncio.timeout(60):
            while (await get(f"{service.url}/v1/ops/orders?limit=1", token(1, "ops")))["queue"]["waiting"]:
                await asyncio.sleep(0.05)
        assert [o for o in await orders(service) if o["state"] != "delivered"] == []
