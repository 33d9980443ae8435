"""What must hold at every moment of a schedule, checked after each thing that a store did, and at each answer.

It reads the stores' state and what people heard, and knows nothing of how the product goes about it. The numbers are
those of the invariants that the product promises (I1 … I16); `ANSWER` is a request that took too long, `FAULT` is
something that nobody foresaw.
"""

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from fcodes import CODES_PER_BATCH_MAX
from flashsale.domain import LIVE, SPENDING, Claim, Decision, Event, Grant, Payment, Points, Refusal, State, Withheld
from tests.ledger.model_rows import AllocationRow, ReservationRow, Tables
from tests.simulation.gatecheck import check_gate
from tests.simulation.opening import Code
from tests.simulation.plan import DROP
from tests.simulation.processes import Answer
from tests.simulation.stores import NOON, NOON_MS, GateServer

if TYPE_CHECKING:
    from tests.simulation.world import World

ENDINGS: Final = {
    State.HELD: {State.CONFIRMED, State.CANCELLED, State.EXPIRED},
    State.CONFIRMED: {State.RETURNED},
}
MILLISECOND: Final = timedelta(milliseconds=1)


def opens_ms(a: AllocationRow) -> int:
    """The first millisecond of the window."""
    return -((NOON - a.opens_at) // MILLISECOND) + NOON_MS


def closes_ms(a: AllocationRow) -> int:
    """The first millisecond after it."""
    return (a.closes_at - NOON) // MILLISECOND + NOON_MS


def _word(decision: Decision) -> str:
    if isinstance(decision, Refusal):
        return decision.verdict.value
    return "withheld" if isinstance(decision, Withheld) else "again" if decision.again else "grant"


class Seen:
    """What a member held when a button was pressed."""

    __slots__ = ("held", "since_s")

    def __init__(self, held: set[str], since_s: float) -> None:
        self.held = held
        self.since_s = since_s


class Checker:
    """The judge. `codes` are those that were minted, `acts` counts what operators were told is done."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._tables: Tables = world.ledger.model.tables
        self._rows: dict[str, ReservationRow] = {}
        self._granted: dict[str, tuple[int, int]] = {}
        self._wanted: set[tuple[str, str]] = set()
        self._keys: dict[tuple[int, str], str] = {}
        self._asked_under: dict[tuple[int, str], set[str]] = {}
        self._stale: dict[int, float] = {}
        self._acked: set[str] = set()
        self._by_key: dict[int, set[str]] = {}
        self.codes: list[Code] = []
        self._acted_for: set[str] = set()
        self.acts = 0

    def _bad(self, invariant: str, text: str) -> None:
        self._world.bad(invariant, text)

    # What stores did.

    def decided(self, server: GateServer, args: tuple[Any, ...], result: Any) -> None:  # noqa: ANN401 -- or UNARMED
        """The gate has decided claims: when, by its clock, each grant was made; and whether it was behind."""
        if not hasattr(result, "results"):
            return
        drop, _, claims, *_ = args
        now_s, stale = self._world.loop.time(), result.epoch != self._tables.drops[drop.id].epoch
        for claim, decision in zip(claims, result.results, strict=True):
            self._world.count(f"verdict {_word(decision)}")
            if stale:
                self._stale[claim.member] = now_s
            if isinstance(decision, Grant) and not decision.again:
                if decision.id in self._granted:
                    self._bad("I8", f"{decision.id} was granted twice")
                self._granted[decision.id] = (server.clock_ms(), result.epoch)
            if isinstance(decision, Refusal) and decision.verdict.value == "sold_out" and not stale:
                self._check_sold_out(claim, server.clock_ms())

    def asks(self, who: str, min_epoch: int, told: int) -> None:
        """A process asks the gate: one that it could know to be left behind must not answer it."""
        if min_epoch < told:
            self._bad("I11", f"{who} takes answers of epoch {min_epoch}, and was told that {told} has come")

    def _check_sold_out(self, claim: Claim, now_ms: int) -> None:
        allocation = self._tables.allocations.get((DROP, claim.allocation or ""))
        if allocation is not None and now_ms < opens_ms(allocation):
            self._bad("I11", f"m{claim.member} hears sold out of {allocation.id} before it opens")

    def look(self) -> None:
        """Something was written somewhere."""
        if self._world.violation is not None:
            return
        tables = self._tables
        changed = [r for i, r in tables.reservations.items() if self._rows.get(i) is not r]
        if changed:
            for row in changed:
                self._changed(self._rows.get(row.id), row)
                self._rows[row.id] = row
            self._check_rows()
        if len(tables.reservations) != len(self._rows):
            self._bad("I3", "a reservation has vanished from the ledger")
        check_gate(self._world)

    def _changed(self, before: ReservationRow | None, now: ReservationRow) -> None:
        if before is None:
            if now.state is State.HELD:
                self._check_new(now)
            elif now.state is not State.VOID:
                self._bad("I9", f"{now.id} begins as {now.state.value}")
            return
        self._world.count(f"became {now.state.value}", int(before.state is not now.state))
        if before.state is now.state:
            if before.released is True and now.released is not True:
                self._bad("I9", f"{now.id} is in the outbox again")
            return
        if now.state not in ENDINGS.get(before.state, ()):
            self._bad("I9", f"{now.id} was {before.state.value} and is {now.state.value}")
        clock = self._world.ledger.clock()
        if now.state is State.EXPIRED and clock < now.expires_at:
            self._bad("I9", f"{now.id} expires before its time")
        if now.state is State.CONFIRMED and clock >= now.expires_at:
            self._bad("I9", f"{now.id} is confirmed after its time")
        if now.state is not State.EXPIRED and (now.state.value, now.id) not in self._wanted:
            self._bad("I9", f"{now.id} is {now.state.value}, and nobody asked for that")

    def _check_new(self, row: ReservationRow) -> None:
        """A hold that was committed just now: everything that allows it holds at this moment."""
        drop, allocation = self._tables.drops[row.drop], self._tables.allocations[row.drop, row.allocation]
        self._world.count("committed")
        if drop.paused or drop.closed:
            self._bad("I14", f"{row.id} is committed while the drop is {'paused' if drop.paused else 'closed'}")
        granted = self._granted.get(row.id)
        if granted is None:
            self._bad("I1", f"{row.id} is committed, and no gate granted it")
        elif not opens_ms(allocation) <= granted[0] < closes_ms(allocation):
            self._bad("I10", f"{row.id} was granted outside the window of {allocation.id}")
        access = allocation.access
        if isinstance(access, Points) and self._world.plan.points.get(row.member, 0) < access.at_least:
            self._bad("I7", f"m{row.member} has too few points for {row.id}")
        if (row.code is not None) != allocation.sells_codes:
            self._bad("I6", f"{row.id} of {allocation.id} names the code {row.code}")
        if row.code is not None:
            self._check_code(row, row.code, allocation)

    def _check_code(self, row: ReservationRow, code: int, allocation: AllocationRow) -> None:
        number, serial = divmod(code, CODES_PER_BATCH_MAX)
        batch = self._tables.batches.get(number)
        if batch is None or serial >= batch.count or batch.allocation != allocation.id:
            self._bad("I6", f"{row.id} was given for {code}, which is no code of {allocation.id}")
        elif batch.revoked_at is not None or (number, serial) in self._tables.revoked:
            self._bad("I6", f"{row.id} was given for {code}, which is revoked")
        elif batch.bound and self._tables.bound[number, serial].member != row.member:
            self._bad("I6", f"{row.id} was given to m{row.member} for {code}, which is another member's")

    def _check_rows(self) -> None:
        """All reservations together."""
        units: Counter[str] = Counter()
        places: Counter[int] = Counter()
        codes: Counter[int] = Counter()
        keys: Counter[tuple[int, str]] = Counter()
        ordered = 0
        for r in self._tables.reservations.values():
            state = r.state
            if state in LIVE:
                units[r.allocation] += r.quantity
            if state in LIVE or r.keeps_slot:
                places[r.member] += r.quantity
            if r.code is not None and state in SPENDING:
                codes[r.code] += 1
            if r.key is not None and state is not State.VOID:
                keys[r.member, r.key] += 1
            ordered += state in {State.CONFIRMED, State.RETURNED}
        for a in self._tables.allocations.values():
            if units[a.id] > a.quantity:
                self._bad("I2", f"{a.id}: {units[a.id]} units are sold, and there are {a.quantity}")
            elif units[a.id] != a.taken:
                self._bad("I2", f"{a.id}: {units[a.id]} units are sold, and {a.taken} are counted")
        limit = self._tables.drops[DROP].per_member
        self._once("I5", places, limit, "m{} has more than the limit")
        self._once("I6", codes, 1, "code {} is spent twice")
        self._once("I8", keys, 1, "key {} has two reservations")
        orders = Counter(o.reservation for o in self._tables.orders.values() if o.event is Event.CONFIRMED)
        self._once("I13", orders, 1, "{} has two orders")
        if len(orders) != ordered:
            self._bad("I13", f"{ordered} reservations were confirmed, and there are {len(orders)} orders")
        jobs = self._world.ledger.model.queue.jobs
        lost = [o.id for o in self._tables.orders.values() if o.settled_at is None and o.id not in jobs]
        if lost:
            self._bad("I13", f"orders without a job: {lost}")
        self._check_payments()

    def _once(self, invariant: str, counts: Counter[Any], limit: int, text: str) -> None:
        for what, count in counts.items():
            if count > limit:
                self._bad(invariant, text.format(what) + f": {count}")

    def _check_payments(self) -> None:
        refunds = {o.payment for o in self._tables.orders.values() if o.event is Event.REFUND_DUE}
        for p in self._tables.payments.values():
            if p.applied == (p.id in refunds):
                self._bad("I9", f"payment {p.id} is {'applied and refunded' if p.applied else 'kept silently'}")

    # What people heard.

    def wants(self, state: str, reservation: str) -> None:
        """Somebody asks for that."""
        self._wanted.add((state, reservation))

    def before_press(self, claim: Claim) -> Seen:
        """What the member holds for sure, and this press would be answered with."""
        if claim.key is not None:
            self._asked_under.setdefault((claim.member, claim.key), set()).add(claim.payload)
        return Seen(self._holding(claim), self._world.loop.time())

    def _holding(self, claim: Claim) -> set[str]:
        found = set()
        for i in self._by_key.get(claim.member, ()):
            row = self._tables.reservations[i]
            if row.state not in LIVE:
                continue
            if claim.key is not None:
                same = row.key == claim.key
            else:
                same = self._tables.drops[DROP].per_member == 1 and claim.allocation in {None, row.allocation}
            if same:
                found.add(i)
        return found

    def after_press(self, claim: Claim, answer: Answer, seen: Seen) -> None:
        """An answer to a press."""
        if answer.status in {200, 201}:
            self._check_yes(claim, answer)
        elif answer.code == "idempotency_mismatch":
            if len(self._asked_under.get((claim.member, claim.key or ""), ())) < 2:
                self._bad("I8", f"m{claim.member} asks for nothing else under {claim.key}, and hears of a mismatch")
        elif answer.status == 409:
            stale = self._stale.get(claim.member, -1.0) >= seen.since_s
            if answer.code == "sold_out" and not stale:
                self._world.stock.check(claim, seen.since_s)
            kept = seen.held & self._holding(claim)
            if kept and not stale:
                self._bad("I8", f"m{claim.member} holds {sorted(kept)} and hears {answer.code}")

    def _check_yes(self, claim: Claim, answer: Answer) -> None:
        row = self._tables.reservations.get(answer.id or "")
        if row is None or row.state is State.VOID:
            self._bad("I3", f"m{claim.member} was told of {answer.id}, which the ledger does not have")
            return
        self._acked.add(row.id)
        self._by_key.setdefault(claim.member, set()).add(row.id)
        if row.member != claim.member or row.allocation != answer.allocation:
            self._bad("I8", f"m{claim.member} was told of {row.id}, which is not what was asked for")
        if answer.state not in {State.HELD, State.CONFIRMED} and (claim.key is None or row.key != claim.key):
            self._bad("I8", f"m{claim.member} pressed, and was told of {row.id}, which is {answer.state}")
        if answer.expires_at != row.expires_at:
            self._bad("I3", f"{row.id} ends at {row.expires_at}, and its member heard {answer.expires_at}")
        if claim.key is not None:
            if row.payload != claim.payload:
                self._bad("I8", f"m{claim.member} asked for {claim.payload} under {claim.key} and got {row.payload}")
            first = self._keys.setdefault((claim.member, claim.key), row.id)
            if first != row.id:
                self._bad("I8", f"m{claim.member} heard of {first} under {claim.key}, and now of {row.id}")

    def after_confirm(self, reservation: str, answer: Answer, paid: Payment | None) -> None:
        """An answer to a confirm."""
        if answer.status not in {200, 409}:
            return
        row = self._tables.reservations[reservation]
        if answer.status == 200:
            order = self._tables.orders.get(answer.order or "")
            if row.state not in {State.CONFIRMED, State.RETURNED} or order is None or row.order != answer.order:
                self._bad("I13", f"{reservation} was confirmed as {answer.order}; the ledger has {row.order}")
        if paid is not None and answer.code not in {"wrong_amount", "payment_taken", "not_found"}:
            stored = self._tables.payments.get(paid.id)
            if stored is None or stored.applied != (answer.status == 200):
                self._bad("I9", f"payment {paid.id} was answered {answer.code or answer.state}; stored: {stored}")

    def after_cancel(self, reservation: str, answer: Answer) -> None:
        """An answer to a cancel."""
        if answer.status == 200 and self._tables.reservations[reservation].state is not State.CANCELLED:
            self._bad("I9", f"{reservation} is not cancelled, and its member heard so")

    def acted(self, answer: Answer, once_for: str = "") -> None:
        """An answer to an operator. What is done for the same thing a second time is no other act."""
        if answer.status == 200 and once_for not in self._acted_for:
            self.acts += 1
            self._acted_for |= {once_for} - {""}
        if len(self._tables.audit) < self.acts:
            self._bad("I15", f"{self.acts} acts are acknowledged, and the log has {len(self._tables.audit)} lines")
