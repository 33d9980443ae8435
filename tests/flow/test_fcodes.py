"""F-codes from mint to order: always honoured, never twice, never by somebody else, whatever happens to the gate."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from fcodes import Code, Keys, read
from flashsale.batches import Batches
from flashsale.domain import Claim, Confirmation, Drop, Fcode, Refusal, State, Verdict
from flashsale.errors import Refused
from flashsale.ledger import Batch
from flashsale.owners import owners_of
from flashsale.reservations import Held, Known
from tests.flow.faults import at_rest, press
from tests.support import NewDrop, Node, allocation, claim, until

KEYS = Keys({0: bytes(range(32))})
INVALID, SPENT = Refusal(Verdict.FCODE_INVALID), Refusal(Verdict.FCODE_SPENT)


@pytest.fixture
def batches(node: Node) -> Batches:
    return Batches(ledger=node.ledger, keys=KEYS, after=node.operations.after, now=lambda: datetime.now(UTC))


async def lane(new_drop: NewDrop, *, codes: int = 50, public: int = 200, per_member: int = 1) -> Drop:
    """A drop with units for the public and a lane for F-codes."""
    return await new_drop(allocation("public", public), allocation("vip", codes, access=Fcode()), per_member=per_member)


async def minted(batches: Batches, drop: Drop, count: int, **more: object) -> Batch:
    given = {"expires_at": None, "note": None} | more
    return await batches.mint(drop.id, "vip", count=count, actor="member:1", **given)  # type: ignore[arg-type]


async def bound(batches: Batches, drop: Drop, *members: int) -> Batch:
    async def body() -> AsyncIterator[bytes]:
        yield b"member_id,note\n" + b"".join(b"%d,friend\n" % m for m in members)

    return await batches.mint_bound(
        drop.id, "vip", owners_of(body()), expires_at=None, note="friends", actor="member:1"
    )


async def codes_of(batches: Batches, batch: Batch) -> list[int]:
    """The numbers of a batch's codes, as its export has them."""
    _, lines = await batches.export(batch.id, actor="member:1", reason="test")
    text = b"".join([part async for part in lines]).decode()
    codes = [read(line.split(",")[0], KEYS) for line in text.splitlines()[1:]]
    return [code.number for code in codes if isinstance(code, Code)]


def shows(member: int, code: int | None, name: str | None = None, *, key: str | None = None) -> Claim:
    """A press with a code."""
    return Claim(member, name, 1, key, 0, code)


async def test_a_code_buys_its_unit_when_all_else_is_sold_out(node: Node, new_drop: NewDrop, batches: Batches) -> None:
    """The rush takes no unit that was set aside, and the code needs no allocation to be named."""
    drop = await lane(new_drop, codes=2, public=3)
    first, second = await codes_of(batches, await minted(batches, drop, 2))
    rush = await asyncio.gather(*(press(node, drop.id, claim(m)) for m in range(100, 120)))
    assert sum(isinstance(r, Held) for r in rush) == 3
    named = await press(node, drop.id, claim(1, "vip"))
    assert named == INVALID, "the lane is not for who has no code"
    won = [await press(node, drop.id, shows(m, c, name)) for m, c, name in ((1, first, None), (2, second, "vip"))]
    assert all(isinstance(w, Held) for w in won)
    assert await at_rest(node, drop.id) == {"public": 0, "vip": 0}


async def test_what_becomes_of_a_code(node: Node, new_drop: NewDrop, batches: Batches) -> None:
    """Spent while held; free again when that ends; spent for good when confirmed, also when the unit comes back."""
    drop = await lane(new_drop)
    batch = await minted(batches, drop, 1)
    [code] = await codes_of(batches, batch)
    held = await press(node, drop.id, shows(1, code, key="k"))
    assert isinstance(held, Held)
    assert isinstance(await press(node, drop.id, shows(1, code, key="k")), Known)
    assert await press(node, drop.id, shows(2, code)) == SPENT
    found = await node.ledger.reservations.get(held.grant.id)
    assert found is not None
    assert found.code == code
    await node.reservations.cancel(found)
    await node.reservations.drain()
    again = await press(node, drop.id, shows(2, code))
    assert isinstance(again, Held)
    assert (await node.reservations.confirm(again.grant.id, member=2)).outcome is Confirmation.CONFIRMED
    assert await press(node, drop.id, shows(3, code)) == SPENT
    await node.operations.take_back(again.grant.id, restock=True, to=None, reason="scratched", actor="member:1")
    for _ in range(2):
        assert await press(node, drop.id, shows(3, code)) == SPENT
        await node.arming.arm(drop.id, force=True)
    counts = await node.ledger.fcodes.counts(batch.id)
    assert (counts.held, counts.confirmed, counts.returned, counts.revoked) == (0, 0, 1, 0)
    [spent] = await node.ledger.fcodes.spent(batch.id, -1, 10)
    assert (spent.member, spent.state) == (2, State.RETURNED)
    assert await at_rest(node, drop.id) == {"public": 200, "vip": 50}


async def test_who_is_not_honoured(node: Node, new_drop: NewDrop, batches: Batches) -> None:
    """Another drop's, another allocation's, nobody's, an expired and a revoked one: all sound the same."""
    drop, other = await lane(new_drop), await lane(new_drop)
    good = await minted(batches, drop, 3)
    first, second, third = await codes_of(batches, good)
    [elsewhere] = await codes_of(batches, await minted(batches, other, 1))
    soon = await minted(batches, drop, 1, expires_at=datetime.now(UTC) + timedelta(hours=1))
    [expired] = await codes_of(batches, soon)
    sql = "UPDATE fcode_batches SET expires_at = now() - interval '1 s' WHERE id = $1"
    await node.ledger._pools[0].execute(sql, soon.id)
    await node.arming.arm(drop.id, force=True)
    await batches.revoke(good.id, serials=[1], to=None, reason="lost", actor="member:1")
    nobodys = good.id << 22 | 3
    for code in (elsewhere, expired, second, nobodys, 2**20 - 1 << 22):
        assert await press(node, drop.id, shows(1, code)) == INVALID, code
    assert await press(node, drop.id, shows(1, first, "public")) == INVALID
    assert isinstance(await press(node, drop.id, shows(1, first)), Held)
    assert await press(node, drop.id, shows(1, third, "vip", key="other")) == Refusal(Verdict.MEMBER_LIMIT)


async def test_the_same_key_with_another_code_is_another_request(
    node: Node, new_drop: NewDrop, batches: Batches
) -> None:
    drop = await lane(new_drop)
    first, second = await codes_of(batches, await minted(batches, drop, 2))
    assert isinstance(await press(node, drop.id, shows(1, first, key="k")), Held)
    mismatch = Refusal(Verdict.IDEMPOTENCY_MISMATCH)
    assert await press(node, drop.id, shows(1, second, key="k")) == mismatch
    assert await press(node, drop.id, shows(1, None, key="k")) == mismatch


async def test_a_bound_code_is_its_members_alone(node: Node, new_drop: NewDrop, batches: Batches) -> None:
    """Also of members whose ids do not fit a double; also after the gate was lost; others hear only `fcode_invalid`."""
    drop = await lane(new_drop)
    members = (7, 2**53 + 1, 2**63 - 1)
    batch = await bound(batches, drop, *members)
    codes = await codes_of(batches, batch)
    assert len(codes) == 3
    await node.gate._client.execute_command("FLUSHALL")
    for member, code in zip(members, codes, strict=True):
        for stranger in (8, member - 1):
            assert await press(node, drop.id, shows(stranger, code)) == INVALID
        assert isinstance(await press(node, drop.id, shows(member, code)), Held)
        assert await press(node, drop.id, shows(8, code)) == INVALID, "spent is nobody else's business"
    mine = await batches.mine(7, None, 10)
    assert [(c.state, c.own.serial, c.own.note) for c in mine if c.own.batch.id == batch.id] == [("held", 0, "friend")]
    shown = read(mine[0].code, KEYS)
    assert isinstance(shown, Code)
    assert shown.number == codes[0]


async def test_never_more_codes_than_units(node: Node, new_drop: NewDrop, batches: Batches) -> None:
    """Taken units and codes that may still be spent leave the rest; an allocation does not shrink below them."""
    drop = await lane(new_drop, codes=10)
    first = await minted(batches, drop, 6)
    codes = await codes_of(batches, first)
    assert isinstance(await press(node, drop.id, shows(1, codes[0])), Held)
    for count, allocation_id, code in ((5, "vip", "conflict"), (1, "public", "conflict"), (1, "none", "not_found")):
        with pytest.raises(Refused) as refused:
            await batches.mint(drop.id, allocation_id, count=count, expires_at=None, note=None, actor="member:1")
        assert refused.value.code == code
    from flashsale.drops import AllocationChange  # noqa: PLC0415 -- used here alone

    with pytest.raises(Refused, match="5 are set aside"):
        await node.operations.change_allocation(drop.id, "vip", AllocationChange(quantity=5), actor="member:1")
    await minted(batches, drop, 4)
    done = await batches.revoke(first.id, serials=None, to=None, reason="club dissolved", actor="member:1")
    assert done.revoked == 5
    assert await press(node, drop.id, shows(2, codes[1])) == INVALID
    stays = await press(node, drop.id, shows(1, codes[0], "vip"))
    assert isinstance(stays, Known), "what was reserved before stands"
    await minted(batches, drop, 5)
    with pytest.raises(Refused):
        await minted(batches, drop, 1)


async def test_the_units_of_revoked_codes_go_to_the_public(node: Node, new_drop: NewDrop, batches: Batches) -> None:
    drop = await lane(new_drop, codes=5, public=1)
    batch = await minted(batches, drop, 5)
    codes = await codes_of(batches, batch)
    assert isinstance(await press(node, drop.id, shows(1, codes[4])), Held)
    done = await batches.revoke(batch.id, serials=[0, 1, 4], to="public", reason="stolen", actor="member:1")
    assert done.revoked == 2, "the third was spent"
    assert await at_rest(node, drop.id) == {"public": 3, "vip": 2}
    quantities = {b.id: b.quantity for b in await node.operations.balance(drop.id)}
    assert quantities == {"public": 3, "vip": 3}
    again = await batches.revoke(batch.id, serials=[0, 1, 4], to="public", reason="again", actor="member:1")
    assert again.revoked == 0
    with pytest.raises(Refused, match="serials 0 to 4"):
        await batches.revoke(batch.id, serials=[5], to=None, reason="x", actor="member:1")
    lines = [a.action for a in await node.operations.audit(f"{drop.id}/vip", None, 10)]
    assert lines == ["fcodes.revoke", "fcodes.revoke", "fcodes.export", "fcodes.mint"]


async def test_fifty_codes_five_hundred_members_ten_presses_at_once(
    node: Node, new_drop: NewDrop, batches: Batches
) -> None:
    """Exactly fifty reservations, one a code and member, through a FLUSHALL as well."""
    drop = await lane(new_drop, codes=50)
    codes = await codes_of(batches, await minted(batches, drop, 50))
    presses = [(member, codes[member % 50]) for member in range(1, 501)]
    random.Random(3).shuffle(presses)

    held = "SELECT count(*) FROM reservations WHERE drop_id = $1"

    async def flush() -> None:
        for wanted in (1, 20):

            async def reached(wanted: int = wanted) -> bool:
                return int(await node.ledger._pools[1].fetchval(held, drop.id)) >= wanted

            await until(reached, f"{wanted} are reserved")
            await node.gate._client.execute_command("FLUSHALL")

    answers, _ = await asyncio.gather(asyncio.gather(*(press(node, drop.id, shows(m, c)) for m, c in presses)), flush())
    won = [a.grant for a in answers if isinstance(a, Held)]
    assert len(won) == len({g.member for g in won}) == len({g.code for g in won}) == 50
    assert {a.verdict for a in answers if isinstance(a, Refusal)} == {Verdict.FCODE_SPENT}
    sql = "SELECT count(*), count(DISTINCT fcode), count(DISTINCT member) FROM reservations WHERE drop_id = $1"
    row = await node.ledger._pools[0].fetchrow(f"{sql} AND state = 'held'", drop.id)
    assert tuple(row) == (50, 50, 50)
    await node.arming.arm(drop.id)
    assert (await at_rest(node, drop.id))["vip"] == 0


async def test_the_ledger_honours_a_code_once_when_the_gate_forgot(
    node: Node, new_drop: NewDrop, batches: Batches
) -> None:
    """The second lock: a gate whose bit was lost grants again, the ledger refuses, the gate is rebuilt."""
    drop = await lane(new_drop)
    [code] = await codes_of(batches, await minted(batches, drop, 1))
    assert isinstance(await press(node, drop.id, shows(1, code)), Held)
    from flashsale.gate import keys  # noqa: PLC0415 -- used here alone

    fields = await node.gate._client.execute_command("HKEYS", keys.stripe(drop.id).codes)
    lost = [f for f in fields if f.startswith(b"s:")]
    assert lost
    await node.gate._client.execute_command("HDEL", keys.stripe(drop.id).codes, *lost)
    assert await press(node, drop.id, shows(2, code)) == SPENT
    assert (await at_rest(node, drop.id))["vip"] == 49


async def test_without_the_key_nothing_is_minted_or_exported(node: Node, new_drop: NewDrop, batches: Batches) -> None:
    drop = await lane(new_drop)
    batch = await minted(batches, drop, 1)
    for keys, word in ((None, "FLASHSALE_FCODE_KEYS"), (Keys({0: bytes(range(1, 33))}), "put that key back")):
        other = Batches(ledger=node.ledger, keys=keys, after=node.operations.after, now=lambda: datetime.now(UTC))
        with pytest.raises(Refused, match=word):
            await other.export(batch.id, actor="member:1", reason=None)
    other = Batches(ledger=node.ledger, keys=None, after=node.operations.after, now=lambda: datetime.now(UTC))
    with pytest.raises(Refused, match="fcodes keygen"):
        await minted(other, drop, 1)
    rotated = Keys({0: bytes(range(32)), 1: bytes(range(1, 33))})
    newer = Batches(ledger=node.ledger, keys=rotated, after=node.operations.after, now=lambda: datetime.now(UTC))
    assert (await minted(newer, drop, 1)).key_version == 1
    assert len(await codes_of(newer, batch)) == 1, "old codes are made with the old key"
