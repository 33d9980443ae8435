"""What a batch of claims asks of the gate, as decide.lua reads it."""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from flashsale.domain import Claim

TIER_MAX: Final = 2**31 - 1

_pack: Final = msgspec.msgpack.Encoder().encode


def _asked(c: Claim, *, spent: bool) -> tuple[str | int, ...]:
    asked = (c.allocation or "", c.quantity, c.payload, min(c.tier, TIER_MAX))
    if c.code is None:
        return asked
    shown = (*asked, c.code, c.member >> 32, c.member & 0xFFFF_FFFF)
    return (*shown, True) if spent else shown


def requests(ids: list[str], claims: Sequence[Claim], spent: Collection[int]) -> bytes:
    """Requests by columns. In a rush nearly all ask for the same, which is then sent, and read in Lua, once.

    `spent` are the places of those whose codes were seen spent.
    """
    what = [
        (c.allocation, c.quantity, c.tier)
        if c.code is None
        else (c.allocation, c.quantity, c.tier, c.code, c.member, at in spent)
        for at, c in enumerate(claims)
    ]
    distinct = dict(zip(what, claims, strict=True))
    numbers = {each: number for number, each in enumerate(distinct)}
    keys_of = [c.key or "" for c in claims]
    return _pack(
        [
            [str(c.member) for c in claims],
            ids,
            keys_of if any(keys_of) else (),
            [numbers[each] for each in what],
            [_asked(c, spent=each[-1] is True) for each, c in distinct.items()],
        ]
    )
