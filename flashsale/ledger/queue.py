"""The order queue: pgqueuer, whose tables stand in our schema. One job an order; its dedupe key is the order's id.

A job is written in the transaction that writes its order. Who works on it says so every few seconds; when that stops,
another worker takes the job over. A job leaves the queue only when its work was done: one that failed in a way nobody
foresaw, or was cancelled, goes back. (pgqueuer would take it away. `OrderStore.requeue_lost` is the second net.)
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import cache
from typing import Any, Final

import asyncpg
import msgspec
from pgqueuer.adapters.drivers.asyncpg import AsyncpgPoolDriver
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.core.qm import QueueManager
from pgqueuer.domain.errors import FailingListenerError, RetryRequested
from pgqueuer.domain.models import Job, TracebackRecord
from pgqueuer.domain.settings import DBSettings
from pgqueuer.domain.types import JOB_STATUS, Channel

from flashsale.errors import LedgerUnavailable
from flashsale.ledger.pool import PASSING, Executor, open_connections

ENTRYPOINT: Final = "order"
CONNECTIONS_MAX: Final = 4
"""One listens; the others take jobs, put them off and away."""
LOOK_AGAIN_S: Final = 1.0
"""How long an idle worker relies on being notified."""
SILENT_MAX_S: Final = 10.0
"""Who has not said for so long that it still works on a job has died."""
FAILED_AGAIN_S: Final = 5.0
"""When a job whose work broke off is done again."""
POLL_S: Final = 0.02

_CHANNEL: Final = "ch_pgqueuer"
_CHANGED: Final = "table_changed_event"


class Later(msgspec.Struct, frozen=True):
    """The job is to be done again after `delay_s`."""

    delay_s: float
    reason: str


@cache
def _settings() -> DBSettings:
    """The names of the migration, whatever PGQUEUER_* variables say."""
    return DBSettings(
        prefix="",
        db_schema=None,
        channel=Channel(_CHANNEL),
        function="fn_pgqueuer_changed",
        statistics_table="pgqueuer_statistics",
        queue_status_type="pgqueuer_status",
        queue_table="pgqueuer",
        queue_table_log="pgqueuer_log",
        trigger="tg_pgqueuer_changed",
        schedules_table="pgqueuer_schedules",
    )


def _queries(kind: type[Queries], driver: AsyncpgPoolDriver) -> Queries:
    names = _settings()
    return kind(driver, QueryBuilderEnvironment(names), QueryQueueBuilder(names), QuerySchedulerBuilder(names))


class _Driver(AsyncpgPoolDriver):
    """Passes on one notice of a change, and the next only after jobs were asked for.

    The library keeps every notice until it is read: while nothing may be taken, one for each confirm and each try.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        super().__init__(pool)
        self.told = False

    async def add_listener(self, channel: str, callback: Callable[[str | bytes | bytearray], None]) -> None:
        def once(payload: str | bytes | bytearray) -> None:
            changed = _CHANGED in (payload if isinstance(payload, str) else payload.decode())
            if not changed or not self.told:
                self.told = self.told or changed
                callback(payload)

        await super().add_listener(channel, once)


@cache
def _enqueue_sql() -> str:
    return QueryQueueBuilder(_settings()).build_enqueue_query("skip")


async def enqueue(connection: Executor, orders: Sequence[str]) -> None:
    """A job for each order that has none, in the transaction of `connection`.

    The library's own statement, composed once: its `enqueue` does that at every call, which costs a millisecond.
    """
    count = len(orders)
    payloads, nothing = [order.encode() for order in orders], [None] * count
    await connection.execute(
        _enqueue_sql(), [0] * count, [ENTRYPOINT] * count, payloads, [timedelta(0)] * count, orders, nothing
    )


class _Paced(Queries):
    """Takes jobs only as fast as `admit` lets it."""

    admit: Callable[[int], Awaitable[int]]
    admitted: Callable[[int], None]

    async def dequeue(self, batch_size: int, *args: Any, **more: Any) -> list[Job]:  # noqa: ANN401 -- as the library has it
        size = await self.admit(batch_size)
        if size == 0:
            return []
        assert isinstance(self.driver, _Driver)
        self.driver.told = False
        jobs: list[Job] = []
        try:
            jobs = await super().dequeue(size, *args, **more)
        finally:
            self.admitted(len(jobs))
        return jobs

    async def log_jobs(self, job_status: list[tuple[Job, JOB_STATUS, TracebackRecord | None]]) -> None:
        done: list[tuple[Job, JOB_STATUS, TracebackRecord | None]] = []
        for job, status, record in job_status:
            if status == "successful":
                done.append((job, status, record))
            else:
                await self.retry_job(job, timedelta(seconds=FAILED_AGAIN_S), record)
        if done:
            await super().log_jobs(done)


async def consume(
    url: str,
    handle: Callable[[str, int], Awaitable[Later | None]],
    *,
    admit: Callable[[int], Awaitable[int]],
    admitted: Callable[[int], None],
    taken_max: int,
    timeout_s: float,
    stopping: asyncio.Event,
) -> None:
    """Hand waiting orders to `handle(order id, how often it was put off)`, `taken_max` at a time, until `stopping`.

    `admit(n)` says how many of at most n jobs may be taken now, and waits while none may (0 only when stopping);
    `admitted(n)` how many were. Several workers share the queue. Returns when what was begun is done.
    """
    pool = await open_connections(url, size_max=CONNECTIONS_MAX, timeout_s=timeout_s)
    manager = _manager(pool, handle, admit, admitted)

    async def forward() -> None:
        await stopping.wait()
        manager.shutdown.set()  # its own event: it sets that, too, when it is no longer notified

    forwarding = asyncio.create_task(forward())
    running = asyncio.create_task(
        manager.run(
            batch_size=max(1, taken_max // 2),
            max_concurrent_tasks=max(2, taken_max),
            dequeue_timeout=timedelta(seconds=LOOK_AGAIN_S),
            heartbeat_timeout=timedelta(seconds=SILENT_MAX_S),
            shutdown_on_listener_failure=True,
            log_aggregation_interval=timedelta(0),
        )
    )
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        pool.terminate()  # first: what is not written by now fails at once, and its jobs come back
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        raise
    except FailingListenerError:
        raise LedgerUnavailable("Postgres no longer notifies of new orders; listening anew.") from None
    except PASSING as error:
        raise LedgerUnavailable(f"Postgres cannot answer ({type(error).__name__}).") from error
    finally:
        forwarding.cancel()
        with contextlib.suppress(TimeoutError, *PASSING):
            async with asyncio.timeout(timeout_s):
                await pool.close()
        pool.terminate()


def _manager(
    pool: asyncpg.Pool,
    handle: Callable[[str, int], Awaitable[Later | None]],
    admit: Callable[[int], Awaitable[int]],
    admitted: Callable[[int], None],
) -> QueueManager:
    queries = _queries(_Paced, _Driver(pool))
    assert isinstance(queries, _Paced)
    queries.admit, queries.admitted = admit, admitted
    manager = QueueManager(queries, Channel(_CHANNEL))
    manager.min_dequeue_poll_interval = timedelta(seconds=POLL_S)

    @manager.entrypoint(ENTRYPOINT, accepts_context=False)
    async def work(job: Job) -> None:
        assert job.payload is not None
        later = await handle(job.payload.decode(), job.attempts)
        if later is not None:
            raise RetryRequested(timedelta(seconds=later.delay_s), later.reason)

    return manager


__all__ = ["Later", "consume", "enqueue"]
