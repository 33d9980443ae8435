"""Master keys, their text and their versions, and the MAC of a code under them. No key is ever shown again."""

import base64
import re
import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from fcodes.codec import VERSION_MAX
from fcodes.mac import DIGEST_BYTES, Mac, hkdf_expand, hkdf_extract

KEY_BYTES: Final = 32
KEY_PREFIX: Final = "fck1_"
RING_MAX_CHARS: Final = 4_096
"""A key ring of eight takes less than 450."""
BATCH_KEYS_MAX: Final = 1_024
"""Batches whose MAC keys are kept; another one costs a verification about twice the time."""

SALT: Final = b"fcodes/1"
_DISTINCT_BYTES_MIN: Final = 8
"""Of 32 random bytes, so many are distinct but once in 10^37: fewer are a placeholder."""
_KEY_TEXT: Final = re.compile(KEY_PREFIX + r"[A-Za-z0-9_-]{43}")
_MAKE_ONE: Final = "`fcodes keygen` makes one"
_info: Final = struct.Struct(">3sBI").pack

message: Final = struct.Struct(">BII").pack
"""What is authenticated, 9 bytes: version, batch, serial."""


class BadKeys(ValueError):
    """The key ring cannot be read. The sentence says what to do and holds no part of any key."""


def new_master(entropy: bytes) -> str:
    """The text of the master key that these 32 random bytes are. Anything else than 32 fair bytes is `BadKeys`."""
    _require_key(entropy, "The key")
    return KEY_PREFIX + base64.urlsafe_b64encode(entropy).decode().rstrip("=")


class Keys:
    """A ring of up to eight master keys by version, and the MAC keys derived from them.

    The highest version is the newest: what is minted from now on carries it, while codes of older versions stay valid
    as long as their key is in the ring. Removing a key ends every code under it; a version must not be given to
    another key while a code under it may still be honoured (`fingerprint` tells keys apart).

    Holds no master key, only what HKDF extracted from it; its repr shows versions and fingerprints.
    """

    __slots__ = ("_roots", "batch_key", "newest")

    def __init__(self, masters: Mapping[int, bytes]) -> None:
        if not masters:
            raise BadKeys(f"The key ring is empty: it needs at least one key; {_MAKE_ONE}.")
        for version, master in masters.items():
            if not 0 <= version <= VERSION_MAX:
                raise BadKeys(f"A key's version is a whole number from 0 to {VERSION_MAX}.")
            _require_key(master, f"The key of version {version}")
        if len(set(masters.values())) < len(masters):
            raise BadKeys(f"Two versions have the same key, so the later one rotates nothing; {_MAKE_ONE} for it.")
        self._roots: Final = {version: Mac(hkdf_extract(SALT, masters[version])) for version in sorted(masters)}
        self.newest: Final = max(masters)
        self.batch_key: Final = lru_cache(BATCH_KEYS_MAX)(self._batch_key)
        """The MAC of a batch's codes, by version and batch; None if the ring has no key of that version."""

    @classmethod
    def parse(cls, text: str) -> "Keys":
        """Read a key ring: `0:fck1_…,1:fck1_…`, or one key alone, which is version 0. White space separates, too.

        `BadKeys` says which entry is wrong and what to do, and tells nothing of any key.
        """
        if len(text) > RING_MAX_CHARS:
            raise BadKeys(f"The key ring is longer than {RING_MAX_CHARS} characters; is this the right file?")
        masters: dict[int, bytes] = {}
        for version, master in _entries(re.findall(r"[^,\s]+", text)):
            if version in masters:
                raise BadKeys(f"Version {version} is in the key ring twice: give the newer key a version of its own.")
            masters[version] = master
        return cls(masters)

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions in the ring, ascending."""
        return tuple(self._roots)

    def fingerprint(self, version: int) -> str:
        """Eight hex digits that name the key of a version without telling anything of it."""
        return hkdf_expand(self._roots[version], b"fingerprint", 4).hex()

    def _batch_key(self, version: int, batch: int) -> Mac | None:
        root = self._roots.get(version)
        return None if root is None else Mac(derived(root, version, batch))

    def __repr__(self) -> str:
        ring = ", ".join(f"{version}: {self.fingerprint(version)}" for version in self._roots)
        return f"Keys({ring}; newest: {self.newest})"


def derived(root: Mac, version: int, batch: int) -> bytes:
    """The 32 bytes of a batch's MAC key."""
    return hkdf_expand(root, _info(b"mac", version, batch), DIGEST_BYTES)


def mac_in(digest: bytes) -> int:
    """The MAC that a code carries of a digest: its first 50 bits."""
    return int.from_bytes(digest[:7], "big") >> 6


def _entries(items: list[str]) -> Iterator[tuple[int, bytes]]:
    for place, item in enumerate(items, 1):
        number, colon, key = item.rpartition(":")
        if not colon and len(items) > 1:
            raise BadKeys(f"Entry {place} of the key ring has no version: write 0:{KEY_PREFIX}…,1:{KEY_PREFIX}….")
        if colon and not re.fullmatch(f"[0-{VERSION_MAX}]", number):
            raise BadKeys(f"Entry {place} of the key ring begins with no version from 0 to {VERSION_MAX} and a colon.")
        if not _KEY_TEXT.fullmatch(key):
            raise BadKeys(
                f"Entry {place} of the key ring is no key: a key is {KEY_PREFIX} and 43 letters, digits, - or _, with "
                f"nothing missing; {_MAKE_ONE}."
            )
        master = base64.urlsafe_b64decode(key.removeprefix(KEY_PREFIX) + "=")
        if new_master(master) != key:  # the last character has two bits more than the key
            raise BadKeys(f"Entry {place} of the key ring ends with a character that no key ends with: copy it again.")
        yield int(number or 0), master


def _require_key(master: bytes, what: str) -> None:
    if len(master) != KEY_BYTES:
        raise BadKeys(f"{what} has {len(master)} bytes instead of {KEY_BYTES}; {_MAKE_ONE}.")
    if len(set(master)) < _DISTINCT_BYTES_MIN:
        raise BadKeys(f"{what} is not random, it repeats a few bytes; {_MAKE_ONE}.")
