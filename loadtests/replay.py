"""Replays a sale that really took place, over HTTP, and audits it.

    python -m loadtests.replay engineering-edition --members members.csv [--url http://127.0.0.1:8080]

Without `--url` it starts a service of its own. Exit code 0: every line of the audit is true; 1: a contradiction, the
first one spelled out; 2: it could not be run.
"""

import argparse
import asyncio
import contextlib
import csv
import io
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TextIO

import uvloop

from loadtests import rush, verify
from loadtests.api import Api, api_at, server_ahead_s
from loadtests.auditor import audited
from loadtests.client import Press, Rush
from loadtests.errors import AuditFailed, SetupError
from loadtests.http1 import Target, post_bytes
from loadtests.journal import Journal
from loadtests.report import as_json, audit_text, round_text
from loadtests.sale import ENGINEERING_EDITION, Edition, Replay, Round, Sale, drop_document
from loadtests.service import Service, found_or_started
from loadtests.tokens import Minter

LEAD_S = 5.0  # from creating the drop to its first opening: arming, opening connections, reading the clock
CONNECT_AHEAD_S = 2.0
CLOCK_SAMPLES = 25
CONNECT_TIMEOUT_S = 60.0
SETTLE_TIMEOUT_S = 30.0  # I16: what is disturbed settles within this
AGAIN_TIMEOUT_S = 30.0
TOKENS_LIVE_S = 4 * 3600
FILES_BESIDE_CONNECTIONS = 64
PROGRESS_EVERY_S = 0.2


def read_members(path: Path) -> dict[int, int]:
    """Member → points, from CSV with the header `member_id,points[,…]`. Errors: `SetupError` naming the line."""
    points: dict[int, int] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            if next(rows, [])[:2] != ["member_id", "points"]:
                raise SetupError(f"{path} does not begin with the header member_id,points.")
            for row in rows:
                try:
                    member, had = int(row[0]), int(row[1])
                except (ValueError, IndexError):
                    raise SetupError(f"{path}, line {rows.line_num}: not a member and points.") from None
                if points.setdefault(member, had) != had or len(points) != rows.line_num - 1:
                    raise SetupError(f"{path}, line {rows.line_num}: member {member} is there twice.")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{path} cannot be read: {error}.") from None
    return points


def allow_files(connections: int) -> None:
    """Raise the soft limit on open files to what so many connections need; `SetupError` when the hard one forbids."""
    need = connections + FILES_BESIDE_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < need:
        if hard != resource.RLIM_INFINITY and hard < need:
            raise SetupError(f"{connections} connections need {need} open files; {hard} are allowed (ulimit -n).")
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


async def replay(
    service: Service,
    edition: Edition,
    members: Path,
    *,
    connections: int,
    round_s: float,
    random: Random,
    out: TextIO,
    journal_file: Path,
    progress: TextIO | None = None,
    lead_s: float = LEAD_S,
    settle_timeout_s: float = SETTLE_TIMEOUT_S,
    clock_samples: int = CLOCK_SAMPLES,
) -> Replay:
    """Run the whole sale against `service` and audit it; each round's table is written to `out` as it ends.

    Everything that was asked and heard goes to `journal_file`, which the auditor reads. The first opening comes
    `lead_s` after the drop is created, or up to a second later.
    """
    points = read_members(members)
    target = Target.parse(service.url)
    try:
        minter = Minter(service.secret, expires_at=int(time.time()) + TOKENS_LIVE_S)
    except ValueError as error:
        raise SetupError(str(error)) from None
    tokens = {member: minter.shopper(member) for member in points}
    name = f"{edition.name}-{time.strftime('%Y%m%d%H%M%S', time.gmtime())}-{random.getrandbits(24):06x}"
    crowd = Rush(target, min(connections, len(points)), random=random)
    async with api_at(service.url, minter.operator()) as api, contextlib.aclosing(crowd):
        snapshot = await api.import_points(name, edition.cutoff, members)
        if snapshot["members"] != len(points):
            raise SetupError(f"{members} has {len(points)} members; the service imported {snapshot['members']}.")
        # `Date` is cut to whole seconds: the server's clock may be up to one further.
        first_s = max(time.time(), api.date.timestamp() + 1.0 if api.date else 0.0) + lead_s
        sale = Sale.of(edition, name, points, first_s, round_s)
        await api.create_drop(drop_document(sale, snapshot["snapshot"]))
        ahead_s, _ = await asyncio.gather(server_ahead_s(api, name, samples=clock_samples), _connect(crowd))
        result = Replay(sale, crowd.open_connections)
        journal = Journal(name, time.time() - time.monotonic())
        for allocation in sale.opens_at_s:
            opening = _monotonic(sale.opens_at_s[allocation] - ahead_s)
            round_ = Round(sale, allocation, opening, earlier=result.buyers(), journal=journal)
            presses = sale.presses(target, tokens, allocation, random)
            await asyncio.sleep(opening - CONNECT_AHEAD_S - time.monotonic())
            await _connect(crowd)
            await _press(crowd, round_, presses, opening + round_s, progress)
            result.rounds.append(round_)
            next_s = opening + round_s - CONNECT_AHEAD_S - time.monotonic()
            settle_s = min(settle_timeout_s, max(0.0, next_s))
            round_.checks.append(await _balance(api, result, settle_s))
            out.write(round_text(round_))
            out.flush()
        await _ask_again(crowd, result, target, tokens, random=random, journal=journal)
        result.checks.append(await _balance(api, result, settle_timeout_s))
    journal.write(journal_file)
    await _audit(service, result, journal_file, settle_timeout_s)
    return result


def _monotonic(at_s: float) -> float:
    """What `time.monotonic` says at Unix time `at_s` of this machine's clock."""
    return time.monotonic() + at_s - time.time()


async def _connect(rush: Rush) -> None:
    try:
        await rush.open(CONNECT_TIMEOUT_S)
    except TimeoutError:
        raise SetupError(
            f"Only {rush.open_connections} connections could be opened in {CONNECT_TIMEOUT_S:.0f} s; "
            "fewer may do (--connections)."
        ) from None


async def _press(rush: Rush, round_: Round, presses: list[Press], give_up_at: float, progress: TextIO | None) -> None:
    """One round: everybody presses at the opening; who has no verdict when the window ends is noted."""
    rush.broken.clear()
    rush.on_lost = round_.lost

    async def tell(stream: TextIO) -> None:
        while True:
            answered, held = len(round_.verdicts), len(round_.claims)
            stream.write(f"\r{round_.allocation}: {answered:,} of {len(presses):,} answered, {held:,} held \x1b[K")
            stream.flush()
            await asyncio.sleep(PROGRESS_EVERY_S)

    telling = asyncio.create_task(tell(progress)) if progress else None
    try:
        left = await rush.run(presses, round_.judge, start_at=round_.opening, give_up_at=give_up_at)
    finally:
        if telling is not None and progress is not None:
            telling.cancel()
            progress.write("\r\x1b[K")
            progress.flush()
    for press in left:
        if press.tries:
            round_.lost(press)
    round_.end(len(presses), [press.member for press in left], rush)


async def _balance(api: Api, result: Replay, timeout_s: float) -> verify.Check:
    sale = result.sale
    quantity = dict.fromkeys(sale.opens_at_s, sale.edition.units)
    return await verify.settled_balance(lambda: api.balance(sale.drop), result.sold(), quantity, timeout_s)


async def _ask_again(
    rush: Rush, result: Replay, target: Target, tokens: Mapping[int, str], *, random: Random, journal: Journal
) -> None:
    """Every buyer presses once more, without a key: gate and ledger must know him."""
    sale = result.sale
    wanted = {claim.member: claim.allocation for claim in result.journal()}
    again = Round(sale, "", time.monotonic(), earlier=frozenset(), journal=journal, wanted=wanted)
    rush.on_lost = again.lost
    presses = []
    for claim in result.journal():
        body = json.dumps({"allocation": claim.allocation}).encode()
        presses.append(Press(claim.member, post_bytes(target, sale.path, token=tokens[claim.member], body=body)))
    random.shuffle(presses)
    await rush.run(presses, again.judge, start_at=again.opening, give_up_at=again.opening + AGAIN_TIMEOUT_S)
    heard = {claim.member: ("again" if claim.status == 200 else "held", claim.reservation) for claim in again.claims}
    refused = {member: (word, "") for member, word in again.verdicts.items()}
    result.checks.append(verify.same_again(result.journal(), refused | heard))


async def _audit(service: Service, result: Replay, journal: Path, settle_s: float) -> None:
    """Let the product's auditor read Postgres, Redis and the journal, where the stores' URLs are known."""
    if service.redis_url is None or service.database_url is None:
        missing = "--redis-url" if service.redis_url is None else "--database-url"
        result.notes.append(f"the stores were not audited: their URLs are not all known ({missing})")
        return
    result.checks += await audited(
        result.sale.drop,
        [journal],
        redis_url=service.redis_url,
        database_url=service.database_url,
        settle_s=settle_s,
    )


@contextlib.contextmanager
def _journal_file(kept: Path | None) -> Iterator[Path]:
    """Where the journal goes: where it is to be kept, or else somewhere where it stays only if it is needed."""
    if kept is not None:
        yield kept
        return
    handle, name = tempfile.mkstemp(prefix="flashsale-journal-", suffix=".jsonl")
    os.close(handle)
    try:
        yield Path(name)
    except AuditFailed:
        sys.stderr.write(f"What was asked and heard is kept in {name}.\n")
        raise
    except BaseException:
        Path(name).unlink()
        raise
    Path(name).unlink()


async def run(options: argparse.Namespace, environ: Mapping[str, str], out: TextIO) -> None:
    """Find or start the service, replay, report. Errors: `SetupError`, `AuditFailed`."""
    allow_files(options.connections)
    with _journal_file(options.journal) as journal_file:
        async with found_or_started(
            options.url, options.data_dir, secret=options.secret, workers=options.workers, environ=environ
        ) as found:
            service = found._replace(
                redis_url=options.redis_url or found.redis_url, database_url=options.database_url or found.database_url
            )
            result = await replay(
                service,
                ENGINEERING_EDITION,
                options.members,
                connections=options.connections,
                round_s=options.round_seconds,
                random=Random(options.seed),
                out=io.StringIO() if options.json else out,
                journal_file=journal_file,
                progress=sys.stderr if sys.stderr.isatty() else None,
                lead_s=options.lead_seconds,
            )
            out.write(as_json(result) if options.json else audit_text(result))
            out.flush()
            if result.contradiction is not None:
                raise AuditFailed(result.contradiction)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == [rush.NAME]:
        return rush.main(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.replay",
        description="Replay a real sale and audit it.",
        epilog=f"`{rush.NAME} --help` tells what there is to choose for the noon rush.",
    )
    parser.add_argument("edition", choices=[ENGINEERING_EDITION.name, rush.NAME])
    parser.add_argument("--members", type=Path, required=True, help="CSV: member_id,points[,…]")
    parser.add_argument("--url", help="the service; without it one is started")
    parser.add_argument("--secret", help="HS256 secret; else FLASHSALE_JWT_SECRET, else the data directory's")
    parser.add_argument("--data-dir", type=Path, help="data directory of `flashsale up`, running or to be started")
    parser.add_argument("--workers", type=_count, help="web processes of the service that is started")
    parser.add_argument("--redis-url", help="for the auditor; else the data directory's")
    parser.add_argument("--database-url", help="for the auditor; else the data directory's")
    parser.add_argument("--journal", type=Path, help="keep what was asked and heard in this file")
    parser.add_argument("--connections", type=_count, default=2000, help="at most (%(default)s)")
    parser.add_argument("--round-seconds", type=_seconds, default=20.0, help="a day's length (%(default)s)")
    parser.add_argument("--lead-seconds", type=_seconds, default=LEAD_S, help="to the first opening (%(default)s)")
    parser.add_argument("--seed", type=int, default=20110829, help="the order in which members press (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    options = parser.parse_args(arguments)
    if options.edition == rush.NAME:
        parser.error(f"{rush.NAME} comes first, before what is chosen for it")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(options, os.environ, sys.stdout))
    except AuditFailed as error:
        sys.stderr.write(f"The audit is not true: {error}.\n")
        return 1
    except SetupError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _count(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError
    return value


def _seconds(text: str) -> float:
    if not 0 < (value := float(text)) < float("inf"):
        raise ValueError
    return value


if __name__ == "__main__":
    sys.exit(main())
