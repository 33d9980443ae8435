"""What a stripe says to claims that stand on others, in order of precedence; and what home says when it is short."""

import itertools
from collections.abc import Iterable

import msgspec
import pytest

from flashsale.domain import Drop, Fcode, Grant, Refusal, Tier, Verdict, Withheld
from flashsale.gate import UNARMED, Decisions, Fetched, Gate, Taken, Unarmed
from tests.gate.support import Told, arm, armed, at_epoch, entry, fcodes, number
from tests.support import allocation, claim, make_drop

MEMBER = 2**63 - 1
CODE = number(3, 1_007)
HERE, THERE = 1, 2
"""The stripe that is asked, and the one where the claim stands."""


async def put_up(gate: Gate, *, left: int = 5, spent: bool = False, epoch: int = 7) -> Drop:
    """A stripe with units for everybody and for F-codes."""
    lanes = (allocation("a", left), allocation("codes", left, access=Fcode()))
    drop = at_epoch(make_drop(*lanes, per_member=3, stripes=3), epoch)
    told = Told([fcodes(3, count=2_000)], spent=[CODE] if spent else [])
    assert await arm(gate, drop, told=told, stripe=HERE) == "ok"
    return drop


def grant(new_id: str = "r1", name: str = "a", quantity: int = 1, **more: object) -> Grant:
    """A claim that stands on another stripe."""
    made = Grant(new_id, MEMBER, name, quantity, 2, "k", f"|{quantity}", 7, THERE, elsewhere=True)
    return msgspec.structs.replace(made, **more)


async def take(gate: Gate, drop: Drop, *grants: Grant, codes: Iterable[int] = ()) -> Taken:
    """One call."""
    taken = await gate.take(drop.id, 0, grants, codes=[*codes], stripe=HERE)
    assert isinstance(taken, Taken)
    return taken


REASONS = ["stale", "fcode_spent", "sold_out"]


def test_the_words_and_their_order() -> None:
    assert [word.value for word in Fetched] == [*REASONS, "took"]


@pytest.mark.parametrize(
    "reasons", [each for size in range(4) for each in itertools.combinations(REASONS, size)], ids="+".join
)
async def test_of_several_reasons_the_first_is_given_and_nothing_is_taken(gate: Gate, reasons: tuple[str, ...]) -> None:
    """Every set of reasons that can hold at once; none: a unit."""
    drop = await put_up(gate, left=0 if "sold_out" in reasons else 5, spent="fcode_spent" in reasons)
    wanted = grant(name="codes", code=CODE, epoch=6 if "stale" in reasons else 7)
    before = await gate.status(drop, 0, [("r1", MEMBER)], stripe=HERE)
    taken = await take(gate, drop, wanted, codes=[CODE, CODE + 1])
    assert [result.value for result in taken.results] == [reasons[0] if reasons else "took"]
    assert taken.spent == ["fcode_spent" in reasons or not reasons, False]  # also when it was spent by this very call
    after = await gate.status(drop, 0, [("r1", MEMBER)], stripe=HERE)
    assert not isinstance(before, Unarmed)
    assert not isinstance(after, Unarmed)
    assert taken.left == after.available
    if reasons:
        assert (after.available, after.found, after.pending) == (before.available, {}, {})
    else:
        assert after.available == {"a": 5, "codes": 4}
        assert after.found == after.pending == {"r1": ("codes", 1)}


async def test_a_unit_that_was_taken_goes_back_like_any_other(gate: Gate) -> None:
    """With its code; it is not heard of in anybody's claims there."""
    drop = await put_up(gate)
    taken = await take(gate, drop, grant("r1", quantity=2), grant("r2", "codes", code=CODE))
    assert (taken.results, taken.left) == ([Fetched.TOOK] * 2, {"a": 3, "codes": 4})
    waiting = await gate.pending(drop.id, older_than_ms=0, limit=9, stripe=HERE)
    assert not isinstance(waiting, Unarmed)
    expected = [grant("r1", quantity=2), grant("r2", "codes", code=CODE)]
    assert waiting == [msgspec.structs.replace(g, stripe=HERE, elsewhere=False) for g in expected]
    assert await gate.release(drop.id, [("r1", MEMBER), ("r2", MEMBER)], stripe=HERE) == 7
    taken = await take(gate, drop, codes=[CODE])
    assert (taken.left, taken.spent) == ({"a": 5, "codes": 5}, [False])


async def test_in_one_call_a_code_is_spent_once_and_a_unit_taken_once(gate: Gate) -> None:
    drop = await put_up(gate, left=2)
    shown = [grant("r1", "codes", code=CODE), grant("r2", "codes", code=CODE), grant("r3", "codes", code=CODE + 1)]
    taken = await take(gate, drop, *shown, *(grant(f"s{n}") for n in range(3)), grant("s9", "ghost"))
    words = [result.value for result in taken.results]
    assert words == ["took", "fcode_spent", "took", "took", "took", "sold_out", "sold_out"]


async def test_who_asks_for_a_later_epoch_is_told_nothing(gate: Gate) -> None:
    drop = await put_up(gate)
    assert await gate.take(drop.id, 8, [grant(epoch=8)], stripe=HERE) is UNARMED
    assert await gate.take(drop.id, 0, [grant()], stripe=THERE) is UNARMED


# What home says.


async def decided(
    gate: Gate, drop: Drop, *claims: object, elsewhere: dict[str, tuple[int, int]], **more: object
) -> Decisions:
    """One call for a striped drop."""
    found = await gate.decide(drop, 0, claims, elsewhere=elsewhere, **more)  # type: ignore[arg-type]
    assert isinstance(found, Decisions)
    return found


async def test_home_is_short_and_writes_nothing(gate: Gate) -> None:
    """Unless it is told that others may have units; a reply of one stripe alone is the same as ever."""
    drop = await armed(gate, allocation("a", 1))
    found = await decided(gate, drop, claim(1), claim(2), claim(3, "a"), elsewhere={})
    assert [type(result).__name__ for result in found.results] == ["Grant", "Refusal", "Refusal"]
    assert (found.left, found.short) == ({"a": 0}, {})
    waiting = await gate.pending(drop.id, older_than_ms=0, limit=9)
    assert waiting == found.results[:1]
    alone = await gate.decide(drop, 0, [claim(2)])
    assert isinstance(alone, Decisions)
    assert (alone.results, alone.left, alone.short) == ([Refusal(Verdict.SOLD_OUT)], {}, {})


async def test_home_promises_what_others_may_have_once(gate: Gate) -> None:
    """Two units elsewhere, one on each of two stripes: two claims without a unit; a pair is not to be had."""
    drop = await armed(gate, allocation("a", 0), per_member=2)
    claims = (claim(1, quantity=2), claim(2), claim(3), claim(4))
    found = await decided(gate, drop, *claims, elsewhere={"a": (2, 1)})
    assert [isinstance(result, Grant) and result.walking for result in found.results] == [False, True, True, False]
    status = await gate.status(drop, 0, [(g.id, g.member) for g in found.results if isinstance(g, Grant)])
    assert not isinstance(status, Unarmed)
    assert (status.available, status.pending, status.found) == ({"a": 0}, {}, {})
    again = await decided(gate, drop, claim(2, key="k"), claim(2, quantity=2, key="l"), elsewhere={"a": (9, 9)})
    assert isinstance(again.results[0], Grant)
    assert again.results[1] == Refusal(Verdict.MEMBER_LIMIT)


async def test_a_claim_without_its_unit_gives_none_back(gate: Gate) -> None:
    """And frees no code; a place that is kept is an ordinary one."""
    lanes = (allocation("a", 0), allocation("codes", 0, access=Fcode()))
    drop = await armed(gate, *lanes, per_member=2, told=Told([fcodes(3, count=2_000)], spent=[CODE + 1]))
    asked = (claim(1), claim(2, code=CODE), claim(3, code=CODE + 1))
    found = await decided(gate, drop, *asked, elsewhere={"a": (1, 1), "codes": (2, 2)})
    first, second, spent = found.results
    assert isinstance(first, Grant)
    assert isinstance(second, Grant)
    assert spent == Refusal(Verdict.FCODE_SPENT)
    assert (first.walking, second.walking, second.code) == (True, True, CODE)
    ended = [(first.id, 1), (second.id, 2)]
    assert await gate.release(drop.id, ended, keep=[first.id]) == drop.epoch
    status = await gate.status(drop, 0, ended)
    assert not isinstance(status, Unarmed)
    assert status.available == {"a": 0, "codes": 0}
    assert status.found == {first.id: ("", 1)}
    taken = await gate.take(drop.id, 0, [], codes=[CODE], stripe=0)
    assert isinstance(taken, Taken)
    assert taken.spent == [False]


async def test_a_claim_that_is_settled_is_heard_of_again_and_does_not_walk(gate: Gate) -> None:
    drop = at_epoch(make_drop(allocation("a", 0)), 3)
    assert await arm(gate, drop, entries={1: [entry("r1") + "@"], 2: [entry("r2", code=CODE) + "@"]}) == "ok"
    found = await decided(gate, drop, claim(1), claim(2), elsewhere={})
    for result, code in zip(found.results, (None, CODE), strict=True):
        assert isinstance(result, Grant)
        assert (result.again, result.elsewhere, result.walking, result.code) == (True, True, False, code)


async def test_nothing_is_promised_that_may_not_be_granted(gate: Gate) -> None:
    """While the ledger keeps nothing, no unit is fetched, either; who would be refused hears so as ever."""
    drop = await armed(gate, allocation("a", 0))
    found = await decided(gate, drop, claim(1), claim(2, "ghost"), elsewhere={"a": (5, 5)}, grants_max=0)
    assert found.results == [Withheld(), Refusal(Verdict.NOT_FOUND)]
    one = await decided(gate, drop, claim(1), claim(2), elsewhere={"a": (5, 5)}, grants_max=1)
    assert [isinstance(result, Grant) for result in one.results] == [True, False]
    assert one.results[1] == Withheld()


async def test_a_code_that_was_seen_spent_elsewhere_comes_before_the_limit_and_after_what_is_wrong_with_it(
    gate: Gate,
) -> None:
    """`spent` names claims by their places."""
    lanes = (allocation("a"), allocation("codes", 0, access=Fcode()))
    drop = at_epoch(make_drop(*lanes), 3)
    told = Told([fcodes(3, count=2_000)], revoked=[CODE + 1])
    assert await arm(gate, drop, entries={1: [entry("r1")]}, told=told) == "ok"
    shown = (claim(1, code=CODE, key="k"), claim(1, code=CODE, key="k"), claim(1, code=CODE + 1, key="k"))
    found = await decided(gate, drop, *shown, elsewhere={}, spent=[1, 2])
    assert found.results == [
        Refusal(Verdict.MEMBER_LIMIT),
        Refusal(Verdict.FCODE_SPENT),
        Refusal(Verdict.FCODE_INVALID),
    ]


async def test_what_home_was_short_of_is_told_where_the_word_does_not_tell_it(gate: Gate) -> None:
    """Another allocation's reason comes first, or the code's lane was not named."""
    later = allocation("later", 5, opens_in_s=3_600)
    lanes = (allocation("a", 0), allocation("core", 5, access=Tier(3)), later, allocation("codes", 0, access=Fcode()))
    drop = await armed(gate, *lanes, told=Told([fcodes(3, count=2_000)]))
    asked = (claim(1), claim(2, tier=3), claim(3, "a"), claim(4, code=CODE), claim(5, "codes", code=CODE), claim(6))
    found = await decided(gate, drop, *asked, elsewhere={})
    words = [result.verdict.value if isinstance(result, Refusal) else "held" for result in found.results]
    assert words == ["not_eligible", "held", "sold_out", "sold_out", "sold_out", "not_eligible"]
    assert found.short == {0: ("a",), 3: ("codes",), 5: ("a",)}
    closing = await armed(gate, allocation("a", 0), later)
    found = await decided(gate, closing, claim(1), elsewhere={})
    [refused] = found.results
    assert isinstance(refused, Refusal)
    assert refused.verdict is Verdict.NOT_OPEN
    assert refused.opens_at_ms is not None
    assert found.short == {0: ("a",)}
