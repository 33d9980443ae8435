"""A sale as a load test sees it: what is sold when, who presses, what was heard."""

import json
import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from random import Random
from typing import Any

from loadtests import verify
from loadtests.api import rfc3339
from loadtests.client import Press, Rush
from loadtests.http1 import Answer, Target, post_bytes
from loadtests.journal import Asked, Journal

HOLD_S_MIN = 900
REPEAT_AFTER_S = 1.0  # where an answer that asks to be repeated does not say when
REPEATED_STATUSES = frozenset({429, 503})


@dataclass(frozen=True)
class Edition:
    """What was sold: `days` allocations of `units` each. Prices in minor units of CNY."""

    name: str
    title: str
    cutoff: str
    at_least: int
    price: int
    list_price: int
    per_member: int
    days: int
    units: int


ENGINEERING_EDITION = Edition(
    name="engineering-edition",
    title="Engineering edition",
    cutoff="2011-08-16T00:00:00+08:00",
    at_least=100,
    price=169900,
    list_price=199900,
    per_member=1,
    days=3,
    units=200,
)
"""29, 30 and 31 August 2011: 200 a day, at 1,699 instead of 1,999, for members with 100 points before 16 August."""


@dataclass(frozen=True)
class Sale:
    """An edition with its members and its days shortened to seconds. `opens_at_s`: allocation → Unix time."""

    edition: Edition
    drop: str
    points: Mapping[int, int]
    opens_at_s: Mapping[str, float]
    round_s: float

    @classmethod
    def of(cls, edition: Edition, drop: str, points: Mapping[int, int], first_s: float, round_s: float) -> "Sale":
        """The sale whose first day opens at Unix time `first_s`; each next one opens as the one before closes."""
        opens = {f"day-{day + 1}": first_s + day * round_s for day in range(edition.days)}
        return cls(edition, drop, points, opens, round_s)

    @property
    def path(self) -> str:
        """Where members press."""
        return f"/v1/drops/{self.drop}/reservations"

    @property
    def hold_s(self) -> int:
        """How long a unit is held: beyond the audit's end, so that no hold ends in the middle of it."""
        return max(HOLD_S_MIN, math.ceil(2 * self.edition.days * self.round_s) + HOLD_S_MIN)

    def key(self, allocation: str, member: int) -> str:
        """A member's Idempotency-Key of a round."""
        return f"{self.drop}-{allocation}-{member}"

    @property
    def eligible(self) -> int:
        """How many members have the points."""
        return sum(had >= self.edition.at_least for had in self.points.values())

    def presses(self, target: Target, tokens: Mapping[int, str], allocation: str, random: Random) -> list[Press]:
        """A press of every member for `allocation`, in random order, each with a key of its own."""
        body = json.dumps({"allocation": allocation}).encode()
        presses = []
        for member, token in tokens.items():
            key = self.key(allocation, member)
            presses.append(Press(member, post_bytes(target, self.path, token=token, body=body, key=key)))
        random.shuffle(presses)
        return presses


def drop_document(sale: Sale, snapshot: str) -> dict[str, Any]:
    """The drop as an operator creates it. Source: `POST /v1/ops/drops`."""
    edition = sale.edition
    access = {"kind": "points", "snapshot": snapshot, "at_least": edition.at_least}
    return {
        "id": sale.drop,
        "title": edition.title,
        "price": {"amount": edition.price, "currency": "CNY"},
        "list_price": {"amount": edition.list_price, "currency": "CNY"},
        "per_member": edition.per_member,
        "hold_seconds": sale.hold_s,
        "allocations": [
            {
                "id": allocation,
                "quantity": edition.units,
                "opens_at": rfc3339(opens_s),
                "closes_at": rfc3339(opens_s + sale.round_s),
                "access": access,
            }
            for allocation, opens_s in sale.opens_at_s.items()
        ],
    }


def read_verdict(answer: Answer) -> tuple[str, dict[str, Any]]:
    """The word of an answer and its document: `held` for 201, `again` for 200, else the problem's `code`."""
    try:
        found = json.loads(answer.body)
    except ValueError:
        found = None
    document: dict[str, Any] = found if isinstance(found, dict) else {}
    if answer.status in {200, 201}:
        return ("held" if answer.status == 201 else "again"), document
    return str(document.get("code", f"http_{answer.status}")), document


class Round:
    """One allocation's rush: every verdict, every acknowledgement, and when. Times count from the opening, seconds.

    In a round without an allocation everybody asks, without a key, for the one in `wanted`.
    """

    def __init__(
        self,
        sale: Sale,
        allocation: str,
        opening: float,
        *,
        earlier: AbstractSet[int],
        journal: Journal,
        wanted: Mapping[int, str] | None = None,
    ) -> None:
        self.sale = sale
        self.allocation = allocation
        self.wanted = wanted or {}
        self.journal = journal
        self.opening = opening
        self.earlier = earlier
        self.presses = 0
        self.verdicts: dict[int, str] = {}
        self.claims: list[verify.Claim] = []
        self.repeated: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()
        self.answer_s = array("d")
        self.released_s = 0.0
        self.last_unit_s: float | None = None
        self.last_verdict_s: float | None = None
        self.checks: list[verify.Check] = []

    def judge(self, press: Press, answer: Answer) -> float | None:
        """Note an answer; returns how long to wait when the press must be repeated, else None."""
        self.answer_s.append(answer.at - press.sent_at)
        word, document = read_verdict(answer)
        self.journal.answered(
            self._asked(press), press.sent_at, at=answer.at, status=answer.status, word=word, document=document
        )
        if answer.status in REPEATED_STATUSES or word == "not_open":
            self.repeated[word] += 1
            return REPEAT_AFTER_S if answer.retry_after_s is None else answer.retry_after_s
        if word in {"held", "again"}:
            try:
                self.claims.append(self._claim(press.member, answer.status, document))
                self.last_unit_s = answer.at - self.opening
            except (KeyError, TypeError, ValueError):
                word = "malformed"
        self.verdicts[press.member] = word
        self.last_verdict_s = answer.at - self.opening
        return None

    def lost(self, press: Press) -> None:
        """The answer to this press was lost; it is repeated."""
        self.journal.lost(self._asked(press), press.sent_at)

    def _asked(self, press: Press) -> Asked:
        if not self.allocation:
            return Asked(press.member, None, self.wanted.get(press.member))
        return Asked(press.member, self.sale.key(self.allocation, press.member), self.allocation)

    def _claim(self, member: int, status: int, document: dict[str, Any]) -> verify.Claim:
        return verify.Claim(
            reservation=str(document["id"]),
            member=member,
            allocation=self.allocation or str(document["allocation"]),
            status=status,
            quantity=int(document["quantity"]),
        )

    def end(self, presses: int, unanswered: list[int], rush: Rush) -> None:
        """The window has ended or everybody was answered: hold what was heard against the rules."""
        self.presses = presses
        self.released_s = rush.started_at - self.opening
        self.broken = Counter(rush.broken)
        edition, points = self.sale.edition, self.sale.points
        bidders = self.sale.eligible - len(self.earlier)
        self.checks += [
            verify.everyone_answered(presses, unanswered),
            verify.sold_exactly(self.claims, {self.allocation: min(edition.units, bidders)}),
            verify.none_below(self.claims, points, edition.at_least),
            verify.verdicts_follow(
                self.verdicts, points, edition.at_least, self.earlier, sold_out=bidders > edition.units
            ),
        ]

    def answer_ms(self, share: float) -> float:
        """The time within which this share of the requests was answered, milliseconds on the wire."""
        ordered = sorted(self.answer_s)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


@dataclass
class Replay:
    """A replayed sale: its rounds, and the checks over all of them."""

    sale: Sale
    connections: int
    rounds: list[Round] = field(default_factory=list)
    checks: list[verify.Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def journal(self) -> list[verify.Claim]:
        """Every acknowledgement of the sale, in the order in which they were heard."""
        return [claim for round_ in self.rounds for claim in round_.claims]

    def buyers(self) -> frozenset[int]:
        """Who holds a unit."""
        return frozenset(claim.member for claim in self.journal())

    def sold(self) -> dict[str, int]:
        """Units acknowledged, by allocation."""
        units = dict.fromkeys(self.sale.opens_at_s, 0)
        for claim in self.journal():
            units[claim.allocation] += claim.quantity
        return units

    def audit(self) -> list[verify.Check]:
        """The audit of the whole sale, line by line."""
        sale, edition, journal = self.sale, self.sale.edition, self.journal()
        expected, left = {}, sale.eligible
        for allocation in sale.opens_at_s:
            expected[allocation] = min(edition.units, left)
            left -= expected[allocation]
        return [
            verify.sold_exactly(journal, expected),
            verify.none_below(journal, sale.points, edition.at_least),
            *self.checks,
        ]

    def all_checks(self) -> Iterator[tuple[str, verify.Check]]:
        """Every check with the round it belongs to; the sale's own under the drop's id."""
        for round_ in self.rounds:
            for check in round_.checks:
                yield round_.allocation, check
        for check in self.audit():
            yield self.sale.drop, check

    @property
    def contradiction(self) -> str | None:
        """The first contradiction, with the round it was found in; None when all is true."""
        wrong = ((where, check) for where, check in self.all_checks() if not check.true)
        return next((f"{where}: {check.line}: {check.contradiction}" for where, check in wrong), None)
