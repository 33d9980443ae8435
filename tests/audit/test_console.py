"""The auditor knows the console's acts (held drops, moves, the switch of F-codes), and notices one without its line."""

from collections.abc import AsyncIterator

import asyncpg
import msgspec
import pytest

from fcodes import Keys, new_master
from flashsale import embedded
from flashsale.audit import Report, audit
from flashsale.batches import Batches
from flashsale.domain import Drop, Fcode, Refusal, Verdict
from flashsale.reservations import Held
from tests.support import Node, allocation, claim, make_drop

ACTOR = "member:9"


@pytest.fixture
async def postgres(urls: embedded.Servers) -> AsyncIterator[asyncpg.Connection]:
    """A plain connection."""
    connection = await asyncpg.connect(urls.database_url)
    yield connection
    await connection.close()


async def sold(node: Node) -> tuple[Drop, Batches]:
    """Held, released, units moved, codes stopped and started, some sold in between."""
    drop = make_drop(allocation("a", 4), allocation("b", 0), allocation("lane", 2, access=Fcode()))
    drop = await node.operations.create(
        msgspec.structs.replace(drop, held=True),
        actor=ACTOR,
        detail={"hold": True, "allocations": drop.allocations},
    )
    assert await node.reservations.reserve(drop.id, claim(1)) == Refusal(Verdict.PAUSED)
    await node.operations.switch(drop.id, "resume", actor=ACTOR, missing=["fulfilment"])
    assert isinstance(await node.reservations.reserve(drop.id, claim(1, "a")), Held)
    await node.operations.move_units(drop.id, "a", "b", 3, actor=ACTOR)
    assert isinstance(await node.reservations.reserve(drop.id, claim(2, "b")), Held)
    keys = Keys.parse(new_master(bytes(range(32))))
    batches = Batches(ledger=node.ledger, keys=keys, after=node.operations.after, now=lambda: drop.created_at)
    await batches.mint(drop.id, "lane", count=2, expires_at=None, note=None, actor=ACTOR)
    await batches.switch(drop.id, stopped=True, reason="leak", actor=ACTOR)
    return drop, batches


async def look(urls: embedded.Servers, drop: Drop) -> Report:
    """An audit of the two stores."""
    return await audit(drop.id, database_url=urls.database_url, redis_url=urls.redis_url, settle_s=10)


def wrong(report: Report) -> list[str]:
    """What contradicts."""
    return [f"{c.invariant}: {c.contradiction}" for c in report.checks if c.contradiction]


async def test_the_console_s_acts_are_accounted_for(node: Node, urls: embedded.Servers) -> None:
    """With F-codes stopped, by the drop's own switch and by that of all, and honoured again."""
    drop, batches = await sold(node)
    report = await look(urls, drop)
    assert (wrong(report), report.balanced) == ([], True)
    assert [b.quantity for b in report.balance] == [1, 3, 2]
    await batches.switch(drop.id, stopped=False, reason="all clear", actor=ACTOR)
    await batches.switch_all(stopped=True, reason="leak", actor=ACTOR)
    assert wrong(await look(urls, drop)) == []
    await batches.switch_all(stopped=False, reason="all clear", actor=ACTOR)
    assert wrong(await look(urls, drop)) == []


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DELETE FROM audit WHERE subject = $1 AND action = 'allocation.move'", "quantity of a is 1"),
        ("DELETE FROM audit WHERE subject = $1 AND action = 'drop.resume'", "paused"),
        ("DELETE FROM audit WHERE subject = $1 AND action = 'fcodes.stop'", "refusing its F-codes"),
    ],
)
async def test_an_act_without_its_line_is_noticed(
    node: Node, urls: embedded.Servers, postgres: asyncpg.Connection, statement: str, says: str
) -> None:
    """I15, by name."""
    drop, _ = await sold(node)
    await postgres.execute(statement, drop.id)
    found = [text for text in wrong(await look(urls, drop)) if text.startswith("I15")]
    assert len(found) == 1
    assert says in found[0]
