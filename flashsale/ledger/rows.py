"""Rows of Postgres as the structs of the domain."""

from collections.abc import Mapping
from typing import Any

import msgspec

from flashsale.domain import Allocation, Drop, Money, Reservation, State

Row = Mapping[str, Any]


def drop_of(row: Row) -> Drop:
    """A row of drop_list."""
    list_amount = row["list_price_amount"]
    return Drop(
        id=row["id"],
        title=row["title"],
        price=Money(row["price_amount"], row["currency"]),
        list_price=None if list_amount is None else Money(list_amount, row["list_price_currency"]),
        per_member=row["per_member"],
        hold_seconds=row["hold_seconds"],
        epoch=row["epoch"],
        paused=row["paused"],
        closed=row["closed"],
        allocations=msgspec.json.decode(row["allocations"], type=tuple[Allocation, ...]),
        created_at=row["created_at"],
    )


def reservation_of(row: Row) -> Reservation:
    """A row of reservations."""
    return Reservation(
        id=str(row["id"]),
        drop=row["drop_id"],
        allocation=row["allocation_id"],
        member=row["member"],
        quantity=row["quantity"],
        state=State(row["state"]),
        expires_at=row["expires_at"],
        created_at=row["created_at"],
        key=row["idempotency_key"],
        payload=row["payload"],
    )
