"""`flashsale worker`: expires holds, returns units, rebuilds gates. Any number may run; each act may be done twice."""

import asyncio
import contextlib
import faulthandler
import random
import signal
from typing import Final

import structlog
import uvloop

from flashsale import log
from flashsale.catalog import Catalog
from flashsale.gate import Gate, connect
from flashsale.ids import new_ids
from flashsale.ledger import Ledger
from flashsale.process import libraries_to_structlog, require_stores, until_available
from flashsale.reconcile import Arming, Reconciler
from flashsale.settings import Settings

HANG_TIMEOUT_S: Final = 60
"""When the event loop has stood still for this long, the process says where and ends; who supervises starts another."""
HEARTBEAT_S: Final = 1.0

_log = structlog.get_logger()


async def reconcile(settings: Settings) -> None:
    """Reconcile until cancelled, however often the stores go away, also at the start."""
    redis_url, database_url = require_stores(settings)

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

    async with contextlib.AsyncExitStack() as opened:
        gate = Gate(
            connect(redis_url, timeout_s=settings.gate_timeout_s), timeout_s=settings.gate_timeout_s, new_ids=new_ids
        )
        opened.push_async_callback(gate.aclose)
        ledger = await until_available(open_ledger, jitter=random.random)
        opened.push_async_callback(ledger.aclose)
        catalog = Catalog(ledger.drops)
        arming = Arming(gate=gate, ledger=ledger, catalog=catalog, ttl_after_close_s=settings.gate_ttl_after_close_s)
        reconciler = Reconciler(gate=gate, ledger=ledger, arming=arming)
        _log.info("worker.started")
        await until_available(reconciler.run, jitter=random.random)


async def _watchdog() -> None:
    """End the process when the event loop no longer comes round."""
    try:
        while True:
            faulthandler.dump_traceback_later(HANG_TIMEOUT_S, exit=True)  # takes the place of the one before
            await asyncio.sleep(HEARTBEAT_S)
    finally:
        faulthandler.cancel_dump_traceback_later()


async def _until_signal(settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    work = asyncio.create_task(reconcile(settings))
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, work.cancel)
    watchdog = asyncio.create_task(_watchdog())
    try:
        await work
    except asyncio.CancelledError:
        _log.info("worker.stopped")
    finally:
        watchdog.cancel()


def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    require_stores(settings)
    log.configure(settings.log_format)
    libraries_to_structlog()
    uvloop.run(_until_signal(settings))
    return 0
