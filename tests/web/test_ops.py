"""The operators' calls, each with its good answer."""

from datetime import datetime, timedelta

import pytest
from aiohttp import ClientSession

from flashsale.settings import Settings
from flashsale.web.app import Runner
from tests.support import unique
from tests.web.calls import Answer, Json, allocation_body, assert_refused, at, call, drop_body
from tests.web.conftest import Token

OPERATOR = 900
CUTOFF = "2011-08-16T00:00:00+08:00"


@pytest.fixture(scope="session")
def ops(token: Token) -> dict[str, str]:
    """An operator's headers."""
    return token(OPERATOR, role="ops")


async def create(http: ClientSession, ops: dict[str, str], *allocations: Json, **other: object) -> Json:
    """A new drop, as it was answered."""
    answer = await call(http, "POST", "/v1/ops/drops", ops, json=drop_body(unique("ops"), *allocations, **other))
    assert answer.status == 201, answer
    return answer.body


async def press(http: ClientSession, headers: dict[str, str], drop_id: str, **body: object) -> Answer:
    """One press of the button."""
    return await call(http, "POST", f"/v1/drops/{drop_id}/reservations", headers, json=body)


async def audit_of(http: ClientSession, ops: dict[str, str], subject: str) -> list[Json]:
    """The audit lines of one subject, newest first."""
    answer = await call(http, "GET", "/v1/ops/audit", ops, params={"subject": subject})
    assert answer.status == 200, answer
    items: list[Json] = answer.body["items"]
    return items


async def test_a_drop_that_was_set_up_is_answered_whole_and_for_sale(
    http: ClientSession, ops: dict[str, str], token: Token
) -> None:
    """POST /v1/ops/drops answers 201 with everything an operator sees; members can buy at once."""
    body = drop_body(
        unique("ops"),
        allocation_body("now", 3, channel="own-site"),
        allocation_body("later", 5, opens_at=at(600), access={"kind": "tier", "at_least": 2}),
        list_price={"amount": 199_900, "currency": "CNY"},
        per_member=2,
        hold_seconds=60,
    )
    answer = await call(http, "POST", "/v1/ops/drops", ops, json=body)
    assert answer.status == 201
    assert answer.headers["location"] == f"/v1/ops/drops/{body['id']}"
    told = answer.body
    for field in ("id", "title", "price", "list_price", "per_member", "hold_seconds"):
        assert told[field] == body[field]
    assert (told["paused"], told["closed"]) == (False, False)
    now, later = told["allocations"]
    assert (now["state"], now["quantity"], now["taken"], now["available"]) == ("open", 3, 0, 3)
    assert (now["access"], now["channel"]) == ({"kind": "everyone"}, "own-site")
    assert (later["state"], later["access"], later["channel"]) == ("upcoming", {"kind": "tier", "at_least": 2}, None)
    assert datetime.fromisoformat(later["opens_at"]) == datetime.fromisoformat(body["allocations"][1]["opens_at"])

    assert (await press(http, token(1), body["id"], allocation="now")).status == 201


async def test_an_operator_sees_what_is_taken_and_what_is_left(
    http: ClientSession, ops: dict[str, str], token: Token
) -> None:
    """GET /v1/ops/drops/{drop}: `taken` is the ledger's count, `available` the gate's; all taken is sold out."""
    drop = await create(http, ops, allocation_body("a", 2))
    path = f"/v1/ops/drops/{drop['id']}"
    for member in (1, 2):
        assert (await press(http, token(member), drop["id"])).status == 201
    balance = await call(http, "GET", f"{path}/balance", ops)
    assert balance.body == {
        "drop": drop["id"],
        "balanced": True,
        "allocations": [
            {"id": "a", "quantity": 2, "available": 0, "pending": 0, "held": 2, "confirmed": 0, "balanced": True}
        ],
    }
    more = await call(http, "PATCH", f"{path}/allocations/a", ops, json={"quantity": 3})
    assert [(a["state"], a["taken"], a["available"]) for a in more.body["allocations"]] == [("open", 2, 1)]
    less = await call(http, "PATCH", f"{path}/allocations/a", ops, json={"quantity": 2})
    assert [(a["state"], a["taken"], a["available"]) for a in less.body["allocations"]] == [("sold_out", 2, 0)]
    assert (await call(http, "GET", path, ops)).body["allocations"] == less.body["allocations"]
    assert_refused(await press(http, token(3), drop["id"]), "sold_out")


async def test_lists_come_in_pages_that_neither_repeat_nor_leave_out(http: ClientSession, ops: dict[str, str]) -> None:
    """GET /v1/ops/drops pages by `after` and `limit`; the last page's `next` is null, also when it is full."""
    mine = sorted([(await create(http, ops))["id"] for _ in range(4)])
    everything = await call(http, "GET", "/v1/ops/drops", ops, params={"limit": 500})
    ids = [item["id"] for item in everything.body["items"]]
    assert everything.body["next"] is None
    assert set(mine) <= set(ids)
    paged: list[str] = []
    after: Json = {}
    while True:
        page = (await call(http, "GET", "/v1/ops/drops", ops, params={"limit": 3, **after})).body
        assert 1 <= len(page["items"]) <= 3
        paged += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        assert len(page["items"]) == 3
        after = {"after": page["next"]}
    assert paged == ids
    exactly = await call(http, "GET", "/v1/ops/drops", ops, params={"limit": len(ids)})
    assert exactly.body["next"] is None


async def test_a_drop_can_be_changed_while_it_runs(http: ClientSession, ops: dict[str, str], token: Token) -> None:
    """Title, windows, channel and one more allocation: the answer shows it, and presses feel it."""
    drop = await create(http, ops, allocation_body("a", 1, channel="own-site"))
    path = f"/v1/ops/drops/{drop['id']}"
    title = "Second round 第二轮"
    assert (await call(http, "PATCH", path, ops, json={"title": title})).body["title"] == title
    assert (await call(http, "GET", f"/v1/drops/{drop['id']}")).body["title"] == title

    added = await call(http, "POST", f"{path}/allocations", ops, json=allocation_body("b", 2, opens_at=at(900)))
    assert added.status == 201
    assert [(a["id"], a["state"]) for a in added.body["allocations"]] == [("a", "open"), ("b", "upcoming")]
    assert_refused(await press(http, token(1), drop["id"], allocation="b"), "not_open")
    opened = await call(http, "PATCH", f"{path}/allocations/b", ops, json={"opens_at": at(-1), "channel": "carrier"})
    assert [(a["state"], a["channel"]) for a in opened.body["allocations"]] == [
        ("open", "own-site"),
        ("open", "carrier"),
    ]
    assert (await press(http, token(1), drop["id"], allocation="b")).status == 201
    ended = await call(http, "PATCH", f"{path}/allocations/a", ops, json={"closes_at": at(-1), "channel": None})
    assert [(a["state"], a["channel"]) for a in ended.body["allocations"]] == [("closed", None), ("open", "carrier")]
    assert_refused(await press(http, token(2), drop["id"], allocation="a"), "closed")


async def test_pause_resume_and_close_hold_from_their_answer_on(
    http: ClientSession, ops: dict[str, str], token: Token
) -> None:
    """After each answer the very next press feels it (I14), and the shopper's view says the same word."""
    drop = await create(http, ops, allocation_body("a", 3), allocation_body("b", 3, opens_at=at(600)))
    path = f"/v1/ops/drops/{drop['id']}"

    async def state() -> list[str]:
        public = await call(http, "GET", f"/v1/drops/{drop['id']}")
        return [a["state"] for a in public.body["allocations"]]

    paused = await call(http, "POST", f"{path}/pause", ops, json={"reason": "price typed wrong"})
    assert (paused.status, paused.body["paused"], await state()) == (200, True, ["paused", "paused"])
    assert_refused(await press(http, token(1), drop["id"], allocation="a"), "paused")
    again = await call(http, "POST", f"{path}/pause", ops)
    assert (again.status, again.body["paused"]) == (200, True)

    resumed = await call(http, "POST", f"{path}/resume", ops)
    assert (resumed.status, resumed.body["paused"], await state()) == (200, False, ["open", "upcoming"])
    assert (await press(http, token(1), drop["id"], allocation="a")).status == 201

    closed = await call(http, "POST", f"{path}/close", ops, json={"reason": None})
    assert (closed.status, closed.body["closed"], await state()) == (200, True, ["closed", "closed"])
    assert_refused(await press(http, token(2), drop["id"], allocation="a"), "closed")
    assert (await call(http, "POST", f"{path}/close", ops)).status == 200
    for act in ("pause", "resume"):
        assert_refused(await call(http, "POST", f"{path}/{act}", ops), "conflict", "closed")
    assert (await call(http, "GET", f"{path}/balance", ops)).body["balanced"] is True


async def test_every_act_is_in_the_audit_log_with_who_what_and_why(http: ClientSession, ops: dict[str, str]) -> None:
    """I15: one line per act, newest first, under the operator's member id, with what was asked for."""
    drop = await create(http, ops)
    path = f"/v1/ops/drops/{drop['id']}"
    await call(http, "PATCH", path, ops, json={"title": "Other"})
    await call(http, "POST", f"{path}/allocations", ops, json=allocation_body("b", 4))
    await call(http, "PATCH", f"{path}/allocations/b", ops, json={"quantity": 6})
    await call(http, "POST", f"{path}/pause", ops, json={"reason": "stock count"})
    await call(http, "POST", f"{path}/resume", ops)
    await call(http, "POST", f"{path}/close", ops)
    lines = await audit_of(http, ops, drop["id"])
    assert [(line["action"], line["subject"]) for line in lines] == [
        ("drop.close", drop["id"]),
        ("drop.resume", drop["id"]),
        ("drop.pause", drop["id"]),
        ("allocation.edit", f"{drop['id']}/b"),
        ("allocation.create", f"{drop['id']}/b"),
        ("drop.edit", drop["id"]),
        ("drop.create", drop["id"]),
    ]
    assert {line["actor"] for line in lines} == {f"member:{OPERATOR}"}
    by_action = {line["action"]: line["detail"] for line in lines}
    assert by_action["drop.pause"] == {"reason": "stock count"}
    assert by_action["allocation.edit"] == {"quantity": 6}
    assert by_action["drop.edit"] == {"title": "Other"}
    assert by_action["drop.create"]["allocations"][0]["quantity"] == 10
    assert [line["action"] for line in await audit_of(http, ops, f"{drop['id']}/b")] == [
        "allocation.edit",
        "allocation.create",
    ]
    times = [datetime.fromisoformat(line["at"]) for line in lines]
    assert times == sorted(times, reverse=True)

    first = await call(http, "GET", "/v1/ops/audit", ops, params={"subject": drop["id"], "limit": 4})
    rest = await call(http, "GET", "/v1/ops/audit", ops, params={"subject": drop["id"], "after": first.body["next"]})
    assert first.body["items"] + rest.body["items"] == lines
    assert rest.body["next"] is None


async def test_a_points_file_becomes_a_snapshot_that_decides_who_may_buy(
    http: ClientSession, ops: dict[str, str], token: Token
) -> None:
    """POST /v1/ops/points answers 201 with name, cut-off and size; the rule `points` then reads it; it is audited."""
    name = unique("points")
    answer = await call(
        http,
        "POST",
        "/v1/ops/points",
        {**ops, "Content-Type": "text/csv"},
        params={"name": name, "cutoff": CUTOFF},
        data=b"member_id,points,since\n101,100,2010\n102,99,2011\n",
    )
    assert (answer.status, answer.body) == (201, {"snapshot": name, "cutoff": CUTOFF, "members": 2})
    drop = await create(
        http, ops, allocation_body("a", 5, access={"kind": "points", "snapshot": name, "at_least": 100})
    )
    assert drop["allocations"][0]["access"] == {"kind": "points", "snapshot": name, "at_least": 100}
    assert (await press(http, token(101), drop["id"])).status == 201
    for member in (102, 103):
        assert_refused(await press(http, token(member), drop["id"]), "not_eligible")
    [line] = await audit_of(http, ops, name)
    assert (line["action"], line["actor"], line["detail"]["members"]) == ("points.import", f"member:{OPERATOR}", 2)


async def test_a_points_file_may_be_larger_than_a_json_body_and_come_in_pieces(
    http: ClientSession, ops: dict[str, str], runner: Runner
) -> None:
    """The file has a limit of its own, and needs no Content-Length."""
    lines = "".join(f"{member},{member % 300}\n" for member in range(1, 20_001)).encode()
    assert len(lines) > 2 * Settings().body_max_bytes

    async def pieces() -> object:
        yield b"member_id,points\n"
        for start in range(0, len(lines), 10_007):
            yield lines[start : start + 10_007]

    answer = await call(
        http, "POST", "/v1/ops/points", ops, params={"name": unique("points"), "cutoff": CUTOFF}, data=pieces()
    )
    assert (answer.status, answer.body["members"]) == (201, 20_000)


async def test_head_is_answered_like_get_without_the_body(http: ClientSession, ops: dict[str, str]) -> None:
    """RFC 9110 asks every server for it."""
    async with http.head("/v1/ops/drops", headers=ops) as answer:
        assert (answer.status, answer.content_type, await answer.read()) == (200, "application/json", b"")


async def test_states_are_told_by_the_windows(http: ClientSession, ops: dict[str, str]) -> None:
    """Without any unit an allocation is `upcoming` before its opening, never `sold_out` (I11)."""
    drop = await create(
        http,
        ops,
        allocation_body("soon", 0, opens_at=at(60)),
        allocation_body("none-left", 0),
        allocation_body("over", 5, opens_at=at(-120), closes_at=at(-60)),
    )
    public = await call(http, "GET", f"/v1/drops/{drop['id']}")
    for told in (drop, public.body):
        assert [a["state"] for a in told["allocations"]] == ["upcoming", "sold_out", "closed"]
        assert abs(datetime.fromisoformat(told["server_time"]) - datetime.fromisoformat(at(0))) < timedelta(seconds=30)
