"""A service that stalls: who times from sending hardly notices, who times from the intent does. By locust, both ways.

Locust runs in a process of its own, because it patches the sockets of the one that it is in.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestServer

TOP = Path(__file__).parents[2]
STALL_AFTER_S = 1.0
STALL_S = 2.0
ARRIVALS = 400
SECONDS = 4.0

LOCUSTFILE = f"""
import time
import gevent
from locust import constant_pacing, events, task
from locust.contrib.fasthttp import FastHttpUser
from loadtests.crowd.book import Book
from loadtests.crowd.contract import Call
from loadtests.crowd.door import let_in
from loadtests.crowd.guests import Guest
from loadtests.crowd.hands import Hands

class Closed(FastHttpUser):
    fixed_count = 1
    wait_time = constant_pacing({SECONDS / ARRIVALS})

    @task
    def press(self):
        self.client.post("/press", name="closed")

class Open(FastHttpUser):
    fixed_count = 1
    concurrency = {ARRIVALS}

    @task
    def arrivals(self):
        hands, opening = Hands(self), time.monotonic()
        due = [n * {SECONDS / ARRIVALS} for n in range({ARRIVALS})]
        guests = [Guest(n, "shopper", at, at, n, "") for n, at in enumerate(due)]
        under_way = []

        def start(guest):
            call = Call("open", "POST", "/press", frozenset(), opening + guest.press_at_s)
            under_way.append(gevent.spawn(hands.ask, call, lambda answer, sent_at, at: None))

        let_in(guests, lambda: opening, hands, Book("d", 0.0, opening), start)
        gevent.joinall(under_way)
        gevent.spawn(self.environment.runner.quit)
"""


async def test_a_stall_is_seen_by_who_counts_from_the_intent(tmp_path: Path) -> None:
    """For half of the time nobody is answered.

    A loop that presses once it was answered has one slow answer among all: its 80th percentile knows nothing of it.
    Open arrivals have as many slow ones as were due meanwhile.
    """
    loop = asyncio.get_running_loop()
    first: list[float] = []

    async def press(request: web.Request) -> web.Response:
        await request.read()
        now = loop.time()
        first.append(now)
        ends = first[0] + STALL_AFTER_S + STALL_S
        if ends - STALL_S <= now < ends:
            over = asyncio.Event()
            loop.call_at(ends, over.set)
            await over.wait()
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/press", press)
    (tmp_path / "stalled.py").write_text(LOCUSTFILE)
    async with TestServer(app) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "locust", "-f", str(tmp_path / "stalled.py"), "Closed", "Open", "--headless"),
            *("--host", str(server.make_url("/")).rstrip("/"), "--users", "2", "--spawn-rate", "2"),
            *("--run-time", "60s", "--json-file", str(tmp_path / "seen"), "--loglevel", "WARNING"),
            env={**os.environ, "PYTHONPATH": str(TOP)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    seen = {row["name"]: row for row in json.loads((tmp_path / "seen.json").read_text())}
    assert seen["open"]["num_requests"] >= ARRIVALS  # and some of a second round, when locust is slow to stop
    closed, opened = (in_order_ms(seen[name]["response_times"]) for name in ("closed", "open"))
    slow_ms = 0.4 * STALL_S * 1000
    assert closed[int(0.8 * len(closed))] < slow_ms < opened[int(0.8 * len(opened))]
    assert 1 <= sum(ms > slow_ms for ms in closed) < 0.1 * len(closed)  # one request, in front of a whole stall
    assert sum(ms > slow_ms for ms in opened) > 0.2 * ARRIVALS


def in_order_ms(counted: dict[str, int]) -> list[float]:
    """All response times of locust's, which it counts by their rounded value."""
    return sorted(float(ms) for ms, times in counted.items() for _ in range(times))
