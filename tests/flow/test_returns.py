"""Returns: the unit goes where the operator says, and its member may buy again if the drop says so."""

import msgspec
import pytest

from flashsale.domain import Drop, Event, Refusal, Reservation, State, Verdict
from flashsale.errors import Refused
from flashsale.gate import keys
from flashsale.ids import new_ids
from flashsale.orders import message_of
from flashsale.reservations import Held, Known
from tests.flow.faults import at_rest, press
from tests.support import NewDrop, Node, allocation, claim


async def sold(node: Node, drop: Drop, member: int, name: str | None = None, *, key: str | None = None) -> str:
    """A confirmed reservation."""
    answer = await press(node, drop.id, claim(member, name, key=key))
    assert isinstance(answer, Held), answer
    await node.reservations.confirm(answer.grant.id, member=member)
    return answer.grant.id


async def taken_back(
    node: Node, reservation: str, *, restock: bool = True, to: str | None = None, reason: str = "scratched"
) -> Reservation:
    return await node.operations.take_back(reservation, restock=restock, to=to, reason=reason, actor="member:1")


async def message(node: Node, drop: Drop) -> dict[str, object]:
    """What the return tells the shop."""
    [listed] = [o for o in await node.ledger.orders.page(None, Event.RETURNED, None, 500) if o.drop == drop.id]
    order = (await node.ledger.orders.load([listed.id]))[listed.id]
    found: dict[str, object] = msgspec.json.decode(message_of(order))
    assert (found["type"], listed.reservation) == ("order.returned", order.reservation)
    data = found["data"]
    assert isinstance(data, dict)
    return data


async def test_the_unit_is_for_sale_again(node: Node, new_drop: NewDrop) -> None:
    drop = await new_drop(allocation(quantity=1))
    reservation = await sold(node, drop, 1)
    assert await press(node, drop.id, claim(2)) == Refusal(Verdict.SOLD_OUT)
    back = await taken_back(node, reservation)
    assert (back.state, back.id) == (State.RETURNED, reservation)
    assert await at_rest(node, drop.id) == {"a": 1}
    assert isinstance(await press(node, drop.id, claim(2)), Held)
    said = await message(node, drop)
    assert (said["order"], said["reason"], said["restocked_to"]) == (back.order, "scratched", "a")
    [line] = await node.operations.audit(f"{drop.id}/a", None, 10)
    assert (line.action, line.detail["reservation"], line.detail["reason"]) == (
        "reservation.return",
        reservation,
        "scratched",
    )


@pytest.mark.parametrize("rebuilt", [False, True], ids=["in the same gate", "after a rebuild"])
@pytest.mark.parametrize("rebuy", [False, True], ids=["once only", "may buy again"])
async def test_whether_the_member_may_buy_again(node: Node, new_drop: NewDrop, rebuy: bool, rebuilt: bool) -> None:
    drop = await new_drop(allocation(quantity=2), rebuy_after_return=rebuy)
    reservation = await sold(node, drop, 1, key="first")
    await taken_back(node, reservation)
    if rebuilt:
        await node.arming.arm(drop.id, force=True)
    first = await press(node, drop.id, claim(1, key="first"))
    assert isinstance(first, Known)
    assert (first.reservation.id, first.reservation.state) == (reservation, State.RETURNED)
    again = await press(node, drop.id, claim(1))
    named = await press(node, drop.id, claim(1, "a", key="another"))
    if rebuy:
        assert isinstance(again, Held)
        assert named == Refusal(Verdict.MEMBER_LIMIT)
    else:
        assert (again, named) == (Refusal(Verdict.MEMBER_LIMIT),) * 2
    assert await at_rest(node, drop.id) == {"a": 1 if rebuy else 2}


async def test_the_ledger_keeps_the_place_when_the_gate_forgot(node: Node, new_drop: NewDrop) -> None:
    """The second lock: a gate that knows nothing of the return grants, and the ledger refuses."""
    drop = await new_drop(allocation(quantity=2))
    await taken_back(node, await sold(node, drop, 1))
    status = await node.ledger.drops.get(drop.id)
    assert status is not None
    await node.gate._client.execute_command("HDEL", keys.stripe(drop.id).ent, "1")
    assert await press(node, drop.id, claim(1)) == Refusal(Verdict.MEMBER_LIMIT)
    assert await at_rest(node, drop.id) == {"a": 2}


async def test_the_unit_goes_to_another_allocation(node: Node, new_drop: NewDrop) -> None:
    drop = await new_drop(allocation("day-1", 1), allocation("day-2", 1))
    reservation = await sold(node, drop, 1, "day-1")
    await taken_back(node, reservation, to="day-2")
    assert await at_rest(node, drop.id) == {"day-1": 0, "day-2": 2}
    balance = await node.operations.balance(drop.id)
    assert [(b.id, b.quantity, b.balanced) for b in balance] == [("day-1", 0, True), ("day-2", 2, True)]
    assert (await message(node, drop))["restocked_to"] == "day-2"
    assert await press(node, drop.id, claim(2, "day-1")) == Refusal(Verdict.SOLD_OUT)
    assert isinstance(await press(node, drop.id, claim(2, "day-2")), Held)


async def test_the_unit_leaves_the_sale(node: Node, new_drop: NewDrop) -> None:
    drop = await new_drop(allocation(quantity=2))
    await taken_back(node, await sold(node, drop, 1), restock=False)
    assert await at_rest(node, drop.id) == {"a": 1}
    [balance] = await node.operations.balance(drop.id)
    assert (balance.quantity, balance.confirmed, balance.balanced) == (1, 0, True)
    assert (await message(node, drop))["restocked_to"] is None


async def test_what_cannot_be_returned(node: Node, new_drop: NewDrop) -> None:
    """A hold, what never was; to a place that is not there; nothing changes. A return is repeated without effect."""
    drop = await new_drop()
    held = await press(node, drop.id, claim(1))
    assert isinstance(held, Held)
    done = await sold(node, drop, 2)
    kept = await sold(node, drop, 3)
    returned = await taken_back(node, done)
    before = await at_rest(node, drop.id)
    assert await taken_back(node, done, restock=False, reason="again") == returned
    for reservation, to, restock, code in (
        (held.grant.id, None, True, "conflict"),
        (new_ids(1)[0], None, True, "not_found"),
        (kept, "elsewhere", True, "not_found"),
        (kept, "a", False, "invalid_request"),
    ):
        with pytest.raises(Refused) as refused:
            await taken_back(node, reservation, to=to, restock=restock)
        assert refused.value.code == code
    assert await at_rest(node, drop.id) == before
    assert len(await node.operations.audit(f"{drop.id}/a", None, 10)) == 1


async def test_the_outbox_returns_the_unit_when_the_gate_was_away(node: Node, new_drop: NewDrop) -> None:
    """The operator's process dies between the ledger and the gate: the worker tells the gate, place and all."""
    drop = await new_drop(allocation(quantity=1))
    reservation = await sold(node, drop, 1)
    [order] = new_ids(1)
    await node.ledger.orders.take_back(reservation, order, restock=True, to=None, reason="lost", actor="member:1")
    assert await press(node, drop.id, claim(2)) == Refusal(Verdict.SOLD_OUT)
    await node.reconciler.run_once()
    assert await at_rest(node, drop.id) == {"a": 1}
    assert await press(node, drop.id, claim(1)) == Refusal(Verdict.MEMBER_LIMIT)
    assert isinstance(await press(node, drop.id, claim(2)), Held)


async def test_a_press_between_ledger_and_gate_keeps_the_place(node: Node, new_drop: NewDrop) -> None:
    """The gate still has the entry, the ledger has the return: what the press gives back is the unit, not the place."""
    drop = await new_drop(allocation(quantity=2))
    reservation = await sold(node, drop, 1, key="first")
    [order] = new_ids(1)
    await node.ledger.orders.take_back(reservation, order, restock=True, to=None, reason="lost", actor="member:1")
    epoch = (await node.catalog.reload(drop.id) or drop).epoch
    answer = await press(node, drop.id, claim(1, key="first"))
    assert isinstance(answer, Known)
    assert await press(node, drop.id, claim(1)) == Refusal(Verdict.MEMBER_LIMIT)
    assert (await node.catalog.reload(drop.id) or drop).epoch == epoch, "no rebuild was needed"
