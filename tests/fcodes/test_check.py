"""The check symbol finds every single wrong symbol and every two symbols that changed places, without a key."""

from itertools import combinations
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from fcodes.alphabet import ALPHABET, SYMBOLS, grouped
from fcodes.check import check_symbol, times_generator, weighted_sum
from fcodes.codec import Code, Slip, Typo, parse
from tests.fcodes import reference

CODES = 60


def put(value: int, place: int) -> int:
    """A word with one symbol at a place, 0 to 19 from the left, and zeros elsewhere."""
    return value << 5 * (SYMBOLS - 1 - place)


def some_codes() -> list[list[str]]:
    """Well-formed codes, evenly random and at the edges, each as its twenty symbols."""
    random = Random(100)
    words = [0, (1 << 100) - 32, *(random.getrandbits(95) << 5 for _ in range(CODES))]
    return [list(grouped(word | weighted_sum(word)).replace("-", "")) for word in words]


def is_caught(symbols: list[str]) -> bool:
    """Reading them says that the check symbol does not fit."""
    typo = parse("".join(symbols))
    return isinstance(typo, Typo) and typo.slip is Slip.CHECK


def test_the_generator_has_order_31_so_all_twenty_weights_are_distinct_and_none_is_zero() -> None:
    powers = [1]
    while (following := times_generator(powers[-1])) != 1:
        powers.append(following)
    assert sorted(powers) == list(range(1, 32))
    weights = [weighted_sum(put(1, place)) for place in range(SYMBOLS)]
    assert weights == list(reversed(powers[:SYMBOLS]))
    assert [reference.weight(place) for place in range(SYMBOLS)] == weights


def test_the_sum_of_one_symbol_is_the_product_with_its_weight() -> None:
    """All twenty places times all 32 values, against multiplication by long division."""
    for place in range(SYMBOLS):
        for value in range(32):
            assert weighted_sum(put(value, place)) == reference.times(reference.weight(place), value)


@given(st.integers(0, 2**100 - 1), st.integers(0, 2**100 - 1))
def test_the_sum_is_linear(one: int, other: int) -> None:
    """So what holds for each single symbol holds for every code: the other symbols cancel out."""
    assert weighted_sum(one ^ other) == weighted_sum(one) ^ weighted_sum(other)


def test_every_single_error_changes_the_sum_of_any_code() -> None:
    """By linearity the change depends on place and difference only: all 20 × 31 of them."""
    assert all(weighted_sum(put(difference, place)) for place in range(SYMBOLS) for difference in range(1, 32))


def test_every_swap_of_two_different_symbols_changes_the_sum_of_any_code() -> None:
    """By linearity the change depends on both places and the difference only: all 190 × 31 of them."""
    assert all(
        weighted_sum(put(difference, one) ^ put(difference, other))
        for one, other in combinations(range(SYMBOLS), 2)
        for difference in range(1, 32)
    )


def test_every_wrong_symbol_is_read_as_a_typo() -> None:
    """All places times all 31 other symbols, as text, for many codes; each code by itself is well formed."""
    for symbols in some_codes():
        assert isinstance(parse("".join(symbols)), Code)
        for place, right in enumerate(symbols):
            for wrong in ALPHABET.replace(right, ""):
                assert is_caught([*symbols[:place], wrong, *symbols[place + 1 :]])


def test_every_swap_is_read_as_a_typo() -> None:
    """All pairs of places, neighbours or not, wherever the symbols differ, as text, for many codes."""
    neighbours = 0
    for symbols in some_codes():
        for one, other in combinations(range(SYMBOLS), 2):
            swapped = symbols.copy()
            swapped[one], swapped[other] = symbols[other], symbols[one]
            assert is_caught(swapped) == (symbols[one] != symbols[other])
            neighbours += other == one + 1 and symbols[one] != symbols[other]
    assert neighbours > CODES * 15


@given(st.lists(st.integers(0, 31), min_size=19, max_size=19))
def test_horners_rule_completes_a_code(values: list[int]) -> None:
    """One multiplication a symbol, as a browser does it, gives the one symbol that makes the sum zero."""
    check = check_symbol(values)
    assert [each for each in range(32) if reference.weighted_sum([*values, each]) == 0] == [check]
    word = 0
    for value in values:
        word = word << 5 | value
    assert weighted_sum(word << 5) == check
