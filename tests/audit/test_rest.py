"""The auditor waits for rest, and no longer: what heals is no contradiction, what moves is not judged."""

import asyncio
import time
from pathlib import Path

import msgspec
import pytest

from flashsale import embedded
from flashsale.audit import Check, Report, UnknownDrop, audit
from flashsale.domain import Drop, Everyone, Fcode
from flashsale.drops import AllocationChange
from flashsale.gate import keys
from flashsale.reservations import Held
from tests.audit.world import OPERATOR, World, batches_of, codes_of
from tests.flow.faults import press
from tests.ledger.support import pool_of
from tests.support import Node, allocation, claim, make_drop


def of(report: Report, line: str) -> Check:
    """The check of that line."""
    return next(c for c in report.checks if c.line == line)


async def stores_only(stores: World | embedded.Servers, drop: str, settle_s: float = 0.0) -> Report:
    """An audit without a journal."""
    return await audit(drop, database_url=stores.database_url, redis_url=stores.redis_url, settle_s=settle_s)


async def test_it_waits_for_what_is_under_way(world: World, tmp_path: Path) -> None:
    """A grant is pending when it comes, and settled while it waits."""
    pend, said = keys.stripe(world.drop.id).pend, asyncio.Event()
    await world.redis.zadd(pend, {f"{world.ids['r14']}|14": time.time() * 1000})
    heard: list[str] = []

    def say(text: str) -> None:
        heard.append(text)
        said.set()

    task = asyncio.create_task(world.audit(tmp_path / "journal", settle_s=20.0, say=say))
    await said.wait()
    await world.redis.zrem(pend, f"{world.ids['r14']}|14")
    report = await task
    assert heard[0] == "waiting until nothing moves: 1 grant pending"
    assert (report.contradiction, report.at_rest) == (None, True)
    assert 0 < report.waited_s < 20


async def test_what_has_just_begun_is_in_motion_and_no_contradiction(world: World, tmp_path: Path) -> None:
    """A grant that is younger than the time that was allowed may still be settled."""
    pend, ahead = keys.stripe(world.drop.id).pend, time.time() * 1000 + 60_000
    await world.redis.zadd(pend, {f"{world.ids['r14']}|14": ahead})
    report = await world.audit(tmp_path / "journal", settle_s=0.1)
    rest = of(report, "nothing is left under way")
    assert (rest.judged, rest.found) == (False, "the sale is in motion: 1 grant pending")
    assert (report.contradiction, report.at_rest) == (None, False)


async def test_a_contradiction_that_heals_is_none(world: World, tmp_path: Path) -> None:
    """It is looked at again; one that is still there at rest is told without waiting any longer."""
    meta, reads = keys.stripe(world.drop.id).meta, 0
    await world.redis.hincrby(meta, "n:later", 1)
    healing: list[asyncio.Future[int]] = []

    def heal(text: str) -> None:
        nonlocal reads
        reads += text == "reading the ledger"
        if reads == 2 and not healing:
            healing.append(asyncio.ensure_future(world.redis.hincrby(meta, "n:later", -1)))

    report = await world.audit(tmp_path / "journal", settle_s=20.0, say=heal)
    assert (report.contradiction, reads >= 2) == (None, True)
    await world.redis.hincrby(meta, "n:later", 1)
    report = await world.audit(tmp_path / "journal", settle_s=60.0)
    assert report.contradiction is not None
    assert report.waited_s < 30


async def test_what_changes_while_it_is_read_is_not_judged(world: World, tmp_path: Path) -> None:
    """Units that come and go between the readings make no contradiction, and no word of truth either."""
    meta = keys.stripe(world.drop.id).meta
    moving: list[asyncio.Future[int]] = []

    def move(text: str) -> None:
        if text == "reading the gate":
            moving.append(asyncio.ensure_future(world.redis.hincrby(meta, "n:later", 1)))

    report = await world.audit(tmp_path / "journal", settle_s=0.0, say=move)
    sums = of(report, "what is left and what is held make the quantity")
    assert (sums.judged, sums.found.split(":")[0]) == (False, "the sale is in motion")
    assert report.contradiction is None


async def test_without_a_journal_it_judges_the_stores_alone(world: World) -> None:
    """What only a journal can tell is said not to be judged."""
    report = await stores_only(world, world.drop.id)
    assert report.contradiction is None
    assert {c.invariant for c in report.checks if not c.judged} == {"I3", "I4", "I11"}
    assert report.journal_lines is None


async def test_an_unknown_drop(world: World) -> None:
    with pytest.raises(UnknownDrop):
        await stores_only(world, "nowhere")


async def test_a_drop_that_is_long_over_needs_no_gate(world: World) -> None:
    """Its keys have gone by themselves; the ledger is judged alone."""
    drop = await world.node.operations.create(
        make_drop(allocation("a", 3, opens_in_s=-9_000, closes_in_s=-7_200)), actor=OPERATOR, detail={}
    )
    await world.redis.delete(*keys.stripe(drop.id))
    report = await stores_only(world, drop.id, settle_s=0.1)
    assert report.contradiction is None
    assert "the gate was not read: the drop is over, and the gate has forgotten it" in report.notes
    assert [(b.available, b.balanced) for b in report.balance] == [(None, True)]


async def sold(node: Node, drop: Drop, member: int, name: str, *, code: int | None = None) -> str:
    """A confirmed reservation."""
    held = await press(node, drop.id, claim(member, name, code=code))
    assert isinstance(held, Held)
    await node.gate.settle(drop.id, [(held.grant.id, member)])
    await node.reservations.confirm(held.grant.id, member=member)
    return held.grant.id


@pytest.mark.parametrize("told", [True, False], ids=["set up in the log", "set up before the log"])
async def test_the_log_accounts_for_every_way_in_which_units_move(
    node: Node, urls: embedded.Servers, told: bool
) -> None:
    """Resized, returned to the stock, to elsewhere, out of the sale, revoked to elsewhere; and some from nowhere."""
    operations = node.operations
    wanted = make_drop(
        allocation("a", 5, access=Everyone()), allocation("b", 2, access=Everyone()), allocation("c", 4, access=Fcode())
    )
    drop = await operations.create(wanted, actor=OPERATOR, detail=msgspec.to_builtins(wanted) if told else {})
    batches = batches_of(node)
    batch = await batches.mint(drop.id, "c", count=3, expires_at=None, note=None, actor=OPERATOR)
    spent = (await codes_of(batches, batch))[0]
    kept = [await sold(node, drop, member, "a") for member in (1, 2, 3)]
    await sold(node, drop, 4, "c", code=spent)
    for quantity in (9, 4):
        change = AllocationChange(quantity=quantity)
        await operations.change_allocation(drop.id, "a", change, actor=OPERATOR)
    for reservation, to in zip(kept, (None, "b", None), strict=True):
        await operations.take_back(
            reservation, restock=reservation != kept[2], to=to, reason="scratched", actor=OPERATOR
        )
    await batches.revoke(batch.id, serials=[1, 2], to="b", reason="lost", actor=OPERATOR)
    report = await stores_only(urls, drop.id)
    assert report.contradiction is None
    assert {b.id: b.quantity for b in report.balance} == {"a": 2, "b": 5, "c": 2}
    change_quantity = "UPDATE allocations SET quantity = 6 WHERE drop_id = $1 AND id = 'a'"
    await pool_of(node.ledger).execute(change_quantity, drop.id)
    wrong = of(await stores_only(urls, drop.id), "the audit log accounts for what the tables say").contradiction
    assert wrong == "quantity of a is 6, and the log accounts for 2"


async def test_who_holds_a_unit_hears_of_it_whatever_code_is_shown(
    node: Node, urls: embedded.Servers, tmp_path: Path
) -> None:
    """With a limit of one, a press without a key is the same one again: no answer of another code, no code refused."""
    wanted = make_drop(allocation("a", 2), allocation("c", 2, access=Fcode()))
    drop = await node.operations.create(wanted, actor=OPERATOR, detail=msgspec.to_builtins(wanted))
    batches = batches_of(node)
    batch = await batches.mint(drop.id, "c", count=1, expires_at=None, note=None, actor=OPERATOR)
    [code] = await codes_of(batches, batch)
    await node.catalog.reload(drop.id)
    sale = World(node, urls.database_url, urls.redis_url, drop)
    assert await sale.reserve(1, "a") == "held"
    assert await sale.reserve(1, None, code=code) == "again"
    assert await sale.reserve(2, None, code=code) == "held"
    assert await sale.reserve(3, None, code=code) == "fcode_spent"
    await node.gate.settle(drop.id, [(sale.ids[f"r{member}"], member) for member in (1, 2)])
    report = await sale.audit(tmp_path / "journal")
    assert report.contradiction is None
