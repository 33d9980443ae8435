"""The console's calls about points: snapshots, thresholds, a look at a file, how far an import is."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession

from tests.support import unique, until
from tests.web.calls import Answer, assert_refused, call
from tests.web.conftest import Token

POINTS = "/v1/ops/points"
CUTOFF = "2011-08-16T00:00:00+08:00"


@pytest.fixture(scope="session")
def ops(token: Token) -> dict[str, str]:
    """An operator's headers."""
    return token(906, role="ops")


async def store(http: ClientSession, ops: dict[str, str], data: Any) -> tuple[str, Answer]:  # noqa: ANN401
    """An import under a name of its own."""
    name = unique("chart")
    headers = {**ops, "Content-Type": "text/csv"}
    return name, await call(http, "POST", POINTS, headers, params={"name": name, "cutoff": CUTOFF}, data=data)


async def check(http: ClientSession, ops: dict[str, str], data: bytes) -> Any:  # noqa: ANN401
    """What an import would say."""
    answer = await call(http, "POST", f"{POINTS}/check", {**ops, "Content-Type": "text/csv"}, data=data)
    assert answer.status == 200, answer
    return answer.body


async def test_snapshots_are_listed_by_name(http: ClientSession, ops: dict[str, str]) -> None:
    """With their cut-off in its own zone, by whom and when; in pages."""
    names = sorted([(await store(http, ops, b"member_id,points\n1,5\n2,7\n"))[0] for _ in range(3)])
    found: list[Any] = []
    after = {"after": names[0][:-1]}
    while len(found) < 50:
        page = (await call(http, "GET", POINTS, ops, params={"limit": 2, **after})).body
        found += page["items"]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    mine = [item for item in found if item["snapshot"] in names]
    assert [item["snapshot"] for item in mine] == names
    assert {(i["cutoff"], i["members"], i["created_by"]) for i in mine} == {(CUTOFF, 2, "member:906")}


async def test_thresholds_count_who_qualifies(http: ClientSession, ops: dict[str, str]) -> None:
    """Exactly, at each number of two digits and zeros that makes a difference, and at any other on request."""
    dice = random.Random(5)
    points = [
        0,
        1,
        1,
        99,
        100,
        101,
        109,
        110,
        12_345,
        2**63 - 1,
        *(int(10 ** (dice.random() * 18)) for _ in range(300)),
    ]
    lines = "".join(f"{member},{has}\n" for member, has in enumerate(points, 1))
    name, _ = await store(http, ops, f"member_id,points\n{lines}".encode())
    for _ in range(2):
        told = (await call(http, "GET", f"{POINTS}/{name}/thresholds", ops, params={"at_least": 105})).body
        assert told["members"] == len(points)
        assert told["asked"] == {"at_least": 105, "members": sum(has >= 105 for has in points)}
        listed = [(t["at_least"], t["members"]) for t in told["thresholds"]]
        assert listed == sorted(listed)
        assert len(str(listed[-1][0]).rstrip("0")) <= 2
        assert listed == [(t, sum(has >= t for has in points)) for t, _ in listed]
        rounded = {has if has < 100 else int(str(has)[:2] + "0" * (len(str(has)) - 2)) for has in points}
        assert {t for t, _ in listed} == rounded
    assert "asked" not in (await call(http, "GET", f"{POINTS}/{name}/thresholds", ops)).body
    assert_refused(await call(http, "GET", f"{POINTS}/none/thresholds", ops), "not_found", "'none'")
    for wrong in ("-1", "x", str(2**63)):
        refused = await call(http, "GET", f"{POINTS}/{name}/thresholds", ops, params={"at_least": wrong})
        assert_refused(refused, "invalid_request", "at_least")


async def test_a_file_is_checked_to_its_end(http: ClientSession, ops: dict[str, str]) -> None:
    """Every wrong line with its number and why; the good ones are counted; nothing is stored."""
    told = await check(http, ops, b"member_id,points\n1,5\nx,5\n2,-1\n\n3,1\n0,7\n4\n5,9\n")
    assert told["members"] == 3
    assert told["more"] is False
    assert [wrong["line"] for wrong in told["wrong"]] == [3, 4, 5, 7, 8]
    details = [wrong["detail"] for wrong in told["wrong"]]
    assert "member id 'x' is not a whole number" in details[0]
    assert "empty" in details[2]
    assert all(detail[0].isupper() and "Nothing was imported" not in detail for detail in details)

    assert await check(http, ops, b"member_id,points\n1,5\n2,6\n") == {"members": 2, "wrong": [], "more": False}
    for other, word in ((b"id,points\n1,5\n", "header"), (b"", "empty"), (b"<html>", "header")):
        headers = {**ops, "Content-Type": "text/csv"}
        refused = await call(http, "POST", f"{POINTS}/check", headers, data=other)
        assert_refused(refused, "invalid_request", word)
    assert [w["line"] for w in (await check(http, ops, b"member_id,points\n"))["wrong"]] == [2]
    assert [w["line"] for w in (await check(http, ops, b'member_id,points\nx,1\n"2,3\n'))["wrong"]] == [2, 3]
    many = await check(http, ops, b"member_id,points\n" + b"x,1\n" * 300)
    assert (len(many["wrong"]), many["more"]) == (100, True)


async def test_what_the_check_says_the_import_says(http: ClientSession, ops: dict[str, str]) -> None:
    """The first wrong line is the one that an import stops at."""
    data = b"member_id,points\n1,5\n2,many\n3,5\n"
    [wrong] = (await check(http, ops, data))["wrong"]
    _, refused = await store(http, ops, data)
    assert_refused(refused, "invalid_request", "Line 3")
    assert refused.body["line"] == wrong["line"]


async def test_an_import_shows_how_far_it_is(http: ClientSession, ops: dict[str, str]) -> None:
    """To whoever asks, while the file still comes; afterwards it is gone from the list."""
    name, go_on = unique("chart"), asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"member_id,points\n1,5\n2,6\n"
        await go_on.wait()
        yield b"3,7\n"

    params = {"name": name, "cutoff": CUTOFF}
    importing = asyncio.create_task(call(http, "POST", POINTS, ops, params=params, data=pieces()))

    async def mine() -> list[Any]:
        items = (await call(http, "GET", f"{POINTS}/imports", ops)).body["items"]
        return [item for item in items if item["snapshot"] == name]

    async def shown() -> bool:
        found = await mine()
        return bool(found) and found[0]["lines"] == 3

    await until(shown, "the import is told of")
    [told] = await mine()
    assert (told["actor"], told["phase"], told["bytes"], told["bytes_total"]) == ("member:906", "reading", 25, None)
    go_on.set()
    assert (await importing).status == 201
    assert await mine() == []


async def test_it_needs_the_role(http: ClientSession, token: Token) -> None:
    """A shopper is told so."""
    for method, path in (("GET", ""), ("GET", "/imports"), ("GET", "/a/thresholds"), ("POST", "/check")):
        assert_refused(await call(http, method, f"{POINTS}{path}", token(1)), "forbidden", "ops")
