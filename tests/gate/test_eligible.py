"""The check of eligible members in Lua says what `eligibility.contains` says, for ids of up to 63 bits."""

import random
from collections.abc import Iterable

import msgspec
import pytest

from flashsale.domain import MEMBER_MAX
from flashsale.eligibility import contains, gate_field
from flashsale.gate import Decisions, Gate
from tests.gate.support import arm, at_epoch, listed, put_eligible
from tests.support import claim, make_drop

BORDERS = [1, 2, 7, 8, 999, 1_000, 1_001, 1_999, 2_000, 999_999, 1_000_000, 2**31, 2**32, 2**53 - 1, 2**53, 2**53 + 1]
BORDERS += [10**15, 10**18, MEMBER_MAX - 1_000, MEMBER_MAX - 1, MEMBER_MAX]


async def let_in(gate: Gate, eligible: Iterable[int], asked: list[int]) -> list[int]:
    """Of those who ask, in calls of 500, those whom the gate lets in; the fields themselves must agree with it."""
    drop = at_epoch(make_drop(listed(quantity=len(asked))), 1)
    fields = await put_eligible(gate, drop, eligible)
    assert await arm(gate, drop) == "ok"
    found = []
    for at in range(0, len(asked), 500):
        members = asked[at : at + 500]
        decided = await gate.decide(drop, 0, [claim(member) for member in members])
        assert isinstance(decided, Decisions)
        words = [getattr(result, "verdict", "held") for result in decided.results]
        assert set(words) <= {"held", "not_eligible"}
        found += [member for member, word in zip(members, words, strict=True) if word == "held"]
    for member in asked:
        name, lo = gate_field(member)
        assert (member in found) == (name in fields and contains(fields[name], lo)), member
    return found


def neighbours(members: Iterable[int]) -> list[int]:
    """These, and who stands beside them or differs in one digit group, within the range of ids."""
    near = {m + step for m in members for step in (-1_000, -8, -1, 0, 1, 8, 1_000)} | {m % 1_000 for m in members}
    return sorted(m for m in near if 1 <= m <= MEMBER_MAX)


@pytest.mark.parametrize("member", BORDERS)
async def test_a_lone_member_is_let_in_and_no_neighbour(gate: Gate, member: int) -> None:
    """At the borders of a thousand, of what a Lua number holds exactly, and of 63 bits."""
    assert await let_in(gate, [member], neighbours([member])) == [member]


@pytest.mark.parametrize("member", BORDERS)
async def test_a_lone_outsider_is_kept_out_and_every_neighbour_let_in(gate: Gate, member: int) -> None:
    """The same borders, in the form for many."""
    thousand = (member // 1_000) * 1_000
    inside = [m for m in range(max(1, thousand), min(thousand + 1_000, MEMBER_MAX + 1)) if m != member]
    asked = [m for m in neighbours([member]) if m in inside or m == member]
    assert await let_in(gate, inside, asked) == [m for m in asked if m != member]


@pytest.mark.parametrize("share", [0.001, 0.02, 0.06, 0.07, 0.3, 0.97])
async def test_of_three_thousand_ids_just_those_on_the_list_are_let_in(gate: Gate, share: float) -> None:
    """At every density: lists, bitmaps, and both where one turns into the other."""
    dice = random.Random(share)
    base = 2**60 // 1_000 * 1_000
    eligible = [m for m in range(base, base + 3_000) if dice.random() < share] or [base]
    assert await let_in(gate, eligible, list(range(base, base + 3_000))) == eligible


async def test_scattered_ids_over_63_bits(gate: Gate) -> None:
    """A thousand anywhere, and for each of them one beside it who is not."""
    dice = random.Random(7)
    eligible = sorted({dice.randrange(2, MEMBER_MAX) for _ in range(1_000)})
    outsiders = {m + dice.choice([-1, 1]) for m in eligible} - set(eligible)
    assert await let_in(gate, eligible, sorted({*eligible, *outsiders})) == eligible


async def test_two_rules_of_a_drop_do_not_mix(gate: Gate) -> None:
    """Each allocation asks its own list."""
    lanes = (listed("low", eligible_set="list-1"), listed("high", eligible_set="list-2"))
    drop = at_epoch(make_drop(*lanes, per_member=2), 1)
    await put_eligible(gate, drop, [1, 2], eligible_set="list-1")
    await put_eligible(gate, drop, [2], eligible_set="list-2")
    assert await arm(gate, drop) == "ok"
    decided = await gate.decide(drop, 0, [claim(m, name) for m in (1, 2, 3) for name in ("low", "high")])
    assert isinstance(decided, Decisions)
    assert [getattr(r, "verdict", "held") for r in decided.results] == [
        *("held", "not_eligible"),
        *("held", "held"),
        *("not_eligible", "not_eligible"),
    ]


async def test_a_list_that_is_not_whole_is_never_put_in_place(gate: Gate) -> None:
    """A part that was lost on the way is noticed by the count, before anyone can be refused for it."""
    drop = at_epoch(make_drop(listed()), 1)
    staging = await gate.eligible_begin(drop.id)
    assert await gate.eligible_chunk(staging, msgspec.msgpack.encode(["0", "b"]))
    assert not await gate.eligible_finish(drop.id, "list-1", staging, fields=2, ttl_ms=1_000)
    assert not await gate.has_eligible(drop.id, "list-1")
    assert await arm(gate, drop) == "lost"
