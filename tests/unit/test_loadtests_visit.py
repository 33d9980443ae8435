"""A visit: what a shopper sends, keeps, waits for and minds. Its hands are told every answer, in time of their own."""

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest

from loadtests.api import rfc3339
from loadtests.crowd.book import Book
from loadtests.crowd.contract import Call, fault, heard
from loadtests.crowd.door import CLOCK_SAMPLES, Health, let_in, parcel, read_clock
from loadtests.crowd.guests import Guest, Sale
from loadtests.crowd.judged import bottleneck
from loadtests.crowd.roles import ROLES
from loadtests.crowd.tally import percentile, seconds_of
from loadtests.crowd.visit import JITTER, Clock, Visit, Wish, wait_s
from loadtests.http1 import Answer

OPENS_S = 1_700_000_000.0
OPENING = 1_000.0
"""The opening by the hands' own clock."""
SALE = Sale("run", "drop", "http://x", "noon", 100, 10, OPENS_S, 10.0, 2.0, 8.0, 1)
WISH = Wish(frozenset({"held", "sold_out"}), allocation="public")


def said(status: int, code: str = "", retry_after_s: float | None = None, **more: object) -> Answer:
    """An answer."""
    document = ({"code": code} if code else {}) | more
    return Answer(status, json.dumps(document).encode(), retry_after_s, keep_alive=True, at=0.0)


def hold(status: int = 201, **changes: object) -> Answer:
    """The answer to a press that won."""
    document: dict[str, Any] = {
        "id": "r1",
        "drop": "drop",
        "allocation": "public",
        "member": 4711,
        "quantity": 1,
        "state": "held",
        "expires_at": rfc3339(OPENS_S + 2),
    }
    return Answer(status, json.dumps(document | changes).encode(), None, keep_alive=True, at=0.0)


SOLD_OUT = said(409, "sold_out")
Script = Sequence[Answer | None]


class Hands:
    """Time passes when somebody waits, and by `takes_s` with each answer; waking up takes `sleepy_s` longer."""

    def __init__(self, script: Script = (), *, takes_s: float = 0.01, sleepy_s: float = 0.0) -> None:
        self.at = OPENING - 5
        self.calls: list[Call] = []
        self.script = list(script)
        self.takes_s = takes_s
        self.sleepy_s = sleepy_s

    def now(self) -> float:
        return self.at

    def wait_until(self, at: float) -> None:
        if at > self.at:
            self.at = at + self.sleepy_s

    def ask(self, call: Call, judged: Callable[[Answer | None, float, float], str | None]) -> None:
        sent_at = self.at
        self.calls.append(call)
        self.at += self.takes_s
        judged(self.script.pop(0), sent_at, self.at)

    def together(self, acts: Sequence[Callable[[], None]]) -> None:
        for act in acts:
            act()


class Killed(BaseException):
    """What ends a visit from outside."""


def visit(hands: Hands, role: str = "shopper", *, points: int | None = None) -> Visit:
    """A visit of member 4711, who is to press half a second after the opening."""
    clock = Clock()
    clock.learn(rfc3339(OPENS_S - 5), OPENING - 5)
    guest = Guest(17, role, -3.0, 0.5, 4711, "token", points)
    return Visit(SALE, guest, hands, clock, Book("drop", OPENS_S - OPENING, OPENING))


def lines(made: Visit) -> list[dict[str, object]]:
    """The journal so far."""
    return [json.loads(line) for line in parcel(made.book, 0, inside=0, done=False)["lines"].splitlines()]


@pytest.mark.parametrize(
    "trouble",
    [
        said(429, "rate_limited", 1.0),
        said(503, "unavailable", 1.0),
        said(503, "paused", 1.0),
        said(500),
        None,
    ],
    ids=["429", "503", "paused", "500", "lost"],
)
def test_a_key_is_kept_through_trouble_and_dropped_at_a_verdict(trouble: Answer | None) -> None:
    hands = Hands([trouble, trouble, SOLD_OUT, hold()])
    made = visit(hands)
    first = made.press(made.press_due, WISH)
    second = made.press(hands.now(), WISH)
    assert (first.word, second.word) == ("sold_out", "held")  # type: ignore[union-attr]
    keys = [call.key for call in hands.calls]
    assert keys[:3] == [keys[0]] * 3
    assert keys[3] not in {None, keys[0]}


def test_retry_after_is_honoured_with_a_little_more() -> None:
    """Never earlier than told, never more than a quarter later, and not all at the same moment."""
    waits = set()
    for seed in range(50):
        answer = heard(Call("press", "POST", "/x/reservations", frozenset(), 0.0), said(429, "rate_limited", 3.0), 0, 0)
        wait = wait_s(answer, 1, Random(seed))
        assert wait is not None
        assert 3.0 <= wait <= 3.0 * (1 + JITTER)
        waits.add(wait)
    assert len(waits) > 40
    hands = Hands([said(503, "unavailable", 2.0), hold()])
    made = visit(hands)
    made.press(made.press_due, WISH)
    assert 2.0 <= hands.calls[1].due - (hands.calls[0].due + hands.takes_s) <= 2.5


def test_without_retry_after_waits_grow() -> None:
    lost = heard(Call("press", "POST", "/x/reservations", frozenset(), 0.0), None, 0, 0)
    waits = [wait_s(lost, tries, Random(1)) or 0 for tries in range(1, 9)]
    assert waits[0] <= 0.25
    assert waits[3] > 4 * waits[0]
    assert max(waits) <= 5 * (1 + JITTER)


def test_patience_ends_and_is_counted() -> None:
    hands = Hands([said(503, "unavailable", 3.0)] * 9)
    made = visit(hands)
    assert made.press(made.press_due, WISH) is None
    assert 2 <= len(hands.calls) <= 3
    assert made.book.tally.by("unanswered") == {"shopper": 1}
    assert made.book.tally.total("fault") == 0


def test_who_is_early_is_told_when_to_come_and_comes_then_with_the_same_key() -> None:
    look = said(200, server_time=rfc3339(OPENS_S - 3), allocations=[{"id": "public", "state": "upcoming"}])
    hands = Hands([look, said(403, "not_open", 3.0), hold(), said(200, state="confirmed", order="o")])
    made = visit(hands, "eager")
    ROLES["eager"](made)
    early, again = hands.calls[1:3]
    assert early.due < OPENING <= again.due
    assert early.key == again.key
    assert made.book.tally.by("fault") == {}


def test_not_open_after_the_opening_is_wrong() -> None:
    hands = Hands([said(403, "not_open", 1.0), hold()])
    made = visit(hands)
    made.press(OPENING + 0.5, WISH)
    assert made.book.tally.by("fault") == {"wrong": 1}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (hold(), None),
        (SOLD_OUT, None),
        (said(503, "unavailable", 1.0), None),
        (said(503, "paused", 1.0), None),
        (None, None),
        (said(500, "internal"), "5xx"),
        (said(502), "5xx"),
        (said(503, "broken", 1.0), "5xx"),
        (said(409, "no_such_word"), "unknown"),
        (said(403, "sold_out"), "unknown"),
        (said(418), "unknown"),
        (said(204), "unknown"),
        (said(503, "unavailable"), "wrong"),
        (said(429, "rate_limited", 1.0), "wrong"),
        (said(404, "not_found"), "wrong"),
        (said(200, id="r1"), "wrong"),
    ],
)
def test_what_a_customer_has_something_against(answer: Answer | None, kind: str | None) -> None:
    """A first press for a unit of everybody's: held, sold_out, or come again."""
    call = Call("press", "POST", "/v1/drops/drop/reservations", frozenset({"held", "sold_out"}), 0.0)
    found = fault(call, heard(call, answer, 0.0, 0.1))
    assert (found.kind if found else None) == kind


@pytest.mark.parametrize(
    "lie",
    [{"member": 9}, {"drop": "other"}, {"allocation": "fans"}, {"quantity": 2}, {"state": "confirmed"}, {"id": 7}],
)
def test_a_hold_that_is_not_what_was_asked_for_is_wrong(lie: dict[str, Any]) -> None:
    made = visit(Hands([hold(201, **lie)]))
    made.press(made.press_due, WISH)
    assert made.book.tally.by("fault") == {"wrong": 1}


def test_the_same_again_is_right_only_when_an_answer_was_missing() -> None:
    after_loss, at_once = visit(Hands([None, hold(200)])), visit(Hands([hold(200)]))
    for made in (after_loss, at_once):
        made.press(made.press_due, WISH)
    assert after_loss.book.tally.total("fault") == 0
    assert at_once.book.tally.total("fault") == 1


def test_everything_asked_is_in_the_journal_also_when_the_visit_is_ended_in_the_middle() -> None:
    class Dying(Hands):
        def ask(self, call: Call, judged: Callable[[Answer | None, float, float], str | None]) -> None:
            if len(self.calls) == 1:
                raise Killed
            super().ask(call, judged)

    made = visit(Dying([said(503, "unavailable", 1.0)]))
    with pytest.raises(Killed):
        made.press(made.press_due, WISH)
    first, second = lines(made)
    assert (first["status"], first["code"]) == (503, "unavailable")
    assert second["status"] == 0
    assert "heard_at" not in second
    assert first["key"] == second["key"]
    assert first["sent_at"] == pytest.approx(OPENS_S + 0.5)


def test_a_strangers_reservation_is_not_named_in_the_journal() -> None:
    """So that an end which they would bring about is one that nobody asked for."""
    made = visit(Hands([said(404, "not_found"), said(200, id="r9", state="cancelled")]))
    made.about("cancel", "r9", OPENING, frozenset({"not_found"}), mine=False)
    assert "reservation" not in lines(made)[0]
    made.about("cancel", "r9", OPENING, frozenset({"not_found"}), mine=False)
    assert made.book.tally.by("fault") == {"wrong": 1}


def test_sold_out_or_open_before_the_opening_is_wrong() -> None:
    for state, wrong in (("upcoming", 0), ("sold_out", 1), ("open", 1)):
        look = said(200, server_time=rfc3339(OPENS_S - 1), allocations=[{"id": "public", "state": state}])
        made = visit(Hands([look]))
        made.look()
        assert made.book.tally.total("fault") == wrong, state


def test_the_clock_is_never_ahead_of_the_servers() -> None:
    """Cached and late answers only make it know less."""
    clock = Clock()
    with pytest.raises(ValueError, match="clock"):
        clock.local(OPENS_S)
    for server_s, at in ((OPENS_S - 5, 996.0), (OPENS_S - 4.5, 995.7), (OPENS_S - 4.5, 996.9)):
        clock.learn(rfc3339(server_s), at)
    assert clock.local(OPENS_S) == pytest.approx(1_000.2)


def test_a_door_reads_the_clock_over_the_second_for_which_the_drop_may_be_cached() -> None:
    look = said(200, server_time=rfc3339(OPENS_S - 5), allocations=[])
    hands, clock = Hands([None, said(503, "unavailable", 1.0), *[look] * 30]), Clock()
    began = hands.now()
    read_clock(SALE, hands, clock)
    assert len(hands.calls) == CLOCK_SAMPLES
    assert hands.now() - began > 1.0
    assert clock.local(OPENS_S) <= began + 5 + 0.2


def test_guests_come_when_they_are_due_however_long_the_visits_before_take() -> None:
    """And how late the door itself was is counted."""
    hands, came = Hands(sleepy_s=0.03), []
    book = Book("drop", 0.0, OPENING)
    guests = [Guest(number, "shopper", number / 10 - 1, number / 10, number, "t") for number in range(20)]
    let_in(guests[::-1], lambda: OPENING, hands, book, lambda guest: came.append((guest.number, hands.now())))
    assert [number for number, _ in came] == list(range(20))
    for number, at in came:
        assert at == pytest.approx(OPENING + number / 10 - 1 + 0.03)
    assert book.tally.by("came") == {"shopper": 20}
    assert percentile(book.tally.by("came late"), 0.5) == pytest.approx(0.03, rel=0.05)


def test_latency_counts_from_the_intent_and_lateness_is_put_down_to_who_was_late() -> None:
    """A generator that wakes up late, and a guest whose hands were full: both are in the latency, neither is hidden."""
    sleepy, busy = visit(Hands([hold()], sleepy_s=0.4)), visit(Hands([hold()], takes_s=0.01))
    sleepy.press(sleepy.press_due, WISH)
    busy.hands.wait_until(busy.press_due + 0.7)
    busy.press(busy.press_due, WISH)
    for made, late_s, held_up, intent_s in ((sleepy, 0.4, 0, 0.41), (busy, 0.0, 1, 0.71)):
        tally = made.book.tally
        assert percentile(tally.by("late"), 1.0) == pytest.approx(max(late_s, seconds_of(0)), rel=0.05)
        assert tally.total("held up") == held_up
        assert percentile(tally.by("press from intent", 0), 1.0) == pytest.approx(intent_s, rel=0.05)
        assert percentile(tally.by("press on the wire", 0), 1.0) == pytest.approx(0.01, rel=0.05)


def test_a_generator_that_was_the_bottleneck_says_so() -> None:
    """A late one and a busy one; one that is a little late beside slow answers is not."""
    verdicts: dict[str, str | None] = {}
    for name, sleepy_s, takes_s in (("late", 0.3, 0.5), ("fine", 0.005, 0.01), ("slow service", 0.03, 2.0)):
        made = visit(Hands([SOLD_OUT] * 20, sleepy_s=sleepy_s, takes_s=takes_s))
        for _ in range(20):
            made.press(made.hands.now() + 1, WISH)
        verdicts[name] = bottleneck(made.book.tally).why
    assert "302 ms" in (verdicts.pop("late") or "")  # within the width of a bucket
    assert verdicts == {"fine": None, "slow service": None}
    made = visit(Hands())
    for second in (3, 4):
        made.book.tally.add("cpu", 0, second, 97)
    assert "97" not in (bottleneck(made.book.tally).why or "97")
    assert "for 2 s" in (bottleneck(made.book.tally).why or "")


def test_a_generators_own_ticks_are_counted() -> None:
    made = visit(Hands(sleepy_s=0.05))
    health = Health(made.hands, made.book, 1)
    for _ in range(30):
        health.tick()
    assert percentile(made.book.tally.by("lag"), 0.5) == pytest.approx(0.05, rel=0.05)
    assert set(made.book.tally.by("cpu")) == {1}
    assert made.book.tally.total("load") >= 1


@pytest.mark.parametrize(("points", "answer", "wrong"), [(150, hold(), 0), (50, hold(), 1), (50, None, 0)])
def test_a_fan_without_the_points_must_not_be_let_in(points: int, answer: Answer | None, wrong: int) -> None:
    look = said(200, server_time=rfc3339(OPENS_S - 3), allocations=[])
    first = said(403, "not_eligible") if answer is None else hold(allocation="fans")
    hands = Hands([look, first, said(200, state="confirmed", order="o")])
    made = visit(hands, "fan", points=points)
    ROLES["fan"](made)
    assert json.loads(hands.calls[1].body) == {"allocation": "fans"}
    assert made.book.tally.total("fault") == wrong


def test_hammering_that_wins_twice_is_wrong() -> None:
    """One reservation for all blows is right; two at the same time are not."""
    for ids, wrong in ((["r1"] * 40, 0), (["r1"] * 39 + ["r2"], 1)):
        hands = Hands([hold(200 if at else 201, id=each) for at, each in enumerate(ids)], takes_s=0.0)
        made = visit(hands, "hammerer")
        ROLES["hammerer"](made)
        assert len(hands.calls) == 40
        assert made.book.tally.total("fault") == wrong


def test_a_key_that_gives_two_reservations_is_wrong() -> None:
    for second, wrong in (("r1", 0), ("r2", 1)):
        hands = Hands([hold(), hold(200, id=second), said(422, "idempotency_mismatch")])
        made = visit(hands, "replayer")
        ROLES["replayer"](made)
        assert {call.key for call in hands.calls} == {SALE.key(16, 1)}
        assert made.book.tally.total("fault") == wrong


def test_what_a_replayed_key_gives_after_its_hold_may_have_ended_is_not_minded() -> None:
    """Answers that take longer than a hold lasts: the key may then name nothing, or a new reservation."""
    script = [hold(), hold(200, id="r2"), said(403, "not_eligible")]
    for takes_s, wrong in ((0.01, 2), (2.5, 0)):
        made = visit(Hands(script, takes_s=takes_s), "replayer")
        ROLES["replayer"](made)
        assert made.book.tally.total("fault") == wrong


def test_a_forged_code_that_wins_is_wrong() -> None:
    refused = [said(422, "fcode_invalid")] * 7
    for last, wrong in ((said(422, "fcode_invalid"), 0), (hold(allocation="friends"), 1)):
        made = visit(Hands([*refused, last]), "sprayer")
        ROLES["sprayer"](made)
        assert made.book.tally.total("fault") == wrong
        assert len({str(line["fcode"]) for line in lines(made)}) == 8
