"""The second lock: whatever a wrong gate hands over under the right epoch, the ledger does not oversell."""

import asyncio
import random
from collections import Counter

import asyncpg
import pytest

from flashsale.domain import Grant, State, Verdict
from flashsale.ledger import Committed, Existing, Ledger, SecondLock, Stale
from tests.ledger.support import Sale, counts, open_sale, words


@pytest.mark.parametrize("per_member", [1, 3])
async def test_never_more_than_the_quantity(ledger: Ledger, per_member: int) -> None:
    """Forty grants of ten units, from eight calls at once: ten go in, and each of the others is told why."""
    sale = await open_sale(ledger, 10, per_member=per_member)
    batches = [[sale.grant(member) for member in range(first, first + 5)] for first in range(1, 41, 5)]
    answers = await asyncio.gather(*(sale.commit(*batch) for batch in batches))
    assert counts(answers) == {"committed": 10, "sold_out": 30}
    assert await sale.taken() == len(await sale.rows()) == 10


async def test_quantities_count_against_the_stock(ledger: Ledger) -> None:
    """What does not fit is refused, what still fits after it goes in."""
    sale = await open_sale(ledger, 10, per_member=4)
    outcomes = await sale.commit(*(sale.grant(m, quantity=q) for m, q in enumerate((4, 4, 3, 2, 1), 1)))
    assert words(outcomes) == ["committed", "committed", "sold_out", "committed", "sold_out"]
    assert await sale.taken() == 10


@pytest.mark.parametrize(
    ("per_member", "claims", "expected"),
    [
        (1, [(1, 1), (1, 1)], "committed member_limit"),
        (1, [(1, 1), (2, 1)], "committed member_limit"),
        (1, [(2, 1), (1, 1)], "member_limit committed"),
        (1, [(1, 2), (1, 1)], "member_limit committed"),
        (3, [(1, 2), (2, 2), (2, 1)], "committed member_limit committed"),
        (3, [(1, 1), (1, 1), (2, 1)], "committed member_limit committed"),
        (3, [(4, 1), (1, 4), (3, 3)], "member_limit member_limit committed"),
        (3, [(1, 1), (2, 1), (3, 1), (3, 1)], "committed committed committed member_limit"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_never_over_the_members_limit(
    ledger: Ledger, per_member: int, claims: list[tuple[int, int]], expected: str, at_once: bool
) -> None:
    """Claims are (slot, quantity) of one member, in two allocations by turns; in one call, or one after the other."""
    sale = await open_sale(ledger, 50, 50, per_member=per_member)
    grants = [sale.grant(7, name="ab"[i % 2], slot=slot, quantity=q) for i, (slot, q) in enumerate(claims)]
    outcomes = await sale.commit(*grants) if at_once else [(await sale.commit(grant))[0] for grant in grants]
    assert words(outcomes) == expected.split()
    assert sum(row["quantity"] for row in await sale.rows()) <= per_member
    await sale.taken()


@pytest.mark.parametrize("per_member", [1, 3])
async def test_the_limit_holds_between_processes(ledger: Ledger, per_member: int) -> None:
    """Ten calls at once for one member, each with all the slots a gate could think of."""
    sale = await open_sale(ledger, 100, per_member=per_member)
    batches = [[sale.grant(7, slot=slot) for slot in range(1, 5)] for _ in range(10)]
    answers = await asyncio.gather(*(sale.commit(*batch) for batch in batches))
    assert counts(answers) == {"committed": per_member, "member_limit": 40 - per_member}
    assert await sale.taken() == per_member


@pytest.mark.parametrize("per_member", [1, 3])
async def test_an_f_code_is_live_at_most_once(ledger: Ledger, per_member: int) -> None:
    """Spent by one of many at once; free again when that reservation ends, and then for one."""
    sale = await open_sale(ledger, 50, 50, per_member=per_member)
    code = random.Random(per_member).getrandbits(62)
    calls = [[(sale.grant(10 * i + j, name="ab"[j % 2]), code) for j in range(4)] for i in range(1, 9)]
    said = Counter(
        word for words in await asyncio.gather(*(sale.commit_with_codes(*c) for c in calls)) for word in words
    )
    assert said == {"committed": 1, "fcode_spent": 31}
    (row,) = await sale.rows()
    assert row["fcode"] == code
    assert len(await ledger.reservations.cancel(sale.drop.id, [str(row["id"])])) == 1
    again = await sale.commit_with_codes((sale.grant(1001), code), (sale.grant(1002), code), (sale.grant(1003), None))
    assert again == ["committed", "fcode_spent", "committed"]


async def test_a_refusal_leaves_the_rest_of_its_call(ledger: Ledger) -> None:
    """Everything that can happen, in one call: each is answered in its place, and what is good goes in."""
    sale = await open_sale(ledger, 3, 1)
    old = sale.epoch
    before = sale.grant(1, key="k")
    await sale.commit(before)
    await sale.bump()
    grants = [
        sale.grant(2),  # good
        before,  # the same one again, by its id and under an old epoch
        sale.grant(1, key="k"),  # the same one again, by its key
        sale.grant(3, epoch=old),  # granted before the bump
        sale.grant(4, epoch=sale.epoch + 1),  # granted in a future that never came
        sale.grant(2, slot=2),  # has one
        sale.grant(5, name="b"),  # good
        sale.grant(6, name="b"),  # the one is gone
        sale.grant(7, name="nowhere"),  # no such allocation
        sale.grant(8),  # good
        sale.grant(9),  # gone
    ]
    outcomes = await sale.commit(*grants)
    assert words(outcomes) == [
        *("committed", "exists", "exists", "stale", "stale", "member_limit"),
        *("committed", "sold_out", "sold_out", "committed", "sold_out"),
    ]
    assert [o.reservation.id for o in outcomes if isinstance(o, Existing)] == [before.id, before.id]
    assert {o.epoch for o in outcomes if isinstance(o, Stale)} == {sale.epoch}
    assert SecondLock(Verdict.SOLD_OUT) in outcomes
    good = {g.id for g, o in zip(grants, outcomes, strict=True) if isinstance(o, Committed)}
    assert {str(row["id"]) for row in await sale.rows()} == good | {before.id}
    assert (await sale.taken("a"), await sale.taken("b")) == (3, 1)


class Model:
    """What commit must answer, in plain Python: one item after the other, nothing remembered of those refused."""

    def __init__(self, sale: Sale, quantities: dict[str, int]) -> None:
        self.epoch, self.limit, self.free = sale.epoch, sale.drop.per_member, dict(quantities)
        self.rows: dict[str, tuple[Grant, int | None]] = {}

    def commit(self, g: Grant, code: int | None) -> str:
        mine = [other for other, _ in self.rows.values() if other.member == g.member]
        if g.id in self.rows or (g.key is not None and any(other.key == g.key for other in mine)):
            return "exists"
        if g.epoch != self.epoch:
            return "stale"
        if self.free.get(g.allocation, 0) < g.quantity:
            return "sold_out"
        slots = {other.slot for other in mine}
        if sum(other.quantity for other in mine) + g.quantity > self.limit or g.slot > self.limit or g.slot in slots:
            return "member_limit"
        if code is not None and any(spent == code for _, spent in self.rows.values()):
            return "fcode_spent"
        self.rows[g.id] = g, code
        self.free[g.allocation] -= g.quantity
        return "committed"


@pytest.mark.parametrize("per_member", [1, 2, 3])
async def test_commit_answers_as_the_plain_model_does(ledger: Ledger, per_member: int) -> None:
    """Random calls of a gate that is wrong in every way: equal words in equal order, and equal rows at the end."""
    rng = random.Random(per_member)
    quantities = {"a": 14, "b": 4}
    said: Counter[str] = Counter()
    for _ in range(12):
        sale = await open_sale(ledger, per_member=per_member, **quantities)
        model, seen = Model(sale, quantities), [sale.grant(1)]
        codes = [rng.getrandbits(60) for _ in range(5)]
        for _ in range(8):
            call: list[tuple[Grant, int | None]] = []
            for _ in range(rng.randint(1, 6)):
                fresh = sale.grant(
                    rng.randint(1, 9),
                    name=rng.choice("aaab"),
                    quantity=rng.choice((1, 1, 1, 1, 2, 4)),
                    slot=rng.choice((1, 1, 1, 2, 3, 4)) if per_member > 1 else rng.choice((1,) * 9 + (2,)),
                    key=rng.choice((None, None, None, "k", "l")),
                    epoch=sale.epoch + rng.choice((0,) * 15 + (-1, 1)),
                )
                seen.append(fresh if rng.random() < 0.8 else rng.choice(seen))
                call.append((seen[-1], rng.choice((None, None, None, *codes))))
            expected = [model.commit(grant, code) for grant, code in call]
            assert await sale.commit_with_codes(*call) == expected
            said.update(expected)
        rows = {str(row["id"]): row["fcode"] for row in await sale.rows()}
        assert rows == {i: code for i, (_, code) in model.rows.items()}
        assert await sale.taken() == quantities["a"] - model.free["a"]
    assert set(said) == {"committed", "exists", "stale", "sold_out", "member_limit", "fcode_spent"}
    assert min(said.values()) > 3, said


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE allocations SET taken = quantity + 1 WHERE drop_id = $1",
        "UPDATE allocations SET taken = -1 WHERE drop_id = $1",
        "UPDATE allocations SET quantity = taken - 1 WHERE drop_id = $1",
        "UPDATE allocations SET closes_at = opens_at WHERE drop_id = $1",
        "UPDATE reservations SET slot = 1 WHERE drop_id = $1",
        "UPDATE reservations SET slot = 0 WHERE drop_id = $1 AND slot = 1",
        "UPDATE reservations SET quantity = 0 WHERE drop_id = $1",
        "UPDATE reservations SET fcode = 5000000000000000001 WHERE drop_id = $1",
        "UPDATE reservations SET idempotency_key = 'k' WHERE drop_id = $1",
        "UPDATE reservations SET idempotency_key = '' WHERE drop_id = $1 AND slot = 1",
        "UPDATE reservations SET state = 'cancelled' WHERE drop_id = $1",
        "UPDATE reservations SET ended_at = now() WHERE drop_id = $1",
        "UPDATE reservations SET state = 'expired', ended_at = now() WHERE drop_id = $1",
        "UPDATE reservations SET gate_released = true WHERE drop_id = $1",
        "UPDATE drops SET per_member = 0 WHERE id = $1",
        "UPDATE drops SET epoch = 0 WHERE id = $1",
        "UPDATE drops SET id = 'Not An Id' WHERE id = $1",
    ],
)
async def test_no_statement_can_break_the_rules(ledger: Ledger, statement: str) -> None:
    """Constraints stand behind the functions: not even a hand at the database's prompt sells twice."""
    sale = await open_sale(ledger, 5, per_member=2)
    assert words(await sale.commit(sale.grant(7), sale.grant(7, slot=2))) == ["committed"] * 2
    before = await sale.rows()
    with pytest.raises((asyncpg.CheckViolationError, asyncpg.UniqueViolationError)):
        await sale.pool.execute(statement, sale.drop.id)
    assert await sale.rows() == before
    assert await sale.taken() == 2
    assert {row["state"] for row in before} == {State.HELD}
