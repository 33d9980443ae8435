"""The audit of a sale: what customers heard, against the rules, the balance, the gate and the ledger.

Each check is a pure function that returns a `Check`; one that does not hold spells out the first contradiction it met,
by member and reservation. `stores` reads what the stores themselves hold.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

LIVE_STATES = frozenset({"held", "confirmed"})
CLOCKS_APART_S = 0.1  # a hold's end is by the ledger's clock, the opening by the gate's
SETTLE_POLL_S = 0.2

Balance = Mapping[str, Any]


class Claim(NamedTuple):
    """One acknowledged reservation (201, or 200 when it was the same one again), as its member heard it.

    `expires_at_s` is Unix time in seconds; `held_by` and `held_in` are the member and the allocation in the answer.
    """

    reservation: str
    member: int
    allocation: str
    status: int
    expires_at_s: float
    held_by: int
    held_in: str
    quantity: int = 1


class Row(NamedTuple):
    """A reservation as a store has it; the gate knows only live ones and gives `state` `held`."""

    reservation: str
    member: int
    allocation: str
    state: str


class Check(NamedTuple):
    """One line of the audit: what it asserts, what was found, and the first contradiction if it does not hold."""

    line: str
    found: str
    contradiction: str | None = None

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


def nobody_over(journal: Iterable[Claim], per_member: int) -> Check:
    """No member holds more than `per_member` units, whatever the allocations."""
    units = Counter[int]()
    for claim in journal:
        units[claim.member] += claim.quantity
    wrong = next((member for member, held in units.items() if held > per_member), None)
    return Check(
        "no member twice" if per_member == 1 else f"no member over {per_member}",
        f"{len(units)} members",
        f"member {wrong} was given {units[wrong]} units, {per_member} allowed" if wrong is not None else None,
    )


def ids_are_unique(journal: Iterable[Claim]) -> Check:
    """No two acknowledgements carry the same reservation."""
    owner: dict[str, int] = {}
    wrong: str | None = None
    for claim in journal:
        first = owner.setdefault(canonical(claim.reservation), claim.member)
        if first != claim.member and wrong is None:
            wrong = f"{claim.reservation} was given to member {first} and to member {claim.member}"
    return Check("every reservation to one member", f"{len(owner)} reservations", wrong)


def answers_fit(journal: Iterable[Claim]) -> Check:
    """Each acknowledgement names the member who pressed and the allocation that was asked for."""
    heard = 0
    wrong: str | None = None
    for claim in journal:
        heard += 1
        if wrong is None and (claim.held_by, claim.held_in) != (claim.member, claim.allocation):
            wrong = (
                f"member {claim.member} asked for {claim.allocation} and {claim.reservation} "
                f"answered with member {claim.held_by} in {claim.held_in}"
            )
    return Check("every answer is its member's own", f"{heard} answers", wrong)


def none_before_opening(journal: Iterable[Claim], opens_at_s: Mapping[str, float], hold_s: float) -> Check:
    """No hold began before its window, by the servers' clocks. `opens_at_s`: allocation → Unix time in seconds."""
    earliest: float | None = None
    wrong: str | None = None
    for claim in journal:
        after_s = claim.expires_at_s - hold_s - opens_at_s[claim.allocation]
        earliest = after_s if earliest is None else min(earliest, after_s)
        if wrong is None and after_s < -CLOCKS_APART_S:
            held = f"{claim.reservation} of member {claim.member} was held"
            wrong = f"{held} {-after_s:.3f} s before {claim.allocation} opened"
    found = "no hold" if earliest is None else f"first hold {earliest:+.3f} s after it"
    return Check("nothing before the opening", found, wrong)


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


def _agrees(line: str, journal: Iterable[Claim], rows: Iterable[Row], store: str) -> Check:
    kept: dict[str, Row] = {}
    for row in rows:
        if row.state not in LIVE_STATES:
            continue
        if canonical(row.reservation) in kept:
            return Check(line, "", f"{row.reservation} is in the {store} twice")
        kept[canonical(row.reservation)] = row
    live = len(kept)
    claims = {canonical(claim.reservation): claim for claim in journal}
    for reservation, claim in claims.items():
        there = kept.pop(reservation, None)
        who = f"{claim.reservation} of member {claim.member} in {claim.allocation} was acknowledged"
        if there is None:
            return Check(line, f"{live} live", f"{who} and is not live in the {store}")
        if (there.member, there.allocation) != (claim.member, claim.allocation):
            return Check(line, f"{live} live", f"{who}; the {store} has member {there.member} in {there.allocation}")
    for extra in kept.values():
        more = f"{extra.reservation} of member {extra.member} in {extra.allocation} is live in the {store}"
        return Check(line, f"{live} live", f"{more} and nobody was told")
    return Check(line, f"{live} live, {len(claims)} acknowledged")


def ledger_agrees(journal: Iterable[Claim], rows: Iterable[Row]) -> Check:
    """Every acknowledged reservation is live in the ledger under its member and allocation, and nothing more is."""
    return _agrees("every 201 is in the ledger, and nothing more", journal, rows, "ledger")


def gate_agrees(journal: Iterable[Claim], rows: Iterable[Row]) -> Check:
    """Every acknowledged reservation is an entry of the gate under its member and allocation, and nothing more is."""
    return _agrees("every 201 is in the gate, and nothing more", journal, rows, "gate")


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
