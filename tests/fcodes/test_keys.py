"""Master keys: their text, their versions, and how little they tell."""

import hashlib
import hmac
import re

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from fcodes import KEY_BYTES, BadKeys, Keys, new_master
from fcodes.mac import Mac, hkdf_expand, hkdf_extract
from tests.fcodes import reference

ZERO, ONE, TWO = (hashlib.sha256(bytes([n])).digest() for n in range(3))
A, B, C = map(new_master, (ZERO, ONE, TWO))


@pytest.mark.parametrize(
    ("secret", "salt", "info", "prk", "output"),
    [
        pytest.param(
            "0b" * 22,
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
            id="A.1",
        ),
        pytest.param(
            bytes(range(0x50)).hex(),
            bytes(range(0x60, 0xB0)).hex(),
            bytes(range(0xB0, 0x100)).hex(),
            "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
            "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
            id="A.2",
        ),
        pytest.param(
            "0b" * 22,
            "",
            "",
            "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
            id="A.3",
        ),
    ],
)
def test_hkdf_has_the_vectors_of_rfc_5869(secret: str, salt: str, info: str, prk: str, output: str) -> None:
    """Appendix A.1 to A.3, those for SHA-256."""
    extracted = hkdf_extract(bytes.fromhex(salt), bytes.fromhex(secret))
    assert extracted.hex() == prk
    assert hkdf_expand(Mac(extracted), bytes.fromhex(info), len(output) // 2).hex() == output


@given(st.binary(max_size=100), st.binary(max_size=100), st.binary(max_size=40), st.integers(1, 200))
def test_hkdf_is_that_of_another_library(secret: bytes, salt: bytes, info: bytes, length_bytes: int) -> None:
    mine = hkdf_expand(Mac(hkdf_extract(salt, secret)), info, length_bytes)
    assert mine == HKDF(SHA256(), length_bytes, salt=salt, info=info).derive(secret)


@pytest.mark.parametrize("length_bytes", [0, 255 * 32 + 1])
def test_hkdf_yields_no_more_than_it_may(length_bytes: int) -> None:
    with pytest.raises(ValueError, match="yields 1 to 8160 bytes"):
        hkdf_expand(Mac(b"key"), b"", length_bytes)


@given(st.binary(max_size=200), st.lists(st.binary(max_size=200), min_size=1, max_size=3))
def test_a_mac_is_hmac_sha256_as_often_as_it_is_used(key: bytes, messages: list[bytes]) -> None:
    """Keys shorter and longer than a block; the states that are kept stay as they are."""
    mac = Mac(key)
    assert [mac.digest(each) for each in messages] == [hmac.digest(key, each, "sha256") for each in messages]


@given(st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES).filter(lambda key: len(set(key)) >= 8))
def test_a_key_is_read_back_from_its_text(entropy: bytes) -> None:
    """48 characters of which 43 are the key, and the ring that reads them makes what the key itself makes."""
    text = new_master(entropy)
    assert re.fullmatch(r"fck1_[A-Za-z0-9_-]{43}", text)
    assert text == reference.key_text(entropy)
    assert Keys.parse(text).fingerprint(0) == reference.fingerprint(entropy)


@pytest.mark.parametrize(
    ("ring", "versions", "newest"),
    [
        (A, (0,), 0),
        (f"  {A}\n", (0,), 0),
        (f"0:{A}", (0,), 0),
        (f"7:{A}", (7,), 7),
        (f"0:{A},1:{B}", (0, 1), 1),
        (f"1:{B},0:{A}", (0, 1), 1),
        (f"5:{A},\n 2:{B}\n3:{C}\n", (2, 3, 5), 5),
        (",".join(f"{n}:{new_master(hashlib.sha256(bytes([9, n])).digest())}" for n in range(8)), tuple(range(8)), 7),
    ],
)
def test_a_ring_is_read_and_its_highest_version_is_the_newest(
    ring: str, versions: tuple[int, ...], newest: int
) -> None:
    keys = Keys.parse(ring)
    assert (keys.versions, keys.newest) == (versions, newest)


BAD_RINGS = [
    ("", "The key ring is empty"),
    (" ,\n", "The key ring is empty"),
    (f"{A},{B}", "Entry 1 of the key ring has no version: write 0:fck1_…,1:fck1_…."),
    (f"0:{A},{B}", "Entry 2 of the key ring has no version"),
    (f"0:{A},0:{B}", "Version 0 is in the key ring twice"),
    (f"0:{A},1:{A}", "Two versions have the same key"),
    (f"8:{A}", "Entry 1 of the key ring begins with no version from 0 to 7"),
    (f"-1:{A}", "Entry 1 of the key ring begins with no version"),
    (f"00:{A}", "Entry 1 of the key ring begins with no version"),
    (f"１:{A}", "Entry 1 of the key ring begins with no version"),  # noqa: RUF001 — a full-width digit
    (f":{A}", "Entry 1 of the key ring begins with no version"),
    (f"0:1:{A}", "Entry 1 of the key ring begins with no version"),
    (A[:-1], "Entry 1 of the key ring is no key"),
    (A + "A", "Entry 1 of the key ring is no key"),
    (A.upper(), "Entry 1 of the key ring is no key"),
    (A.removeprefix("fck1_"), "Entry 1 of the key ring is no key"),
    (A[:20] + "+" + A[21:], "Entry 1 of the key ring is no key"),
    (f"0:{A},1:", "Entry 2 of the key ring is no key"),
    (ZERO.hex(), "Entry 1 of the key ring is no key"),
    (f"'{A}'", "Entry 1 of the key ring is no key"),
    (A[:-1] + chr(ord(A[-1]) + 1), "Entry 1 of the key ring ends with a character that no key ends with"),
    ("fck1_" + "A" * 43, "not random, it repeats a few bytes; `fcodes keygen` makes one"),
    ("0:" + A + " " * 5_000, "longer than 4096 characters"),
]


@pytest.mark.parametrize(("ring", "sentence"), BAD_RINGS)
def test_a_bad_ring_is_refused_with_what_to_do_and_without_any_of_the_key(ring: str, sentence: str) -> None:
    with pytest.raises(BadKeys) as caught:
        Keys.parse(ring)
    said = str(caught.value)
    assert sentence in said
    secret = {key[at : at + 5] for key in (A, B, ZERO.hex()) for at in range(5, len(key) - 5)}
    assert [each for each in secret if each.lower() in said.lower()] == []
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@given(st.text(max_size=120) | st.from_regex(r"([0-9]:fck1_[A-Za-z0-9_-]{42,44},?){1,3}", fullmatch=True))
def test_whatever_stands_in_a_ring_is_read_or_refused(text: str) -> None:
    """No other fault, whatever the text."""
    try:
        keys = Keys.parse(text)
    except BadKeys:
        return
    assert keys.versions


@pytest.mark.parametrize("entropy", [b"", b"k" * 32, bytes(31), bytes(range(33)), bytes([1, 2, 3, 4, 5, 6, 7]) * 5])
def test_what_is_not_32_fair_bytes_is_no_key(entropy: bytes) -> None:
    with pytest.raises(BadKeys):
        new_master(entropy)
    with pytest.raises(BadKeys):
        Keys({0: entropy})


@pytest.mark.parametrize("masters", [{}, {8: ZERO}, {-1: ZERO}, {0: ZERO, 1: ZERO}])
def test_a_ring_of_bytes_is_as_strict(masters: dict[int, bytes]) -> None:
    with pytest.raises(BadKeys):
        Keys(masters)


def test_nothing_shown_of_a_ring_tells_a_key() -> None:
    """Its repr, and that of the MACs it hands out, name keys by their fingerprints or not at all."""
    keys = Keys({0: ZERO, 1: ONE})
    assert repr(keys) == f"Keys(0: {reference.fingerprint(ZERO)}, 1: {reference.fingerprint(ONE)}; newest: 1)"
    key = keys.batch_key(0, 7)
    assert key is not None
    assert re.fullmatch(r"<fcodes\.mac\.Mac object at 0x[0-9a-f]+>", repr(key))
    assert not hasattr(keys, "__dict__")


def test_a_fingerprint_tells_keys_apart_and_does_not_depend_on_the_version() -> None:
    """So a version that was given to another key by mistake can be found out."""
    assert Keys({0: ZERO}).fingerprint(0) == Keys({5: ZERO, 6: ONE}).fingerprint(5)
    assert Keys({0: ZERO}).fingerprint(0) != Keys({0: ONE}).fingerprint(0)
