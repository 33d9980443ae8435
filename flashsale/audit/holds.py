"""What was said is so (I3), and a hold ends once (I9): rows, orders and payments against the times and the journal."""

from typing import Final

from flashsale.audit.facts import ENDED, Heard, Ledger, Order, Payment, Row
from flashsale.audit.report import US, Check, Look, clock, count, heard, uuid_text
from flashsale.audit.units import named

EXPIRY_SLACK_S: Final = 1.0
"""Between the look at the clock that lets a hold be confirmed and the time that its order is stamped with."""


def states(ledger: Ledger) -> Check:
    """I9 in the ledger alone: a hold ends when it may, and is confirmed before."""
    look = Look("I9", "a hold ends once: confirmed in time, or expired when it was due")
    hold_us, ended, confirmed = ledger.drop.hold_s * US, 0, 0
    confirmed_at = {o.reservation: o.created for o in ledger.orders.values() if o.event == "order.confirmed"}
    for row in ledger.rows.values():
        if row.state == "void":
            continue
        if row.expires > row.created + hold_us:
            look.wrong(f"{named(row)} is held for longer than {ledger.drop.hold_s} s", row.created)
        if row.state in ENDED:
            ended += 1
            if row.ended is None or row.ended < row.created:
                look.wrong(f"{named(row)} is {row.state} and ended before it began", row.created)
            elif row.state == "expired" and row.ended < row.expires:
                look.wrong(f"{named(row)} expired at {clock(row.ended)}, due at {clock(row.expires)}", row.created)
        at = confirmed_at.get(row.id)
        if row.state in {"confirmed", "returned"} and at is not None:
            confirmed += 1
            if at > row.expires + EXPIRY_SLACK_S * US:
                look.wrong(
                    f"{named(row)} was confirmed at {clock(at)}, after its end at {clock(row.expires)}", row.created
                )
    return look.done(f"{count(ended, 'end')}, {count(confirmed, 'confirmation')}")


def payments(ledger: Ledger) -> Check:
    """I9 for money: what was applied has confirmed its reservation, at its price; the rest is owed back, once."""
    look = Look("I9", "no money is kept silently")
    refunds: dict[str, list[Order]] = {}
    paid_orders: dict[str, Order] = {}
    for order in ledger.orders.values():
        if order.payment is None:
            continue
        if order.event == "payment.refund_due":
            refunds.setdefault(order.payment, []).append(order)
        elif order.event == "order.confirmed":
            paid_orders[order.payment] = order
    back = 0
    for paid in ledger.payments:
        row, due = ledger.rows[paid.reservation], refunds.pop(paid.id, [])
        back += len(due)
        why = _applied(ledger, paid, row, paid_orders.get(paid.id), due) if paid.applied else _late(paid, due)
        if why is not None:
            look.wrong(f"payment {paid.id} for {named(row)}: {why}", paid.received)
    for payment, due in refunds.items():
        look.wrong(f"order {uuid_text(due[0].id)} owes payment {payment} back, which nobody received", due[0].created)
    return look.done(f"{count(len(ledger.payments), 'payment')}, {back:,} owed back")


def _applied(ledger: Ledger, paid: Payment, row: Row, order: Order | None, due: list[Order]) -> str | None:
    price, currency = ledger.drop.price * row.quantity, ledger.drop.currency
    if due:
        return "it was applied, and is owed back"
    if row.state not in {"confirmed", "returned"}:
        return f"it was applied, and the reservation is {row.state}"
    if order is None or order.reservation != row.id:
        return "it was applied, and no order of its reservation names it"
    if (paid.amount, paid.currency) != (price, currency):
        return f"it is {paid.amount} {paid.currency}, and the price is {price} {currency}"
    return None


def _late(paid: Payment, due: list[Order]) -> str | None:
    if len(due) != 1:
        return f"it came too late, and {len(due)} orders say that it is owed back"
    if (due[0].amount, due[0].currency, due[0].reservation) != (paid.amount, paid.currency, paid.reservation):
        return f"what is owed back is {due[0].amount} {due[0].currency}, not {paid.amount} {paid.currency}"
    return None


def acknowledged(ledger: Ledger, lost: dict[bytes, str]) -> Check:
    """I3: every reservation that somebody heard of is in the ledger, in a state that what was heard explains.

    `lost`: reservations that were acknowledged and are not there, with who heard so.
    """
    look, said, ended = Look("I3", "what was acknowledged is in the ledger, and its state has a cause"), 0, 0
    for text in lost.values():
        said += 1
        look.wrong(text)
    for row in ledger.rows.values():
        note = row.heard
        if note is None or not note.acknowledged:
            continue
        said += 1
        ended += row.state in ENDED
        why = _contradicts(row, note)
        if why is not None:
            look.wrong(f"{named(row)} is {row.state} in the ledger, and {why}", row.created)
    return look.done(f"{count(said, 'reservation')} acknowledged, {ended:,} of them ended since")


def _contradicts(row: Row, note: Heard) -> str | None:
    if row.state == "void":
        return "was acknowledged"
    if note.confirmed_heard is not None and row.state not in {"confirmed", "returned"}:
        return f"was said to be confirmed at {heard(note.confirmed_heard)}"
    if note.ended_heard is not None and row.state != note.ended:
        return f"was said to be {note.ended} at {heard(note.ended_heard)}"
    if row.state == "cancelled" and not note.cancel_asked:
        return "nobody asked to cancel it"
    if row.state in {"confirmed", "returned"} and note.confirm_sent is None and note.confirmed_heard is None:
        return "nobody asked to confirm it"
    return None


def heard_in_order(ledger: Ledger, offset_s: tuple[float, float]) -> Check:
    """I9 as it was heard: states follow one another, and nothing is confirmed after its end.

    `offset_s`: the ledger's clock is so far ahead of the journal's, at least and at most.
    """
    look, looked = Look("I9", "what was heard of a hold follows in order, and nothing was confirmed after its end"), 0
    for row in ledger.rows.values():
        note = row.heard
        if note is None:
            continue
        looked += 1
        why = None
        if note.ended_heard is not None and _after(note.held_sent, note.ended_heard):
            why = f"was said to be {note.ended} at {heard(note.ended_heard)}, and held to who asked after that"
        elif note.ended_heard is not None and _after(note.confirmed_sent, note.ended_heard):
            why = f"was said to be {note.ended} at {heard(note.ended_heard)}, and confirmed to who asked after that"
        elif note.confirmed_heard is not None and _after(note.held_sent, note.confirmed_heard):
            why = f"was said to be confirmed at {heard(note.confirmed_heard)}, and held to who asked after that"
        elif note.ended == "cancelled" and note.confirmed_heard is not None:
            why = "was said to be confirmed, and to be cancelled"
        elif note.confirmed_heard is not None and note.confirm_sent is not None:
            earliest = note.confirm_sent + offset_s[0] - EXPIRY_SLACK_S
            if earliest * US > row.expires:
                why = (
                    f"was confirmed for who asked at {heard(note.confirm_sent)} for the first time, "
                    f"after its end at {clock(row.expires)}"
                )
        if why is not None:
            look.wrong(f"{named(row)} {why}", row.created)
    return look.done(f"{count(looked, 'reservation')}")


def _after(asked: float | None, told: float) -> bool:
    return asked is not None and asked > told
