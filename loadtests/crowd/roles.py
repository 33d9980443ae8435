"""What each role does. The well-behaved honour Retry-After and wait for their verdicts; the hostile do not."""

from collections.abc import Callable
from typing import Final

from loadtests.crowd.codes import forgeries, number_of
from loadtests.crowd.contract import OK, Heard
from loadtests.crowd.visit import Visit, Wish

COMES_BACK: Final = 0.5
"""Of those who heard `sold_out`, who look once more whether somebody gave a unit back."""
COMES_BACK_MAX: Final = 3
COMES_BACK_AFTER_S: Final = (0.4, 1.4)
EARLY_S: Final = 0.3
HAMMERS: Final = 8
BLOWS: Final = 5
BLOW_EVERY_S: Final = 0.02
SPRAYS: Final = 8
SPRAY_EVERY_S: Final = 0.05
LAPSE_SEEN_S: Final = 10.0
"""Who let a hold lapse sees it as expired within this."""

HELD = frozenset({"held"})
FORGED = frozenset({"fcode_invalid", "rate_limited"})
HAMMERED = frozenset({"held", "again", "member_limit", "sold_out", "not_open"})
SPENT = frozenset({"fcode_spent", "rate_limited"})
ENDED = frozenset({"expired", "conflict"})


def _reservation(said: Heard | None) -> str | None:
    if said is None or said.word not in {"held", "again"}:
        return None
    found = said.document.get("id")
    return found if isinstance(found, str) else None


def _confirm(visit: Visit, reservation: str, heard_at: float) -> bool:
    """Think a moment, then confirm: in time, or told that it was too late. Whether it was in time."""
    due = heard_at + visit.random.uniform(0.1, 0.4) * visit.sale.hold_s
    said = visit.about("confirm", reservation, due, frozenset({OK, "expired"}))
    if said is None or said.word != OK:
        return False
    if said.document.get("state") != "confirmed" or not said.document.get("order"):
        visit.wrong(f"confirmed {reservation} and was told {said.document}")
    visit.did("confirmed")
    return True


def _comes_back(visit: Visit, said: Heard | None) -> str | None:
    """After `sold_out`, press again later: a new press with a new key. The reservation, if there is one now."""
    for _ in range(COMES_BACK_MAX):
        if said is None or said.word != "sold_out":
            break
        said = visit.press(said.at + visit.random.uniform(*COMES_BACK_AFTER_S), visit.wish())
        visit.did("pressed again after sold_out")
        if _reservation(said):
            visit.did("got what another gave back")
    return _reservation(said)


def shopper(visit: Visit) -> None:
    """Looks, waits, presses, confirms; some come back when all is sold."""
    visit.look()
    said = visit.press(visit.press_due, visit.wish())
    reservation = _reservation(said)
    if reservation is None and visit.random.random() < COMES_BACK:
        reservation = _comes_back(visit, said)
    if reservation is not None:
        _confirm(visit, reservation, visit.hands.now())


def eager(visit: Visit) -> None:
    """Who is there before the opening presses before it, and comes again when told to, with the same key."""
    visit.look()
    early = visit.guest.look_at_s < -EARLY_S
    due = visit.opening + visit.guest.look_at_s * visit.random.uniform(0.2, 0.9) if early else visit.press_due
    said = visit.press(due, visit.wish())
    if (reservation := _reservation(said)) is not None and said is not None:
        _confirm(visit, reservation, said.at)


def fan(visit: Visit) -> None:
    """Wants a unit of the allocation that asks for points; half of them have too few."""
    visit.look()
    from_points = frozenset({"held", "sold_out"}) if visit.may_be_fan else frozenset({"not_eligible"})
    said = visit.press(visit.press_due, Wish(from_points, allocation=visit.sale.fans))
    if said is not None and said.word == "not_eligible":
        visit.did("was not let in")
    if (reservation := _reservation(said)) is not None and said is not None:
        _confirm(visit, reservation, said.at)


def coded(visit: Visit) -> None:
    """Shows a genuine F-code: its unit was set aside, so there is one whatever the rush and the forgers do."""
    visit.look()
    code = visit.guest.fcode or ""
    said = visit.press(visit.press_due, Wish(HELD, fcode=code, code=number_of(code)))
    if (reservation := _reservation(said)) is None or said is None:
        return
    visit.did("bought with an F-code")
    if _confirm(visit, reservation, said.at):
        visit.book.spent.append(code)


def canceler(visit: Visit) -> None:
    """Gives the unit back, for others to win; asks twice, and finds that it cannot be confirmed any more."""
    visit.look()
    said = visit.press(visit.press_due, visit.wish())
    if (reservation := _reservation(said)) is None or said is None:
        return
    due = said.at + visit.random.uniform(0.05, 0.3) * visit.sale.hold_s
    for times in ("cancelled", "cancelled twice"):
        said = visit.about("cancel", reservation, due, frozenset({OK, "expired"}))
        if said is None or said.word != OK:
            return
        if said.document.get("state") != "cancelled":
            visit.wrong(f"cancelled {reservation} and was told {said.document}")
        visit.did(times)
        due = said.at
    visit.about("confirm", reservation, due, ENDED)


def lapser(visit: Visit) -> None:
    """Lets the hold lapse, sees that it did, and cannot confirm it afterwards."""
    visit.look()
    said = visit.press(visit.press_due, visit.wish())
    if (reservation := _reservation(said)) is None or said is None:
        return
    ends = said.at + visit.sale.hold_s
    due = ends + 0.1
    while True:
        seen = visit.about("get", reservation, due, frozenset({OK}))
        if seen is None or seen.word != OK:
            return
        if seen.document.get("state") == "expired":
            break
        if seen.at > ends + LAPSE_SEEN_S:
            visit.wrong(f"{reservation} is {seen.document.get('state')} {LAPSE_SEEN_S:g} s after its end")
            return
        due = seen.at + 0.5
    visit.did("let a hold lapse")
    visit.about("confirm", reservation, seen.at, ENDED)


def hammerer(visit: Visit) -> None:
    """Presses many times over several connections at once: with one key, without any, with a new one each time."""
    begin, keys = visit.press_due, (visit.new_key(), None)
    ids: set[str] = set()

    def blows(hammer: int) -> Callable[[], None]:
        def strike() -> None:
            for blow in range(BLOWS):
                due = begin + BLOW_EVERY_S * (hammer + blow * HAMMERS)
                key = keys[hammer % 2] if hammer < HAMMERS - 2 else visit.new_key()
                said = visit.once(due, visit.wish("hostile press"), key, HAMMERED)
                visit.did("hammered")
                if (reservation := _reservation(said)) is not None:
                    ids.add(reservation)

        return strike

    visit.hands.together([blows(hammer) for hammer in range(HAMMERS)])
    if len(ids) > 1 and visit.hands.now() < begin + visit.sale.hold_s:
        visit.wrong(f"hammering won {len(ids)} reservations at once: {', '.join(sorted(ids))}")


def sprayer(visit: Visit) -> None:
    """Shows F-codes that it made up, and codes that others have spent, faster than it is allowed to."""
    due, forged = visit.press_due, forgeries(visit.random)
    for spray in range(SPRAYS):
        code = next(forged)
        wish = Wish(FORGED, fcode=code, code=code, name="forged code")
        visit.once(due + spray * SPRAY_EVERY_S, wish, visit.new_key(), FORGED)
        visit.did("sprayed a forged code")
    if visit.book.spent:
        code = visit.random.choice(visit.book.spent)
        wish = Wish(SPENT, fcode=code, code=number_of(code), name="spent code")
        visit.once(visit.hands.now(), wish, visit.new_key(), SPENT)
        visit.did("showed a spent code")


def replayer(visit: Visit) -> None:
    """Replays keys: of others first, then the own one, again and with another request; and acts on others' holds."""
    others = visit.sale.key(max(0, visit.guest.number - 1), 1)
    said = visit.press(visit.press_due, visit.wish("replayed key"), key=others)
    visit.did("pressed with another member's key")
    if (reservation := _reservation(said)) is not None and said is not None:
        # Made by this very request, or by one before it whose answer was lost.
        over = (said.sent_at if said.word == "held" else visit.press_due) + visit.sale.hold_s
        again = visit.once(said.at, visit.wish("replayed key"), others, frozenset({"again"}), lapses_at=over)
        visit.did("pressed with the own key again")
        if again.at < over and _reservation(again) not in {None, reservation}:
            visit.wrong(f"the same key gave {reservation} and then {_reservation(again)}")
        mismatch = frozenset({"idempotency_mismatch"})
        visit.once(again.at, Wish(mismatch, name="replayed key"), others, mismatch, lapses_at=over)
        visit.did("pressed with the own key and another request")
    strangers = [found for member, found in visit.book.strangers if member != visit.guest.member]
    if strangers:
        theirs = visit.random.choice(strangers)
        for act in ("get", "confirm", "cancel"):
            visit.about(act, theirs, visit.hands.now(), frozenset({"not_found"}), mine=False)
        visit.did("acted on another's reservation")


ROLES: Final[dict[str, Callable[[Visit], None]]] = {
    "shopper": shopper,
    "fan": fan,
    "coded": coded,
    "canceler": canceler,
    "lapser": lapser,
    "eager": eager,
    "hammerer": hammerer,
    "sprayer": sprayer,
    "replayer": replayer,
}
