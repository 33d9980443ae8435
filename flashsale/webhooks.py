"""Standard Webhooks 1.0 with symmetric signatures: how an order is signed, and how a receiver tells that it is ours.

Signed is `{id}.{timestamp}.{body}`, with HMAC-SHA256. An id holds no full stop: otherwise parts could change places
under the same signature. Source: the specification of Standard Webhooks, version 1.0.0, "Signature scheme".
"""

import binascii
import hmac
from collections.abc import Mapping
from typing import Final

import msgspec

from flashsale.errors import SetupError

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 -- what every secret begins with
SECRET_MIN_BYTES: Final = 24
SECRET_MAX_BYTES: Final = 64
TOLERANCE_S: Final = 300
"""How far the sender's clock and the receiver's may lie apart; an older message may have been caught and replayed."""
USER_AGENT: Final = "flashsale"
VERSION: Final = b"v1"
"""Names symmetric signatures. Others (`v1a`, or whatever comes) may stand beside them."""


class Verified(msgspec.Struct, frozen=True):
    """The message is from whoever has the secret: its id (the same at every try) and when this try was signed."""

    id: str
    timestamp_s: int


class Unverified(msgspec.Struct, frozen=True):
    """The message may be anybody's; `reason` is one line that repeats nothing of it."""

    reason: str


def parse_secret(text: str) -> bytes:
    """The key in `whsec_…`; `SetupError` when it is none.

    Base64, with or without its padding, of 24 to 64 bytes.
    """
    prefix, encoded = text.strip()[: len(SECRET_PREFIX)], text.strip()[len(SECRET_PREFIX) :]
    bare = encoded.rstrip("=")
    padded = bare + "=" * (-len(bare) % 4)
    try:
        secret = binascii.a2b_base64(padded, strict_mode=True) if encoded in {bare, padded} else b""
    except ValueError:  # of other signs than base64's, or not in ASCII
        secret = b""
    if prefix != SECRET_PREFIX or not SECRET_MIN_BYTES <= len(secret) <= SECRET_MAX_BYTES:
        raise SetupError(
            f"FLASHSALE_FULFILMENT_SECRET is no secret of Standard Webhooks: `{SECRET_PREFIX}`, then "
            f"{SECRET_MIN_BYTES} to {SECRET_MAX_BYTES} random bytes in base64. "
            f"Make one with: echo {SECRET_PREFIX}$(openssl rand -base64 32)"
        )
    return secret


def make_secret(entropy: bytes) -> str:
    """`whsec_…` of 24 to 64 random bytes; `ValueError` for more or fewer."""
    if not SECRET_MIN_BYTES <= len(entropy) <= SECRET_MAX_BYTES:
        raise ValueError(f"a secret has {SECRET_MIN_BYTES} to {SECRET_MAX_BYTES} bytes, not {len(entropy)}")
    return SECRET_PREFIX + binascii.b2a_base64(entropy, newline=False).decode()


def sign(secret: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    """`v1,<base64>`; `ValueError` for an id that cannot be signed (see the top) or sent as a header."""
    if not _is_id(message_id):
        raise ValueError(f"{message_id!r} is no id of a message: ASCII, without spaces, control characters, full stops")
    return _signature(secret, message_id, str(timestamp_s), body).decode()


def signed_headers(secret: bytes, message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The headers that a message is sent with. `ValueError` as in `sign`."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": sign(secret, message_id, timestamp_s, body),
        "content-type": "application/json",
        "user-agent": USER_AGENT,
    }


def verify(
    secret: bytes, headers: Mapping[str, str], body: bytes, *, now_s: float, tolerance_s: float = TOLERANCE_S
) -> Verified | Unverified:
    """Whether one of the signatures is made with this secret, over exactly this id, timestamp and body.

    Names of headers are read in any case. Signatures of other versions are skipped; digests are compared in constant
    time. `now_s` is Unix time.
    """
    found = {name.lower(): value for name, value in headers.items()}
    message_id = found.get("webhook-id", "")
    timestamp = found.get("webhook-timestamp", "")
    signatures = found.get("webhook-signature", "")
    if not (message_id and timestamp and signatures):
        missing = [n for n in ("webhook-id", "webhook-timestamp", "webhook-signature") if not found.get(n)]
        return Unverified(f"it has no {', '.join(missing)}")
    if not _is_id(message_id):
        return Unverified("its webhook-id is none: ASCII, without spaces, control characters, full stops")
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= len("9999999999")):
        return Unverified("its webhook-timestamp is not in whole seconds of Unix time")
    age_s = now_s - int(timestamp)
    if abs(age_s) > tolerance_s:
        lies = f"{age_s:.0f} s in the past" if age_s > 0 else f"{-age_s:.0f} s in the future"
        return Unverified(f"its webhook-timestamp lies {lies}, more than {tolerance_s:g} s")
    wanted = _signature(secret, message_id, timestamp, body)
    offered = [s for s in signatures.encode(errors="replace").split(b" ") if s.startswith(VERSION + b",")]
    if not offered:
        return Unverified("its webhook-signature has none of version v1")
    if not any(hmac.compare_digest(wanted, each) for each in offered):
        return Unverified("its signature is not made with this secret over this message")
    return Verified(message_id, int(timestamp))


def _is_id(text: str) -> bool:
    return text.isascii() and text.isprintable() and "." not in text and " " not in text and text != ""


def _signature(secret: bytes, message_id: str, timestamp: str, body: bytes) -> bytes:
    digest = hmac.digest(secret, f"{message_id}.{timestamp}.".encode() + body, "sha256")
    return VERSION + b"," + binascii.b2a_base64(digest, newline=False)
