"""A code and its text, without keys: what is well formed, what is a typo, and why."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, assert_never
from unicodedata import normalize

from fcodes.alphabet import SYMBOLS, UNKNOWN, digits_of, grouped, without_separators
from fcodes.check import weighted_sum

BATCH_MAX: Final = 2**20 - 1
SERIAL_MAX: Final = 2**22 - 1
VERSION_MAX: Final = 2**3 - 1
MAC_MAX: Final = 2**50 - 1
CODES_PER_BATCH_MAX: Final = SERIAL_MAX + 1
TEXT_MAX_CHARS: Final = 64
"""Longer text is not looked into."""

VERSION_SHIFT: Final = 55
SERIAL_SHIFT: Final = 58
BATCH_SHIFT: Final = 80
MAC_SHIFT: Final = 5


@dataclass(frozen=True, slots=True)
class Code:
    """What a well-formed code says. Only `verify` tells whether we made it; its repr never shows the MAC."""

    batch: int
    serial: int
    version: int
    mac: int = field(repr=False)

    @property
    def number(self) -> int:
        """Batch and serial as one number of 42 bits: names the code among all codes, and tells nobody the code."""
        return self.batch << 22 | self.serial


class Slip(StrEnum):
    """How text fails to be a code, in order of precedence. The words are part of the format."""

    TOO_LONG = "too_long"
    EMPTY = "empty"
    SYMBOL = "symbol"
    LENGTH = "length"
    CHECK = "check"


@dataclass(frozen=True, slots=True)
class Typo:
    """The text is no code, which anybody can see without a key. It holds nothing of the text itself.

    `symbols` is how many symbols were read; `at` the place of the first that no code has, counted from 1.
    """

    slip: Slip
    symbols: int = 0
    at: int = 0

    @property
    def detail(self) -> str:
        """What is wrong and what to look at, for the person who typed."""
        match self.slip:
            case Slip.TOO_LONG:
                return f"This is longer than {TEXT_MAX_CHARS} characters; a code has {SYMBOLS} letters and digits."
            case Slip.EMPTY:
                return f"There is no code here; a code has {SYMBOLS} letters and digits."
            case Slip.SYMBOL:
                return (
                    f"Character {self.at}, not counting spaces and dashes, occurs in no code: "
                    "codes use the digits and the letters A to Z without I, L, O and U."
                )
            case Slip.LENGTH:
                return f"A code has {SYMBOLS} letters and digits; this has {self.symbols}."
            case Slip.CHECK:
                return "At least one letter or digit is mistyped, or two have changed places."
        assert_never(self.slip)


_TOO_LONG: Final = Typo(Slip.TOO_LONG)
_EMPTY: Final = Typo(Slip.EMPTY)
_CHECK: Final = Typo(Slip.CHECK, SYMBOLS)


def parse(text: str) -> Code | Typo:
    """Read a code as people type it; a typo is told without a key."""
    if len(text) > TEXT_MAX_CHARS:
        return _TOO_LONG
    if not text.isascii():
        text = normalize("NFKC", text)
        if len(text) > TEXT_MAX_CHARS:
            return _TOO_LONG
        text = without_separators(text)
    digits = digits_of(text)
    try:
        word = int(digits, 32)
    except ValueError:
        return Typo(Slip.SYMBOL, len(digits), digits.index(UNKNOWN) + 1) if digits else _EMPTY
    if len(digits) != SYMBOLS:
        return Typo(Slip.LENGTH, len(digits))
    if weighted_sum(word):
        return _CHECK
    return Code(
        word >> BATCH_SHIFT,
        word >> SERIAL_SHIFT & SERIAL_MAX,
        word >> VERSION_SHIFT & VERSION_MAX,
        word >> MAC_SHIFT & MAC_MAX,
    )


def spell(code: Code) -> str:
    """The canonical text of a code. A field out of range is a ValueError."""
    require(code.batch, BATCH_MAX, "batch")
    require(code.serial, SERIAL_MAX, "serial")
    require(code.version, VERSION_MAX, "version")
    require(code.mac, MAC_MAX, "MAC")
    word = (
        code.batch << BATCH_SHIFT | code.serial << SERIAL_SHIFT | code.version << VERSION_SHIFT | code.mac << MAC_SHIFT
    )
    return grouped(word | weighted_sum(word))


def require(value: int, at_most: int, name: str) -> None:
    """Raise a ValueError unless 0 ≤ `value` ≤ `at_most`. The value is not told: it may be part of a code."""
    if not 0 <= value <= at_most:
        raise ValueError(f"The {name} of a code is a whole number from 0 to {at_most}.")
