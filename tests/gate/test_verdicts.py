"""The words of the gate in their order: a row per word, then every set of reasons that can hold at once."""

import asyncio
import itertools
import re
from collections.abc import Iterable
from importlib.resources import files

import msgspec
import pytest

from flashsale.domain import (
    Access,
    Claim,
    Decision,
    Drop,
    Everyone,
    Fcode,
    Grant,
    Points,
    Refusal,
    Tier,
    Verdict,
    Withheld,
)
from flashsale.gate import Decisions, Gate
from tests.gate.model_rules import closes_ms, opens_ms
from tests.gate.support import Told, arm, armed, at_epoch, entry, fcodes, number, put_eligible
from tests.support import allocation, claim, make_drop

# The contract's order. "The same one again" is also what a key with another payload collides with.
PRECEDENCE = [
    *("again", "idempotency_mismatch", "not_found", "closed", "paused", "not_eligible", "not_open"),
    *("fcode_invalid", "fcode_spent", "member_limit", "sold_out", "held"),
]

HOUR_S = 3_600
FAR_S = 30 * 86_400


def decide_lua() -> str:
    """The source of the script that decides."""
    return (files("flashsale.gate") / "lua" / "decide.lua").read_text(encoding="utf-8")


def test_the_words_and_their_order_are_those_of_the_contract() -> None:
    """`domain.Verdict` is their home."""
    assert [verdict.value for verdict in Verdict] == PRECEDENCE


def test_the_script_says_the_words_in_its_header_and_ranks_them_in_its_code_in_that_order() -> None:
    """Header, ranking and `Verdict` cannot drift apart."""
    source = decide_lua()
    header = "\n".join(line for line in source.splitlines() if line.startswith("--"))
    said = [word for word in re.findall(r'"(\w+)"', header) if word in PRECEDENCE]
    ranked = re.findall(r"(\w+) = (\d+)", source.split("RANK = {")[1].split("}")[0])
    assert said == PRECEDENCE
    assert [word for word, _ in sorted(ranked, key=lambda pair: int(pair[1]))] == said[3:-1]


def word(result: Decision) -> str:
    """The word of a decision."""
    match result:
        case Refusal(verdict=verdict):
            return verdict.value
        case Withheld():
            return "withheld"
        case Grant(again=again):
            return "again" if again else "held"


async def ask(gate: Gate, drop: Drop, *claims: Claim) -> list[str]:
    """The gate's words for these claims, all in one call."""
    decided = await gate.decide(drop, drop.epoch, claims)
    assert isinstance(decided, Decisions)
    return [word(result) for result in decided.results]


# Each reason in the order of precedence. Which of the ways in which it can hold does not matter to the answer.
REASONS = ["again", "idempotency_mismatch", "not_found", "closed", "over", "paused", "not_eligible", "not_listed"]
REASONS += ["not_open", "fcode_invalid", "fcode_spent", "member_limit", "sold_out"]
WORDS = {"over": "closed", "not_listed": "not_eligible"}
EXCLUSIVE = [{"again", "idempotency_mismatch"}, {"not_eligible", "not_listed"}]
EXCLUSIVE += [{"not_eligible", "fcode_spent"}, {"not_listed", "fcode_spent"}]
"""A key is used with the same payload or with another; an allocation has one access rule."""

MEMBER = 1_007
CODE = number(7, 3)
SPENT = Told([fcodes(7, "a")], spent=[CODE])
REVOKED = Told([fcodes(7, "a")], spent=[CODE], revoked=[CODE])


def access_for(reasons: Iterable[str]) -> Access:
    """A rule that the member does not fulfil, or one for codes where one is spent; else none."""
    if "fcode_spent" in reasons:
        return Fcode()
    return Tier(2) if "not_eligible" in reasons else Everyone()  # the claim comes with tier 1


def situation(reasons: Iterable[str]) -> tuple[Drop, dict[int, list[str]], Claim, Told]:
    """A drop, what the member has in it, a claim and what is known of codes, for which exactly these reasons hold."""
    wanted = allocation(
        "a",
        0 if "sold_out" in reasons else 5,
        access=access_for(reasons),
        opens_in_s=HOUR_S if "not_open" in reasons else -FAR_S,
        closes_in_s=-HOUR_S if "over" in reasons else FAR_S,
    )
    if "not_listed" in reasons:  # the list is without the member
        wanted = msgspec.structs.replace(wanted, access=Points("s", 100), eligible_set="list-1")
    asked = claim(
        MEMBER,
        "ghost" if "not_found" in reasons else "a",
        key="k",
        tier=1,
        code=CODE if {"fcode_invalid", "fcode_spent"} & set(reasons) else None,
    )
    mine = []
    if "again" in reasons:
        mine.append(entry("r1", "b", slot=1, key="k", payload=asked.payload))
    if "idempotency_mismatch" in reasons:
        mine.append(entry("r2", "b", slot=1, key="k", payload="b|1"))
    if "member_limit" in reasons:
        mine.append(entry("r3", "b", 9, slot=2, key="other"))
    drop = make_drop(wanted, allocation("b"), per_member=9)
    drop = at_epoch(drop, 1, paused="paused" in reasons, closed="closed" in reasons)
    return drop, {MEMBER: mine} if mine else {}, asked, REVOKED if "fcode_invalid" in reasons else SPENT


async def answer_to(gate: Gate, reasons: Iterable[str]) -> str:
    """What the gate says when these reasons hold."""
    drop, entries, asked, told = situation(reasons)
    await put_eligible(gate, drop, [MEMBER - 1, MEMBER + 1])
    assert await arm(gate, drop, entries=entries, told=told) == "ok"
    (answer,) = await ask(gate, drop, asked)
    return answer


def possible(reasons: Iterable[str]) -> bool:
    """Whether these can hold at once."""
    return not any(pair <= set(reasons) for pair in EXCLUSIVE)


@pytest.mark.parametrize("reason", [*REASONS, None])
async def test_each_word_is_the_answer_to_its_reason(gate: Gate, reason: str | None) -> None:
    """One reason, one word; none: a unit."""
    expected = "held" if reason is None else WORDS.get(reason, reason)
    assert await answer_to(gate, [reason] if reason else []) == expected


@pytest.mark.parametrize(("first", "second"), [pair for pair in itertools.combinations(REASONS, 2) if possible(pair)])
async def test_of_two_reasons_the_one_higher_in_precedence_is_given(gate: Gate, first: str, second: str) -> None:
    """Idempotency before everything, then the order of the contract."""
    assert await answer_to(gate, [first, second]) == WORDS.get(first, first)


async def test_of_any_number_of_reasons_the_first_is_given(gate: Gate) -> None:
    """What holds for two holds for all that come from some point of the order on."""
    for start in range(len(REASONS) - 1):
        reasons: list[str] = []
        for reason in REASONS[start:]:
            if possible([*reasons, reason]):
                reasons.append(reason)
        assert await answer_to(gate, reasons) == WORDS.get(reasons[0], reasons[0])


async def test_without_a_key_who_has_one_hears_of_it_again(gate: Gate) -> None:
    """Only where one is all a member may have, and the claim names the same allocation or none."""
    drop = await armed(gate, allocation("a"), allocation("b"), entries={7: [entry("r7", "a", key="k")]})
    asked = [claim(7), claim(7, "a"), claim(7, "b"), claim(7, "a", key="k"), claim(7, key="new")]
    words = ["again", "again", "member_limit", "idempotency_mismatch", "member_limit"]
    assert await ask(gate, drop, *asked) == words
    drop = await armed(gate, allocation("a"), per_member=2, entries={7: [entry("r7", "a")]})
    assert await ask(gate, drop, claim(7), claim(7), claim(7)) == ["held", "member_limit", "member_limit"]


async def test_again_tells_what_was_granted_and_whether_the_ledger_is_known_to_have_it(gate: Gate) -> None:
    """The entry comes back under its own id; `pending` ends with the settle."""
    drop = await armed(gate, allocation("a", 3), per_member=3)
    first = await gate.decide(drop, 0, [claim(7, key="k", quantity=2)])
    again = await gate.decide(drop, 0, [claim(7, key="k", quantity=2)])
    assert isinstance(first, Decisions)
    assert isinstance(again, Decisions)
    (granted,), (same,) = first.results, again.results
    assert isinstance(granted, Grant)
    assert isinstance(same, Grant)
    assert (granted.again, granted.pending, granted.epoch, granted.slot) == (False, True, drop.epoch, 1)
    assert same == granted.__class__(**{f: getattr(granted, f) for f in granted.__struct_fields__} | {"again": True})
    settled = await gate.decide(drop, 0, [claim(7, key="k", quantity=2)], [granted])
    assert isinstance(settled, Decisions)
    after = await gate.decide(drop, 0, [claim(7, key="k", quantity=2)])
    assert isinstance(after, Decisions)
    assert [r.pending for r in (*settled.results, *after.results) if isinstance(r, Grant)] == [True, False]


async def test_one_call_decides_in_order_and_sees_its_own_grants(gate: Gate) -> None:
    """The second press of a member, and the claim after the last unit, are answered as if they came a call later."""
    drop = await armed(gate, allocation("a", 3), per_member=2)
    asked = [claim(1, key="k", quantity=2), claim(1, key="k", quantity=2), claim(1, key="l"), claim(2, quantity=2)]
    words = ["held", "again", "member_limit", "sold_out", "held", "sold_out"]
    decided = await gate.decide(drop, 0, [*asked, claim(2), claim(3)])
    assert isinstance(decided, Decisions)
    assert [word(result) for result in decided.results] == words
    assert [r.pending for r in decided.results if isinstance(r, Grant)] == [True, True, True]


async def test_what_is_pending_is_listed_oldest_first_and_in_part(gate: Gate) -> None:
    """As many as asked for, of those that have waited long enough; settled and released ones are gone."""
    drop = await armed(gate, allocation("a", 9))
    grants = []
    for member in range(1, 7):
        decided = await gate.decide(drop, 0, [claim(member)])
        assert isinstance(decided, Decisions)
        grants += [result for result in decided.results if isinstance(result, Grant)]
        async with asyncio.timeout(60):
            while (await gate.decide(drop, 0, [])).now_ms == decided.now_ms:  # type: ignore[union-attr]
                pass
    assert await gate.pending(drop.id, older_than_ms=0, limit=4) == grants[:4]
    assert await gate.pending(drop.id, older_than_ms=3_600_000, limit=4) == []
    await gate.settle(drop.id, [(grants[0].id, 1)])
    await gate.release(drop.id, [(grants[2].id, 3)])
    assert await gate.pending(drop.id, older_than_ms=0, limit=3) == [grants[1], grants[3], grants[4]]


async def test_without_an_allocation_the_first_that_serves_is_taken(gate: Gate) -> None:
    """Listed order; lanes for F-codes are passed over."""
    drop = await armed(
        gate,
        allocation("codes", access=Fcode()),
        allocation("over", closes_in_s=-1),
        allocation("core", access=Tier(3)),
        allocation("small", 1),
        allocation("rest", 1),
    )
    decided = await gate.decide(drop, 0, [claim(1), claim(2), claim(3, tier=3)])
    assert isinstance(decided, Decisions)
    assert [r.allocation for r in decided.results if isinstance(r, Grant)] == ["small", "rest", "core"]
    assert await ask(gate, drop, claim(4)) == ["closed"]


async def test_of_several_windows_still_to_come_the_earliest_is_told(gate: Gate) -> None:
    """Whatever the order of the list: `opens_at` is when it is worth coming back."""
    days = [allocation(name, opens_in_s=HOUR_S * n, closes_in_s=FAR_S) for name, n in (("c", 3), ("a", 1), ("b", 2))]
    drop = await armed(gate, *days)
    opens = {a.id: opens_ms(a) for a in days}
    decided = await gate.decide(drop, 0, [claim(1), claim(1, "b")])
    assert isinstance(decided, Decisions)
    assert decided.results == [
        Refusal(Verdict.NOT_OPEN, opens_at_ms=opens["a"]),
        Refusal(Verdict.NOT_OPEN, opens_at_ms=opens["b"]),
    ]


@pytest.mark.parametrize(
    ("change", "expected"), [({}, "fcode_invalid"), ({"paused": True}, "paused"), ({"closed": True}, "closed")]
)
async def test_a_code_for_a_drop_without_lanes_for_codes(gate: Gate, change: dict[str, bool], expected: str) -> None:
    """There is nothing it could open, and what holds for the whole drop comes first."""
    drop = at_epoch(make_drop(allocation()), 1, **change)
    assert await arm(gate, drop) == "ok"
    assert await ask(gate, drop, claim(1, code=number(7, 0))) == [expected]


async def test_a_lane_for_codes_gives_nothing_without_one(gate: Gate) -> None:
    """Named or not: its units are set aside."""
    drop = await armed(gate, allocation("codes", access=Fcode()))
    assert await ask(gate, drop, claim(1, "codes"), claim(1)) == ["fcode_invalid", "not_found"]


@pytest.mark.parametrize("tier", [0, 2, 3, 2**31 - 1, 2**64])
async def test_a_tier_is_enough_from_the_rule_on(gate: Gate, tier: int) -> None:
    """Also for tiers beyond what a script's numbers hold."""
    drop = await armed(gate, allocation("a", access=Tier(3)))
    assert await ask(gate, drop, claim(1, tier=tier)) == ["held" if tier >= 3 else "not_eligible"]


async def test_windows_hold_to_the_millisecond_of_the_servers_clock(gate: Gate) -> None:
    """Nothing before the opening (I10), nothing from the closing on: asked until both have passed."""
    said = await words_until_both_have_passed(gate, 0.5)
    for lead_s in (5, 30):
        if said[0] != ["not_open", "held"]:  # arming took longer than that
            said = await words_until_both_have_passed(gate, lead_s)
    assert said[0] == ["not_open", "held"]


async def words_until_both_have_passed(gate: Gate, lead_s: float) -> list[list[str]]:
    """What is heard of an opening and of a closing, each word checked by the gate's own clock."""
    one, other = allocation("a", opens_in_s=lead_s), allocation("b", closes_in_s=lead_s)
    drop = await armed(gate, one, other, per_member=2)
    opens, closes = opens_ms(one), closes_ms(other)
    said: list[list[str]] = []
    async with asyncio.timeout(120):
        while ["held", "closed"] not in said:
            decided = await gate.decide(drop, 0, [claim(1, "a"), claim(2, "b")])
            assert isinstance(decided, Decisions)
            now, words = decided.now_ms, [word(result) for result in decided.results]
            assert words == ["not_open" if now < opens else "held", "held" if now < closes else "closed"]
            assert await gate.release(drop.id, [(r.id, r.member) for r in decided.results if isinstance(r, Grant)])
            said.append(words)
            await asyncio.sleep(0.002)
    return said


async def test_what_may_not_be_granted_is_withheld_and_takes_nothing(gate: Gate) -> None:
    """Who would be refused hears why, who has a unit hears of it, and the first grants go to those who came first."""
    drop = await armed(gate, allocation("a", 2), allocation("later", 5, opens_in_s=HOUR_S), per_member=1)
    decided = await gate.decide(drop, 0, [claim(1), claim(2), claim(3), claim(1), claim(4, "later")], grants_max=1)
    assert isinstance(decided, Decisions)
    assert [word(r) for r in decided.results] == ["held", "withheld", "withheld", "again", "not_open"]
    none = await gate.decide(drop, 0, [claim(2), claim(1)], grants_max=0)
    assert isinstance(none, Decisions)
    assert [word(r) for r in none.results] == ["withheld", "again"]
    assert await ask(gate, drop, claim(2), claim(3, "a")) == ["held", "sold_out"]
    none = await gate.decide(drop, 0, [claim(3, "a")], grants_max=0)
    assert isinstance(none, Decisions)
    assert [word(r) for r in none.results] == ["sold_out"]
