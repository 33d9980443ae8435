"""`flashsale worker`: delivers orders, expires holds, returns units, rebuilds gates.

Any number may run; each act may be done twice. Repairs and deliveries know nothing of each other: a shop's endpoint
that is slow holds up no repair, and neither touches the web processes.
"""

import asyncio
import contextlib
import faulthandler
import random
import signal
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final

import structlog
import uvloop

from flashsale import log
from flashsale.catalog import Catalog
from flashsale.circuit import Circuit
from flashsale.endpoint import Endpoint
from flashsale.errors import SetupError
from flashsale.gate import Gate, connect
from flashsale.ids import new_ids
from flashsale.ledger import Ledger, consume
from flashsale.orders import HOUSEKEEPING_EVERY_S, TAKEN_PER_SENT, Deliveries, keep_house
from flashsale.process import libraries_to_structlog, require_stores, until_available
from flashsale.reconcile import Arming, Reconciler
from flashsale.settings import Settings
from flashsale.webhooks import parse_secret

HANG_TIMEOUT_S: Final = 60
"""When the event loop has stood still for this long, the process says where and ends; who supervises starts another."""
HEARTBEAT_S: Final = 1.0

_log = structlog.get_logger()


def endpoint_of(settings: Settings) -> Endpoint | None:
    """The shop's endpoint; None when none is set, `SetupError` when it cannot be used."""
    if settings.fulfilment_url is None:
        return None
    if settings.fulfilment_secret is None:
        raise SetupError(
            "FLASHSALE_FULFILMENT_URL is set, and FLASHSALE_FULFILMENT_SECRET is not: nobody could verify the webhooks."
        )
    return Endpoint(
        settings.fulfilment_url,
        secret=parse_secret(settings.fulfilment_secret),
        allow_private=settings.fulfilment_allow_private,
        timeout_s=settings.fulfilment_timeout_s,
        connections_max=settings.fulfilment_at_once_max,
        now=time.time,
    )


@contextlib.asynccontextmanager
async def _opened_ledger(settings: Settings, database_url: str) -> AsyncIterator[Ledger]:
    """A ledger that answers, however long that takes."""

    async def open_ledger() -> Ledger:
        ledger = await Ledger.connect(
            database_url, pool_max=settings.ledger_pool_max, timeout_s=settings.ledger_timeout_s
        )
        try:
            await ledger.ping()
        except BaseException:
            await ledger.aclose()
            raise
        return ledger

    ledger = await until_available(open_ledger, jitter=random.random)
    try:
        yield ledger
    finally:
        await ledger.aclose()


async def reconcile(settings: Settings, ledger: Ledger, redis_url: str) -> None:
    """Reconcile until cancelled, however often the stores go away."""
    client = connect(redis_url, timeout_s=settings.gate_timeout_s)
    gate = Gate(client, timeout_s=settings.gate_timeout_s, new_ids=new_ids)
    try:
        catalog = Catalog(ledger.drops)
        arming = Arming(
            gate=gate,
            ledger=ledger,
            catalog=catalog,
            ttl_after_close_s=settings.gate_ttl_after_close_s,
            now=lambda: datetime.now(UTC),
        )
        await until_available(Reconciler(gate=gate, ledger=ledger, arming=arming).run, jitter=random.random)
    finally:
        await gate.aclose()


async def deliver(settings: Settings, ledger: Ledger, database_url: str, stopping: asyncio.Event) -> None:
    """Deliver orders until `stopping`, however often the ledger goes away."""
    endpoint = endpoint_of(settings)
    if endpoint is None:
        _log.warning("orders.wait", detail="FLASHSALE_FULFILMENT_URL is not set: orders stay in the queue.")
        return
    deliveries = Deliveries(
        store=ledger.orders,
        endpoint=endpoint,
        circuit=Circuit(now=time.monotonic, jitter=random.random),
        delays_s=settings.retry_delays_s,
        at_once_max=settings.fulfilment_at_once_max,
        jitter=random.random,
        stopping=stopping,
    )

    async def attempt() -> None:
        await deliveries.begin()
        await consume(
            database_url,
            deliveries.deliver,
            admit=deliveries.admit,
            admitted=deliveries.admitted,
            taken_max=TAKEN_PER_SENT * settings.fulfilment_at_once_max,
            timeout_s=settings.ledger_timeout_s,
            stopping=stopping,
        )

    try:
        await until_available(attempt, jitter=random.random)
    finally:
        await endpoint.aclose()


async def tidy(settings: Settings, ledger: Ledger) -> None:
    """Keep the order queue in order until cancelled."""

    async def attempt() -> None:
        while True:
            await keep_house(ledger.orders, log_kept_s=settings.queue_log_kept_s)
            await asyncio.sleep(HOUSEKEEPING_EVERY_S)

    await until_available(attempt, jitter=random.random)


async def work(settings: Settings, ledger: Ledger, stopping: asyncio.Event) -> None:
    """Everything a worker does, until `stopping`; deliveries that are under way may end before that."""
    redis_url, database_url = require_stores(settings)
    async with asyncio.TaskGroup() as group:
        repairs = [group.create_task(reconcile(settings, ledger, redis_url)), group.create_task(tidy(settings, ledger))]
        delivering = group.create_task(deliver(settings, ledger, database_url, stopping))
        await stopping.wait()
        for task in repairs:
            task.cancel()
        await asyncio.wait([delivering], timeout=settings.shutdown_timeout_s)
        delivering.cancel()


async def _watchdog() -> None:
    """End the process when the event loop no longer comes round."""
    try:
        while True:
            faulthandler.dump_traceback_later(HANG_TIMEOUT_S, exit=True)  # takes the place of the one before
            await asyncio.sleep(HEARTBEAT_S)
    finally:
        faulthandler.cancel_dump_traceback_later()


async def _until_signal(settings: Settings) -> None:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    opened = False

    async def open_and_work() -> None:
        nonlocal opened
        async with _opened_ledger(settings, require_stores(settings)[1]) as ledger:
            opened = True
            _log.info("worker.started")
            await work(settings, ledger, stopping)

    working = asyncio.create_task(open_and_work())

    def stop() -> None:
        if not opened or stopping.is_set():  # nothing has begun; or it was asked for twice
            working.cancel()
        stopping.set()

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, stop)
    watchdog = asyncio.create_task(_watchdog())
    try:
        await working
    except asyncio.CancelledError:
        pass
    finally:
        watchdog.cancel()
    _log.info("worker.stopped")


def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    require_stores(settings)
    endpoint_of(settings)
    log.configure(settings.log_format)
    libraries_to_structlog()
    uvloop.run(_until_signal(settings))
    return 0
