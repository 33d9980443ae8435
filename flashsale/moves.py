"""Units that change their allocation, within an operator's act: all of it, or none."""

from typing import Any

import msgspec

from flashsale.domain import QUANTITY_MAX
from flashsale.errors import Refused
from flashsale.ledger import Act


class Moved(msgspec.Struct, frozen=True):
    """An allocation's units before or after a move; `free`: neither taken nor set aside for an F-code."""

    id: str
    quantity: int
    taken: int
    free: int


async def move(act: Act, giver: str, taker: str, count: int) -> tuple[list[Moved], list[Moved]]:
    """Let so many free units change from one allocation to the other; both as they were, and as they are then."""
    order = (giver, taker)
    if giver == taker:
        raise Refused("invalid_request", "`from` and `to` are the same allocation; name two.")
    before = {name: await act.lock_allocation(name) for name in sorted(order)}
    for name, row in before.items():
        if row is None:
            raise Refused("not_found", f"Drop {act.drop_id!r} has no allocation {name!r}.")
    free = _moved(before[giver]).free
    if free < count:
        raise Refused(
            "conflict",
            f"{free} units of {giver!r} are free: neither taken nor set aside for an F-code; move at most so many.",
            free=free,
        )
    if before[taker]["quantity"] + count > QUANTITY_MAX:
        raise Refused("conflict", f"{taker!r} would have over {QUANTITY_MAX} units; move fewer.")
    await act.move_units(giver, taker, count)
    after = {name: await act.lock_allocation(name) for name in sorted(order)}
    return [_moved(before[name]) for name in order], [_moved(after[name]) for name in order]


def _moved(row: Any) -> Moved:  # noqa: ANN401 -- asyncpg's Record is untyped
    return Moved(row["id"], row["quantity"], row["taken"], row["quantity"] - row["taken"] - row["alive"])
