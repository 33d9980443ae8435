"""The gate in plain Python: what the Lua scripts must do, said once more without any of their means.

`ModelGate` has the methods, arguments and results of `flashsale.gate.Gate`. It is driven beside the real gate, and
stands in for it where a test wants a gate without a server. Levers for faults: `flush`, `restart`, `evict`, `away`.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeVar

from flashsale.domain import Allocation, Claim, Drop, Fcode, Grant, Refusal, Tier, Verdict
from flashsale.eligibility import contains, gate_field
from flashsale.errors import GateUnavailable
from flashsale.gate import ARMING_LEASE_MS, STAGING_TTL_MS, UNARMED, Decisions, Gate, Status, Unarmed, keys
from tests.gate.support import unpack_fields

PRECEDENCE = {verdict: rank for rank, verdict in enumerate(Verdict)}
Kind = TypeVar("Kind")


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

    @classmethod
    def read(cls, member: int, line: str) -> "Entry":
        """The entry in the form in which the ledger hands it over."""
        entry_id, allocation, quantity, slot, key, payload = line.split("\t")
        return cls(entry_id, member, allocation, int(quantity), int(slot), key or None, payload)


@dataclass
class Meta:
    """How the gate was armed: for which epoch, on which server, for which configuration, and what is left."""

    replid: int
    drop: Drop
    left: dict[str, int]


@dataclass
class Armed:
    """What is at hand of an armed gate while a call is answered."""

    meta: Meta
    entries: dict[int, list[Entry]]
    pending: dict[tuple[str, int], int]
    stripe: int
    now: int
    eligible: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def grant(self, e: Entry, *, again: bool = False, pending: bool = True) -> Grant:
        """What a caller hears of an entry."""
        at = (self.meta.drop.epoch, self.stripe)
        return Grant(e.id, e.member, e.allocation, e.quantity, e.slot, e.key, e.payload, *at, again, pending)

    def entry(self, entry_id: str, member: int) -> Entry | None:
        """The entry with that id, if this member has it."""
        return next((e for e in self.entries.get(member, []) if e.id == entry_id), None)


@dataclass
class Staging:
    """What a rebuild has brought so far."""

    replid: int
    fields: dict[str, bytes] = field(default_factory=dict)


class ModelGate(Gate):
    """A gate in memory. `now_ms` is the server's clock; each call is one atomic step."""

    def __init__(self, *, new_ids: Callable[[int], list[str]], now_ms: Callable[[], int]) -> None:
        self._new_ids = new_ids
        self._now_ms = now_ms
        self._names = itertools.count(1)
        self._replid = 1
        self._keys: dict[str, object] = {}
        self._ends: dict[str, int] = {}
        self.away = False

    def flush(self) -> None:
        """FLUSHALL."""
        self._keys.clear()

    def restart(self) -> None:
        """The server comes back with all its data, as another server (or a replica takes its place)."""
        self._replid += 1

    def evict(self, key: str) -> None:
        """One key is gone; `flashsale.gate.keys` spells its name."""
        self._keys.pop(key, None)

    def pending_ids(self, drop_id: str) -> set[str]:
        """What is pending, as `id|member`, whether or not the gate is armed."""
        pending = self._keys.get(keys.stripe(drop_id).pend)
        return {f"{entry_id}|{member}" for entry_id, member in pending} if isinstance(pending, dict) else set()

    def _answer(self) -> int:
        """A call begins: the server's time. Whatever has outlived its time is gone."""
        if self.away:
            raise GateUnavailable
        now = self._now_ms()
        for key in [key for key, end in self._ends.items() if end <= now]:
            del self._ends[key]
            self._keys.pop(key, None)
        return now

    def _put(self, key: str, value: object, ttl_ms: int) -> None:
        self._keys[key] = value
        self._ends[key] = self._now_ms() + ttl_ms

    def _find(self, key: str, kind: type[Kind]) -> Kind | None:
        value = self._keys.get(key)
        return value if isinstance(value, kind) else None

    def _armed(self, drop_id: str, stripe: int, min_epoch: int = 0) -> Armed | None:
        names = keys.stripe(drop_id, stripe)
        meta, entries, pending = self._find(names.meta, Meta), self._keys.get(names.ent), self._keys.get(names.pend)
        if meta is None or meta.replid != self._replid or meta.drop.epoch < min_epoch:
            return None
        if not isinstance(entries, dict) or not isinstance(pending, dict):
            return None
        return Armed(meta, entries, pending, stripe, self._now_ms())

    def _eligible(self, drop: Drop, stripe: int) -> dict[str, dict[str, bytes]] | None:
        """The eligible sets that the drop's allocations name; None when one is missing."""
        found = {}
        for name in _eligible_sets(drop):
            fields = self._keys.get(keys.eligible(drop.id, stripe, name))
            if not isinstance(fields, dict):
                return None
            found[name] = fields
        return found

    async def decide(
        self, drop: Drop, min_epoch: int, claims: Sequence[Claim], settled: Sequence[Grant] = (), *, stripe: int = 0
    ) -> Decisions | Unarmed:
        self._answer()
        ids = self._new_ids(len(claims))
        armed, eligible = self._armed(drop.id, stripe, min_epoch), self._eligible(drop, stripe)
        if armed is None or eligible is None or not _eligible_sets(armed.meta.drop) <= eligible.keys():
            return UNARMED
        armed.eligible = eligible
        results = [self._decide(armed, new_id, claim) for new_id, claim in zip(ids, claims, strict=True)]
        for grant in settled:
            armed.pending.pop((grant.id, grant.member), None)
        return Decisions(armed.meta.drop.epoch, armed.now, results)

    @staticmethod
    def _decide(armed: Armed, new_id: str, claim: Claim) -> Grant | Refusal:
        drop, mine = armed.meta.drop, armed.entries.get(claim.member, [])
        same = _same_again(drop.per_member, mine, claim)
        if same is not None and claim.key is not None and same.payload != claim.payload:
            return Refusal(Verdict.IDEMPOTENCY_MISMATCH)
        if same is not None:
            return armed.grant(same, again=True, pending=(same.id, same.member) in armed.pending)
        refusals = []
        for allocation in _asked_for(drop, claim):
            refusal = _judge(armed, allocation, claim, used=sum(e.quantity for e in mine))
            if refusal is None:
                slot = next(n for n in itertools.count(1) if all(e.slot != n for e in mine))
                given = Entry(new_id, claim.member, allocation.id, claim.quantity, slot, claim.key, claim.payload)
                armed.meta.left[allocation.id] -= claim.quantity
                armed.entries.setdefault(claim.member, []).append(given)
                armed.pending[given.id, given.member] = armed.now
                return armed.grant(given)
            refusals.append(refusal)
        if refusals:
            return min(refusals, key=lambda r: (PRECEDENCE[r.verdict], r.opens_at_ms or 0))
        return Refusal(_without_candidates(drop, claim))

    async def release(
        self, drop_id: str, ended: Iterable[tuple[str, int]], *, keep: Collection[str] = (), stripe: int = 0
    ) -> int | Unarmed:
        self._answer()
        armed = self._armed(drop_id, stripe)
        if armed is None:
            return UNARMED
        for entry_id, member in ended:
            for gone in [e for e in armed.entries.get(member, []) if e.id == entry_id and e.allocation]:
                at = armed.entries[member].index(gone)
                armed.entries[member][at : at + 1] = [replace(gone, allocation="")] if entry_id in keep else []
                armed.pending.pop((entry_id, member), None)
                armed.meta.left[gone.allocation] += gone.quantity
        return armed.meta.drop.epoch

    async def settle(self, drop_id: str, grants: Iterable[tuple[str, int]], *, stripe: int = 0) -> int | Unarmed:
        self._answer()
        armed = self._armed(drop_id, stripe)
        if armed is None:
            return UNARMED
        for entry_id, member in grants:
            armed.pending.pop((entry_id, member), None)
        return armed.meta.drop.epoch

    async def pending(self, drop_id: str, *, older_than_ms: int, limit: int, stripe: int = 0) -> list[Grant] | Unarmed:
        now = self._answer()
        armed = self._armed(drop_id, stripe)
        if armed is None:
            return UNARMED
        due = sorted((at, f"{i}|{m}", i, m) for (i, m), at in armed.pending.items() if at <= now - older_than_ms)
        entries = [armed.entry(entry_id, member) for _, _, entry_id, member in due[:limit]]
        return [armed.grant(e) for e in entries if e is not None]

    async def status(
        self, drop: Drop, min_epoch: int, look_for: Iterable[tuple[str, int]] | None = None, *, stripe: int = 0
    ) -> Status | Unarmed:
        now = self._answer()
        armed = self._armed(drop.id, stripe, min_epoch)
        if armed is None or self._eligible(drop, stripe) is None:
            return UNARMED
        listed = [] if look_for is None else [*armed.pending]
        return Status(
            epoch=armed.meta.drop.epoch,
            now_ms=now,
            available={a.id: armed.meta.left[a.id] for a in armed.meta.drop.allocations},
            pending=_units(armed.entry(i, m) for i, m in listed),
            found=_units(armed.entry(i, m) for i, m in look_for or []),
        )

    async def take_lease(self, drop_id: str, *, stripe: int = 0) -> bool:
        self._answer()
        key = keys.stripe(drop_id, stripe).arming
        if key in self._keys:
            return False
        self._put(key, "1", ARMING_LEASE_MS)
        return True

    async def keep_lease(self, drop_id: str, *, stripe: int = 0) -> None:
        self._answer()
        key = keys.stripe(drop_id, stripe).arming
        if key in self._keys:
            self._put(key, "1", ARMING_LEASE_MS)

    async def drop_lease(self, drop_id: str, *, stripe: int = 0) -> None:
        self._answer()
        self.evict(keys.stripe(drop_id, stripe).arming)

    async def arm_begin(self, drop_id: str, epoch: int, *, stripe: int = 0) -> Literal["ok", "superseded"]:
        self._answer()
        if self._armed(drop_id, stripe, epoch) is not None:
            return "superseded"
        self._put(keys.staging(drop_id, stripe, str(epoch)), Staging(self._replid), STAGING_TTL_MS)
        return "ok"

    async def arm_chunk(self, drop_id: str, epoch: int, fields: Sequence[str], *, stripe: int = 0) -> bool:
        staging = keys.staging(drop_id, stripe, str(epoch))
        return self._stage(staging, [text.encode() for text in fields])

    def _stage(self, name: str, fields: Sequence[bytes]) -> bool:
        self._answer()
        staging = self._find(name, Staging)
        if staging is None:
            return False
        staging.fields |= {f.decode(): v for f, v in zip(fields[::2], fields[1::2], strict=True)}
        self._put(name, staging, STAGING_TTL_MS)
        return True

    async def arm_finish(
        self, drop: Drop, members: int, free: dict[str, int], *, ttl_ms: int, stripe: int = 0
    ) -> Literal["ok", "lost", "superseded"]:
        self._answer()
        names, staging_name = keys.stripe(drop.id, stripe), keys.staging(drop.id, stripe, str(drop.epoch))
        staging = self._find(staging_name, Staging)
        if staging is None or staging.replid != self._replid or len(staging.fields) != members:
            return "lost"
        if self._armed(drop.id, stripe, drop.epoch) is not None:
            return "superseded"
        eligible = self._eligible(drop, stripe)
        if eligible is None:
            return "lost"
        self.evict(staging_name)
        lines = {int(member): value.decode().split("\n") for member, value in staging.fields.items()}
        self._put(names.meta, Meta(self._replid, drop, dict(free)), ttl_ms)
        self._put(names.ent, {m: [Entry.read(m, line) for line in entries] for m, entries in lines.items()}, ttl_ms)
        self._put(names.pend, {}, ttl_ms)
        for name, whole in eligible.items():
            self._put(keys.eligible(drop.id, stripe, name), whole, ttl_ms)
        return "ok"

    async def has_eligible(self, drop_id: str, eligible_set: str, *, stripe: int = 0) -> bool:
        self._answer()
        return keys.eligible(drop_id, stripe, eligible_set) in self._keys

    async def eligible_begin(self, drop_id: str, *, stripe: int = 0) -> str:
        self._answer()
        staging = keys.staging(drop_id, stripe, f"elig-{next(self._names)}")
        self._put(staging, Staging(self._replid), STAGING_TTL_MS)
        return staging

    async def eligible_chunk(self, staging: str, packed: bytes) -> bool:
        return self._stage(staging, unpack_fields(packed))

    async def eligible_finish(
        self, drop_id: str, eligible_set: str, staging: str, *, fields: int, ttl_ms: int, stripe: int = 0
    ) -> bool:
        self._answer()
        brought = self._find(staging, Staging)
        if brought is None or len(brought.fields) != fields:
            return False
        self.evict(staging)
        self._put(keys.eligible(drop_id, stripe, eligible_set), brought.fields, ttl_ms)
        return True

    async def ping(self) -> None:
        self._answer()

    async def aclose(self) -> None:
        pass


def _eligible_sets(drop: Drop) -> set[str]:
    return {a.eligible_set for a in drop.allocations if a.eligible_set is not None}


def opens_ms(a: Allocation) -> int:
    """The first millisecond of the window: part of one before it does not count."""
    return -(_us(a.opens_at) // -1_000)


def closes_ms(a: Allocation) -> int:
    """The first millisecond after the window: part of one at its end does not count."""
    return _us(a.closes_at) // 1_000


def _us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _units(entries: Iterable[Entry | None]) -> dict[str, tuple[str, int]]:
    return {e.id: (e.allocation, e.quantity) for e in entries if e is not None}


def _same_again(limit: int, mine: list[Entry], claim: Claim) -> Entry | None:
    """The entry that this claim repeats: by its key; without one, by what is held where only one can be."""
    if claim.key is not None:
        return next((e for e in mine if e.key == claim.key), None)
    if limit == 1:
        return next((e for e in mine if e.allocation and claim.allocation in {None, e.allocation}), None)
    return None


def _asked_for(drop: Drop, claim: Claim) -> list[Allocation]:
    """The allocations that may serve the claim, in listed order."""
    if claim.allocation is not None:
        return [a for a in drop.allocations if a.id == claim.allocation]
    return [a for a in drop.allocations if isinstance(a.access, Fcode) == claim.fcode]


def _without_candidates(drop: Drop, claim: Claim) -> Verdict:
    """The answer where the drop has no allocation of that name, none for F-codes, or none but for F-codes."""
    if claim.allocation is not None or not claim.fcode:
        return Verdict.NOT_FOUND
    if drop.closed:
        return Verdict.CLOSED
    return Verdict.PAUSED if drop.paused else Verdict.FCODE_INVALID


def _judge(armed: Armed, a: Allocation, claim: Claim, *, used: int) -> Refusal | None:
    """Why this allocation does not serve the claim: the first reason in the contract's order; None: it does."""
    drop = armed.meta.drop
    if drop.closed or armed.now >= closes_ms(a):
        return Refusal(Verdict.CLOSED)
    if drop.paused:
        return Refusal(Verdict.PAUSED)
    if isinstance(a.access, Tier) and claim.tier < a.access.at_least:
        return Refusal(Verdict.NOT_ELIGIBLE)
    if a.eligible_set is not None and not _is_in(armed.eligible[a.eligible_set], claim.member):
        return Refusal(Verdict.NOT_ELIGIBLE)
    if armed.now < opens_ms(a):
        return Refusal(Verdict.NOT_OPEN, opens_at_ms=opens_ms(a))
    if claim.fcode or isinstance(a.access, Fcode):
        return Refusal(Verdict.FCODE_INVALID)
    if used + claim.quantity > drop.per_member:
        return Refusal(Verdict.MEMBER_LIMIT)
    if armed.meta.left[a.id] < claim.quantity:
        return Refusal(Verdict.SOLD_OUT)
    return None


def _is_in(fields: dict[str, bytes], member: int) -> bool:
    name, lo = gate_field(member)
    return name in fields and contains(fields[name], lo)
