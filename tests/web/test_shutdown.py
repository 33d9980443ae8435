"""Shutting down: accepted requests finish, nothing new is taken."""

import asyncio
import socket

import pytest
from aiohttp import ClientConnectionError, ClientSession, web

from flashsale import embedded
from flashsale.settings import Settings
from flashsale.web.app import make_runner
from flashsale.web.routing import CONTEXT
from tests.support import PATIENT, NewDrop, allocation, until
from tests.web.conftest import SECRET, Token


async def test_accepted_presses_are_answered_and_new_ones_are_not_taken(
    urls: embedded.Servers, new_drop: NewDrop, token: Token
) -> None:
    drop = await new_drop(allocation(quantity=20))
    runner = await make_runner(
        Settings(
            redis_url=urls.redis_url,
            database_url=urls.database_url,
            jwt_secret=SECRET,
            shutdown_timeout_s=20.0,
            **PATIENT,
        )
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    context = runner.app[CONTEXT]
    commit = context.ledger.reservations.commit
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def held_up(drop_id: str, grants: list) -> object:  # type: ignore[type-arg]
        reached.set()
        await go_on.wait()
        return await commit(drop_id, grants)

    context.ledger.reservations.commit = held_up  # type: ignore[method-assign, assignment]

    async def press(session: ClientSession, member: int) -> int:
        async with session.post(f"{base}/v1/drops/{drop.id}/reservations", json={}, headers=token(member)) as answer:
            return answer.status

    async with ClientSession() as session:
        presses = [asyncio.create_task(press(session, m)) for m in range(1, 11)]
        await reached.wait()
        stopping = asyncio.create_task(runner.cleanup())

        async def refused() -> bool:
            try:
                socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2])), timeout=1).close()
            except OSError:
                return True
            return False

        await until(refused, "no new connection is taken")
        assert not stopping.done(), "it did not wait for the accepted presses"
        go_on.set()
        assert await asyncio.gather(*presses) == [201] * 10
        await stopping
        with pytest.raises(ClientConnectionError):
            await press(session, 99)
