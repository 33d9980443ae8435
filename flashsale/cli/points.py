"""`points import`: a points snapshot, streamed from a file."""

import argparse
import asyncio
import os
import stat
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from flashsale.cli import client, options, output
from flashsale.errors import SetupError

PROGRESS_EVERY_S: Final = 0.2
_MIB: Final = 1024 * 1024


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
    try:
        file = sys.stdin.buffer if args.file == "-" else Path(args.file).open("rb")  # noqa: SIM115 -- closed below
    except OSError as error:
        raise SetupError(f"{args.file} cannot be read: {error.strerror}.") from None
    began = time.monotonic()
    with file:
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
    progress = _Progress(file, shown=sys.stderr.isatty())
    try:
        async with client.service(args) as service:
            return await service.call(
                "POST",
                "/v1/ops/points",
                params={"name": args.name, "cutoff": args.cutoff},
                body=_pieces(file, progress),
                content_type="text/csv",
                timeout_s=None,
            )
    finally:
        progress.end()


async def _pieces(file: BinaryIO, progress: "_Progress") -> AsyncIterator[bytes]:
    mode = os.fstat(file.fileno()).st_mode
    waits = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(file.fileno())
    stream = asyncio.StreamReader()
    if waits:  # in the event loop, where Ctrl-C ends the waiting
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), file)
    while piece := await stream.read(client.CHUNK_BYTES) if waits else file.read(client.CHUNK_BYTES):
        progress.sent(len(piece))
        yield piece
    progress.all_sent()


class _Progress:
    """One line on a terminal, written over and over."""

    def __init__(self, file: BinaryIO, *, shown: bool) -> None:
        self._size = os.fstat(file.fileno()).st_size  # 0 for a pipe
        self._sent = 0
        self._shown = shown
        self._next_s = 0.0
        self._written = False

    def sent(self, count: int) -> None:
        self._sent += count
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + PROGRESS_EVERY_S
            share = f", {100 * self._sent // self._size} %" if self._size else ""
            self._write(f"{self._sent / _MIB:.1f} MiB{share}")

    def all_sent(self) -> None:
        self._write(f"{self._sent / _MIB:.1f} MiB sent; the service stores them")

    def end(self) -> None:
        if self._written:
            self._write("")

    def _write(self, text: str) -> None:
        if self._shown:
            self._written = True
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
