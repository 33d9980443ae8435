"""The order queue: a job for each order, whoever dies while working on it, and what is known of it."""

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

import pytest
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.core.listeners import PGNoticeEventListener
from pgqueuer.core.qm import QueueManager
from pgqueuer.domain.errors import FailingListenerError

from flashsale import orders
from flashsale.domain import OrderState
from flashsale.errors import LedgerUnavailable
from flashsale.ledger import Later, consume, queue
from flashsale.ledger import orders as order_store
from tests.flow.workers import (
    Shop,
    delivering,
    empty,
    jobs,
    order,
    sell,
    until_idle,
    until_state,
    until_taken,
)
from tests.support import Node, until


@pytest.fixture
async def node(queue_node: Node) -> Node:
    """A process with nothing in the queue."""
    await empty(queue_node)
    return queue_node


async def test_a_replay_finds_a_job_that_is_just_being_taken_away(
    node: Node, shop: Shop, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is written down as delivered, its job not yet gone: the replay is not lost with the job."""
    [one] = await sell(node, 1)
    log_jobs, at_the_end = Queries.log_jobs, asyncio.Event()

    async def late(queries: Queries, done: list[Any]) -> None:
        await at_the_end.wait()
        await log_jobs(queries, done)

    monkeypatch.setattr(Queries, "log_jobs", late)
    async with delivering(database_url, node.ledger.orders, shop.url):
        await until_state(node, one, OrderState.DELIVERED)
        assert await jobs(node) == 1
        assert await node.ledger.orders.replay(one, actor="member:1") is OrderState.DELIVERED
        at_the_end.set()

        async def twice() -> bool:
            return shop.taken == [one, one]

        await until(twice, "the shop has it twice")


async def test_a_worker_that_is_no_longer_notified_begins_anew(
    node: Node, shop: Shop, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection that listens dies silently: that is a fault to recover from, and not a word to stop."""
    monkeypatch.setattr(QueueManager, "listener_healthy", unhealthy)
    stopping = asyncio.Event()

    async def nothing(_: str, __: int) -> Later | None:
        return None

    async def admit(wanted: int) -> int:
        return wanted

    with pytest.raises(LedgerUnavailable, match="listening anew"):
        await consume(
            database_url,
            nothing,
            admit=admit,
            admitted=lambda _: None,
            taken_max=4,
            timeout_s=5,
            stopping=stopping,
        )
    assert not stopping.is_set()


async def unhealthy(_: QueueManager, timeout: timedelta = timedelta(0)) -> Any:  # noqa: ASYNC109, ANN401 -- as declared
    """What the library does when its own notice does not come back."""
    raise FailingListenerError


async def test_notices_do_not_pile_up_while_nothing_may_be_taken(
    node: Node, shop: Shop, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library keeps every notice until it asks for jobs again: it gets one."""
    kept: list[PGNoticeEventListener] = []

    def remember(self: PGNoticeEventListener) -> None:
        kept.append(self)
        asyncio.Queue.__init__(self)

    monkeypatch.setattr(PGNoticeEventListener, "__init__", remember)
    await node.ledger.orders.disable(shop.url)
    async with delivering(database_url, node.ledger.orders, shop.url):

        async def listens() -> bool:
            return len(kept) == 1

        await until(listens, "the worker listens")
        for _ in range(20):
            await sell(node, 1)
        assert kept[0].qsize() <= 1
        await node.ledger.orders.replay((await sell(node, 1))[0], actor="member:1")

        async def all_taken() -> bool:
            return len(shop.taken) == 21

        await until(all_taken, "the shop has all of them")


async def test_workers_share_the_queue(node: Node, shop: Shop, database_url: str) -> None:
    """Three of them: every order arrives, and once, because none of them dies."""
    ids = await sell(node, 300)
    async with contextlib.AsyncExitStack() as workers:
        for _ in range(3):
            await workers.enter_async_context(delivering(database_url, node.ledger.orders, shop.url))
        await until_taken(shop, ids)
        await until_idle(node)
    assert shop.tries == dict.fromkeys(ids, 1)


async def test_after_a_crash_before_the_job_was_taken_away_nothing_is_lost(
    node: Node, shop: Shop, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delivered and written down, but the job is still there, held by a worker that is dead: it is only taken away.

    Delivered and *not* written down: it goes out again, under the same id.
    """
    monkeypatch.setattr(queue, "SILENT_MAX_S", 0.3)
    told, untold = await sell(node, 2)
    dead = "UPDATE pgqueuer SET status = 'picked', queue_manager_id = gen_random_uuid(), heartbeat = now()"
    await node.ledger._pools[0].execute(dead)
    await node.ledger.orders.settle([order_store.Tried(told, OrderState.DELIVERED, None)])
    shop.taken += [told, untold]
    async with delivering(database_url, node.ledger.orders, shop.url):
        await until_idle(node)
    assert shop.taken == [told, untold, untold]


async def test_work_that_breaks_off_goes_back(node: Node, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that nobody foresaw, and a cancellation, take no job away."""
    monkeypatch.setattr(queue, "FAILED_AGAIN_S", 0.05)
    [one] = await sell(node, 1)
    stopping, seen = asyncio.Event(), []

    async def handle(order_id: str, put_off: int) -> Later | None:
        seen.append(put_off)
        if len(seen) == 1:
            raise RuntimeError("nobody foresaw this")
        if len(seen) == 2:
            raise asyncio.CancelledError
        assert order_id == one
        stopping.set()
        return None

    async def admit(wanted: int) -> int:
        return wanted

    await asyncio.wait_for(
        consume(
            database_url,
            handle,
            admit=admit,
            admitted=lambda _: None,
            taken_max=4,
            timeout_s=5,
            stopping=stopping,
        ),
        30,
    )
    assert len(seen) == 3
    assert await jobs(node) == 0


async def test_an_order_that_lost_its_job_gets_another(
    node: Node, shop: Shop, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_store, "LOST_AFTER_S", 0)
    ids = await sell(node, 3)
    pool = node.ledger._pools[0]
    await pool.execute("DELETE FROM pgqueuer WHERE dedupe_key = ANY ($1)", ids[:2])
    done = await orders.keep_house(node.ledger.orders, log_kept_s=3_600)
    assert done.requeued == 2
    assert await jobs(node) == 3
    assert (await orders.keep_house(node.ledger.orders, log_kept_s=3_600)).requeued == 0
    async with delivering(database_url, node.ledger.orders, shop.url):
        await until_taken(shop, ids)
    assert shop.tries == dict.fromkeys(ids, 1)


async def test_finished_jobs_are_forgotten_and_orders_kept(node: Node, shop: Shop, database_url: str) -> None:
    ids = await sell(node, 4)
    async with delivering(database_url, node.ledger.orders, shop.url):
        await until_taken(shop, ids)
        await until_idle(node)
    pool: Any = node.ledger._pools[0]
    lines = await pool.fetchval("SELECT count(*) FROM pgqueuer_log")
    assert lines >= 3 * len(ids)
    assert (await orders.keep_house(node.ledger.orders, log_kept_s=3_600)).pruned == 0
    assert (await orders.keep_house(node.ledger.orders, log_kept_s=0)).pruned == lines
    assert await pool.fetchval("SELECT count(*) FROM pgqueuer_log") == 0
    assert {(await order(node, i)).state for i in ids} == {OrderState.DELIVERED}


async def test_the_queue_says_how_it_is(node: Node) -> None:
    empty = await node.ledger.orders.health()
    assert (empty.waiting, empty.oldest_s, empty.tries_max, empty.dead) == (0, 0.0, 0, 0)
    ids = await sell(node, 3)
    old = "UPDATE orders SET queued_at = now() - interval '90 s', tries = 2 WHERE id = $1"
    await node.ledger._pools[0].execute(old, ids[1])
    health = await node.ledger.orders.health()
    assert (health.waiting, health.tries_max, health.dead) == (3, 2, 0)
    assert 90 <= health.oldest_s < 100
