"""`fcodes mint|list|show|export|revoke`: F-codes of a running service; `fcodes check CODE` reads a single one."""

import argparse
import asyncio
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, Final

from fcodes import CODES_PER_BATCH_MAX, SERIAL_MAX
from flashsale.cli import client, export, options, output, transfer
from flashsale.errors import SetupError

PAGE: Final = 500
SHOWN: Final = 50
STATES: Final = ("unspent", "held", "confirmed", "returned", "revoked")


def add(commands: options.Commands) -> None:
    """Put these commands on the command line."""
    those = options.group(commands, "fcodes", "Mint, hand out and revoke F-codes of a running service")
    minted = options.command(
        those,
        "mint",
        _mint,
        "Mint a batch of F-codes",
        "Each has a unit of the allocation set aside for it. The codes themselves come with `fcodes export`.",
    )
    minted.add_argument("drop", metavar="DROP", help="the drop's id")
    minted.add_argument("allocation", metavar="ALLOCATION", help="its allocation with access `fcode`")
    many = minted.add_mutually_exclusive_group(required=True)
    many.add_argument("--count", type=_count, metavar="N", help="so many, for whoever has them")
    many.add_argument(
        "--members",
        metavar="FILE.csv",
        help="one for each line, for that member alone: CSV in UTF-8 with the header `member_id[,note]`; - reads "
        "standard input",
    )
    minted.add_argument(
        "--expires",
        type=options.time_with_zone,
        metavar="TIME",
        help="honoured until then, like 2026-12-31T00:00:00+08:00 (default: as long as the allocation sells)",
    )
    minted.add_argument("--note", metavar="TEXT", help="what they are for")
    client.add_service(minted)

    listed = options.command(those, "list", _list, "List the batches, newest first")
    _limit(listed, "batches")
    shown = _one(those, "show", _show, "Show a batch: its codes by state, and who spent when")
    _limit(shown, "spent codes")

    exported = _one(
        those,
        "export",
        _export,
        "Write a batch's codes as CSV, or as cards to print; the audit log has it",
        "A file is there only when it is complete, and only its owner can read it. Cards show the expiry in this "
        "machine's time zone (another: TZ=Asia/Shanghai).",
    )
    exported.add_argument("--out", metavar="FILE.csv", help="the codes (default, without --cards: standard output)")
    exported.add_argument("--cards", metavar="FILE.html", help="ten cards a page, each with its code and a QR code")
    exported.add_argument("--reason", metavar="TEXT", help="why, for the audit log")

    revoked = _one(
        those, "revoke", _revoke, "Honour a batch no more, or some of its codes", "Reservations made with them stand."
    )
    revoked.add_argument(
        "--serial",
        type=_serial,
        nargs="+",
        action="extend",
        metavar="N",
        help="only these (`fcodes check CODE` tells a code's serial)",
    )
    revoked.add_argument(
        "--to", metavar="ALLOCATION", help="where their units go (default: they stay, for other codes)"
    )
    revoked.add_argument("--reason", required=True, metavar="TEXT", help="why, for the audit log")
    for each in (listed, shown, exported, revoked):
        client.add_service(each)


def _one(
    those: options.Commands, name: str, run: Callable[[argparse.Namespace], int], summary: str, more: str = ""
) -> argparse.ArgumentParser:
    added = options.command(those, name, run, summary, more)
    added.add_argument("batch", metavar="BATCH", help="the batch's number")
    return added


def _limit(to: argparse.ArgumentParser, what: str) -> None:
    number = _whole(1, 1_000_000, "number")
    to.add_argument("--limit", type=number, default=SHOWN, metavar="N", help=f"{what} at most (default: {SHOWN})")


def _whole(least: int, most: int, what: str) -> Callable[[str], int]:
    def read(text: str) -> int:
        if text.isascii() and text.isdecimal() and least <= int(text[:20]) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is no {what}: give a whole number from {least} to {most}")

    return read


_count: Final = _whole(1, CODES_PER_BATCH_MAX, "number of codes")
_serial: Final = _whole(0, SERIAL_MAX, "serial")


def _mint(args: argparse.Namespace) -> int:
    if args.members is None:
        batch = asyncio.run(_mint_many(args))
    else:
        with transfer.open_input(args.members) as file:
            batch = asyncio.run(_mint_bound(args, file))
    if args.json:
        output.document(batch)
    else:
        whose = "codes, each for one member" if batch["bound"] else "codes"
        output.line(f"Batch {batch['batch']}: {batch['count']:,} {whose}, in {batch['drop']}/{batch['allocation']}.")
    return 0


def _mint_path(args: argparse.Namespace) -> str:
    return client.path("drops", args.drop, "allocations", args.allocation, "fcodes")


def _given(**values: object) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


async def _mint_many(args: argparse.Namespace) -> dict[str, Any]:
    body = client.encode(_given(count=args.count, expires_at=args.expires, note=args.note))
    async with client.service(args) as service:
        return await service.call("POST", _mint_path(args), body=body)


async def _mint_bound(args: argparse.Namespace, file: BinaryIO) -> dict[str, Any]:
    progress = transfer.Progress(shown=sys.stderr.isatty())
    try:
        async with client.service(args) as service:
            return await service.call(
                "POST",
                _mint_path(args),
                params=_given(expires_at=args.expires, note=args.note),
                body=transfer.pieces(file, progress),
                content_type="text/csv",
                timeout_s=None,
            )
    finally:
        progress.end()


def _list(args: argparse.Namespace) -> int:
    found = asyncio.run(_read(args, client.path("fcodes"), "items"))
    if args.json:
        output.document(found)
    else:
        columns = ("batch", "drop", "allocation", "count", "bound", "created_at", "expires_at", "revoked_at", "note")
        output.table(columns, [[item[name] for name in columns] for item in found["items"]])
        _tell_more(found)
    return 0


def _show(args: argparse.Namespace) -> int:
    found = asyncio.run(_read(args, client.path("fcodes", args.batch), "spent"))
    if args.json:
        output.document(found)
        return 0
    whose = "each for one member" if found["bound"] else "for whoever has them"
    output.line(f"Batch {found['batch']}: {found['count']:,} codes {whose}, in {found['drop']}/{found['allocation']}")
    for name in ("created_at", "expires_at", "revoked_at", "note"):
        if found[name] is not None:
            output.line(f"{name} {found[name]}")
    output.table(STATES, [[found["counts"][name] for name in STATES]])
    if found["spent"]:
        output.line("")
        columns = ("serial", "member", "state", "at", "reservation")
        output.table(columns, [[item[name] for name in columns] for item in found["spent"]])
        _tell_more(found)
    return 0


def _tell_more(found: dict[str, Any]) -> None:
    if found["next"] is not None:
        output.note("There are more: give a larger --limit.")


async def _read(args: argparse.Namespace, path: str, key: str) -> dict[str, Any]:
    """The call's answer, with `args.limit` items under `key` if there are so many, from as many pages as that takes."""
    params: dict[str, str] = {}
    items: list[Any] = []
    async with client.service(args) as service:
        while True:
            params["limit"] = str(min(PAGE, args.limit - len(items)))
            found = await service.call("GET", path, params=params)
            items += found[key]
            if found["next"] is None or len(items) >= args.limit:
                return {**found, key: items}
            params["after"] = found["next"]


def _export(args: argparse.Namespace) -> int:
    wanted = export.Wanted(args.batch, args.out, args.cards, args.reason)
    if args.json and not wanted.files:
        raise SetupError("Standard output has room for the codes or for --json: name a file with --out or --cards.")
    codes = asyncio.run(_fetch(args, wanted))
    if args.json:
        output.document({"batch": args.batch, "codes": codes, **_given(out=args.out, cards=args.cards)})
    elif wanted.files:
        output.line(f"Batch {args.batch}: {codes:,} codes in {' and '.join(wanted.files)}.")
    return 0


async def _fetch(args: argparse.Namespace, wanted: export.Wanted) -> int:
    async with client.service(args) as service:
        return await export.fetch(service, wanted)


def _revoke(args: argparse.Namespace) -> int:
    body = _given(serials=args.serial, to_allocation=args.to, reason=args.reason)
    found = asyncio.run(_call_revoke(args, body))
    if args.json:
        output.document(found)
    else:
        counts = ", ".join(f"{found['counts'][name]:,} {name}" for name in STATES)
        output.line(f"Batch {found['batch']}: {found['revoked']:,} codes revoked; now {counts}.")
    return 0


async def _call_revoke(args: argparse.Namespace, body: dict[str, Any]) -> dict[str, Any]:
    async with client.service(args) as service:
        return await service.call("POST", client.path("fcodes", args.batch, "revoke"), body=client.encode(body))
