"""Composition root of a web process: settings in, a runner out that serves the contract."""

import asyncio
import contextlib
import os
import random
import secrets
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final

import structlog
from aiohttp import ClientSession, web
from aiohttp.web_request import BaseRequest
from aiohttp.web_server import Server

from flashsale import log, metrics
from flashsale.batches import Batches
from flashsale.catalog import Catalog
from flashsale.drops import Operations
from flashsale.errors import SetupError, Unavailable
from flashsale.gate import Gate, connect
from flashsale.ids import new_ids
from flashsale.ledger import Ledger
from flashsale.reconcile import Arming
from flashsale.rehearsals import Rehearsals
from flashsale.reservations import Limits, Reservations
from flashsale.settings import Settings
from flashsale.shares import Shares
from flashsale.spending import Spending
from flashsale.tries import Tries
from flashsale.web import (
    api,
    confirm,
    console_calls,
    fcodes,
    hot,
    live,
    mine,
    ops,
    orders,
    pictures,
    probes,
    problems,
    watching,
)
from flashsale.web.auth import Authenticator
from flashsale.web.board import Board
from flashsale.web.console_live import Live
from flashsale.web.console_rehearsals import auditor
from flashsale.web.context import Context
from flashsale.web.express import ExpressServer
from flashsale.web.jwks import Jwks, fetch_with
from flashsale.web.openapi import openapi_call
from flashsale.web.pages import routes as pages
from flashsale.web.pages.site import Site
from flashsale.web.routing import CONTEXT, register
from flashsale.web.session import Sessions

TICK_S: Final = 1.0
KEEPALIVE_S: Final = 75.0

_log = structlog.get_logger()

CALLS: Final = (
    *api.CALLS,
    *live.CALLS,
    *watching.CALLS,
    *mine.CALLS,
    *ops.CALLS,
    *pictures.CALLS,
    *console_calls.CALLS,
    *orders.CALLS,
    *fcodes.CALLS,
    *probes.CALLS,
)


class Runner(web.AppRunner):
    """Serves the application, but takes presses of the button (`express`) and confirms before all routing."""

    def __init__(self, app: web.Application, context: Context) -> None:
        super().__init__(
            app,
            access_log=None,
            keepalive_timeout=KEEPALIVE_S,
            shutdown_timeout=context.settings.shutdown_timeout_s,
        )
        self._context = context

    async def _make_server(self) -> Server:
        server = await super()._make_server()
        routed, context = server.request_handler, self._context

        async def dispatch(request: BaseRequest) -> web.StreamResponse:
            if request.method == "POST" and "Expect" not in request.headers:
                drop_id = hot.drop_of_path(request.raw_path)
                if drop_id is not None:
                    return await hot.reserve(request, context, drop_id)
                reservation_id = confirm.reservation_of_path(request.raw_path)
                if reservation_id is not None:
                    return await confirm.confirm(request, context, reservation_id)
            return await routed(request)

        server.request_handler = dispatch
        return ExpressServer(server, context)


async def _tick(context: Context, tally: log.Tally) -> None:
    """Each second: notice new epochs, hand counts to the metrics. A ledger that is away is asked again."""
    while True:
        try:
            context.shares.decided(tally.flush())
            for lane, waiting in zip(("gate", "ledger"), context.reservations.waiting(), strict=True):
                metrics.waiting.labels(lane).set(waiting)
            metrics.fcode_guessing.set(context.tries.failures_in_window)
            await context.catalog.refresh()
        except Unavailable:
            pass  # requests that need the ledger say so themselves
        except Exception as error:  # noqa: BLE001 -- without this tick, a gate that was left behind goes unnoticed
            _log.error("tick.failed", exc_info=error)
        await asyncio.sleep(TICK_S)


def _now() -> datetime:
    return datetime.now(UTC)


def _limits_of(settings: Settings) -> Limits:
    return Limits(
        settings.gate_batch_max,
        settings.gate_queue_max,
        settings.ledger_batch_max,
        settings.ledger_queue_max,
        settings.answer_max_s,
    )


def _tries_of(settings: Settings, gate: Gate) -> Tries:
    return Tries(
        share=gate.tries,
        now=time.monotonic,
        member_max=settings.fcode_tries_member_max,
        address_max=settings.fcode_tries_address_max,
        alert_max=settings.fcode_alert_max,
        alert=lambda failures: _log.error("fcodes.guessing", failures_per_minute=failures),
    )


def _rehearsals_of(
    settings: Settings, ledger: Ledger, operations: Operations, batches: Batches, reservations: Reservations
) -> Rehearsals:
    return Rehearsals(
        store=ledger.rehearsals,
        operations=operations,
        batches=batches,
        reservations=reservations,
        audit=auditor(settings),
        now=_now,
        dice=random.Random(),  # noqa: S311 -- simulated members need no secure randomness
    )


async def _stores_of(settings: Settings) -> tuple[Gate, Ledger]:
    if settings.redis_url is None or settings.database_url is None:
        raise SetupError("FLASHSALE_REDIS_URL or FLASHSALE_DATABASE_URL is not set; `flashsale up` brings servers.")
    gate = Gate(
        connect(settings.redis_url, timeout_s=settings.gate_timeout_s),
        timeout_s=settings.gate_timeout_s,
        new_ids=new_ids,
    )
    ledger = await Ledger.connect(
        settings.database_url, pool_max=settings.ledger_pool_max, timeout_s=settings.ledger_timeout_s
    )
    return gate, ledger


async def make_context(settings: Settings, *, jwks: Jwks | None, tally: log.Tally) -> Context:
    """Open the stores and put the parts together."""
    auth = Authenticator(secret=settings.jwt_secret, jwks=jwks, now=time.time)
    gate, ledger = await _stores_of(settings)
    catalog = Catalog(ledger.drops)
    arming = Arming(
        gate=gate,
        ledger=ledger,
        catalog=catalog,
        ttl_after_close_s=settings.gate_ttl_after_close_s,
        now=_now,
    )

    async def arm(drop_id: str, force: bool) -> None:  # noqa: FBT001 -- the flow's word
        await arming.arm(drop_id, force)

    shares = Shares(gate.sharing, name=f"{os.getpid()}-{secrets.token_hex(4)}", ttl_s=settings.gate_ttl_after_close_s)
    reservations = Reservations(
        gate=gate,
        ledger=ledger.reservations,
        orders=ledger.orders,
        catalog=catalog,
        arm=arm,
        new_ids=new_ids,
        now=time.monotonic,
        jitter=random.random,
        limits=_limits_of(settings),
        on_decided=tally.decided,
        on_committed=tally.committed,
        on_waited=shares.waited,
    )
    operations = Operations(ledger=ledger, gate=gate, catalog=catalog, arm=arming.arm, new_ids=new_ids)
    board, fcode_keys, tries = Board(gate), settings.fcode_ring, _tries_of(settings, gate)
    batches = Batches(
        ledger=ledger,
        keys=fcode_keys,
        after=operations.after,
        rearm=lambda drop_id: arming.arm(drop_id, force=True),
        now=_now,
    )
    return Context(
        settings=settings,
        auth=auth,
        ledger=ledger,
        gate=gate,
        catalog=catalog,
        arming=arming,
        board=board,
        live=Live(
            gate=gate,
            ledger=ledger,
            catalog=catalog,
            operations=operations,
            board=board,
            shares=shares,
            now=_now,
            streams_max=settings.live_streams_max,
        ),
        shares=shares,
        rehearsals=_rehearsals_of(settings, ledger, operations, batches, reservations),
        reservations=reservations,
        operations=operations,
        batches=batches,
        spending=Spending(keys=fcode_keys, tries=tries),
        tries=tries,
        sessions=_sessions(settings),
        now=_now,
    )


def _sessions(settings: Settings) -> Sessions | None:
    secret = settings.session_secret or settings.jwt_secret
    if secret is None:
        return None
    return Sessions(
        secret.encode("utf-8", "surrogateescape"),
        session_s=settings.session_s,
        session_max_s=settings.session_max_s,
        now=time.time,
        public_url=settings.public_url,
    )


def make_app(context: Context) -> web.Application:
    """The application with all its calls."""
    app = web.Application(middlewares=[problems.middleware], client_max_size=context.settings.body_max_bytes)
    app[CONTEXT] = context
    app[live.HOLDS] = live.Holds()
    app[pictures.PICTURES] = pictures.Pictures()
    watch = app[watching.WATCH] = watching.Watch(context)
    register(app, (*CALLS, openapi_call(CALLS)))
    pages.register(app, Site(context.settings))

    async def end_streams(_: web.Application) -> None:
        await watch.aclose()

    app.on_shutdown.append(end_streams)
    return app


async def make_runner(settings: Settings) -> Runner:
    """Everything of one web process, ready for `setup()`; it closes its stores at `cleanup()`."""
    tally = log.Tally(settings.log_format)
    async with contextlib.AsyncExitStack() as opened:
        jwks: Jwks | None = None
        if settings.jwks is not None:
            session = await opened.enter_async_context(ClientSession())
            jwks = await Jwks.load(settings.jwks, fetch_with(session), now=time.monotonic)
        context = await make_context(settings, jwks=jwks, tally=tally)
        opened.push_async_callback(context.ledger.aclose)
        opened.push_async_callback(context.gate.aclose)
        to_close = opened.pop_all()

    async def lifetime(_: web.Application) -> AsyncIterator[None]:
        work = [
            asyncio.create_task(each)
            for each in (_tick(context, tally), context.tries.run(), context.shares.run(context.reservations.waiting))
        ]
        if jwks is not None:
            work.append(asyncio.create_task(jwks.run()))
        yield
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        tally.flush()
        await context.reservations.drain()
        await to_close.aclose()

    async def end_streams(_: web.Application) -> None:
        await context.live.aclose()
        await context.rehearsals.aclose()

    app = make_app(context)
    app.on_shutdown.append(end_streams)
    app.cleanup_ctx.append(lifetime)
    return Runner(app, context)
