"""`python -m loadtests.bench`: measures, prints one table, and says where a target was missed.

Exit code 0: everything was measured, whatever the figures; 1: something could not be measured, its row says why;
2: it could not be run.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import uvloop

from loadtests.bench import codes, deliveries, machine, memory, minting, points, presses, rebuild, waiting
from loadtests.bench.house import House, Plan, opened
from loadtests.bench.table import Failed, Row, document, table_text
from loadtests.bench.wrk import find_wrk
from loadtests.errors import SetupError

NAMES = (*presses.NAMES, "verify", *minting.NAMES, "deliveries", "waiting", "import", *rebuild.NAMES, "scattered")
NEED_WRK = {*presses.NAMES, "waiting"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=4, metavar="S", help="of each run (default: %(default)s)")
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there, too")
    parser.add_argument(
        "--quick", action="store_true", help="one short round over small data: does it run? The figures say nothing"
    )
    return parser


async def _presses(plan: Plan, house: House, names: Sequence[str]) -> list[Row]:
    """The rows about requests a second beside the empty handler."""
    chosen = [name for name in presses.NAMES if name in names]
    try:
        return await presses.measure(plan, house, chosen) if chosen else []
    except (Failed, SetupError) as failed:
        return [Row("requests a second", "", failed=str(failed))]


async def _stores(plan: Plan, house: House, names: Sequence[str]) -> list[Row]:
    """The rows for which the stores are filled, the emptiest first; the gate is emptied before the last of them."""
    rows = await asyncio.to_thread(codes.measure, plan.rounds) if "verify" in names else []
    if chosen := [name for name in minting.NAMES if name in names]:
        rows += await minting.measure(plan, house, chosen)
    if "deliveries" in names:
        rows += await deliveries.measure(plan, house)
    if "import" in names:
        rows += await points.measure(plan, house)
    if chosen := [name for name in rebuild.NAMES if name in names]:
        rows += await rebuild.measure(plan, house, chosen)
    if "scattered" in names:
        rows += await memory.measure(plan, house)
    return rows


async def bench(plan: Plan, names: Sequence[str]) -> tuple[dict[str, str], list[Row]]:
    """Measure what is asked for: the machine, and all rows. What fails leaves a row that says so.

    Requests a second are measured on services of their own: the other figures fill the stores. A quick look, whose
    figures say nothing, takes one service for both.
    """
    about: dict[str, str] = {}
    first: list[Row] = []
    last: list[Row] = []
    wanted = set(names)
    for_stores = bool(wanted - {*presses.NAMES, "waiting"})
    if wanted & set(presses.NAMES) or (for_stores and plan.quick):
        async with opened(plan, "presses") as house:
            about = await machine.describe(house)
            if plan.quick:
                last = await _stores(plan, house, names)
            first = await _presses(plan, house, names)
    if "waiting" in wanted:
        async with opened(plan, "none-waiting") as empty, opened(plan, "orders-waiting") as full:
            about = about or await machine.describe(empty)
            first += await waiting.measure(plan, empty, full)
    if for_stores and not plan.quick:
        async with opened(plan, "stores") as house:
            about = about or await machine.describe(house)
            last = await _stores(plan, house, names)
    return about, first + last


def report(about: dict[str, str], rows: list[Row], plan: Plan) -> str:
    """All that is printed."""
    lines = list(about.values())
    if commands := [row.command for row in rows if row.command]:
        lines.append("Load, for one run (the others differ in length, port, file and expected answer):")
        lines.append(f"  {commands[0]}")
        lines.append("Each request: another member, a token of its own that no server has seen, no Idempotency-Key.")
    text = "\n".join(lines) + "\n\n" + table_text(rows)
    if any(row.ratios for row in rows):
        text += "\nof empty: median of the ratios to the empty handler of the same round.\n"
    if any(row.p50_ms for row in rows):
        text += "p50, p99: milliseconds.\n"
    if any(row.cpu_us for row in rows):
        text += "web, worker, valkey, postgres: processor microseconds a request, all their processes counted.\n"
    if plan.quick:
        text += "\nA quick look: it shows that everything runs; the figures say nothing.\n"
    missed = [row.name.strip() for row in rows if row.met is False]
    return text + (f"\nMissed: {'; '.join(missed)}.\n" if missed else "")


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, and return the exit code."""
    args = _parser().parse_args(argv)
    if args.rounds < 1 or args.seconds < 1:
        _parser().error("--rounds and --seconds are 1 or more")

    def progress(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="flashsale-bench-") as folder:
        Path(folder).chmod(0o711)  # as root, the servers run as another user
        rounds, seconds = (1, 1) if args.quick else (args.rounds, args.seconds)
        plan = Plan(rounds, seconds, args.quick, Path(folder), dict(os.environ), progress)
        try:
            if NEED_WRK & set(args.only):
                find_wrk()
            about, rows = uvloop.run(bench(plan, args.only))
            if plan.quick:
                for row in rows:
                    row.target = None
        except SetupError as error:
            print(error, file=sys.stderr)
            return 2
    sys.stdout.write("\n" + report(about, rows, plan))
    if args.json:
        args.json.write_text(document(rows, about, {"rounds": rounds, "seconds": seconds, "quick": args.quick}))
    return 1 if any(row.failed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
