"""The check symbol: a weighted sum over GF(32) that finds a typo without a key. The package tells the mathematics."""

from collections.abc import Iterable
from typing import Final

from fcodes.alphabet import SYMBOL_BITS, SYMBOLS

POLYNOMIAL: Final = 0b100101
"""x^5 + x^2 + 1: primitive, so that x generates all 31 elements other than zero."""


def times_generator(value: int) -> int:
    """Multiply an element of GF(32) by the generator x."""
    value <<= 1
    return value ^ POLYNOMIAL if value >> SYMBOL_BITS else value


def check_symbol(symbols: Iterable[int]) -> int:
    """The symbol that completes these nineteen, by Horner's rule: the definition, one step a symbol."""
    total = 0
    for symbol in symbols:
        total = times_generator(total ^ symbol)
    return total


def _masks() -> tuple[int, ...]:
    """Which of a code's 100 bits each bit of the sum depends on: multiplying by a constant is linear over GF(2)."""
    masks = [0] * SYMBOL_BITS
    weight = 1
    for place in range(SYMBOLS):  # 0 is the check symbol, the lowest
        product = weight
        for bit in range(SYMBOL_BITS):
            for row in range(SYMBOL_BITS):
                masks[row] |= (product >> row & 1) << (SYMBOL_BITS * place + bit)
            product = times_generator(product)
        weight = times_generator(weight)
    return tuple(masks)


_M0, _M1, _M2, _M3, _M4 = _masks()


def weighted_sum(word: int) -> int:
    """The weighted sum of the twenty symbols of a word of 100 bits: 0 if it is well formed.

    Of a word whose check symbol is still 0, it is the check symbol. Five parities do the work of twenty steps.
    """
    return (
        (word & _M0).bit_count() & 1
        | ((word & _M1).bit_count() & 1) << 1
        | ((word & _M2).bit_count() & 1) << 2
        | ((word & _M3).bit_count() & 1) << 3
        | ((word & _M4).bit_count() & 1) << 4
    )
