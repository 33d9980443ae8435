"""The switch that stops F-codes, and cards to print."""

import asyncio
import re
from typing import Any

import pytest
from aiohttp import ClientSession

from flashsale.web.app import Runner
from tests.support import unique
from tests.web.calls import Answer, Json, allocation_body, assert_refused, call, drop_body
from tests.web.conftest import Token

SWITCH = "/v1/ops/fcode-switch"
STOP = {"stopped": True, "reason": "codes were seen for sale"}
START = {"stopped": False, "reason": "all clear"}


@pytest.fixture(scope="session")
def ops(token: Token) -> dict[str, str]:
    """An operator's headers."""
    return token(903, role="ops")


async def lane(http: ClientSession, ops: dict[str, str], count: int = 3, **other: Any) -> tuple[str, list[str], str]:  # noqa: ANN401
    """A drop with a lane for codes and one for everyone; its id, its codes, their batch."""
    body = drop_body(unique("codes"), allocation_body("lane", 5, access={"kind": "fcode"}), allocation_body("a", 5))
    assert (await call(http, "POST", "/v1/ops/drops", ops, json={**body, **other})).status == 201
    path = f"/v1/ops/drops/{body['id']}/allocations/lane/fcodes"
    batch = (await call(http, "POST", path, ops, json={"count": count, "note": "campus club"})).body["batch"]
    async with http.get(f"/v1/ops/fcodes/{batch}.csv", headers=ops) as answer:
        return body["id"], (await answer.text()).split()[1:], batch


async def press(http: ClientSession, headers: dict[str, str], drop: str, **body: object) -> Answer:
    """One press of the button."""
    return await call(http, "POST", f"/v1/drops/{drop}/reservations", headers, json=body)


async def states(http: ClientSession, drop: str) -> list[str]:
    """What the page shows of each allocation."""
    return [a["state"] for a in (await call(http, "GET", f"/v1/drops/{drop}")).body["allocations"]]


async def test_a_stopped_drop_honours_no_code_and_loses_none(
    http: ClientSession, ops: dict[str, str], token: Token
) -> None:
    """`paused`, with Retry-After, in every form of the press; others buy on; started again, each code is good (I6)."""
    drop, codes, batch = await lane(http, ops)
    path = f"/v1/ops/drops/{drop}/fcode-switch"
    held = await press(http, token(1), drop, fcode=codes[0])
    assert held.status == 201
    stopped = await call(http, "POST", path, ops, json=STOP)
    assert (stopped.status, stopped.body["fcodes_stopped"]) == (200, True)
    assert await states(http, drop) == ["paused", "open"]
    assert_refused(await press(http, token(2), drop, fcode=codes[1]), "paused")
    assert_refused(await press(http, token(2), drop, fcode=codes[1], allocation="lane"), "paused")
    assert_refused(await press(http, token(2), drop, fcode="0000-0000-0000-0000-0000"), "fcode_invalid")
    assert (await press(http, token(1), drop, fcode=codes[0])).body["id"] == held.body["id"]
    assert (await call(http, "POST", f"/v1/reservations/{held.body['id']}/confirm", token(1))).status == 200
    assert (await press(http, token(3), drop)).status == 201
    assert drop in (await call(http, "GET", SWITCH, ops)).body["drops"]
    shown = (await call(http, "GET", f"/v1/ops/fcodes/{batch}", ops)).body
    assert shown["counts"] == {"unspent": 2, "held": 0, "confirmed": 1, "returned": 0, "revoked": 0}

    started = await call(http, "POST", path, ops, json=START)
    assert (started.body["fcodes_stopped"], await states(http, drop)) == (False, ["open", "open"])
    assert (await press(http, token(2), drop, fcode=codes[1])).status == 201
    assert_refused(await press(http, token(4), drop, fcode=codes[0]), "fcode_spent")
    assert drop not in (await call(http, "GET", SWITCH, ops)).body["drops"]
    lines = (await call(http, "GET", "/v1/ops/audit", ops, params={"subject": drop, "limit": 2})).body["items"]
    assert [(line["action"], line["detail"]) for line in lines] == [
        ("fcodes.start", {"reason": "all clear"}),
        ("fcodes.stop", {"reason": "codes were seen for sale"}),
    ]
    assert (await call(http, "GET", f"/v1/ops/drops/{drop}/balance", ops)).body["balanced"] is True


async def test_one_switch_stops_the_codes_of_all_drops(http: ClientSession, ops: dict[str, str], token: Token) -> None:
    """At once, striped ones and those set up later, too; a drop's own switch stays off when all are started again."""
    one, ones, _ = await lane(http, ops)
    striped, theirs, _ = await lane(http, ops, stripes=3)
    own, _, _ = await lane(http, ops)
    await call(http, "POST", f"/v1/ops/drops/{own}/fcode-switch", ops, json=STOP)
    try:
        stopped = await call(http, "POST", SWITCH, ops, json=STOP)
        assert (stopped.status, stopped.body["stopped"], stopped.body["reason"]) == (200, True, STOP["reason"])
        assert stopped.body["by"] == "member:903"
        later, fresh, _ = await lane(http, ops)
        for drop, code in ((one, ones[0]), (striped, theirs[0]), (later, fresh[0])):
            assert_refused(await press(http, token(5), drop, fcode=code), "paused")
            assert await states(http, drop) == ["paused", "open"]
        [line] = (await call(http, "GET", "/v1/ops/audit", ops, params={"subject": "fcodes", "limit": 1})).body["items"]
        assert (line["action"], line["detail"]) == ("fcodes.stop", {"reason": STOP["reason"], "all": True})
        assert (await call(http, "POST", SWITCH, ops, json=STOP)).body["stopped"] is True
    finally:
        started = await call(http, "POST", SWITCH, ops, json=START)
    assert (started.body["stopped"], own in started.body["drops"]) == (False, True)
    for drop, code in ((one, ones[0]), (striped, theirs[0]), (later, fresh[0])):
        assert (await press(http, token(5), drop, fcode=code)).status == 201
    assert await states(http, own) == ["paused", "open"]


async def test_no_grant_of_before_comes_through_after_the_stop(
    http: ClientSession, ops: dict[str, str], token: Token
) -> None:
    """From the answer on (I14): of a rush with codes around the stop, who presses after it is refused."""
    drop, codes, _ = await lane(http, ops, 5)
    rush = [asyncio.create_task(press(http, token(10 + n), drop, fcode=code)) for n, code in enumerate(codes)]
    await call(http, "POST", f"/v1/ops/drops/{drop}/fcode-switch", ops, json=STOP)
    for n, code in enumerate(codes):
        assert_refused(await press(http, token(100 + n), drop, fcode=code), "paused")
    answers = await asyncio.gather(*rush)
    assert {a.status for a in answers} <= {201, 503}
    await call(http, "POST", f"/v1/ops/drops/{drop}/fcode-switch", ops, json=START)
    for n, code in enumerate(codes):
        again = await press(http, token(10 + n), drop, fcode=code)
        assert again.status == (200 if answers[n].status == 201 else 201)


async def test_a_drop_that_the_act_did_not_see_is_armed_anew(
    http: ClientSession, runner: Runner, ops: dict[str, str], token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was set up at that very moment: found by looking again after the commit."""
    drop, codes, _ = await lane(http, ops)
    store = runner._context.ledger.fcodes
    real = type(store).switch

    async def blind(self: Any, **kwargs: Any) -> list[str]:  # noqa: ANN401
        before = await runner._context.ledger.drops.get(drop)
        told = await real(self, **kwargs)
        assert before is not None
        pool = runner._context.ledger._pools[0]
        await pool.execute("UPDATE drops SET epoch = $2 WHERE id = $1", drop, before.epoch)
        return [name for name in told if name != drop]

    monkeypatch.setattr(type(store), "switch", blind)
    try:
        await call(http, "POST", SWITCH, ops, json=STOP)
        assert_refused(await press(http, token(6), drop, fcode=codes[0]), "paused")
    finally:
        monkeypatch.undo()
        await call(http, "POST", SWITCH, ops, json=START)


async def test_cards_of_a_batch_can_be_printed(http: ClientSession, ops: dict[str, str], token: Token) -> None:
    """Each code has its card; the sheet runs and loads nothing; the audit log has it."""
    drop, codes, batch = await lane(http, ops, 3)
    path = f"/v1/ops/fcodes/{batch}/cards"
    async with http.get(path, headers=ops, params={"reason": "for the fair"}) as answer:
        page = await answer.text()
        assert (answer.status, answer.content_type) == (200, "text/html")
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'; style-src 'unsafe-inline'"
        assert answer.headers["Cache-Control"] == "no-store"
    assert re.findall(r'<p class="code">([^<]+)</p>', page) == codes
    assert page.count("campus club") == 3
    assert "<script" not in page
    [line] = (await call(http, "GET", "/v1/ops/audit", ops, params={"subject": drop, "limit": 1})).body["items"]
    assert (line["action"], line["detail"]) == ("fcodes.export", {"batch": batch, "reason": "for the fair"})
    assert_refused(await call(http, "GET", path, token(1)), "forbidden", "ops")
    assert_refused(await call(http, "GET", "/v1/ops/fcodes/999999/cards", ops), "not_found")


async def test_cards_of_members_own_codes_name_them(http: ClientSession, ops: dict[str, str]) -> None:
    """Each with its member and its note."""
    body = drop_body(unique("codes"), allocation_body("lane", 5, access={"kind": "fcode"}))
    await call(http, "POST", "/v1/ops/drops", ops, json=body)
    minted = await call(
        http,
        "POST",
        f"/v1/ops/drops/{body['id']}/allocations/lane/fcodes",
        {**ops, "Content-Type": "text/csv"},
        data=b'member_id,note\n41,"<b>, bold"\n42,\n',
    )
    async with http.get(f"/v1/ops/fcodes/{minted.body['batch']}/cards", headers=ops) as answer:
        page = await answer.text()
    assert re.findall(r"仅限会员 <b>(\d+)</b>", page) == ["41", "42"]
    assert "&lt;b&gt;, bold" in page


@pytest.mark.parametrize(
    "body", [{}, {"stopped": True}, {"stopped": 1, "reason": "x"}, {"stopped": True, "reason": ""}]
)
async def test_a_switch_needs_its_reason(http: ClientSession, ops: dict[str, str], token: Token, body: Json) -> None:
    """And the role."""
    assert_refused(await call(http, "POST", SWITCH, ops, json=body), "invalid_request")
    assert_refused(await call(http, "POST", SWITCH, token(1), json=STOP), "forbidden", "ops")
    assert_refused(await call(http, "POST", "/v1/ops/drops/none/fcode-switch", ops, json=STOP), "not_found", "'none'")
