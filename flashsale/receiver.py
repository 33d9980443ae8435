"""`flashsale receiver`: a shop's endpoint to try webhooks with. It verifies, knows repeats by their id, can misbehave.

An event is written down before it is acknowledged, as every receiver should: who kills this one finds in its output
every event that a worker counts as delivered. Lines that come together are written together, before their answers.
"""

import asyncio
import signal
from collections.abc import Callable
from http import HTTPStatus
from http.client import responses
from typing import Any, Final

import msgspec
from aiohttp import web
from aiohttp.web_request import BaseRequest

from flashsale.errors import SetupError
from flashsale.process import url_of
from flashsale.web.prepared import Prepared
from flashsale.webhooks import Unverified, verify

IDS_MAX: Final = 1_000_000
"""Ids that are remembered; the oldest is forgotten first, and its repeat would pass for a new event."""
KEEPALIVE_S: Final = 75.0
SHUTDOWN_TIMEOUT_S: Final = 1.0
"""For answers that are under way when it is stopped."""


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """How it misbehaves: the first `fail` tries of an id get `status`; all answers come `delay_s` late and `twice`."""

    fail: float = 0
    status: int = 500
    delay_s: float = 0.0
    twice: bool = False


class Event(msgspec.Struct, frozen=True):
    """A webhook's body. Other members than these are not looked at."""

    type: str
    data: dict[str, Any] = {}


class Received(msgspec.Struct, frozen=True):
    """An event that was accepted: for the first time or `again`, at which of its tries."""

    id: str
    type: str
    data: dict[str, Any]
    again: bool
    tries: int


class _Known(msgspec.Struct):
    tries: int = 0
    accepted: int = 0


class Lines:
    """Writes lines: those that come within one round of the event loop, in one piece.

    A `write` that fails (whoever read the output has gone) ends the whole: it is told to `broken`, once.
    """

    def __init__(self, write: Callable[[str], None], broken: Callable[[OSError], None]) -> None:
        self._write = write
        self._broken = broken
        self._lines: list[str] = []
        self._written: asyncio.Future[None] | None = None

    async def write(self, line: str) -> None:
        """Return when it is written."""
        self._lines.append(line)
        if self._written is None:
            loop = asyncio.get_running_loop()
            self._written = loop.create_future()
            loop.call_soon(self._flush, self._written)
        await asyncio.shield(self._written)

    def _flush(self, written: asyncio.Future[None]) -> None:
        lines, self._lines, self._written = self._lines, [], None
        try:
            self._write("".join([f"{line}\n" for line in lines]))
        except OSError as error:
            written.cancel()
            self._broken(error)
        else:
            written.set_result(None)


class Receiver:
    """Answers requests. `accept` is awaited with each event before its answer; `note` gets a line for each refusal."""

    def __init__(
        self,
        *,
        secret: bytes,
        behaviour: Behaviour,
        accept: Callable[[Received], Any],
        note: Callable[[str], None],
        now: Callable[[], float],
    ) -> None:
        self._secret = secret
        self._behaviour = behaviour
        self._accept = accept
        self._note = note
        self._now = now
        self._known: dict[str, _Known] = {}
        self._decode = msgspec.json.Decoder(Event).decode
        self._accepted = _answer(200, b"{}")
        self._failing = _answer(behaviour.status, b"This try fails on purpose.\n")

    async def __call__(self, request: BaseRequest) -> web.StreamResponse:
        """One request, whatever its path."""
        if request.method != "POST":
            answer = _answer(405, b"Webhooks are sent by POST.\n", "Allow: POST")
        else:
            answer = await self._received(request.headers, await request.read())
        if self._behaviour.delay_s:
            await asyncio.sleep(self._behaviour.delay_s)
        if not request.keep_alive:
            answer = answer.closing()
        if self._behaviour.twice:
            await answer.prepare(request)
            await asyncio.sleep(0)  # the second one in a packet of its own
        return answer

    async def _received(self, headers: Any, body: bytes) -> Prepared:  # noqa: ANN401 -- aiohttp's own multi-mapping
        found = verify(self._secret, headers, body, now_s=self._now())
        if isinstance(found, Unverified):
            return self._refused(401, found.reason)
        try:
            event = self._decode(body)
        except ValueError as error:
            return self._refused(400, f"{found.id} is signed, but no event: {error}")
        known = self._tried(found.id)
        if known.tries <= self._behaviour.fail:
            self._note(
                f"answered {self._behaviour.status} on purpose: {_plain(event.type)} {found.id}, try {known.tries}"
            )
            return self._failing
        known.accepted += 1
        await self._accept(Received(found.id, event.type, event.data, known.accepted > 1, known.tries))
        return self._accepted

    def _refused(self, status: int, reason: str) -> Prepared:
        self._note(f"refused with {status}: {_plain(reason)}")
        return _answer(status, f"{reason}\n".encode())

    def _tried(self, message_id: str) -> _Known:
        known = self._known.get(message_id)
        if known is None:
            if len(self._known) >= IDS_MAX:
                del self._known[next(iter(self._known))]
            known = self._known[message_id] = _Known()
        known.tries += 1
        return known

    def summary(self) -> str:
        """What has come in so far, in one line."""
        accepted = sum(known.accepted for known in self._known.values())
        distinct = sum(1 for known in self._known.values() if known.accepted)
        return f"received {accepted:,} events under {distinct:,} ids in {self.tries:,} verified tries"

    @property
    def tries(self) -> int:
        """Verified requests, failed on purpose or not."""
        return sum(known.tries for known in self._known.values())


def line_of(received: Received) -> str:
    """The event for a person: `order.confirmed 0198… drop/allocation member 4711 1 unit`."""
    data = received.data
    words = [received.type, received.id]
    if "drop" in data and "allocation" in data:
        words.append(f"{data['drop']}/{data['allocation']}")
    if "member" in data:
        words.append(f"member {data['member']}")
    if "quantity" in data:
        words.append(f"{data['quantity']} unit" if data["quantity"] == 1 else f"{data['quantity']} units")
    if received.again:
        words.append("again")
    if received.tries > 1:
        words.append(f"(try {received.tries})")
    return _plain(" ".join(words))


def _plain(text: str) -> str:
    return text if text.isprintable() else "".join(sign if sign.isprintable() else "?" for sign in text)


def _answer(status: int, body: bytes, *headers: str) -> Prepared:
    if status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
        body = b""
    lines = [f"HTTP/1.1 {status} {responses.get(status, '')}", "Content-Type: text/plain; charset=utf-8", *headers]
    return Prepared(status, "\r\n".join([*lines, f"Content-Length: {len(body)}\r\n"]).encode(), body)


async def receive(
    *,
    host: str,
    port: int,
    secret: bytes,
    behaviour: Behaviour,
    write: Callable[[str], None],
    as_line: Callable[[Received], str],
    note: Callable[[str], None],
    now: Callable[[], float],
) -> None:
    """Receive until SIGTERM or SIGINT, from the line `receiving at URL` on; `SetupError` when it cannot listen there.

    `write` gets whole lines, made by `as_line`. Its `OSError` ends the receiver and is raised.
    """
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[None] = loop.create_future()

    def stop() -> None:
        if not stopped.done():
            stopped.set_result(None)

    def broken(error: OSError) -> None:
        if not stopped.done():
            stopped.set_exception(error)

    lines = Lines(write, broken)
    receiver = Receiver(
        secret=secret, behaviour=behaviour, accept=lambda one: lines.write(as_line(one)), note=note, now=now
    )
    server = web.Server(receiver, access_log=None, keepalive_timeout=KEEPALIVE_S)
    runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, stop)
        note(f"receiving at {url_of(host, runner.addresses[0][1])}/")
        await stopped
    except OSError as error:
        if stopped.done():
            raise
        raise SetupError(f"Cannot listen on port {port} of {host}: {error.strerror}.") from None
    finally:
        await runner.cleanup()
    note(receiver.summary())
