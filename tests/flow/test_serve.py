"""`flashsale serve` and `flashsale worker`: they wait for their stores, end in order, do not stay when they hang."""

import asyncio
import contextlib
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import asyncpg
import psutil
import pytest

from flashsale import embedded
from flashsale.errors import LedgerUnavailable, SetupError
from flashsale.ledger.migrate import migrate
from flashsale.process import RETRY_MAX_S, retry_delay_s, until_available, url_of
from flashsale.serve import listen
from flashsale.web.auth import mint
from tests.flow.command import (
    SECRET,
    Running,
    alive,
    environ,
    get,
    post,
    reachable_folder,
    running,
    until,
    until_status,
)

OPS = mint(SECRET, member=1, role="ops", expires_at=4e9)
SHOPPER = mint(SECRET, member=7, expires_at=4e9)
DROP = {
    "id": "short-hold",
    "title": "A phone",
    "price": {"amount": 1, "currency": "CNY"},
    "hold_seconds": 1,
    "allocations": [
        {
            "id": "all",
            "quantity": 1,
            "opens_at": "2020-01-01T00:00:00Z",
            "closes_at": "2099-01-01T00:00:00Z",
            "access": {"kind": "everyone"},
        }
    ],
}


@pytest.fixture(scope="module")
async def stores() -> AsyncIterator[dict[str, str]]:
    """The URLs of both servers, with the schema in place."""
    async with embedded.temporary() as servers:
        await migrate(servers.database_url)
        yield {"redis_url": servers.redis_url, "database_url": servers.database_url, "jwt_secret": SECRET}


async def serving(started: Running) -> str:
    """The URL that it says it serves at, once it is ready."""
    url = (await started.said(r'"url": "(http://127\.0\.0\.1:\d+)"'))[1]
    await until_status(f"{url}/readyz", 200)
    return url


async def test_stop_finishes_what_was_accepted_and_takes_nothing_new(stores: dict[str, str]) -> None:
    """A press that waits for the ledger when SIGTERM comes is carried out and answered; a new connection is refused."""
    async with running("serve", "--port", "0", **stores) as started:
        url = await serving(started)
        await post(f"{url}/v1/ops/drops", OPS, DROP | {"id": "stopping"}, wanted=201)

        async def refused() -> bool:
            try:
                async with aiohttp.ClientSession() as session, session.get(f"{url}/healthz"):
                    return False
            except aiohttp.ClientConnectorError:
                return True

        ledger = await asyncpg.connect(stores["database_url"])
        async with ledger.transaction():
            await ledger.execute("SELECT FROM drops WHERE id = 'stopping' FOR UPDATE")
            press = asyncio.create_task(post(f"{url}/v1/drops/stopping/reservations", SHOPPER, {}))
            async with asyncio.timeout(60):
                while not await ledger.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    await asyncio.sleep(0.02)
            started.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(60):
                while not await refused():
                    await asyncio.sleep(0.02)
            assert (started.process.returncode, press.done()) == (None, False)
        status, held = await press
        assert (status, held["state"]) == (201, "held")
        assert (await started.ended())[0] == 0
        assert await ledger.fetchval("SELECT count(*) FROM reservations WHERE id = $1", held["id"]) == 1
        await ledger.close()


async def test_hanging_web_process_is_replaced(stores: dict[str, str]) -> None:
    """One that stands still for longer than the time-out is killed, and another one serves in its place."""
    script = (
        "import flashsale.serve as s; from flashsale import settings; import os;"
        "s.HANG_TIMEOUT_S = 2; s.serve(settings.load(os.environ))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, env=environ(port="0", **stores), stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        url = ""
        while not url:
            line = (await asyncio.wait_for(process.stderr.readline(), 30)).decode()
            found = re.search(r'"url": "([^"]+)"', line)
            url = found[1] if found else ""
        await until_status(f"{url}/readyz", 200)
        [hanging] = psutil.Process(process.pid).children()
        hanging.suspend()
        await until(lambda: not alive([hanging]), "it is killed")
        await until_status(f"{url}/readyz", 200)
        assert [each.pid for each in psutil.Process(process.pid).children()] != [hanging.pid]
    finally:
        process.terminate()
        await process.communicate()


async def test_hanging_worker_says_where_and_ends() -> None:
    """An event loop that stands still is noticed from outside it; whoever supervises starts another process."""
    script = (
        "import asyncio, time, flashsale.worker as w\n"
        "w.HANG_TIMEOUT_S = 0.3\n"
        "async def stand_still():\n"
        "    watchdog = asyncio.create_task(w._watchdog())\n"
        "    await asyncio.sleep(0)\n"
        "    time.sleep(60)\n"
        "asyncio.run(stand_still())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, env=environ(), stderr=asyncio.subprocess.PIPE
    )
    _, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert "Timeout (0:00:00.300000)!" in err.decode()
    assert "in stand_still" in err.decode()


async def test_parts_wait_for_their_stores_at_the_start_and_later() -> None:
    """Started before the servers, serve and worker do their work as soon as these are there, and when they return."""
    with reachable_folder() as folder:
        data, state = folder / "data", folder / "state"
        async with embedded.running(data, state_root=state) as servers:
            await migrate(servers.database_url)
            settings = {"redis_url": servers.redis_url, "database_url": servers.database_url, "jwt_secret": SECRET}
        redis_port, database_port = (
            int(re.findall(r":(\d+)/", settings[name])[0]) for name in ("redis_url", "database_url")
        )

        def again() -> contextlib.AbstractAsyncContextManager[embedded.Servers]:
            return embedded.running(data, state_root=state, redis_port=redis_port, database_port=database_port)

        async with running("serve", "--port", "0", **settings) as web, running("worker", **settings) as worker:
            await worker.said("stores.away")
            async with again():
                url = await serving(web)
                await post(f"{url}/v1/ops/drops", OPS, DROP, wanted=201)
                await _hold_expires(url)
            await worker.said("ledger: Postgres cannot answer")
            async with again():
                await until_status(f"{url}/readyz", 200)
                await _hold_expires(url)
                worker.process.send_signal(signal.SIGTERM)
                assert (await worker.ended())[0] == 0
                web.process.send_signal(signal.SIGTERM)
                assert (await web.ended())[0] == 0


async def _hold_expires(url: str) -> None:
    """Take the one unit, and wait until the worker has brought it back."""
    status, held = await post(f"{url}/v1/drops/{DROP['id']}/reservations", SHOPPER, {})
    async with asyncio.timeout(60):
        while status == 503:
            status, held = await post(f"{url}/v1/drops/{DROP['id']}/reservations", SHOPPER, {})
    assert status == 201, held
    async with asyncio.timeout(60):
        while (await get(f"{url}/v1/reservations/{held['id']}", SHOPPER))["state"] != "expired":
            await asyncio.sleep(0.05)
        while (await get(f"{url}/v1/ops/drops/{DROP['id']}", OPS))["allocations"][0]["available"] != 1:
            await asyncio.sleep(0.05)


async def test_web_that_cannot_start_says_why_and_ends_with_two(stores: dict[str, str], tmp_path: Path) -> None:
    """A fault that only a web process meets ends them all, with one line that says what is wrong."""
    (tmp_path / "jwks.json").write_text("{}")
    settings = stores | {"jwks": str(tmp_path / "jwks.json")}
    async with running("serve", "--port", "0", **settings) as started:
        assert (await started.ended())[0] == 2
        assert started.stderr.count("web.cannot_start") == 1
        assert "Traceback" not in started.stderr


async def test_attempts_are_repeated_until_the_store_is_there() -> None:
    """Only `Unavailable` is worth another try; each wait is announced, and other faults come through at once."""
    waits = []
    faults: list[Exception] = [LedgerUnavailable(), LedgerUnavailable()]

    async def attempt() -> str:
        if faults:
            raise faults.pop()
        return "there"

    assert await until_available(attempt, jitter=lambda: 0.999, on_wait=lambda: waits.append(1)) == "there"
    assert len(waits) == 2
    faults.append(SetupError("wrong"))
    with pytest.raises(SetupError, match="wrong"):
        await until_available(attempt, jitter=lambda: 0.0, on_wait=lambda: waits.append(1))
    assert len(waits) == 2


def test_delays_grow_to_a_cap_and_are_spread() -> None:
    """Processes that lost their store together do not come back in one instant."""
    assert [retry_delay_s(n, 0.0) for n in range(4)] == [0.1, 0.2, 0.4, 0.8]
    assert retry_delay_s(50, 0.0) == RETRY_MAX_S
    assert retry_delay_s(50, 0.5) == RETRY_MAX_S * 0.75


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),  # noqa: S104 -- a name, nothing listens
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("192.0.2.1", "http://192.0.2.1:80"),
        ("shop.example", "http://shop.example:80"),
    ],
)
def test_url_is_one_that_a_client_can_use(host: str, url: str) -> None:
    """A service that listens everywhere is reached on the loopback."""
    assert url_of(host, 80) == url


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_port_zero_is_any_free_port(host: str) -> None:
    """Two may ask at once and get different ones; a taken one is refused."""
    try:
        first = listen(host, 0)
    except SetupError:
        if host != "::1":
            raise
        pytest.skip("this machine has no IPv6")
    with first, listen(host, 0) as second:
        ports = [each.getsockname()[1] for each in (first, second)]
        assert len(set(ports)) == 2
        with pytest.raises(SetupError, match=f"Port {ports[0]} on {host} is taken"):
            listen(host, ports[0])


def test_unknown_host_is_said() -> None:
    """A name that stands for no address is a fault of set-up."""
    with pytest.raises(SetupError, match=r"'no\.such\.host\.invalid' is no address to listen on"):
        listen("no.such.host.invalid", 0)
