"""The noon rush: 300,000 phones at noon, 3,770,000 members who press together, and the audit of it.

    python -m loadtests.replay noon-rush [--contenders 3770000] [--units 300000] [--http [--workers 2]]

It starts a `flashsale up` of its own and presses on its real servers: without HTTP on the product's own reservation
path (`noon`), with `--http` through its web processes, a tenth of everything (`noonhttp`). The drop is created closed;
what is pressed before its opening must be refused. Exit codes as of `replay`.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import uvloop

from loadtests import rushed, verify
from loadtests.api import Api, api_at, rfc3339
from loadtests.auditor import audited
from loadtests.errors import AuditFailed, SetupError
from loadtests.footprint import Footprint
from loadtests.part import ALLOCATION, WINS, Opening, Part
from loadtests.parts import Crowds, gathered
from loadtests.rushed import Plan, Rushed
from loadtests.service import Service, pids_of, temporary
from loadtests.tokens import Minter

NAME = "noon-rush"
CONTENDERS = 3_770_000
UNITS = 300_000
HTTP_SHARE = 10
GROUP = 1_024
"""The gate decides as many in one call (`FLASHSALE_GATE_BATCH_MAX`), so a group fills it."""
INSIDE = 4 * GROUP
"""Enough that the next call of the gate and those of the ledger (512 each) are full while one is under way. More would
only wait for longer: beyond 20,000, or 2 s, the product says so (`FLASHSALE_GATE_QUEUE_MAX`, `FLASHSALE_LEDGER_…`)."""
CONNECTIONS = 500
CONTENDERS_MAX = 2**32 - 1  # their order is kept in four bytes each
LEAD_S = 1.5
HOLD_S = 3 * 3600  # beyond the audit's end: no hold ends in the middle of it
OPEN_FOR_S = 3 * 3600
TOKENS_LIVE_S = 4 * 3600
SETTLE_TIMEOUT_S = 30.0  # I16: what is disturbed settles within this
PROGRESS_EVERY_S = 0.2
BAR_WIDTH = 30


async def rush(
    plan: Plan, service: Service, folder: Path, environ: Mapping[str, str], progress: TextIO | None
) -> Rushed:
    """Run the whole sale against `service`, whose data is in `folder`, and audit it. The crowd writes there as well."""
    drop = f"{NAME}-{time.strftime('%Y%m%d%H%M%S', time.gmtime())}"
    parts = [
        Part(
            drop=drop,
            number=number,
            parts=plan.processes,
            contenders=plan.contenders,
            seed=plan.seed,
            outstanding=plan.outstanding,
            group=plan.group,
            url=service.url,
            redis_url=service.redis_url or "",
            database_url=service.database_url or "",
            secret=service.secret,
            journal=str(folder / f"crowd-{number + 1}.jsonl"),
        )
        for number in range(plan.processes)
    ]
    module = "loadtests.noonhttp" if plan.http else "loadtests.noon"
    token = Minter(service.secret, expires_at=int(time.time()) + TOKENS_LIVE_S).operator()
    async with api_at(service.url, token) as api:
        async with gathered(module, parts, folder, environ) as crowds:
            opening = await _create(api, drop, plan)
            opens_at = time.monotonic() + opening.opens_at_s - time.time()
            footprint = Footprint({"driver": os.getpid(), **crowds.pids, **pids_of(folder / "data")})
            async with footprint.watched(), _shown(crowds, plan, opens_at, progress):
                await crowds.press(opening)
        found = Rushed(plan, drop, crowds.told, footprint, opens_at)
        found.judge()
        found.checks.append(await _balance(api, found))
    _say(progress, "auditing")
    found.checks += await audited(
        drop,
        [Path(part.journal) for part in parts],
        redis_url=service.redis_url or "",
        database_url=service.database_url or "",
        settle_s=SETTLE_TIMEOUT_S,
    )
    _say(progress, "")
    return found


async def _create(api: Api, drop: str, plan: Plan) -> Opening:
    """The drop, which opens `lead_s` from now."""
    opens_at_s = round(time.time() + plan.lead_s, 3)
    allocation = {
        "id": ALLOCATION, "quantity": plan.units, "opens_at": rfc3339(opens_at_s),
        "closes_at": rfc3339(opens_at_s + OPEN_FOR_S), "access": {"kind": "everyone"},
    }  # fmt: skip
    await api.create_drop(
        {
            "id": drop,
            "title": "Noon rush",
            "price": {"amount": 199_900, "currency": "CNY"},
            "per_member": 1,
            "hold_seconds": HOLD_S,
            "allocations": [allocation],
        }
    )
    if time.time() >= opens_at_s:
        raise SetupError(f"Creating the drop took longer than {plan.lead_s:g} s; give it more (--lead-seconds).")
    return Opening(opens_at_s, HOLD_S)


async def _balance(api: Api, found: Rushed) -> verify.Check:
    sold, quantity = {ALLOCATION: found.wins}, {ALLOCATION: found.plan.units}
    return await verify.settled_balance(lambda: api.balance(found.drop), sold, quantity, SETTLE_TIMEOUT_S)


def _say(progress: TextIO | None, text: str) -> None:
    if progress is not None:
        progress.write(f"\r{text}\x1b[K")
        progress.flush()


@contextlib.asynccontextmanager
async def _shown(crowds: Crowds, plan: Plan, opens_at: float, progress: TextIO | None) -> AsyncIterator[None]:
    """A bar of how far everybody is, while the block lasts."""

    async def show() -> None:
        while True:
            _say(progress, bar(rushed.by_second(crowds.told), plan, time.monotonic() - opens_at))
            await asyncio.sleep(PROGRESS_EVERY_S)

    showing = asyncio.create_task(show())
    try:
        yield
    finally:
        showing.cancel()
        _say(progress, "")


def bar(by_second: Mapping[str, Sequence[int]], plan: Plan, after_s: float) -> str:
    """How many of the contenders have their verdict, as a bar and in figures."""
    if after_s < 0:
        return f"opens in {-after_s:.1f} s"
    verdicts = sum(map(sum, by_second.values()))
    wins = sum(sum(counts) for word, counts in by_second.items() if word in WINS)
    full = BAR_WIDTH * verdicts // plan.contenders
    return (
        f"{'█' * full}{'░' * (BAR_WIDTH - full)} {verdicts:,} of {plan.contenders:,} have their verdict, "
        f"{wins:,} of {plan.units:,} units sold, {after_s:.0f} s"
    )


async def run(options: argparse.Namespace, environ: Mapping[str, str], out: TextIO, progress: TextIO | None) -> None:
    """Start a service, rush, report. Errors: `SetupError`, `AuditFailed`."""
    async with temporary("flashsale-noon-", workers=options.workers, secret=None, environ=environ) as (service, folder):
        found = await rush(plan_of(options), service, folder, environ, progress)
        out.write(rushed.as_json(found) if options.json else rushed.text_of(found))
        out.flush()
        if found.contradiction is not None:
            raise AuditFailed(found.contradiction)


def plan_of(options: argparse.Namespace) -> Plan:
    """What the options ask for; over HTTP, a tenth of it."""
    share = HTTP_SHARE if options.http else 1
    inside = options.outstanding or (CONNECTIONS if options.http else INSIDE)
    return Plan(
        contenders=options.contenders // share,
        units=options.units // share,
        http=options.http,
        processes=options.processes,
        outstanding=inside,
        group=1 if options.http else min(options.group, inside),
        seed=options.seed,
        lead_s=options.lead_seconds,
    )


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=f"python -m loadtests.replay {NAME}", description="Everybody presses at noon; then the audit."
    )
    parser.add_argument("--contenders", type=_count, default=CONTENDERS, help="members who press (%(default)s)")
    parser.add_argument("--units", type=_count, default=UNITS, help="units there are (%(default)s)")
    parser.add_argument("--http", action="store_true", help=f"over real connections, 1/{HTTP_SHARE} of everything")
    parser.add_argument("--workers", type=_count, help="web processes, with --http")
    parser.add_argument("--processes", type=_count, default=2, help="processes of the crowd (%(default)s)")
    parser.add_argument(
        "--outstanding",
        type=_count,
        help=f"members of a process inside at a time ({INSIDE}); with --http its connections ({CONNECTIONS})",
    )
    parser.add_argument("--group", type=_count, default=GROUP, help="who press in one call, 1 to 1024 (%(default)s)")
    parser.add_argument("--seed", type=int, default=20120830, help="the order in which members press (%(default)s)")
    parser.add_argument("--lead-seconds", type=_seconds, default=LEAD_S, help="to the opening (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    options = parser.parse_args(argv)
    if (wrong := _wrong(options)) is not None:
        parser.error(wrong)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(options, os.environ, sys.stdout, sys.stderr if sys.stderr.isatty() else None))
    except AuditFailed as error:
        sys.stderr.write(f"The audit is not true: {error}.\n")
        return 1
    except SetupError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _wrong(options: argparse.Namespace) -> str | None:
    """What does not fit together."""
    plan = plan_of(options)
    if plan.units < 1:
        return f"--http presses for a tenth of the units: give --units {HTTP_SHARE} or more"
    if plan.units >= plan.contenders:
        return f"{plan.contenders:,} contenders for {plan.units:,} units are no rush: --units must be fewer"
    if plan.contenders < plan.processes:
        return f"{plan.processes} processes cannot share {plan.contenders} contenders (--processes)"
    if plan.contenders > CONTENDERS_MAX:
        return f"--contenders is at most {CONTENDERS_MAX:,}"
    if options.group > GROUP:
        return f"--group is at most {GROUP}: one call of the gate takes no more"
    if options.workers is not None and not options.http:
        return "--workers are web processes: without --http nobody presses there"
    return None


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of them: give a whole number, at least 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give seconds, more than 0")
    return value
