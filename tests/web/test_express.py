"""A press is answered without aiohttp's objects as it would be with them: same answers, same order, same manners."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, web
from aiohttp.web_request import BaseRequest
from yarl import URL

from flashsale import embedded
from flashsale.settings import Settings
from flashsale.web import hot
from flashsale.web.app import Runner, make_runner
from flashsale.web.context import Context
from flashsale.web.routing import CONTEXT
from tests.support import PATIENT, NewDrop, allocation, until
from tests.web.conftest import FCODE_KEY, SECRET, Token
from tests.web.test_press import press, raw

Answer = tuple[bytes, dict[bytes, bytes], bytes]


@pytest.fixture
def ordinary(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The drops of the presses that took the ordinary way, as they come."""
    seen: list[str] = []
    reserve = hot.reserve

    async def counted(request: BaseRequest, context: Context, drop_id: str) -> web.StreamResponse:
        seen.append(drop_id)
        return await reserve(request, context, drop_id)

    monkeypatch.setattr(hot, "reserve", counted)
    return seen


def read(head: bytes, body: bytes) -> Answer:
    """What an answer says, without what tells nothing: when it was made, and by which program."""
    first, *lines = head.rstrip().split(b"\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in lines)
    for name in (b"date", b"server", b"retry-after"):
        fields.pop(name, None)
    return first.split()[1], fields, body


async def at_hand(http: ClientSession, drop_id: str) -> None:
    """Let the service know the drop: the first to ask for it takes the ordinary way."""
    async with http.get(f"/v1/drops/{drop_id}") as answer:
        assert answer.status == 200


def chunked(drop_id: str, headers: dict[str, str], body: bytes) -> bytes:
    """The same press, its body in a chunk: nothing that a browser sends, so it takes the ordinary way."""
    whole = press(drop_id, headers | {"Transfer-Encoding": "chunked"}, b"")
    chunk = f"{len(body):x}\r\n".encode() + body + b"\r\n" if body else b""
    return whole.replace(b"Content-Length: 0\r\n", b"") + chunk + b"0\r\n\r\n"


CASES: dict[str, tuple[dict[str, str], bytes]] = {
    "refused": ({}, b"{}"),
    "no body": ({}, b""),
    "with a key": ({"Idempotency-Key": "a-key"}, b"{}"),
    "a bad key": ({"Idempotency-Key": "two words"}, b"{}"),
    "unknown allocation": ({}, b'{"allocation": "nowhere"}'),
    "unknown field": ({}, b'{"units": 3}'),
    "no JSON": ({}, b"{nonsense"),
    "too many": ({}, b'{"quantity": 2}'),
    "too large": ({}, b" " * 65_537),
    "no token": ({"Authorization": ""}, b"{}"),
    "another scheme": ({"Authorization": "Basic abc"}, b"{}"),
    "a token of nobody": ({"Authorization": "Bearer a.b.c"}, b"{}"),
    "a forged code": ({}, b'{"fcode": "0000-0000-0000-0000-0000"}'),
    "a forged code elsewhere": ({}, b'{"fcode": "0000-0000-0000-0000-0000", "quantity": 1, "allocation": "nowhere"}'),
}


@pytest.mark.parametrize("case", CASES)
async def test_both_ways_lead_to_the_same_answer(
    service: str, token: Token, new_drop: NewDrop, ordinary: list[str], case: str
) -> None:
    drop = await new_drop(allocation(quantity=0))
    async with ClientSession(service) as http:
        await at_hand(http, drop.id)
    headers, body = CASES[case]
    headers = token(1) | headers
    ((head, answer),) = await raw(service, press(drop.id, headers, body), answers=1)
    taken = not ordinary
    assert taken or case == "too large", "only what does not come in one piece takes the other way"
    ((other_head, other_answer),) = await raw(service, chunked(drop.id, headers, body), answers=1)
    assert ordinary[-1:] == [drop.id]
    one, other = read(head, answer), read(other_head, other_answer)
    one[1].pop(b"connection", None)
    other[1].pop(b"connection", None)  # after a body that it did not read, aiohttp closes
    assert one == other
    assert (b"retry-after" in head.lower()) == (b"retry-after" in other_head.lower())


async def test_a_win_and_its_repetition_are_taken_too(
    service: str, http: ClientSession, token: Token, new_drop: NewDrop, ordinary: list[str]
) -> None:
    drop = await new_drop(allocation(quantity=1))
    await at_hand(http, drop.id)
    presses = [press(drop.id, token(member)) for member in (1, 1, 2)]
    answers = await raw(service, *presses, answers=3)
    assert [head.split()[1] for head, _ in answers] == [b"201", b"200", b"409"]
    assert answers[0][1] == answers[1][1]
    assert ordinary == []


async def test_presses_and_other_requests_on_one_connection_keep_their_order(
    service: str, http: ClientSession, token: Token, new_drop: NewDrop, ordinary: list[str]
) -> None:
    """Whatever is sent without waiting for answers, and however the bytes are cut: each answer in its place."""
    drop = await new_drop(allocation(quantity=10))
    await at_hand(http, drop.id)
    page = f"GET /v1/drops/{drop.id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    sent = [press(drop.id, token(1)), page, press(drop.id, token(2)), page, page, press(drop.id, token(3)), page]
    wanted = [b"201", b"200", b"201", b"200", b"200", b"201", b"200"]
    answers = await raw(service, *sent, answers=7)
    assert [head.split()[1] for head, _ in answers] == wanted
    whole = b"".join(press(drop.id, token(m)) if m else page for m in (4, 0, 5, 0, 0, 6, 0))
    reader, writer = await asyncio.open_connection(URL(service).host, URL(service).port)
    for at in range(0, len(whole), 100):
        writer.write(whole[at : at + 100])
        await writer.drain()
    found = []
    for _ in range(7):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")).split()[1]
        await reader.readexactly(int(length))
        found.append(head.split()[1])
    writer.close()
    await writer.wait_closed()
    assert found == wanted
    assert set(ordinary) <= {drop.id}


@contextlib.asynccontextmanager
async def patient(urls: embedded.Servers, keepalive_s: float) -> AsyncIterator[tuple[Runner, str, asyncio.Event]]:
    """A service of its own with short keep-alive, whose commits wait for the event."""
    settings = Settings(
        redis_url=urls.redis_url,
        database_url=urls.database_url,
        jwt_secret=SECRET,
        fcode_keys=FCODE_KEY,
        **PATIENT,
    )
    runner = await make_runner(settings)
    runner._kwargs["keepalive_timeout"] = keepalive_s
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    context, go_on = runner.app[CONTEXT], asyncio.Event()
    commit = context.ledger.reservations.commit

    async def held_up(drop_id: str, grants: list) -> object:  # type: ignore[type-arg]
        await go_on.wait()
        return await commit(drop_id, grants)

    context.ledger.reservations.commit = held_up  # type: ignore[method-assign, assignment]
    try:
        yield runner, f"http://127.0.0.1:{runner.addresses[0][1]}", go_on
    finally:
        go_on.set()
        await runner.cleanup()


async def test_an_idle_connection_is_closed_and_one_that_waits_for_its_verdict_is_not(
    urls: embedded.Servers, token: Token, new_drop: NewDrop
) -> None:
    drop = await new_drop(allocation(quantity=2))
    async with patient(urls, keepalive_s=2.0) as (runner, url, go_on):
        await runner.app[CONTEXT].catalog.get(drop.id)
        reader, writer = await asyncio.open_connection(URL(url).host, URL(url).port)
        writer.write(press(drop.id, token(1)))
        other, idle = await asyncio.open_connection(URL(url).host, URL(url).port)
        assert await other.read() == b"", "who asks nothing is not kept for ever"
        idle.close()
        go_on.set()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 201 ")
        writer.write(press(drop.id, token(1)))
        assert b"HTTP/1.1 200 " in await reader.readuntil(b"\r\n\r\n")
        rest = await reader.read()  # ends, because the service closes when nothing more comes
        assert rest.count(b'"held"') == 1
        writer.close()


async def test_a_client_that_went_away_takes_nobody_s_unit_and_breaks_nothing(
    urls: embedded.Servers, token: Token, new_drop: NewDrop
) -> None:
    """Its press is carried out as it was accepted; pressed again, it is the same reservation."""
    drop = await new_drop(allocation(quantity=2))
    async with patient(urls, keepalive_s=30) as (runner, url, go_on):
        context = runner.app[CONTEXT]
        await context.catalog.get(drop.id)
        _, writer = await asyncio.open_connection(URL(url).host, URL(url).port)
        writer.write(press(drop.id, token(1)))

        async def under_way() -> bool:
            lanes = context.reservations._lanes.get(drop.id)
            return lanes is not None and not lanes.ledger.idle

        await until(under_way, "the press is under way")
        writer.transport.abort()
        go_on.set()
        answers = await raw(url, press(drop.id, token(1)), press(drop.id, token(2)), answers=2)
        assert [head.split()[1] for head, _ in answers] == [b"200", b"201"]


async def test_a_client_that_does_not_read_is_not_written_to_without_end(
    urls: embedded.Servers, new_drop: NewDrop, ordinary: list[str]
) -> None:
    """Thousands of presses and no reading: once its connection is full it takes the ordinary way, which waits."""
    drop = await new_drop(allocation(quantity=0))
    async with patient(urls, keepalive_s=30) as (runner, url, _):
        await runner.app[CONTEXT].catalog.get(drop.id)
        small = socket.create_connection((URL(url).host, URL(url).port))
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        _, writer = await asyncio.open_connection(sock=small, limit=1)
        one = press(drop.id, {"Authorization": "Bearer a.b.c"})  # answered at once: much is written in little time
        sending = asyncio.create_task(_send_for_ever(writer, one * 50))

        async def held_back() -> bool:
            connections = runner.server.connections if runner.server is not None else []
            return any(each.writing_paused for each in connections) and bool(ordinary)

        await until(held_back, "the service waits for its client to read")
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.transport.abort()


async def _send_for_ever(writer: asyncio.StreamWriter, data: bytes) -> None:
    while True:
        writer.write(data)
        await writer.drain()
