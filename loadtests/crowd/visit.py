"""One shopper's visit: looking, waiting for the opening by the server's clock, pressing until there is a verdict.

A visit is plain code over its `Hands`: how requests leave and time passes is theirs to know (locust's, or a test's).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from loadtests.api import unix_s
from loadtests.crowd.book import Book
from loadtests.crowd.contract import LOST, OK, REPEATED, STATUS, Call, Heard, fault, heard
from loadtests.crowd.guests import FAN_POINTS, Guest, Sale
from loadtests.http1 import Answer

BACKOFF_S = 0.2
BACKOFF_MAX_S = 5.0
JITTER = 0.25
"""What is added to a wait, at most, as a share of it: those who were told the same second do not all come in it."""
OPENS_LATE_S = 0.05
"""An allocation may be shown as upcoming for so long after its opening; shown as open before it, never."""


class Hands(Protocol):
    """How a visit reaches the world. Times are by `time.monotonic`."""

    def now(self) -> float:
        """The time."""

    def wait_until(self, at: float) -> None:
        """Return at that time, or at once when it is past."""

    def ask(self, call: Call, judged: Callable[[Answer | None, float, float], str | None]) -> None:
        """Send a request; `judged` is given answer (None: none came), when it left and when it was over.

        What `judged` returns is why the request counts as failed.
        """

    def together(self, acts: Sequence[Callable[[], None]]) -> None:
        """Do several things at once, each over a connection of its own; returns when all are done."""


class Clock:
    """The server's clock as `server_time` shows it: each one that has arrived is a lower bound, the greatest the best.

    It can only make a press late, by as much as an answer's way, never early.
    """

    def __init__(self) -> None:
        self._ahead_s: float | None = None

    def learn(self, server_time: str, at: float) -> None:
        """`server_time` (RFC 3339) was read at `at`, by `time.monotonic`."""
        ahead_s = unix_s(server_time) - at
        self._ahead_s = ahead_s if self._ahead_s is None else max(self._ahead_s, ahead_s)

    def local(self, server_s: float) -> float:
        """When `time.monotonic` will say that the server's clock shows Unix time `server_s`."""
        if self._ahead_s is None:
            raise ValueError("Nothing has been learnt of the server's clock yet.")
        return server_s - self._ahead_s


@dataclass(frozen=True)
class Wish:
    """What a press asks for. `fcode`: as shown; `code`: as the journal has it (a number for one of the service's)."""

    expect: frozenset[str]
    allocation: str | None = None
    fcode: str | None = None
    code: int | str | None = None
    name: str = "press"

    def body(self) -> bytes:
        """The request's document."""
        wanted = {"allocation": self.allocation, "fcode": self.fcode}
        return json.dumps({name: value for name, value in wanted.items() if value is not None}).encode()


def wait_s(answer: Heard, tries: int, random: Random) -> float | None:
    """How long a well-behaved shopper waits before the same press again; None: this was the verdict.

    Retry-After where it was said, otherwise longer each time; a little is added to either.
    """
    if answer.word not in REPEATED and answer.word != LOST and answer.status < 500:
        return None
    told = answer.retry_after_s
    base = min(BACKOFF_MAX_S, BACKOFF_S * 2 ** (tries - 1)) if told is None else told
    return base * (1 + JITTER * random.random())


class Visit:
    """What one guest does, one call after the other."""

    def __init__(self, sale: Sale, guest: Guest, hands: Hands, clock: Clock, book: Book) -> None:
        self.sale = sale
        self.guest = guest
        self.hands = hands
        self.clock = clock
        self.book = book
        self.random = Random(sale.seed * 1_000_003 + guest.number)
        self._presses = 0

    @property
    def opening(self) -> float:
        """The opening by `time.monotonic`."""
        return self.clock.local(self.sale.opens_at_s)

    @property
    def press_due(self) -> float:
        """When this guest is to press."""
        return self.opening + self.guest.press_at_s

    def did(self, what: str) -> None:
        """Note that a behaviour really happened."""
        self.book.tally.add("did", what)

    def wrong(self, why: str) -> None:
        """Note an answer that is not right, in words."""
        self.book.wrong("wrong", f"member {self.guest.member} ({self.guest.role}): {why}")

    def new_key(self) -> str:
        """A key for a new press."""
        self._presses += 1
        return self.sale.key(self.guest.number, self._presses)

    def wish(self, name: str = "press") -> Wish:
        """A unit of what everybody may buy."""
        return Wish(frozenset({"held", "sold_out"}), allocation=self.sale.public, name=name)

    def ask(self, call: Call, note: Callable[[Heard], None]) -> Heard:
        """Wait until a call is due, send it, judge its answer. `note` writes it down, even when nobody waits for it.

        A call that is due already had to wait for an earlier answer to the same guest; one that leaves late although
        its guest waited for the moment was held up by the generator. Its answer is timed from when it was due, always.
        """
        free_at = self.hands.now()
        self.hands.wait_until(call.due)
        found: list[Heard] = []

        def judged(answer: Answer | None, sent_at: float, at: float) -> str | None:
            said = heard(call, answer, sent_at, at)
            found.append(said)
            note(said)
            self.book.timed(call, said, free_at)
            against = fault(call, said)
            if against is not None:
                self.book.wrong(against.kind, f"member {self.guest.member} ({self.guest.role}): {against.why}")
            return LOST if said.word == LOST else against.why if against is not None else None

        sent_at = self.hands.now()
        try:
            self.hands.ask(call, judged)
        finally:
            if not found:  # the visit ends in the middle of it: it may have had its effect
                note(heard(call, None, sent_at, self.hands.now()))
        return found[-1]

    def look(self) -> None:
        """Look at the drop; learn what time the server has, and check what it shows."""
        due = self.opening + self.guest.look_at_s
        path = f"/v1/drops/{self.sale.drop}"
        said = self.ask(Call("look", "GET", path, frozenset({OK}), due), lambda _: None)
        if said.word != OK:
            return
        self.did("looked")
        try:
            shown_s = unix_s(said.document["server_time"])
            self.clock.learn(said.document["server_time"], said.at)
            states = {a["id"]: a["state"] for a in said.document["allocations"]}
        except (KeyError, TypeError, ValueError) as error:
            self.wrong(f"the drop cannot be read: {error!r}")
            return
        if shown_s < self.sale.opens_at_s and set(states.values()) & {"open", "sold_out"}:
            self.wrong(f"the drop is shown as {states} {self.sale.opens_at_s - shown_s:.3f} s before its opening")
        if shown_s > self.sale.opens_at_s + OPENS_LATE_S and "upcoming" in states.values():
            self.wrong(f"the drop is shown as {states} {shown_s - self.sale.opens_at_s:.3f} s after its opening")

    def once(
        self, due: float, wish: Wish, key: str | None, expect: frozenset[str], *, lapses_at: float | None = None
    ) -> Heard:
        """One request for a reservation."""
        path = f"/v1/drops/{self.sale.drop}/reservations"
        call = Call(wish.name, "POST", path, expect, due, self.guest.token, key, wish.body(), lapses_at)

        def note(said: Heard) -> None:
            self.book.line(
                "reserve",
                said,
                member=self.guest.member,
                key=key,
                allocation=wish.allocation,
                quantity=1,
                fcode=wish.code,
            )

        said = self.ask(call, note)
        if said.word in {"held", "again"}:
            self._check_hold(said, wish)
        return said

    def _check_hold(self, said: Heard, wish: Wish) -> None:
        told = said.document
        wanted = {"drop": self.sale.drop, "member": self.guest.member, "quantity": 1}
        if wish.allocation is not None:
            wanted["allocation"] = wish.allocation
        if said.word == "held":
            wanted["state"] = "held"
        differ = {name: told.get(name) for name, value in wanted.items() if told.get(name) != value}
        if differ or not isinstance(told.get("id"), str):
            self.wrong(f"asked for {wanted} and was given {differ or told}")
        else:
            self.book.strangers.append((self.guest.member, told["id"]))

    def press(self, due: float, wish: Wish, key: str | None = None) -> Heard | None:
        """Press until there is a verdict, with one key; None: none came while this guest had patience."""
        key = key or self.new_key()
        first_due, tries = due, 0
        seen: set[str] = set()
        while True:
            # Once an answer was lost, or a fault came instead, the same press may find what that one made.
            made = {"again"} if any(STATUS.get(word, 500) >= 500 for word in seen) else ()
            early = {"not_open"} if due < self.opening else ()
            said = self.once(due, wish, key, wish.expect.union(made, early))
            tries += 1
            seen.add(said.word)
            wait = wait_s(said, tries, self.random)
            if wait is None:
                break
            self.did(f"came again after {said.word if said.word in STATUS or said.word == LOST else 'a fault'}")
            due = said.at + wait
            if due > first_due + self.sale.patience_s:
                self.book.tally.add("unanswered", self.guest.role)
                return None
        self.book.tally.add("verdict", self.book.second(said.at), said.word)
        self.book.tally.add("final", self.guest.role, said.word)
        self.book.tally.took("press to verdict", seconds=said.at - first_due)
        return said

    def about(
        self, call: str, reservation: str, due: float, expect: frozenset[str], *, mine: bool = True
    ) -> Heard | None:
        """`confirm`, `cancel` or `get` a reservation, again while the service is busy; None: no answer in time.

        What is asked about the reservations of others has no business having an effect. It is written down without
        naming them: if it had one, the auditor finds an end that nobody asked for.
        """
        method = {"confirm": "POST", "cancel": "DELETE", "get": "GET"}[call]
        path = f"/v1/reservations/{reservation}" + ("/confirm" if call == "confirm" else "")
        about = {"reservation": reservation} if mine else {}
        name = call if mine else f"{call} of another's"
        first_due, tries = due, 0
        while True:
            said = self.ask(
                Call(name, method, path, expect, due, self.guest.token),
                lambda said: self.book.line(call, said, member=self.guest.member, **about),
            )
            tries += 1
            wait = wait_s(said, tries, self.random)
            if wait is None:
                return said
            due = said.at + wait
            if due > first_due + self.sale.patience_s:
                self.book.tally.add("unanswered", self.guest.role)
                return None

    @property
    def may_be_fan(self) -> bool:
        """Whether this guest has the points that the fans' allocation asks for."""
        return self.guest.points is not None and self.guest.points >= FAN_POINTS
