"""What more requests a second would take, on paper: a table computed from measured costs.

    python -m loadtests.bench.sizing [--json FILE] [--write deploy/SIZING.md]

The costs come out of what `make bench ARGS="--json FILE"` wrote, or, without a file, are measured now, which takes some
minutes. Everything in the table is a cost times a rate, or follows from `Assumed`, which the table repeats: nothing
here is known that was not measured or is not said. `--write` puts it between the markers of a page that quotes nothing
else.
"""

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import uvloop

from loadtests.bench.house import Plan
from loadtests.bench.processes import raise_files_limit
from loadtests.bench.run import bench, check_needs
from loadtests.bench.table import KIB, document, number
from loadtests.errors import SetupError

NEEDED = ("refusals", "wins", "overload", "hot-row", "wire", "connections", "units", "dense", "scattered")
"""What must have been measured."""
RATES = (100_000, 1_000_000, 10_000_000)
"""Presses a second that are planned for."""
BEGIN, END = "<!-- sizing: written by the command above -->", "<!-- sizing: end -->"
GIB = 1 << 30
MEASURED_ROUNDS, MEASURED_SECONDS = 2, 3


class Assumed(NamedTuple):
    """What is not measured but chosen, as the table says."""

    contenders: int = 26
    """Members for a unit: the worst of the real sales that this is modelled on."""
    busy: float = 0.6
    """Of a core that is planned for: the rest is for what comes unevenly."""
    cores: int = 32
    """Of a machine."""
    press_every_s: int = 10
    """A shopper's connection carries a press this often."""
    balanced: int = 500_000
    """Shoppers' connections that one balancer holds."""
    members: int = 29_000_000
    """Who may be eligible: the largest member base of the model."""
    units: int = 300_000
    """Sold at one noon."""


class Costs(NamedTuple):
    """What one of each costs, as it was measured."""

    refusal_us: float
    win_us: float
    decision_us: float
    commit_us: float
    row_wins: float
    row_batch: int
    p99_ms: float
    press_bytes: float
    refusal_bytes: float
    win_bytes: float
    connection_bytes: float
    eligible_bytes: float
    scattered_bytes: float
    holder_bytes: float

    @classmethod
    def read(cls, measured: Mapping[str, Any]) -> "Costs":
        """Out of the benchmark's JSON. `SetupError` names what is missing."""
        rows: dict[str, dict[str, Any]] = {
            row["key"]: row for row in measured["rows"] if row.get("key") and row["figure"] is not None
        }

        def row(key: str) -> dict[str, Any]:
            if key not in rows:
                raise SetupError(f"{key} was not measured. Measure with --only {' '.join(NEEDED)}.")
            return rows[key]

        def cpu(key: str, process: str) -> float:
            samples: list[float] = row(key)["cpu_us"][process]
            return median(samples)

        decisions = [key for key in rows if key.startswith("gate-units-")]
        largest = max(decisions, key=lambda key: int(key.rpartition("-")[2]), default="gate-units-1000000")
        hot = max((key for key in rows if key.startswith("hot-row-")), key=_size, default="hot-row-512")
        return cls(
            refusal_us=cpu("refusals", "web"),
            win_us=cpu("wins", "web"),
            decision_us=row(largest)["figure"],
            commit_us=cpu(hot, "postgres"),
            row_wins=row(hot)["figure"],
            row_batch=_size(hot),
            p99_ms=median(row("overload-26")["p99_ms"]),
            press_bytes=row("wire-press")["figure"],
            refusal_bytes=row("wire-refusal")["figure"],
            win_bytes=row("wire-win")["figure"],
            connection_bytes=row("connection")["figure"] * KIB,
            eligible_bytes=row("eligible")["figure"],
            scattered_bytes=row("scattered")["figure"],
            holder_bytes=row("holder")["figure"],
        )


def _size(key: str) -> int:
    return int(key.rpartition("-")[2])


class Plant(NamedTuple):
    """What one rate needs."""

    wins: float
    web: int
    stripes: int
    rows: int
    postgres_cores: int
    shoppers: int
    busy_connections: int
    in_bytes: float
    out_bytes: float
    connections_bytes: float


def plant(rate: int, costs: Costs, assumed: Assumed) -> Plant:
    """What so many presses a second need. Processes and cores are whole ones, kept busy as assumed."""
    wins = rate / assumed.contenders
    web_us = (rate - wins) * costs.refusal_us + wins * costs.win_us
    busy_connections = math.ceil(rate * costs.p99_ms / 1e3)  # Little's law: so many are being answered at a time
    return Plant(
        wins=wins,
        web=_cores(web_us, assumed),
        stripes=_cores(rate * costs.decision_us, assumed),
        rows=math.ceil(wins / costs.row_wins / assumed.busy),
        postgres_cores=_cores(wins * costs.commit_us, assumed),
        shoppers=rate * assumed.press_every_s,
        busy_connections=busy_connections,
        in_bytes=rate * costs.press_bytes,
        out_bytes=(rate - wins) * costs.refusal_bytes + wins * costs.win_bytes,
        connections_bytes=busy_connections * costs.connection_bytes,
    )


def _cores(us_a_second: float, assumed: Assumed) -> int:
    return math.ceil(us_a_second / 1e6 / assumed.busy)


def text(measured: Mapping[str, Any], assumed: Assumed | None = None) -> str:
    """The tables, in Markdown: what was measured on, each cost, each rate, and memory."""
    assumed = assumed or Assumed()
    costs = Costs.read(measured)
    about = "; ".join(measured["machine"].values())
    said = " A quick look: these figures say nothing." if measured["settings"]["quick"] else ""
    chosen = (
        f"Assumed: {assumed.contenders} members for a unit; a core is kept busy for {assumed.busy:.0%} of its time; "
        f"{assumed.cores} cores a machine; a shopper presses every {assumed.press_every_s} s on a connection that "
        f"stays open; a balancer holds {assumed.balanced:,} of these."
    )
    parts = [
        f"Measured on: {about}.{said}",
        _table(["one of each", "costs"], _costs(costs)),
        chosen,
        _table(["presses a second", *(f"{rate:,}" for rate in RATES)], _rates(costs, assumed)),
        _table(["in the gate's memory", "needs"], _memory(costs, assumed)),
    ]
    return "\n\n".join(parts) + "\n"


def _costs(costs: Costs) -> Iterable[list[str]]:
    return [
        ["refusal, web process", f"{number(costs.refusal_us)} µs of a core"],
        ["durable win, web process", f"{number(costs.win_us)} µs of a core"],
        ["decision of the gate, in full calls, Valkey", f"{number(costs.decision_us)} µs of its one core"],
        ["so that one stripe decides at most", f"{1e6 / costs.decision_us:,.0f} a second"],
        [f"win of {costs.row_batch} in one commit, Postgres", f"{number(costs.commit_us)} µs of a core"],
        ["one allocation's row lets through at most", f"{costs.row_wins:,.0f} wins a second"],
        ["which is", f"{costs.row_wins / costs.row_batch:,.0f} commits a second"],
        ["an answer under overload takes, in 99 of 100 cases, at most", f"{number(costs.p99_ms)} ms"],
        ["press, with the headers of its packets", f"{number(costs.press_bytes)} bytes in"],
        ["refusal, the same", f"{number(costs.refusal_bytes)} bytes out"],
        ["win, the same", f"{number(costs.win_bytes)} bytes out"],
        ["open connection, web process", _bytes(costs.connection_bytes)],
    ]


def _rates(costs: Costs, assumed: Assumed) -> Iterable[list[str]]:
    plants = [plant(rate, costs, assumed) for rate in RATES]

    def machines(cores: int) -> str:
        return f"{math.ceil(cores / assumed.cores):,}"

    return [
        ["durable wins among them, while there are units", *(f"{each.wins:,.0f}" for each in plants)],
        ["web processes, a core each", *(f"{each.web:,}" for each in plants)],
        ["machines for them", *(machines(each.web) for each in plants)],
        ["gate: stripes, each a primary of one core", *(f"{each.stripes:,}" for each in plants)],
        ["machines for them and a replica of each", *(machines(2 * each.stripes) for each in plants)],
        ["ledger: rows that count wins", *(f"{each.rows:,}" for each in plants)],
        ["ledger: cores", *(f"{each.postgres_cores:,}" for each in plants)],
        ["shoppers' connections, at the balancers", *(f"{each.shoppers:,}" for each in plants)],
        ["balancers", *(f"{math.ceil(each.shoppers / assumed.balanced):,}" for each in plants)],
        ["connections from balancers to web, busy at a time", *(f"{each.busy_connections:,}" for each in plants)],
        ["of them a web process", *(f"{math.ceil(each.busy_connections / each.web):,}" for each in plants)],
        ["memory of web processes for these", *(_bytes(each.connections_bytes) for each in plants)],
        ["bytes in a second", *(_bytes(each.in_bytes) for each in plants)],
        ["bytes out a second", *(_bytes(each.out_bytes) for each in plants)],
        ["the larger of both, on a line", *(_bits(max(each.in_bytes, each.out_bytes)) for each in plants)],
    ]


def _memory(costs: Costs, assumed: Assumed) -> Iterable[list[str]]:
    members, units = assumed.members, assumed.units
    return [
        [f"{members:,} eligible members, dense ids", _bytes(members * costs.eligible_bytes)],
        [f"{members:,} eligible members, ids scattered over 63 bits", _bytes(members * costs.scattered_bytes)],
        [f"{units:,} holders of a unit", _bytes(units * costs.holder_bytes)],
    ]


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bytes(size: float) -> str:
    for name, unit in (("GiB", GIB), ("MiB", KIB * KIB), ("KiB", KIB)):
        if size >= unit:
            return f"{number(size / unit)} {name}"
    return f"{number(size)} bytes"


def _bits(bytes_a_second: float) -> str:
    return f"{number(bytes_a_second * 8 / 1e9)} Gbit/s"


def written(page: str, tables: str) -> str:
    """The page with these tables between its markers. `SetupError` when it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SetupError(f"the page has no place for the tables: the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}"


def measure() -> dict[str, Any]:
    """The costs, now, on services of its own."""

    def progress(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    check_needs(NEEDED)
    raise_files_limit()
    with tempfile.TemporaryDirectory(prefix="flashsale-bench-") as folder:
        Path(folder).chmod(0o711)  # as root, the servers run as another user
        plan = Plan(
            MEASURED_ROUNDS,
            MEASURED_SECONDS,
            quick=False,
            folder=Path(folder),
            environ=dict(os.environ),
            progress=progress,
        )
        about, rows = uvloop.run(bench(plan, NEEDED))
    for row in rows:
        if row.failed:
            raise SetupError(f"{row.name.strip()} could not be measured: {row.failed}")
    found: dict[str, Any] = json.loads(document(rows, about, {"quick": False}))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables, or write them into a page; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench.sizing", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="what the benchmark wrote (unset: measure now)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this page, between its markers")
    args = parser.parse_args(argv)
    try:
        page = args.write.read_text(encoding="utf-8") if args.write else None
        if page is not None:
            written(page, "")
        tables = text(json.loads(args.json.read_text(encoding="utf-8")) if args.json else measure())
    except (OSError, ValueError, KeyError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except SetupError as error:
        print(error, file=sys.stderr)
        return 2
    if page is None:
        sys.stdout.write(tables)
    else:
        args.write.write_text(written(page, tables), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
