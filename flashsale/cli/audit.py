"""`audit`: is all of it true, where is every unit, and who did what to the drop."""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from flashsale.cli import client, drops, options, output, transfer
from flashsale.errors import Refused, SetupError, Unavailable
from flashsale.process import RUN_FILE

PAGE: Final = 500
SHOWN_MAX_CHARS: Final = 100
SETTLE_S: Final = 30.0


class _Run(msgspec.Struct):
    url: str
    redis_url: str
    database_url: str


class _Stores(NamedTuple):
    redis_url: str
    database_url: str


def add(commands: options.Commands) -> None:
    """Put this command on the command line."""
    audited = options.command(
        commands,
        "audit",
        _audit,
        "Audit a drop: whether every invariant holds, where every unit is, and who did what",
        "Reads Postgres and Redis itself, and a journal of what was heard, if there is one. Exit code 1 if anything "
        "contradicts. Where the stores' URLs are not known, the service is asked for its balance and its audit log.",
    )
    audited.add_argument("drop", metavar="DROP", help="the drop's id")
    audited.add_argument(
        "--journal",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="what was asked and heard, one JSON object a line; may be given several times",
    )
    audited.add_argument(
        "--settle-s",
        metavar="S",
        type=_seconds,
        default=SETTLE_S,
        help="wait so long at most until nothing moves (default: 30)",
    )
    audited.add_argument(
        "--unsold-s",
        metavar="S",
        type=_seconds,
        help="so much longer than a hold a unit may lie free while somebody hears sold_out (default: 10)",
    )
    options.add_stores(audited, unset="unset: those of the service in the data directory")
    client.add_service(audited)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if 0 <= value < float("inf"):
        return value
    raise argparse.ArgumentTypeError(f"{text!r} is no time: give seconds, at least 0")


def _audit(args: argparse.Namespace) -> int:
    stores = _stores(args)
    if isinstance(stores, _Stores):
        return _audit_stores(args, stores)
    if args.journal:
        raise SetupError(f"A journal is held against the stores, and {stores}. Give --redis-url and --database-url.")
    balance, lines = asyncio.run(_ask(args))
    note = f"the stores were not read: {stores} (--redis-url, --database-url)"
    if args.json:
        said = {"drop": args.drop, "true": balance["balanced"], "contradiction": None, "stores_read": False}
        output.document({**said, "balance": balance, "checks": [], "notes": [note], "audit": lines})
    else:
        drops.show_balance(balance)
        _show_log(lines)
        output.line(f"\n  –      {note}")
    return 0 if balance["balanced"] else 1


def _stores(args: argparse.Namespace) -> _Stores | str:
    """Where Redis and Postgres are; else why that is not known.

    What the data directory tells belongs to the service that runs there, and to no other that `--url` names.
    """
    settings = options.settings_of(args)
    redis_url, database_url = settings.redis_url, settings.database_url
    if redis_url is not None and database_url is not None:
        return _Stores(redis_url, database_url)
    path = Path(settings.data_dir) / RUN_FILE
    try:
        run = msgspec.json.decode(path.read_bytes(), type=_Run)
    except (OSError, msgspec.DecodeError):
        return f"{path} does not tell where they are"
    if args.url and str(args.url).rstrip("/") != run.url.rstrip("/"):
        return f"{path} is of the service at {run.url}"
    return _Stores(redis_url or run.redis_url, database_url or run.database_url)


def _audit_stores(args: argparse.Namespace, stores: _Stores) -> int:
    import uvloop  # noqa: PLC0415 -- no other command has to wait for these

    from flashsale import audit  # noqa: PLC0415 -- as above

    progress = transfer.Progress(shown=sys.stderr.isatty())
    try:
        report = uvloop.run(
            audit.audit(
                args.drop,
                database_url=stores.database_url,
                redis_url=stores.redis_url,
                journals=args.journal,
                settle_s=args.settle_s,
                unsold_s=audit.UNSOLD_S if args.unsold_s is None else args.unsold_s,
                say=lambda text: progress.say(text) if progress.due() else None,
            )
        )
    except audit.UnknownDrop:
        raise Refused("not_found", f"There is no drop {args.drop!r}.") from None
    except audit.Unreadable as fault:
        raise Unavailable(str(fault)) from None
    except audit.BadJournal as fault:
        raise SetupError(str(fault)) from None
    finally:
        progress.end()
    _show(msgspec.to_builtins(report), report.contradiction, balanced=report.balanced, as_json=args.json)
    return 0 if report.contradiction is None and report.balanced else 1


def _show(report: dict[str, Any], contradiction: str | None, *, balanced: bool, as_json: bool) -> None:
    balance = {"drop": report["drop"], "balanced": balanced, "allocations": report.pop("balance")}
    lines = report.pop("log")
    true = contradiction is None and balanced
    if as_json:
        said = {"drop": report.pop("drop"), "true": true, "contradiction": contradiction, "stores_read": True}
        output.document({**said, **report, "balance": balance, "audit": lines})
        return
    drops.show_balance(balance)
    _show_log(lines)
    output.line("")
    for check in report["checks"]:
        sign = "FALSE" if check["contradiction"] else "true " if check["judged"] else "  –  "
        output.line(f"  {sign}  {check['invariant']:<4}{check['line']}: {check['found']}")
        if check["contradiction"]:
            more = check["contradictions"] - 1
            output.line(f"             {check['contradiction']}" + (f" (and {more:,} more)" if more else ""))
    for note in report["notes"]:
        output.line(f"    –    {note}")
    open_questions = sum(not check["judged"] for check in report["checks"])
    rest = f" {open_questions} of {len(report['checks'])} checks could not be made." if open_questions else ""
    output.line(f"The audit is {'true' if true else 'NOT true'}.{rest}")


def _show_log(lines: list[dict[str, Any]]) -> None:
    output.line("")
    columns = ("at", "actor", "action", "subject")
    output.table(
        (*columns, "detail"), [[*(found[name] for name in columns), _detail(found["detail"])] for found in lines]
    )


def _detail(detail: dict[str, Any]) -> str:
    text = client.encode(detail).decode() if detail else ""
    return text if len(text) <= SHOWN_MAX_CHARS else f"{text[:SHOWN_MAX_CHARS]}… (all of it: --json)"


async def _ask(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The balance, and all lines of the log, oldest first, as the service tells them."""
    async with client.service(args) as service:
        balance = await service.call("GET", client.path("drops", args.drop, "balance"))
        lines: list[dict[str, Any]] = []
        params = {"subject": args.drop, "limit": str(PAGE)}
        while True:
            page = await service.call("GET", "/v1/ops/audit", params=params)
            lines += page["items"]
            if page["next"] is None:
                return balance, lines[::-1]
            params["after"] = page["next"]
