"""Rehearsals: a hidden copy is sold and audited, the real drop is not touched, no shop hears of it, one at a time."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession

from flashsale import embedded
from flashsale.domain import OrderState
from flashsale.web.app import Runner
from tests.ledger.support import new_database
from tests.support import unique, until
from tests.web.calls import Json, allocation_body, assert_refused, at, call, drop_body
from tests.web.conftest import Token


@pytest.fixture(scope="module")
async def urls(urls: embedded.Servers) -> AsyncIterator[embedded.Servers]:
    """The session's servers, with a database of this module: the auditor looks at all orders and jobs there are."""
    async with new_database(urls.database_url) as url:
        yield embedded.Servers(urls.redis_url, url, urls.supervisor)


@pytest.fixture(scope="session")
def ops(token: Token) -> dict[str, str]:
    """An operator's headers."""
    return token(905, role="ops")


async def create(http: ClientSession, ops: dict[str, str], *allocations: Json, **other: object) -> str:
    """A drop that opens in an hour."""
    given = allocations or (allocation_body("a", 5, opens_at=at(3000)),)
    answer = await call(http, "POST", "/v1/ops/drops", ops, json=drop_body(unique("real"), *given, **other))
    assert answer.status == 201, answer
    return str(answer.body["id"])


async def points(http: ClientSession, ops: dict[str, str]) -> str:
    """A snapshot of one member."""
    name = unique("points")
    asked = {"name": name, "cutoff": at(-60)}
    headers = {**ops, "Content-Type": "text/csv"}
    await call(http, "POST", "/v1/ops/points", headers, params=asked, data=b"member_id,points\n1,5\n")
    return name


async def state(http: ClientSession, ops: dict[str, str], drop: str, rehearsal: str) -> Json:
    """How it is."""
    return (await call(http, "GET", f"/v1/ops/drops/{drop}/rehearsals/{rehearsal}", ops)).body


async def over(http: ClientSession, ops: dict[str, str], drop: str, rehearsal: str) -> Json:
    """How it was in the end."""

    async def told() -> bool:
        found = await state(http, ops, drop, rehearsal)
        return bool(found["state"] != "running" and (found["audit"] or found["notes"]))

    await until(told, "the rehearsal is over", 90)
    return await state(http, ops, drop, rehearsal)


async def test_a_rehearsal_sells_a_hidden_copy_and_audits_it(
    http: ClientSession, ops: dict[str, str], token: Token, runner: Runner
) -> None:
    """All presses are answered, F-codes of its own are spent, every invariant holds; the real drop is as it was."""
    name, later = await points(http, ops), at(3000)
    drop = await create(
        http,
        ops,
        allocation_body("a", 5, opens_at=later, access={"kind": "points", "snapshot": name, "at_least": 1}),
        allocation_body("lane", 3, opens_at=later, access={"kind": "fcode"}),
        allocation_body("core", 2, opens_at=later, access={"kind": "tier", "at_least": 1}),
        hold=True,
    )
    path = f"/v1/ops/drops/{drop}"
    before = (await call(http, "GET", path, ops)).headers["etag"]
    asked = {"members": 40, "over_s": 1, "opens_in_s": 0.5, "confirm_share": 1}
    begun = await call(http, "POST", f"{path}/rehearsals", ops, json=asked)
    assert (begun.status, begun.body["state"], begun.body["by"]) == (202, "running", "member:905")
    copy, rehearsal = begun.body["copy"], begun.body["id"]
    assert begun.headers["location"] == f"{path}/rehearsals/{rehearsal}"
    busy = await call(http, "POST", f"{path}/rehearsals", ops, json=asked)
    assert_refused(busy, "conflict", "under way")
    assert busy.body["rehearsal"] == rehearsal

    shown = (await call(http, "GET", f"/v1/ops/drops/{copy}", ops)).body
    assert (shown["hidden"], shown["paused"], [a["id"] for a in shown["allocations"]]) == (
        True,
        False,
        ["a", "lane", "core"],
    )
    for listing in ("/v1/drops", "/v1/ops/drops"):
        listed = (await call(http, "GET", listing, ops, params={"limit": 500})).body["items"]
        assert copy not in {item["id"] for item in listed}
    assert_refused(await call(http, "GET", f"/v1/drops/{copy}"), "not_found")

    done = await over(http, ops, drop, rehearsal)
    assert done["state"] == "done", done
    assert (done["progress"]["pressed"], sum(done["progress"]["heard"].values())) == (40, 40)
    assert done["progress"]["heard"]["held"] == done["progress"]["confirmed"] == 10
    assert (done["audit"]["true"], done["audit"]["contradiction"]) == (True, None), done["audit"]
    assert {check["invariant"] for check in done["audit"]["checks"]} >= {"I1", "I2", "I5", "I6"}
    assert any("a: open to everyone" in note for note in done["notes"])
    closed = (await call(http, "GET", f"/v1/ops/drops/{copy}", ops)).body
    assert (closed["closed"], closed["hidden"]) == (True, True)

    real = await call(http, "GET", path, ops)
    assert real.headers["etag"] == before
    assert [a["taken"] for a in real.body["allocations"]] == [0, 0, 0]
    queued = [o async for o in _orders(http, ops) if o["drop"] == copy]
    assert len(queued) == 10
    loaded = await runner._context.ledger.orders.load([o["order"] for o in queued])
    assert {order.sink for order in loaded.values()} == {True}
    assert {OrderState(o["state"]) for o in queued} == {OrderState.QUEUED}
    [line] = [
        found
        for found in (await call(http, "GET", "/v1/ops/audit", ops, params={"subject": drop})).body["items"]
        if found["action"] == "rehearsal.start"
    ]
    assert (line["detail"]["copy"], line["detail"]["asked"]["members"]) == (copy, 40)
    again = await call(http, "POST", f"/v1/ops/drops/{copy}/rehearsals", ops, json=asked)
    assert_refused(again, "conflict", "copy")
    listed = (await call(http, "GET", f"{path}/rehearsals", ops)).body
    assert ([item["id"] for item in listed["items"]], listed["next"]) == ([rehearsal], None)


async def _orders(http: ClientSession, ops: dict[str, str]) -> Any:  # noqa: ANN401
    """All orders."""
    after: Json = {}
    while True:
        page = (await call(http, "GET", "/v1/ops/orders", ops, params={"limit": 500, **after})).body
        for item in page["items"]:
            yield item
        if page["next"] is None:
            return
        after = {"after": page["next"]}


async def test_a_rehearsal_can_be_stopped(http: ClientSession, ops: dict[str, str]) -> None:
    """Its crowd goes home; the copy is closed and audited; another one may begin."""
    drop = await create(http, ops, stripes=2)
    path = f"/v1/ops/drops/{drop}/rehearsals"
    begun = (await call(http, "POST", path, ops, json={"members": 1, "over_s": 300, "opens_in_s": 60})).body
    stopped = await call(http, "POST", f"{path}/{begun['id']}/stop", ops)
    assert (stopped.status, stopped.body["state"]) == (200, "stopped")
    assert (await call(http, "POST", f"{path}/{begun['id']}/stop", ops)).status == 200
    done = await over(http, ops, drop, begun["id"])
    assert (done["state"], done["progress"]["pressed"]) == ("stopped", 0)

    async def closed() -> bool:
        return bool((await call(http, "GET", f"/v1/ops/drops/{begun['copy']}", ops)).body["closed"])

    await until(closed, "the copy is closed")


async def test_one_whose_process_died_is_found_out(http: ClientSession, runner: Runner, ops: dict[str, str]) -> None:
    """It has said nothing for long: it failed, and the next may begin."""
    drop = await create(http, ops)
    store = runner._context.ledger.rehearsals
    rehearsal = "01890000-0000-7000-8000-000000000001"
    assert await store.start(rehearsal, drop, "gone", actor="member:1", asked={"members": 1}) is None
    assert await store.start("01890000-0000-7000-8000-000000000002", drop, "b", actor="member:1", asked={}) == rehearsal
    pool = runner._context.ledger._pools[0]
    await pool.execute("UPDATE rehearsals SET beat_at = beat_at - interval '31 s' WHERE id = $1", rehearsal)
    listed = (await call(http, "GET", f"/v1/ops/drops/{drop}/rehearsals", ops)).body["items"]
    assert [(item["state"], item["notes"]) for item in listed] == [("failed", ["The process that ran it is gone."])]
    assert not await store.beat(rehearsal, {})


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"members": 0}, "members"),
        ({"members": 20_001}, "members"),
        ({"over_s": 301}, "over_s"),
        ({"confirm_share": 1.5}, "confirm_share"),
        ({"members": 20_000, "over_s": 5}, "2000 times a second"),
        ({"crowd": 1}, "crowd"),
    ],
)
async def test_a_crowd_is_bounded(http: ClientSession, ops: dict[str, str], body: Json, word: str) -> None:
    """By number, time and pace."""
    drop = await create(http, ops)
    assert_refused(
        await call(http, "POST", f"/v1/ops/drops/{drop}/rehearsals", ops, json=body), "invalid_request", word
    )


async def test_rehearsing_needs_the_role(http: ClientSession, ops: dict[str, str], token: Token) -> None:
    """A shopper is told so; what is not there is."""
    path = "/v1/ops/drops/none/rehearsals"
    assert_refused(await call(http, "POST", path, token(1), json={}), "forbidden", "ops")
    assert_refused(await call(http, "POST", path, ops, json={}), "not_found", "'none'")
    assert_refused(await call(http, "GET", f"{path}/x", ops), "not_found", "'x'")
    assert_refused(await call(http, "GET", f"{path}/01890000-0000-7000-8000-00000000000f", ops), "not_found")
