"""The format `fcodes/1` read off the package's docstring as plainly as can be, and nothing taken from the package.

Bits are strings, GF(32) is polynomial long division, HKDF is another library's. Slow, and a second opinion.
"""

import base64
import hashlib
import hmac

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

SYMBOLS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def times(a: int, b: int) -> int:
    """The product of two elements of GF(32), by carry-less multiplication and long division."""
    product = 0
    for bit in range(5):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(9, 4, -1):
        if product >> bit & 1:
            product ^= 0b100101 << (bit - 5)
    return product


def weight(place: int) -> int:
    """What the symbol at this place, 0 to 19 from the left, is weighted with: x^(19 − place)."""
    value = 1
    for _ in range(19 - place):
        value = times(value, 2)
    return value


def weighted_sum(values: list[int]) -> int:
    """The weighted sum of twenty symbols."""
    total = 0
    for place, value in enumerate(values):
        total ^= times(weight(place), value)
    return total


def mac_key(master: bytes, version: int, batch: int) -> bytes:
    """A batch's MAC key."""
    info = b"mac" + version.to_bytes(1, "big") + batch.to_bytes(4, "big")
    return HKDF(SHA256(), 32, salt=b"fcodes/1", info=info).derive(master)


def fingerprint(master: bytes) -> str:
    """What names a master key."""
    prk = hmac.new(b"fcodes/1", master, hashlib.sha256).digest()
    return HKDFExpand(SHA256(), 4, info=b"fingerprint").derive(prk).hex()


def key_text(master: bytes) -> str:
    """A master key as text."""
    return "fck1_" + base64.urlsafe_b64encode(master).decode()[:43]


def tag(master: bytes, version: int, batch: int, serial: int) -> bytes:
    """The whole HMAC of a code."""
    message = version.to_bytes(1, "big") + batch.to_bytes(4, "big") + serial.to_bytes(4, "big")
    return hmac.new(mac_key(master, version, batch), message, hashlib.sha256).digest()


def code(master: bytes, version: int, batch: int, serial: int) -> str:
    """A code's canonical text."""
    mac = "".join(f"{byte:08b}" for byte in tag(master, version, batch, serial))[:50]
    bits = f"{batch:020b}{serial:022b}{version:03b}{mac}"
    values = [int(bits[at : at + 5], 2) for at in range(0, 95, 5)]
    [check] = [value for value in range(32) if weighted_sum([*values, value]) == 0]
    text = "".join(SYMBOLS[value] for value in [*values, check])
    return "-".join(text[at : at + 4] for at in range(0, 20, 4))
