"""Batches of F-codes: mint them, hand them out, revoke them, and tell members of theirs.

Each code has its unit: a batch is minted in the transaction that finds enough of its allocation's units neither taken
nor set aside for another code that may still be spent. Codes are made anew for every export, and stored nowhere.
"""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, Literal

import msgspec
import structlog

from fcodes import CODES_PER_BATCH_MAX, Keys, mint
from flashsale.domain import Drop, State
from flashsale.errors import Refused
from flashsale.ledger import Act, Batch, Bound, Counts, Ledger, NewBatch, OwnCode

EXPORT_PART: Final = 500
"""Codes made at a time: about 2 ms, so that an export of millions holds up no shopper."""
MINT_MAX_S: Final = 3_600
REARM_AT_ONCE_MAX: Final = 8

CodeState = Literal["unspent", "held", "spent", "revoked", "expired"]

log = structlog.get_logger()


class Revoked(msgspec.Struct, frozen=True):
    """What a revocation did: how many codes may no longer be spent because of it, and the batch's counts now."""

    revoked: int
    counts: Counts


class ShownCode(msgspec.Struct, frozen=True):
    """A code as its member sees it."""

    code: str
    own: OwnCode
    state: CodeState


class Batches:
    """What operators do with F-codes. `keys` None: no code can be made, everything else works.

    `after(drop)` rebuilds the drop's gate when an act has changed it, `rearm(drop)` in any case; `now` tells expired
    codes apart for display.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        keys: Keys | None,
        after: Callable[[str], Awaitable[Drop]],
        now: Callable[[], datetime],
        rearm: Callable[[str], Awaitable[object]] | None = None,
    ) -> None:
        self._ledger = ledger
        self._keys = keys
        self._after = after
        self._rearm = rearm or after
        self._now = now

    def _require_keys(self) -> Keys:
        if self._keys is None:
            raise Refused(
                "conflict",
                "No F-code key is set: set FLASHSALE_FCODE_KEYS to what `fcodes keygen` prints, and start again.",
            )
        return self._keys

    def _keys_of(self, batch: Batch) -> Keys:
        keys = self._require_keys()
        if batch.key_version not in keys.versions or keys.fingerprint(batch.key_version) != batch.key_fingerprint:
            raise Refused(
                "conflict",
                f"Batch {batch.id} was minted under key {batch.key_fingerprint} as version {batch.key_version}; "
                "put that key back into FLASHSALE_FCODE_KEYS under this version.",
            )
        return keys

    def _check_expiry(self, expires_at: datetime | None) -> None:
        if expires_at is not None and expires_at <= self._now():
            raise Refused("invalid_request", "`expires_at` has passed already; name a time to come, or leave it out.")

    async def mint(
        self, drop_id: str, allocation_id: str, *, count: int, expires_at: datetime | None, note: str | None, actor: str
    ) -> Batch:
        """Codes for whoever has them: so many of the allocation's free units are theirs from now on."""
        keys = self._require_keys()
        self._check_expiry(expires_at)
        detail: dict[str, Any] = {"count": count, "expires_at": expires_at, "note": note}
        subject = f"{drop_id}/{allocation_id}"
        async with self._act(drop_id, "fcodes.mint", subject, detail, actor) as act:
            number = await act.next_batch()
            batch = await self._insert(
                act, allocation_id, number, count=count, keys=keys, expires_at=expires_at, note=note, bound=False
            )
            detail["batch"] = str(batch.id)
        await self._after(drop_id)
        return batch

    async def mint_bound(
        self,
        drop_id: str,
        allocation_id: str,
        rows: AsyncIterator[bytes],
        *,
        expires_at: datetime | None,
        note: str | None,
        actor: str,
    ) -> Batch:
        """A code for each line of `rows` (CSV `serial,member,note`), which that member alone can spend.

        The lines are stored first, in the same transaction: the drop is locked only when all of them are there.
        """
        keys = self._require_keys()
        self._check_expiry(expires_at)
        if await self._ledger.drops.get(drop_id) is None:
            raise Refused("not_found", f"There is no drop {drop_id!r}.")
        detail: dict[str, Any] = {"expires_at": expires_at, "note": note}
        subject = f"{drop_id}/{allocation_id}"
        act_of = self._ledger.drops.act_after_binding
        async with act_of(
            drop_id, rows, actor=actor, action="fcodes.mint", subject=subject, detail=detail, max_s=MINT_MAX_S
        ) as bound:
            if bound is None:
                raise Refused("not_found", f"There is no drop {drop_id!r}.")
            act, number, count = bound
            batch = await self._insert(
                act, allocation_id, number, count=count, keys=keys, expires_at=expires_at, note=note, bound=True
            )
            detail |= {"batch": str(batch.id), "count": count, "bound": True}
        log.info("ops.act", actor=actor, action="fcodes.mint", subject=subject)
        await self._after(drop_id)
        return batch

    async def _insert(
        self,
        act: Act,
        allocation_id: str,
        number: int,
        *,
        count: int,
        keys: Keys,
        expires_at: datetime | None,
        note: str | None,
        bound: bool,
    ) -> Batch:
        if not 1 <= count <= CODES_PER_BATCH_MAX:
            raise Refused("invalid_request", f"A batch has 1 to {CODES_PER_BATCH_MAX:,} codes; mint several batches.")
        row = await act.lock_allocation(allocation_id)
        if row is None:
            raise Refused("not_found", f"Drop {act.drop_id!r} has no allocation {allocation_id!r}.")
        if row["kind"] != "fcode":
            raise Refused("conflict", f"Allocation {allocation_id!r} is not for F-codes; add one with access `fcode`.")
        free = row["quantity"] - row["taken"] - row["alive"]
        if count > free:
            raise Refused(
                "conflict",
                f"{free} units of {allocation_id!r} have no code yet, and {count} codes need one each; "
                "enlarge the allocation, or mint fewer.",
                free=free,
            )
        return await act.mint(
            NewBatch(
                id=number,
                allocation=allocation_id,
                count=count,
                bound=bound,
                key_version=keys.newest,
                key_fingerprint=keys.fingerprint(keys.newest),
                expires_at=expires_at,
                note=note,
            )
        )

    @asynccontextmanager
    async def _act(
        self, drop_id: str, action: str, subject: str, detail: dict[str, Any], actor: str
    ) -> AsyncIterator[Act]:
        """An act on a drop that exists, logged when it is done."""
        acting = self._ledger.drops.act(drop_id, actor=actor, action=action, subject=subject, detail=detail)
        async with acting as act:
            if act is None:
                raise Refused("not_found", f"There is no drop {drop_id!r}.")
            yield act
        log.info("ops.act", actor=actor, action=action, subject=subject)

    async def get(self, batch_id: int) -> Batch:
        """A batch; `Refused` when there is none of that number."""
        batch = await self._ledger.fcodes.get(batch_id)
        if batch is None:
            raise Refused("not_found", f"There is no batch {batch_id}.")
        return batch

    async def revoke(
        self, batch_id: int, *, serials: Sequence[int] | None, to: str | None, reason: str, actor: str
    ) -> Revoked:
        """Honour a batch, or these of its codes, no more, from the return on. Reservations made with them stand.

        The units of those that were not spent stay in the allocation, free for other codes, or go to allocation `to`.
        """
        batch = await self.get(batch_id)
        for serial in serials or ():
            if not 0 <= serial < batch.count:
                last = batch.count - 1
                raise Refused("invalid_request", f"Batch {batch_id} has the serials 0 to {last}, and no {serial}.")
        detail: dict[str, Any] = {"batch": str(batch_id), "reason": reason, "to": to}
        if serials is not None:
            detail["serials"] = list(serials)
        subject = f"{batch.drop}/{batch.allocation}"
        async with self._act(batch.drop, "fcodes.revoke", subject, detail, actor) as act:
            names = sorted({batch.allocation, to or batch.allocation})
            rows = {name: await act.lock_allocation(name) for name in names}
            if any(row is None for row in rows.values()):
                raise Refused("not_found", f"Drop {batch.drop!r} has no allocation {to!r}.")
            await act.revoke(batch_id, serials)
            own = await act.lock_allocation(batch.allocation)
            freed = rows[batch.allocation]["alive"] - own["alive"]
            if to is not None and to != batch.allocation and freed:
                await act.move_units(batch.allocation, to, freed)
            detail["freed"] = freed
        await self._after(batch.drop)
        return Revoked(freed, await self._ledger.fcodes.counts(batch_id))

    async def switch(self, drop_id: str, *, stopped: bool, reason: str, actor: str) -> Drop:
        """Stop the F-codes of a drop, or honour them again, from the return on.

        Stopped, a press with a code is told that the sale is paused; the code stays unspent, its unit set aside.
        """
        action = "fcodes.stop" if stopped else "fcodes.start"
        async with self._act(drop_id, action, drop_id, {"reason": reason}, actor) as act:
            act.fcodes_stopped = stopped
        return await self._after(drop_id)

    async def switch_all(self, *, stopped: bool, reason: str, actor: str) -> None:
        """The same for all drops at once, in one act of the ledger.

        A drop that was set up at that very moment, and that the act did not see, may have been armed by what was
        before: those are found by looking again after the commit, and armed anew. Whatever is committed later than that
        look is armed by what is now.
        """
        told = set(await self._ledger.fcodes.switch(stopped=stopped, actor=actor, reason=reason))
        log.info("ops.act", actor=actor, action="fcodes.stop" if stopped else "fcodes.start", subject="fcodes")
        unseen = set(await self._ledger.fcodes.lanes()) - told
        slots = asyncio.Semaphore(REARM_AT_ONCE_MAX)

        async def arm(drop_id: str) -> None:
            async with slots:
                await (self._rearm if drop_id in unseen else self._after)(drop_id)

        await asyncio.gather(*map(arm, sorted(told | unseen)))

    async def export(self, batch_id: int, *, actor: str, reason: str | None) -> tuple[Batch, AsyncIterator[bytes]]:
        """A batch's codes as CSV, in pieces, without those revoked singly. Audited before the first code leaves."""
        batch = await self.get(batch_id)
        keys = self._keys_of(batch)
        detail = {"batch": str(batch_id), "reason": reason} if reason else {"batch": str(batch_id)}
        subject = f"{batch.drop}/{batch.allocation}"
        await self._ledger.drops.note(actor=actor, action="fcodes.export", subject=subject, detail=detail)
        log.info("ops.act", actor=actor, action="fcodes.export", subject=subject)
        return batch, self._lines(batch, keys)

    async def _lines(self, batch: Batch, keys: Keys) -> AsyncIterator[bytes]:
        revoked = await self._ledger.fcodes.revoked(batch.id)
        yield b"code,member_id,note\n" if batch.bound else b"code\n"
        owners: list[Bound] = []
        for first in range(0, batch.count, EXPORT_PART):
            serials = range(first, min(first + EXPORT_PART, batch.count))
            codes = mint(keys, batch.id, serials, version=batch.key_version)
            if not batch.bound:
                kept = [c for s, c in zip(serials, codes, strict=True) if s not in revoked] if revoked else list(codes)
                yield "".join(f"{code}\n" for code in kept).encode()
            else:
                while len(owners) < len(serials) and (more := await self._more(batch, first, owners)):
                    owners += more
                part, owners = owners[: len(serials)], owners[len(serials) :]
                yield _bound_lines(codes, part, revoked)
            await asyncio.sleep(0)

    async def _more(self, batch: Batch, first: int, owners: list[Bound]) -> list[Bound]:
        return await self._ledger.fcodes.bound(batch.id, owners[-1].serial if owners else first - 1)

    async def mine(self, member: int, before: int | None, limit: int) -> list[ShownCode]:
        """The codes that belong to a member, with what became of each."""
        found = await self._ledger.fcodes.mine(member, before, limit)
        return [ShownCode(self._text(own), own, self._state(own)) for own in found]

    def _text(self, own: OwnCode) -> str:
        keys = self._keys_of(own.batch)
        serials = range(own.serial, own.serial + 1)
        return next(mint(keys, own.batch.id, serials, version=own.batch.key_version))

    def _state(self, own: OwnCode) -> CodeState:
        if own.state is not None:
            return "held" if own.state is State.HELD else "spent"
        if own.revoked or own.batch.revoked_at is not None:
            return "revoked"
        if own.batch.expires_at is not None and own.batch.expires_at <= self._now():
            return "expired"
        return "unspent"


def _bound_lines(codes: Any, owners: list[Bound], revoked: set[int]) -> bytes:  # noqa: ANN401 -- an iterator of text
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for code, owner in zip(codes, owners, strict=True):
        if owner.serial not in revoked:
            writer.writerow((code, owner.member, owner.note or ""))
    return text.getvalue().encode()


__all__ = ["Batches", "Revoked", "ShownCode"]
