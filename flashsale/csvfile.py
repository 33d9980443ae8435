"""Reading CSV files that people send: checked while they stream by; what is wrong is told by its line.

Blocks of plain lines go to `_plain`, which may take them whole; others are read one by one by the `csv` module.
"""

import asyncio
import csv
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Final

from flashsale.errors import Refused

BLOCK_MAX_BYTES: Final = 16_384
LINE_MAX_BYTES: Final = 65_536

_SHOWN_MAX_CHARS: Final = 40
_UTF8_BOM: Final = b"\xef\xbb\xbf"
_UTF16_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")


async def rows_of(chunks: AsyncIterator[bytes], parser: "CsvFile") -> AsyncIterator[bytes]:
    """Check the file in `chunks` and yield the rows that `parser` makes; others get their turn after each block."""
    async for chunk in chunks:
        for at in range(0, len(chunk), BLOCK_MAX_BYTES):
            rows = parser.feed(chunk[at : at + BLOCK_MAX_BYTES])
            if rows:
                yield rows
            await asyncio.sleep(0)
    yield parser.finish()


class CsvFile(ABC):
    """Checks a file fed in pieces, and turns it into rows without header.

    `feed` and `finish` raise `Refused` (`invalid_request`, `line`) at the first line that is wrong. Line numbers are
    the file's own, from 1, so that an editor finds them; a record with a quoted line break has the number it begins at.
    `header` are the columns that it must begin with, `example` a good line.
    """

    header: tuple[str, ...]
    example: str

    def __init__(self) -> None:
        self._tail = b""
        self._lines = 0
        self._record: list[bytes] = []
        self._record_bytes = 0
        self._in_quotes = False
        self._header_seen = False
        self._empty_line: int | None = None
        self._members = 0

    @abstractmethod
    def _plain(self, block: bytes, first_line: int) -> tuple[int, bytes] | None:
        """How many rows a block of lines has and what they become, if all of them are plain; None otherwise."""

    @abstractmethod
    def _row(self, fields: list[str], line: int) -> bytes:
        """What one record becomes; `Refused` when it is wrong."""

    def feed(self, piece: bytes) -> bytes:
        """Take the next piece of the file and return the rows that it completes."""
        block, newline, self._tail = (self._tail + piece).rpartition(b"\n")
        if len(self._tail) > LINE_MAX_BYTES:
            raise bad(self._lines + 1 + block.count(b"\n") + len(newline), _TOO_LONG)
        return self._rows_of(block + newline)

    def finish(self) -> bytes:
        """End the file and return the rows of its last line, if that had no line break."""
        rows = self._rows_of(self._tail + b"\n") if self._tail else b""
        if self._record:
            raise bad(self._lines + 1 - len(self._record), _OPEN_QUOTE)
        if not self._header_seen:
            raise bad(1, f"the file is empty; begin it with the header `{','.join(self.header)}`")
        if self._members == 0:
            raise bad(2, f"there is no member in the file; write one line for each, like `{self.example}`")
        return rows

    def _rows_of(self, block: bytes) -> bytes:
        if self._header_seen and not self._record and self._empty_line is None:
            found = self._plain(block, self._lines + 1)
            if found is not None:
                count, rows = found
                self._lines += count
                self._members += count
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
                raise bad(first_line, _OPEN_QUOTE if self._in_quotes else _TOO_LONG)
            if self._in_quotes:
                continue
            record = b"\n".join(self._record)
            self._record, self._record_bytes = [], 0
            rows.append(self._one(record, first_line))
        return rows

    def _one(self, record: bytes, line: int) -> bytes:
        if not self._header_seen:
            self._check_header(record)
            self._header_seen = True
            return b""
        fields = _fields(record, line)
        if not fields:
            self._empty_line = self._empty_line or line
            return b""
        if self._empty_line is not None:
            raise bad(self._empty_line, "the line is empty; remove it")
        if len(fields) < len(self.header):
            missing, wanted = self.header[len(fields)], ",".join(self.header)
            raise bad(line, f"there is no column `{missing}`: write `{wanted}`, not {shown(fields[0])}")
        row = self._row(fields, line)
        self._members += 1
        return row

    def _check_header(self, record: bytes) -> None:
        if record.startswith(_UTF16_BOMS):
            raise bad(1, _NOT_UTF8)
        fields = _fields(record.removeprefix(_UTF8_BOM), 1)
        if tuple(fields[: len(self.header)]) != self.header:
            wanted, found = ",".join(self.header), shown(",".join(fields))
            raise bad(1, f"the header must begin with `{wanted}`, in this order and with a comma; it is {found}")


_TOO_LONG: Final = f"the line is longer than {LINE_MAX_BYTES} bytes; is this a CSV file with line breaks (LF or CRLF)?"
_OPEN_QUOTE: Final = 'a quotation mark (") is opened and not closed; close it, or double it to mean the sign itself'
_NOT_UTF8: Final = "the text is not UTF-8; save the file as CSV in UTF-8"


def _fields(record: bytes, line: int) -> list[str]:
    try:
        text = record.removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise bad(line, _NOT_UTF8) from None
    if "\0" in text:
        raise bad(line, "there is a NUL byte; save the file as CSV in UTF-8")
    if not text:
        return []
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as error:
        raise bad(line, f"the line is not proper CSV ({error}); correct it as RFC 4180 says") from None


def number(text: str, line: int, name: str, least: int, most: int) -> int:
    """A whole number in range; `Refused` with the line otherwise."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise bad(line, f"the {name} {shown(text)} is not a whole number; write digits only")
    significant = digits.lstrip("0")
    value = int(significant or "0") if len(significant) <= len(str(most)) else most + 1
    if text.startswith("-") or not least <= value <= most:
        raise bad(line, f"the {name} {shown(text)} is out of range; it is from {least} to {most}")
    return value


def bad(line: int, what: str) -> Refused:
    """That line is wrong."""
    return Refused("invalid_request", f"Line {line}: {what}. Nothing was imported.", line=line)


def shown(text: str) -> str:
    """What somebody wrote, cut to length."""
    return f"'{text[:_SHOWN_MAX_CHARS]}…'" if len(text) > _SHOWN_MAX_CHARS else f"'{text}'"


def is_utf8(block: bytes) -> bool:
    """Whether the bytes are text."""
    if block.isascii():
        return True
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True
