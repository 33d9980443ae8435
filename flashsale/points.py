"""Import of a points snapshot: a CSV file, checked while it streams by, into the ledger, all or nothing.

The file is `member_id,points` and, if it likes, further columns, which are not read. Blocks of plain lines pass through
one regular expression; a block in which it does not recognise every line is read again line by line (`csvfile`).
"""

import re
from collections.abc import AsyncIterator
from datetime import datetime
from itertools import count
from typing import Final, assert_never

import msgspec

from flashsale.csvfile import CsvFile, bad, is_utf8, number, rows_of, shown
from flashsale.domain import ID_PATTERN, MEMBER_MAX
from flashsale.errors import Refused
from flashsale.ledger.points import DuplicateMember, PointsStore, Snapshot, Taken

POINTS_MAX: Final = 2**63 - 1
WRONG_MAX: Final = 100


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
            f"The name {shown(snapshot)} cannot be a snapshot's: use 1 to 63 small letters, digits and hyphens, "
            "and begin with a letter or a digit.",
        )
    if cutoff.utcoffset() is None:
        raise Refused("invalid_request", "The cut-off has no zone; write it like 2011-08-16T00:00:00+08:00.")
    outcome = await store.import_snapshot(snapshot, cutoff, actor, rows_of(chunks, PointsCsv()))
    match outcome:
        case Snapshot():
            return Imported(outcome.id, outcome.cutoff, outcome.members)
        case DuplicateMember(member=member, line=line, first_line=first_line):
            raise bad(line, f"member {member} is on line {first_line} already; keep one of the two lines")
        case Taken(under_way=True):
            raise Refused("conflict", f"The snapshot {snapshot} is being imported just now; wait for that import.")
        case Taken():
            raise Refused(
                "conflict", f"There is a snapshot {snapshot} already, and snapshots never change; use another name."
            )
        case _:
            assert_never(outcome)


class Wrong(msgspec.Struct, frozen=True):
    """A line that would be refused, and why."""

    line: int
    detail: str


class Checked(msgspec.Struct, frozen=True):
    """What an import would say of a file: how many good lines it has, and the first that are wrong; `more`: not all."""

    members: int
    wrong: list[Wrong]
    more: bool


async def check_points(chunks: AsyncIterator[bytes]) -> Checked:
    """Read a points file to its end and store nothing; members who are listed twice are found by the import only.

    `Refused` when it does not even begin like a points file.
    """
    file = _Checking()
    try:
        async for _ in rows_of(chunks, file):
            pass
    except Refused as fault:
        if fault.code != "invalid_request" or not file.begun:  # too large; or it is no points file at all
            raise
        if not file.wrong or _line(fault) > file.wrong[-1].line:
            file.note(fault)
    return Checked(file.members, file.wrong[:WRONG_MAX], len(file.wrong) > WRONG_MAX)


class PointsCsv(CsvFile):
    """Turns a points file into lines `line,member,points`."""

    header = ("member_id", "points")
    example = "17,250"

    def _plain(self, block: bytes, first_line: int) -> tuple[int, bytes] | None:
        pairs = _PLAIN_LINE.findall(block)
        if len(pairs) != block.count(b"\n") or not is_utf8(block):
            return None
        return len(pairs), b"".join(map(b"%d,%b\n".__mod__, zip(count(first_line), pairs)))

    def _row(self, fields: list[str], line: int) -> bytes:
        member = number(fields[0], line, "member id", 1, MEMBER_MAX)
        points = number(fields[1], line, "number of points", 0, POINTS_MAX)
        return b"%d,%d,%d\n" % (line, member, points)


def _line(fault: Refused) -> int:
    return int(str(fault.extra["line"]))


class _Checking(PointsCsv):
    """Goes on after a line that is wrong. A header that is, and a quotation that never ends, end it."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[Wrong] = []

    @property
    def begun(self) -> bool:
        """Whether its header was there."""
        return self._header_seen

    @property
    def members(self) -> int:
        """How many lines were good."""
        return self._members

    def note(self, fault: Refused) -> None:
        """Remember a line that is wrong, without the words about its number and the import."""
        line = _line(fault)
        said = str(fault).removeprefix(f"Line {line}: ").removesuffix(" Nothing was imported.")
        if len(self.wrong) <= WRONG_MAX:
            self.wrong.append(Wrong(line, said[:1].upper() + said[1:]))

    def _one(self, record: bytes, line: int) -> bytes:
        try:
            return super()._one(record, line)
        except Refused as fault:
            if not self._header_seen:
                raise
            self.note(fault)
            if self._empty_line is not None:  # it is the empty line before that was wrong; this one has its own turn
                self._empty_line = None
                return self._one(record, line)
            return b""
