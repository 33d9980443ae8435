"""The flow of one press: gate, ledger, answer."""

import asyncio
from collections import Counter

import pytest

from flashsale.domain import Everyone, Fcode, Refusal, State, Tier, Verdict
from flashsale.reservations import Held, Known
from tests.support import NewDrop, Node, allocation, claim


async def test_a_grant_is_in_the_ledger_when_it_is_answered(node: Node, new_drop: NewDrop) -> None:
    drop = await new_drop(allocation(quantity=1))
    held = await node.reservations.reserve(drop.id, claim(7))
    assert isinstance(held, Held)
    stored = await node.ledger.reservations.get(held.grant.id)
    assert stored is not None
    assert (stored.member, stored.state, stored.expires_at) == (7, State.HELD, held.expires_at)
    assert await node.reservations.reserve(drop.id, claim(8)) == Refusal(Verdict.SOLD_OUT)


async def test_the_same_key_gives_the_same_reservation_and_another_body_a_mismatch(
    node: Node, new_drop: NewDrop
) -> None:
    drop = await new_drop(allocation("a"), allocation("b"))
    first = await node.reservations.reserve(drop.id, claim(7, "a", key="k"))
    again = await node.reservations.reserve(drop.id, claim(7, "a", key="k"))
    assert isinstance(first, Held)
    assert isinstance(again, Known)
    assert again.reservation.id == first.grant.id
    assert await node.reservations.reserve(drop.id, claim(7, "b", key="k")) == Refusal(Verdict.IDEMPOTENCY_MISMATCH)
    assert await node.reservations.reserve(drop.id, claim(7, "a", key="other")) == Refusal(Verdict.MEMBER_LIMIT)


async def test_without_a_key_who_holds_one_hears_of_it_again(node: Node, new_drop: NewDrop) -> None:
    drop = await new_drop(allocation("a"), allocation("b"))
    first = await node.reservations.reserve(drop.id, claim(7, "a"))
    again = await node.reservations.reserve(drop.id, claim(7))
    assert isinstance(first, Held)
    assert isinstance(again, Known)
    assert again.reservation.id == first.grant.id
    assert await node.reservations.reserve(drop.id, claim(7, "b")) == Refusal(Verdict.MEMBER_LIMIT)


async def test_a_key_lives_as_long_as_its_reservation_and_tells_how_it_ended(node: Node, new_drop: NewDrop) -> None:
    """After a cancel, the same key still names the cancelled reservation; without a key the member may buy anew."""
    drop = await new_drop(allocation(quantity=1))
    held = await node.reservations.reserve(drop.id, claim(7, key="k"))
    assert isinstance(held, Held)
    stored = await node.ledger.reservations.get(held.grant.id)
    assert stored is not None
    assert await node.reservations.cancel(stored) is not None
    await node.reservations.drain()
    again = await node.reservations.reserve(drop.id, claim(7, key="k"))
    assert isinstance(again, Known)
    assert (again.reservation.id, again.reservation.state) == (stored.id, State.CANCELLED)
    assert isinstance(await node.reservations.reserve(drop.id, claim(7)), Held)
    assert [b.balanced for b in await node.operations.balance(drop.id)] == [True]


async def test_a_refusal_is_not_remembered(node: Node, new_drop: NewDrop) -> None:
    drop = await new_drop(allocation(quantity=1))
    held = await node.reservations.reserve(drop.id, claim(7))
    assert await node.reservations.reserve(drop.id, claim(8, key="k")) == Refusal(Verdict.SOLD_OUT)
    assert isinstance(held, Held)
    stored = await node.ledger.reservations.get(held.grant.id)
    assert stored is not None
    await node.reservations.cancel(stored)
    await node.reservations.drain()
    assert isinstance(await node.reservations.reserve(drop.id, claim(8, key="k")), Held)


async def test_without_an_allocation_the_first_open_one_with_stock_that_lets_the_member_in(
    node: Node, new_drop: NewDrop
) -> None:
    drop = await new_drop(
        allocation("later", opens_in_s=3000),
        allocation("core", access=Tier(at_least=3)),
        allocation("small", 1),
        allocation("rest", 1),
    )
    taken = [await node.reservations.reserve(drop.id, claim(m)) for m in (1, 2)]
    assert [t.grant.allocation for t in taken if isinstance(t, Held)] == ["small", "rest"]
    core = await node.reservations.reserve(drop.id, claim(3, tier=3))
    assert isinstance(core, Held)
    assert core.grant.allocation == "core"
    # None left for others: of not_open, not_eligible, sold_out the one highest in precedence.
    assert await node.reservations.reserve(drop.id, claim(4)) == Refusal(Verdict.NOT_ELIGIBLE)


async def test_quantities_count_against_stock_and_limit(node: Node, new_drop: NewDrop) -> None:
    drop = await new_drop(allocation(quantity=5), per_member=3)
    for key, quantity in (("a", 2), ("b", 1)):
        assert isinstance(await node.reservations.reserve(drop.id, claim(1, key=key, quantity=quantity)), Held)
    assert await node.reservations.reserve(drop.id, claim(1, key="c")) == Refusal(Verdict.MEMBER_LIMIT)
    assert await node.reservations.reserve(drop.id, claim(2, quantity=3)) == Refusal(Verdict.SOLD_OUT)
    assert isinstance(await node.reservations.reserve(drop.id, claim(2, quantity=2)), Held)


async def test_ten_presses_at_once_with_one_key_make_one_reservation(node: Node, new_drop: NewDrop) -> None:
    drop = await new_drop(allocation(quantity=5))
    answers = await asyncio.gather(*(node.reservations.reserve(drop.id, claim(7, key="k")) for _ in range(10)))
    ids = {a.grant.id if isinstance(a, Held) else a.reservation.id for a in answers if not isinstance(a, Refusal)}
    assert len(ids) == 1
    assert Counter(type(a).__name__ for a in answers) == {"Held": 1, "Known": 9}
    (balance,) = await node.operations.balance(drop.id)
    assert (balance.available, balance.held) == (4, 1)


@pytest.mark.parametrize("code", [None, 7 << 22])
async def test_units_set_aside_for_f_codes_are_not_sold_to_the_public(
    node: Node, new_drop: NewDrop, code: int | None
) -> None:
    drop = await new_drop(allocation("codes", 5, access=Fcode()), allocation("public", 1, access=Everyone()))
    assert isinstance(await node.reservations.reserve(drop.id, claim(1)), Held)
    expected = Verdict.SOLD_OUT if code is None else Verdict.FCODE_INVALID
    assert await node.reservations.reserve(drop.id, claim(2, code=code)) == Refusal(expected)
    (codes, _) = await node.operations.balance(drop.id)
    assert codes.available == 5
