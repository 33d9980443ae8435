"""`make faults`: the real service under a crowd of shoppers, while everything that can go wrong does.

    python -m tests.faults [--seed N] [--strikes N] [--only "FAULT,FAULT"] [--rate N]
    python -m tests.faults --broken LINE        the same, over a product with one line broken
    python -m tests.faults list                 the faults, and the lines that can be broken
    python -m tests.faults restart              how long from a Valkey restart to the first new grant

The servers are real, each in a process of its own: one Valkey, then a primary with its replica and Sentinel, then a
cluster with replicas; Postgres; two web processes, two workers; the shop's system. Shoppers arrive at a fixed rate
whatever the answers, keep a journal of each, and behave as shoppers do. In rounds of about a minute, faults strike at
random and at the worst moments, several at once; then everything must come to rest within 30 s, whatever is left must
be for sale, and `flashsale audit`, which shares no code with what it judges, must find nothing. The exit code is 1 if
anything contradicts the promise, and journals and logs are kept then.

The seed decides which faults strike in which order, at which moments, for how long, and what shoppers want and do;
what real processes make of it differs from run to run.

The auditor finds what it should: with one line of the product broken, in the first minute of seed 1,

    --broken release     --strikes 1 --only "shoppers cut"                  I1: units are missing
    --broken outbox      --strikes 2 --only "gate cut"                      I16: units are never given back
    --broken fencing     --strikes 8 --only "valkey emptied,ledger late"    I1: sold, and the gate does not know

and in its second round, since it takes a release that is repeated after its member has bought again,

    --broken release-id  --strikes 12 --only "gate silent,gate replies lost"    I1: sold, and the gate does not know
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Coroutine

import uvloop

from tests.faults import report, restart
from tests.faults.disk import NoSmallDisk, own_mounts
from tests.faults.hit import KINDS
from tests.faults.pace import stderr, stdout
from tests.faults.product import BROKEN
from tests.faults.run import SETTLES_WITHIN_S, Options, run

STRIKES_EACH = 10
RATE = 100.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="The service under faults.")
    parser.add_argument("what", nargs="?", choices=("run", "list", "restart"), default="run")
    parser.add_argument("--seed", type=int, default=1, help="what everything is drawn from (default: 1)")
    parser.add_argument("--strikes", type=int, help=f"about so many strikes (default: {STRIKES_EACH} of each fault)")
    parser.add_argument("--only", type=_names, default=(), metavar="FAULT,FAULT", help="only these faults")
    parser.add_argument("--broken", choices=sorted(BROKEN), help="with this line of the product broken")
    parser.add_argument("--rate", type=float, default=RATE, help=f"shoppers who arrive a second (default: {RATE:g})")
    parser.add_argument("--keep", action="store_true", help="keep journals and logs also when nothing is found")
    return parser.parse_args()


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no fault {unknown[0]!r}; `python -m tests.faults list` names them")
    return names


def _listed() -> None:
    for kind in KINDS.values():
        stdout(f"{kind.name:26} {', '.join(kind.stages):26} {kind.strike.__doc__}")
    for name, broken in BROKEN.items():
        stdout(f"--broken {name:17} {broken.file}: {broken.shows}")


async def _until_stopped(work: Coroutine[None, None, int]) -> int:
    """SIGTERM ends it as Ctrl-C does: everything that was started is stopped first."""
    task = asyncio.ensure_future(work)
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        stderr("Stopped.")
        return 130


async def _run(args: argparse.Namespace, *, small_disk: bool) -> int:
    kinds = [kind for kind in KINDS.values() if not args.only or kind.name in args.only]
    each = STRIKES_EACH if args.strikes is None else max(1, -(-args.strikes // len(kinds)))
    options = Options(
        seed=args.seed,
        each=each,
        only=args.only,
        broken=args.broken,
        rate=args.rate,
        settle_s=SETTLES_WITHIN_S if args.broken is None else SETTLES_WITHIN_S / 5,
        small_disk=small_disk,
        keep=args.keep,
        stop_at_first=args.broken is not None,
    )
    outcomes = await run(options, stderr)
    stdout("\n".join(report.table(outcomes)))
    found = report.contradictions(outcomes)
    stdout("\n".join(found) if found else "Nothing contradicts the promise.")
    broken = "" if args.broken is None else f", {args.broken} broken"
    missing = "" if small_disk else "; no small disk could be had here, so none was full"
    strikes = sum(len(outcome.hits) for outcome in outcomes)
    stdout(f"seed {args.seed}{broken}: {strikes} strikes in {len(outcomes)} rounds{missing}")
    return 1 if found else 0


def main() -> int:
    """The exit code: 0 nothing found, 1 a contradiction, 130 stopped."""
    args = _arguments()
    if args.what == "list":
        _listed()
        return 0
    small_disk = True
    try:
        own_mounts()  # before any thread starts
    except NoSmallDisk as reason:
        stderr(f"There is no small disk here ({reason}): no disk will be full.")
        small_disk = False
    work = restart.measure(stderr) if args.what == "restart" else _run(args, small_disk=small_disk)
    return uvloop.run(_until_stopped(work))


if __name__ == "__main__":
    sys.exit(main())
