"""Confirming over HTTP, by members and by payments, and the operators' calls about orders."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, web

from flashsale import embedded
from flashsale.settings import Settings
from flashsale.web import confirm
from flashsale.web.app import make_runner
from tests.support import PATIENT, NewDrop, Node, unique
from tests.web.calls import Answer, Json, assert_refused, call
from tests.web.conftest import SECRET, Token

OPERATOR, PAYMENTS = 900, 901
NOBODYS = "01a1ffb3-e7e2-734d-9fe1-ce2f17d1db98"


@pytest.fixture(scope="module")
async def paid_http(urls: embedded.Servers) -> AsyncIterator[ClientSession]:
    """A client of a service that is set up with `confirm_by=payment`."""
    settings = Settings(
        redis_url=urls.redis_url,
        database_url=urls.database_url,
        jwt_secret=SECRET,
        confirm_by="payment",
        **PATIENT,
    )
    runner = await make_runner(settings)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
        yield session
    await runner.cleanup()


async def hold(http: ClientSession, headers: Json, drop_id: str) -> str:
    """A hold's id."""
    answer = await call(http, "POST", f"/v1/drops/{drop_id}/reservations", headers, json={})
    assert answer.status == 201, answer
    return str(answer.body["id"])


async def confirmed(http: ClientSession, headers: Json, reservation: str, body: Json | None = None) -> Answer:
    return await call(http, "POST", f"/v1/reservations/{reservation}/confirm", headers, json=body)


async def test_a_member_confirms_and_asks_again(http: ClientSession, token: Token, new_drop: NewDrop) -> None:
    """200 with the order, the same at every repeat, in lists and alone; a confirmed one cannot be cancelled."""
    drop = await new_drop()
    held = await hold(http, token(7), drop.id)
    first = await confirmed(http, token(7), held)
    assert (first.status, first.body["state"], first.headers["content-type"]) == (200, "confirmed", "application/json")
    assert first.body["order"] not in {"", held}
    assert (await confirmed(http, token(7), held, {})).body == first.body
    assert (await confirmed(http, token(7), f"%{ord(held[0]):02x}{held[1:]}")).body == first.body, "routed, too"
    assert (await call(http, "GET", f"/v1/reservations/{held}", token(7))).body == first.body
    assert first.body in (await call(http, "GET", "/v1/me/reservations", token(7))).body["items"]
    assert_refused(await call(http, "DELETE", f"/v1/reservations/{held}", token(7)), "conflict", "confirmed")
    again = await call(http, "POST", f"/v1/drops/{drop.id}/reservations", token(7), json={})
    assert (again.status, again.body) == (200, first.body)


async def test_who_may_not_confirm_is_told_why(http: ClientSession, token: Token, new_drop: NewDrop) -> None:
    drop = await new_drop()
    held = await hold(http, token(7), drop.id)
    assert_refused(await confirmed(http, {}, held), "unauthenticated")
    assert_refused(await confirmed(http, token(8), held), "not_found", held)
    assert_refused(await confirmed(http, token(7), NOBODYS), "not_found", NOBODYS)
    assert_refused(await confirmed(http, token(7), "x" * 200), "not_found")
    assert_refused(await confirmed(http, token(7, role="payments"), held), "forbidden", "member")
    payment = {"payment_id": "p", "amount": drop.price.amount, "currency": "CNY"}
    assert_refused(await confirmed(http, token(7), held, payment), "invalid_request", "payment")
    assert_refused(await confirmed(http, token(7), held, {"why": 1}), "invalid_request", "why")
    broken = await call(http, "POST", f"/v1/reservations/{held}/confirm", token(7), data=b"{")
    assert_refused(broken, "invalid_request", "JSON")
    large = await call(http, "POST", f"/v1/reservations/{held}/confirm", token(7), data=b" " * 70_000)
    assert_refused(large, "too_large")
    await call(http, "DELETE", f"/v1/reservations/{held}", token(7))
    assert_refused(await confirmed(http, token(7), held), "conflict", "cancelled")


async def test_an_overdue_hold_has_expired(http: ClientSession, token: Token, new_drop: NewDrop, node: Node) -> None:
    drop = await new_drop()
    held = await hold(http, token(7), drop.id)
    late = "UPDATE reservations SET expires_at = now() - interval '1 s' WHERE id = $1"
    await node.ledger._pools[0].execute(late, held)
    assert_refused(await confirmed(http, token(7), held), "expired", "expired")


async def test_only_a_payment_confirms_where_payments_do(
    paid_http: ClientSession, token: Token, new_drop: NewDrop
) -> None:
    drop = await new_drop()
    held = await hold(paid_http, token(7), drop.id)
    payments = token(PAYMENTS, role="payments")
    payment = {"payment_id": unique("p"), "amount": drop.price.amount, "currency": "CNY"}
    for role in (None, "ops"):
        assert_refused(await confirmed(paid_http, token(7, role=role), held, payment), "forbidden", "payments")
    for missing in payment:
        partial = {name: value for name, value in payment.items() if name != missing}
        assert_refused(await confirmed(paid_http, payments, held, partial), "invalid_request", missing)
    for wrong in ({"amount": -1}, {"amount": 1.5}, {"currency": "cny"}, {"payment_id": ""}, {"payment_id": "a\nb"}):
        assert_refused(await confirmed(paid_http, payments, held, payment | wrong), "invalid_request", *wrong)
    short = await confirmed(paid_http, payments, held, payment | {"amount": 1})
    assert_refused(short, "invalid_request", "169900 CNY", "nothing was recorded")
    assert short.body["due"] == {"amount": 169_900, "currency": "CNY"}
    first = await confirmed(paid_http, payments, held, payment)
    assert (first.status, first.body["state"]) == (200, "confirmed")
    assert (await confirmed(paid_http, payments, held, payment)).body == first.body
    taken = await confirmed(paid_http, payments, held, payment | {"amount": 1})
    assert_refused(taken, "conflict", "payment_id")


async def test_money_for_an_ended_hold_is_given_back(paid_http: ClientSession, token: Token, new_drop: NewDrop) -> None:
    """Answered `expired`, every time; the operator sees one `payment.refund_due` (I9)."""
    drop = await new_drop()
    held = await hold(paid_http, token(7), drop.id)
    await call(paid_http, "DELETE", f"/v1/reservations/{held}", token(7))
    payment = {"payment_id": unique("p"), "amount": 5, "currency": "EUR"}
    for _ in range(2):
        answer = await confirmed(paid_http, token(PAYMENTS, role="payments"), held, payment)
        assert_refused(answer, "expired", "recorded", "payment.refund_due")
    listed = await call(
        paid_http,
        "GET",
        "/v1/ops/orders",
        token(OPERATOR, role="ops"),
        params={"event": "payment.refund_due", "state": "queued"},
    )
    mine = [o for o in listed.body["items"] if o["drop"] == drop.id]
    assert [(o["payment_id"], o["money"], o["reservation"]) for o in mine] == [
        (payment["payment_id"], {"amount": 5, "currency": "EUR"}, held)
    ]


async def test_operators_see_orders_and_the_queue(http: ClientSession, token: Token, new_drop: NewDrop) -> None:
    """Newest first, page by page; nobody else sees them."""
    drop = await new_drop()
    ops = token(OPERATOR, role="ops")
    ids = [
        (await confirmed(http, token(member), await hold(http, token(member), drop.id))).body["order"]
        for member in (1, 2, 3)
    ]
    page = (await call(http, "GET", "/v1/ops/orders", ops, params={"limit": "1"})).body
    seen = page["items"]
    while (after := page["next"]) is not None:
        page = (await call(http, "GET", "/v1/ops/orders", ops, params={"limit": "100", "after": after})).body
        seen = [*seen, *page["items"]]
    mine = [o for o in seen if o["drop"] == drop.id]
    assert [o["order"] for o in mine] == ids[::-1]
    newest = {"event": "order.confirmed", "state": "queued", "member": 3, "tries": 0, "reason": None}
    assert newest.items() <= mine[0].items()
    assert mine[0]["due_at"] is not None
    assert page["queue"]["waiting"] >= 3
    assert page["queue"]["oldest_seconds"] > 0
    assert_refused(await call(http, "GET", "/v1/ops/orders", token(1)), "forbidden")
    for wrong in ({"state": "lost"}, {"event": "x"}, {"after": "x"}, {"limit": "0"}):
        assert_refused(await call(http, "GET", "/v1/ops/orders", ops, params=wrong), "invalid_request", *wrong)
    text = await (await http.get("/metrics")).text()
    [waiting] = [line for line in text.splitlines() if line.startswith("flashsale_orders_waiting")]
    assert float(waiting.split()[-1]) >= 3


async def test_an_order_is_replayed_by_operators(http: ClientSession, token: Token, new_drop: NewDrop) -> None:
    drop = await new_drop()
    ops = token(OPERATOR, role="ops")
    order = (await confirmed(http, token(1), await hold(http, token(1), drop.id))).body["order"]
    answer = await call(http, "POST", f"/v1/ops/orders/{order}/replay", ops)
    assert answer.body == {"order": order, "state": "queued", "was": "queued"}
    assert_refused(await call(http, "POST", f"/v1/ops/orders/{order}/replay", token(1)), "forbidden")
    for unknown in (NOBODYS, "x"):
        assert_refused(await call(http, "POST", f"/v1/ops/orders/{unknown}/replay", ops), "not_found", unknown)


async def test_operators_take_back(http: ClientSession, token: Token, new_drop: NewDrop) -> None:
    drop = await new_drop()
    ops = token(OPERATOR, role="ops")
    held = await hold(http, token(1), drop.id)
    path = f"/v1/ops/reservations/{held}/return"
    assert_refused(await call(http, "POST", path, ops, json={"reason": "scratched"}), "conflict", "held")
    order = (await confirmed(http, token(1), held)).body["order"]
    assert_refused(await call(http, "POST", path, token(1), json={"reason": "mine"}), "forbidden")
    for wrong, code in (
        ({}, "invalid_request"),
        ({"reason": ""}, "invalid_request"),
        ({"reason": "x", "to": "a"}, "invalid_request"),
        ({"reason": "x", "restock": False, "to_allocation": "a"}, "invalid_request"),
        ({"reason": "x", "to_allocation": "elsewhere"}, "not_found"),
    ):
        assert_refused(await call(http, "POST", path, ops, json=wrong), code)
    answer = await call(http, "POST", path, ops, json={"reason": "scratched"})
    assert (answer.status, answer.body["state"], answer.body["order"]) == (200, "returned", order)
    assert (await call(http, "POST", path, ops, json={"reason": "scratched"})).body == answer.body, "repeating is safe"
    balance = (await call(http, "GET", f"/v1/ops/drops/{drop.id}/balance", ops)).body
    assert balance["balanced"]
    assert balance["allocations"][0]["available"] == 10
    for unknown in (NOBODYS, "x"):
        path = f"/v1/ops/reservations/{unknown}/return"
        assert_refused(await call(http, "POST", path, ops, json={"reason": "x"}), "not_found", unknown)


async def test_confirms_at_the_same_time_share_a_transaction(
    http: ClientSession, token: Token, new_drop: NewDrop, node: Node
) -> None:
    drop = await new_drop()
    members = range(1, 11)
    holds = await asyncio.gather(*(hold(http, token(m), drop.id) for m in members))
    await asyncio.gather(*(confirmed(http, token(m), h) for m, h in zip(members, holds, strict=True)))
    sql = "SELECT count(DISTINCT xmin::text) FROM reservations WHERE drop_id = $1 AND state = 'confirmed'"
    assert await node.ledger._pools[0].fetchval(sql, drop.id) < len(holds)


@pytest.mark.parametrize(
    "path", ["/v1/reservations//confirm/", "/v1/reservations/a/b/confirm", "/v1/reservations/a?/confirm"]
)
def test_only_the_exact_path_is_taken_before_routing(path: str) -> None:
    assert confirm.reservation_of_path(path) is None
