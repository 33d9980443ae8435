"""The gate: decides in one Lua call, fast and disposable. The only room that speaks Redis.

One method per script. Whatever Redis does wrong is `GateUnavailable`; a gate that is not armed
for the caller's epoch (emptied, restarted, failed over, one key evicted) is the value `UNARMED`.
"""

import asyncio
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from fcodes import CODES_PER_BATCH_MAX
from flashsale.domain import Allocation, Claim, Drop, Everyone, Fcode, Grant, Points, Tier
from flashsale.gate import keys
from flashsale.gate.calling import Caller
from flashsale.gate.client import CONNECTIONS_MAX, Client, connect
from flashsale.gate.clock import unix_ms
from flashsale.gate.codes import Field, pack_fields
from flashsale.gate.replies import (
    UNARMED,
    Decisions,
    Fetched,
    Status,
    Taken,
    Unarmed,
    decisions,
    entry_of,
    grant_of,
    pairs,
    units,
)
from flashsale.gate.requests import requests
from flashsale.gate.sharing import Sharing

__all__ = ["UNARMED", "Decisions", "Fetched", "Gate", "Status", "Taken", "Unarmed", "connect"]

STAGING_TTL_MS: Final = 60_000
ARMING_LEASE_MS: Final = 3_000
KEEPS_PLACE: Final = 1
STAYS_SPENT: Final = 2


_pack: Final = msgspec.msgpack.Encoder().encode


def _access_fields(drop: Drop, allocation: Allocation, stripe: int) -> tuple[str, str | int]:
    match allocation.access:
        case Everyone():
            return "everyone", 0
        case Points():
            return "points", keys.eligible(drop.id, stripe, str(allocation.eligible_set))
        case Tier(at_least=at_least):
            return "tier", at_least
        case Fcode():
            return "fcode", int(drop.fcodes_stopped)


def eligible_keys(drop: Drop, stripe: int = 0) -> tuple[str, ...]:
    """The keys of the eligible sets that a drop's allocations name, each once, in listed order."""
    named = (a.eligible_set for a in drop.allocations if a.eligible_set is not None)
    return tuple(dict.fromkeys(keys.eligible(drop.id, stripe, name) for name in named))


def bound_keys(drop_id: str, stripe: int, batches: Iterable[int]) -> tuple[str, ...]:
    """The keys of the lists of whom the codes of these batches belong to."""
    return tuple(keys.bound(drop_id, stripe, batch) for batch in batches)


class Gate(Caller):
    """The gate of all drops, through one client."""

    def __init__(self, client: Client, *, timeout_s: float, new_ids: Callable[[int], list[str]]) -> None:
        connections = asyncio.Semaphore(CONNECTIONS_MAX)
        super().__init__(client, timeout_s, connections)
        self._new_ids = new_ids
        self._name = secrets.token_bytes(8)
        self.sharing = Sharing(client, timeout_s, connections)
        """What the processes tell each other beside what they decide."""

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
    ) -> Decisions | Unarmed:
        """A decision for each claim, each under a new id; `settled` grants ride along and leave `pend`.

        After `grants_max` grants (None: any number), a claim that would be granted is `Withheld`, and takes nothing.

        Of a striped drop, `elsewhere` is what the other stripes may have: by allocation, how many units, and how many
        of them on one stripe. A claim that finds too few here and enough there is granted without its unit
        (`Grant.elsewhere`), which `take` may have; each unit is promised once in a call. `spent` are the places of
        those claims whose codes were seen spent on stripe 0.
        """
        ids = self._new_ids(len(claims))
        batches = [*{c.code // CODES_PER_BATCH_MAX for c in claims if c.code is not None}]
        reply = await self._run(
            "decide",
            (*keys.stripe(drop.id, stripe)[:4], *eligible_keys(drop, stripe), *bound_keys(drop.id, stripe, batches)),
            min_epoch,
            requests(ids, claims, spent),
            _pack([f"{g.id}|{g.member}" for g in settled]),
            _pack(batches),
            len(claims) if grants_max is None else grants_max,
            b"" if elsewhere is None else _pack(elsewhere),
        )
        assert isinstance(reply, list)
        if reply[0] != b"ok":
            return UNARMED
        epoch, now_ms = reply[1], reply[2]
        left = {} if elsewhere is None else pairs(reply.pop())
        results, short = decisions(reply[3:], ids, claims, epoch, stripe)
        return Decisions(epoch, now_ms, results, left, short)

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
        """Units of this stripe for grants whose claims stand on others; and, after that, which of `codes` are spent.

        Without grants it takes nothing, and tells what is left. A grant is to be asked for once on a stripe.
        """
        reply = await self._run(
            "take",
            keys.stripe(drop_id, stripe)[:4],
            min_epoch,
            _pack(
                [
                    (g.id, str(g.member), g.allocation, g.quantity, "" if g.code is None else g.code, g.epoch, entry)
                    for g, entry in zip(grants, map(entry_of, grants), strict=True)
                ]
            ),
            _pack([f"{g.id}|{g.member}" for g in settled]),
            _pack(codes),
        )
        assert isinstance(reply, list)
        if reply[0] != b"ok":
            return UNARMED
        epoch, now_ms, left, spent = reply[1:5]
        return Taken(
            epoch, now_ms, pairs(left), [each == 1 for each in spent], [Fetched(each.decode()) for each in reply[5:]]
        )

    async def release(
        self,
        drop_id: str,
        ended: Iterable[tuple[str, int]],
        *,
        keep: Collection[str] = (),
        spent: Collection[str] = (),
        stripe: int = 0,
    ) -> int | Unarmed:
        """Give back the units of these (id, member); returns the epoch of the gate that did. May be repeated.

        Ids in `keep` go on counting under their member's limit; of ids in `spent` the F-code stays spent, of all
        others it can be spent again.
        """
        items = [(i, str(m), KEEPS_PLACE * (i in keep) + STAYS_SPENT * (i in spent)) for i, m in ended]
        return await self._epoch_of("release", drop_id, stripe, items)

    async def settle(self, drop_id: str, grants: Iterable[tuple[str, int]], *, stripe: int = 0) -> int | Unarmed:
        """These (id, member) are in the ledger: they are pending no longer. May be repeated."""
        return await self._epoch_of("settle", drop_id, stripe, [f"{i}|{m}" for i, m in grants])

    async def _epoch_of(self, verb: str, drop_id: str, stripe: int, items: object) -> int | Unarmed:
        reply = await self._run(verb, keys.stripe(drop_id, stripe)[:4], _pack(items))
        assert isinstance(reply, list)
        return int(reply[1]) if reply[0] == b"ok" else UNARMED

    async def pending(self, drop_id: str, *, older_than_ms: int, limit: int, stripe: int = 0) -> list[Grant] | Unarmed:
        """Grants that have waited for the ledger for `older_than_ms` at least, oldest first."""
        reply = await self._run("pending", keys.stripe(drop_id, stripe)[:4], older_than_ms, limit)
        assert isinstance(reply, list)
        if reply[0] != b"ok":
            return UNARMED
        return [grant_of(line, int(member), reply[1], stripe, pending=True) for member, line in reply[2:]]

    async def status(
        self, drop: Drop, min_epoch: int, look_for: Iterable[tuple[str, int]] | None = None, *, stripe: int = 0
    ) -> Status | Unarmed:
        """What the gate holds now, if it is armed for `min_epoch` or later.

        Only with `look_for` (id, member) does it list what is pending and which of these have an entry.
        """
        wanted = b"" if look_for is None else _pack([(i, str(m)) for i, m in look_for])
        names = (*keys.stripe(drop.id, stripe)[:4], *eligible_keys(drop, stripe))
        bound: list[int] = []
        while True:
            lists = bound_keys(drop.id, stripe, bound)
            reply = await self._run("status", (*names, *lists), min_epoch, wanted, _pack(bound))
            assert isinstance(reply, list)
            if reply[0] != b"bound":
                break
            bound = reply[1:]
        if reply[0] != b"ok":
            return UNARMED
        rest = reply[3:]
        pend, found = (len(rest),) * 2 if look_for is None else (rest.index(b"#pend"), rest.index(b"#found"))
        return Status(
            epoch=reply[2],
            now_ms=reply[1],
            available={name.decode(): left for name, left in rest[:pend]},
            pending=units(rest[pend + 1 : found]),
            found=units(rest[found + 1 :]),
        )

    async def take_lease(self, drop_id: str, *, stripe: int = 0) -> bool:
        """Take the lease to rebuild: keeps processes from doing the same work, nothing more."""
        key = keys.stripe(drop_id, stripe).arming
        return await self._command("SET", key, self._name, "NX", "PX", ARMING_LEASE_MS) is not None

    async def keep_lease(self, drop_id: str, *, stripe: int = 0) -> None:
        """Hold the lease for another `ARMING_LEASE_MS`, if nobody else has taken it since."""
        key = keys.stripe(drop_id, stripe).arming
        if await self._command("GET", key) == self._name:
            await self._command("PEXPIRE", key, ARMING_LEASE_MS)

    async def drop_lease(self, drop_id: str, *, stripe: int = 0) -> None:
        """Give the lease back, if nobody else has taken it since."""
        key = keys.stripe(drop_id, stripe).arming
        if await self._command("GET", key) == self._name:
            await self._command("DEL", key)

    async def arm_begin(self, drop_id: str, epoch: int, *, stripe: int = 0) -> Literal["ok", "superseded"]:
        """Open the stagings for `epoch`, unless the gate is armed for it or a later one already."""
        names = (*keys.stripe(drop_id, stripe)[:4], *_stagings(drop_id, stripe, epoch))
        reply = await self._run("arm_begin", names, epoch, STAGING_TTL_MS)
        return "ok" if reply == b"ok" else "superseded"

    async def arm_chunk(self, drop_id: str, epoch: int, fields: Sequence[str], *, stripe: int = 0) -> bool:
        """Add [member, entries, member, entries …] to the staging; False when it is lost."""
        names = _stagings(drop_id, stripe, epoch)
        return await self._run("arm_chunk", names, _pack(fields), STAGING_TTL_MS) == b"ok"

    async def arm_codes(self, drop_id: str, epoch: int, fields: Sequence[Field], *, stripe: int = 0) -> bool:
        """Add [name, value …] of the hash `codes` to its staging (`codes` makes them); False when it is lost."""
        names = _stagings(drop_id, stripe, epoch)[::-1]
        return await self._run("arm_chunk", names, pack_fields(fields), STAGING_TTL_MS) == b"ok"

    async def arm_finish(
        self,
        drop: Drop,
        members: int,
        free: dict[str, int],
        *,
        codes: int = 0,
        bound: Sequence[int] = (),
        ttl_ms: int,
        stripe: int = 0,
    ) -> Literal["ok", "lost", "superseded"]:
        """Swap the stagings, which must hold `members` and `codes` fields, into place: armed for the drop's epoch.

        `bound` are the batches whose members must be known; a list that is not whole is removed, and all is `lost`.
        """
        meta: list[object] = [
            *("paused", "1" if drop.paused else "0", "closed", "1" if drop.closed else "0"),
            *("limit", drop.per_member, "order", [a.id for a in drop.allocations], "bound", bound),
        ]
        for a in drop.allocations:
            window = (unix_ms(a.opens_at, up=True), unix_ms(a.closes_at, up=False))
            meta += [f"a:{a.id}", (*window, *_access_fields(drop, a, stripe)), f"n:{a.id}", free[a.id]]
        names = (*keys.stripe(drop.id, stripe)[:4], *_stagings(drop.id, stripe, drop.epoch))
        lists = (*eligible_keys(drop, stripe), *bound_keys(drop.id, stripe, bound))
        reply = await self._run("arm_finish", (*names, *lists), drop.epoch, members, codes, _pack(meta), ttl_ms)
        assert isinstance(reply, bytes)
        answer = reply.decode()
        assert answer in {"ok", "lost", "superseded"}
        return answer  # type: ignore[return-value]

    async def has_eligible(self, drop_id: str, eligible_set: str, *, stripe: int = 0) -> bool:
        """Whether this eligible set is in place."""
        key = keys.eligible(drop_id, stripe, eligible_set)
        return await self._command("HEXISTS", key, "#") == 1

    async def eligible_begin(self, drop_id: str, *, stripe: int = 0) -> str:
        """Open a staging of its own for an eligible set; returns its name."""
        staging = keys.staging(drop_id, stripe, f"elig-{secrets.token_hex(8)}")
        await self._run("elig_begin", (staging,), STAGING_TTL_MS)
        return staging

    async def eligible_chunk(self, staging: str, packed: bytes) -> bool:
        """Add a part as the ledger keeps it (MessagePack [field, value …]); False when the staging is lost."""
        return await self._run("arm_chunk", (staging,), packed, STAGING_TTL_MS) == b"ok"

    async def eligible_finish(
        self, drop_id: str, eligible_set: str, staging: str, *, fields: int, ttl_ms: int, stripe: int = 0
    ) -> bool:
        """Rename the staging, which must hold `fields` fields, into place; False when it does not."""
        key = keys.eligible(drop_id, stripe, eligible_set)
        return await self._run("elig_finish", (staging, key), fields, ttl_ms) == b"ok"

    async def has_bound(self, drop_id: str, batch: int, *, stripe: int = 0) -> bool:
        """Whether the list of whom this batch's codes belong to is in place."""
        return await self._command("HEXISTS", keys.bound(drop_id, stripe, batch), "#") == 1

    async def bound_begin(self, drop_id: str, *, stripe: int = 0) -> str:
        """Open a staging of its own for such a list; returns its name."""
        staging = keys.staging(drop_id, stripe, f"bound-{secrets.token_hex(8)}")
        await self._run("elig_begin", (staging,), STAGING_TTL_MS)
        return staging

    async def bound_chunk(self, staging: str, fields: Sequence[Field]) -> bool:
        """Add [name, value …] as `codes.bound_fields` makes them; False when the staging is lost."""
        return await self.eligible_chunk(staging, pack_fields(fields))

    async def bound_finish(
        self, drop_id: str, batch: int, staging: str, *, fields: int, ttl_ms: int, stripe: int = 0
    ) -> bool:
        """Rename the staging, which must hold `fields` fields, into place; False when it does not."""
        key = keys.bound(drop_id, stripe, batch)
        return await self._run("elig_finish", (staging, key), fields, ttl_ms) == b"ok"

    async def tries(self, increments: Sequence[tuple[str, int]], window_ms: int) -> list[tuple[int, int]]:
        """Count failed tries; everybody's total of each subject, and how long its window still lasts, ms.

        A window begins with a subject's first; a count of 0 only asks. (0, 0): no window.
        """
        names = tuple(keys.tries(subject) for subject, _ in increments)
        reply = await self._run("tries", names, window_ms, _pack([count for _, count in increments]))
        assert isinstance(reply, list)
        return list(zip(reply[::2], reply[1::2], strict=True))

    async def ping(self) -> None:
        """Return when Redis answers."""
        await self._command("PING")

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()


def _stagings(drop_id: str, stripe: int, epoch: int) -> tuple[str, str]:
    return keys.staging(drop_id, stripe, str(epoch)), keys.staging(drop_id, stripe, f"codes-{epoch}")
