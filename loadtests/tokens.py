"""HS256 tokens as the contract describes them, minted without a library so that tens of thousands cost little."""

import base64
import hmac
import json

SECRET_BYTES_MIN = 32


def _b64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


_compact = json.JSONEncoder(separators=(",", ":")).encode
_HEADER = _b64(b'{"alg":"HS256","typ":"JWT"}')


class Minter:
    """Mints tokens under one shared secret.

    `secret` is text (its UTF-8 bytes are the key, at least 32 of them; else `ValueError`). `expires_at` is Unix time in
    seconds, the `exp` of every token. Source: RFC 7515, RFC 7519.
    """

    def __init__(self, secret: str, *, expires_at: int) -> None:
        self._key = secret.encode()
        if len(self._key) < SECRET_BYTES_MIN:
            raise ValueError(f"The secret has {len(self._key)} bytes; HS256 needs at least {SECRET_BYTES_MIN}.")
        self._expires_at = expires_at

    def shopper(self, member: int, *, tier: int | None = None) -> str:
        """A member's own token; `tier` is left out when the member has none."""
        claims: dict[str, object] = {"sub": str(member), "exp": self._expires_at}
        if tier is not None:
            claims["tier"] = tier
        return self.sign(claims)

    def operator(self, member: int = 1) -> str:
        """A token that may do what operators do."""
        return self.sign({"sub": str(member), "exp": self._expires_at, "role": "ops"})

    def sign(self, claims: dict[str, object]) -> str:
        """`claims` exactly as given, signed: for tokens that a service must refuse, too."""
        signed = _HEADER + b"." + _b64(_compact(claims).encode())
        return (signed + b"." + _b64(hmac.digest(self._key, signed, "sha256"))).decode()
