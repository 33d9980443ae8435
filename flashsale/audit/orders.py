"""Orders (I13): one for each confirmation, one for each return, a job for each that waits; the shop knows them all."""

from typing import Final

from flashsale.audit.facts import Ledger, Order
from flashsale.audit.report import US, Check, Look, clock, count, unjudged, uuid_text
from flashsale.audit.units import named

_RECEIVED: Final = "what counts as delivered was received under its id"
STUCK_S: Final = 30.0


def one_each(ledger: Ledger) -> Check:
    """Orders against the states of their reservations, and jobs against orders."""
    look = Look("I13", "one order for each confirmation and each return, and a job for each that waits")
    of: dict[bytes, dict[str, list[Order]]] = {}
    states = {"queued": 0, "delivered": 0, "dead": 0}
    for order in ledger.orders.values():
        of.setdefault(order.reservation, {}).setdefault(order.event, []).append(order)
        states[order.state] = states.get(order.state, 0) + 1
        why = _misplaced(order, ledger.now)
        if why is not None:
            of_whom = named(ledger.rows[order.reservation])
            look.wrong(f"order {uuid_text(order.id)} of {of_whom} {why}", order.created)
    for row in ledger.rows.values():
        found = of.get(row.id, {})
        confirmed, returned = found.get("order.confirmed", []), found.get("order.returned", [])
        wanted = (int(row.state in {"confirmed", "returned"}), int(row.state == "returned"))
        if (len(confirmed), len(returned)) != wanted:
            look.wrong(
                f"{named(row)} is {row.state}, and has {count(len(confirmed), 'order.confirmed', 'order.confirmed')} "
                f"and {count(len(returned), 'order.returned', 'order.returned')}",
                row.created,
            )
        elif confirmed and confirmed[0].id != row.order:
            ours = uuid_text(row.order) if row.order else "none"
            look.wrong(f"{named(row)} names order {ours}, and its order is {uuid_text(confirmed[0].id)}", row.created)
        elif confirmed and (confirmed[0].amount, confirmed[0].currency) != (ledger.drop.price, ledger.drop.currency):
            look.wrong(
                f"order {uuid_text(confirmed[0].id)} of {named(row)} says {confirmed[0].amount} "
                f"{confirmed[0].currency} a unit, and the price is {ledger.drop.price} {ledger.drop.currency}",
                row.created,
            )
    for job in ledger.jobs_without_order:
        look.wrong(f"the queue has a job for order {job}, which is nowhere")
    told = ", ".join(f"{number:,} {state}" for state, number in states.items())
    return look.done(f"{count(len(ledger.orders), 'order')}: {told}")


def _misplaced(order: Order, now: int) -> str | None:
    """What is wrong with an order's jobs. One that is settled may keep its job for a while, until it is looked at."""
    if order.jobs > 1:
        return f"has {order.jobs} jobs in the queue"
    if order.state == "queued" and order.jobs == 0:
        return f"waits since {clock(order.queued)}, and has no job in the queue"
    if order.settled is not None and order.jobs and now - order.settled > STUCK_S * US:
        return f"is {order.state} since {clock(order.settled)}, and has a job in the queue"
    return None


class Deliveries:
    """What the shop received, by its own journal."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._look = Look("I13", _RECEIVED)
        self._accepted: set[bytes] = set()
        self._lines = 0
        self.strangers: dict[bytes, str] = {}

    def take(self, order: bytes | None, text: str, event: str | None, reservation: bytes | None, status: int) -> None:
        """One delivery: under which id, of what, and what the shop answered."""
        self._lines += 1
        found = self._ledger.orders.get(order) if order is not None else None
        if found is None or order is None:
            if order is None:
                self._look.wrong(f"the shop received {event} under the id {text}, which is none of ours")
            else:
                self.strangers[order] = text
            return
        if event is not None and event != found.event:
            self._look.wrong(f"the shop received {event} under order {text}, which is {found.event}", found.created)
        if reservation is not None and reservation != found.reservation:
            of = uuid_text(found.reservation)
            self._look.wrong(
                f"the shop received order {text} for {uuid_text(reservation)}; it is for {of}", found.created
            )
        if 200 <= status < 300:  # noqa: PLR2004 -- 2xx: accepted
            self._accepted.add(found.id)

    def check(self, elsewhere: set[bytes]) -> Check:
        """The line. `elsewhere`: those of the unknown orders that are other drops'."""
        if not self._lines:
            return unjudged("I13", _RECEIVED, "the journal has no deliveries")
        for order, text in self.strangers.items():
            if order not in elsewhere:
                self._look.wrong(f"the shop received order {text}, which is nowhere in the ledger")
        delivered = 0
        for found in self._ledger.orders.values():
            if found.state == "delivered":
                delivered += 1
                if found.id not in self._accepted:
                    of = named(self._ledger.rows[found.reservation])
                    self._look.wrong(
                        f"order {uuid_text(found.id)} of {of} counts as delivered at {clock(found.settled or 0)}, "
                        "and the shop never accepted it",
                        found.created,
                    )
        return self._look.done(f"{count(self._lines, 'delivery', 'deliveries')}, {delivered:,} orders delivered")


def queue_moves(ledger: Ledger) -> Check:
    """I16 for the queue: nobody who came later was served while an order that is due, or taken, lay there."""
    look = Look("I16", "no order is passed over by the queue")
    served = max(
        ((o.queued, o.settled) for o in ledger.orders.values() if o.state == "delivered" and o.settled is not None),
        default=None,
    )
    waiting = [o for o in ledger.orders.values() if o.state == "queued"]
    for order in waiting:
        since = order.job_taken if order.job_taken is not None else order.job_due
        if served is None or since is None:
            continue
        queued, settled = served
        if queued > since and settled - since > STUCK_S * US:
            lies = "is taken by a worker that is silent" if order.job_taken is not None else "is due"
            look.wrong(
                f"order {uuid_text(order.id)} of {named(ledger.rows[order.reservation])} {lies} since {clock(since)}, "
                f"and one of {clock(queued)} was delivered at {clock(settled)}",
                order.created,
            )
    oldest = min((o.queued for o in waiting), default=None)
    since_s = "" if oldest is None else f", the oldest for {(ledger.now - oldest) / US:.0f} s"
    return look.done(f"{count(len(waiting), 'order')} waiting{since_s}")
