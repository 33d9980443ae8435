"""When something may be held: after the opening (I10), before the close, not in a pause (I14); and I4 and I11.

What the ledger wrote is compared with its own log exactly: both were written under the drop's lock. An opening is the
gate's to watch, by its own clock.
"""

from bisect import bisect_right
from typing import Final

from flashsale.audit.facts import Ledger, Row
from flashsale.audit.hearing import Hearing
from flashsale.audit.history import FOREVER, Free, History
from flashsale.audit.journal import Line
from flashsale.audit.report import US, Check, Look, clock, count, heard
from flashsale.audit.units import named

CLOCKS_APART_S: Final = 0.1
"""What the clocks of two machines may differ by, beyond what was measured."""
COMMIT_LATE_MAX_S: Final = 60.0
"""A grant from before a window's end may be written down so much later."""


def opening(ledger: Ledger, history: History, gate_ahead_s: float | None) -> Check:
    """I10: nothing was held before its opening. `gate_ahead_s`: the gate's clock before the ledger's, measured now."""
    look, judged, earliest = Look("I10", "nothing is held before its opening"), 0, None
    apart_us = (CLOCKS_APART_S + max(0.0, gate_ahead_s or 0.0)) * US
    for row in ledger.rows.values():
        if row.state == "void" or row.allocation not in history.opens:
            continue
        opens = history.opens[row.allocation].at(row.created)
        if opens is None:
            continue
        judged += 1
        after_us = row.created - opens
        earliest = after_us if earliest is None else min(earliest, after_us)
        if after_us < -apart_us:
            look.wrong(
                f"{named(row)} was held at {clock(row.created)}, {-after_us / US:.3f} s before {row.allocation} "
                f"opened at {clock(opens)}",
                row.created,
            )
    first = "" if earliest is None else f", the first {earliest / US:+.3f} s from its opening"
    return look.done(f"{count(judged, 'reservation')}{first}")


def too_late(ledger: Ledger, history: History) -> list[Row]:
    """Reservations that were written down after their window had closed."""
    found = []
    for row in ledger.rows.values():
        if row.state != "void" and row.allocation in history.closes:
            closes = history.closes[row.allocation].at(row.created)
            if closes is not None and row.created > closes + CLOCKS_APART_S * US:
                found.append(row)
    return found


def closing(ledger: Ledger, history: History, late: list[Row], hearing: Hearing | None) -> Check:
    """I10: nothing is held after the close. What was asked for before it may be written down a little later."""
    look = Look("I10", "nothing is held after the close")
    for row in late:
        closes = history.closes[row.allocation].at(row.created) or 0
        said = f"{named(row)} was held at {clock(row.created)}; {row.allocation} had closed at {clock(closes)}"
        asked = hearing.asked.get(row.member) if hearing is not None else None
        earliest = asked + hearing.offset_s()[0] - CLOCKS_APART_S if asked is not None and hearing is not None else 0.0
        if row.created > closes + COMMIT_LATE_MAX_S * US:
            look.wrong(said, row.created)
        elif asked is not None and earliest * US > closes:
            look.wrong(f"{said}, and was first asked for at {heard(asked)}", row.created)
    over = 0
    if history.closed is not None:
        for row in ledger.rows.values():
            if row.state != "void" and row.created > history.closed:
                over += 1
                look.wrong(
                    f"{named(row)} was held at {clock(row.created)}; the drop was closed at {clock(history.closed)}",
                    row.created,
                )
    return look.done(f"{count(len(ledger.rows), 'row')}, {len(late) + over:,} of them after it")


def pauses(ledger: Ledger, history: History) -> Check:
    """I14 in the ledger: nothing was written down between a pause and the resumption."""
    look = Look("I14", "nothing is held between a pause and the resumption, by the log")
    begins = [begin for begin, _ in history.paused]
    for row in ledger.rows.values():
        at = bisect_right(begins, row.created) - 1
        if row.state != "void" and at >= 0 and begins[at] < row.created < history.paused[at][1]:
            end = history.paused[at][1]
            until = "and is still" if end == FOREVER else f"until {clock(end)}"
            look.wrong(
                f"{named(row)} was held at {clock(row.created)}; the drop was paused at {clock(begins[at])} {until}",
                row.created,
            )
    return look.done(f"{count(len(begins), 'pause')}")


def pauses_heard(ledger: Ledger, acts: list[Line]) -> Check:
    """I14 as it was heard: no 201 for who asked after a pause, or the close, was acknowledged, before a resumption."""
    look = Look("I14", "no 201 between an acknowledged pause and the request to resume")
    begins = sorted(
        (a.heard_at, a.call) for a in acts if a.call in {"pause", "close"} and _done(a) and a.heard_at is not None
    )
    resumed = sorted(a.sent_at for a in acts if a.call == "resume" and a.sent_at is not None)
    spans = []
    for at, call in begins:
        later = [s for s in resumed if s > at] if call == "pause" else []
        spans.append((at, later[0] if later else float("inf"), call))
    for row in ledger.rows.values() if spans else ():
        note = row.heard
        if note is None or note.created_sent is None or note.created_heard is None:
            continue
        for begin, end, call in spans:
            if note.created_sent > begin and note.created_heard < end:
                look.wrong(
                    f"{named(row)} was asked for at {heard(note.created_sent)} and acknowledged with 201; the {call} "
                    f"had been acknowledged at {heard(begin)}",
                    row.created,
                )
                break
    return look.done(f"{count(len(spans), 'pause or close', 'pauses and closes')}")


def _done(line: Line) -> bool:
    return 200 <= line.status < 300  # noqa: PLR2004 -- 2xx


def sold_out_early(ledger: Ledger, history: History, hearing: Hearing, gate_ahead_s: float | None) -> Check:
    """I11: no `sold_out` before the opening; and no `not_open` after it (I10)."""
    look = Look("I11", "no sold_out before the opening, no not_open after it")
    low, high = hearing.offset_s()
    apart_s = CLOCKS_APART_S + abs(gate_ahead_s or 0.0)
    everywhere = [history.opens[name].all for name in ledger.drop.allocations]
    known = [t for opens in everywhere if opens is not None for t in opens] if None not in everywhere else []
    for name, line in hearing.first_sold_out.items():
        opens = history.opens[name].all if name in history.opens else known
        at = line.heard_at or line.sent_at or 0
        if opens and (at + high + apart_s) * US < min(opens):
            look.wrong(
                f"member {line.member} heard sold_out for {name or 'any allocation'} at {heard(at)}, before the "
                f"opening at {clock(min(opens))}",
                at,
            )
    for name, line in hearing.last_not_open.items():
        opens = history.opens[name].all if name in history.opens else None
        at = line.sent_at or 0
        if opens and (at + low - apart_s) * US > max(opens):
            look.wrong(
                f"member {line.member} asked for {name} at {heard(at)} and heard not_open; it had opened at "
                f"{clock(max(opens))}",
                at,
            )
    return look.done(f"{hearing.words['sold_out']:,} sold_out, {hearing.words['not_open']:,} not_open")


def unsold(hearing: Hearing, free: dict[str, Free], limit_s: float) -> Check:
    """I4: nobody went on hearing `sold_out`, for longer than `limit_s`, while units lay free and unsold."""
    look = Look("I4", f"no sold_out for longer than {limit_s:g} s while units lie free and unsold")
    for (name, _), found in hearing.unsold.items():
        if found.lasted_s > limit_s:
            look.wrong(
                f"member {found.last.member} heard sold_out for {name or 'any allocation'} at "
                f"{heard(found.last_sent)}, as others since {heard(found.first_heard)}; units lay free and unsold from "
                f"{clock(found.begin)} until {clock(found.end)}",
                found.last_sent,
            )
    longest = max((spans.longest() for spans in free.values()), default=0) / US
    return look.done(
        f"{hearing.words['sold_out']:,} sold_out, {hearing.while_free:,} while the ledger had units, which lay unsold "
        f"for {longest:.1f} s at the longest"
    )
