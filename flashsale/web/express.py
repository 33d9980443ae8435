"""Presses of the button without a request object: from the parsed message to the bytes of the answer.

aiohttp makes a request, a response, a writer and a task of each message; for a press they cost more than all the rest.
Its protocol class does everything else here as ever: it parses, keeps alive, closes, shuts down. Only a message that is
a whole, ordinary press on a connection where nothing else is under way is taken out of its queue and answered at once.
Whatever is in the least unusual (a body still on its way, packed or chunked, `Expect`, HTTP/1.0, a connection to be
closed, a client that does not read, a drop that is not at hand) stays in the queue and takes the ordinary way to the
same answer. While a press waits for its verdict, what the client sends behind it waits, too: answers keep their order.

It leans on private attributes of aiohttp's class: of its queue, its keep-alive and its shutdown. A new version may
change them, so `tests/web/test_express.py` sends the same bytes down both ways and compares the answers, lets
connections idle and clients go away or not read; `test_shutdown.py` stops the service with presses under way.
"""

import asyncio
import contextvars
from typing import Any, Final

from aiohttp.http_parser import RawRequestMessage
from aiohttp.http_writer import HttpVersion11
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo
from aiohttp.web_server import Server

from flashsale.domain import Claim, Drop
from flashsale.reservations import Outcome
from flashsale.web import hot, problems
from flashsale.web.context import Context
from flashsale.web.prepared import Prepared
from flashsale.web.routing import decode_body

_NO_VARIABLES: Final = contextvars.Context()
"""Presses share it: a copy for each would be one of the costs that are saved here."""


class Express(RequestHandler):
    """One connection."""

    __slots__ = ("_context", "_press", "_taking", "_together")

    def __init__(self, manager: "ExpressServer", context: Context, **settings: Any) -> None:  # noqa: ANN401 -- aiohttp's
        super().__init__(manager, **settings)
        self._context = context
        self._together = manager.together
        self._taking = False
        self._press: Claim | None = None
        """The press that waits for its verdict."""

    def data_received(self, data: bytes) -> None:
        """Take the presses out of what has come; the rest is handled as ever."""
        waiter, self._waiter = self._waiter, None  # so that nobody is woken for a message that is taken here
        try:
            super().data_received(data)
        finally:
            self._waiter = waiter
        if self._messages and not self._taking:
            self._next()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 -- aiohttp's signature
        """Go on reading where it was paused. Each body that was read asks for it, and each time costs a parse."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def _next(self) -> None:
        """Go on with what has come, if nothing is under way on this connection."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        self._taking = True
        try:
            while self._messages and self._press is None:
                if not self._take(*self._messages[0]):
                    waiter.set_result(None)
                    return
        finally:
            self._taking = False

    def _take(self, message: RawRequestMessage | _ErrInfo, payload: StreamReader) -> bool:
        """Take the first message out of the queue if it is a press; False leaves it there, for the ordinary way."""
        if not isinstance(message, RawRequestMessage) or (drop := self._pressed(message, payload)) is None:
            return False
        self._messages.popleft()
        assert self._parser is not None
        self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        self._begin(drop, message, payload)
        return True

    def _pressed(self, message: RawRequestMessage, payload: StreamReader) -> Drop | None:
        """The drop that a message presses on, if it is an ordinary, whole press; None for the ordinary way."""
        if (
            message.method != "POST"
            or not payload.is_eof()
            or message.should_close
            or message.version != HttpVersion11
            or message.compression
            or message.upgrade
            or message.chunked
            or "Expect" in message.headers
            or self._paused
            or self._close
            or self._force_close
        ):
            return None
        drop_id = hot.drop_of_path(message.path)
        return None if drop_id is None else self._context.catalog.known(drop_id)

    def _begin(self, drop: Drop, message: RawRequestMessage, payload: StreamReader) -> None:
        assert self._manager is not None
        self._manager.requests_count += 1
        context, headers = self._context, message.headers
        try:
            identity = context.auth.authenticate(headers.get("Authorization"))
            wanted = decode_body(hot.whole(payload, context.settings.body_max_bytes), hot.decoder)
            found = hot.claimed(context, drop, identity, wanted, headers=headers, peername=self.peername)
        except Exception as error:  # noqa: BLE001 -- as in `hot.reserve`
            self._send(problems.prepared(error))
            return
        if isinstance(found, Claim):
            self._request_in_progress = True  # a shutdown waits for it
            self._press = found
            self._together.press(drop.id, found, self)
        else:
            self._send(hot.answer(context, drop.id, found))

    def answered(self, drop_id: str, outcome: Outcome | Exception) -> None:
        """The press that waited has its answer: send it, and go on."""
        claim, self._press = self._press, None
        assert claim is not None
        try:
            if isinstance(outcome, Exception):
                self._send(problems.prepared(outcome))
            else:
                self._send(hot.verdict(self._context, drop_id, claim, outcome, peername=self.peername))
        finally:
            self._over()

    def _send(self, answer: Prepared) -> None:
        self._stay()
        if self.transport is not None:  # else the client went away
            self.transport.write(answer.as_bytes())

    def _over(self) -> None:
        """Whoever waited for the answer may go on."""
        self._request_in_progress = False
        if self._handler_waiter is not None and not self._handler_waiter.done():
            self._handler_waiter.set_result(None)
        if self._close and self._waiter is not None:
            self._waiter.cancel()
        elif self._messages and self.transport is not None:
            self._next()

    def _stay(self) -> None:
        """The time after which an idle connection is closed begins now."""
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    def _process_keepalive(self) -> None:
        if self._press is not None:  # who waits for a verdict is not idle
            self._stay()
        super()._process_keepalive()

    def close(self) -> None:
        """Close the connection: at once when nothing is under way, else after the answer."""
        if self._press is None:
            super().close()
        else:
            self._close = True


class _Together:
    """Presses that come in one turn of the event loop, from whatever connections: they are reserved together."""

    def __init__(self, context: Context, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self._come: dict[str, tuple[list[Claim], list[Express]]] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    def press(self, drop_id: str, claim: Claim, connection: Express) -> None:
        """Reserve it at the end of this turn of the loop; the connection hears what became of it."""
        if not self._come:
            self._loop.call_soon(self._reserve)
        claims, connections = self._come.setdefault(drop_id, ([], []))
        claims.append(claim)
        connections.append(connection)

    def _reserve(self) -> None:
        come, self._come = self._come, {}
        for drop_id, (claims, connections) in come.items():
            task = asyncio.Task(self._tell(drop_id, claims, connections), loop=self._loop, context=_NO_VARIABLES)
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _tell(self, drop_id: str, claims: list[Claim], connections: list[Express]) -> None:
        waiting = dict(enumerate(connections))

        def tell(at: int, outcome: Outcome | Exception) -> None:
            waiting.pop(at).answered(drop_id, outcome)

        try:
            await self._context.reservations.reserve_together(drop_id, claims, tell)
        except Exception as error:  # noqa: BLE001 -- the last line before the clients: none may be left without an answer
            for connection in waiting.values():
                connection.answered(drop_id, error)


class ExpressServer(Server):
    """aiohttp's server, with connections that take presses at once. `like` has been made by the application."""

    def __init__(self, like: Server, context: Context) -> None:
        super().__init__(
            like.request_handler,
            request_factory=like.request_factory,
            handler_cancellation=like.handler_cancellation,
            loop=like._loop,  # noqa: SLF001 -- aiohttp has no other way to another protocol class
            **like._kwargs,  # noqa: SLF001 -- as above
        )
        self._context = context
        self.together = _Together(context, self._loop)

    def __call__(self) -> Express:
        """The protocol of one new connection."""
        return Express(self, self._context, loop=self._loop, **self._kwargs)
