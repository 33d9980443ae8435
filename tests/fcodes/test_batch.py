"""Minting: any number of codes, the same ones each time, in flat memory."""

import hashlib
import tracemalloc
from collections import deque
from itertools import islice

import pytest

from fcodes import BATCH_MAX, CODES_PER_BATCH_MAX, SERIAL_MAX, Code, Keys, mint, read

KEYS = Keys({version: hashlib.sha256(bytes([version])).digest() for version in (0, 3)})


def test_codes_come_in_the_order_of_their_serials_under_the_newest_key() -> None:
    serials = range(1_000)
    codes = [read(text, KEYS) for text in mint(KEYS, 7, serials)]
    assert [(code.batch, code.serial, code.version) for code in codes if isinstance(code, Code)] == [
        (7, serial, 3) for serial in serials
    ]


@pytest.mark.parametrize("serials", [range(0), range(5, 5), range(SERIAL_MAX, SERIAL_MAX + 1), range(9, 0, -2)])
def test_any_range_will_do(serials: range) -> None:
    """None, the last one, every second one backwards."""
    codes = [read(text, KEYS) for text in mint(KEYS, BATCH_MAX, serials)]
    assert [code.serial for code in codes if isinstance(code, Code)] == [*serials]


def test_a_batch_can_be_minted_again_in_parts_and_under_its_own_version() -> None:
    once = [*mint(KEYS, 7, range(100), version=0)]
    assert [*mint(KEYS, 7, range(60), version=0), *mint(KEYS, 7, range(60, 100), version=0)] == once
    assert set(once).isdisjoint(mint(KEYS, 7, range(100)))
    assert set(once).isdisjoint(mint(KEYS, 8, range(100), version=0))


@pytest.mark.parametrize(
    ("batch", "serials", "version", "sentence"),
    [
        (-1, range(1), None, "batch of a code"),
        (BATCH_MAX + 1, range(1), None, "batch of a code"),
        (7, range(-1, 5), None, "serial of a code"),
        (7, range(SERIAL_MAX + 2), None, "serial of a code"),
        (7, range(5, -2, -1), None, "serial of a code"),
        (7, range(1), 1, "no key of version 1"),
        (7, range(1), 8, "no key of version 8"),
    ],
)
def test_what_cannot_be_minted_is_said_before_the_first_code(
    batch: int, serials: range, version: int | None, sentence: str
) -> None:
    """The call itself refuses, not the first step of its iterator."""
    with pytest.raises(ValueError, match=sentence):
        mint(KEYS, batch, serials, version=version)


def test_memory_stays_flat() -> None:
    """A full batch is asked for; after 20,000 of its 4 million codes no more is held than after 20."""
    tracemalloc.start()
    try:
        codes = mint(KEYS, 7, range(CODES_PER_BATCH_MAX))
        deque(islice(codes, 20), maxlen=0)
        few_bytes, _ = tracemalloc.get_traced_memory()
        deque(islice(codes, 20_000), maxlen=0)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert few_bytes < 20_000
    assert peak_bytes < 20_000
