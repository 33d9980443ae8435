"""The report of a sale: every unit in the second in which it moved, refusals, and the order of grants."""

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from aiohttp import ClientSession

from flashsale import embedded
from flashsale.ids import new_ids
from flashsale.ledger.console import asked_ms, id_at
from tests.support import unique, until
from tests.web.calls import Answer, Json, allocation_body, assert_refused, at, call, drop_body
from tests.web.conftest import Token


@pytest.fixture(scope="session")
def ops(token: Token) -> dict[str, str]:
    """An operator's headers."""
    return token(904, role="ops")


async def report(http: ClientSession, ops: dict[str, str], drop: str, **params: object) -> Json:
    """The report of a drop."""
    asked = {name: str(value) for name, value in params.items()}
    answer = await call(http, "GET", f"/v1/ops/drops/{drop}/report", ops, params=asked)
    assert answer.status == 200, answer
    return answer.body


async def press(http: ClientSession, headers: dict[str, str], drop: str) -> Answer:
    """One press of the button."""
    return await call(http, "POST", f"/v1/drops/{drop}/reservations", headers, json={})


async def test_every_unit_is_told_when_it_moved(
    http: ClientSession, ops: dict[str, str], token: Token, urls: embedded.Servers
) -> None:
    """Granted, confirmed, cancelled, expired, returned, in all and by the second; refusals are counted."""
    drop = (
        await call(http, "POST", "/v1/ops/drops", ops, json=drop_body(unique("report"), allocation_body("a", 5)))
    ).body
    held = [(await press(http, token(member), drop["id"])).body["id"] for member in range(1, 6)]
    for member in range(6, 9):
        assert_refused(await press(http, token(member), drop["id"]), "sold_out")
    for n in (0, 1):
        assert (await call(http, "POST", f"/v1/reservations/{held[n]}/confirm", token(n + 1))).status == 200
    await call(http, "POST", f"/v1/ops/reservations/{held[1]}/return", ops, json={"reason": "broken"})
    assert (await call(http, "DELETE", f"/v1/reservations/{held[2]}", token(3))).status == 200
    connection = await asyncpg.connect(urls.database_url)
    await connection.execute("UPDATE reservations SET expires_at = now() - interval '1 s' WHERE id = $1", held[3])
    await connection.execute("SELECT * FROM end_holds($1, $2, 'expired')", drop["id"], [held[3]])
    rows = await connection.fetch("SELECT id, created_at FROM reservations WHERE drop_id = $1", drop["id"])
    await connection.close()

    async def told() -> bool:
        return bool((await report(http, ops, drop["id"]))["totals"]["refused"] == {"sold_out": 3})

    await until(told, "the refusals of the last second were handed on")
    body = await report(http, ops, drop["id"])
    names = ("granted", "confirmed", "cancelled", "expired", "returned")
    assert [body["totals"][name] for name in names] == [5, 2, 1, 1, 1]
    assert [sum(step[name] for step in body["seconds"]) for name in names] == [5, 2, 1, 1, 1]
    assert (body["step_s"], body["more"], body["refusals"]["kept"]) == (1, False, True)
    granted = {datetime.fromisoformat(s["at"]): s["granted"] for s in body["seconds"] if s["granted"]}
    written = [row["created_at"].replace(microsecond=0) for row in rows]
    assert granted == {second: written.count(second) for second in written}
    fair = body["fairness"]
    assert (fair["judged"], fair["capped"]) == (5, False)
    assert fair["pairs"] + fair["ties"] == 10
    assert (fair["out_of_order"], fair["share_out_of_order"], fair["displacement_ms"]["max"]) == (0, 0.0, 0.0)
    assert fair["wait_ms"]["p99"] >= fair["wait_ms"]["p50"] > 0
    day = await report(http, ops, drop["id"], step=86_400)
    assert sum(step["granted"] for step in day["seconds"]) == 5
    assert len(day["seconds"]) <= 2


async def test_grants_out_of_order_are_found(
    http: ClientSession, ops: dict[str, str], token: Token, urls: embedded.Servers
) -> None:
    """Two rows change their times: the later press was granted first, by so many ms."""
    drop = (
        await call(http, "POST", "/v1/ops/drops", ops, json=drop_body(unique("report"), allocation_body("a", 3)))
    ).body
    first, last = [(await press(http, token(member), drop["id"])).body["id"] for member in (1, 2)]
    assert asked_ms(first) < asked_ms(last)
    connection = await asyncpg.connect(urls.database_url)
    early = (
        "UPDATE reservations SET created_at = (SELECT created_at FROM reservations WHERE id = $1) - interval '40 ms'"
    )
    await connection.execute(f"{early} WHERE id = $2", first, last)
    await connection.close()
    fair = (await report(http, ops, drop["id"]))["fairness"]
    assert (fair["pairs"], fair["out_of_order"], fair["share_out_of_order"], fair["overtaking"]) == (1, 1, 1.0, 1)
    assert fair["displacement_ms"]["max"] == 40.0


async def test_a_sale_whose_window_was_cut_short_is_told_whole(
    http: ClientSession, ops: dict[str, str], token: Token
) -> None:
    """What was sold before the operator's act counts, though the window now ends before it."""
    drop = (await call(http, "POST", "/v1/ops/drops", ops, json=drop_body(unique("report")))).body
    empty = await report(http, ops, drop["id"])
    assert (empty["seconds"], empty["refusals"]["kept"], empty["fairness"]["judged"]) == ([], False, 0)
    assert empty["fairness"]["wait_ms"] is None
    assert (await press(http, token(1), drop["id"])).status == 201
    window = {"opens_at": at(-7200), "closes_at": at(-3600)}
    assert (await call(http, "PATCH", f"/v1/ops/drops/{drop['id']}/allocations/a", ops, json=window)).status == 200
    assert (await report(http, ops, drop["id"]))["totals"]["granted"] == 1


async def test_asking_for_a_report_needs_the_role(http: ClientSession, ops: dict[str, str], token: Token) -> None:
    """And a step that is one."""
    assert_refused(await call(http, "GET", "/v1/ops/drops/none/report", ops), "not_found", "'none'")
    assert_refused(await call(http, "GET", "/v1/ops/drops/none/report", token(1)), "forbidden", "ops")
    for step in ("0", "86401", "x", "1.5"):
        assert_refused(
            await call(http, "GET", "/v1/ops/drops/none/report", ops, params={"step": step}), "invalid_request", "step"
        )


def test_ids_tell_when_they_were_made() -> None:
    """Those of a moment lie between the least ids of it and of the next millisecond."""
    [made] = new_ids(1)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=asked_ms(made))
    assert abs(datetime.now(UTC) - moment) < timedelta(seconds=5)
    assert id_at(moment) < made < id_at(moment + timedelta(milliseconds=1))
    assert id_at(datetime(1969, 1, 1, tzinfo=UTC)) == "00000000-0000-0000-0000-000000000000"
