"""How a sale is set up before anything goes wrong: the snapshot, the drop, the codes."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fcodes import CODES_PER_BATCH_MAX
from flashsale.ledger.points import Snapshot
from tests.simulation.plan import CODES, DROP, LATE_MEMBER, SNAPSHOT
from tests.simulation.stores import NOON

if TYPE_CHECKING:
    from tests.simulation.world import World


@dataclass(frozen=True)
class Code:
    """An F-code: its number, and whose it is when it is bound."""

    number: int
    owner: int | None


async def open_sale(world: "World") -> None:
    """Everything an operator does beforehand, through the first web process."""
    plan, web = world.plan, world.webs[0]
    world.ledger.model.points.put(Snapshot(SNAPSHOT, NOON, len(plan.points)), plan.points)
    await web.spawn(web.operations.create(plan.drop, actor="operator", detail={}))
    world.checker.acts += 1
    if plan.codes:
        await mint(world, plan.codes)


async def mint(world: "World", count: int) -> None:
    """A batch of codes; when they are bound, the members take turns, and the last one belongs to a late member."""
    plan, web = world.plan, world.webs[0]
    owners = [1 + serial % plan.members for serial in range(count - 1)] + [LATE_MEMBER]

    async def rows() -> AsyncIterator[bytes]:
        yield "".join(f"{serial},{owner},\n" for serial, owner in enumerate(owners)).encode()

    if plan.bound:
        minting = web.batches.mint_bound(DROP, CODES, rows(), expires_at=None, note=None, actor="operator")
    else:
        minting = web.batches.mint(DROP, CODES, count=count, expires_at=None, note=None, actor="operator")
    batch = await web.spawn(minting)
    world.checker.acts += 1
    first = batch.id * CODES_PER_BATCH_MAX
    world.checker.codes += [Code(first + serial, owners[serial] if plan.bound else None) for serial in range(count)]
