"""A shop that takes orders as it is told to, workers that deliver to it, and orders to deliver."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web

from flashsale.circuit import Circuit
from flashsale.domain import Event, OrderState
from flashsale.endpoint import Endpoint
from flashsale.ledger import ListedOrder, OrderStore, consume
from flashsale.orders import TAKEN_PER_SENT, Deliveries
from flashsale.reservations import Held
from flashsale.webhooks import make_secret, parse_secret
from tests.support import TIMEOUT_S, Node, allocation, claim, make_drop, until

SECRET = make_secret(bytes(range(32)))
QUICK = (0.05, 0.1, 0.15)
"""Delays between tries that a test can wait for."""


class Shop:
    """Remembers what it was sent; `answer` decides the status by the number of the try (1, 2, …) of that id."""

    def __init__(self) -> None:
        self.tries: Counter[str] = Counter()
        self.bodies: dict[str, set[bytes]] = {}
        self.taken: list[str] = []
        self.answer: Callable[[str, int], int] = lambda _id, _number: 204
        self.url = ""
        self.held = asyncio.Event()
        self.held.set()

    async def receive(self, request: web.Request) -> web.Response:
        name, body = request.headers["webhook-id"], await request.read()
        self.tries[name] += 1
        self.bodies.setdefault(name, set()).add(body)
        await self.held.wait()
        status = self.answer(name, self.tries[name])
        if 200 <= status < 300:
            self.taken.append(name)
        return web.Response(status=status)


@asynccontextmanager
async def opened_shop() -> AsyncIterator[Shop]:
    """A shop that takes everything, until it is told otherwise."""
    shop = Shop()
    app = web.Application()
    app.router.add_post("/hook", shop.receive)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    shop.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield shop
    finally:
        shop.held.set()
        await runner.cleanup()


@asynccontextmanager
async def delivering(
    url: str,
    store: OrderStore,
    shop_url: str,
    *,
    delays_s: Sequence[float] = QUICK,
    circuit: Circuit | None = None,
    at_once_max: int = 16,
) -> AsyncIterator[list[int]]:
    """A worker over the database at `url`; at the end it stops as a worker does at SIGTERM.

    Gives the list that grows by one each time it asks for jobs: how many it was let take.
    """
    loop, stopping, asked = asyncio.get_running_loop(), asyncio.Event(), list[int]()
    endpoint = Endpoint(
        shop_url,
        secret=parse_secret(SECRET),
        allow_private=True,
        timeout_s=TIMEOUT_S,
        connections_max=at_once_max,
        now=lambda: 1_700_000_000.0,
    )
    deliveries = Deliveries(
        store=store,
        endpoint=endpoint,
        circuit=circuit or Circuit(now=loop.time, jitter=lambda: 0.0, failures_max=1_000_000),
        delays_s=delays_s,
        at_once_max=at_once_max,
        jitter=lambda: 0.0,
        stopping=stopping,
    )
    await deliveries.begin()

    async def admit(wanted: int) -> int:
        asked.append(await deliveries.admit(wanted))
        return asked[-1]

    work = asyncio.create_task(
        consume(
            url,
            deliveries.deliver,
            admit=admit,
            admitted=deliveries.admitted,
            taken_max=TAKEN_PER_SENT * at_once_max,
            timeout_s=TIMEOUT_S,
            stopping=stopping,
        )
    )
    try:
        yield asked
    finally:
        stopping.set()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        await endpoint.aclose()


async def sell(node: Node, count: int, *, hidden: bool = False) -> list[str]:
    """That many orders, waiting in the queue; their ids."""
    drop = msgspec.structs.replace(make_drop(allocation(quantity=count)), hidden=hidden)
    await node.operations.create(drop, actor="member:1", detail={})
    await node.catalog.get(drop.id)
    answers = await asyncio.gather(*(node.reservations.reserve(drop.id, claim(m)) for m in range(1, count + 1)))
    grants = [a.grant for a in answers if isinstance(a, Held)]
    confirmed = await asyncio.gather(*(node.reservations.confirm(g.id, member=g.member) for g in grants))
    return [c.reservation.order for c in confirmed if c.reservation is not None and c.reservation.order is not None]


async def order(node: Node, order_id: str) -> ListedOrder:
    """That order, as an operator sees it."""
    found: list[ListedOrder] = await node.ledger.orders.page(None, Event.CONFIRMED, None, 500)
    return next(o for o in found if o.id == order_id)


async def jobs(node: Node) -> int:
    """How many jobs are in the queue."""
    return int(await node.ledger._pools[0].fetchval("SELECT count(*) FROM pgqueuer"))


def data_of(body: bytes) -> dict[str, object]:
    """What a webhook says."""
    found: dict[str, object] = msgspec.json.decode(body)["data"]
    return found


async def empty(node: Node) -> None:
    """Leave nothing in the queue."""
    await node.ledger._pools[0].execute("TRUNCATE pgqueuer, pgqueuer_log, orders, disabled_endpoints")


async def until_taken(shop: Shop, ids: list[str], deadline_s: float = 30.0) -> None:
    """Wait until the shop has taken all of these."""

    async def taken() -> bool:
        return set(ids) <= set(shop.taken)

    await until(taken, "the shop has taken all orders", deadline_s)


async def until_state(node: Node, order_id: str, state: OrderState) -> None:
    async def reached() -> bool:
        return (await order(node, order_id)).state is state

    await until(reached, f"the order is {state}")


async def until_idle(node: Node) -> None:
    async def idle() -> bool:
        return await jobs(node) == 0

    await until(idle, "no job is left")
