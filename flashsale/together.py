"""Presses that came together: one future, and one task, for all of them, and an answer to each as soon as there is one.

It is the flow of `reservations`, for many at a time. Who is refused is told at once; grants are committed by the batch;
and whoever is in the least unusual (unarmed, withheld, known already, stale) goes on alone from where it stands.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Protocol

import msgspec

from flashsale.domain import SOLD_OUT, Claim, Decision, Grant, Refusal, Reservation
from flashsale.errors import Overloaded, Unavailable
from flashsale.gate import Unarmed
from flashsale.lanes import Lanes, Limits
from flashsale.ledger import Commit, Committed
from flashsale.stripes import Stripes


class Held(msgspec.Struct, frozen=True):
    """The grant is a reservation since just now: 201."""

    grant: Grant
    expires_at: datetime


class Known(msgspec.Struct, frozen=True):
    """The same one again: 200."""

    reservation: Reservation


Outcome = Held | Known | Refusal
Tell = Callable[[int, Outcome | Exception], None]
"""Hears what became of one of the presses that came together: its place among them, and its answer or its fault."""


def _moved(tell: Tell, by: int, at: int, answer: Outcome | Exception) -> None:
    tell(by + at, answer)


class Reserve(Protocol):
    """The flow for one press, from where it stands."""

    async def __call__(
        self, drop_id: str, claim: Claim, *, decision: Decision | Unarmed | None, outcome: Commit | None
    ) -> Outcome:
        """What became of it."""


class Together:
    """The flow for many. `lanes` gives a drop's lanes, `reserve` goes on with one press."""

    def __init__(self, *, reserve: Reserve, lanes: Callable[[str], Lanes], limits: Limits) -> None:
        self._reserve = reserve
        self._lanes = lanes
        self._limits = limits

    async def reserve(self, drop_id: str, claims: Sequence[Claim], tell: Tell) -> None:
        """Reserve all; `tell` gets the place of a claim among `claims` with what it hears."""
        leases = self._lanes(drop_id).leases
        if leases is not None and (refused := leases.refused(claims)) is not None:
            places = [at for at, is_refused in enumerate(refused) if not is_refused]
            for at, is_refused in enumerate(refused):
                if is_refused:
                    tell(at, SOLD_OUT)
            if places:
                await self._reserve_all(
                    drop_id, [claims[at] for at in places], lambda at, answer: tell(places[at], answer)
                )
            return
        await self._reserve_all(drop_id, claims, tell)

    async def _reserve_all(self, drop_id: str, claims: Sequence[Claim], tell: Tell) -> None:
        size = self._limits.gate_batch_max
        parts = range(0, len(claims), size)
        if len(parts) == 1:
            await self._part(drop_id, claims, tell)
        else:
            await asyncio.gather(
                *(self._part(drop_id, claims[at : at + size], partial(_moved, tell, at)) for at in parts)
            )

    async def _part(self, drop_id: str, claims: Sequence[Claim], tell: Tell) -> None:
        lanes = self._lanes(drop_id)
        if isinstance(lanes.gate, Stripes):  # between the stripes each goes its own way
            await asyncio.gather(*(self._alone(drop_id, c, partial(tell, at)) for at, c in enumerate(claims)))
            return
        room = max(0, self._limits.ledger_queue_max - lanes.ledger.depth)
        room = min(room, max(0, self._limits.gate_queue_max - lanes.gate.depth))
        for at in range(room, len(claims)):
            tell(at, Overloaded("Too many requests are waiting; repeat the same request in a moment."))
        if not room:
            return
        claims = claims[:room]
        try:
            decisions = await lanes.gate.submit_many(claims)
        except Unavailable as fault:
            for at in range(len(claims)):
                tell(at, fault)
            return
        grants: list[tuple[int, Grant]] = []
        rest: list[Awaitable[None]] = []
        for at, decision in enumerate(decisions):
            if type(decision) is Refusal:
                tell(at, decision)
            elif type(decision) is Grant:
                grants.append((at, decision))
            else:  # unarmed, or withheld: `reserve` has steps for that
                rest.append(self._alone(drop_id, claims[at], partial(tell, at), decision))
        size = self._limits.ledger_batch_max
        rest.extend(self._kept(drop_id, claims, grants[at : at + size], tell) for at in range(0, len(grants), size))
        if len(rest) == 1:
            await rest[0]
        elif rest:
            await asyncio.gather(*rest)

    async def _kept(
        self, drop_id: str, claims: Sequence[Claim], grants: Sequence[tuple[int, Grant]], tell: Tell
    ) -> None:
        """Commit these grants in one call, and tell who had them."""
        lanes = self._lanes(drop_id)
        await lanes.kept_back(grant for _, grant in grants)
        try:
            outcomes = await lanes.ledger.submit_many(grant for _, grant in grants)
        except Unavailable as fault:
            for at, _ in grants:
                tell(at, fault)
            return
        rest: list[Awaitable[None]] = []
        for (at, grant), outcome in zip(grants, outcomes, strict=True):
            if type(outcome) is Committed:
                lanes.settle(grant)
                tell(at, Held(grant, outcome.expires_at))
            else:
                rest.append(self._alone(drop_id, claims[at], partial(tell, at), grant, outcome))
        if rest:
            await asyncio.gather(*rest)

    async def _alone(
        self,
        drop_id: str,
        claim: Claim,
        tell: Callable[[Outcome | Exception], None],
        decision: Decision | Unarmed | None = None,
        outcome: Commit | None = None,
    ) -> None:
        """Go on with one of them from where it stands."""
        try:
            tell(await self._reserve(drop_id, claim, decision=decision, outcome=outcome))
        except Exception as fault:  # noqa: BLE001 -- whatever it was, it is this press that hears of it
            tell(fault)
