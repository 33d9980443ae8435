"""Did we make this code? Three outcomes: genuine, a typo, not ours."""

from dataclasses import dataclass
from hmac import compare_digest

from fcodes.codec import Code, Typo, parse
from fcodes.keys import Keys, mac_in, message


@dataclass(frozen=True, slots=True)
class NotOurs:
    """Well formed, but nobody who has the keys made it: a guess, a forgery, or a key that has left the ring."""

    code: Code


def verify(code: Code, keys: Keys) -> bool:
    """Tell whether the MAC is the one that the key of its version makes. Asks no store; compares in constant time.

    `code` is one that `parse` returned: its fields are in range.
    """
    key = keys.batch_key(code.version, code.batch)
    if key is None:
        return False
    expected = mac_in(key.digest(message(code.version, code.batch, code.serial)))
    return compare_digest(expected.to_bytes(7, "big"), code.mac.to_bytes(7, "big"))


def read(text: str, keys: Keys) -> Code | Typo | NotOurs:
    """Read a code as people type it and verify it: a `Code` from here is genuine."""
    code = parse(text)
    if isinstance(code, Typo) or verify(code, keys):
        return code
    return NotOurs(code)
