"""Looking for orders, and through the audit log."""

import csv
import io
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession

from flashsale.web import console_audit
from tests.support import unique
from tests.web.calls import Json, assert_refused, at, call, drop_body
from tests.web.conftest import Token

ORDERS, AUDIT = "/v1/ops/orders", "/v1/ops/audit"


@pytest.fixture(scope="session")
def ops(token: Token) -> dict[str, str]:
    """An operator's headers, used by these tests alone."""
    return token(907, role="ops")


async def bought(http: ClientSession, ops: dict[str, str], token: Token, *members: int) -> tuple[str, list[str]]:
    """A drop, and an order of each of these members."""
    drop = (await call(http, "POST", "/v1/ops/drops", ops, json=drop_body(unique("search")))).body["id"]
    orders = []
    for member in members:
        held = await call(http, "POST", f"/v1/drops/{drop}/reservations", token(member), json={})
        confirmed = await call(http, "POST", f"/v1/reservations/{held.body['id']}/confirm", token(member))
        orders.append(confirmed.body["order"])
    return drop, orders


async def found(http: ClientSession, ops: dict[str, str], **params: object) -> list[Json]:
    """The orders that are found, over all pages of two."""
    asked, items = {name: str(value) for name, value in params.items()}, list[Json]()
    while True:
        answer = await call(http, "GET", ORDERS, ops, params={"limit": "2", **asked})
        assert answer.status == 200, answer
        items += answer.body["items"]
        if answer.body["next"] is None:
            return items
        assert len(answer.body["items"]) == 2
        asked["after"] = answer.body["next"]


async def ids(http: ClientSession, ops: dict[str, str], **params: object) -> list[str]:
    """Their ids."""
    return [item["order"] for item in await found(http, ops, **params)]


async def test_orders_are_found_by_what_one_knows(http: ClientSession, ops: dict[str, str], token: Token) -> None:
    """By drop, member, order, time, state, and several of them; newest first."""
    first, others = 70_001, (70_002, 70_003, 70_004)
    drop, orders = await bought(http, ops, token, first, *others)
    other, [elsewhere] = await bought(http, ops, token, first)
    assert await ids(http, ops, drop=drop) == orders[::-1]
    assert await ids(http, ops, member=first) == [elsewhere, orders[0]]
    assert await ids(http, ops, member=first, drop=drop) == [orders[0]]
    assert await ids(http, ops, order=orders[2]) == [orders[2]]
    assert await ids(http, ops, order=orders[2], member=first) == []
    assert await ids(http, ops, drop=drop, state="delivered") == []
    assert await ids(http, ops, drop=drop, state="queued", event="order.confirmed") == orders[::-1]
    assert await ids(http, ops, drop=drop, until=at(-60)) == []
    assert await ids(http, ops, drop=drop, since=at(-60)) == orders[::-1]
    assert await ids(http, ops, drop=drop, since=at(60)) == []
    [one] = await found(http, ops, order=orders[0])
    assert (one["member"], one["drop"], one["state"], one["event"]) == (first, drop, "queued", "order.confirmed")
    taken_back = f"/v1/ops/reservations/{one['reservation']}/return"
    await call(http, "POST", taken_back, ops, json={"reason": "broken"})
    events = [(o["event"], o["drop"]) for o in await found(http, ops, member=first)]
    assert sorted(events) == sorted([("order.returned", drop), ("order.confirmed", drop), ("order.confirmed", other)])
    assert await ids(http, ops, member=71_999) == await ids(http, ops, drop="no-such-drop") == []
    for name, value in (("order", "x"), ("member", "0"), ("since", "noon"), ("until", "x")):
        assert_refused(await call(http, "GET", ORDERS, ops, params={name: value}), "invalid_request", f"`{name}`")


async def log(http: ClientSession, ops: dict[str, str], **params: str) -> list[tuple[str, str]]:
    """Action and subject of the lines that are found."""
    answer = await call(http, "GET", AUDIT, ops, params={"limit": "500", **params})
    assert answer.status == 200, answer
    return [(line["action"], line["subject"]) for line in answer.body["items"]]


async def test_the_audit_log_is_looked_through(http: ClientSession, ops: dict[str, str], token: Token) -> None:
    """By operator, by action or the first half of one, on what, from when to when; all of it together."""
    mine = token(70_907, role="ops")
    drop = (await call(http, "POST", "/v1/ops/drops", mine, json=drop_body(unique("search")))).body["id"]
    path = f"/v1/ops/drops/{drop}"
    await call(http, "POST", f"{path}/pause", mine)
    await call(http, "PATCH", f"{path}/allocations/a", mine, json={"quantity": 20})
    await call(http, "POST", f"{path}/resume", ops)
    all_mine = [("allocation.edit", f"{drop}/a"), ("drop.pause", drop), ("drop.create", drop)]
    assert await log(http, ops, actor="70907") == await log(http, ops, actor="member:70907") == all_mine
    assert await log(http, ops, actor="70907", action="drop") == all_mine[1:]
    assert await log(http, ops, subject=drop, action="drop.resume") == [("drop.resume", drop)]
    assert await log(http, ops, subject=drop, action="dro") == []
    assert await log(http, ops, subject=drop, since=at(60)) == await log(http, ops, subject=drop, until=at(-60)) == []
    assert len(await log(http, ops, subject=drop, since=at(-60), until=at(60))) == 4
    for name, value in (("actor", "bob"), ("action", "Drop"), ("since", "noon"), ("subject", "A"), ("action", "a.b.c")):
        for where in (AUDIT, f"{AUDIT}.csv"):
            assert_refused(await call(http, "GET", where, ops, params={name: value}), "invalid_request", f"`{name}`")


async def test_the_audit_log_can_be_taken_along(
    http: ClientSession, ops: dict[str, str], token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Line for line what the list says, over all parts that it is read in."""
    monkeypatch.setattr(console_audit, "EXPORT_PART", 2)
    drop = (await call(http, "POST", "/v1/ops/drops", ops, json=drop_body(unique("search")))).body["id"]
    for n in range(4):
        reason = {"reason": f'=1+{n}, "quoted"'}
        assert (await call(http, "POST", f"/v1/ops/drops/{drop}/pause", ops, json=reason)).status == 200
    listed = (await call(http, "GET", AUDIT, ops, params={"subject": drop})).body["items"]
    assert len(listed) == 5
    async with http.get(f"{AUDIT}.csv", headers=ops, params={"subject": drop}) as answer:
        assert (answer.status, answer.content_type) == (200, "text/csv")
        assert answer.headers["Content-Disposition"] == 'attachment; filename="audit.csv"'
        rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(await answer.text())))
    assert [row["id"] for row in rows] == [line["id"] for line in listed]
    for row, line in zip(rows, listed, strict=True):
        assert msgspec.json.decode(row["detail"]) == line["detail"]
        assert (row["actor"], row["action"], row["subject"]) == (line["actor"], line["action"], line["subject"])
        apart = datetime.fromisoformat(row["at"]) - datetime.fromisoformat(line["at"])
        assert apart == timedelta()
    assert_refused(await call(http, "GET", f"{AUDIT}.csv", token(1)), "forbidden", "ops")
