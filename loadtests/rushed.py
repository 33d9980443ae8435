"""What became of a noon rush: its figures, what must be true of them, and both for people and for machines."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from loadtests.footprint import Footprint
from loadtests.part import NOT_OPEN, WINS, Told
from loadtests.report import checks_text, row
from loadtests.verify import Check

MIB = 1 << 20
BAR_WIDTH = 30
CLOCKS_APART_S = 0.002
"""The gate's clock counts whole milliseconds, the ledger's microseconds."""


@dataclass(frozen=True)
class Plan:
    """The sale and its crowd. `outstanding`: members of one process who are inside at a time, in calls of `group`."""

    contenders: int
    units: int
    http: bool
    processes: int
    outstanding: int
    group: int
    seed: int
    lead_s: float


def by_second(told: Sequence[Told]) -> dict[str, list[int]]:
    """Word → verdicts in each second from the opening, of all parts together; as many seconds for each word."""
    words = sorted({word for each in told for word in each.heard}, key=lambda word: (word not in WINS, word))
    seconds = max((len(counts) for each in told for counts in each.heard.values()), default=0)
    return {
        word: [
            sum(found)
            for found in zip_longest([0] * seconds, *(each.heard.get(word, []) for each in told), fillvalue=0)
        ]
        for word in words
    }


def _sum(parts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total = Counter[str]()
    for each in parts:
        total.update(each)
    return dict(sorted(total.items()))


def _latest(times: Sequence[float | None]) -> float | None:
    return max((at for at in times if at is not None), default=None)


def _earliest(times: Sequence[float | None]) -> float | None:
    return min((at for at in times if at is not None), default=None)


@dataclass
class Rushed:
    """A rush that has been. Times in seconds from the opening, which was at `opens_at` (`time.monotonic`)."""

    plan: Plan
    drop: str
    told: Sequence[Told]
    footprint: Footprint
    opens_at: float
    checks: list[Check] = field(default_factory=list)

    @property
    def heard(self) -> dict[str, int]:
        """Word → verdicts."""
        return {word: sum(counts) for word, counts in by_second(self.told).items()}

    @property
    def wins(self) -> int:
        """How many were given a unit."""
        return sum(count for word, count in self.heard.items() if word in WINS)

    @property
    def refusals(self) -> int:
        """How many were refused."""
        return sum(self.heard.values()) - self.wins

    @property
    def sold_out_s(self) -> float | None:
        """When the last of those who were given a unit heard it."""
        return _latest([each.last_win_s for each in self.told])

    @property
    def last_verdict_s(self) -> float | None:
        """When the last of all heard a verdict."""
        return _latest([each.last_verdict_s for each in self.told])

    def judge(self) -> None:
        """Hold what was heard against what must be."""
        plan, heard = self.plan, self.heard
        words = {word: count for word, count in heard.items() if word not in WINS | {"sold_out"}}
        faults = _sum([each.faults for each in self.told])
        early = _sum([each.early for each in self.told])
        first_s = _earliest([each.first_created_s for each in self.told])
        verdicts = sum(heard.values())
        unexpected = "; ".join(f"{count:,} met {what}" for what, count in (faults | words).items())
        self.checks += [
            Check(
                "everyone heard a verdict",
                f"{verdicts:,} of {plan.contenders:,}",
                None if verdicts == plan.contenders else f"{plan.contenders - verdicts:,} heard none",
            ),
            Check(
                f"{plan.units:,} sold",
                f"{self.wins:,} acknowledged",
                None if self.wins == plan.units else f"{self.wins:,} units were sold instead of {plan.units:,}",
            ),
            Check("who did not win heard sold_out", f"{heard.get('sold_out', 0):,} did", unexpected or None),
            Check(
                "nothing was given before the opening",
                f"{early.get(NOT_OPEN, 0):,} pressed before it"
                + ("" if first_s is None else f"; the first unit was written down {first_s:.3f} s after it"),
                None
                if first_s is None or first_s >= -CLOCKS_APART_S
                else f"a unit was written down {-first_s:.3f} s before the opening",
            ),
        ]

    @property
    def contradiction(self) -> str | None:
        """The first contradiction; None when all is true."""
        return next((f"{check.line}: {check.contradiction}" for check in self.checks if not check.true), None)

    def document(self) -> dict[str, Any]:
        """All of it. Times in seconds, memory in bytes."""
        sold_out, last = self.sold_out_s, self.last_verdict_s
        after_s = None if sold_out is None or last is None else last - sold_out
        refused_from = _earliest([each.first_refusal_s for each in self.told])
        return {
            "drop": self.drop,
            "contenders": self.plan.contenders,
            "units": self.plan.units,
            "http": self.plan.http,
            "processes": self.plan.processes,
            "outstanding": self.plan.outstanding,
            "group": self.plan.group,
            "seed": self.plan.seed,
            "wins": self.wins,
            "refusals": self.refusals,
            "errors": sum(_sum([each.faults for each in self.told]).values()),
            "repeated": _sum([each.repeated for each in self.told]),
            "pressed_early": _sum([each.early for each in self.told]),
            "sold_out_s": sold_out,
            "first_refusal_s": refused_from,
            "last_verdict_s": last,
            "sold_out_to_last_verdict_s": after_s,
            "wins_a_second": _rate(self.wins, sold_out),
            "refusals_a_second": _rate(self.refusals, _span(refused_from, last)),
            "verdicts_a_second": _rate(self.wins + self.refusals, last),
            "memory_peak_bytes": self.footprint.peaks() | {"all": self.footprint.peak},
            "cpu_s": self.footprint.used_s(self.opens_at, self.opens_at + (last or 0.0)),
            "cpu_until_sold_out_s": self.footprint.used_s(self.opens_at, self.opens_at + (sold_out or 0.0)),
            "by_second": by_second(self.told),
            "audit": [check._asdict() | {"true": check.true} for check in self.checks],
            "contradiction": self.contradiction,
            "true": self.contradiction is None,
        }


def _span(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else end - begin


def _rate(count: int, seconds: float | None) -> float | None:
    return count / seconds if seconds else None


def as_json(rushed: Rushed) -> str:
    """The whole rush as one JSON document."""
    return json.dumps(rushed.document(), indent=2) + "\n"


def text_of(rushed: Rushed) -> str:
    """The whole rush as tables, its checks last."""
    found, plan = rushed.document(), rushed.plan
    way = "over HTTP" if plan.http else f"without HTTP, in calls of {plan.group:,}"
    text = (
        f"\nNoon rush: {plan.contenders:,} contenders for {plan.units:,} units, {way}; {plan.processes} processes of "
        f"the crowd, {plan.outstanding:,} members of each inside at a time, drop {rushed.drop}\n"
    )
    text += row("opening to sold out", _seconds(found["sold_out_s"]))
    text += row("sold out to the last verdict", _seconds(found["sold_out_to_last_verdict_s"]))
    text += row("wins", f"{found['wins']:,}") + row("  a second", _number(found["wins_a_second"]))
    text += row("refusals", f"{found['refusals']:,}") + row("  a second", _number(found["refusals_a_second"]))
    text += row("verdicts a second, all in all", _number(found["verdicts_a_second"]))
    text += row("errors", f"{found['errors']:,}")
    for why, count in found["repeated"].items():
        text += row(f"repeated after {why}", f"{count:,}")
    text += "\n" + _costs(found)
    text += "\n" + histogram_text(found["by_second"]) + "\n" + checks_text(rushed.checks)
    wrong = rushed.contradiction
    return text + ("The audit is true.\n" if wrong is None else f"The audit is NOT true: {wrong}\n")


def _costs(found: Mapping[str, Any]) -> str:
    """Memory and processor time of each process; the latter until all was sold, and from then on."""
    memory, cpu_s, selling_s = found["memory_peak_bytes"], found["cpu_s"], found["cpu_until_sold_out_s"]
    text = f"{'process':<16}{'memory, at most':>16}{'processor, selling':>20}{'then':>10}\n"

    def line(name: str, had_bytes: int, sold_s: float, then_s: float) -> str:
        return f"{name:<16}{had_bytes / MIB:>12,.0f} MiB{sold_s:>18.1f} s{then_s:>8.1f} s"

    for name, used_s in cpu_s.items():
        text += line(name, memory[name], selling_s[name], used_s - selling_s[name]) + "\n"
    busy_s, sold_s = sum(cpu_s.values()), sum(selling_s.values())
    wall_s = found["last_verdict_s"]
    cores = f", {busy_s / wall_s:.1f} cores all in all" if wall_s else ""
    return text + line("all, at a time", memory["all"], sold_s, busy_s - sold_s) + cores + "\n"


def histogram_text(counts: Mapping[str, Sequence[int]]) -> str:
    """A line for each second from the opening: verdicts by word, and a bar of them all."""
    if not counts:
        return "nobody heard a verdict\n"
    text = f"{'second':>6}" + "".join(f"{word:>12}" for word in counts) + "\n"
    seconds = list(zip(*counts.values(), strict=True))
    most = max(sum(each) for each in seconds)
    for second, each in enumerate(seconds):
        bar = "█" * round(BAR_WIDTH * sum(each) / most)
        text += (f"{second:>6}" + "".join(f"{count:>12,}" for count in each) + f"  {bar}").rstrip() + "\n"
    return text


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"
