"""What the replay itself knows of its sale: who may buy, how many are sold, what the balance must be, who asks again.

Each check is a pure function that returns a `Check`; one that does not hold spells out the first contradiction it met,
by member and reservation. What holds for any sale is the auditor's to judge (`auditor`).
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

SETTLE_POLL_S = 0.2

Balance = Mapping[str, Any]


class Claim(NamedTuple):
    """One acknowledged reservation (201, or 200 when it was the same one again), as its member heard it."""

    reservation: str
    member: int
    allocation: str
    status: int
    quantity: int = 1


class Check(NamedTuple):
    """One line of the audit: what it asserts, what was found, and the first contradiction if it does not hold.

    `judged` False: it could not be told, and `found` says why.
    """

    line: str
    found: str
    contradiction: str | None = None
    judged: bool = True

    @property
    def true(self) -> bool:
        """Whether it holds."""
        return self.contradiction is None


def canonical(reservation: str) -> str:
    """A reservation id in one spelling, whether a store keeps it as a UUID or as text."""
    try:
        return str(uuid.UUID(reservation))
    except ValueError:
        return reservation


def everyone_answered(presses: int, unanswered: Sequence[int]) -> Check:
    """Nobody is left without a verdict. `unanswered` are the members who are."""
    return Check(
        "everyone heard a verdict",
        f"{presses - len(unanswered):,} of {presses:,}",
        f"{len(unanswered):,} heard none before the window's end, member {unanswered[0]} first; "
        "a longer window gives a slow machine time (--round-seconds)"
        if unanswered
        else None,
    )


def sold_exactly(journal: Iterable[Claim], expected: Mapping[str, int]) -> Check:
    """Each allocation sold as many units as expected. `expected`: allocation → units."""
    sold = Counter[str]()
    for claim in journal:
        sold[claim.allocation] += claim.quantity
    wrong = next((a for a in [*expected, *sold] if sold[a] != expected.get(a, 0)), None)
    return Check(
        f"{sum(expected.values())} sold",
        f"{sold.total()} acknowledged",
        f"{wrong} sold {sold[wrong]} units instead of {expected.get(wrong, 0)}" if wrong is not None else None,
    )


def none_below(journal: Iterable[Claim], points: Mapping[int, int], at_least: int) -> Check:
    """Every buyer had the points as of the cut-off. `points`: member → points."""
    buyers = 0
    wrong: str | None = None
    for claim in journal:
        buyers += 1
        had = points.get(claim.member)
        if wrong is None and (had is None or had < at_least):
            known = f"{had} points" if had is not None else "no points in the snapshot"
            wrong = f"member {claim.member} with {known} was given {claim.reservation} in {claim.allocation}"
    return Check(f"none under {at_least} points", f"{buyers} buyers", wrong)


def verdicts_follow(
    verdicts: Mapping[int, str], points: Mapping[int, int], at_least: int, earlier: AbstractSet[int], *, sold_out: bool
) -> Check:
    """Each member heard the word that the file of points and the earlier rounds imply.

    Below the threshold `not_eligible`; who holds a unit already (`earlier`) `member_limit`; everybody else `held` or
    `again`, or `sold_out` where the units ran out. `verdicts`: member → word.
    """
    expected = Counter[str]()
    wrong: str | None = None
    for member, word in verdicts.items():
        if points[member] < at_least:
            may = {"not_eligible"}
        elif member in earlier:
            may = {"member_limit"}
        else:
            may = {"held", "again", "sold_out"} if sold_out else {"held", "again"}
        expected[min(may) if len(may) == 1 else "bid"] += 1
        if wrong is None and word not in may:
            wrong = f"member {member} with {points[member]} points heard {word} instead of {' or '.join(sorted(may))}"
    heard = Counter(verdicts.values())
    return Check(
        "verdicts agree with the file",
        f"{heard['not_eligible']:,} not_eligible of {expected['not_eligible']:,} under {at_least} points, "
        f"{heard['member_limit']:,} member_limit of {expected['member_limit']:,} who have one",
        wrong,
    )


def balance_true(balance: Balance, expected: Mapping[str, int], quantity: Mapping[str, int]) -> Check:
    """The service's own balance holds, adds up, is settled, and agrees with the units sold.

    `expected`: allocation → units sold; `quantity`: allocation → units there were. Source: I1 and the contract.
    """
    found = {a["id"]: a for a in balance["allocations"]}
    line = "balance true in gate and ledger"
    if set(found) != set(quantity):
        return Check(line, "", f"the balance lists {sorted(found)} instead of {sorted(quantity)}")
    for allocation, units in quantity.items():
        have, sold = found[allocation], expected.get(allocation, 0)
        parts = {part: have[part] for part in ("available", "pending", "held", "confirmed")}
        said = f"{allocation}: " + ", ".join(f"{part} {count}" for part, count in parts.items())
        if have["quantity"] != units or sum(parts.values()) != units:
            return Check(line, "", f"{said}: they do not add up to {units}")
        if parts["pending"] or (parts["available"], parts["held"] + parts["confirmed"]) != (units - sold, sold):
            return Check(line, "", f"{said}: {sold} were acknowledged")
        if not have["balanced"]:
            return Check(line, "", f"{said}: the service itself says it is not balanced")
    if not balance["balanced"]:
        return Check(line, "", "the service itself says that the drop is not balanced")
    sums = {part: sum(a[part] for a in found.values()) for part in ("available", "pending", "held", "confirmed")}
    return Check(line, ", ".join(f"{part} {count}" for part, count in sums.items()))


def same_again(journal: Iterable[Claim], heard: Mapping[int, tuple[str, str]]) -> Check:
    """Each buyer who asks once more is given the reservation he has. `heard`: member → (word, reservation)."""
    asked = 0
    wrong: str | None = None
    for claim in journal:
        asked += 1
        word, reservation = heard.get(claim.member, ("nothing", ""))
        if wrong is None and (word != "again" or canonical(reservation) != canonical(claim.reservation)):
            holds = f"member {claim.member} holds {claim.reservation}"
            wrong = f"{holds}, asked once more and heard {word} {reservation}".rstrip()
    return Check("every buyer who asks again has the same one", f"{asked} asked", wrong)


async def settled_balance(
    read: Callable[[], Awaitable[Balance]], expected: Mapping[str, int], quantity: Mapping[str, int], timeout_s: float
) -> Check:
    """`balance_true` of the first balance that holds, or of the last one read within `timeout_s`."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + timeout_s
    while True:
        check = balance_true(await read(), expected, quantity)
        if check.true or loop.time() >= give_up_at:
            return check
        await asyncio.sleep(SETTLE_POLL_S)
