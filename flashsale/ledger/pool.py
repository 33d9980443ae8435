"""Connections to Postgres, and what its faults mean."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import asyncpg

from flashsale.errors import LedgerUnavailable

Pool: TypeAlias = asyncpg.Pool
Executor: TypeAlias = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

IDLE_IN_TRANSACTION_S: Final = 5
CALL_MAX_S: Final = 15.0
"""One whole call, with the wait for a free connection of the pool and all its statements."""

# These say that the server, not the statement, is the trouble: the same call may succeed in a moment.
PASSING: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.DiskFullError,
    asyncpg.OutOfMemoryError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


class Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg's classes are untyped
    """A connection that goes back into the pool without a round trip.

    Nothing here leaves session state behind (no SET, no LISTEN, no advisory lock outside a transaction),
    so that the pool's reset query, one more round trip for every commit, has nothing to reset.
    """

    def get_reset_query(self) -> str:
        """No statement."""
        return ""


async def open_pool(url: str, *, size_max: int, timeout_s: float) -> Pool:
    """A pool whose statements wait at most `timeout_s` for a lock or an answer, and commit with fsync."""
    ms = str(int(timeout_s * 1000))
    try:
        pool: Pool = await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=size_max,
            timeout=timeout_s,
            command_timeout=timeout_s,
            connection_class=Connection,
            server_settings={
                "application_name": "flashsale",
                "statement_timeout": ms,
                "lock_timeout": ms,
                "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_S}s",
                "synchronous_commit": "on",
                "jit": "off",
                # A plan kept from when a table was small would go on reading all of it while it grows in a rush.
                "plan_cache_mode": "force_custom_plan",
                "timezone": "UTC",
            },
        )
    except (*PASSING, asyncpg.PostgresError) as error:
        raise LedgerUnavailable(f"Postgres cannot answer ({type(error).__name__}).") from error
    return pool


@asynccontextmanager
async def passing_faults(max_s: float = CALL_MAX_S) -> AsyncIterator[None]:
    """Turn what Postgres or the way to it did wrong into `LedgerUnavailable`: the effect is unknown.

    The whole of what is done inside may take `max_s`.
    """
    try:
        async with asyncio.timeout(max_s):
            yield
    except ValueError:  # asyncpg's word for arguments that do not fit: ours to mend, and no reason to repeat
        raise
    except PASSING as error:
        raise LedgerUnavailable(f"Postgres cannot answer ({type(error).__name__}); repeat the same request.") from error
