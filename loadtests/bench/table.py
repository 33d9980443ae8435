"""The rows of the benchmark, for people (one aligned table) and for machines (JSON)."""

import json
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

Kind = Literal["at least", "at most"]

KIB = 1 << 10
MIB = 1 << 20


class Failed(Exception):
    """Something could not be measured; the message says what happened."""


@dataclass(frozen=True)
class Target:
    """What a figure is held against.

    A row that is compared with the empty handler is judged by that ratio; by the ratio to another one, `of`, when that
    is named; by the figure itself when `absolute`.
    """

    kind: Kind
    value: float
    absolute: bool = False
    of: str = ""

    def met(self, figure: float) -> bool:
        """Whether the figure is good enough."""
        return figure >= self.value if self.kind == "at least" else figure <= self.value


@dataclass
class Row:
    """One line: the median of `samples`, and the columns beside it.

    `ratios` are to the empty handler, those in `others` to what `OTHERS` lists; `judged` is what the target is about.
    `key` is for machines: it stays the same when sizes, and with them the name, change.
    """

    name: str
    unit: str
    samples: list[float] = field(default_factory=list)
    target: Target | None = None
    ratios: list[float] = field(default_factory=list)
    others: dict[str, list[float]] = field(default_factory=dict)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    p999_ms: list[float] = field(default_factory=list)
    max_ms: list[float] = field(default_factory=list)
    cpu_us: dict[str, list[float]] = field(default_factory=dict)
    note: str = ""
    command: str = ""
    failed: str = ""
    key: str = ""

    @property
    def figure(self) -> float | None:
        """The median; None when nothing was measured."""
        return median(self.samples) if self.samples and not self.failed else None

    @property
    def judged(self) -> float | None:
        """What the target is about."""
        if self.target is not None and self.target.of:
            compared = self.others.get(self.target.of, [])
            return median(compared) if compared and not self.failed else None
        absolute = self.target is not None and self.target.absolute
        if self.ratios and not self.failed and not absolute:
            return median(self.ratios)
        return self.figure

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target or a figure."""
        return None if self.target is None or self.judged is None else self.target.met(self.judged)


PROCESSES = ("web", "worker", "valkey", "postgres")
OTHERS = ("plain", "shipped", "smallest")
"""Batches of one; the product as it is shipped; the smallest size of a series."""
HEADINGS = (
    "", "figure", "of empty", "(from–to)", *(f"of {other}" for other in OTHERS), "target", "met",
    "p50", "p99", "p99.9", "max", *PROCESSES, "",
)  # fmt: skip
LEFT = {0, len(HEADINGS) - 1}
ALWAYS = {0, 1}


def number(value: float) -> str:
    """A figure with as many digits as it deserves."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _median(values: list[float], digits: int) -> str:
    return f"{median(values):.{digits}f}" if values else ""


def _cells(row: Row) -> list[str]:
    figure, ratios, target = row.figure, row.ratios, row.target
    if figure is None:
        return [row.name, "FAILED", *[""] * (len(HEADINGS) - 3), row.failed]
    sign = "" if target is None else "≥ " if target.kind == "at least" else "≤ "
    return [
        row.name,
        f"{number(figure)} {row.unit}",
        _median(ratios, 2),
        f"{min(ratios):.2f}–{max(ratios):.2f}" if len(ratios) > 1 else "",
        *(_median(row.others.get(other, []), 2) for other in OTHERS),
        "" if target is None else sign + (f"{target.value:,.0f}" if target.value >= 100 else f"{target.value:g}"),
        {None: "", True: "yes", False: "NO"}[row.met],
        _median(row.p50_ms, 1),
        _median(row.p99_ms, 1),
        _median(row.p999_ms, 1),
        _median(row.max_ms, 1),
        *(_median(row.cpu_us.get(name, []), 1) for name in PROCESSES),
        row.note,
    ]


def table_text(rows: list[Row]) -> str:
    """All rows, aligned; a column in which nobody has anything is left out."""
    cells = [_cells(row) for row in rows]
    used = [column in ALWAYS or any(line[column] for line in cells) for column in range(len(HEADINGS))]
    headings = [heading if use else "" for heading, use in zip(HEADINGS, used, strict=True)]
    lines = [headings, *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    text = ""
    for line in lines:
        padded = (
            cell.ljust(width) if column in LEFT else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            if width
        )
        text += "  ".join(padded).rstrip() + "\n"
    return text


def document(rows: list[Row], machine: dict[str, str], settings: dict[str, Any]) -> str:
    """All rows with every sample, as JSON."""
    found = [asdict(row) | {"figure": row.figure, "judged": row.judged, "met": row.met} for row in rows]
    return json.dumps({"machine": machine, "settings": settings, "rows": found}, indent=2, ensure_ascii=False) + "\n"
