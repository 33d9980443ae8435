"""A customer that presses honestly: answers read whole, repeated when told, nothing early, tokens that are tokens."""

import asyncio
import contextlib
import time
from random import Random

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from loadtests.api import ApiError, api_at, rfc3339, server_ahead_s
from loadtests.client import Press, Rush
from loadtests.http1 import Answer, Malformed, Target, parse_answer, post_bytes
from loadtests.tokens import Minter

SECRET = "a secret of at least thirty-two bytes"

ANSWERS = [
    (
        b"HTTP/1.1 409 Conflict\r\ncontent-length: 2\r\nRetry-After: 3\r\n\r\n{}",
        Answer(409, b"{}", 3.0, keep_alive=True, at=0.0),
    ),
    (
        b"HTTP/1.1 200 OK\r\nContent-Length:5\r\nConnection: close\r\n\r\nhello",
        Answer(200, b"hello", None, keep_alive=False, at=0.0),
    ),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", Answer(200, b"", None, keep_alive=False, at=0.0)),
    (b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n", Answer(204, b"", None, keep_alive=True, at=0.0)),
    (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 C\r\nContent-Length: 1\r\n\r\nx",
        Answer(201, b"x", None, keep_alive=True, at=0.0),
    ),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\n",
        Answer(200, b"abc0123456789", None, keep_alive=True, at=0.0),
    ),
]


@pytest.mark.parametrize(("wire", "answer"), ANSWERS)
def test_an_answer_is_complete_exactly_with_its_last_byte(wire: bytes, answer: Answer) -> None:
    """However the network cuts it; what follows is left alone."""
    for end in range(len(wire)):
        assert parse_answer(wire[:end], 0.0) is None
    assert parse_answer(wire, 0.0) == (answer, len(wire))
    assert parse_answer(wire + b"HTTP/1.1 5", 0.0) == (answer, len(wire))


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
def test_what_is_no_answer_of_known_length_is_malformed(wire: bytes) -> None:
    """Another protocol, no length, a length that is none."""
    with pytest.raises(Malformed):
        parse_answer(wire, 0.0)


async def test_a_rush_waits_for_the_start_and_honours_retry_after() -> None:
    """Nothing is sent before `start_at`; a press is repeated no sooner than it was told."""
    loop = asyncio.get_running_loop()
    came: list[float] = []

    async def once(_: web.Request) -> web.Response:
        came.append(loop.time())
        return web.Response() if len(came) > 1 else web.Response(status=503, headers={"Retry-After": "1"})

    app = web.Application()
    app.router.add_post("/press", once)
    async with TestServer(app) as server:
        target = Target.parse(str(server.make_url("")))
        rush = Rush(target, 3, random=Random(1))
        async with contextlib.aclosing(rush):
            await rush.open(10.0)
            assert rush.open_connections == 3
            start = loop.time() + 0.2
            press = Press(1, post_bytes(target, "/press", token="t", body=b"{}"))
            left = await rush.run(
                [press], lambda _, answer: answer.retry_after_s, start_at=start, give_up_at=start + 10
            )
    assert left == []
    assert came[0] >= start
    assert came[1] - came[0] >= 1.0
    assert press.tries == 2


async def test_a_rush_that_was_given_up_can_press_again() -> None:
    """Connections with an unanswered press on them are replaced, without being told to."""
    loop = asyncio.get_running_loop()
    answering = asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        await answering.wait()
        return web.Response()

    app = web.Application()
    app.router.add_post("/press", answer)
    async with TestServer(app) as server:
        target = Target.parse(str(server.make_url("")))
        wire = post_bytes(target, "/press", token="t", body=b"{}")
        async with contextlib.aclosing(Rush(target, 2, random=Random(1))) as rush:
            presses = [Press(member, wire) for member in range(5)]
            now = loop.time()
            left = await rush.run(presses, lambda *_: None, start_at=now, give_up_at=now + 0.2)
            assert {press.member for press in left} == {0, 1, 2, 3, 4}
            assert max(press.tries for press in presses) == 1
            answering.set()
            assert await rush.run(presses, lambda *_: None, start_at=now, give_up_at=now + 20) == []


async def test_the_offset_to_the_servers_clock_survives_whole_seconds_and_caches() -> None:
    """A server 3 s ahead that cuts its time to whole seconds: the bound is close from below and never above."""

    async def show(_: web.Request) -> web.Response:
        return web.json_response({"server_time": rfc3339(float(int(time.time() + 3.0)))})

    app = web.Application()
    app.router.add_get("/v1/drops/sale", show)
    async with TestServer(app) as server, api_at(str(server.make_url("")), "token") as api:
        ahead = 0.0
        for _ in range(20):  # a sample or two may be late; the bound is never above
            ahead = await server_ahead_s(api, "sale")
            assert ahead <= 3.0
            if ahead > 2.8:
                break
    assert ahead > 2.8


async def test_a_refused_call_tells_code_and_detail() -> None:
    """An operator's call that is refused ends the load test with the service's own sentence."""

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"code": "conflict", "detail": "This id is taken."}, status=409)

    app = web.Application()
    app.router.add_post("/v1/ops/drops", refuse)
    async with TestServer(app) as server, api_at(str(server.make_url("")), "token") as api:
        with pytest.raises(ApiError, match=r"409 conflict: This id is taken\."):
            await api.create_drop({})


@given(member=st.integers(1, 2**63 - 1), tier=st.none() | st.integers(0, 9))
def test_tokens_are_what_a_general_library_reads(member: int, tier: int | None) -> None:
    """Subject in decimal, expiry, role and tier, signed with HS256."""
    expires = int(time.time()) + 60
    minter = Minter(SECRET, expires_at=expires)
    read = jwt.decode(minter.shopper(member, tier=tier), SECRET, algorithms=["HS256"])
    assert read == {"sub": str(member), "exp": expires} | ({} if tier is None else {"tier": tier})
    assert jwt.decode(minter.operator(member), SECRET, algorithms=["HS256"])["role"] == "ops"
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(minter.shopper(member), SECRET[::-1], algorithms=["HS256"])


def test_a_short_secret_is_refused() -> None:
    """31 bytes are too few, also when they look like more characters."""
    with pytest.raises(ValueError, match="31 bytes"):
        Minter("x" * 31, expires_at=0)
    Minter("é" * 16, expires_at=0)
