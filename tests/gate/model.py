"""The gate in plain Python: what the Lua scripts must do, said once more without any of their means.

`ModelGate` has the methods, arguments and results of `flashsale.gate.Gate`. It is driven beside the real gate, and
stands in for it where a test wants a gate without a server. Levers for faults: `flush`, `restart`, `evict`, `away`.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from flashsale.domain import Claim, Drop, Grant
from flashsale.errors import GateUnavailable
from flashsale.gate import (
    ARMING_LEASE_MS,
    LEASE_MS,
    STAGING_TTL_MS,
    UNARMED,
    Decisions,
    Gate,
    Status,
    Taken,
    Unarmed,
    keys,
)
from flashsale.gate.codes import Field
from tests.gate.model_rules import Armed, Codes, Entry, Fields, Meta
from tests.gate.support import unpack_fields

Kind = TypeVar("Kind")


@dataclass
class Staging:
    """What a rebuild has brought so far."""

    replid: int
    fields: Fields = field(default_factory=dict)


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

    def pending_ids(self, drop_id: str, stripe: int = 0) -> set[str]:
        """What is pending, as `id|member`, whether or not the gate is armed."""
        pending = self._keys.get(keys.stripe(drop_id, stripe).pend)
        return {f"{entry_id}|{member}" for entry_id, member in pending} if isinstance(pending, dict) else set()

    def spent_codes(self, drop_id: str, stripe: int = 0) -> set[int]:
        """The numbers of the codes that are spent, whether or not the gate is armed."""
        codes = self._find(keys.stripe(drop_id, stripe).codes, Codes)
        return set() if codes is None else codes.spent

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
        codes = self._find(names.codes, Codes)
        if meta is None or meta.replid != self._replid or meta.drop.epoch < min_epoch:
            return None
        if not isinstance(entries, dict) or not isinstance(pending, dict) or codes is None:
            return None
        armed = Armed(meta, entries, pending, codes, stripe, self._now_ms())
        for batch in codes.batches:
            fields = self._keys.get(keys.bound(drop_id, stripe, batch))
            if isinstance(fields, dict):
                armed.bound[batch] = fields
        return armed

    def _lists(self, drop: Drop, bound: Iterable[int], stripe: int) -> dict[str, Fields] | None:
        """By key, the lists of members that a drop's allocations and bound batches name; None when one is missing."""
        names = [keys.eligible(drop.id, stripe, name) for name in _eligible_sets(drop)]
        found: dict[str, Fields] = {}
        for key in (*names, *(keys.bound(drop.id, stripe, batch) for batch in bound)):
            fields = self._keys.get(key)
            if not isinstance(fields, dict):
                return None
            found[key] = fields
        return found

    async def decide(
        self,
        drop: Drop,
        min_epoch: int,
        claims: Sequence[Claim],
        settled: Sequence[Grant] = (),
        *,
        grants_max: int | None = None,
        stripe: int = 0,
        elsewhere: Mapping[str, tuple[int, int]] | None = None,
        spent: Collection[int] = (),
        lease: tuple[str, int] | None = None,
    ) -> Decisions | Unarmed:
        self._answer()
        ids = self._new_ids(len(claims))
        armed, lists = self._armed(drop.id, stripe, min_epoch), self._lists(drop, (), stripe)
        if armed is None or lists is None or not _eligible_sets(armed.meta.drop) <= _eligible_sets(drop):
            return UNARMED
        if not armed.lists_are_there(claims):
            return UNARMED
        armed.eligible = {name: lists[keys.eligible(drop.id, stripe, name)] for name in _eligible_sets(drop)}
        armed.grants_left = len(claims) if grants_max is None else grants_max
        armed.elsewhere = None if elsewhere is None else dict(elsewhere)
        armed.meta.lease = min(armed.meta.lease, armed.now + LEASE_MS)
        results = [armed.decide(i, c, place=n, spent=spent) for n, (i, c) in enumerate(zip(ids, claims, strict=True))]
        for grant in settled:
            armed.pending.pop((grant.id, grant.member), None)
        left = {} if elsewhere is None else dict(armed.meta.left)
        names, log = keys.stripe(drop.id, stripe), self._find(keys.stripe(drop.id, stripe).late, list) or []
        given = armed.lease(ids[0], results, log, lease)
        if log and names.late not in self._keys:
            self._put(names.late, log, self._ends[names.meta] - armed.now)
        out_ms = max(0, armed.meta.lease - armed.now)
        return Decisions(armed.meta.drop.epoch, armed.now, results, left, armed.short, out_ms, given)

    async def take(
        self,
        drop_id: str,
        min_epoch: int,
        grants: Sequence[Grant],
        settled: Sequence[Grant] = (),
        *,
        codes: Sequence[int] = (),
        stripe: int,
    ) -> Taken | Unarmed:
        self._answer()
        armed = self._armed(drop_id, stripe, min_epoch)
        if armed is None:
            return UNARMED
        results = [armed.take(grant) for grant in grants]
        are_spent = [code in armed.codes.spent for code in codes]
        for grant in settled:
            armed.pending.pop((grant.id, grant.member), None)
        return Taken(armed.meta.drop.epoch, armed.now, dict(armed.meta.left), are_spent, results)

    async def members(self, drop_id: str, *, stripe: int = 0) -> set[int]:
        self._answer()
        entries = self._keys.get(keys.stripe(drop_id, stripe).ent)
        return {member for member, mine in entries.items() if mine} if isinstance(entries, dict) else set()

    async def release(
        self,
        drop_id: str,
        ended: Iterable[tuple[str, int]],
        *,
        keep: Collection[str] = (),
        spent: Collection[str] = (),
        stripe: int = 0,
    ) -> int | Unarmed:
        self._answer()
        armed = self._armed(drop_id, stripe)
        if armed is None:
            return UNARMED
        for entry_id, member in ended:
            for gone in [e for e in armed.entries.get(member, []) if e.id == entry_id and e.allocation]:
                at = armed.entries[member].index(gone)
                stays = [replace(gone, allocation="", elsewhere=False)] if entry_id in keep else []
                armed.entries[member][at : at + 1] = stays
                armed.pending.pop((entry_id, member), None)
                if gone.elsewhere:
                    continue
                armed.meta.left[gone.allocation] += gone.quantity
                if gone.code is not None and entry_id not in spent:
                    armed.codes.spent.discard(gone.code)
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
        if armed is None or self._lists(drop, armed.meta.bound, stripe) is None:
            return UNARMED
        listed = [] if look_for is None else [*armed.pending]
        return Status(
            epoch=armed.meta.drop.epoch,
            now_ms=now,
            out_ms=max(0, armed.meta.lease - now),
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
        for name in self._stagings(drop_id, stripe, epoch):
            self._put(name, Staging(self._replid), STAGING_TTL_MS)
        return "ok"

    @staticmethod
    def _stagings(drop_id: str, stripe: int, epoch: int) -> tuple[str, str]:
        return keys.staging(drop_id, stripe, str(epoch)), keys.staging(drop_id, stripe, f"codes-{epoch}")

    async def arm_chunk(self, drop_id: str, epoch: int, fields: Sequence[str], *, stripe: int = 0) -> bool:
        entries, codes = self._stagings(drop_id, stripe, epoch)
        return self._stage(entries, [text.encode() for text in fields], codes)

    async def arm_codes(self, drop_id: str, epoch: int, fields: Sequence[Field], *, stripe: int = 0) -> bool:
        entries, codes = self._stagings(drop_id, stripe, epoch)
        return self._stage(codes, _as_bytes(fields), entries)

    def _stage(self, name: str, fields: Sequence[bytes], *others: str) -> bool:
        self._answer()
        staging = self._find(name, Staging)
        if staging is None:
            return False
        staging.fields |= {f.decode(): v for f, v in zip(fields[::2], fields[1::2], strict=True)}
        for each in (name, *others):
            if each in self._keys:
                self._put(each, self._keys[each], STAGING_TTL_MS)
        return True

    async def arm_finish(
        self,
        drop: Drop,
        members: int,
        free: dict[str, int],
        *,
        codes: int = 0,
        bound: Sequence[int] = (),
        ttl_ms: int,
        leased_ms: int = 0,
        stripe: int = 0,
    ) -> Literal["ok", "lost", "superseded"]:
        now = self._answer()
        names, staged = keys.stripe(drop.id, stripe), self._stagings(drop.id, stripe, drop.epoch)
        brought: list[Fields] = []
        for name, count in zip(staged, (members, codes), strict=True):
            staging = self._find(name, Staging)
            if staging is None or staging.replid != self._replid or len(staging.fields) != count:
                return "lost"
            brought.append(staging.fields)
        if self._armed(drop.id, stripe, drop.epoch) is not None:
            return "superseded"
        lists = self._lists(drop, bound, stripe)
        if lists is None:
            return "lost"
        for name in staged:
            self.evict(name)
        lines = {int(member): value.decode().split("\n") for member, value in brought[0].items()}
        before = self._find(names.meta, Meta)
        lease = now + leased_ms if before is None or before.replid != self._replid else before.lease
        self.evict(names.late)
        self._put(names.meta, Meta(self._replid, drop, dict(free), frozenset(bound), lease), ttl_ms)
        self._put(names.ent, {m: [Entry.read(m, line) for line in entries] for m, entries in lines.items()}, ttl_ms)
        self._put(names.pend, {}, ttl_ms)
        self._put(names.codes, Codes.read(brought[1]), ttl_ms)
        for key, whole in lists.items():
            self._put(key, whole, ttl_ms)
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
        return self._put_list(keys.eligible(drop_id, stripe, eligible_set), staging, fields, ttl_ms)

    def _put_list(self, key: str, staging: str, fields: int, ttl_ms: int) -> bool:
        self._answer()
        brought = self._find(staging, Staging)
        if brought is None or len(brought.fields) != fields:
            return False
        self.evict(staging)
        self._put(key, brought.fields, ttl_ms)
        return True

    async def has_bound(self, drop_id: str, batch: int, *, stripe: int = 0) -> bool:
        self._answer()
        return keys.bound(drop_id, stripe, batch) in self._keys

    async def bound_begin(self, drop_id: str, *, stripe: int = 0) -> str:
        self._answer()
        staging = keys.staging(drop_id, stripe, f"bound-{next(self._names)}")
        self._put(staging, Staging(self._replid), STAGING_TTL_MS)
        return staging

    async def bound_chunk(self, staging: str, fields: Sequence[Field]) -> bool:
        return self._stage(staging, _as_bytes(fields))

    async def bound_finish(
        self, drop_id: str, batch: int, staging: str, *, fields: int, ttl_ms: int, stripe: int = 0
    ) -> bool:
        return self._put_list(keys.bound(drop_id, stripe, batch), staging, fields, ttl_ms)

    async def tries(self, increments: Sequence[tuple[str, int]], window_ms: int) -> list[tuple[int, int]]:
        now, answer = self._answer(), []
        for key, more in ((keys.tries(subject), more) for subject, more in increments):
            total = self._find(key, int)
            if total is not None:
                self._keys[key] = total + more
            elif more:  # what a call reads of the clock it reads once
                self._keys[key], self._ends[key] = more, now + window_ms
            answer.append((self._find(key, int) or 0, self._ends[key] - now if key in self._keys else 0))
        return answer

    async def ping(self) -> None:
        self._answer()

    async def aclose(self) -> None:
        pass


def _eligible_sets(drop: Drop) -> set[str]:
    return {a.eligible_set for a in drop.allocations if a.eligible_set is not None}


def _as_bytes(fields: Sequence[Field]) -> list[bytes]:
    return [text.encode() if isinstance(text, str) else text for text in fields]


def _units(entries: Iterable[Entry | None]) -> dict[str, tuple[str, int]]:
    return {e.id: (e.allocation, e.quantity) for e in entries if e is not None and not e.elsewhere}
