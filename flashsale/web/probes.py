"""Probes: does the process live, can it serve, what does it count."""

import asyncio
import contextlib
import math
import os
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from flashsale import metrics as counted
from flashsale.errors import Unavailable
from flashsale.web.auth import Identity
from flashsale.web.context import Context
from flashsale.web.routing import Call, answer

HEALTH_MAX_S: Final = 1.0
UNKNOWN: Final = (math.nan,) * 4


async def healthz(_request: web.Request, _context: Context, _caller: Identity) -> web.StreamResponse:
    """`GET /healthz`: the process lives."""
    return answer({"status": "ok"})


async def readyz(_request: web.Request, context: Context, _caller: Identity) -> web.StreamResponse:
    """`GET /readyz`: both stores answer and the schema is right; otherwise `unavailable` says which is not."""
    results = await asyncio.gather(context.gate.ping(), context.ledger.ping(), return_exceptions=True)
    faults = [result for result in results if isinstance(result, BaseException)]
    for fault in faults:
        if not isinstance(fault, Unavailable):
            raise fault
    if faults:
        raise Unavailable(" ".join(str(fault) for fault in faults))
    return answer({"status": "ok", "redis": "ok", "postgres": "ok"})


async def _look_at_orders(context: Context) -> None:
    """The order queue's figures, read for who asks: also when no worker runs, which is when they matter.

    A ledger that does not answer at once leaves them without a value.
    """
    health = UNKNOWN
    with contextlib.suppress(Unavailable, TimeoutError):
        async with asyncio.timeout(HEALTH_MAX_S):
            found = await context.ledger.orders.health()
            health = (found.waiting, found.oldest_s, found.tries_max, found.dead)
    gauges = (counted.orders_waiting, counted.orders_oldest_s, counted.orders_tries_max, counted.orders_dead)
    for gauge, value in zip(gauges, health, strict=True):
        gauge.set(value)


async def metrics(_request: web.Request, context: Context, _caller: Identity) -> web.StreamResponse:
    """`GET /metrics`: all web processes together, in Prometheus' text form."""
    await _look_at_orders(context)
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    text = await asyncio.to_thread(generate_latest, registry)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _probe(path: str, handler: object, summary: str, shown: type | str) -> Call:
    return Call(method="GET", path=path, handler=handler, summary=summary, access="probe", answers={200: shown})  # type: ignore[arg-type]


CALLS: Final = (
    _probe("/healthz", healthz, "The process lives", dict),
    _probe("/readyz", readyz, "Stores reachable, schema right", dict),
    _probe("/metrics", metrics, "Counters for Prometheus", "text/plain"),
)
