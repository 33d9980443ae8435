"""Three outcomes: genuine, a typo, not ours."""

import ast
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fcodes import (
    BATCH_MAX,
    CODES_PER_BATCH_MAX,
    MAC_MAX,
    SERIAL_MAX,
    VERSION_MAX,
    Code,
    Keys,
    NotOurs,
    Typo,
    mint,
    parse,
    read,
    spell,
    verify,
)
from fcodes.alphabet import ALPHABET
from fcodes.keys import BATCH_KEYS_MAX
from tests.fcodes import reference

MASTERS = {version: hashlib.sha256(bytes([version])).digest() for version in range(3)}
KEYS = Keys(MASTERS)
BATCHES = st.integers(0, BATCH_MAX)
SERIALS = st.integers(0, SERIAL_MAX)
VERSIONS = st.sampled_from(list(MASTERS))
CODES = st.builds(Code, BATCHES, SERIALS, st.integers(0, VERSION_MAX), st.integers(0, MAC_MAX))


def minted(batch: int, serial: int, version: int, keys: Keys = KEYS) -> str:
    """One code."""
    [code] = mint(keys, batch, range(serial, serial + 1), version=version)
    return code


def genuine(batch: int, serial: int, version: int) -> Code:
    """One code, read."""
    code = read(minted(batch, serial, version), KEYS)
    assert isinstance(code, Code)
    return code


@given(BATCHES, SERIALS, VERSIONS)
def test_a_minted_code_is_genuine_and_says_what_it_was_minted_for(batch: int, serial: int, version: int) -> None:
    """And it is the code that the specification, read by somebody else, makes."""
    code = genuine(batch, serial, version)
    assert (code.batch, code.serial, code.version) == (batch, serial, version)
    assert spell(code) == reference.code(MASTERS[version], version, batch, serial)


@given(BATCHES, SERIALS, VERSIONS, st.data())
def test_no_altered_symbols_are_genuine(batch: int, serial: int, version: int, data: st.DataObject) -> None:
    """One to twenty symbols changed at will: a typo or not ours, never a code; a single one always a typo."""
    symbols = list(minted(batch, serial, version).replace("-", ""))
    places = data.draw(st.sets(st.integers(0, 19), min_size=1, max_size=20))
    for place in places:
        symbols[place] = data.draw(st.sampled_from(ALPHABET.replace(symbols[place], "")))
    assert isinstance(read("".join(symbols), KEYS), Typo if len(places) == 1 else Typo | NotOurs)


@given(BATCHES, SERIALS, VERSIONS, CODES)
def test_a_code_with_any_field_altered_is_not_ours(batch: int, serial: int, version: int, other: Code) -> None:
    """Whoever has one genuine code, or all of a batch, cannot make another out of it, right check symbol and all."""
    code = genuine(batch, serial, version)
    for altered in (
        replace(code, batch=other.batch),
        replace(code, serial=other.serial),
        replace(code, version=other.version),
        replace(code, mac=other.mac),
        other,
    ):
        if altered != code:
            assert read(spell(altered), KEYS) == NotOurs(altered)


@pytest.mark.parametrize("bit", range(50))
def test_every_bit_of_the_mac_counts(bit: int) -> None:
    code = genuine(7, 42, 1)
    assert verify(code, KEYS)
    assert not verify(replace(code, mac=code.mac ^ 1 << bit), KEYS)


def test_a_typo_needs_no_key() -> None:
    """It is told the same whatever the keys, also of a version that nobody has."""
    text = minted(7, 42, 1)
    assert read(text[:-1], KEYS) == read(text[:-1], Keys({7: MASTERS[0]})) == parse(text[:-1])
    assert isinstance(parse(text[:-1]), Typo)


def test_rotation() -> None:
    """Old codes keep working while new ones use the newest key; a key that is removed ends its codes."""
    before, both, after = Keys({0: MASTERS[0]}), Keys({0: MASTERS[0], 1: MASTERS[1]}), Keys({1: MASTERS[1]})
    [old] = mint(before, 7, range(42, 43))
    [new] = mint(both, 8, range(42, 43))
    assert [isinstance(read(old, keys), Code) for keys in (before, both, after)] == [True, True, False]
    assert [isinstance(read(new, keys), Code) for keys in (before, both, after)] == [False, True, True]
    assert isinstance(read(old, after), NotOurs)
    assert [*mint(both, 7, range(42, 43), version=0)] == [old]


def test_the_version_is_bound_into_the_key() -> None:
    """The same master key under another number makes other codes: a code cannot be moved to a number."""
    text = minted(7, 42, 0)
    moved = Keys({3: MASTERS[0]})
    code = parse(text)
    assert isinstance(code, Code)
    assert not verify(replace(code, version=3), moved)


@given(st.binary(min_size=32, max_size=32).filter(lambda key: len(set(key)) >= 8))
def test_another_shops_code_is_not_ours(master: bytes) -> None:
    assume(master not in MASTERS.values())
    assert isinstance(read(minted(7, 42, 0, Keys({0: master})), KEYS), NotOurs)


def test_keys_of_batches_are_kept_within_a_bound_and_a_kept_key_is_the_right_one() -> None:
    """More batches than are kept, each asked for twice: every code stays genuine."""
    keys = Keys(MASTERS)
    texts = [minted(batch, 1, batch % 3, keys) for batch in range(BATCH_KEYS_MAX + 50)]
    for _ in range(2):
        assert all(isinstance(read(text, keys), Code) for text in texts)
    assert keys.batch_key.cache_info().currsize == BATCH_KEYS_MAX
    last = [read(texts[-1], keys) for _ in range(10)]
    assert keys.batch_key.cache_info().hits >= len(last)


def test_a_mac_is_compared_in_constant_time_only() -> None:
    """In the module that judges, no `==`, `!=` or `in` stands at all: what tells a MAC right is `compare_digest`."""
    tree = ast.parse((Path(__file__).parents[2] / "fcodes" / "verify.py").read_text(encoding="utf-8"))
    compared = [op for node in ast.walk(tree) if isinstance(node, ast.Compare) for op in node.ops]
    assert [op for op in compared if not isinstance(op, ast.Is | ast.IsNot)] == []
    [function] = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "verify"]
    returned = {ast.unparse(node).split("(")[0] for node in ast.walk(function) if isinstance(node, ast.Return)}
    assert returned == {"return False", "return compare_digest"}


def test_a_batch_holds_four_million_codes() -> None:
    assert CODES_PER_BATCH_MAX == 4_194_304
    assert isinstance(read(minted(7, SERIAL_MAX, 0), KEYS), Code)
