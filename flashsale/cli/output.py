"""What commands write: results on standard output, remarks on standard error."""

import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec

_encode: Final = msgspec.json.Encoder().encode


def document(value: object) -> None:
    """One JSON document on one line of standard output."""
    line(_encode(value).decode())


def line(text: str) -> None:
    """One line of standard output, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """One remark on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Aligned columns, numbers to the right; an absent value is a dash."""
    texts = [[_text(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *texts, strict=True)]
    right = [any(isinstance(row[at], int) for row in rows) for at in range(len(header))]
    for row in (header, *texts):
        cells = zip(row, widths, right, strict=True)
        line(
            "  ".join(
                text.rjust(width) if is_number else text.ljust(width) for text, width, is_number in cells
            ).rstrip()
        )


def _text(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)
