"""The codes of a batch on their way from the service into files: as CSV, and as cards to print."""

import csv
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from typing import Any, Final

import msgspec

from flashsale.cards import About, Card, Sheet
from flashsale.cli import client, transfer
from flashsale.errors import SetupError, Unavailable

BEARER: Final = ["code"]
BOUND: Final = ["code", "member_id", "note"]

Take = Callable[[bytes], None]


class Wanted(msgspec.Struct, frozen=True):
    """What to export, and whereto: files for the codes and for the cards; neither is standard output."""

    batch: str
    out: str | None
    cards: str | None
    reason: str | None

    @property
    def files(self) -> list[str]:
        """The files that are written."""
        return [name for name in (self.out, self.cards) if name is not None]

    def check(self) -> None:
        """Each file has its own place, or `SetupError`."""
        if len({os.path.realpath(name) for name in self.files}) < len(self.files):
            raise SetupError("--out and --cards name the same file.")


async def fetch(service: client.Service, wanted: Wanted) -> int:
    """Write a batch's codes; how many there are. One call brings them all, so that the audit log has one export."""
    wanted.check()
    batch = await service.call("GET", client.path("fcodes", wanted.batch), params={"limit": "1"})
    drop = await service.call("GET", client.path("drops", batch["drop"])) if wanted.cards else None
    with ExitStack() as files:
        takes: list[Take] = []
        if wanted.out:
            takes.append(files.enter_context(transfer.NewFile(wanted.out)).write)
        cards = None
        if wanted.cards and drop is not None:
            sheet = Sheet(_about(batch, drop["title"]))
            cards = Cards(sheet, batch["note"], files.enter_context(transfer.NewFile(wanted.cards)).write)
            takes.append(cards.take)
        in_between = not takes and sys.stdout.isatty()  # a line written over and over would be among the codes
        progress = transfer.Progress(shown=sys.stderr.isatty() and not in_between)
        received = Received(batch["count"], takes or [_to_standard_output], progress)
        params = {"reason": wanted.reason} if wanted.reason else {}
        try:
            path = client.path("fcodes", f"{batch['batch']}.csv")
            await service.download(path, params=params, content_type="text/csv", to=received.take)
        finally:
            progress.end()
        received.finish()
        if cards is not None:
            cards.finish()
    return received.codes


def _to_standard_output(piece: bytes) -> None:
    try:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SetupError(f"Standard output cannot be written: {error.strerror}.") from None


def _about(batch: dict[str, Any], title: str) -> About:
    """What the cards say; the expiry in this machine's time zone."""
    expires_at = None if batch["expires_at"] is None else datetime.fromisoformat(batch["expires_at"]).astimezone()
    return About(title or batch["drop"], batch["drop"], batch["allocation"], batch["batch"], expires_at)


class Received:
    """Hands on what comes, and counts it."""

    def __init__(self, expected: int, takes: list[Take], progress: transfer.Progress) -> None:
        self._expected = expected
        self._takes = takes
        self._progress = progress
        self._lines = 0
        self._last = b""

    def take(self, piece: bytes) -> None:
        """The next piece of the CSV."""
        for each in self._takes:
            each(piece)
        self._lines += piece.count(b"\n")
        self._last = piece
        if self._progress.due():
            self._progress.say(f"{self.codes:,} of {self._expected:,} codes")

    @property
    def codes(self) -> int:
        """Lines without the header."""
        return max(0, self._lines - 1)

    def finish(self) -> None:
        """All of it was there; `Unavailable` if it cannot have been."""
        if not self._last.endswith(b"\n"):
            raise Unavailable("The service stopped in the middle of a line; export the batch again.")


class Cards:
    """Turns the codes' CSV, fed in pieces, into a sheet of cards; `note` stands where a code has none of its own."""

    def __init__(self, sheet: Sheet, note: str | None, write: Take) -> None:
        self._sheet = sheet
        self._note = note
        self._write = write
        self._tail = b""
        self._header: list[str] | None = None
        write(sheet.begin().encode())

    def take(self, piece: bytes) -> None:
        """The next piece of the CSV; a line that is not complete waits for the rest. Notes hold no line breaks."""
        lines, newline, self._tail = (self._tail + piece).rpartition(b"\n")
        for row in csv.reader(lines.decode().split("\n")) if newline else ():
            if self._header is None:
                self._header = self._known(row)
            else:
                self._write(self._sheet.add(self._card(row)).encode())

    def _known(self, header: list[str]) -> list[str]:
        if header not in (BEARER, BOUND):
            raise Unavailable("The service sent codes in a form that is not known here; are both of one version?")
        return header

    def _card(self, row: list[str]) -> Card:
        match row:
            case [code] if self._header == BEARER:
                return Card(code, None, self._note)
            case [code, member, note] if self._header == BOUND:
                return Card(code, member, note or self._note)
        raise Unavailable("The service sent a line that does not fit its header; export the batch again.")

    def finish(self) -> None:
        """End the sheet."""
        self._write(self._sheet.end().encode())
