"""Connections to a receiver that may answer twice: the second answer must not become that of the next message."""

import asyncio
import functools
import select
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import aiohttp
import structlog
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from aiohttp.streams import StreamReader
from aiohttp.tracing import Trace

from flashsale.endpoint.addresses import AddressInfo

KEEPALIVE_S: Final = 1.0
"""Shorter than the usual servers keep an idle connection (2 s and more): it is not closed under the next message."""
REST_S: Final = 0.005
"""How long a connection rests after an answer before it is used again, in case that a second answer follows."""

_log = structlog.get_logger()


class _Connection(ResponseHandler):
    """A connection that is closed at the first byte which nobody asked for.

    The client's own handling sees a second answer only when it comes together with the first.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, unasked: Callable[[], None]) -> None:
        super().__init__(loop)
        self._now = loop.time
        self._unasked = unasked
        self._answered = False
        self._resting_since_s: float | None = None

    async def read(self) -> tuple[RawResponseMessage, StreamReader]:
        """The next answer; those of 100 to 199 only announce it."""
        message, body = await super().read()
        self._answered = message.code >= HTTPStatus.OK
        return message, body

    def data_received(self, data: bytes) -> None:
        """Take what belongs to the answer that is waited for; its end may lie within `data`.

        The client itself calls this without data, also after the end, to go on with what it had put aside.
        """
        if not data or self._resting_since_s is None:
            super().data_received(data)
            if self._resting_since_s is None or not self._buffer:
                return
        self._unasked()
        self.close()

    def rest(self) -> None:
        """The answer is complete. What came together with it is a second one; the client sees that, and closes."""
        self._resting_since_s = self._now()
        if self._answered and self._buffer:
            self._unasked()

    @property
    def is_new(self) -> bool:
        """Whether no answer has come on it yet."""
        return self._resting_since_s is None

    async def is_quiet(self) -> bool:
        """After its rest: whether nothing has come since the answer, the receiver's end included. It may go on then."""
        assert self._resting_since_s is not None
        wait_s = self._resting_since_s + REST_S - self._now()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        if self.transport is None or not self.is_connected():
            return False
        unread = select.poll()  # for what has arrived since the event loop looked last
        unread.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        if unread.poll(0):
            return False
        self._answered = False
        self._resting_since_s = None
        return True


class Connector(aiohttp.TCPConnector):
    """Connections to one receiver, each used again as long as the receiver has never answered twice.

    After that each message has a connection of its own. What remains: the first such second answer ever, if it comes
    later than `REST_S` after the first one and the connection already carries another message. HTTP cannot tell it.
    """

    def __init__(self, *, connections_max: int, socket_factory: Callable[[AddressInfo], socket.socket] | None) -> None:
        super().__init__(
            limit=connections_max,
            keepalive_timeout=KEEPALIVE_S,
            socket_factory=socket_factory,
        )
        self._answers_twice = False
        self._factory = functools.partial(_Connection, self._loop, self._caught)  # type: ignore[assignment]  # narrower

    def _caught(self) -> None:
        if not self._answers_twice:
            self._answers_twice = True
            _log.warning("endpoint.answers_twice", detail="From now on each message has a connection of its own.")

    def _rest(self, protocol: _Connection) -> None:
        protocol.rest()
        if self._answers_twice:
            protocol.force_close()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 -- the client's signature
    ) -> Connection:
        """A new connection, or one that has been quiet since its last answer."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            assert isinstance(protocol, _Connection), "the client makes its connections by `_factory`"
            if protocol.is_new:
                break
            try:
                if await protocol.is_quiet() and not self._answers_twice:
                    break
            except BaseException:
                connection.close()
                raise
            connection.close()
        connection.add_callback(functools.partial(self._rest, protocol))
        return connection
