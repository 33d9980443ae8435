"""The journal: what shoppers, operators and the shop asked and heard, one JSON object a line.

    {"call": "reserve", "drop": "phone", "sent_at": 1700000000.1, "heard_at": 1700000000.2, "member": 4711,
     "key": "k", "allocation": "public", "quantity": 1, "status": 201, "reservation": "…", "state": "held",
     "in": "public", "expires_at": 1700000900.1}

`call` is reserve, confirm, cancel, get, pause, resume, close, resize, revoke, or delivery (written by the shop: what
it received under which order's id, and how it answered). Times are Unix seconds by whoever writes; `status` 0 says
that no answer came, so that its effect is unknown; what is absent or null does not apply. It must hold everything that
the members in it asked.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from flashsale.audit.report import BadJournal

PIECE_BYTES: Final = 1 << 20


class Line(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One answer, or a missing one."""

    call: str
    status: int
    sent_at: float | None = None
    heard_at: float | None = None
    drop: str | None = None
    member: int | None = None
    actor: str | None = None
    key: str | None = None
    allocation: str | None = None
    quantity: int | None = None
    fcode: int | str | None = None
    code: str | None = None
    reservation: str | None = None
    state: str | None = None
    answered_in: str | None = msgspec.field(name="in", default=None)
    expires_at: float | None = None
    order: str | None = None
    event: str | None = None

    @property
    def may_have_happened(self) -> bool:
        """Whether it had its effect, or nobody can tell."""
        return self.status < 300 or self.status >= 500  # noqa: PLR2004 -- a refusal has none


_decoder: Final = msgspec.json.Decoder(Line)
_lines: Final = msgspec.json.Decoder(Line).decode_lines


def read(path: Path) -> Iterator[Line]:
    """All lines of a file, a piece at a time. Errors: `BadJournal` naming the line."""
    try:
        with path.open("rb") as file:
            yield from _read(file, path)
    except OSError as error:
        raise BadJournal(f"The journal {path} cannot be read: {error.strerror or error}.") from None


def _read(file: BinaryIO, path: Path) -> Iterator[Line]:
    number, rest = 0, b""
    while piece := file.read(PIECE_BYTES):
        whole, newline, tail = piece.rpartition(b"\n")
        if not newline:
            rest += piece
            continue
        yield from _decoded(rest + whole, path, number)
        number += (rest + whole).count(b"\n") + 1
        rest = tail
    yield from _decoded(rest, path, number)


def _decoded(text: bytes, path: Path, before: int) -> list[Line]:
    try:
        return _lines(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        for number, line in enumerate(text.split(b"\n"), before + 1):
            try:
                if line.strip():
                    _decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise BadJournal(f"The journal {path} has no line of a journal in line {number}: {error}.") from None
        raise
