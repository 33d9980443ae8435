"""What the scripts answer, as the structs of the domain."""

from collections.abc import Sequence
from typing import Final

from flashsale.domain import Claim, Decision, Grant, Refusal, Verdict, Withheld

WORDS: Final[dict[bytes, Refusal | Withheld]] = {
    **{v.value.encode(): Refusal(v) for v in Verdict},
    b"withheld": Withheld(),
}
"""Decisions that are a word and nothing more: prepared, because most are."""


def decisions(
    answers: list[object], new_ids: list[str], claims: Sequence[Claim], epoch: int, stripe: int
) -> list[Decision]:
    """What decide.lua answered, a decision for each claim: a number stands for so many more of the one before it."""
    found: list[Decision] = []
    for answer in answers:
        if type(answer) is bytes:
            found.append(WORDS[answer])
        elif type(answer) is int:
            found.extend(found[-1:] * answer)
        else:
            at = len(found)
            found.append(decision(answer, new_ids[at], claims[at], epoch, stripe))
    if len(found) != len(claims):
        raise RuntimeError(f"decide.lua answered {len(found)} of {len(claims)} requests")
    return found


def decision(answer: object, new_id: str, c: Claim, epoch: int, stripe: int) -> Grant | Refusal:
    """What decide.lua answered to a claim with more than a word."""
    assert isinstance(answer, list)
    match answer[0]:
        case b"held":
            allocation, slot = answer[1].decode(), answer[2]
            return Grant(new_id, c.member, allocation, c.quantity, slot, c.key, c.payload, epoch, stripe, code=c.code)
        case b"again":
            return grant_of(answer[1], c.member, epoch, stripe, again=True, pending=answer[2] == 1)
        case b"not_open":
            return Refusal(Verdict.NOT_OPEN, opens_at_ms=answer[1])
        case word:
            raise RuntimeError(f"decide.lua answered {word!r}")


def grant_of(line: bytes, member: int, epoch: int, stripe: int, *, again: bool = False, pending: bool) -> Grant:
    """An entry of the gate's as the grant that it was."""
    entry_id, allocation, quantity, slot, key, payload, code = line.decode().split("\t")
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
    )


def units(lines: list[bytes]) -> dict[str, tuple[str, int]]:
    """Entries as id → (allocation, quantity)."""
    grants = (grant_of(line, 0, 0, 0, pending=True) for line in lines)
    return {g.id: (g.allocation, g.quantity) for g in grants}
