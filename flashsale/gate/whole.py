"""A drop's gate as a whole: what is asked of all its stripes, or of the two that a reservation touches.

A drop of one stripe is asked once, as ever. Of several, an answer counts when it is of one epoch on all of them: in the
midst of a rebuild some are of the old one, and what they say does not belong together.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from flashsale.domain import Drop, Grant
from flashsale.errors import Unavailable
from flashsale.gate import UNARMED, Gate, Status, Unarmed

Answer = TypeVar("Answer")


async def each(stripes: int, call: Callable[[int], Awaitable[Answer]]) -> list[Answer]:
    """The answers of all stripes of a drop, asked side by side, in their order."""
    if stripes == 1:
        return [await call(0)]
    return await asyncio.gather(*(call(stripe) for stripe in range(stripes)))


class Placed(Protocol):
    """A reservation: its id, its member, and the stripes that have its claim and its unit."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def member(self) -> int:
        """Whose it is."""

    @property
    def home(self) -> int:
        """The stripe that has its claim."""

    @property
    def unit(self) -> int:
        """The stripe that has its unit."""


class Place(NamedTuple):
    """Where something is in the gate."""

    id: str
    member: int
    home: int
    unit: int


def place_of(grant: Grant, unit: int | None = None) -> Place:
    """Where a grant is; `unit` when the grant itself does not know where that is."""
    return Place(grant.id, grant.member, grant.stripe, grant.unit_stripe if unit is None else unit)


async def status(
    gate: Gate, drop: Drop, min_epoch: int, look_for: Sequence[tuple[str, int]] | None = None
) -> Status | Unarmed:
    """As `Gate.status`, summed up. The clock is that of the first stripe."""
    if drop.stripes == 1:
        return await gate.status(drop, min_epoch, look_for)
    told = await each(drop.stripes, lambda stripe: gate.status(drop, min_epoch, look_for, stripe=stripe))
    found = [one for one in told if not isinstance(one, Unarmed)]
    if len(found) < drop.stripes or len({one.epoch for one in found}) > 1:
        return UNARMED
    available = Counter[str]()
    for one in found:
        available.update(one.available)
    return Status(
        epoch=found[0].epoch,
        now_ms=found[0].now_ms,
        out_ms=max(one.out_ms for one in found),
        available={name: available[name] for name in found[0].available},
        pending={i: entry for one in found for i, entry in one.pending.items()},
        found={i: entry for one in found for i, entry in one.found.items()},
    )


def _by_stripe(placed: Iterable[Placed]) -> dict[int, list[tuple[str, int]]]:
    """What each stripe has of these."""
    there: dict[int, list[tuple[str, int]]] = {}
    for one in placed:
        there.setdefault(one.home, []).append((one.id, one.member))
        if one.unit != one.home:
            there.setdefault(one.unit, []).append((one.id, one.member))
    return there


async def release(
    gate: Gate, drop_id: str, ended: Sequence[Placed], *, keep: Collection[str] = (), spent: Collection[str] = ()
) -> dict[int, list[str]]:
    """As `Gate.release`; returns by epoch the ids that every stripe of theirs gave back under that one epoch.

    A place under the limit is kept at home: elsewhere there is only the unit. Raises when a stripe cannot be reached
    and nothing was given back for good; what another one did meanwhile may be repeated.
    """
    there = _by_stripe(ended)
    homes = {one.id: one.home for one in ended} if keep and len(there) > 1 else {}

    async def give_back(stripe: int) -> int | Unarmed:
        kept = [i for i in keep if homes.get(i, stripe) == stripe]
        return await gate.release(drop_id, there[stripe], keep=kept, spent=spent, stripe=stripe)

    if len(there) == 1:
        [stripe] = there
        epoch = await give_back(stripe)
        return {} if isinstance(epoch, Unarmed) else {epoch: [one.id for one in ended]}
    answers = await asyncio.gather(*(give_back(stripe) for stripe in there), return_exceptions=True)
    told = dict(zip(there, answers, strict=True))
    done: dict[int, list[str]] = {}
    for one in ended:
        at_home, at_unit = told[one.home], told[one.unit]
        if isinstance(at_home, int) and at_home == at_unit:
            done.setdefault(at_home, []).append(one.id)
    for fault in answers:
        if isinstance(fault, BaseException) and not (done and isinstance(fault, Unavailable)):
            raise fault
    return done
