"""Connections to Postgres, what its faults mean, and the circuit that spares everybody the wait while it is away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, TypeAlias

import asyncpg

from flashsale.circuit import Circuit
from flashsale.errors import LedgerUnavailable

Executor: TypeAlias = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

IDLE_IN_TRANSACTION_S: Final = 5
CALL_MAX_S: Final = 8.0
"""One whole call, with the wait for a free connection of the pool and all its statements."""
SERVER_GIVES_UP: Final = 0.8
"""Of a statement's time-out, when the server ends it: so that one which lives says so before its client gives up."""
AWAY_AFTER: Final = 5
AWAY_BASE_S: Final = 0.5
AWAY_MAX_S: Final = 2.0
"""So many calls in a row find nobody there, and the next are refused at once; after a pause one of them asks again."""

# These say that nobody is there, and nothing of the statement: whoever comes next will find the same.
AWAY: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    OSError,
    TimeoutError,
)
# The client's own faults: of a connection that has just been lost, mostly, and no word on the server.
CLIENT: Final = (asyncpg.InterfaceError, asyncpg.InternalClientError)
# These, too, say that the server, not the statement, is the trouble: the same call may succeed in a moment.
PASSING: Final = (
    *AWAY,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.DiskFullError,
    asyncpg.OutOfMemoryError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    *CLIENT,
)


class Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg's classes are untyped
    """A connection that goes back into the pool without a round trip.

    Nothing here leaves session state behind (no SET, no LISTEN, no advisory lock outside a transaction),
    so that the pool's reset query, one more round trip for every commit, has nothing to reset.
    """

    def get_reset_query(self) -> str:
        """No statement."""
        return ""


class Pool:
    """Connections to Postgres behind a circuit that all pools of a process may share.

    Whatever Postgres or the way to it does wrong is `LedgerUnavailable`: the effect of the call is unknown. While
    Postgres is away, it comes at once, and nothing has happened.
    """

    def __init__(self, connections: asyncpg.Pool, circuit: Circuit) -> None:
        self._connections = connections
        self._circuit = circuit

    @asynccontextmanager
    async def _patient(self, max_s: float) -> AsyncIterator[None]:
        if not self._circuit.admit():
            raise LedgerUnavailable("Postgres is away; repeat the same request.")
        try:
            async with asyncio.timeout(max_s):
                yield
        except ValueError:  # asyncpg's word for arguments that do not fit: ours to mend, and no reason to repeat
            raise
        except PASSING as error:
            if not isinstance(error, CLIENT):
                self._circuit.note(ok=not isinstance(error, AWAY))
            raise LedgerUnavailable(
                f"Postgres cannot answer ({type(error).__name__}); repeat the same request."
            ) from error
        self._circuit.note(ok=True)

    async def fetch(self, query: str, *args: object) -> list[Any]:
        """All rows."""
        async with self._patient(CALL_MAX_S):
            rows: list[Any] = await self._connections.fetch(query, *args)
        return rows

    async def fetchrow(self, query: str, *args: object) -> Any:  # noqa: ANN401 -- asyncpg's Record is untyped
        """The first row, or None."""
        async with self._patient(CALL_MAX_S):
            return await self._connections.fetchrow(query, *args)

    async def fetchval(self, query: str, *args: object) -> Any:  # noqa: ANN401 -- as fetchrow
        """The first value of the first row, or None."""
        async with self._patient(CALL_MAX_S):
            return await self._connections.fetchval(query, *args)

    async def execute(self, query: str, *args: object) -> str:
        """Run a statement; what Postgres says that it did."""
        async with self._patient(CALL_MAX_S):
            return str(await self._connections.execute(query, *args))

    @asynccontextmanager
    async def connection(self, max_s: float = CALL_MAX_S) -> AsyncIterator[Executor]:
        """A connection; the whole of what is done with it may take `max_s`."""
        async with self._patient(max_s), self._connections.acquire(timeout=min(max_s, CALL_MAX_S)) as connection:
            yield connection

    @asynccontextmanager
    async def transaction(
        self,
        max_s: float = CALL_MAX_S,
        *,
        isolation: Literal["read_committed", "repeatable_read"] = "read_committed",
        readonly: bool = False,
    ) -> AsyncIterator[Executor]:
        """A connection in a transaction: committed at the end, rolled back by an exception."""
        async with (
            self.connection(max_s) as connection,
            connection.transaction(isolation=isolation, readonly=readonly),
        ):
            yield connection

    async def close(self) -> None:
        """Close all connections, each when what is done with it is done."""
        await self._connections.close()

    def terminate(self) -> None:
        """Close all connections at once, without the server's help."""
        self._connections.terminate()


async def open_connections(url: str, *, size_max: int, timeout_s: float) -> asyncpg.Pool:
    """Connections whose statements wait at most `timeout_s` for a lock or an answer, and commit with fsync."""
    ms = str(int(timeout_s * SERVER_GIVES_UP * 1000))
    try:
        return await asyncpg.create_pool(
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


async def open_pool(url: str, *, size_max: int, timeout_s: float, circuit: Circuit) -> Pool:
    """A pool of `open_connections` behind a circuit."""
    return Pool(await open_connections(url, size_max=size_max, timeout_s=timeout_s), circuit)
