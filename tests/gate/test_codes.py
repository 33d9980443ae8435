"""F-codes in the gate: which are honoured, and how they are spent, freed and known again."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st

from fcodes import BATCH_MAX, CODES_PER_BATCH_MAX, SERIAL_MAX
from flashsale.domain import Claim, Drop, Fcode, Grant, Refusal
from flashsale.gate import UNARMED, Decisions, Gate, Unarmed, keys
from flashsale.gate.codes import pack_fields
from tests.gate.model_rules import Codes
from tests.gate.support import (
    TTL_MS,
    Told,
    arm,
    armed,
    at_epoch,
    entry,
    fcodes,
    number,
    put_bound,
    said,
)
from tests.support import allocation, claim, make_drop

LANE = allocation("codes", 1_000, access=Fcode())
PUBLIC = allocation("public", 0)
"""Sold out: whoever gets a unit got it for the code."""
HOUR = timedelta(hours=1)
BORDERS = [0, 1, 7, 8, 9, 63, 64, 991, 992, 999, 1_000, 1_001, 1_999, 2_000, 65_535, 65_536, SERIAL_MAX - 1, SERIAL_MAX]


async def granted(gate: Gate, drop: Drop, asked: Claim) -> Grant:
    """The unit that this claim gets."""
    decided = await gate.decide(drop, 0, [asked])
    assert isinstance(decided, Decisions)
    (grant,) = decided.results
    assert isinstance(grant, Grant)
    return grant


async def test_a_code_gets_the_unit_that_was_set_aside_for_it(gate: Gate) -> None:
    """Named or not, though everything else is sold out; the grant tells which code it was given for."""
    drop = await armed(gate, PUBLIC, LANE, told=Told([fcodes(1), fcodes(2**20 - 1)]))
    for member, code, name in ((1, number(1, 7), None), (2, number(BATCH_MAX, 49), "codes")):
        grant = await granted(gate, drop, claim(member, name, key="k", code=code))
        assert (grant.allocation, grant.code, grant.payload) == ("codes", code, f"{name or ''}|1|{code}")
        again = await granted(gate, drop, claim(member, name, key="k", code=code))
        assert again == msgspec.structs.replace(grant, again=True)
    waiting = await gate.pending(drop.id, older_than_ms=0, limit=9)
    assert not isinstance(waiting, Unarmed)
    assert {grant.code for grant in waiting} == {number(1, 7), number(BATCH_MAX, 49)}


REFUSED: dict[str, tuple[dict[str, Any], Claim]] = {
    "none at a lane for codes": ({}, claim(1, "codes")),
    "one at another allocation": ({}, claim(1, "public", code=number(1, 0))),
    "a batch that the drop does not have": ({}, claim(1, code=number(2, 0))),
    "batch 0": ({}, claim(1, code=0)),
    "a batch of another lane": ({}, claim(1, "other", code=number(1, 0))),
    "a serial that was never minted": ({}, claim(1, code=number(1, 50))),
    "the last serial there can be": ({}, claim(1, code=number(1, SERIAL_MAX))),
    "for two units": ({}, claim(1, quantity=2, code=number(1, 0))),
    "an expired batch": ({"expires_at": datetime.now(UTC) - timedelta(seconds=1)}, claim(1, code=number(1, 0))),
    "one that expired before there were computers": (
        {"expires_at": datetime(1900, 1, 1, tzinfo=UTC)},
        claim(1, code=number(1, 0)),
    ),
    "a revoked batch": ({"revoked": True}, claim(1, code=number(1, 0))),
    "a revoked code": ({}, claim(1, code=number(1, 3))),
    "somebody else's": ({"bound": True}, claim(1, code=number(1, 4))),
    "nobody's": ({"bound": True}, claim(1, code=number(1, 5))),
    "nobody's, at the end of the list": ({"bound": True}, claim(1, code=number(1, 49))),
}


@pytest.mark.parametrize("why", REFUSED)
async def test_a_code_that_does_not_fit_is_invalid(gate: Gate, why: str) -> None:
    """One answer for whatever is wrong with it; it spends nothing, neither the code nor a unit."""
    change, asked = REFUSED[why]
    drop = at_epoch(make_drop(allocation("public"), LANE, allocation("other", access=Fcode()), per_member=2), epoch=1)
    await put_bound(gate, drop, 1, {0: 1, 4: 2, 6: 1})
    told = Told([fcodes(**change)], revoked=[number(1, 3)])
    assert await arm(gate, drop, told=told) == "ok"
    assert await said(gate, drop, asked) == ["fcode_invalid"]
    status = await gate.status(drop, 0)
    assert not isinstance(status, Unarmed)
    assert status.available == {"public": 10, "codes": 1_000, "other": 10}
    assert await arm(gate, at_epoch(drop, 2), told=Told([fcodes()])) == "ok"
    assert await said(gate, drop, claim(1, code=number(1, 0))) == ["held"], "the same drop, with all in order"


async def test_two_lanes_honour_their_own_batches(gate: Gate) -> None:
    """Each code finds its lane by itself, and no other."""
    drop = await armed(
        gate,
        allocation("a", access=Fcode()),
        allocation("b", access=Fcode()),
        per_member=9,
        told=Told([fcodes(1, "a"), fcodes(2, "b")]),
    )
    assert [(await granted(gate, drop, claim(7, code=number(n, 0)))).allocation for n in (1, 2)] == ["a", "b"]
    asked = [claim(8, lane, code=number(batch, 1)) for lane in ("a", "b", "ghost") for batch in (1, 2, 3)]
    assert await said(gate, drop, *asked) == [
        *("held", "fcode_invalid", "fcode_invalid"),
        *("fcode_invalid", "held", "fcode_invalid"),
        *("not_found", "not_found", "not_found"),
    ]


async def test_a_batch_of_an_allocation_that_is_not_there_opens_nothing(gate: Gate) -> None:
    """Not the public lane either."""
    drop = await armed(gate, allocation("public"), LANE, told=Told([fcodes(1, "gone")]))
    assert await said(gate, drop, claim(1, code=number(1, 0)), claim(1, "codes", code=number(1, 0))) == [
        "fcode_invalid",
        "fcode_invalid",
    ]


async def test_of_two_that_show_a_code_in_one_call_the_first_gets_the_unit(gate: Gate) -> None:
    """The call sees its own grants; who shows a code of their own beside them is not disturbed."""
    drop = await armed(gate, LANE, told=Told([fcodes()]))
    asked = [claim(1, code=number(1, 0)), claim(2, code=number(1, 0)), claim(3, code=number(1, 1))]
    assert await said(gate, drop, *asked) == ["held", "fcode_spent", "held"]
    assert await said(gate, drop, claim(2, code=number(1, 1)), claim(2, code=number(1, 2))) == ["fcode_spent", "held"]


async def test_codes_count_under_the_members_limit(gate: Gate) -> None:
    """In both directions; a code that was refused for it is not spent. A code is no second right."""
    drop = await armed(gate, allocation("public"), LANE, per_member=2, told=Told([fcodes()]))
    one, two, three = (number(1, n) for n in range(3))
    asked = [claim(1), claim(1, code=one), claim(1, code=two), claim(1, "public"), claim(2, code=two)]
    assert await said(gate, drop, *asked) == ["held", "held", "member_limit", "member_limit", "held"]
    assert await said(gate, drop, claim(2, code=three), claim(3, code=three)) == ["held", "fcode_spent"]


@pytest.mark.parametrize("keep", [False, True])
async def test_a_released_unit_frees_its_code_unless_it_was_used_up(gate: Gate, keep: bool) -> None:
    """A hold that ends gives the code back; a returned unit does not; and releasing again changes nothing."""
    drop = await armed(gate, LANE, told=Told([fcodes()]), per_member=2)
    freed, used = [await granted(gate, drop, claim(1, code=number(1, n))) for n in (0, 1)]
    for _ in range(2):
        kept = [freed.id, used.id] if keep else []
        assert await gate.release(drop.id, [(freed.id, 1), (used.id, 1)], keep=kept, spent=[used.id]) == drop.epoch
    assert await said(gate, drop, claim(2, code=number(1, 1)), claim(2, code=number(1, 0))) == ["fcode_spent", "held"]
    assert await gate.release(drop.id, [(freed.id, 1)]) == drop.epoch
    assert await said(gate, drop, claim(3, code=number(1, 0))) == ["fcode_spent"], "another's now"
    expected = "member_limit" if keep else "held"
    assert await said(gate, drop, claim(1, code=number(1, 2))) == [expected]


@pytest.mark.parametrize("serial", BORDERS)
async def test_a_code_is_spent_and_freed_without_touching_its_neighbours(gate: Gate, serial: int) -> None:
    """At the borders of a byte, of a field, and of all serials."""
    drop = await armed(gate, LANE, told=Told([fcodes(1, count=CODES_PER_BATCH_MAX)]))
    near = {serial + step for step in (-1_000, -8, -1, 1, 8, 1_000)}
    beside = sorted(n for n in near if 0 <= n <= SERIAL_MAX)
    grant = await granted(gate, drop, claim(1, code=number(1, serial)))
    others = [await granted(gate, drop, claim(n + 2, code=number(1, s))) for n, s in enumerate(beside)]
    assert await said(gate, drop, *(claim(99, code=number(1, s)) for s in (serial, *beside))) == ["fcode_spent"] * (
        1 + len(beside)
    )
    assert await gate.release(drop.id, [(grant.id, 1)]) == drop.epoch
    assert await said(gate, drop, *(claim(99, code=o.code) for o in others)) == ["fcode_spent"] * len(others)
    assert await said(gate, drop, claim(99, code=number(1, serial))) == ["held"]


async def test_every_code_of_a_batch_is_spent_once_in_any_order(gate: Gate) -> None:
    """2,100 codes over three fields, in calls of 256."""
    codes = [number(3, serial) for serial in range(2_100)]
    random.Random(3).shuffle(codes)
    drop = await armed(gate, allocation("codes", 2_100, access=Fcode()), told=Told([fcodes(3, count=2_100)]))
    for at in range(0, len(codes), 256):
        asked = [claim(at + n + 1, code=code) for n, code in enumerate(codes[at : at + 256])]
        assert set(await said(gate, drop, *asked)) == {"held"}
    random.Random(4).shuffle(codes)
    words = await said(gate, drop, *(claim(9_999, code=code) for code in codes))
    assert set(words) == {"fcode_spent"}


async def test_a_rebuild_knows_what_is_spent_and_what_is_revoked(gate: Gate) -> None:
    """Over several fields and batches; live reservations keep their codes, and free them when they end."""
    dice = random.Random(5)
    batches = [fcodes(batch, count=5_000) for batch in (1, 2)]
    codes = [number(b, serial) for b in (1, 2) for serial in range(5_000)]
    spent, revoked = set(dice.sample(codes, 3_000)), set(dice.sample(codes, 3_000))
    drop = at_epoch(make_drop(allocation("codes", 10_000, access=Fcode())), 1)
    live = min(spent - revoked)
    entries = {7: [entry("r7", "codes", payload=f"|1|{live}", code=live)]}
    assert await arm(gate, drop, entries=entries, told=Told(batches, spent, revoked)) == "ok"
    words = await said(gate, drop, *(claim(n + 100, code=code) for n, code in enumerate(codes)))
    expected = ["fcode_invalid" if c in revoked else "fcode_spent" if c in spent else "held" for c in codes]
    assert words == expected
    assert await said(gate, drop, claim(7, code=live)) == ["held"], "the same one again"
    assert await gate.release(drop.id, [("r7", 7)]) == 1
    assert await said(gate, drop, claim(8, code=live)) == ["held"]


async def test_codes_expire_to_the_millisecond_of_the_servers_clock(gate: Gate) -> None:
    """Honoured until then, and not from then on: asked until it has passed."""
    words = await words_until_the_code_ends(gate, datetime.now(UTC) + timedelta(seconds=0.5))
    for lead_s in (5, 30):
        if words[0] != "held":  # arming took longer than that
            words = await words_until_the_code_ends(gate, datetime.now(UTC) + timedelta(seconds=lead_s))
    assert words[0] == "held"


async def words_until_the_code_ends(gate: Gate, ends: datetime) -> list[str]:
    """What is heard of one that ends then, each word checked by the gate's own clock."""
    drop = await armed(gate, LANE, told=Told([fcodes(1, expires_at=ends), fcodes(2, expires_at=ends + HOUR)]))
    ends_ms = (ends - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    words: list[str] = []
    async with asyncio.timeout(120):
        while "fcode_invalid" not in words:
            decided = await gate.decide(drop, 0, [claim(1, code=number(1, 0)), claim(2, code=number(2, 0))])
            assert isinstance(decided, Decisions)
            word, later = [r.verdict.value if isinstance(r, Refusal) else "held" for r in decided.results]
            assert (word, later) == ("held" if decided.now_ms < ends_ms else "fcode_invalid", "held")
            assert await gate.release(drop.id, [(r.id, r.member) for r in decided.results if isinstance(r, Grant)])
            words.append(word)
            await asyncio.sleep(0.002)
    return words


async def test_codes_that_are_lost_half_way_are_not_put_in_place(gate: Gate, valkey: "redis.asyncio.Redis") -> None:
    """Else spent codes would be honoured again: too few fields, a staging that was lost, or another server's."""
    drop = at_epoch(make_drop(LANE), 1)
    fields = Told([fcodes()], spent=[number(1, 0)]).fields
    staging = keys.staging(drop.id, 0, "codes-1")
    assert await gate.arm_begin(drop.id, 1) == "ok"
    assert await gate.arm_codes(drop.id, 1, fields[:2])
    assert await gate.arm_finish(drop, 0, {"codes": 9}, codes=2, ttl_ms=TTL_MS) == "lost"
    assert await valkey.unlink(staging) == 1
    assert not await gate.arm_codes(drop.id, 1, fields[2:])
    assert await gate.arm_finish(drop, 0, {"codes": 9}, codes=0, ttl_ms=TTL_MS) == "lost"
    assert await gate.arm_begin(drop.id, 1) == "ok"
    assert await gate.arm_codes(drop.id, 1, fields)
    await valkey.hset(staging, "#", "0" * 40)
    assert await gate.arm_finish(drop, 0, {"codes": 9}, codes=2, ttl_ms=TTL_MS) == "lost"
    assert await gate.decide(drop, 0, [claim(1)]) is UNARMED
    assert await gate.arm_begin(drop.id, 1) == "ok"
    assert await gate.arm_codes(drop.id, 1, fields)
    assert await gate.arm_finish(drop, 0, {"codes": 9}, codes=2, ttl_ms=TTL_MS) == "ok"
    assert await said(gate, drop, claim(1, code=number(1, 0))) == ["fcode_spent"]


async def test_a_full_server_still_frees_codes(gate: Gate, valkey: "redis.asyncio.Redis") -> None:
    """To release makes room, and must work when there is none."""
    drop = await armed(gate, LANE, told=Told([fcodes()]))
    grant = await granted(gate, drop, claim(1, code=number(1, 0)))
    await valkey.config_set("maxmemory", 1)
    try:
        assert await gate.release(drop.id, [(grant.id, 1)]) == drop.epoch
    finally:
        await valkey.config_set("maxmemory", 0)
    assert await said(gate, drop, claim(2, code=number(1, 0))) == ["held"]


@pytest.mark.parametrize("count", [256, 4_001, 9_000])
async def test_calls_with_any_number_of_codes_and_batches_are_decided_whole(gate: Gate, count: int) -> None:
    """Each of another batch: a key for every one of them."""
    drop = await armed(
        gate, allocation("codes", count, access=Fcode()), told=Told([fcodes(n + 1, count=1) for n in range(count)])
    )
    asked = [claim(n + 1, code=number(n + 1, 0)) for n in range(count)]
    assert await said(gate, drop, *asked) == ["held"] * count


# The forms in which codes are handed over.

NUMBERS = st.sets(st.builds(number, st.integers(0, BATCH_MAX), st.integers(0, SERIAL_MAX)), max_size=30)
DENSE = st.sets(st.builds(number, st.sampled_from([0, 7]), st.integers(0, 2_100)), max_size=300)


@given(spent=NUMBERS | DENSE, revoked=NUMBERS | DENSE)
def test_bitmaps_say_what_they_were_made_of(spent: set[int], revoked: set[int]) -> None:
    """As the model reads them, which reads what the gate writes."""
    fields = [text.encode() if isinstance(text, str) else text for text in Told(spent=spent, revoked=revoked).fields]
    read = Codes.read({name.decode(): value for name, value in zip(fields[::2], fields[1::2], strict=True)})
    assert (read.spent, read.revoked) == (spent, revoked)
    assert all(0 < len(value) <= 125 and value[-1] for value in fields[1::2])
    assert len(set(fields[::2])) == len(fields) // 2


@given(texts=st.lists(st.binary(max_size=20) | st.integers(0, 70_000).map(bytes), max_size=20))
def test_packed_fields_are_read_as_they_were(texts: list[bytes]) -> None:
    """By whoever reads MessagePack: strings of any length, not one of them binary."""
    decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])
    packed = pack_fields(texts)
    assert [unstring(bytes(raw)) for raw in decoder.decode(packed)] == texts


def unstring(raw: bytes) -> bytes:
    """The bytes of one MessagePack string."""
    head = {0xD9: 2, 0xDA: 3, 0xDB: 5}.get(raw[0], 1)
    assert raw[0] in {0xD9, 0xDA, 0xDB} or raw[0] >> 5 == 0b101
    return raw[head:]
