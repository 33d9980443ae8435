"""The load tools and orders: an auditor of the ledger that can say no, copies in numbers, a receiver that verifies."""

import asyncio
from datetime import UTC, datetime

import aiohttp
import asyncpg
import pytest
from standardwebhooks import Webhook

from flashsale import embedded
from flashsale.domain import Drop
from flashsale.reservations import Held
from loadtests import stores
from loadtests.bench.receiver import Receiver, listening, new_secret
from loadtests.bench.table import Failed
from loadtests.stores import Orders
from tests.ledger.support import pool_of
from tests.support import NewDrop, Node, allocation, claim, until


async def confirmed(node: Node, drop: Drop, *members: int) -> list[str]:
    """These members' reservations, confirmed."""
    ids = []
    await node.catalog.get(drop.id)
    for member in members:
        held = await node.reservations.reserve(drop.id, claim(member))
        assert isinstance(held, Held)
        await node.reservations.confirm(held.grant.id, member=member)
        ids.append(held.grant.id)
    return ids


PLANTED = {
    "no job": "DELETE FROM pgqueuer WHERE dedupe_key = (SELECT order_id::text FROM reservations WHERE id = $1)",
    "two jobs": """INSERT INTO pgqueuer (priority, status, entrypoint, dedupe_key)
                   SELECT 0, 'successful', 'order', order_id::text FROM reservations WHERE id = $1""",
    "no order": "DELETE FROM orders WHERE reservation_id = $1",
    "another order": "UPDATE orders SET id = gen_random_uuid() WHERE reservation_id = $1",
    "delivered, yet queued": "UPDATE orders SET state = 'delivered', settled_at = now() WHERE reservation_id = $1",
    "ordered, yet held": "UPDATE reservations SET state = 'held', order_id = NULL WHERE id = $1",
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
async def test_orders_that_contradict_their_reservations_are_counted(
    node: Node, new_drop: NewDrop, urls: embedded.Servers, planted: str
) -> None:
    """Three confirmed reservations are as they should be, until one of them is not."""
    drop = await new_drop()
    ids = await confirmed(node, drop, 1, 2, 3)
    assert await stores.orders(urls.database_url, drop.id) == Orders(confirmed=3, waiting=3, wrong=0)
    connection = await asyncpg.connect(urls.database_url)
    try:
        await connection.execute(planted, ids[1])
    finally:
        await connection.close()
    assert (await stores.orders(urls.database_url, drop.id)).wrong == 1


async def test_copied_orders_are_orders_like_any(node: Node, new_drop: NewDrop, urls: embedded.Servers) -> None:
    """Members, orders and jobs of their own; gate and ledger agree again, and neither sells what the copies have."""
    drop = await new_drop(allocation(quantity=51))
    [original] = await confirmed(node, drop, 7)
    await stores.copy_order(urls.database_url, original, 50)
    assert await stores.orders(urls.database_url, drop.id) == Orders(confirmed=51, waiting=51, wrong=0)
    members = "SELECT member FROM reservations WHERE drop_id = $1 ORDER BY member"
    assert [row["member"] for row in await pool_of(node.ledger).fetch(members, drop.id)] == list(range(7, 58))

    async def balanced() -> bool:
        await node.reconciler.run_once()
        [balance] = await node.operations.balance(drop.id)
        return balance.balanced and balance.confirmed == 51

    await until(balanced, "gate and ledger agree")
    assert not isinstance(await node.reservations.reserve(drop.id, claim(99)), Held)
    await stores.deliver_unseen(urls.database_url, drop.id)
    assert await stores.orders(urls.database_url, drop.id) == Orders(confirmed=51, waiting=0, wrong=0)
    assert len(await stores.delivered_orders(urls.database_url, drop.id)) == 51
    with pytest.raises(stores.Unreadable, match="could not be copied"):
        await stores.copy_order(urls.database_url, original, 1)


async def test_a_receiver_counts_what_is_signed_once() -> None:
    """A webhook as the standard's own library signs it counts; a repeat does not; one forged, and it is told."""
    secret = new_secret()
    receiver = Receiver(secret)

    async def send(session: aiohttp.ClientSession, message_id: str, signed_by: str) -> int:
        at, body = datetime.now(UTC), '{"type": "order.confirmed"}'
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": f"v1,AAAA {Webhook(signed_by).sign(message_id, at, body)}",
        }
        async with session.post(url, data=body, headers=headers) as answer:
            return answer.status

    async with listening(receiver) as url, aiohttp.ClientSession() as session:
        with pytest.raises(Failed, match=r"0 of 2 orders came, then none for 0.01 s"):
            await receiver.wait_for(2, 0.01)
        both = asyncio.create_task(receiver.wait_for(2, 10))
        assert [await send(session, name, secret) for name in ("a", "a", "b")] == [204, 204, 204]
        await both
        assert (list(receiver.arrived), receiver.repeated) == (["a", "b"], 1)
        third = asyncio.create_task(receiver.wait_for(3, 10))
        assert await send(session, "c", new_secret()) == 401
        with pytest.raises(Failed, match="not signed"):
            await third
