"""`python -m loadtests.bench`: measures, prints one table, and says where a target was missed.

Exit code 0: everything was measured, whatever the figures; 1: something could not be measured, its row says why;
2: it could not be run.
"""

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from loadtests.bench.figures import FIGURES, ROOT, entry, keep, version
from loadtests.bench.house import Plan
from loadtests.bench.processes import raise_files_limit
from loadtests.bench.run import NAMES, bench, check_needs
from loadtests.bench.table import Row, document, table_text
from loadtests.errors import SetupError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=4, metavar="S", help="of each run (default: %(default)s)")
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there, too")
    parser.add_argument("--keep", action="store_true", help=f"append the table to {FIGURES.relative_to(ROOT)}")
    parser.add_argument(
        "--quick", action="store_true", help="one short round over small data: does it run? The figures say nothing"
    )
    return parser


def report(about: dict[str, str], rows: list[Row], plan: Plan) -> str:
    """All that is printed."""
    lines = list(about.values())
    if commands := [row.command for row in rows if row.command]:
        lines.append("Load, for one run (the others differ in length, port, file and expected answer):")
        lines.append(f"  {commands[0]}")
        lines.append("Each request: another member, a token of its own that no server has seen, no Idempotency-Key.")
        lines.append(
            "Not over HTTP: a decision of the gate, in calls of 256, and what one allocation's row lets through."
        )
    text = "\n".join(lines) + "\n\n" + table_text(rows)
    if any(row.ratios for row in rows):
        text += "\nof empty: median of the ratios to the empty handler of the same round.\n"
    if any(row.others for row in rows):
        text += "of plain, of shipped: the same to batches of one, and to the product as it is shipped.\n"
    if any(row.p50_ms for row in rows):
        text += "p50 to max: milliseconds.\n"
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
    if args.keep and args.quick:
        _parser().error("--keep keeps figures, and those of --quick say nothing")
    began_at = time.monotonic()

    def progress(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="flashsale-bench-") as folder:
        Path(folder).chmod(0o711)  # as root, the servers run as another user
        rounds, seconds = (1, 1) if args.quick else (args.rounds, args.seconds)
        plan = Plan(rounds, seconds, args.quick, Path(folder), dict(os.environ), progress)
        try:
            check_needs(args.only)
            raise_files_limit()
            about, rows = uvloop.run(bench(plan, args.only))
            if plan.quick:
                for row in rows:
                    row.target = None
        except SetupError as error:
            print(error, file=sys.stderr)
            return 2
    minutes = math.ceil((time.monotonic() - began_at) / 60)
    sys.stdout.write(f"\n{report(about, rows, plan)}\nAll of it took {minutes} min.\n")
    if args.keep:
        names = () if args.only is NAMES else args.only
        how = f"{rounds} rounds of {seconds} s, {minutes} min in all"
        keep(FIGURES, entry(what=version(), at=datetime.now(UTC), how=how, names=names, about=about, rows=rows))
    if args.json:
        args.json.write_text(document(rows, about, {"rounds": rounds, "seconds": seconds, "quick": args.quick}))
    return 1 if any(row.failed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
