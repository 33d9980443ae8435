"""The load tools and F-codes: forgeries that are none of ours, calls that are counted, bits that are not guessed."""

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import redis.asyncio as redis

import fcodes
from flashsale import embedded
from loadtests import stores
from loadtests.bench import codes, forged
from loadtests.bench.tokenfile import write_fcode_presses
from loadtests.tokens import Minter

MINTER = Minter("s" * 32, expires_at=4_000_000_000)


def test_no_two_forged_codes_are_alike_and_none_is_genuine(tmp_path: Path) -> None:
    """A file of forged presses: each by another member, each code well formed, and none made with the service's key."""
    keys = fcodes.Keys.parse(codes.new_ring())
    members = range(1_000_000_000, 1_000_002_500)
    written = write_fcode_presses(tmp_path / "requests.bin", MINTER, "d", members, codes.forgeries(Random(1)))
    raw = written.path.read_bytes()
    requests = [raw[at : at + written.length_bytes].decode() for at in range(0, len(raw), written.length_bytes)]
    assert len(requests) == written.number == len(members)
    texts = set()
    for request, member in zip(requests, members, strict=True):
        head, body = request.split("\r\n\r\n")
        assert head.startswith("POST /v1/drops/d/reservations HTTP/1.1\r\n")
        assert f"Bearer {MINTER.shopper(member)}\r\n" in head
        assert f"Content-Length: {len(body)}" in head
        [text] = json.loads(body).values()
        assert isinstance(fcodes.read(text, keys), fcodes.NotOurs)
        texts.add(text)
    assert len(texts) == len(members)


async def test_redis_calls_are_counted_apart_from_what_scripts_do(urls: embedded.Servers) -> None:
    """A script is one call, however many commands it consists of; a command without a script is seen, too."""
    calls = forged.Calls(urls.redis_url)
    async with redis.from_url(urls.redis_url) as client:
        await client.ping()
        async with calls.watched():
            for _ in range(3):
                await client.eval("for i = 1, 5 do redis.call('TIME') end", 0)
            await client.echo("no script")
    assert (calls.scripts, calls.commands) == (3, 3 + 15 + 1)
    assert calls.seconds > 0


async def test_codes_are_called_spent_only_in_the_layout_that_presses_left(urls: embedded.Servers) -> None:
    """The bits of those pressed are there as they should be: all are set. One elsewhere, or one more: nothing is."""
    key = "fs3:{spent-codes:0}:codes"
    async with redis.from_url(urls.redis_url) as client:
        with pytest.raises(stores.Unreadable, match="has 0 keys"):
            await stores.code_bytes(urls.redis_url, "spent-codes")
        before: dict[Any, Any] = {"#": "", "b:7": "facts", "s:7:0": b"\x80\x01\x00", "s:7:1": b"\x01"}
        for other in ({"s:7:0": b"\x80\x02"}, {"s:7:1": b"\x03"}, {"s:8:0": b"\x01"}):
            await client.hset(key, mapping=before | other)
            with pytest.raises(stores.Unreadable, match="another layout"):
                await stores.spend_codes(urls.redis_url, "spent-codes", "7", 1_003, pressed=(7, 8, 1_000))
            await client.delete(key)
        await client.hset(key, mapping=before)
        small = await stores.code_bytes(urls.redis_url, "spent-codes")
        await stores.spend_codes(urls.redis_url, "spent-codes", "7", 1_003, pressed=(7, 8, 1_000))
        after = await client.hgetall(key)
        assert await stores.code_bytes(urls.redis_url, "spent-codes") > small + 100
        await client.delete(key)
    assert after == {b"#": b"", b"b:7": b"facts", b"s:7:0": b"\xff" * 125, b"s:7:1": b"\x07"}
