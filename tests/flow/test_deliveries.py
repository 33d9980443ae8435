"""Deliveries: every order reaches the shop, at least once, under its id, whatever fails on the way."""

import asyncio
import contextlib

import pytest

from flashsale import orders
from flashsale.circuit import Circuit
from flashsale.domain import OrderState
from flashsale.ledger import orders as order_store
from flashsale.ledger import queue
from tests.flow.workers import (
    QUICK,
    Shop,
    data_of,
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


async def test_an_order_arrives_signed_and_is_done(node: Node, shop: Shop, database_url: str) -> None:
    [one] = await sell(node, 1)
    async with delivering(database_url, node.ledger.orders, shop.url):
        await until_taken(shop, [one])
        await until_state(node, one, OrderState.DELIVERED)
        await until_idle(node)
    [body] = shop.bodies[one]
    said, listed = data_of(body), await order(node, one)
    assert (said["order"], said["reservation"], said["member"]) == (one, listed.reservation, 1)
    assert said["price"] == {"amount": 169_900, "currency": "CNY"}
    assert (listed.tries, listed.reason, listed.due_at) == (1, None, None)


async def test_an_order_of_a_rehearsal_reaches_no_shop(node: Node, shop: Shop, database_url: str) -> None:
    """It is taken for delivered, and one of a real sale beside it arrives."""
    ids, [real] = await sell(node, 3, hidden=True), await sell(node, 1)
    async with delivering(database_url, node.ledger.orders, shop.url):
        for one in ids:
            await until_state(node, one, OrderState.DELIVERED)
        await until_taken(shop, [real])
        await until_idle(node)
    assert dict(shop.tries) == {real: 1}


async def test_orders_that_come_later_are_not_waited_for(
    node: Node, shop: Shop, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle worker hears of a new order by the queue's notice: it would not look again by itself for an hour."""
    monkeypatch.setattr(queue, "LOOK_AGAIN_S", 3_600.0)
    async with delivering(database_url, node.ledger.orders, shop.url):
        for _ in range(3):
            await until_taken(shop, await sell(node, 1))


async def test_what_fails_is_tried_again_under_the_same_id(node: Node, shop: Shop, database_url: str) -> None:
    shop.answer = lambda _, number: 500 if number < 3 else 200
    ids = await sell(node, 20)
    async with delivering(database_url, node.ledger.orders, shop.url):
        await until_taken(shop, ids)
        await until_idle(node)
    assert shop.tries == dict.fromkeys(ids, 3)
    assert all(len(bodies) == 1 for bodies in shop.bodies.values()), "the same bytes at every try"
    assert (await order(node, ids[0])).tries == 3


async def test_after_the_last_try_an_order_is_dead_until_it_is_replayed(
    node: Node, shop: Shop, database_url: str
) -> None:
    shop.answer = lambda _, __: 503
    [one] = await sell(node, 1)
    async with delivering(database_url, node.ledger.orders, shop.url):
        await until_state(node, one, OrderState.DEAD)
        await until_idle(node)
        dead = await order(node, one)
        assert (shop.tries[one], dead.tries) == (1 + len(QUICK), 1 + len(QUICK))
        assert dead.reason is not None
        assert "503" in dead.reason
        health = await node.ledger.orders.health()
        assert (health.waiting, health.dead) == (0, 1)
        shop.answer = lambda _, __: 200
        assert await node.ledger.orders.replay(one, actor="member:1") is OrderState.DEAD
        await until_taken(shop, [one])
        await until_state(node, one, OrderState.DELIVERED)
    [line] = await node.operations.audit(one, None, 10)
    assert (line.action, line.detail) == ("order.replay", {"was": "dead"})


async def test_a_delivered_order_is_replayed_under_its_id(node: Node, shop: Shop, database_url: str) -> None:
    [one] = await sell(node, 1)
    async with delivering(database_url, node.ledger.orders, shop.url):
        await until_state(node, one, OrderState.DELIVERED)
        await until_idle(node)
        assert await node.ledger.orders.replay(one, actor="member:1") is OrderState.DELIVERED

        async def twice() -> bool:
            return shop.taken == [one, one]

        await until(twice, "the shop has it twice")
        await until_state(node, one, OrderState.DELIVERED)


async def test_a_waiting_order_is_replayed_at_once(node: Node, shop: Shop, database_url: str) -> None:
    """Its next try was an hour away."""
    shop.answer = lambda _, number: 500 if number == 1 else 200
    [one] = await sell(node, 1)
    async with delivering(database_url, node.ledger.orders, shop.url, delays_s=(3_600,)):

        async def put_off() -> bool:
            due = (await order(node, one)).due_at
            sql = (
                "SELECT count(*) FROM pgqueuer WHERE status = 'queued' AND execute_after > now() + interval '1 minute'"
            )
            return due is not None and await node.ledger._pools[0].fetchval(sql) == 1

        await until(put_off, "the next try is an hour away")
        assert await node.ledger.orders.replay(one, actor="member:1") is OrderState.QUEUED
        await until_taken(shop, [one])
    assert await node.ledger.orders.replay("01a1ffb3-e7e2-734d-9fe1-ce2f17d1db98", actor="member:1") is None


class Looks(order_store.OrderStore):
    """Counts how often a worker looks whether it may send again."""

    count = 0

    async def disabled(self, url: str) -> bool:
        self.count += 1
        return await super().disabled(url)


async def test_an_endpoint_that_is_gone_is_left_alone(
    node: Node, shop: Shop, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """410 disables it, for every worker and over restarts, until an operator replays an order."""
    monkeypatch.setattr(orders, "DISABLED_LOOK_S", 0.02)
    shop.answer = lambda _, __: 410
    first = await sell(node, 1)
    async with delivering(database_url, node.ledger.orders, shop.url):

        async def disabled() -> bool:
            return (await node.ledger.orders.health(shop.url)).disabled

        await until(disabled, "the endpoint is disabled")
    more = await sell(node, 5)
    shop.answer = lambda _, __: 200
    looks = Looks(*node.ledger._pools)
    async with delivering(database_url, looks, shop.url) as asked:

        async def looked() -> bool:
            return looks.count >= 5

        await until(looked, "it has looked five times whether it may send")
        assert (asked, shop.taken) == ([], [])
        await node.ledger.orders.replay(first[0], actor="member:1")
        await until_taken(shop, [*first, *more])


async def test_the_circuit_spares_orders_and_endpoint(node: Node, shop: Shop, database_url: str) -> None:
    """While everything fails, a probe goes out now and then; afterwards all arrive, and most were not tried before."""
    loop = asyncio.get_running_loop()
    shop.answer = lambda _, __: 500
    ids = await sell(node, 200)
    circuit = Circuit(now=loop.time, jitter=lambda: 0.0, failures_max=5, base_s=0.05, max_s=0.1)
    async with delivering(database_url, node.ledger.orders, shop.url, circuit=circuit, delays_s=(0.01, 5, 5)):

        async def probed() -> bool:
            return sum(shop.tries.values()) >= 25

        await until(probed, "probes have gone out")
        assert not circuit.closed
        first_wave = 16  # all that were under way when it opened
        assert sum(shop.tries.values()) <= first_wave + 25
        shop.answer = lambda _, __: 200
        await until_taken(shop, ids)
    assert sorted(shop.taken) == sorted(ids)
    assert sum(tries == 1 for tries in shop.tries.values()) > len(ids) / 2


async def test_so_many_at_once_and_no_more(node: Node, shop: Shop, database_url: str) -> None:
    shop.held.clear()
    ids = await sell(node, 50)
    async with delivering(database_url, node.ledger.orders, shop.url, at_once_max=8) as asked:

        async def full() -> bool:
            return len(shop.tries) == 8

        await until(full, "eight are under way")
        before = len(asked)

        async def asked_again() -> bool:
            return len(asked) >= before + 10

        await until(asked_again, "it has asked for more ten times")
        assert len(shop.tries) == 8
        shop.held.set()
        await until_taken(shop, ids)


async def test_a_worker_that_is_stopped_finishes_what_it_began(node: Node, shop: Shop, database_url: str) -> None:
    shop.held.clear()
    ids = await sell(node, 30)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(delivering(database_url, node.ledger.orders, shop.url, at_once_max=10))

        async def full() -> bool:
            return len(shop.tries) == 10

        await until(full, "ten are under way")
        asyncio.get_running_loop().call_later(0.1, shop.held.set)
    assert sorted(shop.taken) == sorted(shop.tries), "what went out was answered"
    states = [(await order(node, i)).state for i in ids]
    assert states.count(OrderState.DELIVERED) == 10
    assert await jobs(node) == 20
    async with delivering(database_url, node.ledger.orders, shop.url):
        await until_taken(shop, ids)
    assert shop.tries == dict.fromkeys(ids, 1)
