"""The console's calls about one drop: release, pre-flight list, moves, preview, copy, timeline, and two operators."""

import asyncio
import re
from datetime import datetime, timedelta

import pytest
from aiohttp import ClientSession

from flashsale.checklist import shifted
from tests.support import allocation, make_drop, unique, until
from tests.web.calls import Answer, Json, allocation_body, assert_refused, at, call, drop_body
from tests.web.conftest import Token

DROPS = "/v1/ops/drops"


@pytest.fixture(scope="session")
def ops(token: Token) -> dict[str, str]:
    """An operator's headers."""
    return token(901, role="ops")


async def create(http: ClientSession, ops: dict[str, str], *allocations: Json, **other: object) -> Json:
    """A new drop, as it was answered."""
    answer = await call(http, "POST", DROPS, ops, json=drop_body(unique("console"), *allocations, **other))
    assert answer.status == 201, answer
    return answer.body


async def press(http: ClientSession, headers: dict[str, str], drop_id: str, **body: object) -> Answer:
    """One press of the button."""
    return await call(http, "POST", f"/v1/drops/{drop_id}/reservations", headers, json=body)


def missing(answer: Answer) -> set[str]:
    """What a refused release names."""
    return {item["id"] for item in answer.body["missing"]}


HAN = re.compile(r"[\u4e00-\u9fff]")
TEXT = {"title": "正午手机", "description": "一台。"}
TEXTS: list[tuple[dict[str, object], tuple[bool, bool]]] = [
    ({}, (False, False)),
    ({"texts": {"zh": TEXT}}, (True, False)),
    ({"texts": {"zh": TEXT, "en": {"title": "Noon phone"}}}, (True, False)),
    ({"texts": {"zh": TEXT, "en": TEXT}}, (True, True)),
]


@pytest.mark.parametrize(("texts", "expected"), TEXTS, ids=["none", "one language", "half of the other", "both"])
async def test_what_is_half_translated_is_not_ready(
    http: ClientSession, ops: dict[str, str], texts: dict[str, object], expected: tuple[bool, bool]
) -> None:
    """No texts at all are a choice: the drop is sold by its title."""
    drop = await create(http, ops, allocation_body("a", 3), hold=True, **texts)
    listed = await call(http, "GET", f"{DROPS}/{drop['id']}/preflight", ops)
    [item] = [item for item in listed.body["items"] if item["id"] == "texts"]
    assert (item["blocking"], item["ok"]) == expected
    chinese = await call(
        http, "GET", f"{DROPS}/{drop['id']}/preflight", {**ops, "Accept-Language": "zh-CN,zh;q=0.9,en;q=0.5"}
    )
    assert (listed.headers["content-language"], chinese.headers["content-language"]) == ("en", "zh-Hans")
    assert all(HAN.search(each["detail"]) for each in chinese.body["items"]), chinese.body
    assert not any(HAN.search(each["detail"]) for each in listed.body["items"]), listed.body


async def test_a_held_drop_opens_only_when_it_was_released(
    http: ClientSession, ops: dict[str, str], token: Token
) -> None:
    """Past its opening it hears `paused`; the release names what is missing; by force, with a reason, it sells."""
    drop = await create(http, ops, allocation_body("a", 3), allocation_body("later", 1, opens_at=at(600)), hold=True)
    path = f"{DROPS}/{drop['id']}"
    assert (drop["held"], drop["paused"]) == (True, True)
    assert [a["state"] for a in drop["allocations"]] == ["paused", "upcoming"]
    assert_refused(await press(http, token(1), drop["id"]), "paused")
    listed = await call(http, "GET", f"{path}/preflight", ops)
    assert (listed.status, listed.body["ready"], listed.body["held"]) == (200, False, True)
    by_id = {item["id"]: item for item in listed.body["items"]}
    assert {name for name, item in by_id.items() if item["blocking"] and not item["ok"]} == {"fulfilment"}
    assert not by_id["opening"]["ok"]
    assert by_id["gate"]["ok"]
    assert by_id["balance"]["ok"]
    assert by_id["clock"]["ok"]

    refused = await call(http, "POST", f"{path}/resume", ops)
    assert_refused(refused, "conflict", "FLASHSALE_FULFILMENT_URL", "`force`")
    assert missing(refused) == {"fulfilment"}
    assert_refused(await call(http, "POST", f"{path}/resume", ops, json={"force": True}), "invalid_request", "reason")
    released = await call(http, "POST", f"{path}/resume", ops, json={"force": True, "reason": "a dry run"})
    assert (released.status, released.body["held"], released.body["paused"]) == (200, False, False)
    assert (await press(http, token(1), drop["id"])).status == 201
    [line] = (await call(http, "GET", "/v1/ops/audit", ops, params={"subject": drop["id"], "limit": 1})).body["items"]
    assert (line["action"], line["detail"]) == ("drop.resume", {"reason": "a dry run", "missing": ["fulfilment"]})


async def test_a_sale_under_way_resumes_without_a_list(http: ClientSession, ops: dict[str, str]) -> None:
    """Whatever is missing: who pauses for a minute must be able to go on at once."""
    drop = await create(http, ops, allocation_body("lane", 3, access={"kind": "fcode"}))
    path = f"{DROPS}/{drop['id']}"
    assert (await call(http, "POST", f"{path}/pause", ops)).body["paused"] is True
    assert not (await call(http, "GET", f"{path}/preflight", ops)).body["ready"]
    assert (await call(http, "POST", f"{path}/resume", ops)).body["paused"] is False


async def test_the_list_knows_what_each_rule_needs(http: ClientSession, ops: dict[str, str]) -> None:
    """No codes in the lane, nobody with the points, no units, all windows over: each is named, with its allocation."""
    name = unique("points")
    await call(
        http,
        "POST",
        "/v1/ops/points",
        {**ops, "Content-Type": "text/csv"},
        params={"name": name, "cutoff": at(-60)},
        data=b"member_id,points\n1,5\n",
    )
    drop = await create(
        http,
        ops,
        allocation_body("lane", 2, access={"kind": "fcode"}),
        allocation_body("nobody", 1, access={"kind": "points", "snapshot": name, "at_least": 6}),
        allocation_body("some", 0, access={"kind": "points", "snapshot": name, "at_least": 5}),
        price={"amount": 0, "currency": "CNY"},
        hold=True,
    )
    path = f"{DROPS}/{drop['id']}"

    async def wrong(*, blocking: bool) -> set[tuple[str, str | None]]:
        items = (await call(http, "GET", f"{path}/preflight", ops)).body["items"]
        return {(i["id"], i.get("allocation")) for i in items if not i["ok"] and i["blocking"] is blocking}

    assert await wrong(blocking=True) == {("fcodes", "lane"), ("snapshot", "nobody"), ("fulfilment", None)}
    assert await wrong(blocking=False) == {("opening", None), ("units", "some"), ("price", None), ("texts", None)}
    assert (await call(http, "POST", f"{path}/allocations/lane/fcodes", ops, json={"count": 1})).status == 201
    titles = {"zh": {"title": "徽章"}, "en": {"title": "A badge"}}
    assert (await call(http, "PATCH", path, ops, json={"texts": titles})).status == 200
    assert ("texts", None) not in await wrong(blocking=False)
    assert ("fcodes", "lane") not in await wrong(blocking=True)
    assert ("fcodes", "lane") in await wrong(blocking=False)
    for allocation_id in ("lane", "nobody", "some"):
        await call(http, "PATCH", f"{path}/allocations/{allocation_id}", ops, json={"closes_at": at(-1)})
    assert ("windows", None) in await wrong(blocking=True)


async def test_of_two_operators_who_edit_the_second_hears_of_the_first(
    http: ClientSession, ops: dict[str, str], token: Token
) -> None:
    """With If-Match; what is sold changes no tag; without it, with `*`, or with the new tag it goes through."""
    drop = await create(http, ops, allocation_body("a", 5), allocation_body("b", 5))
    path = f"{DROPS}/{drop['id']}"
    tag = (await call(http, "GET", path, ops)).headers["etag"]
    assert (await press(http, token(1), drop["id"])).status == 201
    assert (await call(http, "GET", path, ops)).headers["etag"] == tag
    edited = await call(http, "PATCH", path, {**ops, "If-Match": tag}, json={"title": "First"})
    assert (edited.status, edited.body["title"]) == (200, "First")
    assert edited.headers["etag"] != tag
    stale = {**ops, "If-Match": tag}
    body = allocation_body("c", 1)
    for method, where, json in (
        ("PATCH", path, {"title": "Second"}),
        ("PATCH", f"{path}/allocations/a", {"quantity": 9}),
        ("POST", f"{path}/allocations", body),
        ("POST", f"{path}/moves", {"from": "a", "to": "b", "count": 1}),
    ):
        late = await call(http, method, where, stale, json=json)
        assert_refused(late, "precondition_failed", "changed")
        assert f'"{late.body["etag"]}"' == edited.headers["etag"]
    now = await call(http, "GET", path, ops)
    assert now.headers["etag"] == edited.headers["etag"]
    assert (now.body["title"], [a["quantity"] for a in now.body["allocations"]]) == ("First", [5, 5])
    weak = {**ops, "If-Match": f"W/{edited.headers['etag']}"}
    assert_refused(await call(http, "PATCH", path, weak, json={"title": "Weak"}), "precondition_failed")
    several = {**ops, "If-Match": f'"x", {edited.headers["etag"]}'}
    assert (await call(http, "PATCH", path, several, json={"title": "Third"})).status == 200
    assert (await call(http, "PATCH", path, {**ops, "If-Match": "*"}, json={"title": "Fourth"})).status == 200
    assert (await call(http, "PATCH", path, ops, json={"title": "Fifth"})).status == 200
    bad = await call(http, "PATCH", path, {**ops, "If-Match": "none"}, json={"title": "x"})
    assert_refused(bad, "invalid_request", "If-Match")


async def test_of_edits_at_once_with_one_tag_one_wins(http: ClientSession, ops: dict[str, str]) -> None:
    """The tag is compared under the drop's lock."""
    drop = await create(http, ops)
    path = f"{DROPS}/{drop['id']}"
    tag = (await call(http, "GET", path, ops)).headers["etag"]
    answers = await asyncio.gather(
        *(call(http, "PATCH", path, {**ops, "If-Match": tag}, json={"title": f"T{n}"}) for n in range(6))
    )
    assert sorted(a.status for a in answers) == [200, 412, 412, 412, 412, 412]


async def test_units_move_while_the_drop_runs(http: ClientSession, ops: dict[str, str], token: Token) -> None:
    """In one act, with before and after; what is taken, or set aside for a code, stays."""
    lane = allocation_body("lane", 3, access={"kind": "fcode"})
    drop = await create(http, ops, allocation_body("a", 5), allocation_body("b", 0), lane)
    path = f"{DROPS}/{drop['id']}"
    assert (await press(http, token(1), drop["id"], allocation="a")).status == 201
    assert_refused(await press(http, token(2), drop["id"], allocation="b"), "sold_out")
    await call(http, "POST", f"{path}/allocations/lane/fcodes", ops, json={"count": 2})
    moved = await call(
        http, "POST", f"{path}/moves", ops, json={"from": "a", "to": "b", "count": 4, "reason": "demand"}
    )
    assert (moved.status, moved.body) == (
        200,
        {
            "drop": drop["id"],
            "from": "a",
            "to": "b",
            "count": 4,
            "before": [
                {"id": "a", "quantity": 5, "taken": 1, "free": 4},
                {"id": "b", "quantity": 0, "taken": 0, "free": 0},
            ],
            "after": [
                {"id": "a", "quantity": 1, "taken": 1, "free": 0},
                {"id": "b", "quantity": 4, "taken": 0, "free": 4},
            ],
        },
    )
    assert (await press(http, token(2), drop["id"], allocation="b")).status == 201
    assert_refused(await press(http, token(3), drop["id"], allocation="a"), "sold_out")
    assert (await call(http, "GET", f"{path}/balance", ops)).body["balanced"] is True

    for body, code, word in (
        ({"from": "a", "to": "b", "count": 1}, "conflict", "0 units"),
        ({"from": "lane", "to": "b", "count": 2}, "conflict", "1 units"),
        ({"from": "b", "to": "b", "count": 1}, "invalid_request", "same"),
        ({"from": "b", "to": "z", "count": 1}, "not_found", "'z'"),
        ({"from": "b", "to": "a", "count": 0}, "invalid_request", "count"),
    ):
        assert_refused(await call(http, "POST", f"{path}/moves", ops, json=body), code, word)
    lines = (await call(http, "GET", "/v1/ops/audit", ops, params={"subject": drop["id"], "limit": 1})).body["items"]
    assert (lines[0]["action"], lines[0]["detail"]["count"]) == ("allocation.move", 4)


async def test_a_preview_tells_what_a_press_hears(http: ClientSession, ops: dict[str, str], token: Token) -> None:
    """For any member, at any moment, word for word what the gate says when it is so far."""
    name = unique("points")
    await call(
        http,
        "POST",
        "/v1/ops/points",
        {**ops, "Content-Type": "text/csv"},
        params={"name": name, "cutoff": at(-60)},
        data=b"member_id,points\n11,100\n12,99\n",
    )
    drop = await create(
        http,
        ops,
        allocation_body("open", 1),
        allocation_body("later", 1, opens_at=at(600), closes_at=at(900)),
        allocation_body("points", 1, access={"kind": "points", "snapshot": name, "at_least": 100}),
        allocation_body("tier", 1, access={"kind": "tier", "at_least": 2}),
        allocation_body("lane", 1, access={"kind": "fcode"}),
    )
    path = f"{DROPS}/{drop['id']}/preview"

    async def words(**params: object) -> list[str]:
        answer = await call(http, "GET", path, ops, params={k: str(v) for k, v in params.items()})
        assert answer.status == 200, answer
        return [a["verdict"] for a in answer.body["allocations"]]

    async def heard(member: int, tier: int | None = None) -> list[str]:
        told = []
        for a in drop["allocations"]:
            answer = await press(http, token(member, tier=tier), drop["id"], allocation=a["id"])
            told.append({201: "held", 200: "again"}.get(answer.status) or answer.body["code"])
        return told

    assert await words(member=11) == ["held", "not_open", "held", "not_eligible", "fcode_invalid"]
    assert await words(member=12, tier=2) == ["held", "not_open", "not_eligible", "held", "fcode_invalid"]
    assert await words(member=12, at=at(700)) == ["held", "held", "not_eligible", "not_eligible", "fcode_invalid"]
    assert await words(member=12, at=at(4000)) == ["closed"] * 5
    assert (await words(member=12, with_code="true"))[4] == "held"
    assert (await press(http, token(13), drop["id"], allocation="open")).status == 201
    assert (
        await words(member=13)
        == await heard(13)
        == ["again", "not_open", "not_eligible", "not_eligible", "fcode_invalid"]
    )
    assert await words(member=13, tier=2, at=at(700)) == [
        "again",
        "member_limit",
        "not_eligible",
        "member_limit",
        "fcode_invalid",
    ]

    async def shown() -> bool:
        return (await words(member=14))[0] == "sold_out"

    await until(shown, "the board, a quarter of a second old at most, shows the last unit gone")
    assert (
        await words(member=14)
        == await heard(14)
        == ["sold_out", "not_open", "not_eligible", "not_eligible", "fcode_invalid"]
    )
    for params, word in (({}, "member"), ({"member": "0"}, "member"), ({"member": "1", "at": "noon"}, "at")):
        assert_refused(await call(http, "GET", path, ops, params=params), "invalid_request", word)


async def test_a_copy_is_a_body_that_sets_up_the_same_sale_again(http: ClientSession, ops: dict[str, str]) -> None:
    """Windows move together, into the future; it is held; nothing is set up by asking."""
    first = allocation_body("a", 3, opens_at=at(-100_000), closes_at=at(-90_000))
    drop = await create(
        http, ops, first, allocation_body("b", 4, opens_at=at(-95_000), closes_at=at(-80_000)), per_member=2
    )
    answer = await call(http, "GET", f"{DROPS}/{drop['id']}/copy", ops)
    body = answer.body
    stem, _, number = drop["id"].rpartition("-")
    assert body["id"] in {f"{drop['id']}-2", f"{stem}-{int(number) + 1}"}
    assert (body["hold"], body["per_member"]) == (True, 2)
    times = [[datetime.fromisoformat(a[f]) for f in ("opens_at", "closes_at")] for a in body["allocations"]]
    was = [[datetime.fromisoformat(a[f]) for f in ("opens_at", "closes_at")] for a in drop["allocations"]]
    by = {now - then for pair, before in zip(times, was, strict=True) for now, then in zip(pair, before, strict=True)}
    assert by == {timedelta(days=2)}
    assert (await call(http, "GET", f"{DROPS}/{body['id']}", ops)).status == 404
    made = await call(http, "POST", DROPS, ops, json={**body, "id": unique("copied")})
    assert (made.status, made.body["held"], [a["quantity"] for a in made.body["allocations"]]) == (201, True, [3, 4])
    noon = "2031-08-29T12:00:00+08:00"
    moved = await call(http, "GET", f"{DROPS}/{drop['id']}/copy", ops, params={"id": "next", "opens_at": noon})
    assert moved.body["id"] == "next"
    assert datetime.fromisoformat(moved.body["allocations"][0]["opens_at"]) == datetime.fromisoformat(noon)


def test_a_copy_of_what_is_to_come_stays_where_it_is() -> None:
    """By whole days, and only when the opening has passed."""
    drop = make_drop(allocation(opens_in_s=3600, closes_in_s=7200))
    opens = drop.allocations[0].opens_at
    assert shifted(drop, None, opens - timedelta(seconds=1)) == timedelta()
    assert shifted(drop, None, opens) == timedelta(days=1)
    assert shifted(drop, None, opens + timedelta(days=1)) == timedelta(days=2)


async def test_the_timeline_has_windows_and_acts(http: ClientSession, ops: dict[str, str]) -> None:
    """Oldest first."""
    drop = await create(http, ops, allocation_body("a", 3), allocation_body("b", 3, opens_at=at(600)))
    path = f"{DROPS}/{drop['id']}"
    await call(http, "POST", f"{path}/pause", ops, json={"reason": "stock count"})
    line = (await call(http, "GET", f"{path}/timeline", ops)).body
    assert [(a["id"], a["quantity"]) for a in line["allocations"]] == [("a", 3), ("b", 3)]
    assert line["starts_at"] == line["allocations"][0]["opens_at"]
    assert [m["action"] for m in line["marks"]] == ["drop.create", "drop.pause"]


@pytest.mark.parametrize("what", ["preflight", "preview?member=1", "copy", "timeline"])
async def test_reading_needs_the_role(http: ClientSession, ops: dict[str, str], token: Token, what: str) -> None:
    """A shopper is told so; an unknown drop is."""
    assert_refused(await call(http, "GET", f"{DROPS}/none/{what}", ops), "not_found", "'none'")
    assert_refused(await call(http, "GET", f"{DROPS}/none/{what}", token(1)), "forbidden", "ops")
    assert_refused(await call(http, "GET", f"{DROPS}/none/{what}"), "unauthenticated")
