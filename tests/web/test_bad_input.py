"""Bad input: each is a problem with its code and a sentence that says what to do, and nothing is half-done."""

import gzip
import time
from collections.abc import Callable

import pytest
from aiohttp import ClientSession
from yarl import URL

from flashsale.settings import Settings
from flashsale.web import api, console_calls
from flashsale.web import ops as ops_calls
from flashsale.web.auth import mint
from tests.support import unique, until
from tests.web.calls import Json, allocation_body, assert_refused, at, call, drop_body
from tests.web.conftest import SECRET, Token

CUTOFF = "2011-08-16T00:00:00+08:00"
OTHER_SECRET = "not the service's secret, yet as long as one must be"


@pytest.fixture(scope="module")
def ops(token: Token) -> dict[str, str]:
    """An operator's headers."""
    return token(901, role="ops")


@pytest.fixture
async def drop(http: ClientSession, ops: dict[str, str]) -> str:
    """A drop whose one allocation has 5 units, 2 of them taken; 2 per member."""
    drop_id = unique("bad")
    body = drop_body(drop_id, allocation_body("a", 5), per_member=2)
    assert (await call(http, "POST", "/v1/ops/drops", ops, json=body)).status == 201
    return drop_id


def changed(body: Json, change: Json) -> Json:
    """The body with some fields changed; None leaves a field out."""
    return {field: value for field, value in (body | change).items() if value is not None}


async def assert_never_was(http: ClientSession, ops: dict[str, str], drop_id: str) -> None:
    """No drop, no audit line."""
    assert_refused(await call(http, "GET", f"/v1/ops/drops/{drop_id}", ops), "not_found")
    assert (await call(http, "GET", "/v1/ops/audit", ops, params={"subject": drop_id})).body["items"] == []


async def told(http: ClientSession, ops: dict[str, str], drop_id: str) -> Json:
    """Everything that is told about a drop, but for the clock: its state, its audit lines, its balance."""
    path = f"/v1/ops/drops/{drop_id}"
    shown = (await call(http, "GET", path, ops)).body
    audit = (await call(http, "GET", "/v1/ops/audit", ops, params={"subject": drop_id})).body
    balance = (await call(http, "GET", f"{path}/balance", ops)).body
    return {**shown, "server_time": None, "audit": audit, "balance": balance}


NO_JSON: dict[str, bytes] = {
    "cut off": b'{"title": ',
    "not UTF-8": b'{"title": "\xff"}',
    "half a surrogate": rb'{"title": "\ud800"}',
    "an array": b"[]",
    "a number": b"1",
    "null": b"null",
    "two documents": b"{} {}",
    "nested too deep": b"[" * 5_000,
}
JSON_CALLS = [
    ("POST", "/v1/ops/drops"),
    ("PATCH", "/v1/ops/drops/{drop}"),
    ("POST", "/v1/ops/drops/{drop}/allocations"),
    ("PATCH", "/v1/ops/drops/{drop}/allocations/a"),
    ("POST", "/v1/ops/drops/{drop}/pause"),
    ("POST", "/v1/ops/drops/{drop}/resume"),
    ("POST", "/v1/ops/drops/{drop}/close"),
    ("POST", "/v1/ops/drops/{drop}/moves"),
    ("POST", "/v1/ops/drops/{drop}/fcode-switch"),
    ("POST", "/v1/ops/drops/{drop}/rehearsals"),
    ("POST", "/v1/ops/fcode-switch"),
    ("POST", "/v1/drops/{drop}/reservations"),
]


@pytest.mark.parametrize(("method", "path"), JSON_CALLS)
async def test_a_body_that_is_no_json_object_of_the_call_is_refused(
    http: ClientSession, ops: dict[str, str], drop: str, method: str, path: str
) -> None:
    """Malformed, unknown, oversized, badly packed: each has its answer in every call, and changes nothing."""
    before, path = await told(http, ops, drop), path.format(drop=drop)
    for body in NO_JSON.values():
        assert_refused(await call(http, method, path, ops, data=body), "invalid_request", "body")
    unknown = await call(http, method, path, ops, json={"surprise": 1})
    assert_refused(unknown, "invalid_request", "surprise")
    oversized = await call(http, method, path, ops, data=b" " * (Settings().body_max_bytes + 1))
    assert_refused(oversized, "too_large")
    packed = {**ops, "Content-Encoding": "gzip"}
    assert_refused(await call(http, method, path, packed, data=b"{}"), "invalid_request", "body")
    bomb = gzip.compress(b" " * (10 * Settings().body_max_bytes))
    assert_refused(await call(http, method, path, packed, data=bomb), "too_large")
    assert await told(http, ops, drop) == before


POINTS = {"kind": "points", "snapshot": "never-imported", "at_least": 1}
BAD_ALLOCATIONS: dict[str, tuple[Json, str]] = {
    "no quantity": ({"quantity": None}, "quantity"),
    "quantity as text": ({"quantity": "5"}, "quantity"),
    "half a unit": ({"quantity": 1.5}, "quantity"),
    "quantity true": ({"quantity": True}, "quantity"),
    "fewer than none": ({"quantity": -1}, "quantity"),
    "more than 2^31": ({"quantity": 2**31}, "quantity"),
    "a time without zone": ({"opens_at": "2030-01-01T12:00:00"}, "opens_at"),
    "no time": ({"opens_at": "noon"}, "opens_at"),
    "a time as number": ({"closes_at": 1_900_000_000}, "closes_at"),
    "closes before it opens": ({"opens_at": at(60), "closes_at": at(30)}, "closes_at"),
    "closes when it opens": ({"opens_at": CUTOFF, "closes_at": CUTOFF}, "closes_at"),
    "before the calendar": ({"opens_at": "0001-01-01T00:00:00+14:00"}, "between"),
    "after the calendar": ({"closes_at": "9999-12-31T23:59:59-14:00"}, "between"),
    "capital letters": ({"id": "Morning"}, "id"),
    "a name with a line break": ({"id": "morning\n"}, "id"),
    "a name of 64": ({"id": "a" * 64}, "id"),
    "an empty name": ({"id": ""}, "id"),
    "no access rule": ({"access": None}, "access"),
    "an unknown rule": ({"access": {"kind": "friends"}}, "access"),
    "a rule with too much": ({"access": {"kind": "everyone", "at_least": 1}}, "at_least"),
    "a rule without its number": ({"access": {"kind": "tier"}}, "at_least"),
    "a negative threshold": ({"access": {"kind": "tier", "at_least": -1}}, "at_least"),
    "an unknown snapshot": ({"access": POINTS}, "never-imported"),
    "a channel with a NUL": ({"channel": "a\0b"}, "channel"),
    "an unknown field": ({"stock": 5}, "stock"),
}
BAD_DROPS: dict[str, tuple[Json, str]] = {
    "no title": ({"title": None}, "title"),
    "an empty title": ({"title": ""}, "title"),
    "a title with a NUL": ({"title": "a\0"}, "title"),
    "a title of 201": ({"title": "x" * 201}, "title"),
    "a price as number": ({"price": 169_900}, "price"),
    "a negative price": ({"price": {"amount": -1, "currency": "CNY"}}, "price"),
    "an odd currency": ({"price": {"amount": 1, "currency": "yuan"}}, "currency"),
    "another currency": ({"list_price": {"amount": 1, "currency": "USD"}}, "currency"),
    "none per member": ({"per_member": 0}, "per_member"),
    "a hold of no time": ({"hold_seconds": 0}, "hold_seconds"),
    "no allocation": ({"allocations": []}, "allocations"),
    "allocations as object": ({"allocations": {}}, "allocations"),
    "two of one name": ({"allocations": [allocation_body("a"), allocation_body("a")]}, "'a'"),
    "a name with a line break": ({"id": "new\n"}, "id"),
    "a name with a slash": ({"id": "new/drop"}, "id"),
}


@pytest.mark.parametrize("case", BAD_DROPS)
async def test_a_bad_drop_is_refused_and_not_set_up(http: ClientSession, ops: dict[str, str], case: str) -> None:
    """The sentence names what is wrong; the id is still free and the audit log knows nothing."""
    change, word = BAD_DROPS[case]
    drop_id = unique("bad")
    answer = await call(http, "POST", "/v1/ops/drops", ops, json=changed(drop_body(drop_id), change))
    assert_refused(answer, "invalid_request", word)
    await assert_never_was(http, ops, drop_id)


@pytest.mark.parametrize("case", BAD_ALLOCATIONS)
async def test_a_bad_allocation_is_refused_in_a_new_drop_and_in_a_running_one(
    http: ClientSession, ops: dict[str, str], drop: str, case: str
) -> None:
    """One bad allocation beside a good one: neither is set up."""
    change, word = BAD_ALLOCATIONS[case]
    bad = changed(allocation_body("bad", 1), change)
    drop_id, before = unique("bad"), await told(http, ops, drop)
    answer = await call(http, "POST", "/v1/ops/drops", ops, json=drop_body(drop_id, allocation_body("good"), bad))
    assert_refused(answer, "invalid_request", word)
    await assert_never_was(http, ops, drop_id)
    answer = await call(http, "POST", f"/v1/ops/drops/{drop}/allocations", ops, json=bad)
    assert_refused(answer, "invalid_request", word)
    assert await told(http, ops, drop) == before


BAD_PATCHES: dict[str, tuple[str, Json, str, str]] = {
    "nothing to change": ("/allocations/a", {}, "invalid_request", "quantity"),
    "no title": ("", {}, "invalid_request", "title"),
    "a title of null": ("", {"title": None}, "invalid_request", "title"),
    "what cannot change": ("", {"price": {"amount": 1, "currency": "CNY"}}, "invalid_request", "price"),
    "a quantity of null": ("/allocations/a", {"quantity": None}, "invalid_request", "quantity"),
    "below what is taken": ("/allocations/a", {"quantity": 1}, "conflict", "2 units"),
    "an end before the opening": ("/allocations/a", {"closes_at": CUTOFF}, "invalid_request", "closes_at"),
    "an opening after the end": (
        "/allocations/a",
        {"opens_at": "2999-01-01T00:00:00Z"},
        "invalid_request",
        "closes_at",
    ),
    "an end without zone": ("/allocations/a", {"closes_at": "2030-01-01T00:00:00"}, "invalid_request", "closes_at"),
    "an end out of reach": ("/allocations/a", {"closes_at": "9999-12-31T00:00:00Z"}, "invalid_request", "between"),
    "a right change beside a wrong one": ("/allocations/a", {"channel": "x", "quantity": 0}, "conflict", "2 units"),
    "an unknown allocation": ("/allocations/b", {"quantity": 9}, "not_found", "'b'"),
}


@pytest.mark.parametrize("case", BAD_PATCHES)
async def test_a_bad_change_is_refused_and_changes_nothing(
    http: ClientSession, ops: dict[str, str], token: Token, drop: str, case: str
) -> None:
    """Two of the five units are taken; shrinking below that is a conflict that says how many are."""
    reserved = await call(http, "POST", f"/v1/drops/{drop}/reservations", token(1), json={"quantity": 2})
    assert reserved.status == 201

    async def shown() -> bool:
        return bool((await told(http, ops, drop))["allocations"][0]["available"] == 3)

    await until(shown, "what is told is as it is")
    path, body, code, word = BAD_PATCHES[case]
    before = await told(http, ops, drop)
    assert_refused(await call(http, "PATCH", f"/v1/ops/drops/{drop}{path}", ops, json=body), code, word)
    assert await told(http, ops, drop) == before


async def test_a_name_that_is_taken_is_a_conflict(http: ClientSession, ops: dict[str, str], drop: str) -> None:
    """A second drop of one id, a second allocation of one name: refused, the first stays as it is."""
    before = await told(http, ops, drop)
    again = drop_body(drop, allocation_body("other"), title="Another")
    assert_refused(await call(http, "POST", "/v1/ops/drops", ops, json=again), "conflict", drop)
    path = f"/v1/ops/drops/{drop}/allocations"
    assert_refused(await call(http, "POST", path, ops, json=allocation_body("a", 1)), "conflict", "'a'")
    assert await told(http, ops, drop) == before


BAD_PRESSES: dict[str, tuple[Json, str]] = {
    "quantity 0": ({"quantity": 0}, "quantity"),
    "quantity over the limit": ({"quantity": 3}, "at most 2"),
    "quantity beyond numbers": ({"quantity": 2**70}, "quantity"),
    "quantity as text": ({"quantity": "1"}, "quantity"),
    "an allocation without a name": ({"allocation": ""}, "allocation"),
    "an allocation of 64 letters": ({"allocation": "a" * 64}, "allocation"),
    "an allocation as number": ({"allocation": 1}, "allocation"),
    "a code as list": ({"fcode": []}, "fcode"),
}


@pytest.mark.parametrize("case", BAD_PRESSES)
async def test_a_bad_press_is_refused_and_takes_nothing(
    http: ClientSession, ops: dict[str, str], token: Token, drop: str, case: str
) -> None:
    """Also on the spelling of the path that goes through the router."""
    body, word = BAD_PRESSES[case]
    before = await told(http, ops, drop)
    for path in (f"/v1/drops/{drop}/reservations", f"/v1/drops/{drop}/reservations?x=1"):
        assert_refused(await call(http, "POST", path, token(1), json=body), "invalid_request", word)
    assert await told(http, ops, drop) == before


async def test_a_press_on_an_allocation_that_is_not_there_is_not_found(
    http: ClientSession, token: Token, drop: str
) -> None:
    """Whatever it is called."""
    for name in ("b", "A B", "a\tb", "a\0", "第二轮"):
        answer = await call(http, "POST", f"/v1/drops/{drop}/reservations", token(1), json={"allocation": name})
        assert_refused(answer, "not_found", "allocation")


@pytest.mark.parametrize("key", ["x" * 256, "", '"open', "two words", "schlüssel"])
async def test_an_idempotency_key_that_cannot_be_one_is_refused(
    http: ClientSession, token: Token, drop: str, key: str
) -> None:
    """At most 255 visible characters, bare or quoted."""
    path, headers = f"/v1/drops/{drop}/reservations", {**token(1), "Idempotency-Key": key}
    assert_refused(await call(http, "POST", path, headers, json={}), "invalid_request", "Idempotency-Key")


NAMES = ["never-was", "Upper", "a" * 64, "a%00b", "a%0A", "%FF", "a%2Fb", "..%2F..", "%F0%9F%9B%92", "%20"]


@pytest.mark.parametrize("name", NAMES)
async def test_an_unknown_drop_is_not_found(http: ClientSession, ops: dict[str, str], drop: str, name: str) -> None:
    """Whatever stands in the path in place of a drop or an allocation."""
    one = f"/v1/ops/drops/{name}"
    cases: list[tuple[str, str, Json | None]] = [
        ("GET", f"/v1/drops/{name}", None),
        ("POST", f"/v1/drops/{name}/reservations", {}),
        ("GET", one, None),
        ("GET", f"{one}/balance", None),
        ("PATCH", one, {"title": "x"}),
        ("POST", f"{one}/pause", None),
        ("POST", f"{one}/allocations", allocation_body("b")),
        ("PATCH", f"{one}/allocations/a", {"quantity": 1}),
        ("PATCH", f"/v1/ops/drops/{drop}/allocations/{name}", {"quantity": 1}),
        ("GET", f"/v1/me/eligibility?drop={name}", None),
        ("GET", f"/v1/reservations/{name}", None),
        ("DELETE", f"/v1/reservations/{name}", None),
    ]
    for method, path, body in cases:
        answer = await call(http, method, URL(path, encoded=True), ops, json=body)
        assert_refused(answer, "not_found")


LISTS = ["/v1/drops", "/v1/ops/drops", "/v1/ops/audit", "/v1/ops/points", "/v1/me/reservations"]
BAD_PAGES = [
    ("limit", "0"),
    ("limit", "501"),
    ("limit", "-1"),
    ("limit", "ten"),
    ("limit", "²"),
    ("limit", ""),
    ("limit", "9" * 5_000),
    ("after", "A cursor of another list"),
    ("after", "a\0b"),
    ("after", ""),
    ("after", "9" * 40 + "x" * 40),
]


@pytest.mark.parametrize("path", LISTS)
async def test_a_page_that_cannot_be_is_refused(http: ClientSession, ops: dict[str, str], path: str) -> None:
    """`limit` is from 1 to 500, `after` is a cursor of this very list."""
    for name, value in BAD_PAGES:
        assert_refused(await call(http, "GET", path, ops, params={name: value}), "invalid_request", f"`{name}`")


async def test_the_audit_log_of_what_cannot_be_is_refused(http: ClientSession, ops: dict[str, str]) -> None:
    """`subject` is an id, or `drop/allocation`."""
    for subject in ("A", "a/b/c", "", "a\0"):
        answer = await call(http, "GET", "/v1/ops/audit", ops, params={"subject": subject})
        assert_refused(answer, "invalid_request", "`subject`")


def _signed(secret: str, expires_in_s: float) -> str:
    return "Bearer " + mint(secret, member=1, role="ops", expires_at=time.time() + expires_in_s)


PLACES = {"allocation": "a", "reservation": "r", "batch": "1", "snapshot": "s", "rehearsal": "r"}
BAD_TOKENS: dict[str, Callable[[], Json]] = {
    "none": dict,
    "another scheme": lambda: {"Authorization": "Basic dXNlcjpwYXNz"},
    "not a token": lambda: {"Authorization": "Bearer x.y.z"},
    "another secret": lambda: {"Authorization": _signed(OTHER_SECRET, 60)},
    "expired": lambda: {"Authorization": _signed(SECRET, -60)},
}


@pytest.mark.parametrize("case", BAD_TOKENS)
async def test_a_bad_token_is_refused_in_every_call_that_needs_one(
    http: ClientSession, ops: dict[str, str], drop: str, case: str
) -> None:
    """401 with `WWW-Authenticate`, before the body is looked at."""
    headers, before = BAD_TOKENS[case](), await told(http, ops, drop)
    calls = (*ops_calls.CALLS, *console_calls.CALLS, *api.CALLS)
    paths = [(c.method, c.path) for c in calls if c.access != "public" or c is api.RESERVE]
    assert len(paths) > 30
    for method, path in paths:
        answer = await call(http, method, path.format(drop=drop, **PLACES), headers, data=b"{")
        assert_refused(answer, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert await told(http, ops, drop) == before


@pytest.mark.parametrize("role", [None, "payments"])
async def test_only_operators_may_operate(
    http: ClientSession, ops: dict[str, str], token: Token, drop: str, role: str | None
) -> None:
    """A shopper who calls any of the operators' calls is refused, and nothing happens."""
    before = await told(http, ops, drop)
    for operation in (*ops_calls.CALLS, *console_calls.CALLS):
        path = operation.path.format(drop=drop, **PLACES)
        assert_refused(await call(http, operation.method, path, token(1, role=role), data=b"{}"), "forbidden", "`ops`")
    assert await told(http, ops, drop) == before


async def test_an_unknown_address_or_method_is_answered_in_the_same_form(http: ClientSession) -> None:
    """404 and 405 are problem documents, too; 405 says what is allowed."""
    assert_refused(await call(http, "GET", "/v1/nothing"), "not_found", "/openapi.json")
    answer = await call(http, "DELETE", "/v1/drops")
    assert_refused(answer, "method_not_allowed", "DELETE", "GET")
    assert "GET" in answer.headers["allow"]
