"""Whose a bound F-code is: its owner can spend it, nobody else, and nobody is refused while that is not known."""

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis.asyncio

from flashsale.domain import MEMBER_MAX, Claim, Drop, Fcode
from flashsale.gate import UNARMED, Gate, Unarmed, keys
from flashsale.gate.codes import bound_fields
from tests.gate.support import Told, arm, at_epoch, fcodes, number, put_bound, said
from tests.support import allocation, claim, make_drop

LANE = allocation("codes", 1_000, access=Fcode())
HOUR = timedelta(hours=1)
IDS = [1, 7, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**32 + 7, 2**53 - 1, 2**53, 2**53 + 1, 2**60, MEMBER_MAX - 1]
IDS += [MEMBER_MAX]


@pytest.mark.parametrize("owner", IDS)
async def test_a_bound_code_is_its_owners_alone(gate: Gate, owner: int) -> None:
    """For ids of up to 63 bits, which one number of a script cannot hold."""
    drop = at_epoch(make_drop(allocation("codes", access=Fcode())), 1)
    await put_bound(gate, drop, 1, {1_002: owner})
    assert await arm(gate, drop, told=Told([fcodes(1, count=2_000, bound=True)])) == "ok"
    near = {owner - 1, owner + 1, owner ^ 2**32, owner ^ 2**31, owner ^ 2**62, owner % 2**32, owner - owner % 2**32}
    others = sorted(m for m in near | set(IDS) if 1 <= m <= MEMBER_MAX and m != owner)
    code = number(1, 1_002)
    words = await said(gate, drop, *(claim(m, code=code) for m in (*others, owner, owner)))
    assert words == ["fcode_invalid"] * len(others) + ["held", "held"]


async def test_each_code_of_a_bound_batch_has_its_own_owner(gate: Gate) -> None:
    """5,000 members of anywhere, over several fields; two batches do not mix."""
    dice = random.Random(6)
    owners = {batch: [dice.randrange(1, MEMBER_MAX) for _ in range(5_000)] for batch in (1, 2)}
    drop = at_epoch(make_drop(allocation("codes", 10_000, access=Fcode()), per_member=2), 1)
    for batch, members in owners.items():
        await put_bound(gate, drop, batch, dict(enumerate(members)))
    told = Told([fcodes(batch, count=5_000, bound=True) for batch in owners])
    assert await arm(gate, drop, told=told) == "ok"
    for batch, members in owners.items():
        foreign = owners[3 - batch]
        assert set(await said(gate, drop, *shown(batch, foreign))) == {"fcode_invalid"}
        assert set(await said(gate, drop, *shown(batch, members))) == {"held"}


def shown(batch: int, members: Iterable[int]) -> list[Claim]:
    """The codes of a batch, each shown by the member in its place."""
    return [claim(member, code=number(batch, serial)) for serial, member in enumerate(members)]


@pytest.fixture
async def bound(gate: Gate) -> Drop:
    """A drop with a bound batch, of which member 1 has the first code, beside one for whoever shows it."""
    drop = at_epoch(make_drop(allocation("public"), LANE), 5)
    await put_bound(gate, drop, 1, {0: 1})
    assert await arm(gate, drop, told=Told([fcodes(1, bound=True), fcodes(2)])) == "ok"
    return drop


@pytest.mark.parametrize("damage", ["lost", "not whole"])
async def test_without_the_list_of_owners_nobody_is_refused(
    gate: Gate, valkey: "redis.asyncio.Redis", bound: Drop, damage: str
) -> None:
    """A press with such a code finds the gate unarmed; so does who looks after it; the rebuild brings the list anew."""
    key = keys.bound(bound.id, 0, 1)
    await (valkey.unlink(key) if damage == "lost" else valkey.hset(key, "17", "x"))
    for asked in (claim(1, code=number(1, 0)), claim(2, code=number(1, 0))):
        assert await gate.decide(bound, 0, [claim(3), asked]) is UNARMED
    assert await said(gate, bound, claim(4), claim(5, code=number(2, 0))) == ["held", "held"]
    assert await gate.status(bound, 0) is UNARMED
    told = Told([fcodes(1, bound=True), fcodes(2)])
    assert await arm(gate, at_epoch(bound, 6), told=told) == "lost"
    assert not await gate.has_bound(bound.id, 1)
    await put_bound(gate, bound, 1, {0: 1})
    assert await arm(gate, at_epoch(bound, 6), told=told) == "ok"
    assert not isinstance(await gate.status(bound, 0), Unarmed)
    words = await said(gate, bound, claim(2, code=number(1, 0)), claim(1, code=number(1, 0)))
    assert words == ["fcode_invalid", "held"]


@pytest.mark.parametrize(
    "over", [{"revoked": True}, {"expires_at": datetime.now(UTC) - HOUR}], ids=["revoked", "expired"]
)
async def test_of_a_batch_that_is_over_nobody_needs_the_list(gate: Gate, over: dict[str, Any]) -> None:
    """A rebuild may leave it out."""
    drop = at_epoch(make_drop(LANE), 1)
    told = Told([fcodes(1, bound=True, **over)])
    assert told.bound == []
    assert await arm(gate, drop, told=told) == "ok"
    assert await said(gate, drop, claim(1, code=number(1, 0))) == ["fcode_invalid"]


async def test_a_list_of_owners_that_is_not_whole_is_never_put_in_place(gate: Gate) -> None:
    """A part that was lost on the way is noticed by the count."""
    drop = at_epoch(make_drop(LANE), 1)
    staging = await gate.bound_begin(drop.id)
    assert await gate.bound_chunk(staging, bound_fields([(0, 1)]))
    assert not await gate.bound_finish(drop.id, 1, staging, fields=2, ttl_ms=1_000)
    assert not await gate.has_bound(drop.id, 1)
    assert await arm(gate, drop, told=Told([fcodes(bound=True)])) == "lost"
