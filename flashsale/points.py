"""Import of a points snapshot: a CSV file, checked while it streams by, into the ledger, all or nothing.

The file is `member_id,points` and, if it likes, further columns, which are not read. Blocks of plain lines pass through
one regular expression; a block in which it does not recognise every line is read again line by line, by the `csv`
module, which either finds it right after all (quoted fields, zeros in front) or finds the line to name.
"""

import asyncio
import csv
import re
from collections.abc import AsyncIterator
from datetime import datetime
from itertools import count
from typing import Final, assert_never

import msgspec

from flashsale.domain import ID_PATTERN, MEMBER_MAX
from flashsale.errors import Refused
from flashsale.ledger.points import DuplicateMember, PointsStore, Snapshot, Taken

HEADER: Final = ("member_id", "points")
POINTS_MAX: Final = 2**63 - 1
BLOCK_MAX_BYTES: Final = 16_384
LINE_MAX_BYTES: Final = 65_536

_SHOWN_MAX_CHARS: Final = 40
_UTF8_BOM: Final = b"\xef\xbb\xbf"
_UTF16_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")


def _up_to_int64_max() -> str:
    digits = str(2**63 - 1)
    below = [
        rf"{digits[:at]}[{1 if at == 0 else 0}-{int(digit) - 1}][0-9]{{{len(digits) - at - 1}}}"
        for at, digit in enumerate(digits)
        if digit != "0"
    ]
    return "|".join([r"[1-9][0-9]{0,17}", *below, digits])


_PLAIN_LINE: Final = re.compile(
    rf'^((?:{_up_to_int64_max()}),(?:0|{_up_to_int64_max()}))(?:,[^"\n\r\x00]*)?\r?$'.encode(), re.MULTILINE
)


class Imported(msgspec.Struct, frozen=True):
    """The snapshot as stored."""

    snapshot: str
    cutoff: datetime
    members: int


async def import_points(
    store: PointsStore, chunks: AsyncIterator[bytes], *, snapshot: str, cutoff: datetime, actor: str
) -> Imported:
    """Store the file in `chunks` (pieces of any size) as a new snapshot, or nothing of it.

    Raises `Refused`: `invalid_request` with the number of the `line` that is wrong, `conflict` for a taken name.
    Memory stays flat and the event loop gets its turn after each block, whatever the size of the file.
    """
    if re.fullmatch(ID_PATTERN, snapshot) is None:
        raise Refused(
            "invalid_request",
            f"The name {_shown(snapshot)} cannot be a snapshot's: use 1 to 63 small letters, digits and hyphens, "
            "and begin with a letter or a digit.",
        )
    if cutoff.utcoffset() is None:
        raise Refused("invalid_request", "The cut-off has no zone; write it like 2011-08-16T00:00:00+08:00.")
    outcome = await store.import_snapshot(snapshot, cutoff, actor, rows_of(chunks))
    match outcome:
        case Snapshot():
            return Imported(outcome.id, outcome.cutoff, outcome.members)
        case DuplicateMember(member=member, line=line, first_line=first_line):
            raise _bad(line, f"member {member} is on line {first_line} already; keep one of the two lines")
        case Taken(under_way=True):
            raise Refused("conflict", f"The snapshot {snapshot} is being imported just now; wait for that import.")
        case Taken():
            raise Refused(
                "conflict", f"There is a snapshot {snapshot} already, and snapshots never change; use another name."
            )
        case _:
            assert_never(outcome)


async def rows_of(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Check the file in `chunks` and yield its rows `line,member,points`; others get their turn after each block."""
    parser = PointsCsv()
    async for chunk in chunks:
        for at in range(0, len(chunk), BLOCK_MAX_BYTES):
            rows = parser.feed(chunk[at : at + BLOCK_MAX_BYTES])
            if rows:
                yield rows
            await asyncio.sleep(0)
    yield parser.finish()


class PointsCsv:
    """Checks a points file fed in pieces, and turns it into lines `line,member,points` without header or quotes.

    `feed` and `finish` raise `Refused` (`invalid_request`, `line`) at the first line that is wrong. Line numbers are
    the file's own, from 1, so that an editor finds them; a record with a quoted line break has the number it begins at.
    """

    def __init__(self) -> None:
        self._tail = b""
        self._lines = 0
        self._record: list[bytes] = []
        self._record_bytes = 0
        self._in_quotes = False
        self._header_seen = False
        self._empty_line: int | None = None
        self._members = 0

    def feed(self, piece: bytes) -> bytes:
        """Take the next piece of the file and return the rows that it completes."""
        block, newline, self._tail = (self._tail + piece).rpartition(b"\n")
        if len(self._tail) > LINE_MAX_BYTES:
            raise _bad(self._lines + 1 + block.count(b"\n") + len(newline), _TOO_LONG)
        return self._rows_of(block + newline)

    def finish(self) -> bytes:
        """End the file and return the rows of its last line, if that had no line break."""
        rows = self._rows_of(self._tail + b"\n") if self._tail else b""
        if self._record:
            raise _bad(self._lines + 1 - len(self._record), _OPEN_QUOTE)
        if not self._header_seen:
            raise _bad(1, "the file is empty; begin it with the header `member_id,points`")
        if self._members == 0:
            raise _bad(2, "there is no member in the file; write one line for each, like `17,250`")
        return rows

    def _rows_of(self, block: bytes) -> bytes:
        if self._header_seen and not self._record and self._empty_line is None:
            pairs = _PLAIN_LINE.findall(block)
            if len(pairs) == block.count(b"\n") and _is_utf8(block):
                rows = b"".join(map(b"%d,%b\n".__mod__, zip(count(self._lines + 1), pairs)))
                self._lines += len(pairs)
                self._members += len(pairs)
                return rows
        return b"".join(self._rows_one_by_one(block))

    def _rows_one_by_one(self, block: bytes) -> list[bytes]:
        rows = []
        for line in block.split(b"\n")[:-1]:
            self._lines += 1
            self._record.append(line)
            self._record_bytes += len(line) + 1
            self._in_quotes ^= line.count(b'"') % 2 == 1
            first_line = self._lines + 1 - len(self._record)
            if self._record_bytes > LINE_MAX_BYTES:
                raise _bad(first_line, _OPEN_QUOTE if self._in_quotes else _TOO_LONG)
            if self._in_quotes:
                continue
            record = b"\n".join(self._record)
            self._record, self._record_bytes = [], 0
            rows.append(self._row(record, first_line))
        return rows

    def _row(self, record: bytes, line: int) -> bytes:
        if not self._header_seen:
            _check_header(record)
            self._header_seen = True
            return b""
        fields = _fields(record, line)
        if not fields:
            self._empty_line = self._empty_line or line
            return b""
        if self._empty_line is not None:
            raise _bad(self._empty_line, "the line is empty; remove it")
        if len(fields) < len(HEADER):
            raise _bad(line, f"there is no column `points`: write `member_id,points`, not {_shown(fields[0])}")
        member = _number(fields[0], line, "member id", 1, MEMBER_MAX)
        points = _number(fields[1], line, "number of points", 0, POINTS_MAX)
        self._members += 1
        return b"%d,%d,%d\n" % (line, member, points)


_TOO_LONG: Final = f"the line is longer than {LINE_MAX_BYTES} bytes; is this a CSV file with line breaks (LF or CRLF)?"
_OPEN_QUOTE: Final = 'a quotation mark (") is opened and not closed; close it, or double it to mean the sign itself'
_NOT_UTF8: Final = "the text is not UTF-8; save the file as CSV in UTF-8"


def _check_header(record: bytes) -> None:
    if record.startswith(_UTF16_BOMS):
        raise _bad(1, _NOT_UTF8)
    fields = _fields(record.removeprefix(_UTF8_BOM), 1)
    if tuple(fields[: len(HEADER)]) != HEADER:
        found = _shown(",".join(fields))
        raise _bad(1, f"the header must begin with `member_id,points`, in this order and with a comma; it is {found}")


def _fields(record: bytes, line: int) -> list[str]:
    try:
        text = record.removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise _bad(line, _NOT_UTF8) from None
    if "\0" in text:
        raise _bad(line, "there is a NUL byte; save the file as CSV in UTF-8")
    if not text:
        return []
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as error:
        raise _bad(line, f"the line is not proper CSV ({error}); correct it as RFC 4180 says") from None


def _number(text: str, line: int, name: str, least: int, most: int) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise _bad(line, f"the {name} {_shown(text)} is not a whole number; write digits only")
    significant = digits.lstrip("0")
    value = int(significant or "0") if len(significant) <= len(str(most)) else most + 1
    if text.startswith("-") or not least <= value <= most:
        raise _bad(line, f"the {name} {_shown(text)} is out of range; it is from {least} to {most}")
    return value


def _bad(line: int, what: str) -> Refused:
    return Refused("invalid_request", f"Line {line}: {what}. Nothing was imported.", line=line)


def _shown(text: str) -> str:
    return f"'{text[:_SHOWN_MAX_CHARS]}…'" if len(text) > _SHOWN_MAX_CHARS else f"'{text}'"


def _is_utf8(block: bytes) -> bool:
    if block.isascii():
        return True
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True
