"""Rows of Postgres as the structs of the domain."""

from collections.abc import Mapping
from typing import Any

import msgspec

from fcodes import CODES_PER_BATCH_MAX
from flashsale.domain import Allocation, Drop, Event, Money, Order, OrderState, Reservation, State, Texts

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
        rebuy_after_return=row["rebuy_after_return"],
        stripes=row["stripes"],
        texts=Texts() if row["texts"] is None else msgspec.json.decode(row["texts"], type=Texts),
        picture=row["picture"],
        held=row["held"],
        hidden=row["hidden"],
        fcodes_stopped=row["codes_stopped"],
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
        order=None if row["order_id"] is None else str(row["order_id"]),
        keeps_slot=row["keeps_slot"],
        code=row["fcode"],
        home=row["home_stripe"],
        unit=row["unit_stripe"],
    )


def order_of(row: Row) -> Order:
    """A row of order_load."""
    return Order(
        id=str(row["id"]),
        event=Event(row["event"]),
        state=OrderState(row["state"]),
        tries=row["tries"],
        created_at=row["created_at"],
        money=Money(row["amount"], row["currency"]),
        reservation=str(row["reservation_id"]),
        drop=row["drop_id"],
        allocation=row["allocation_id"],
        member=row["member"],
        quantity=row["quantity"],
        confirmed_as=None if row["order_id"] is None else str(row["order_id"]),
        payment_id=row["payment_id"],
        fcode_batch=None if row["fcode"] is None else row["fcode"] // CODES_PER_BATCH_MAX,
        detail={} if row["detail"] is None else msgspec.json.decode(row["detail"]),
        sink=row["sink"],
    )
