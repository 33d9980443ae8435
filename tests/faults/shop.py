"""The shop's own system: takes orders, knows them again by their id, and misbehaves as it is told to."""

import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from aiohttp import web
from aiohttp.web_request import BaseRequest

from flashsale.webhooks import Verified, make_secret, parse_secret, verify
from tests.faults.journal import Journal, Line
from tests.faults.moments import Moments
from tests.faults.pace import lasts
from tests.faults.proxy import HOST

Mood = Literal["good", "down", "slow", "failing", "twice", "forgetful"]
"""`forgetful` takes an order and never says so; `twice` answers twice; `slow` answers when its sender has given up."""

SECRET = make_secret(bytes(range(32)))
SLOW_S = 3.0
FAILURES = (500, 502, 503, 429, 404)


class Shop:
    """Takes every event that is signed; what it took is in the journal before it answers. `taken` counts by order."""

    def __init__(self, moments: Moments) -> None:
        self._secret = parse_secret(SECRET)
        self._moments = moments
        self.journal: Journal | None = None
        self.mood: Mood = "good"
        self.taken: Counter[str] = Counter()
        self.tries = 0
        self.url = ""

    async def receive(self, request: BaseRequest) -> web.StreamResponse:
        """One try to deliver."""
        body = await request.read()
        self.tries += 1
        transport = request.transport
        if self.mood == "down":
            if transport is not None:
                transport.abort()
            return web.Response(status=503)
        found = verify(self._secret, request.headers, body, now_s=time.time())
        if not isinstance(found, Verified):
            return web.Response(status=401, text=found.reason)
        event = json.loads(body)
        if self.mood == "failing":
            status = FAILURES[self.tries % len(FAILURES)]
            self._note(found.id, event, status)
            return web.Response(status=status, headers={"Retry-After": "1"} if status in {429, 503} else None)
        if self.mood == "slow":
            await lasts(SLOW_S)
        self.taken[found.id] += 1
        self._note(found.id, event, 200)
        self._moments.fire("delivery")
        if self.mood == "forgetful" and transport is not None:
            transport.abort()
        if self.mood == "twice" and transport is not None and not transport.is_closing():
            transport.write(b"HTTP/1.1 500 Surprise\r\nContent-Length: 0\r\n\r\n")
        return web.Response(status=200)

    def _note(self, order: str, event: dict[str, object], status: int) -> None:
        data = event["data"]
        assert isinstance(data, dict)
        now = time.time()
        if self.journal is not None:
            self.journal.write(
                Line(
                    call="delivery",
                    drop=data["drop"],
                    sent_at=now,
                    heard_at=now,
                    member=data["member"],
                    quantity=data["quantity"],
                    status=status,
                    reservation=data["reservation"],
                    answered_in=data["allocation"],
                    order=order,
                    event=str(event["type"]),
                )
            )


@asynccontextmanager
async def opened_shop(moments: Moments) -> AsyncIterator[Shop]:
    """A shop that listens, and is well until it is told otherwise."""
    shop = Shop(moments)
    runner = web.ServerRunner(web.Server(shop.receive, access_log=None), shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        shop.url = f"http://{HOST}:{runner.addresses[0][1]}/orders"
        yield shop
    finally:
        await runner.cleanup()
