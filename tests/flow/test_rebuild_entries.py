"""A rebuild copies every live reservation as the gate had it."""

import pytest

from flashsale.domain import Refusal, Verdict
from flashsale.ledger.drops import _fields
from flashsale.reservations import Held, Known
from tests.support import NewDrop, Node, allocation, claim


def test_lines_of_a_copy_become_fields() -> None:
    assert _fields("1\ta\tx\n2\tb\ty", one_each=True) == ["1", "a\tx", "2", "b\ty"]
    assert _fields("1\ta\n2\tb\n1\tc", one_each=False) == ["1", "a\nc", "2", "b"]
    assert _fields("1\tk\\\\n\\\\\\\\", one_each=True) == ["1", "k\\n\\\\"]


@pytest.mark.parametrize("per_member", [1, 3])
async def test_after_a_rebuild_every_member_hears_of_the_same_reservation(
    node: Node, new_drop: NewDrop, per_member: int
) -> None:
    """Keys with every sign that COPY could trip over, several entries a member, more than one block."""
    keys = ["plain", "back\\slash", "\\N", "\\t\\n", "quote\"'", "~!@#$%^&*()"]
    drop = await new_drop(allocation(quantity=20_000), per_member=per_member)
    before: dict[tuple[int, str], str] = {}
    for member in range(1, 60):
        for n in range(per_member):
            key = keys[(member + n) % len(keys)]
            held = await node.reservations.reserve(drop.id, claim(member, key=key))
            assert isinstance(held, Held)
            before[member, key] = held.grant.id
    assert await node.arming.arm(drop.id, force=True)
    for (member, key), reservation_id in before.items():
        again = await node.reservations.reserve(drop.id, claim(member, key=key))
        assert isinstance(again, Known)
        assert again.reservation.id == reservation_id
        assert await node.reservations.reserve(drop.id, claim(member, key="new")) == Refusal(Verdict.MEMBER_LIMIT)
    assert [b.balanced for b in await node.operations.balance(drop.id)] == [True]
