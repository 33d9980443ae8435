"""A replayed sale for people (tables) and for machines (JSON)."""

import json
from collections import Counter
from typing import Any

from loadtests.sale import Replay, Round
from loadtests.verify import Check

WIDTH = 34


def row(name: str, value: str) -> str:
    """A name and what belongs to it."""
    return f"{name:<{WIDTH}}{value:>12}\n"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f} s"


def checks_text(checks: list[Check]) -> str:
    """One line a check, with the contradiction of one that does not hold below it."""
    lines = []
    for check in checks:
        sign = "  FALSE " if not check.true else "  true  " if check.judged else "   –    "
        lines.append(sign + check.line + (f": {check.found}" if check.found else ""))
        if check.contradiction is not None:
            lines.append(f"        {check.contradiction}")
    return "\n".join(lines) + "\n"


def round_text(round_: Round) -> str:
    """One round's table and its checks."""
    text = f"\n{round_.allocation}\n" + row("presses", f"{round_.presses:,}")
    for word, count in Counter(round_.verdicts.values()).most_common():
        text += row(f"  {word}", f"{count:,}")
    for word, count in sorted(round_.repeated.items()):
        text += row(f"repeated after {word}", f"{count:,}")
    for why, count in sorted(round_.broken.items()):
        text += row(f"connections lost: {why}", f"{count:,}")
    text += row("released after the opening", _seconds(round_.released_s))
    text += row("opening to the last unit", _seconds(round_.last_unit_s))
    text += row("opening to the last verdict", _seconds(round_.last_verdict_s))
    text += row("an answer takes, half / 99 %", f"{round_.answer_ms(0.5):.0f} / {round_.answer_ms(0.99):.0f} ms")
    return text + checks_text(round_.checks)


def audit_text(replay: Replay) -> str:
    """The audit of the whole sale."""
    sale = replay.sale
    text = (
        f"\n{sale.edition.title}: {len(sale.points):,} members, {sale.eligible:,} with {sale.edition.at_least} points "
        f"or more, {replay.connections:,} connections, drop {sale.drop}\n"
    )
    text += checks_text(replay.audit())
    for note in replay.notes:
        text += f"   –    {note}\n"
    wrong = replay.contradiction
    return text + ("The audit is true.\n" if wrong is None else f"The audit is NOT true: {wrong}\n")


def as_json(replay: Replay) -> str:
    """The whole replay as one JSON document, times in seconds."""
    sale = replay.sale
    document = {
        "edition": sale.edition.name,
        "drop": sale.drop,
        "members": len(sale.points),
        "eligible": sale.eligible,
        "connections": replay.connections,
        "rounds": [_round(round_) for round_ in replay.rounds],
        "audit": [_check(check) for check in replay.audit()],
        "notes": replay.notes,
        "contradiction": replay.contradiction,
        "true": replay.contradiction is None,
    }
    return json.dumps(document, indent=2) + "\n"


def _check(check: Check) -> dict[str, Any]:
    return {
        "line": check.line,
        "true": check.true,
        "found": check.found,
        "contradiction": check.contradiction,
        "judged": check.judged,
    }


def _round(round_: Round) -> dict[str, Any]:
    return {
        "allocation": round_.allocation,
        "presses": round_.presses,
        "verdicts": dict(Counter(round_.verdicts.values())),
        "repeated": dict(round_.repeated),
        "connections_lost": dict(round_.broken),
        "released_s": round_.released_s,
        "last_unit_s": round_.last_unit_s,
        "last_verdict_s": round_.last_verdict_s,
        "answer_p50_ms": round_.answer_ms(0.5),
        "answer_p99_ms": round_.answer_ms(0.99),
        "audit": [_check(check) for check in round_.checks],
    }
