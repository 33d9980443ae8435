"""One press of the button over HTTP: the hot path answers as any other call would, header for header."""

import asyncio
import json
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
from aiohttp import ClientSession, web
from yarl import URL

from flashsale.domain import Verdict
from flashsale.web import hot, problems
from flashsale.web.app import Runner
from flashsale.web.prepared import Template
from tests.support import NewDrop, Node, allocation, until
from tests.web.conftest import Token


async def raw(service: str, *requests: bytes, answers: int) -> list[tuple[bytes, bytes]]:
    """Send bytes over one connection as they are; returns (head, body) of so many answers."""
    url = URL(service)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(b"".join(requests))
    found = []
    for _ in range(answers):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(
            next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")).split(b":")[1]
        )
        found.append((head, await reader.readexactly(length)))
    writer.close()
    await writer.wait_closed()
    return found


def press(drop_id: str, headers: dict[str, str], body: bytes = b"{}", version: str = "1.1") -> bytes:
    """A press of the button as bytes."""
    lines = [f"POST /v1/drops/{drop_id}/reservations HTTP/{version}", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def test_a_win_and_the_same_one_again(http: ClientSession, token: Token, new_drop: NewDrop) -> None:
    drop = await new_drop()
    headers = token(7) | {"Idempotency-Key": '"k 1"'.replace(" ", "-")}
    answers = []
    for _ in range(2):
        async with http.post(f"/v1/drops/{drop.id}/reservations", json={"allocation": "a"}, headers=headers) as answer:
            assert answer.content_type == "application/json"
            assert abs((parsedate_to_datetime(answer.headers["Date"]) - datetime.now(UTC)).total_seconds()) < 30
            answers.append((answer.status, await answer.json()))
    (first, body), (second, again) = answers
    assert (first, second) == (201, 200)
    assert body == again
    assert {"drop": drop.id, "allocation": "a", "member": 7, "quantity": 1, "state": "held"}.items() <= body.items()
    async with http.get(f"/v1/reservations/{body['id']}", headers=token(7)) as answer:
        assert await answer.json() == body
    async with http.get(f"/v1/reservations/{body['id']}", headers=token(8)) as answer:
        assert answer.status == 404


async def test_a_cancelled_hold_is_for_sale_again_and_cancelling_repeats(
    http: ClientSession, token: Token, new_drop: NewDrop, node: Node
) -> None:
    drop = await new_drop(allocation(quantity=1))
    path = f"/v1/drops/{drop.id}/reservations"
    async with http.post(path, json={}, headers=token(1)) as answer:
        mine = await answer.json()
    for _ in range(2):
        async with http.delete(f"/v1/reservations/{mine['id']}", headers=token(1)) as answer:
            assert (answer.status, (await answer.json())["state"]) == (200, "cancelled")
    await node.reconciler.run_once()
    async with http.post(path, json={}, headers=token(2)) as answer:
        assert answer.status == 201


async def test_not_open_says_when(http: ClientSession, token: Token, new_drop: NewDrop) -> None:
    drop = await new_drop(allocation(opens_in_s=100))
    async with http.post(f"/v1/drops/{drop.id}/reservations", json={}, headers=token(1)) as answer:
        body = await answer.json()
        assert (answer.status, body["code"]) == (403, "not_open")
        assert abs((datetime.fromisoformat(body["opens_at"]) - drop.allocations[0].opens_at).total_seconds()) < 0.001
        assert 1 <= int(answer.headers["Retry-After"]) <= 100


async def test_when_to_come_back_is_told_by_the_gates_clock(
    http: ClientSession, token: Token, new_drop: NewDrop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine whose own clock was stepped back by an hour does not send its shoppers away for an hour."""
    drop, headers, now = await new_drop(allocation(opens_in_s=100)), token(1), time.time
    monkeypatch.setattr(time, "time", lambda: now() - 3_600)
    async with http.post(f"/v1/drops/{drop.id}/reservations", json={}, headers=headers) as answer:
        assert answer.status == 403
        assert 1 <= int(answer.headers["Retry-After"]) <= 100


async def test_answers_on_one_connection_come_in_order(service: str, token: Token, new_drop: NewDrop) -> None:
    """Three presses in one packet, a win, a refusal and nonsense: each is answered, in its place."""
    drop = await new_drop(allocation(quantity=1))
    answers = await raw(
        service,
        press(drop.id, token(1)),
        press(drop.id, token(2)),
        press(drop.id, token(3), b"{nonsense"),
        press(drop.id, token(4)),
        answers=4,
    )
    assert [json.loads(body).get("code", "held") for _, body in answers] == [
        "held",
        "sold_out",
        "invalid_request",
        "sold_out",
    ]


@pytest.mark.parametrize(("version", "connection"), [("1.1", "close"), ("1.0", None)])
async def test_who_wants_the_connection_closed_is_told_so(
    service: str, token: Token, new_drop: NewDrop, version: str, connection: str | None
) -> None:
    drop = await new_drop(allocation(quantity=0))
    headers = token(1) | ({"Connection": connection} if connection else {})
    ((head, _),) = await raw(service, press(drop.id, headers, version=version), answers=1)
    assert b"\r\nConnection: close\r\n" in head


async def test_a_body_that_comes_late_or_is_too_large(
    service: str, token: Token, new_drop: NewDrop, runner: Runner
) -> None:
    drop = await new_drop(allocation(quantity=0))
    whole = press(drop.id, token(1), b'{"allocation": "a"}')
    url = URL(service)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(whole[:-5])
    await writer.drain()
    async with ClientSession(service) as other, other.get("/healthz") as answer:
        assert answer.status == 200  # the service has had its turn, with half a body before it
    writer.write(whole[-5:])
    assert b"409 Conflict" in await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    for size in (65_537, 300_000):
        ((head, body),) = await raw(service, press(drop.id, token(1), b" " * size), answers=1)
        assert b"413" in head.split(b"\r\n")[0]
        assert json.loads(body)["code"] == "too_large"


async def test_who_asks_before_sending_the_body_is_told_to_go_on(service: str, token: Token, new_drop: NewDrop) -> None:
    """`Expect: 100-continue`, as curl sends it with larger bodies."""
    drop = await new_drop(allocation(quantity=0))
    whole = press(drop.id, token(1) | {"Expect": "100-continue"}, b'{"allocation": "a"}')
    url = URL(service)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head, _, body = whole.partition(b"\r\n\r\n")
    writer.write(head + b"\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert b"409 Conflict" in await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()


async def test_a_path_written_otherwise_takes_the_ordinary_way_to_the_same_answer(
    http: ClientSession, token: Token, new_drop: NewDrop
) -> None:
    drop = await new_drop(allocation(quantity=0))
    bodies = []
    for path in (f"/v1/drops/{drop.id}/reservations", f"/v1/drops/{drop.id}/reservations?utm=1"):
        async with http.post(URL(path, encoded=True), json={}, headers=token(1)) as answer:
            bodies.append((answer.status, answer.content_type, await answer.read()))
    assert bodies[0] == bodies[1]
    assert bodies[0][0] == 409


def test_every_refusal_has_its_words() -> None:
    words = {v for v in Verdict if v not in {Verdict.AGAIN, Verdict.HELD, Verdict.NOT_OPEN}}
    assert hot._REFUSALS.keys() == words - {Verdict.PAUSED}
    assert len(hot._PAUSED) == len(hot.PAUSED_RETRY_S)
    assert problems.STATUS.keys() == problems.TITLES.keys()
    assert {v.value for v in words} <= problems.STATUS.keys()
    assert Template(503, "text/plain", Retry_After="1").answer(b"").status == 503
    assert isinstance(hot._REFUSALS[Verdict.SOLD_OUT], web.StreamResponse)


async def test_the_public_page_of_a_drop_is_cached_and_tagged(
    http: ClientSession, token: Token, new_drop: NewDrop
) -> None:
    drop = await new_drop(allocation("now", 1), allocation("later", opens_in_s=1000), allocation("none", 0))
    async with http.get(f"/v1/drops/{drop.id}") as answer:
        body, tag = await answer.json(), answer.headers["ETag"]
        assert answer.headers["Cache-Control"] == "public, max-age=1"
    assert [a["state"] for a in body["allocations"]] == ["open", "upcoming", "sold_out"]
    async with http.get(f"/v1/drops/{drop.id}", headers={"If-None-Match": tag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")
    async with http.post(f"/v1/drops/{drop.id}/reservations", json={"allocation": "now"}, headers=token(1)) as answer:
        assert answer.status == 201

    async def sold_out() -> bool:
        async with http.get(f"/v1/drops/{drop.id}", headers={"If-None-Match": tag}) as answer:
            return answer.status == 200 and (await answer.json())["allocations"][0]["state"] == "sold_out"

    await until(sold_out, "the page says sold out")
