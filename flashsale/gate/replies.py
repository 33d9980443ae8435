"""What the scripts answer, as the structs of the domain."""

from collections.abc import Sequence
from enum import Enum, StrEnum
from typing import Any, Final

import msgspec

from flashsale.domain import SOLD_OUT, Claim, Decision, Grant, Refusal, Verdict, Withheld


class Unarmed(Enum):
    """The gate knows nothing it may be trusted in; rebuild it from the ledger."""

    UNARMED = "unarmed"


UNARMED: Final = Unarmed.UNARMED


class Lease(msgspec.Struct, frozen=True):
    """For so long, from when it asked, a process may refuse by itself whoever has nothing (`flashsale.leases`).

    `members` have got something since it read the log of late members up to where it said; of another log, `log` and
    `length` tell where to begin.
    """

    lasts_ms: int
    log: str
    length: int
    members: frozenset[int]


class Decisions(msgspec.Struct, frozen=True):
    """What one decide call answered: the server's clock and a decision per request, in their order.

    Of a striped drop, `left` are the units that this stripe has, by allocation; `short` tells by the place of a claim
    which allocations refused it for want of units alone, where it is not as `sold_out` would have it: the one asked
    for, or all that are not for F-codes.
    """

    epoch: int
    now_ms: int
    results: list[Decision]
    left: dict[str, int] = {}
    short: dict[int, tuple[str, ...]] = {}
    out_ms: int = 0
    """For so long, as of `now_ms`, some process may refuse by itself: who gets something now must not know before."""
    lease: Lease | None = None


class Fetched(StrEnum):
    """What came of asking a stripe for the unit of a claim that stands on another, in order of precedence.

    `stale`: the claim is of another epoch than the stripe.
    """

    STALE = "stale"
    FCODE_SPENT = "fcode_spent"
    SOLD_OUT = "sold_out"
    TOOK = "took"


class Taken(msgspec.Struct, frozen=True):
    """What one take call answered: what is left, which of the codes asked for are spent, and a result per claim."""

    epoch: int
    now_ms: int
    left: dict[str, int]
    spent: list[bool]
    results: list[Fetched]


class Status(msgspec.Struct, frozen=True):
    """What an armed gate holds: units left by allocation, and entries as id → (allocation, quantity).

    `pending` are not known to be in the ledger; `found` are those, of the ones asked for, that have an entry. Both are
    entries with units: a claim whose unit is on another stripe is not among them.
    """

    epoch: int
    now_ms: int
    out_ms: int
    """For so long some process may refuse by itself."""
    available: dict[str, int]
    pending: dict[str, tuple[str, int]]
    found: dict[str, tuple[str, int]]


WORDS: Final[dict[bytes, Refusal | Withheld]] = {
    **{v.value.encode(): Refusal(v) for v in Verdict},
    b"sold_out": SOLD_OUT,
    b"withheld": Withheld(),
}
"""Decisions that are a word and nothing more: prepared, because most are."""
ELSEWHERE: Final = "@"
"""At the end of an entry: it is a claim, and its unit is on another stripe."""


def decisions(
    answers: list[object], new_ids: list[str], claims: Sequence[Claim], epoch: int, stripe: int
) -> tuple[list[Decision], dict[int, tuple[str, ...]]]:
    """What decide.lua answered, a decision for each claim: a number stands for so many more of the one before it.

    And, by its place, the allocations of each "short" one.
    """
    found: list[Decision] = []
    short: dict[int, tuple[str, ...]] = {}
    names: tuple[str, ...] = ()
    for answer in answers:
        at = len(found)
        if type(answer) is bytes:
            found.append(WORDS[answer])
            names = ()
        elif type(answer) is int:
            found.extend(found[-1:] * answer)
            if names:
                short.update(dict.fromkeys(range(at, at + answer), names))
        else:
            found.append(decision(answer, new_ids[at], claims[at], epoch, stripe))
            names = _short_of(answer)
            if names:
                short[at] = names
    if len(found) != len(claims):
        raise RuntimeError(f"decide.lua answered {len(found)} of {len(claims)} requests")
    return found, short


def _short_of(answer: object) -> tuple[str, ...]:
    assert isinstance(answer, list)
    return tuple(name.decode() for name in answer[3:]) if answer[0] == b"short" else ()


def decision(answer: object, new_id: str, c: Claim, epoch: int, stripe: int) -> Grant | Refusal:
    """What decide.lua answered to a claim with more than a word."""
    assert isinstance(answer, list)
    match answer[0]:
        case b"held":
            allocation, slot = answer[1].decode(), answer[2]
            return Grant(new_id, c.member, allocation, c.quantity, slot, c.key, c.payload, epoch, stripe, code=c.code)
        case b"dry":
            at, slot = answer[1].decode(), answer[2]
            made = Grant(new_id, c.member, at, c.quantity, slot, c.key, c.payload, epoch, stripe, code=c.code)
            return msgspec.structs.replace(made, elsewhere=True)
        case b"short":
            return Refusal(Verdict(answer[1].decode()), opens_at_ms=answer[2] or None)
        case b"again":
            return grant_of(answer[1], c.member, epoch, stripe, again=True, pending=answer[2] == 1)
        case b"not_open":
            return Refusal(Verdict.NOT_OPEN, opens_at_ms=answer[1])
        case word:
            raise RuntimeError(f"decide.lua answered {word!r}")


def grant_of(line: bytes, member: int, epoch: int, stripe: int, *, again: bool = False, pending: bool) -> Grant:
    """An entry of the gate's as the grant that it was."""
    entry_id, allocation, quantity, slot, key, payload, shown = line.decode().split("\t")
    code = shown.removesuffix(ELSEWHERE)
    return Grant(
        entry_id,
        member,
        allocation,
        int(quantity),
        int(slot),
        key or None,
        payload,
        epoch,
        stripe,
        again,
        pending,
        int(code) if code else None,
        elsewhere=shown != code,
    )


def entry_of(g: Grant) -> str:
    """A grant as the entry that the stripe of its unit has of it."""
    code = "" if g.code is None else g.code
    return f"{g.id}\t{g.allocation}\t{g.quantity}\t{g.slot}\t{g.key or ''}\t{g.payload}\t{code}"


def lease_of(given: list[Any]) -> Lease | None:
    """What came of asking for a lease."""
    if not given:
        return None
    lasts_ms, log, length, members = given
    return Lease(lasts_ms, log.decode(), length, frozenset(map(int, members)))


def pairs(flat: list[bytes | int]) -> dict[str, int]:
    """[name, number, …] as a dict."""
    return {str(name, "ascii"): number for name, number in zip(flat[::2], flat[1::2], strict=True)}  # type: ignore[arg-type, misc]


def units(lines: list[bytes]) -> dict[str, tuple[str, int]]:
    """Entries as id → (allocation, quantity), without those whose unit is elsewhere."""
    grants = (grant_of(line, 0, 0, 0, pending=True) for line in lines)
    return {g.id: (g.allocation, g.quantity) for g in grants if not g.elsewhere}
