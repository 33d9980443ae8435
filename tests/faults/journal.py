"""The shoppers' journal: one line of JSON for each answer, or missing answer, that a shopper, operator or shop had."""

from pathlib import Path
from typing import Literal

import msgspec

CallName = Literal[
    "reserve", "confirm", "cancel", "get", "pause", "resume", "close", "resize", "revoke", "delivery"
]  # fmt: skip
LOST = 0
"""The status of an answer that never came: the connection broke, or it took too long. The effect is unknown."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked and what was heard. Times are Unix seconds by this machine's clock; absent is null."""

    call: CallName
    drop: str | None = None
    sent_at: float
    heard_at: float | None = None
    member: int | None = None
    actor: str | None = None
    key: str | None = None
    allocation: str | None = None
    quantity: int | None = None
    fcode: int | None = None
    status: int
    code: str | None = None
    reservation: str | None = None
    state: str | None = None
    answered_in: str | None = msgspec.field(name="in", default=None)
    expires_at: float | None = None
    order: str | None = None
    event: str | None = None


class Journal:
    """Writes lines as they come, and remembers them for who wants to look back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[Line] = []
        self._file = path.open("ab", buffering=1 << 16)
        self._encode = msgspec.json.Encoder().encode

    def write(self, line: Line) -> None:
        """One line more."""
        self.lines.append(line)
        self._file.write(self._encode(line) + b"\n")

    def flush(self) -> None:
        """Whatever was written can be read by others."""
        self._file.flush()

    def close(self) -> None:
        """No more lines come."""
        self._file.close()
