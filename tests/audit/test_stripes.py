"""A striped drop under the auditor: true when it is, and each thing that can be wrong between stripes is named."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import asyncpg
import pytest
from redis.asyncio import Redis

from flashsale import embedded
from flashsale.audit import Report, audit
from flashsale.domain import Drop, Fcode
from flashsale.gate import keys
from flashsale.reservations import Held
from tests.audit.world import batches_of, codes_of
from tests.ledger.support import new_database
from tests.support import Node, allocation, claim, make_drop, make_node, members_at

STRIPES = 3
HOME = 2
"""Of those whose units are elsewhere."""


class Striped:
    """A sale in which some units had to be fetched, and hands at both stores."""

    def __init__(self, node: Node, drop: Drop, url: str, redis_url: str, redis: "Redis") -> None:
        self.node = node
        self.drop = drop
        self.url = url
        self.redis_url = redis_url
        self.redis = redis
        self.walked: dict[int, Held] = {}
        self.code_number = 0

    async def audit(self) -> Report:
        """Without waiting."""
        return await audit(self.drop.id, database_url=self.url, redis_url=self.redis_url, settle_s=0.0)

    def key(self, name: str, stripe: int) -> str:
        """A key of one stripe."""
        found: str = getattr(keys.stripe(self.drop.id, stripe), name)
        return found

    @property
    def member(self) -> int:
        """One whose unit is elsewhere."""
        return min(self.walked)


@pytest.fixture
async def sale(urls: embedded.Servers) -> AsyncIterator[Striped]:
    """A crowd of one home takes all units; codes; then one is cancelled, and one confirmed and returned."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(new_database(urls.database_url))
        node = await make_node(urls, database_url=url)
        stack.push_async_callback(node.aclose)
        redis: Redis = await stack.enter_async_context(Redis.from_url(urls.redis_url))
        lanes = (allocation("public", 6), allocation("vip", 3, access=Fcode()))
        drop = await node.operations.create(make_drop(*lanes, stripes=STRIPES), actor="member:1", detail={})
        made = Striped(node, drop, url, urls.redis_url, redis)
        batches = batches_of(node)
        given = {"expires_at": None, "note": None, "actor": "member:1"}
        batch = await batches.mint(drop.id, "vip", count=3, **given)  # type: ignore[arg-type]
        made.code_number, second, third = await codes_of(batches, batch)
        await batches.revoke(batch.id, serials=[third & 0x3FFFFF], to=None, reason="lost", actor="member:1")
        for member in members_at(HOME, STRIPES, 6):
            held = await node.reservations.reserve(drop.id, claim(member))
            assert isinstance(held, Held)
            if held.grant.elsewhere:
                made.walked[member] = held
        assert len(made.walked) == 4
        shows = [(HOME, made.code_number), (1, second)]
        for home, code in shows:
            [member] = members_at(home, STRIPES, 1, first=1_000)
            assert isinstance(await node.reservations.reserve(drop.id, claim(member, code=code)), Held)
        for at, held in enumerate([*made.walked.values()][2:]):
            stored = await node.ledger.reservations.get(held.grant.id)
            assert stored is not None
            if at == 0:
                await node.reservations.cancel(stored)
            else:
                await node.reservations.confirm(stored.id, member=stored.member)
                await node.operations.take_back(stored.id, restock=True, to=None, reason="", actor="member:1")
        await node.reservations.drain()
        for stripe in range(STRIPES):
            waiting = await node.gate.pending(drop.id, older_than_ms=0, limit=99, stripe=stripe)
            assert isinstance(waiting, list)
            await node.gate.settle(drop.id, [(g.id, g.member) for g in waiting], stripe=stripe)
        yield made


async def test_a_striped_sale_is_found_true(sale: Striped) -> None:
    """All stripes are read: every unit has one place, and every claim, wherever its unit is."""
    report = await sale.audit()
    assert [check.contradiction for check in report.checks if check.contradictions] == []
    unheard = {"there is no journal of what was heard"}
    assert {check.found for check in report.checks if not check.judged} == unheard
    assert report.at_rest
    [public, vip] = report.balance
    assert (public.available, public.held, public.balanced) == (2, 4, True)
    assert (vip.available, vip.held, vip.balanced) == (1, 2, True)
    assert any("3 stripes" in check.found for check in report.checks)


async def _home_forgets(sale: Striped) -> None:
    await sale.redis.hdel(sale.key("ent", HOME), str(sale.member))


async def _unit_is_gone(sale: Striped) -> None:
    await sale.redis.hdel(sale.key("ent", sale.walked[sale.member].grant.unit_stripe), str(sale.member))


async def _both_hold_the_unit(sale: Striped) -> None:
    """The claim says that it has the unit, too."""
    line = await sale.redis.hget(sale.key("ent", HOME), str(sale.member))
    assert isinstance(line, bytes)
    await sale.redis.hset(sale.key("ent", HOME), str(sale.member), line.removesuffix(b"@"))


async def _a_third_stripe_has_it(sale: Striped) -> None:
    """The same entry where neither claim nor unit is."""
    unit = sale.walked[sale.member].grant.unit_stripe
    [third] = {0, 1, 2} - {HOME, unit}
    line = await sale.redis.hget(sale.key("ent", unit), str(sale.member))
    assert isinstance(line, bytes)
    await sale.redis.hset(sale.key("ent", third), str(sale.member), line)


async def _one_more_on_one_stripe(sale: Striped) -> None:
    await sale.redis.hincrby(sale.key("meta", 1), "n:public", 1)


async def _a_unit_for_codes_elsewhere(sale: Striped) -> None:
    """The sum is right, and no code will find it."""
    await sale.redis.hincrby(sale.key("meta", 0), "n:vip", -1)
    await sale.redis.hincrby(sale.key("meta", 1), "n:vip", 1)


async def _a_bit_on_another_stripe(sale: Striped) -> None:
    await sale.redis.hset(sale.key("codes", 1), f"s:{sale.code_number >> 22}:0", b"\x01")


async def _one_stripe_would_honour_a_revoked_code(sale: Striped) -> None:
    await sale.redis.hdel(sale.key("codes", HOME), f"r:{sale.code_number >> 22}:0")


async def _one_stripe_does_not_know_the_batch(sale: Striped) -> None:
    await sale.redis.hdel(sale.key("codes", 1), f"b:{sale.code_number >> 22}")


async def _one_stripe_is_of_another_epoch(sale: Striped) -> None:
    await sale.redis.hincrby(sale.key("meta", 1), "epoch", 1)


async def _the_row_names_another_stripe(sale: Striped) -> None:
    connection = await asyncpg.connect(sale.url)
    try:
        change = "UPDATE reservations SET unit_stripe = home_stripe WHERE id = $1"
        await connection.execute(change, sale.walked[sale.member].grant.id)
    finally:
        await connection.close()


Plant = Callable[[Striped], Awaitable[None]]
PLANTS: list[tuple[Plant, str, str]] = [
    (_home_forgets, "I1", "the gate has 1 entry, not 2, of it"),
    (_unit_is_gone, "I1", "the gate has 1 entry, not 2, of it"),
    (_unit_is_gone, "I1", "units"),
    (_both_hold_the_unit, "I1", "unit elsewhere is False in the gate and True in the ledger"),
    (_both_hold_the_unit, "I1", "of 6 units"),
    (_a_third_stripe_has_it, "I1", "by the ledger it has nothing on stripe"),
    (_one_more_on_one_stripe, "I1", "make 7 of 6 units"),
    (_a_unit_for_codes_elsewhere, "I10", "n:vip is b'1' in the gate, stripe 1, and by the ledger it is b'0'"),
    (_a_bit_on_another_stripe, "I6", "is spent on stripe 1 of the gate, where no code can be"),
    (_one_stripe_would_honour_a_revoked_code, "I6", "not revoked in the gate, and it is in the ledger (stripe 2)"),
    (_one_stripe_does_not_know_the_batch, "I6", "is None in the gate (stripe 1)"),
    (_one_stripe_is_of_another_epoch, "I16", "the gate, stripe 1, is of epoch"),
    (_the_row_names_another_stripe, "I1", "by the ledger it has nothing on stripe"),
]


@pytest.mark.parametrize(("plant", "invariant", "sentence"), PLANTS)
async def test_what_is_wrong_between_stripes_is_named(
    sale: Striped, plant: Plant, invariant: str, sentence: str
) -> None:
    """One thing at a time."""
    await plant(sale)
    report = await sale.audit()
    said = [c.contradiction or "" for c in report.checks if c.invariant == invariant and c.contradictions]
    assert any(sentence in one for one in said), said
