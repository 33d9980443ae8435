"""F-codes as their format is published: what number one has, and forgeries that only the key tells from genuine ones.

The service's library is not used: a customer, or a forger, writes this from the description of the format.
"""

from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
SYMBOLS: Final = 20
NUMBER_SHIFT: Final = 58
"""Of the hundred bits of a code, those above are its number (batch and serial)."""
POLYNOMIAL: Final = 0b100101
"""x^5 + x^2 + 1: what the check symbol is computed over."""
TYPO_EVERY: Final = 4
"""One guess in so many has a check symbol that is wrong, too."""


def number_of(code: str) -> int | None:
    """The number of a genuine code, by which the journal tells nobody the code itself; None when it is none."""
    signs = [sign for sign in code.upper() if sign in ALPHABET]
    if len(signs) != SYMBOLS:
        return None
    word = 0
    for sign in signs:
        word = word << 5 | ALPHABET.index(sign)
    return word >> NUMBER_SHIFT


def check_symbol(symbols: Sequence[int]) -> int:
    """What completes nineteen symbols to a code without a typo."""
    total = 0
    for symbol in symbols:
        total = (total ^ symbol) << 1
        total ^= POLYNOMIAL if total >> 5 else 0
    return total


def forgeries(random: Random) -> Iterator[str]:
    """Codes that nobody made, without end; most of them well formed to the check symbol."""
    while True:
        for at in range(TYPO_EVERY):
            symbols = [random.randrange(len(ALPHABET)) for _ in range(SYMBOLS - 1)]
            check = check_symbol(symbols) ^ (0 if at else 1)
            signs = "".join(ALPHABET[symbol] for symbol in (*symbols, check))
            yield "-".join(signs[at : at + 4] for at in range(0, SYMBOLS, 4))
