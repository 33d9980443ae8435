"""The table at the end of a run: what struck how often, what was heard, what was found."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from tests.faults.audit import Finding
from tests.faults.hit import KINDS, Hit
from tests.faults.machine import Outcome

COUNTED: Final = {"oversold": "I2", "acknowledged lost": "I3", "orders twice": "I13", "units unaccounted": "I1"}
"""Column, and the invariant that it counts contradictions of. What contradicts another one is in `other`."""
HEADS: Final = (
    "fault",
    "strikes",
    "503 or lost",
    "first verdict s",
    "first grant s",
    *COUNTED,
    "other",
    "settled s",
)


def _longest(values: Sequence[float | None]) -> str:
    """The longest of these times; a dash when there is none."""
    known = [value for value in values if value is not None]
    return f"{max(known):.2f}" if known else "–"


def _counts(findings: Sequence[Finding]) -> list[str]:
    by = Counter[str]()
    for finding in findings:
        by[finding.invariant] += finding.times
    other = sum(times for invariant, times in by.items() if invariant not in COUNTED.values())
    return [*(str(by[invariant]) for invariant in COUNTED.values()), str(other)]


def _row(name: str, hits: Sequence[Hit], rounds: Sequence[Outcome]) -> list[str]:
    return [
        name,
        str(len(hits)),
        str(sum(hit.unavailable for hit in hits)),
        _longest([hit.first_verdict_s for hit in hits]),
        _longest([hit.first_grant_s for hit in hits]),
        *_counts([finding for outcome in rounds for finding in outcome.findings]),
        _longest([outcome.settle_s for outcome in rounds]),
    ]


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """One line for each fault that struck, one for all, aligned.

    What was found, and how long it took to settle, is a round's; it stands in the line of every fault of that round.
    """
    rows = [list(HEADS)]
    for name in KINDS:
        rounds = [outcome for outcome in outcomes if any(hit.kind.name == name for hit in outcome.hits)]
        hits = [hit for outcome in rounds for hit in outcome.hits if hit.kind.name == name]
        if hits:
            rows.append(_row(name, hits, rounds))
    every = [hit for outcome in outcomes for hit in outcome.hits]
    rows.append(_row("all", every, outcomes))
    rows[-1][2] = str(sum(outcome.calls["503"] + outcome.calls["lost"] for outcome in outcomes))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return [lines[0], "-" * len(lines[0]), *lines[1:-1], "-" * len(lines[0]), lines[-1]]


def told(outcome: Outcome) -> str:
    """A round in one line."""
    calls = ", ".join(f"{times:,} {what}" for what, times in sorted(outcome.calls.items()))
    settled = "not at all" if outcome.settle_s is None else f"{outcome.settle_s:.1f} s"
    verdict = "nothing found" if outcome.true else f"{len(outcome.findings)} CONTRADICTIONS"
    return (
        f"{outcome.name}: {len(outcome.hits)} strikes in {outcome.seconds:.0f} s; heard {calls}; "
        f"settled {settled} after the last; {outcome.audited} drops audited: {verdict}"
    )


def contradictions(outcomes: Sequence[Outcome], at_most: int = 20) -> list[str]:
    """The first contradictions, each once, in words."""
    known = dict.fromkeys(f"{f.invariant} in {o.name}: {f.what}" for o in outcomes for f in o.findings)
    lines = list(known)
    more = [f"… and {len(lines) - at_most} more"] if len(lines) > at_most else []
    return [*lines[:at_most], *more]
