"""The gate's decisions in plain Python: what it knows of a drop while it answers, and the first reason to refuse."""

import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec

from fcodes import CODES_PER_BATCH_MAX
from flashsale.domain import Allocation, Claim, Decision, Drop, Fcode, Grant, Refusal, Tier, Verdict, Withheld
from flashsale.eligibility import contains, gate_field
from flashsale.gate import Fetched

PRECEDENCE = {verdict: rank for rank, verdict in enumerate(Verdict)}
Fields = dict[str, bytes]


@dataclass(frozen=True)
class Entry:
    """A unit or more that a member has in the gate."""

    id: str
    member: int
    allocation: str
    quantity: int
    slot: int
    key: str | None
    payload: str
    code: int | None
    elsewhere: bool = False
    """The unit is on another stripe: this is the claim."""

    @classmethod
    def read(cls, member: int, line: str) -> "Entry":
        """The entry in the form in which the ledger hands it over."""
        entry_id, allocation, quantity, slot, key, payload, code = line.split("\t")
        number = int(code.rstrip("@")) if code.rstrip("@") else None
        apart = code.endswith("@")
        return cls(entry_id, member, allocation, int(quantity), int(slot), key or None, payload, number, apart)


@dataclass(frozen=True)
class Batch:
    """Codes of one allocation; `expires_ms` 0: they never do."""

    allocation: str
    expires_ms: int
    revoked: bool
    count: int
    bound: bool

    def over(self, now: int) -> bool:
        """Whether none of its codes is honoured any more."""
        return self.revoked or 0 < self.expires_ms <= now


@dataclass
class Codes:
    """What a drop's gate knows of F-codes: its batches by id, and numbers of codes."""

    batches: dict[int, Batch] = field(default_factory=dict)
    spent: set[int] = field(default_factory=set)
    revoked: set[int] = field(default_factory=set)

    @classmethod
    def read(cls, fields: Fields) -> "Codes":
        """Out of the fields of the gate's hash, without its sentinel."""
        codes = cls()
        for name, value in fields.items():
            kind, batch, *thousand = name.split(":")
            if kind == "b":
                allocation, expires_ms, revoked, count, bound = msgspec.msgpack.decode(value)
                codes.batches[int(batch)] = Batch(allocation, expires_ms, revoked == 1, count, bound == 1)
            else:
                first = int(batch) * CODES_PER_BATCH_MAX + int(thousand[0]) * 1_000
                bits = ((8 * at + bit, byte >> bit & 1) for at, byte in enumerate(value) if byte for bit in range(8))
                numbers = {first + lo for lo, is_set in bits if is_set}
                (codes.spent if kind == "s" else codes.revoked).update(numbers)
        return codes


@dataclass
class Meta:
    """How the gate was armed: for which epoch, on which server, for which configuration, and what is left."""

    replid: int
    drop: Drop
    left: dict[str, int]
    bound: frozenset[int]


@dataclass
class Armed:
    """What is at hand of an armed gate while a call is answered; `bound` by batch, as far as it is there."""

    meta: Meta
    entries: dict[int, list[Entry]]
    pending: dict[tuple[str, int], int]
    codes: Codes
    stripe: int
    now: int
    eligible: dict[str, Fields] = field(default_factory=dict)
    bound: dict[int, Fields] = field(default_factory=dict)
    grants_left: int = 0
    elsewhere: dict[str, tuple[int, int]] | None = None
    """Of a striped drop: how many units other stripes may have, and the most of one of them."""
    short: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def grant(self, e: Entry, *, again: bool = False, pending: bool = True) -> Grant:
        """What a caller hears of an entry."""
        at = (self.meta.drop.epoch, self.stripe)
        told = (e.id, e.member, e.allocation, e.quantity, e.slot, e.key, e.payload)
        return Grant(*told, *at, again, pending, e.code, e.elsewhere)

    def entry(self, entry_id: str, member: int) -> Entry | None:
        """The entry with that id, if this member has it."""
        return next((e for e in self.entries.get(member, []) if e.id == entry_id), None)

    def batch(self, claim: Claim) -> Batch | None:
        """The batch of the claim's code, if this drop has it."""
        return None if claim.code is None else self.codes.batches.get(claim.code // CODES_PER_BATCH_MAX)

    def lists_are_there(self, claims: Iterable[Claim]) -> bool:
        """Whether it is known whose the codes are that are shown and may be honoured."""
        wanted = ((claim, self.batch(claim)) for claim in claims)
        return all(
            claim.code // CODES_PER_BATCH_MAX in self.bound
            for claim, batch in wanted
            if claim.code is not None and batch is not None and batch.bound and not batch.over(self.now)
        )

    def may_be_elsewhere(self, name: str, quantity: int) -> bool:
        """Whether so many units may be had from one other stripe."""
        return self.elsewhere is not None and min(self.elsewhere.get(name, (0, 0))) >= quantity

    def decide(self, new_id: str, claim: Claim, *, place: int = 0, spent: Collection[int] = ()) -> Decision:
        """A decision, and what it changes; `spent` are the places of claims whose codes were seen spent elsewhere."""
        drop, mine = self.meta.drop, self.entries.get(claim.member, [])
        same = _same_again(drop.per_member, mine, claim)
        if same is not None and claim.key is not None and same.payload != claim.payload:
            return Refusal(Verdict.IDEMPOTENCY_MISMATCH)
        if same is not None:
            return self.grant(same, again=True, pending=(same.id, same.member) in self.pending)
        refusals, short = [], []
        for allocation in _asked_for(self, claim):
            used, is_spent = sum(e.quantity for e in mine), place in spent
            refusal = _judge(self, allocation, claim, used=used, spent=is_spent)
            if refusal is None:
                return self._give(new_id, allocation, claim)
            refusals.append(refusal)
            short += [allocation.id] if refusal.verdict is Verdict.SOLD_OUT else []
        said_plainly = len(short) == len(refusals) and (claim.code is None or claim.allocation is not None)
        if short and self.elsewhere is not None and not said_plainly:
            self.short[place] = tuple(short)
        if refusals:
            return min(refusals, key=lambda r: (PRECEDENCE[r.verdict], r.opens_at_ms or 0))
        return Refusal(_without_candidates(drop, claim))

    def _give(self, new_id: str, a: Allocation, c: Claim) -> Grant | Withheld:
        if self.grants_left == 0:
            return Withheld()
        self.grants_left -= 1
        mine = self.entries.setdefault(c.member, [])
        slot = next(n for n in itertools.count(1) if all(e.slot != n for e in mine))
        apart = self.meta.left[a.id] < c.quantity
        given = Entry(new_id, c.member, a.id, c.quantity, slot, c.key, c.payload, c.code, apart)
        mine.append(given)
        self.pending[given.id, given.member] = self.now
        if apart:
            assert self.elsewhere is not None
            total, most = self.elsewhere[a.id]
            self.elsewhere[a.id] = total - c.quantity, most
        else:
            self.meta.left[a.id] -= c.quantity
            self.codes.spent |= set() if c.code is None else {c.code}
        return self.grant(given)

    def take(self, g: Grant) -> Fetched:
        """The unit of a claim that stands on another stripe."""
        if g.epoch != self.meta.drop.epoch:
            return Fetched.STALE
        if g.code is not None and g.code in self.codes.spent:
            return Fetched.FCODE_SPENT
        if self.meta.left.get(g.allocation, 0) < g.quantity:
            return Fetched.SOLD_OUT
        self.meta.left[g.allocation] -= g.quantity
        held = Entry(g.id, g.member, g.allocation, g.quantity, g.slot, g.key, g.payload, g.code)
        self.entries.setdefault(g.member, []).append(held)
        self.pending[g.id, g.member] = self.now
        self.codes.spent |= set() if g.code is None else {g.code}
        return Fetched.TOOK


def opens_ms(a: Allocation) -> int:
    """The first millisecond of the window: part of one before it does not count."""
    return -(_us(a.opens_at) // -1_000)


def closes_ms(a: Allocation) -> int:
    """The first millisecond after the window: part of one at its end does not count."""
    return _us(a.closes_at) // 1_000


def _us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _same_again(limit: int, mine: list[Entry], claim: Claim) -> Entry | None:
    """The entry that this claim repeats: by its key; without one, by what is held where only one can be."""
    if claim.key is not None:
        return next((e for e in mine if e.key == claim.key), None)
    if limit == 1:
        return next((e for e in mine if e.allocation and claim.allocation in {None, e.allocation}), None)
    return None


def _asked_for(armed: Armed, claim: Claim) -> list[Allocation]:
    """The allocations that may serve the claim, in listed order."""
    allocations, batch = armed.meta.drop.allocations, armed.batch(claim)
    if claim.allocation is not None:
        return [a for a in allocations if a.id == claim.allocation]
    if claim.code is not None:
        return [a for a in allocations if batch is not None and a.id == batch.allocation]
    return [a for a in allocations if not isinstance(a.access, Fcode)]


def _without_candidates(drop: Drop, claim: Claim) -> Verdict:
    """The answer where the drop has no allocation of that name, none for the code, or none but for F-codes."""
    if claim.allocation is not None or claim.code is None:
        return Verdict.NOT_FOUND
    if drop.closed:
        return Verdict.CLOSED
    return Verdict.PAUSED if drop.paused else Verdict.FCODE_INVALID


def _judge(armed: Armed, a: Allocation, claim: Claim, *, used: int, spent: bool) -> Refusal | None:
    """Why this allocation does not serve the claim: the first reason in the contract's order; None: it does."""
    drop = armed.meta.drop
    if drop.closed or armed.now >= closes_ms(a):
        return Refusal(Verdict.CLOSED)
    if drop.paused or (drop.fcodes_stopped and isinstance(a.access, Fcode)):
        return Refusal(Verdict.PAUSED)
    if isinstance(a.access, Tier) and claim.tier < a.access.at_least:
        return Refusal(Verdict.NOT_ELIGIBLE)
    if a.eligible_set is not None and not _is_in(armed.eligible[a.eligible_set], claim.member):
        return Refusal(Verdict.NOT_ELIGIBLE)
    if armed.now < opens_ms(a):
        return Refusal(Verdict.NOT_OPEN, opens_at_ms=opens_ms(a))
    if not _code_is_good(armed, a, claim):
        return Refusal(Verdict.FCODE_INVALID)
    if claim.code is not None and (spent or claim.code in armed.codes.spent):
        return Refusal(Verdict.FCODE_SPENT)
    if used + claim.quantity > drop.per_member:
        return Refusal(Verdict.MEMBER_LIMIT)
    if armed.meta.left[a.id] < claim.quantity and not armed.may_be_elsewhere(a.id, claim.quantity):
        return Refusal(Verdict.SOLD_OUT)
    return None


def _code_is_good(armed: Armed, a: Allocation, claim: Claim) -> bool:
    """Whether the allocation takes what was shown: a code of its own that this member may spend, or no code."""
    if claim.code is None or not isinstance(a.access, Fcode):
        return claim.code is None and not isinstance(a.access, Fcode)
    batch, (number, serial) = armed.batch(claim), divmod(claim.code, CODES_PER_BATCH_MAX)
    if batch is None or batch.allocation != a.id or serial >= batch.count or claim.quantity != 1:
        return False
    if batch.over(armed.now) or claim.code in armed.codes.revoked:
        return False
    return not batch.bound or _owner(armed.bound[number], serial) == claim.member


def _owner(fields: Fields, serial: int) -> int:
    """Whose the code is; 0: nobody's."""
    at = serial % 1_000 * 8
    return int.from_bytes(fields.get(str(serial // 1_000), b"")[at : at + 8], "big")


def _is_in(fields: Fields, member: int) -> bool:
    name, lo = gate_field(member)
    return name in fields and contains(fields[name], lo)
