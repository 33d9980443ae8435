"""Judges a run that is over: merges its journals, has it audited, prints a table and writes the report.

    python -m loadtests.crowd.verdict OPTIONS RUN

Exit code 0: everything is true; 1: something is not, which is spelled out; 2: it could not be judged.
"""

import asyncio
import heapq
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from loadtests.auditor import audited
from loadtests.crowd.gathering import HEARD
from loadtests.crowd.judged import bottleneck, own_checks
from loadtests.crowd.options import Options
from loadtests.crowd.page import page
from loadtests.crowd.result import Result
from loadtests.crowd.tally import Tally
from loadtests.verify import Check

JOURNAL = "journal.jsonl"
RESULT = "result.json"
REPORT = "index.html"
SUMMARY = "summary.txt"


def merge(journals: Sequence[Path], whole: Path) -> int:
    """The lines of all processes in one file, in the order in which they were asked; how many there are."""

    def keyed(path: Path) -> Iterator[tuple[float, bytes]]:
        with path.open("rb") as file:
            yield from sorted(((json.loads(line)["sent_at"], line) for line in file), key=lambda pair: pair[0])

    lines = 0
    with ExitStack() as stack:
        out = stack.enter_context(whole.open("wb"))
        for _, line in heapq.merge(*map(keyed, journals), key=lambda pair: pair[0]):
            out.write(line)
            lines += 1
    return lines


async def judge(options: Options, run: Path) -> Result:
    """Everything that is to be said of a run."""
    heard: dict[str, Any] = json.loads((run / HEARD).read_text())
    tally, notes = Tally(heard["tally"]), []
    journal = run / JOURNAL
    lines = merge([run / f"journal-{index}.jsonl" for index in range(heard["processes"])], journal)
    checks: list[Check] = []
    if options.redis_url and options.database_url:
        checks = await audited(
            heard["sale"]["drop"],
            [journal],
            redis_url=options.redis_url,
            database_url=options.database_url,
            settle_s=options.settle_seconds,
        )
    else:
        notes.append("the stores were not audited: their URLs are not known (--redis-url, --database-url)")
    return Result(
        sale=heard["sale"],
        processes=heard["processes"],
        roles=heard["roles"],
        tally=tally,
        health=bottleneck(tally),
        own=own_checks(heard, tally),
        audit=checks,
        notes=notes,
        journal_lines=lines,
    )


def write(result: Result, run: Path, out: Path) -> None:
    """The report, its figures, its table and, what they are made of."""
    out.mkdir(parents=True, exist_ok=True)
    (out / REPORT).write_text(page(result), encoding="utf-8")
    (out / RESULT).write_text(json.dumps(result.to_dict(), indent=2) + "\n", encoding="utf-8")
    (out / SUMMARY).write_text(result.table(), encoding="utf-8")
    for kept in (JOURNAL, HEARD):
        shutil.copyfile(run / kept, out / kept)


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    options, run = Options.read(Path(argv[0])), Path(argv[1])
    try:
        result = asyncio.run(judge(options, run))
        write(result, run, Path(options.out))
    except (OSError, ValueError, KeyError) as error:
        why = str(error) if isinstance(error, OSError) else repr(error)
        sys.stderr.write(f"The run cannot be judged: {why}.\n")
        return 2
    if options.page:  # elsewhere the command line prints it, at the end
        sys.stdout.write(result.table())
    return 0 if result.contradiction is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
