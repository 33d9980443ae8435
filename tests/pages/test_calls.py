"""The small calls that pages live on: clock, status, events, what is mine, pictures."""

import asyncio
import struct
import time
import zlib
from typing import Any

import msgspec
import pytest
from aiohttp import ClientResponse, ClientSession

from flashsale.domain import Text, Texts
from flashsale.drops import DropChange
from tests.pages.conftest import NewSale
from tests.pages.support import Service, hold
from tests.support import allocation


async def get(http: ClientSession, path: str, **request: Any) -> tuple[int, Any, dict[str, str]]:  # noqa: ANN401
    """Status, body, headers."""
    async with http.get(path, **request) as answer:
        raw = await answer.read()
        return (
            answer.status,
            msgspec.json.decode(raw) if raw else None,
            {name.lower(): value for name, value in answer.headers.items()},
        )


async def test_the_clock_is_the_gate_s_and_nobody_keeps_it(http: ClientSession, new_sale: NewSale) -> None:
    drop, before = await new_sale(), time.time() * 1000
    status, body, headers = await get(http, f"/v1/drops/{drop.id}/clock")
    assert (status, list(body), headers["cache-control"]) == (200, ["now_ms"], "no-store")
    assert before - 2000 < body["now_ms"] < time.time() * 1000 + 2000
    assert int(headers["content-length"]) < 40
    assert (await get(http, "/v1/drops/no-such/clock"))[0] == 404


async def test_the_status_says_when_to_ask_again(http: ClientSession, new_sale: NewSale, service: Service) -> None:
    """Kept for a second, with a tag that leaves the clock out; all taken comes with when some may come back."""
    drop = await new_sale(allocation(quantity=1), texts=Texts(en=Text(notice="Soon.")))
    path = f"/v1/drops/{drop.id}/status"
    status, body, headers = await get(http, path)
    assert (status, headers["cache-control"]) == (200, "public, max-age=1")
    assert (body["poll_s"], body["spread_s"], body["notice"], body["streams"]) == (0.5, 0.5, {"en": "Soon."}, True)
    assert [(a["id"], a["state"], a["access"]) for a in body["allocations"]] == [("a", "open", {"kind": "everyone"})]
    assert (await get(http, path, headers={"If-None-Match": headers["etag"]}))[0] == 304
    held = await hold(service, drop.id, 8_000_001)

    async with asyncio.timeout(60):
        while (found := (await get(http, path))[1]["allocations"][0])["state"] != "sold_out":
            await asyncio.sleep(0.05)
    assert msgspec.convert(found["back_by"], type(held.expires_at)) == held.expires_at


async def test_events_tell_changes_to_so_many_and_send_the_others_away(
    http: ClientSession, new_sale: NewSale, service: Service
) -> None:
    """First how it is, then what changes; beyond the limit 503 with Retry-After; a place is free when one goes."""
    drop = await new_sale(allocation(quantity=1), allocation("b", opens_in_s=3000))
    path = f"/v1/drops/{drop.id}/events"
    room = service.context.settings.streams_max
    async with asyncio.timeout(30):
        streams: list[ClientResponse] = []
        while len(streams) < room:
            stream = await http.get(path)
            if stream.status == 200:
                streams.append(stream)
            else:
                await asyncio.sleep(0.2)  # pages of earlier tests are still going
        async with http.get(path) as refused:
            assert refused.status == 503
            assert int(refused.headers["Retry-After"]) >= 1
        first = streams[0]
        assert first.headers["Content-Type"] == "text/event-stream"
        assert (await first.content.readuntil(b"\n\n")).startswith(b"retry: ")
        told = [await first.content.readuntil(b"\n\n") for _ in range(2)]
        assert [t.startswith(b"event: allocation\ndata: {") for t in told] == [True, True]
        await hold(service, drop.id, 8_000_002)
        assert b'"state":"sold_out"' in await first.content.readuntil(b"\n\n")
        await service.context.operations.switch(drop.id, "pause", actor="member:1")
        assert (await first.content.readuntil(b"\n\n")).startswith(b"event: drop\n")
        for stream in streams:
            stream.close()
        while (again := await http.get(path)).status != 200:
            await asyncio.sleep(0.1)
        again.close()


async def test_what_is_mine_needs_to_be_somebody(http: ClientSession, new_sale: NewSale, service: Service) -> None:
    """By token as well; another member's reservations are not in it."""
    drop = await new_sale(allocation(quantity=5))
    assert (await get(http, f"/v1/me/drops/{drop.id}"))[0] == 401
    held = await hold(service, drop.id, 8_000_003)
    bearer = {"Authorization": f"Bearer {service.token(8_000_003)}"}
    status, body, headers = await get(http, f"/v1/me/drops/{drop.id}", headers=bearer)
    assert (status, headers["cache-control"]) == (200, "private, no-store")
    assert [r["id"] for r in body["reservations"]] == [held.id]
    assert body["allocations"] == [{"id": "a", "eligible": True}]
    other = {"Authorization": f"Bearer {service.token(8_000_004)}"}
    assert (await get(http, f"/v1/me/drops/{drop.id}", headers=other))[1]["reservations"] == []


async def test_the_press_of_the_pages_is_the_press(http: ClientSession, new_sale: NewSale, service: Service) -> None:
    """By token as well; the same key is the same reservation on both ways."""
    drop = await new_sale()
    headers = {"Authorization": f"Bearer {service.token(8_000_005)}", "Idempotency-Key": "k1"}
    found = []
    for path in (f"/v1/me/drops/{drop.id}/reservations", f"/v1/drops/{drop.id}/reservations"):
        async with http.post(path, json={"allocation": "a"}, headers=headers) as answer:
            found.append((answer.status, msgspec.json.decode(await answer.read())))
    assert [status for status, _ in found] == [201, 200]
    assert found[0][1] == found[1][1]


def png(width: int, height: int) -> bytes:
    """A grey picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" + b"\x80" * width) * height)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


async def test_a_picture_is_put_in_shown_and_kept_for_ever(
    http: ClientSession, new_sale: NewSale, service: Service
) -> None:
    """Its name tells its size; the same content is the same picture; a drop may show it from then on."""
    ops = {"Authorization": f"Bearer {service.token(1, 'ops')}"}
    answered = []
    for _ in range(2):
        async with http.post("/v1/ops/pictures", data=png(40, 30), headers=ops) as answer:
            assert answer.status == 201
            answered.append(await answer.json())
    assert answered[0] == answered[1]
    name = answered[0]["picture"]
    assert (answered[0]["width"], answered[0]["height"]) == (40, 30)
    async with http.get(f"/pictures/{name}") as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
        assert "immutable" in answer.headers["Cache-Control"]
        assert await answer.read() == png(40, 30)
    drop = await new_sale()
    await service.context.operations.edit(drop.id, DropChange(picture=name), actor="member:1")
    async with http.get(f"/en/d/{drop.id}") as answer:
        assert f'src="/pictures/{name}" width="40" height="30"' in await answer.text()


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", 422), (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422), (png(1, 1)[:20], 422), (b"x" * 300_000, 413)],
)
async def test_what_is_no_picture_is_refused(
    http: ClientSession, service: Service, content: bytes, status: int
) -> None:
    ops = {"Authorization": f"Bearer {service.token(1, 'ops')}"}
    async with http.post("/v1/ops/pictures", data=content, headers=ops) as answer:
        assert answer.status == status
    body = {"picture": "0" * 20 + "-1x1.png"}
    async with http.patch("/v1/ops/drops/none", json=body, headers=ops) as answer:
        assert answer.status == 422
        assert "POST /v1/ops/pictures" in (await answer.json(content_type=None))["detail"]
