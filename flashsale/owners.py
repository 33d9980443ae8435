"""Whom the codes of a batch are bound to: CSV `member_id[,note]`, checked while it streams by."""

import csv
import io
import re
from collections.abc import AsyncIterator
from itertools import count
from typing import Final

from fcodes import CODES_PER_BATCH_MAX
from flashsale.csvfile import CsvFile, bad, number, rows_of
from flashsale.domain import MEMBER_MAX

NOTE_MAX_CHARS: Final = 1_000

_PLAIN_LINE: Final = re.compile(rb"^([1-9][0-9]{0,17})\r?$", re.MULTILINE)


def owners_of(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Check the file in `chunks` and yield `serial,member,note`, one code a line, in the file's order.

    A member who is named twice gets two codes. Raises `Refused` (`invalid_request`, `line`) where the file is wrong.
    """
    return rows_of(chunks, OwnersCsv())


class OwnersCsv(CsvFile):
    """Turns the file into lines `serial,member,note`."""

    header = ("member_id",)
    example = "17,old friend"

    def __init__(self) -> None:
        super().__init__()
        self._serial = 0

    def _plain(self, block: bytes, first_line: int) -> tuple[int, bytes] | None:
        members = _PLAIN_LINE.findall(block)
        if len(members) != block.count(b"\n"):
            return None
        self._take(len(members), first_line)
        rows = zip(count(self._serial - len(members)), members)
        return len(members), b"".join(map(b"%d,%b,\n".__mod__, rows))

    def _row(self, fields: list[str], line: int) -> bytes:
        member = number(fields[0], line, "member id", 1, MEMBER_MAX)
        note = fields[1] if len(fields) > 1 else ""
        if len(note) > NOTE_MAX_CHARS or not note.isprintable():
            raise bad(line, f"the note is not one line of at most {NOTE_MAX_CHARS} characters; shorten it")
        self._take(1, line)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow((self._serial - 1, member, note or None))
        return text.getvalue().encode()

    def _take(self, codes: int, line: int) -> None:
        self._serial += codes
        if self._serial > CODES_PER_BATCH_MAX:
            raise bad(line, f"a batch has at most {CODES_PER_BATCH_MAX} codes; make several files of this one")
