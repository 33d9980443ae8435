"""How a script or a command is sent: within a time limit, over one of so many connections, its faults in our words."""

import asyncio
from collections.abc import Awaitable, Callable

from flashsale.errors import GateUnavailable
from flashsale.gate.client import Client
from flashsale.gate.scripts import NAMES, PASSING, Script


class Caller:
    """Calls through one client; at most so many at a time as `connections` lets through."""

    def __init__(self, client: Client, timeout_s: float, connections: asyncio.Semaphore) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._scripts = {name: Script(name) for name in NAMES}
        self._connections = connections

    async def _run(self, name: str, script_keys: tuple[str, ...], *args: object) -> object:
        return await self._in_time(lambda: self._scripts[name](self._client, script_keys, *args))

    async def _command(self, *args: object) -> object:
        return await self._in_time(lambda: self._client.execute_command(*args))

    async def _in_time(self, call: Callable[[], Awaitable[object]]) -> object:
        """The reply. A call for which there is no connection waits for one: the client would refuse it.

        `asyncio.wait_for` of Python 3.11, through which the client sends, answers with the result when a cancellation
        comes together with it: that one is raised here, or a task without end would never hear of it.
        """
        again = "repeat the same request."
        task = asyncio.current_task()
        asked_before = task.cancelling() if task is not None else 0
        try:
            async with asyncio.timeout(self._timeout_s), self._connections:
                reply = await call()
                if task is not None and task.cancelling() > asked_before:
                    raise asyncio.CancelledError
                return reply
        except TimeoutError:
            raise GateUnavailable(f"Redis did not answer within {self._timeout_s:g} s; {again}") from None
        except PASSING as error:
            raise GateUnavailable(f"Redis cannot answer ({type(error).__name__}); {again}") from error
