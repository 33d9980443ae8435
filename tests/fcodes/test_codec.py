"""Reading and writing codes: forgiving, exact about what is wrong, and silent about the text."""

import sys
from random import Random
from unicodedata import category, normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcodes import BATCH_MAX, MAC_MAX, SERIAL_MAX, TEXT_MAX_CHARS, VERSION_MAX, Code, Slip, Typo, parse, spell
from fcodes.alphabet import ALPHABET

CODES = st.builds(
    Code,
    st.integers(0, BATCH_MAX),
    st.integers(0, SERIAL_MAX),
    st.integers(0, VERSION_MAX),
    st.integers(0, MAC_MAX),
)
LOOKS_LIKE = {"0": "0Oo", "1": "1IiLl"}
SEPARATORS = (
    " -_\t\n\r\v\f\N{EM DASH}\N{EN DASH}\N{MINUS SIGN}\N{NO-BREAK SPACE}\N{IDEOGRAPHIC SPACE}\u200b\u2028\uff0dー"
)

A_CODE = Code(batch=1056, serial=1, version=7, mac=0x0123456789ABC)
TEXT = spell(A_CODE)


@given(CODES)
def test_what_is_written_is_read_back(code: Code) -> None:
    """Every field, at every value, and as five groups of four symbols of the alphabet."""
    text = spell(code)
    assert parse(text) == code
    groups = text.split("-")
    assert [len(group) for group in groups] == [4] * 5
    assert set("".join(groups)) <= set(ALPHABET)


@pytest.mark.parametrize(
    "code",
    [Code(0, 0, 0, 0), Code(BATCH_MAX, SERIAL_MAX, VERSION_MAX, MAC_MAX)],
)
def test_the_edges_are_codes(code: Code) -> None:
    assert parse(spell(code)) == code


@pytest.mark.parametrize("field", ["batch", "serial", "version", "mac"])
@pytest.mark.parametrize("beyond", [-1, 2**50])
def test_a_field_out_of_range_cannot_be_written(field: str, beyond: int) -> None:
    fields = {"batch": 1, "serial": 1, "version": 1, "mac": 1, field: beyond}
    with pytest.raises(ValueError, match=r"is a whole number from 0 to \d+\.$"):
        spell(Code(**fields))


@given(CODES, st.randoms(use_true_random=False))
def test_forgiving_reading_is_canonical_reading(code: Code, random: Random) -> None:
    """Case, look-alikes, full-width forms and separators, in any mixture and anywhere, change nothing."""
    typed = []
    for symbol in spell(code).replace("-", ""):
        shown = random.choice(LOOKS_LIKE.get(symbol, symbol + symbol.lower()))
        typed.append(random.choice([shown, shown, chr(ord(shown) + 0xFEE0)]))
        typed.append("".join(random.choices(SEPARATORS, k=random.choice([0, 0, 1, 2]))))
    text = "".join(typed)
    assert len(text) <= TEXT_MAX_CHARS
    assert parse(text) == code


def test_every_space_dash_and_invisible_character_of_unicode_separates() -> None:
    """And of all other characters, none does."""
    also = "\t\n\v\f\r\N{MINUS SIGN}\N{HYPHEN BULLET}\N{MODIFIER LETTER MINUS SIGN}ー"
    rest = TEXT.replace("-", "")

    def separates(character: str) -> bool:
        return all(
            category(each) in {"Zs", "Zl", "Zp", "Cf", "Pd", "Pc"} or each in also
            for each in normalize("NFKC", character)
        )

    found = [chr(point) for point in range(sys.maxunicode + 1) if separates(chr(point))]
    assert {"\u00a0", "\u200b", "\u2010", "\u2014", "\u3000", "\ufeff", "\uff0d", "\uff3f", "\ufe58"} <= set(found)
    assert [each for each in found if parse(rest[:3] + each + rest[3:]) != A_CODE] == []
    others = [chr(point) for point in range(0x3400) if not separates(chr(point))]
    assert [each for each in others if parse(rest[:3] + each + rest[3:]) == A_CODE] == []


def test_of_all_characters_only_forms_of_a_symbol_are_read_as_it() -> None:
    """Full-width and other compatibility forms are; letters that merely look similar are not guessed at."""
    rest = TEXT.replace("-", "")[1:]
    assert TEXT[0] == "0"
    planes = (range(0x3400), range(0xF900, 0x10000), range(0x1D400, 0x1D800), range(0x1F100, 0x1FC00))
    zeros = [chr(point) for plane in planes for point in plane if parse(chr(point) + rest) == A_CODE]
    assert {normalize("NFKC", each) for each in zeros} == {"0", "O", "o"}
    assert {
        "\N{FULLWIDTH DIGIT ZERO}",
        "\N{FULLWIDTH LATIN CAPITAL LETTER O}",
        "\N{FULLWIDTH LATIN SMALL LETTER O}",
    } <= set(zeros)


@pytest.mark.parametrize(
    ("text", "typo"),
    [
        ("", Typo(Slip.EMPTY)),
        (" \t-—　_", Typo(Slip.EMPTY)),
        (TEXT + " " * (TEXT_MAX_CHARS + 1 - len(TEXT)), Typo(Slip.TOO_LONG)),
        ("0" * 10_000, Typo(Slip.TOO_LONG)),
        ("0" * 10_000_000, Typo(Slip.TOO_LONG)),
        ("ﷺ" * TEXT_MAX_CHARS, Typo(Slip.TOO_LONG)),
        (TEXT[:-1], Typo(Slip.LENGTH, 19)),
        (TEXT + "0", Typo(Slip.LENGTH, 21)),
        ("0" * TEXT_MAX_CHARS, Typo(Slip.LENGTH, TEXT_MAX_CHARS)),
        ("7", Typo(Slip.LENGTH, 1)),
        (TEXT[:-1] + "u", Typo(Slip.SYMBOL, 20, 20)),
        ("U" + TEXT[:-1], Typo(Slip.SYMBOL, 20, 1)),
        ("А" + TEXT[1:], Typo(Slip.SYMBOL, 20, 1)),  # noqa: RUF001 — a Cyrillic letter
        ("ß" + TEXT[1:], Typo(Slip.SYMBOL, 20, 1)),
        ("\x00" + TEXT, Typo(Slip.SYMBOL, 21, 1)),
        ("\ud800" + TEXT, Typo(Slip.SYMBOL, 21, 1)),
        ("0x" + TEXT[2:-2] + "+1", Typo(Slip.SYMBOL, 20, 19)),
        ("?", Typo(Slip.SYMBOL, 1, 1)),
        ("小米", Typo(Slip.SYMBOL, 2, 1)),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_what_is_wrong_is_told_by_the_first_that_applies(text: str, typo: Typo) -> None:
    assert parse(text) == typo


@pytest.mark.parametrize(
    ("typo", "detail"),
    [
        (Typo(Slip.EMPTY), "There is no code here; a code has 20 letters and digits."),
        (Typo(Slip.TOO_LONG), "This is longer than 64 characters; a code has 20 letters and digits."),
        (Typo(Slip.LENGTH, 19), "A code has 20 letters and digits; this has 19."),
        (
            Typo(Slip.SYMBOL, 20, 7),
            (
                "Character 7, not counting spaces and dashes, occurs in no code: "
                "codes use the digits and the letters A to Z without I, L, O and U."
            ),
        ),
        (Typo(Slip.CHECK, 20), "At least one letter or digit is mistyped, or two have changed places."),
    ],
)
def test_a_typo_says_what_to_look_at(typo: Typo, detail: str) -> None:
    assert typo.detail == detail


def test_every_slip_has_its_sentence() -> None:
    assert len({Typo(slip).detail for slip in Slip}) == len(Slip)


@given(st.text(max_size=80))
def test_whatever_is_typed_is_a_code_or_a_typo(text: str) -> None:
    """And a code that was read is the same after writing and reading again."""
    read = parse(text)
    match read:
        case Code():
            assert parse(spell(read)) == read
        case Typo():
            assert read.detail.endswith(".")


@given(CODES)
def test_nothing_shown_of_a_code_tells_it(code: Code) -> None:
    """Neither the repr of a code nor that of a typo holds the MAC, as a number or as symbols."""
    text = spell(code)
    assert repr(code) == f"Code(batch={code.batch}, serial={code.serial}, version={code.version})"
    typo = parse(text[:-1])
    assert repr(typo) == "Typo(slip=<Slip.LENGTH: 'length'>, symbols=19, at=0)"


def test_the_number_names_a_code_in_42_bits() -> None:
    """Different batch or serial, different number; the largest fits Postgres's bigint."""
    numbers = [Code(batch, serial, 0, 0).number for batch in (0, 1, BATCH_MAX) for serial in (0, 1, SERIAL_MAX)]
    assert len(set(numbers)) == len(numbers)
    assert max(numbers) == 2**42 - 1
    assert Code(3, 5, 0, 9).number == Code(3, 5, 7, 0).number == 3 * 2**22 + 5
