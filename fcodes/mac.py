"""HMAC-SHA256 with a key that is used again and again, and HKDF (RFC 5869) built of it."""

import hashlib
from typing import Final

DIGEST_BYTES: Final = 32
_BLOCK_BYTES: Final = 64
_INNER_PAD: Final = bytes(value ^ 0x36 for value in range(256))
_OUTER_PAD: Final = bytes(value ^ 0x5C for value in range(256))


class Mac:
    """HMAC-SHA256 under one key.

    The key's two blocks are hashed once and their states kept (RFC 2104, section 4), which halves the cost of a short
    message. Its repr shows nothing of the key.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = (hashlib.sha256(key).digest() if len(key) > _BLOCK_BYTES else key).ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(block.translate(_INNER_PAD))
        self._outer = hashlib.sha256(block.translate(_OUTER_PAD))

    def digest(self, message: bytes) -> bytes:
        """The 32 bytes of HMAC-SHA256(key, message)."""
        inner = self._inner.copy()
        inner.update(message)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()


def hkdf_extract(salt: bytes, secret: bytes) -> bytes:
    """HKDF-Extract: a pseudorandom key of 32 bytes out of `secret`."""
    return Mac(salt).digest(secret)


def hkdf_expand(prk: Mac, info: bytes, length_bytes: int) -> bytes:
    """HKDF-Expand: `length_bytes` (at most 255 × 32) for the purpose that `info` names, under the extracted key."""
    if not 0 < length_bytes <= 255 * DIGEST_BYTES:
        raise ValueError(f"HKDF-SHA256 yields 1 to {255 * DIGEST_BYTES} bytes.")
    block, output = b"", b""
    for counter in range(1, -(-length_bytes // DIGEST_BYTES) + 1):
        block = prk.digest(block + info + bytes((counter,)))
        output += block
    return output[:length_bytes]
