"""The replay's own checks can say no: each meets a contradiction that was planted for it."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from loadtests import auditor, verify
from loadtests.journal import Asked, Journal
from loadtests.verify import Check, Claim


def claim(member: int, allocation: str = "day-1", reservation: str = "") -> Claim:
    """An acknowledgement without a fault."""
    return Claim(reservation or f"r{member}", member, allocation, 201)


JOURNAL = [claim(1), claim(2), claim(3, "day-2")]
POINTS = {1: 100, 2: 250, 3: 100, 4: 99, 5: 500}


def test_a_true_journal_passes_every_check() -> None:
    """The checks that the following tests see fail hold for a journal without a fault."""
    assert verify.sold_exactly(JOURNAL, {"day-1": 2, "day-2": 1}).true
    assert verify.none_below(JOURNAL, POINTS, 100).true
    assert verify.everyone_answered(5, []).true


def test_a_uuid_is_the_same_reservation_however_it_is_spelled() -> None:
    """One answer may give a UUID as hex, another with dashes."""
    name = uuid.uuid4()
    assert verify.same_again([claim(1, reservation=name.hex)], {1: ("again", str(name).upper())}).true


@pytest.mark.parametrize(
    ("check", "says"),
    [
        (verify.sold_exactly(JOURNAL, {"day-1": 2, "day-2": 2}), "day-2 sold 1 units instead of 2"),
        (verify.sold_exactly(JOURNAL, {"day-1": 2}), "day-2 sold 1 units instead of 0"),
        (verify.sold_exactly([claim(1)._replace(quantity=2)], {"day-1": 1}), "day-1 sold 2 units instead of 1"),
        (verify.none_below([claim(4)], POINTS, 100), "member 4 with 99 points was given r4 in day-1"),
        (verify.none_below([claim(6)], POINTS, 100), "member 6 with no points in the snapshot"),
        (verify.everyone_answered(5, [3, 4]), "2 heard none before the window's end, member 3 first"),
        (verify.same_again(JOURNAL[:1], {}), "member 1 holds r1, asked once more and heard nothing"),
        (verify.same_again(JOURNAL[:1], {1: ("member_limit", "")}), "heard member_limit"),
        (verify.same_again(JOURNAL[:1], {1: ("again", "r2")}), "heard again r2"),
        (verify.same_again(JOURNAL[:1], {1: ("held", "r1")}), "heard held r1"),
    ],
)
def test_each_planted_contradiction_is_spelled_out(check: verify.Check, says: str) -> None:
    """Every check can fail, and names who and what."""
    assert check.contradiction is not None
    assert says in check.contradiction


@pytest.mark.parametrize(
    ("member", "word", "follows"),
    [
        (4, "not_eligible", True),
        (4, "sold_out", False),
        (4, "held", False),
        (1, "member_limit", True),
        (1, "sold_out", False),
        (1, "held", False),
        (5, "held", True),
        (5, "again", True),
        (5, "sold_out", True),
        (5, "member_limit", False),
        (5, "not_eligible", False),
        (5, "closed", False),
        (5, "http_500", False),
    ],
)
def test_a_members_word_follows_from_the_file_and_the_earlier_rounds(member: int, word: str, *, follows: bool) -> None:
    """Member 4 is below the threshold, 1 has a unit from an earlier round, 5 may have one."""
    check = verify.verdicts_follow({member: word}, POINTS, 100, {1}, sold_out=True)
    assert check.true is follows
    assert follows or f"member {member} with {POINTS[member]} points heard {word} instead of" in str(
        check.contradiction
    )


def test_sold_out_is_no_answer_where_units_are_left() -> None:
    """With fewer bidders than units everybody who may have one must be given one."""
    assert not verify.verdicts_follow({5: "sold_out"}, POINTS, 100, set(), sold_out=False).true


BALANCE = {"available": 8, "pending": 0, "held": 1, "confirmed": 1, "quantity": 10, "balanced": True}


@pytest.mark.parametrize(
    ("planted", "says"),
    [
        ({}, None),
        ({"available": 9}, "do not add up to 10"),
        ({"held": 2, "available": 7}, "2 were acknowledged"),
        ({"pending": 1, "available": 7}, "2 were acknowledged"),
        ({"quantity": 11}, "do not add up to 10"),
        ({"balanced": False}, "the service itself says"),
        ({"id": "day-2"}, "the balance lists"),
    ],
)
def test_a_balance_is_recomputed_not_believed(planted: dict[str, Any], says: str | None) -> None:
    """`balanced: true` beside figures that say otherwise is a contradiction."""
    balance = {"balanced": True, "allocations": [{"id": "day-1"} | BALANCE | planted]}
    check = verify.balance_true(balance, {"day-1": 2}, {"day-1": 10})
    assert check.true if says is None else says in str(check.contradiction)


async def test_a_balance_may_take_a_moment_to_settle_but_not_for_ever() -> None:
    """The first balance that holds counts; without one, the last is reported."""
    settling = {"balanced": True, "allocations": [{"id": "day-1"} | BALANCE | {"pending": 1, "held": 0}]}
    settled = {"balanced": True, "allocations": [{"id": "day-1"} | BALANCE]}
    reads = [settling, settled]

    async def read() -> verify.Balance:
        return reads.pop(0) if len(reads) > 1 else reads[0]

    assert (await verify.settled_balance(read, {"day-1": 2}, {"day-1": 10}, 30.0)).true
    reads = [settling]
    assert "pending 1" in str((await verify.settled_balance(read, {"day-1": 2}, {"day-1": 10}, 0.0)).contradiction)


LINE = {"invariant": "I1", "line": "every unit", "found": "3 units", "contradiction": None, "judged": True}
SAID: dict[str, Any] = {"true": True, "stores_read": True, "contradiction": None, "notes": [], "checks": [LINE]}


@pytest.mark.parametrize(
    ("said", "checks"),
    [
        ({}, [Check("I1 every unit", "3 units"), Check(auditor.AUDITED, "1 checks")]),
        (
            {"true": False, "contradiction": "I1", "checks": [LINE | {"contradiction": "one is missing"}]},
            [Check("I1 every unit", "3 units", "one is missing"), Check(auditor.AUDITED, "1 checks")],
        ),
        (
            {"checks": [LINE | {"judged": False}]},
            [Check("I1 every unit", "3 units", judged=False), Check(auditor.AUDITED, "1 checks")],
        ),
        (
            {"true": False, "contradiction": None},
            [Check("I1 every unit", "3 units"), Check(auditor.AUDITED, "1 checks", "it says False: None; ")],
        ),
        (
            {"stores_read": False, "checks": [], "notes": ["the stores were not read"]},
            [Check(auditor.AUDITED, "0 checks", "it says True: None; the stores were not read")],
        ),
    ],
    ids=["true", "false", "not judged", "false without a reason", "stores not read"],
)
def test_the_auditors_word_is_taken_only_with_its_reasons(said: dict[str, Any], checks: list[Check]) -> None:
    """Each of its lines is one of ours, and one more says whether it looked at all."""
    assert auditor.read(json.dumps(SAID | said).encode(), "") == checks


@pytest.mark.parametrize(
    ("out", "err", "says"),
    [
        (b'{"code": "unavailable", "detail": "The gate could not be read"}', "", "The gate could not be read"),
        (b"", "Traceback\nValueError: no\n", "ValueError: no"),
        (b"rubbish", "", "rubbish"),
        (b"", "", "it said nothing"),
    ],
)
def test_an_auditor_that_cannot_look_is_no_truth(out: bytes, err: str, says: str) -> None:
    """What it said instead is the contradiction."""
    [check] = auditor.read(out, err)
    assert (check.line, check.true) == (auditor.AUDITED, False)
    assert says in str(check.contradiction)


def test_everything_that_was_asked_and_heard_is_written_down(tmp_path: Path) -> None:
    """An acknowledgement, a refusal, an answer that never came: a line each, in Unix time."""
    journal = Journal("sale", 1_700_000_000.0)
    won = {"id": "r1", "state": "held", "allocation": "day-1", "expires_at": "2023-11-14T22:28:20Z", "member": 1}
    journal.answered(Asked(1, "k", "day-1"), 1.0, at=1.5, status=201, word="held", document=won)
    journal.answered(Asked(2, None, None), 2.0, at=2.5, status=409, word="sold_out", document={"code": "sold_out"})
    journal.lost(Asked(3, "k", "day-1"), 3.0)
    journal.write(tmp_path / "journal")
    common = {"call": "reserve", "drop": "sale", "quantity": 1}
    times = {"sent_at": 1_700_000_001.0, "heard_at": 1_700_000_001.5}
    told = {"reservation": "r1", "state": "held", "in": "day-1", "expires_at": 1_700_000_900.0}
    assert [json.loads(line) for line in (tmp_path / "journal").read_text().splitlines()] == [
        {**common, "member": 1, "key": "k", "allocation": "day-1", **times, "status": 201, **told},
        {**common, "member": 2, "key": None, "allocation": None, "sent_at": 1_700_000_002.0, "status": 409}
        | {"heard_at": 1_700_000_002.5, "code": "sold_out"},
        {**common, "member": 3, "key": "k", "allocation": "day-1", "sent_at": 1_700_000_003.0, "status": 0},
    ]
