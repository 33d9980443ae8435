"""F-codes over HTTP: minted, exported, shown, revoked by operators; typed by members, honoured once, never guessed."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession, TCPConnector, web

from fcodes import Code, Keys, read
from flashsale import embedded
from flashsale.settings import Settings
from flashsale.web.app import Runner, make_runner
from tests.support import PATIENT, unique
from tests.web.calls import Answer, Json, allocation_body, assert_refused, at, call, drop_body
from tests.web.conftest import FCODE_KEY, SECRET, Token

KEYS = Keys.parse(FCODE_KEY)
OPERATOR = 900


@pytest.fixture
def ops(token: Token) -> Json:
    return token(OPERATOR, role="ops")


async def lane(http: ClientSession, ops: Json, quantity: int = 20) -> str:
    """A drop with a public allocation and one for F-codes."""
    body = drop_body(
        unique("fcodes"),
        allocation_body("public", 5),
        allocation_body("vip", quantity, access={"kind": "fcode"}),
    )
    assert (await call(http, "POST", "/v1/ops/drops", ops, json=body)).status == 201
    return str(body["id"])


async def mint(http: ClientSession, ops: Json, drop: str, **body: object) -> Json:
    answer = await call(http, "POST", f"/v1/ops/drops/{drop}/allocations/vip/fcodes", ops, json=body)
    assert answer.status == 201, answer
    return answer.body


async def bind(http: ClientSession, ops: Json, drop: str, csv: str, **query: str) -> Answer:
    headers = ops | {"Content-Type": "text/csv"}
    path = f"/v1/ops/drops/{drop}/allocations/vip/fcodes"
    return await call(http, "POST", path, headers, data=csv.encode(), params=query)


async def exported(http: ClientSession, ops: Json, batch: str) -> list[str]:
    async with http.get(f"/v1/ops/fcodes/{batch}.csv", headers=ops) as answer:
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"
        return (await answer.text()).splitlines()


async def press(http: ClientSession, headers: Json, drop: str, fcode: str, **body: object) -> Answer:
    return await call(http, "POST", f"/v1/drops/{drop}/reservations", headers, json={"fcode": fcode, **body})


async def test_from_mint_to_order(http: ClientSession, ops: Json, token: Token) -> None:
    """The operator's way and the member's: spend, spend again, cancel, spend again, confirm; and what each sees."""
    drop = await lane(http, ops)
    batch = await mint(http, ops, drop, count=3, note="campus club", expires_at=at(3600))
    assert (batch["count"], batch["bound"], batch["drop"], batch["note"]) == (3, False, drop, "campus club")
    header, *codes = await exported(http, ops, batch["batch"])
    assert (header, len(set(codes))) == ("code", 3)
    assert all(re.fullmatch("[0-9A-HJKMNP-TV-Z]{4}(-[0-9A-HJKMNP-TV-Z]{4}){4}", code) for code in codes)
    won = await press(http, token(1), drop, codes[0])
    assert (won.status, won.body["allocation"]) == (201, "vip")
    again = await press(http, token(1), drop, codes[0].lower().replace("-", " "))
    assert (again.status, again.body) == (200, won.body)
    assert_refused(await press(http, token(2), drop, codes[0]), "fcode_spent")
    await call(http, "DELETE", f"/v1/reservations/{won.body['id']}", token(1))

    async def free_again() -> Answer:
        async with asyncio.timeout(60):
            while (answer := await press(http, token(2), drop, codes[0])).status != 201:
                await asyncio.sleep(0.02)
        return answer

    won = await free_again()
    order = (await call(http, "POST", f"/v1/reservations/{won.body['id']}/confirm", token(2))).body["order"]
    assert order
    seen = (await call(http, "GET", f"/v1/ops/fcodes/{batch['batch']}", ops)).body
    assert seen["counts"] == {"unspent": 2, "held": 0, "confirmed": 1, "returned": 0, "revoked": 0}
    assert [(s["serial"], s["member"], s["state"]) for s in seen["spent"]] == [(0, 2, "confirmed")]
    listed = (await call(http, "GET", "/v1/ops/fcodes", ops, params={"limit": "1"})).body
    assert listed["items"][0]["batch"] == batch["batch"]
    revoked = await call(
        http,
        "POST",
        f"/v1/ops/fcodes/{batch['batch']}/revoke",
        ops,
        json={"reason": "stolen", "to_allocation": "public"},
    )
    assert (revoked.body["revoked"], revoked.body["counts"]["revoked"]) == (2, 2)
    assert_refused(await press(http, token(3), drop, codes[1]), "fcode_invalid")
    balance = (await call(http, "GET", f"/v1/ops/drops/{drop}/balance", ops)).body
    assert balance["balanced"]
    assert {a["id"]: a["available"] for a in balance["allocations"]} == {"public": 7, "vip": 17}
    actions = [a["action"] for a in (await call(http, "GET", f"/v1/ops/audit?subject={drop}", ops)).body["items"]]
    assert actions == ["fcodes.revoke", "fcodes.export", "fcodes.mint", "drop.create"]


async def test_bound_codes_are_shown_to_their_members(http: ClientSession, ops: Json, token: Token) -> None:
    drop = await lane(http, ops)
    made = await bind(http, ops, drop, 'member_id,note\n51,"old, dear friend"\n52,\n', note="friends")
    assert (made.status, made.body["count"], made.body["bound"]) == (201, 2, True)
    header, first, second = await exported(http, ops, made.body["batch"])
    assert header == "code,member_id,note"
    code = first.split(",")[0]
    assert first == f'{code},51,"old, dear friend"'
    assert second.endswith(",52,")
    mine = (await call(http, "GET", "/v1/me/fcodes", token(51))).body["items"]
    assert [(m["code"], m["drop"], m["state"], m["note"]) for m in mine] == [
        (code, drop, "unspent", "old, dear friend")
    ]
    assert_refused(await press(http, token(52), drop, code), "fcode_invalid")
    won = await press(http, token(51), drop, code)
    assert won.status == 201
    mine = (await call(http, "GET", "/v1/me/fcodes", token(51))).body["items"]
    assert [(m["state"], m["reservation"]) for m in mine] == [("held", won.body["id"])]
    assert (await call(http, "GET", "/v1/me/fcodes", token(53))).body == {"items": [], "next": None}


async def test_however_it_is_typed(http: ClientSession, ops: Json, token: Token) -> None:
    """Lower case, spaces, no dashes, look-alikes, full-width forms: the same code."""
    drop = await lane(http, ops)
    batch = await mint(http, ops, drop, count=1)
    [code] = (await exported(http, ops, batch["batch"]))[1:]
    wide = "".join(chr(ord(c) + 0xFEE0) for c in code)
    like = code.replace("0", "O").replace("1", "l")
    first = await press(http, token(61), drop, wide)
    assert first.status == 201
    for typed in (code.lower(), code.replace("-", ""), f"  {code.replace('-', ' ')} ", like, wide, wide.lower()):
        answer = await press(http, token(61), drop, typed)
        assert (answer.status, answer.body) == (200, first.body), typed


def forged(code: str, change: int) -> str:
    """A well-formed code that nobody made."""
    from fcodes import spell  # noqa: PLC0415 -- used here alone

    found = read(code, KEYS)
    assert isinstance(found, Code)
    return spell(Code(found.batch, found.serial, found.version, found.mac ^ change))


async def test_what_is_no_code_and_what_is_not_ours_sound_the_same(
    http: ClientSession, ops: Json, token: Token
) -> None:
    """Typos do not count as guesses; forged ones do, and after five a member waits for the rest of a minute."""
    drop = await lane(http, ops)
    batch = await mint(http, ops, drop, count=2)
    good, other = (await exported(http, ops, batch["batch"]))[1:]
    swapped = next(good[:i] + good[i + 1] + good[i] + good[i + 2 :] for i in range(18) if "-" not in good[i : i + 2]
                   and good[i] != good[i + 1])  # fmt: skip
    bodies = set()
    for typo in ("", good[:-1], swapped, "x" * 10_000, "你好", good + "0"):
        answer = await press(http, token(71), drop, typo)
        assert_refused(answer, "fcode_invalid")
        bodies.add(answer.body["detail"])
    for change in range(1, 6):
        answer = await press(http, token(71), drop, forged(good, change))
        assert_refused(answer, "fcode_invalid")
        bodies.add(answer.body["detail"])
    assert len(bodies) == 1, "no oracle"
    limited = await press(http, token(71), drop, good)
    assert_refused(limited, "rate_limited")
    assert 1 <= int(limited.headers["retry-after"]) <= 60
    assert (await press(http, token(71), drop, good)).headers.get("connection") != "close"
    assert (await press(http, token(72), drop, good)).status == 201, "another member behind the same address"
    without = await call(http, "POST", f"/v1/drops/{drop}/reservations", token(71), json={"allocation": "public"})
    assert without.status == 201, "who guessed may still buy without a code"
    assert_refused(await press(http, token(73), drop, other, quantity=2), "invalid_request", "quantity")


async def test_an_address_that_guesses_does_not_lock_out_who_sits_behind_it(
    shipped: ClientSession, ops: Json, token: Token
) -> None:
    """Many members, one address: guesses are answered 429 in the end, a genuine code is honoured all the same."""
    drop = await lane(shipped, ops)
    batch = await mint(shipped, ops, drop, count=1)
    [good] = (await exported(shipped, ops, batch["batch"]))[1:]
    codes = [(await press(shipped, token(m), drop, forged(good, m))).body["code"] for m in range(100, 130)]
    assert codes == ["fcode_invalid"] * 20 + ["rate_limited"] * 10
    assert (await press(shipped, token(200), drop, good)).status == 201


async def test_other_drops_windows_and_states_come_first(http: ClientSession, ops: Json, token: Token) -> None:
    drop = await lane(http, ops)
    batch = await mint(http, ops, drop, count=1)
    [good] = (await exported(http, ops, batch["batch"]))[1:]
    bad = forged(good, 1)
    assert_refused(await press(http, token(81), "no-such-drop", good), "not_found")
    assert_refused(await press(http, token(81), drop, bad, allocation="none"), "not_found")
    assert_refused(await press(http, token(82), drop, good, allocation="public"), "fcode_invalid")
    elsewhere = await lane(http, ops)
    assert_refused(await press(http, token(82), elsewhere, good), "fcode_invalid")
    await call(http, "POST", f"/v1/ops/drops/{drop}/pause", ops)
    for code in (good, bad):
        assert_refused(await press(http, token(81), drop, code), "paused")
    await call(http, "POST", f"/v1/ops/drops/{drop}/close", ops)
    for code in (good, bad):
        assert_refused(await press(http, token(81), drop, code), "closed")


async def test_bad_input_of_operators(http: ClientSession, ops: Json, token: Token) -> None:
    """Each with a sentence, and nothing is minted."""
    drop = await lane(http, ops, 5)
    path = f"/v1/ops/drops/{drop}/allocations"
    wrong: list[tuple[str, Any, str]] = [
        ("vip", {"count": 0}, "invalid_request"),
        ("vip", {"count": 5_000_000}, "invalid_request"),
        ("vip", {"count": 1, "expires_at": at(-1)}, "invalid_request"),
        ("vip", {"count": 6}, "conflict"),
        ("public", {"count": 1}, "conflict"),
        ("none", {"count": 1}, "not_found"),
    ]
    for allocation, body, code in wrong:
        assert_refused(await call(http, "POST", f"{path}/{allocation}/fcodes", ops, json=body), code)
    assert_refused(await call(http, "POST", f"{path}/vip/fcodes", token(1), json={"count": 1}), "forbidden")
    for csv, line in (("", 1), ("member\n1\n", 1), ("member_id\n", 2), ("member_id\nx\n", 2), ("member_id\n1\n0\n", 3)):
        answer = await bind(http, ops, drop, csv)
        assert_refused(answer, "invalid_request", f"Line {line}")
    assert_refused(await bind(http, ops, drop, "member_id\n" + "7\n" * 6), "conflict", "5 units")
    assert_refused(await bind(http, ops, drop, "member_id\n7\n", expires_at="soon"), "invalid_request", "expires_at")
    for batch in ("0", "999999", "x", "99999999"):
        assert_refused(await call(http, "GET", f"/v1/ops/fcodes/{batch}", ops), "not_found")
        assert_refused(await call(http, "GET", f"/v1/ops/fcodes/{batch}.csv", ops), "not_found")
    made = await mint(http, ops, drop, count=5)
    revoke = f"/v1/ops/fcodes/{made['batch']}/revoke"
    for body, code in (
        ({}, "invalid_request"),
        ({"reason": "x", "serials": []}, "invalid_request"),
        ({"reason": "x", "serials": [5]}, "invalid_request"),
        ({"reason": "x", "to_allocation": "none"}, "not_found"),
    ):
        assert_refused(await call(http, "POST", revoke, ops, json=body), code)
    assert (await call(http, "GET", f"/v1/ops/fcodes/{made['batch']}", ops)).body["counts"]["unspent"] == 5


@pytest.fixture(scope="module")
async def shipped(urls: embedded.Servers) -> AsyncIterator[ClientSession]:
    """A service with the limits as shipped, called from an address that no other test comes from."""
    async for session in served(urls, "127.0.0.2", fcode_keys=FCODE_KEY):
        yield session


async def served(urls: embedded.Servers, caller: str, **more: Any) -> AsyncIterator[ClientSession]:  # noqa: ANN401 -- settings
    settings = Settings(redis_url=urls.redis_url, database_url=urls.database_url, jwt_secret=SECRET, **(PATIENT | more))
    runner: Runner = await make_runner(settings)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    connector = TCPConnector(local_addr=(caller, 0))
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}", connector=connector) as session:
        yield session
    await runner.cleanup()


async def test_without_a_key_all_else_works(urls: embedded.Servers, ops: Json, token: Token) -> None:
    async for http in served(urls, "127.0.0.3"):
        drop = await lane(http, ops)
        answer = await call(http, "POST", f"/v1/ops/drops/{drop}/allocations/vip/fcodes", ops, json={"count": 1})
        assert_refused(answer, "conflict", "FLASHSALE_FCODE_KEYS", "fcodes keygen")
        assert_refused(await press(http, token(91), drop, "0000-0000-0000-0000-0000"), "fcode_invalid")
        assert (await call(http, "POST", f"/v1/drops/{drop}/reservations", token(91), json={})).status == 201


async def test_no_code_is_logged_or_counted(
    http: ClientSession, ops: Json, token: Token, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not in a log line, not in the metrics, not in an answer's problem document."""
    drop = await lane(http, ops)
    batch = await mint(http, ops, drop, count=2)
    codes = (await exported(http, ops, batch["batch"]))[1:]
    answers = [
        await press(http, token(95), drop, codes[0]),
        await press(http, token(96), drop, codes[0]),
        await press(http, token(96), drop, forged(codes[1], 1)),
        await call(http, "GET", f"/v1/reservations/{codes[0]}", token(95)),
    ]
    metrics = await (await http.get("/metrics")).text()
    said = capfd.readouterr()
    shown = "\n".join([said.out, said.err, metrics, *(str(a.body) for a in answers[:3])])
    assert drop in said.out + said.err
    for code in (*codes, forged(codes[1], 1)):
        for text in (code, code.replace("-", "")):
            assert text not in shown
