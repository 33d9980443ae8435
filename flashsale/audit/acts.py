"""Operators' acts (I15): each is in the audit log, and the log accounts for what the tables say."""

from typing import Final

from flashsale.audit.codes import serial_of
from flashsale.audit.codes import text as code_text
from flashsale.audit.facts import BATCH_SHIFT, Act, Ledger
from flashsale.audit.history import History
from flashsale.audit.journal import Line
from flashsale.audit.report import US, Check, Look, clock, count, heard, uuid_text
from flashsale.audit.units import named

ACTIONS: Final = {
    "pause": "drop.pause",
    "resume": "drop.resume",
    "close": "drop.close",
    "resize": "allocation.edit",
    "revoke": "fcodes.revoke",
}
CLOCKS_APART_S: Final = 0.5


def accounted(ledger: Ledger, history: History) -> Check:
    """The tables against the log: switches, quantities, windows, returns, batches, revocations."""
    look = Look("I15", "the audit log accounts for what the tables say")
    for text in history.unexplained:
        look.wrong(text)
    returned, minted, revoked = _logged(ledger)
    unsaid = "and the log does not say so"
    for row in ledger.rows.values():
        if row.state == "returned" and uuid_text(row.id) not in returned:
            look.wrong(f"{named(row)} was returned at {clock(row.ended or 0)}, {unsaid}", row.created)
    for batch in ledger.batches.values():
        if str(batch.id) not in minted:
            look.wrong(f"batch {batch.id} was minted at {clock(batch.created)}, {unsaid}")
        if batch.revoked is not None and (batch.id, None) not in revoked:
            look.wrong(f"batch {batch.id} was revoked at {clock(batch.revoked)}, {unsaid}")
    for code, at in ledger.revoked.items():
        if (code >> BATCH_SHIFT, serial_of(code)) not in revoked:
            look.wrong(f"{code_text(code)} was revoked at {clock(at)}, {unsaid}", at)
    return look.done(count(len(ledger.log), "line"))


def _logged(ledger: Ledger) -> tuple[set[str], set[str], set[tuple[int, int | None]]]:
    """What was returned, minted and revoked (batch and serial, or all of the batch), by the log."""
    returned, minted, revoked = set[str](), set[str](), set[tuple[int, int | None]]()
    for act in ledger.log:
        batch = str(act.detail.get("batch", ""))
        match act.action:
            case "reservation.return":
                returned.add(str(act.detail.get("reservation")))
            case "fcodes.mint":
                minted.add(batch)
            case "fcodes.revoke":
                revoked |= {(int(batch), serial) for serial in act.detail.get("serials") or [None]}
    return returned, minted, revoked


def written_down(ledger: Ledger, acts: list[Line], offset_s: tuple[float, float]) -> Check:
    """Each act that was acknowledged has a line of its own in the log, of that time and by that operator."""
    look, judged = Look("I15", "every acknowledged act is in the audit log"), 0
    free: dict[str, list[Act]] = {}
    for act in ledger.log:
        free.setdefault(act.action, []).append(act)
    for line in sorted(acts, key=lambda line: line.heard_at or 0):
        if not 200 <= line.status < 300 or line.heard_at is None or line.sent_at is None:  # noqa: PLR2004 -- 2xx
            continue
        judged += 1
        begin = (line.sent_at + offset_s[0] - CLOCKS_APART_S) * US
        end = (line.heard_at + offset_s[1] + CLOCKS_APART_S) * US
        lines = free.get(ACTIONS[line.call], [])
        found = next((act for act in lines if begin <= act.at <= end and _by(act, line.actor)), None)
        if found is None:
            who = f" by {line.actor}" if line.actor else ""
            look.wrong(
                f"{line.call}{who} was acknowledged at {heard(line.heard_at)}, and the log has no "
                f"{ACTIONS[line.call]} of that time",
                line.heard_at,
            )
        else:
            lines.remove(found)
    return look.done(f"{count(judged, 'act')} acknowledged")


def _by(act: Act, actor: str | None) -> bool:
    return actor is None or act.actor in {actor, f"member:{actor}"}
