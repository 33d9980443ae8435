"""Twenty symbols of Crockford's base 32: a number of 100 bits as text, and the forgiving way back."""

from typing import Final
from unicodedata import category

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
SYMBOLS: Final = 20
SYMBOL_BITS: Final = 5
UNKNOWN: Final = b"?"
"""Stands in a row of digits for a character that no code has."""

_SEPARATOR_CATEGORIES: Final = frozenset({"Zs", "Zl", "Zp", "Cf", "Pd", "Pc"})
_SEPARATORS: Final = frozenset(
    "\t\n\v\f\r\N{MINUS SIGN}\N{HYPHEN BULLET}\N{MODIFIER LETTER MINUS SIGN}\N{KATAKANA-HIRAGANA PROLONGED SOUND MARK}"
)
_ASCII_SEPARATORS: Final = b"\t\n\v\f\r -_"


def _table() -> bytes:
    table = bytearray(UNKNOWN * 256)
    looks_like = {"O": "0", "I": "1", "L": "1"}
    for digit, symbols in zip("0123456789abcdefghijklmnopqrstuv", ALPHABET, strict=True):
        for symbol in (symbols, *(other for other, meant in looks_like.items() if meant == symbols)):
            table[ord(symbol)] = table[ord(symbol.lower())] = ord(digit)
    return bytes(table)


_DIGITS: Final = _table()
_PAIRS: Final = [first + second for first in ALPHABET for second in ALPHABET]
"""What ten bits are in text."""


def without_separators(text: str) -> str:
    """Leave out every character that only separates: the whole rule, beyond ASCII, too."""
    return "".join([each for each in text if not _separates(each)])


def digits_of(text: str) -> bytes:
    """The symbols in `text`, each as the digit (0–9, a–v) that `int(…, 32)` reads, `?` where it is no symbol.

    Case, look-alikes and the separators of ASCII are dealt with as the package describes.
    """
    return text.encode("ascii", "replace").translate(_DIGITS, _ASCII_SEPARATORS)


def grouped(word: int) -> str:
    """100 bits as `XXXX-XXXX-XXXX-XXXX-XXXX`."""
    two = _PAIRS  # spelled out, because a loop takes several times as long, and a batch has millions of codes
    return (
        f"{two[word >> 90]}{two[word >> 80 & 1023]}-{two[word >> 70 & 1023]}{two[word >> 60 & 1023]}-"
        f"{two[word >> 50 & 1023]}{two[word >> 40 & 1023]}-{two[word >> 30 & 1023]}{two[word >> 20 & 1023]}-"
        f"{two[word >> 10 & 1023]}{two[word & 1023]}"
    )


def _separates(character: str) -> bool:
    return character in _SEPARATORS or category(character) in _SEPARATOR_CATEGORIES
