"""`points import`: a points snapshot, streamed from a file."""

import argparse
import asyncio
import sys
import time
from typing import Any, BinaryIO

from flashsale.cli import client, options, output, transfer


def add(commands: options.Commands) -> None:
    """Put this command on the command line."""
    those = options.group(commands, "points", "Members' points in a running service")
    imported = options.command(
        those,
        "import",
        _import,
        "Import a points snapshot, all or nothing",
        "The file begins with the header `member_id,points`; further columns are not read.",
    )
    imported.add_argument("file", metavar="FILE.csv", help="the points, as CSV in UTF-8; - reads standard input")
    imported.add_argument("--name", required=True, help="name of the new snapshot: small letters, digits, hyphens")
    imported.add_argument(
        "--cutoff",
        required=True,
        type=options.time_with_zone,
        metavar="TIME",
        help="as of when the points count, like 2011-08-16T00:00:00+08:00",
    )
    client.add_service(imported)


def _import(args: argparse.Namespace) -> int:
    began = time.monotonic()
    with transfer.open_input(args.file) as file:
        found = asyncio.run(_send(args, file))
    if args.json:
        output.document(found)
    else:
        seconds = time.monotonic() - began
        output.line(
            f"Snapshot {found['snapshot']}: {found['members']:,} members as of {found['cutoff']}, in {seconds:.1f} s."
        )
    return 0


async def _send(args: argparse.Namespace, file: BinaryIO) -> dict[str, Any]:
    progress = transfer.Progress(shown=sys.stderr.isatty())
    try:
        async with client.service(args) as service:
            return await service.call(
                "POST",
                "/v1/ops/points",
                params={"name": args.name, "cutoff": args.cutoff},
                body=transfer.pieces(file, progress),
                content_type="text/csv",
                timeout_s=None,
            )
    finally:
        progress.end()
