"""Bad points files: refused with the line that is wrong, and nothing of them is imported."""

import asyncio
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlencode

import pytest
from aiohttp import ClientSession, web

from flashsale import embedded
from flashsale.settings import Settings
from flashsale.web.app import make_runner
from tests.support import PATIENT, unique, until
from tests.web.calls import Answer, assert_refused, call
from tests.web.conftest import SECRET, Token

CUTOFF = "2011-08-16T00:00:00+08:00"
GOOD = b"member_id,points\n17,250\n"
BYTES_MAX = 1_000


@pytest.fixture(scope="session")
def ops(token: Token) -> dict[str, str]:
    """An operator's headers."""
    return token(902, role="ops")


@pytest.fixture(scope="session")
async def small(urls: embedded.Servers) -> AsyncIterator[ClientSession]:
    """A client of a service that takes files of 1,000 bytes at most."""
    settings = Settings(
        redis_url=urls.redis_url,
        database_url=urls.database_url,
        jwt_secret=SECRET,
        points_body_max_bytes=BYTES_MAX,
        **PATIENT,
    )
    runner = await make_runner(settings)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
        yield session
    await runner.cleanup()


async def post(http: ClientSession, ops: dict[str, str], name: str, data: object, cutoff: str = CUTOFF) -> Answer:
    """Send a file."""
    return await call(http, "POST", "/v1/ops/points", ops, params={"name": name, "cutoff": cutoff}, data=data)


async def assert_nothing_imported(http: ClientSession, ops: dict[str, str], name: str) -> None:
    """The audit log has no line of it, and the name is still free: a good file takes it."""
    assert (await call(http, "GET", "/v1/ops/audit", ops, params={"subject": name})).body["items"] == []
    assert (await post(http, ops, name, GOOD)).status == 201


BAD_FILES: dict[str, tuple[bytes, int, str]] = {
    "no file": (b"", 1, "empty"),
    "only a header": (b"member_id,points\n", 2, "no member"),
    "another header": (b"id,points\n17,250\n", 1, "member_id,points"),
    "semicolons": (b"member_id;points\n17;250\n", 1, "comma"),
    "no header": (b"17,250\n18,100\n", 1, "header"),
    "not a number": (GOOD + b"18,many\n", 3, "'many'"),
    "half a point": (GOOD + b"18,1.5\n", 3, "'1.5'"),
    "negative points": (GOOD + b"18,-5\n", 3, "'-5'"),
    "member 0": (GOOD + b"0,5\n", 3, "from 1"),
    "a member beyond 63 bits": (GOOD + b"9223372036854775808,5\n", 3, "9223372036854775807"),
    "a column too few": (GOOD + b"18\n", 3, "points"),
    "a member twice": (GOOD + b"18,1\n17,3\n", 4, "on line 2"),
    "UTF-16": (GOOD.decode().encode("utf-16"), 1, "UTF-8"),
    "Latin-1": (GOOD + "18,100,Grüße\n".encode("latin-1"), 3, "UTF-8"),
    "a NUL": (GOOD + b"18,1\x0000\n", 3, "NUL"),
    "an open quotation mark": (GOOD + b'18,"100\n', 3, "quotation mark"),
    "an empty line": (GOOD + b"\n18,100\n", 3, "empty"),
}


@pytest.mark.parametrize("case", BAD_FILES)
async def test_a_bad_line_is_named_and_nothing_is_imported(http: ClientSession, ops: dict[str, str], case: str) -> None:
    """`line` counts from 1 as an editor does; the sentence names it, too, and what is wrong there."""
    data, line, words = BAD_FILES[case]
    name = unique("bad-points")
    answer = await post(http, ops, name, data)
    assert_refused(answer, "invalid_request", f"Line {line}:", words, "Nothing was imported")
    assert answer.body["line"] == line
    await assert_nothing_imported(http, ops, name)


async def test_a_bad_line_late_in_a_long_file_undoes_all_of_it(http: ClientSession, ops: dict[str, str]) -> None:
    """Lines that were copied already are gone with the rest."""
    lines = [f"{member},{member % 500}\n" for member in range(1, 50_001)]
    lines[44_443] = "forty-four thousand,1\n"
    name = unique("bad-points")
    answer = await post(http, ops, name, ("member_id,points\n" + "".join(lines)).encode())
    assert_refused(answer, "invalid_request", "Line 44445:")
    await assert_nothing_imported(http, ops, name)


BAD_QUERIES: dict[str, tuple[dict[str, str], str]] = {
    "no name": ({"cutoff": CUTOFF}, "`name`"),
    "an empty name": ({"name": "", "cutoff": CUTOFF}, "`name`"),
    "a name with capitals": ({"name": "August", "cutoff": CUTOFF}, "August"),
    "a name with a NUL": ({"name": "a\0", "cutoff": CUTOFF}, "small letters"),
    "a name with a line break": ({"name": "a\n", "cutoff": CUTOFF}, "small letters"),
    "no cut-off": ({"name": "bad-query"}, "`cutoff`"),
    "a day only": ({"name": "bad-query", "cutoff": "2011-08-16"}, "zone"),
    "no zone": ({"name": "bad-query", "cutoff": "2011-08-16T00:00:00"}, "zone"),
    "a plus that became a space": ({"name": "bad-query", "cutoff": "2011-08-16T00:00:00 08:00"}, "%2B"),
    "before the calendar": ({"name": "bad-query", "cutoff": "0001-01-01T00:00:00+14:00"}, "between"),
    "after the calendar": ({"name": "bad-query", "cutoff": "9999-12-31T23:59:59-14:00"}, "between"),
}


@pytest.mark.parametrize("case", BAD_QUERIES)
async def test_a_bad_name_or_cut_off_is_refused(http: ClientSession, ops: dict[str, str], case: str) -> None:
    """The sentence says which parameter, and how to write it."""
    query, words = BAD_QUERIES[case]
    answer = await call(http, "POST", f"/v1/ops/points?{urlencode(query)}", ops, data=GOOD)
    assert_refused(answer, "invalid_request", words)
    assert (await call(http, "GET", "/v1/ops/audit", ops, params={"subject": "bad-query"})).body["items"] == []


async def test_a_snapshot_never_changes(http: ClientSession, ops: dict[str, str]) -> None:
    """A name that is taken is a conflict, even with the same file."""
    name = unique("bad-points")
    assert (await post(http, ops, name, GOOD)).status == 201
    for data in (GOOD, GOOD + b"18,100\n"):
        assert_refused(await post(http, ops, name, data), "conflict", name)
    assert len((await call(http, "GET", "/v1/ops/audit", ops, params={"subject": name})).body["items"]) == 1


async def test_a_file_over_the_limit_is_refused_however_it_is_sent(small: ClientSession, ops: dict[str, str]) -> None:
    """Announced by its length, or in pieces that never say how many follow; up to the limit all is well."""

    async def pieces(data: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(data), 100):
            yield data[start : start + 100]

    lines = b"".join(b"%d,1\n" % member for member in range(100, 300))
    over = b"member_id,points\n" + lines
    fits = over[:BYTES_MAX]
    assert len(over) > BYTES_MAX
    ways: list[Callable[[bytes], object]] = [lambda data: data, pieces]
    for sent in ways:
        name = unique("bad-points")
        assert_refused(await post(small, ops, name, sent(over)), "too_large", str(BYTES_MAX))
        await assert_nothing_imported(small, ops, name)
        assert (await post(small, ops, unique("bad-points"), sent(fits))).status == 201


async def test_a_file_that_is_not_packed_as_announced_is_refused(http: ClientSession, ops: dict[str, str]) -> None:
    """`Content-Encoding: gzip` on a file that is none."""
    name = unique("bad-points")
    answer = await post(http, {**ops, "Content-Encoding": "gzip"}, name, GOOD)
    assert_refused(answer, "invalid_request", "packed")
    await assert_nothing_imported(http, ops, name)


async def test_a_connection_that_breaks_off_leaves_nothing(
    http: ClientSession, service: str, ops: dict[str, str]
) -> None:
    """Half a file is not a file: the name becomes free again, without waiting for a time-out."""
    name = unique("bad-points")
    host, port = service.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    query = urlencode({"name": name, "cutoff": CUTOFF})
    head = f"POST /v1/ops/points?{query} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {ops['Authorization']}\r\n"
    writer.write(head.encode() + b"Content-Length: 1000\r\n\r\n" + GOOD)
    await writer.drain()

    async def under_way() -> bool:
        answer = await post(http, ops, name, b"no file")
        return answer.body == {**answer.body, "code": "conflict"}

    await until(under_way, "the import has the name")
    writer.close()

    async def free() -> bool:
        return (await post(http, ops, name, GOOD)).status == 201

    await until(free, "the name is free again")
