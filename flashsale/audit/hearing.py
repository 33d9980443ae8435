"""Listens to the journal, line by line, and holds each answer against the ledger; what spans lines is kept for later.

Only what was acknowledged leaves something in memory, and of refusals a figure or two for each allocation.
"""

from collections import Counter
from typing import Final

import msgspec

from flashsale.audit.codes import by_code, number_of, revoked_at, spent_until, text
from flashsale.audit.facts import BATCH_SHIFT, ENDED, Heard, Ledger, Row
from flashsale.audit.history import Free
from flashsale.audit.journal import Line
from flashsale.audit.members import Eligible, has
from flashsale.audit.orders import Deliveries
from flashsale.audit.report import US, BadJournal, Check, Look, clock, count, heard, uuid_bytes, uuid_text
from flashsale.audit.units import named

ACTS: Final = frozenset({"pause", "resume", "close", "resize", "revoke"})
TOLD_APART_S: Final = 0.001
"""Between a time in an answer and the same in the ledger."""
STALE_S: Final = 10.0
"""So long after a code was minted, and before it ends, it may be refused."""


class Unsold(msgspec.Struct):
    """`sold_out` was heard, perhaps again and again, while the ledger had units and none was sold."""

    first_heard: float
    last_sent: float
    last: Line
    begin: int
    end: int

    @property
    def lasted_s(self) -> float:
        """For how long."""
        return self.last_sent - self.first_heard


class Hearing:
    """What was heard. `late`: members whose reservations came after the close, of whom it matters when they asked."""

    def __init__(
        self, ledger: Ledger, eligible: Eligible, free: dict[str, Free], *, late: set[int], unsold_s: float
    ) -> None:
        self._ledger = ledger
        self._eligible = eligible
        self._free = free
        self._late = late
        self._unsold_s = ledger.drop.hold_s + unsold_s
        self._codes = by_code(ledger)
        self._only = next(iter(ledger.drop.allocations)) if len(ledger.drop.allocations) == 1 else None
        self.deliveries = Deliveries(ledger)
        self.lines = 0
        self.of_others = 0
        self.words: Counter[str] = Counter()
        self.acts: list[Line] = []
        self.lost: dict[bytes, str] = {}
        self.asked: dict[int, float] = {}
        self.ahead = (float("-inf"), float("inf"))
        self.first_sold_out: dict[str, Line] = {}
        self.last_not_open: dict[str, Line] = {}
        self.unsold: dict[tuple[str, int], Unsold] = {}
        self._spent: dict[int, float] = {}
        self.while_free = 0
        self._owner: dict[bytes, int] = {}
        self._answers = Look("I8", "every answer names the reservation of its member, key and request")
        self._told = Look("I3", "every answer tells the reservation as the ledger has it")
        self._let_in = Look("I7", "who was not let in is not in the snapshot")
        self._honoured = Look("I6", "a code that is valid is honoured")
        self._counts = Counter[str]()

    def take(self, line: Line) -> None:
        """One line. Errors: `BadJournal` for one that cannot be one."""
        self.lines += 1
        drop = self._ledger.drop.id
        if line.drop is not None and line.drop != drop:
            self.of_others += 1
            return
        call = line.call
        if call == "delivery":
            order = uuid_bytes(line.order) if line.order is not None else None
            self.deliveries.take(order, str(line.order), line.event, _raw(line.reservation), line.status)
            return
        if line.sent_at is None:
            raise BadJournal(f"it says {call!r}, and not when that was asked (`sent_at`)")
        if call == "reserve":
            self._reserve(line, line.sent_at)
        elif call in ACTS:
            self.acts.append(line)
        elif line.reservation is not None:
            self._about(line, line.reservation, line.sent_at)

    def _reserve(self, line: Line, sent_at: float) -> None:
        if line.member in self._late and line.may_have_happened:
            self.asked[line.member] = min(sent_at, self.asked.get(line.member, sent_at))
        if line.status in {200, 201} and line.reservation is not None:
            self.words["held" if line.status == 201 else "again"] += 1  # noqa: PLR2004 -- as above
            self._about(line, line.reservation, sent_at)
            return
        word = line.code or (f"status {line.status}" if line.status else "no answer")
        self.words[word] += 1
        if word == "sold_out":
            self._sold_out(line, sent_at)
        elif word == "not_eligible":
            self._not_eligible(line)
        elif word in {"fcode_invalid", "fcode_spent"}:
            self._code_refused(line, sent_at)
        elif line.fcode is not None and line.may_have_happened:
            self._under_way(line)
        elif word == "not_open":
            name = line.allocation or self._only
            if name is not None and ((last := self.last_not_open.get(name)) is None or (last.sent_at or 0) < sent_at):
                self.last_not_open[name] = line

    def _about(self, line: Line, text: str, sent_at: float) -> None:
        """A line that names a reservation."""
        raw = uuid_bytes(text)
        row = self._ledger.rows.get(raw) if raw is not None else None
        good = line.status in {200, 201}
        if row is None:
            if good:
                self._nowhere(line, raw or text.encode(), text)
            return
        note = row.heard
        if note is None:
            note = row.heard = Heard()
        if line.call == "confirm" and line.may_have_happened:
            note.confirm_sent = _least(note.confirm_sent, sent_at)
        note.cancel_asked |= line.call == "cancel"
        if good:
            note.acknowledged = True
            self._compare(line, row)
            self._remember(line, row, note, sent_at)

    def _nowhere(self, line: Line, raw: bytes, text: str) -> None:
        when = heard(line.heard_at or line.sent_at or 0)
        who = f"{text} of member {line.member} in {line.answered_in or line.allocation}"
        self.lost.setdefault(raw, f"{who} was acknowledged at {when}, and the ledger has no such reservation")
        if line.member is not None and self._owner.setdefault(raw, line.member) != line.member:
            self._answers.wrong(f"{text} was given to member {self._owner[raw]} and to member {line.member}")

    def _compare(self, line: Line, row: Row) -> None:
        """An answer against the ledger's row."""
        self._counts["answers"] += 1
        if line.answered_in is not None and line.answered_in != row.allocation:
            self._wrong(self._told, line, row, f"was said to be in {line.answered_in}")
        if line.expires_at is not None and abs(line.expires_at - row.expires / US) > TOLD_APART_S:
            self._wrong(self._told, line, row, f"was said to end at {heard(line.expires_at)}, not {clock(row.expires)}")
        if line.order is not None and _raw(line.order) != row.order:
            known = "none" if row.order is None else uuid_text(row.order)
            self._wrong(self._told, line, row, f"was said to be order {line.order}, and is {known}")
        if line.member is not None and line.member != row.member:
            self._wrong(self._answers, line, row, f"was given to member {line.member}")
        if line.call == "reserve":
            self._compare_request(line, row)

    def _compare_request(self, line: Line, row: Row) -> None:
        """What was asked for against what was given."""
        if line.allocation is not None and line.allocation != row.allocation:
            self._wrong(self._told, line, row, f"was given to who asked for {line.allocation}")
        if line.quantity is not None and line.quantity != row.quantity:
            self._wrong(self._told, line, row, f"has {row.quantity} units, and {line.quantity} were asked for")
        number = None if line.fcode is None else number_of(line.fcode)
        # Who may have one unit and presses without a key is answered with it, whatever code is shown the second time:
        # with 201, too, when that press was the one whose commit came first.
        same_again = line.key is None and self._ledger.drop.per_member == 1
        if number is not None and row.code != number and not same_again:
            code = "no code" if row.code is None else text(row.code)
            self._wrong(self._answers, line, row, f"was given for {code}, and {text(number)} was shown")
        if line.key is None:
            return
        if row.key != line.key:
            self._wrong(self._answers, line, row, f"has the key {row.key!r}, and was asked for with {line.key!r}")
        if line.fcode is None or number is not None:
            asked = f"{line.allocation or ''}|{line.quantity or 1}{'' if number is None else f'|{number}'}"
            if row.payload != asked:
                why = f"is of the request {row.payload!r}, and {asked!r} was asked with that key"
                self._wrong(self._answers, line, row, why)

    @staticmethod
    def _wrong(look: Look, line: Line, row: Row, why: str) -> None:
        at = heard(line.heard_at or line.sent_at or 0)
        look.wrong(f"{named(row)}, as was heard at {at}, {why}", row.created)

    def _remember(self, line: Line, row: Row, note: Heard, sent_at: float) -> None:
        """What the states in the answers add up to."""
        heard_at = line.heard_at if line.heard_at is not None else float("inf")
        if line.call == "reserve" and line.status == 201:  # noqa: PLR2004 -- made by this very request
            note.created_sent, note.created_heard = sent_at, heard_at
            note.created_times += 1
            if note.created_times == 2:  # noqa: PLR2004 -- once is right
                self._answers.wrong(f"{named(row)} was made by two requests (201 twice)", row.created)
            created = row.created / US
            self.ahead = max(self.ahead[0], created - heard_at), min(self.ahead[1], created - sent_at)
        state = line.state or {"confirm": "confirmed", "cancel": "cancelled"}.get(line.call, "held")
        if state == "held":
            note.held_sent = _most(note.held_sent, sent_at)
        elif state == "confirmed":
            note.confirmed_heard = _least(note.confirmed_heard, heard_at)
            note.confirmed_sent = _most(note.confirmed_sent, sent_at)
        elif state in ENDED and (note.ended_heard is None or heard_at < note.ended_heard):
            note.ended, note.ended_heard = state, heard_at

    def _sold_out(self, line: Line, sent_at: float) -> None:
        heard_at = line.heard_at or sent_at
        if line.fcode is not None:
            self._counts["codes"] += 1
            self._honoured.wrong(
                f"member {line.member} showed an F-code at {heard(sent_at)} and heard sold_out: its unit was set aside"
            )
            return
        name = line.allocation or self._only or ""
        first = self.first_sold_out.get(name)
        if first is None or (first.heard_at or first.sent_at or 0) > heard_at:
            self.first_sold_out[name] = line
        free = self._free.get(name)
        span = free.span(round(heard_at * US)) if free is not None else None
        if span is None or (line.quantity or 1) != 1:
            return
        self.while_free += 1
        known = self.unsold.get((name, span[0]))
        if known is None:
            self.unsold[name, span[0]] = Unsold(heard_at, sent_at, line, *span)
            return
        known.first_heard = min(known.first_heard, heard_at)
        if sent_at > known.last_sent:
            known.last_sent, known.last = sent_at, line

    def _not_eligible(self, line: Line) -> None:
        name = line.allocation or self._only
        eligible = self._eligible.get(name) if name is not None else None
        if eligible is None or line.member is None:
            return
        self._counts["not_eligible"] += 1
        if has(eligible, line.member):
            rule = self._ledger.drop.allocations[name or ""]
            self._let_in.wrong(
                f"member {line.member} heard not_eligible for {name} at {heard(line.heard_at or line.sent_at or 0)}, "
                f"and is among those with {rule.at_least} points or more in {rule.snapshot}",
                line.sent_at or 0,
            )

    def _code_refused(self, line: Line, sent_at: float) -> None:
        """A refusal of a code: is there a reason for it? One that the journal has as a number is known to be ours."""
        code, heard_at = number_of(line.fcode), line.heard_at or sent_at
        batch = self._ledger.batches.get(code >> BATCH_SHIFT) if code is not None else None
        if code is None or batch is None or not isinstance(line.fcode, int):
            return
        self._counts["codes"] += 1
        what = f"member {line.member} showed {text(code)} at {heard(sent_at)} and heard {line.code}"
        if line.code == "fcode_spent":
            if (since := self._long_spent(code, sent_at, heard_at)) is not None:
                self._honoured.wrong(f"{what}, as others since {heard(since)}: nobody had spent it", sent_at)
            return
        before, after = (sent_at - STALE_S) * US, (heard_at + STALE_S) * US
        revoked = revoked_at(self._ledger, code)
        over = (revoked is not None and revoked < after) or (batch.expires is not None and batch.expires < after)
        fits = line.allocation in {None, batch.allocation} and (line.quantity or 1) == 1 and before > batch.created
        if fits and not over and not batch.bound:
            self._honoured.wrong(f"{what}: it was valid", sent_at)

    def _long_spent(self, code: int, sent_at: float, heard_at: float) -> float | None:
        """Since when a code has been said to be spent that nobody spent meanwhile, if that is too long."""
        since = self._spent.setdefault(code, heard_at)
        for row in self._codes.get(code, []):
            end = spent_until(row)
            if row.created < heard_at * US and (end is None or end > since * US):
                self._spent[code] = heard_at
                return None
        return since if sent_at - since > self._unsold_s else None

    def _under_way(self, line: Line) -> None:
        """A press with a code whose end nobody heard: until it is voided, the code is rightly said to be spent.

        What is said of it from here on is looked at anew; a code that stays spent shows at rest, in the gate.
        """
        if (code := number_of(line.fcode)) is not None:
            self._spent.pop(code, None)

    def offset_s(self) -> tuple[float, float]:
        """How far the ledger's clock is ahead of the journal's, at least and at most, as the 201s show."""
        low, high = min(self.ahead), max(self.ahead)
        return (-1.0, 1.0) if low == float("-inf") or high == float("inf") else (low, high)

    def checks(self) -> list[Check]:
        """The checks that needed no more than a line and its row."""
        counts = self._counts
        return [
            self._told.done(count(counts["answers"], "answer")),
            self._let_in.done(f"{counts['not_eligible']:,} refusals by points"),
            self._honoured.done(f"{counts['codes']:,} refusals of codes"),
            self._answers.done(count(counts["answers"], "answer")),
        ]


def _raw(given: str | None) -> bytes | None:
    return None if given is None else uuid_bytes(given)


def _least(known: float | None, new: float) -> float:
    return new if known is None else min(known, new)


def _most(known: float | None, new: float) -> float:
    return new if known is None else max(known, new)
