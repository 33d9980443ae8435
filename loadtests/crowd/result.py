"""A run that was judged: its figures, its checks, and both as a table and as a document."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loadtests.crowd.judged import Bottleneck
from loadtests.crowd.tally import Tally, percentile
from loadtests.report import checks_text
from loadtests.verify import Check

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True)
class Result:
    """What is told of a run."""

    sale: Mapping[str, Any]
    processes: int
    roles: Mapping[str, int]
    tally: Tally
    health: Bottleneck
    own: list[Check]
    audit: list[Check]
    notes: list[str]
    journal_lines: int

    @property
    def contradiction(self) -> str | None:
        """The first thing that is not true."""
        return next((f"{c.line}: {c.contradiction}" for c in [*self.own, *self.audit] if not c.true), None)

    def milliseconds(self, *prefix: str | int) -> dict[str, float]:
        """Percentiles of durations that were counted under a key."""
        buckets = self.tally.by(*prefix)
        return {name: round(1000 * percentile(buckets, share), 1) for name, share in SHARES.items()}

    @property
    def words(self) -> dict[str, int]:
        """How often each verdict was heard at the end of a press."""
        found: dict[str, int] = {}
        for second in self.tally.by("verdict"):
            for word, times in self.tally.by("verdict", second).items():
                found[word] = found.get(word, 0) + times
        return dict(sorted(found.items(), key=lambda pair: -pair[1]))

    @property
    def calls(self) -> dict[str, dict[str, Any]]:
        """By the name of a call: how often, how long from the intent and on the wire, and what was heard."""
        return {
            name: {
                "times": times,
                "from_intent_ms": self.milliseconds("intent", name),
                "on_the_wire_ms": self.milliseconds("wire", name),
                "heard": self.tally.by("heard", name),
            }
            for name, times in sorted(self.tally.by("intent").items(), key=lambda pair: -pair[1])
        }

    def seconds(self) -> list[dict[str, Any]]:
        """The sale second by second: verdicts, and the percentiles of presses that were meant for it."""
        counted = {*self.tally.by("verdict"), *self.tally.by("press from intent")}
        if not counted:
            return []
        return [
            {
                "second": second,
                "verdicts": self.tally.by("verdict", second),
                "presses": self.tally.total("press from intent", second),
                "from_intent_ms": self.milliseconds("press from intent", second),
                "on_the_wire_ms": self.milliseconds("press on the wire", second),
            }
            for second in range(min(counted), max(counted) + 1)
        ]

    def to_dict(self) -> dict[str, Any]:
        """The whole result as one document."""
        return {
            "true": self.contradiction is None,
            "contradiction": self.contradiction,
            "sale": dict(self.sale),
            "processes": self.processes,
            "roles": dict(self.roles),
            "verdicts": self.words,
            "press_to_verdict_ms": self.milliseconds("press to verdict"),
            "calls": self.calls,
            "behaviours": self.tally.by("did"),
            "seconds": self.seconds(),
            "generator": self.health._asdict(),
            "checks": [check._asdict() | {"true": check.true} for check in self.own],
            "audit": [check._asdict() | {"true": check.true} for check in self.audit],
            "notes": self.notes,
            "journal_lines": self.journal_lines,
        }

    def table(self) -> str:
        """The short table that is printed."""
        sale, health = self.sale, self.health
        rows = [f"\n{sale['shape']}: {sale['shoppers']:,} shoppers, {sale['units']:,} units, drop {sale['drop']}"]
        rows += [f"  {word:<28}{times:>12,}" for word, times in self.words.items()]
        rows.append(f"  {'':<28}{'p50':>12}{'p90':>9}{'p99':>9}{'max':>9}  ms")
        lines = {
            "press, from its intent": self.milliseconds("intent", "press"),
            "press, on the wire": self.milliseconds("wire", "press"),
            "press to verdict": self.milliseconds("press to verdict"),
            "generator late by": self.milliseconds("late"),
        }
        for name, ms in lines.items():
            rows.append(f"  {name:<28}{ms['p50']:>12,.0f}{ms['p90']:>9,.0f}{ms['p99']:>9,.0f}{ms['max']:>9,.0f}")
        if health.why is not None:
            rows.append(f"  The generator was the bottleneck: {health.why}. Its figures are not the service's.")
        rows.append(checks_text([*self.own, *self.audit]).rstrip("\n"))
        rows += [f"   –    {note}" for note in self.notes]
        wrong = self.contradiction
        rows.append("Everything is true." if wrong is None else f"NOT true: {wrong}")
        return "\n".join(rows) + "\n"
