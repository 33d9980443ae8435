"""Every refusal of a token says what is wrong and what to do, and carries no part of the token."""

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flashsale.errors import SetupError
from flashsale.web.auth import HEADER_MAX_BYTES, KNOWN_HEADERS_MAX, Authenticator, Identity, Role, mint
from tests.web.tokens import (
    MEMBER_MAX,
    NOW,
    OTHER_SECRET,
    PLAIN_CLAIMS,
    SECRET,
    authenticator,
    own,
    refusal,
    segment,
    signed,
    token_of,
)

GOOD = token_of(PLAIN_CLAIMS)
HEAD, BODY, SIGNATURE = GOOD.split(".")
REFUSALS = {
    "no header": (None, "Send a token"),
    "empty": ("", "the word `Bearer`"),
    "other scheme": ("Basic dXNlcjpwYXNz", "the word `Bearer`"),
    "scheme forgotten": (GOOD, "the word `Bearer`"),
    "scheme alone": ("Bearer", "not a JWT"),
    "two spaces": (f"Bearer  {GOOD}", "not a JWT"),
    "not a token": ("Bearer secret", "not a JWT"),
    "two parts": (f"Bearer {HEAD}.{BODY}", "not a JWT"),
    "four parts": (f"Bearer {GOOD}.{BODY}", "not a JWT"),
    "padded": (f"Bearer {GOOD}=", "not a JWT"),
    "not ASCII": (f"Bearer {GOOD}é", "signature does not match"),
    "a lone surrogate": (f"Bearer {GOOD[:-1]}\udc80", "signature does not match"),
    "header not an object": ("Bearer " + token_of(PLAIN_CLAIMS, ["HS256"]), "not a JWT"),
    "header without alg": ("Bearer " + token_of(PLAIN_CLAIMS, {"typ": "JWT"}), "not a JWT"),
    "header nested too deep": ("Bearer " + signed(segment(b'{"alg":"HS256","x":' + b"[" * 5_000), b""), "not a JWT"),
    "kid not a string": ("Bearer " + token_of(PLAIN_CLAIMS, {"alg": "HS256", "kid": None}), "not a JWT"),
    "crit": ("Bearer " + token_of(PLAIN_CLAIMS, {"alg": "HS256", "crit": ["exp"]}), "asks for an extension"),
    "b64": ("Bearer " + token_of(PLAIN_CLAIMS, {"alg": "HS256", "b64": False}), "asks for an extension"),
    "alg none": ("Bearer " + token_of(PLAIN_CLAIMS, {"alg": "none"}), "Sign it with HS256."),
    "alg in lower case": ("Bearer " + token_of(PLAIN_CLAIMS, {"alg": "hs256"}), "Sign it with HS256."),
    "alg HS512": ("Bearer " + jwt.encode({"sub": "1"}, SECRET * 2, "HS512"), "Sign it with HS256."),
    "alg RS256 without a JWKS": ("Bearer " + token_of(PLAIN_CLAIMS, {"alg": "RS256"}), "Sign it with HS256."),
    "other secret": ("Bearer " + token_of(PLAIN_CLAIMS, secret=OTHER_SECRET), "signature does not match"),
    "no signature": (f"Bearer {HEAD}.{BODY}.", "signature does not match"),
    "claims not an object": ("Bearer " + token_of(["1"]), "JSON object of claims"),
    "sub missing": ("Bearer " + token_of({"exp": NOW}), "`sub` must be the member id"),
    "sub a number": ("Bearer " + token_of({"sub": 1, "exp": NOW}), "`sub` must be the member id"),
    "sub zero": ("Bearer " + token_of({"sub": "0", "exp": NOW}), "`sub` must be the member id"),
    "sub too large": ("Bearer " + token_of({"sub": "9223372036854775808", "exp": NOW}), "`sub` must be the member id"),
    "sub of 5,000 digits": ("Bearer " + token_of({"sub": "1" * 5_000, "exp": NOW}), "`sub` must be the member id"),
    "exp missing": ("Bearer " + token_of({"sub": "1"}), "`exp` must be a number"),
    "exp a string": ("Bearer " + token_of({"sub": "1", "exp": "1900000000"}), "`exp` must be a number"),
    "exp true": ("Bearer " + token_of({"sub": "1", "exp": True}), "`exp` must be a number"),
    "expired": ("Bearer " + token_of({"sub": "1", "exp": NOW - 31}), "has expired. Get a new one"),
    "nbf null": ("Bearer " + token_of(PLAIN_CLAIMS | {"nbf": None}), "`nbf` must be a number"),
    "nbf in the future": ("Bearer " + token_of(PLAIN_CLAIMS | {"nbf": NOW + 31}), "not valid yet"),
    "iat a string": ("Bearer " + token_of(PLAIN_CLAIMS | {"iat": "now"}), "`iat` must be a number"),
    "iat in the future": ("Bearer " + token_of(PLAIN_CLAIMS | {"iat": NOW + 31}), "not valid yet"),
    "role unknown": ("Bearer " + token_of(PLAIN_CLAIMS | {"role": "admin"}), "`role` must be `ops`"),
    "role null": ("Bearer " + token_of(PLAIN_CLAIMS | {"role": None}), "`role` must be `ops`"),
    "tier negative": ("Bearer " + token_of(PLAIN_CLAIMS | {"tier": -1}), "`tier` must be an integer"),
    "tier a fraction": ("Bearer " + token_of(PLAIN_CLAIMS | {"tier": 1.5}), "`tier` must be an integer"),
    "tier over 63 bits": ("Bearer " + token_of(PLAIN_CLAIMS | {"tier": 2**63}), "`tier` must be an integer"),
    "tier written as 2.0": ("Bearer " + token_of(PLAIN_CLAIMS | {"tier": 2.0}), "`tier` must be an integer"),
    "tier true": ("Bearer " + token_of(PLAIN_CLAIMS | {"tier": True}), "`tier` must be an integer"),
}


@pytest.mark.parametrize(("header", "sentence"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_bad_token_is_refused_with_a_sentence_that_does_not_quote_it(header: str | None, sentence: str) -> None:
    """The same sentence whether or not the process knows the header already; the fault carries no part of the token."""
    warm = authenticator()
    assert own(GOOD, warm) is not None
    for tokens in (authenticator(), warm):
        fault = refusal(header, tokens)
        assert sentence in fault.detail
        assert fault.__context__ is None, "a cause could carry the token into a log"
        for part in (header or "").split(".")[1:]:
            assert len(part) < 8 or part not in fault.detail


def test_a_token_expires_as_the_clock_moves_on() -> None:
    """The clock is read at each request."""
    clock = [NOW]
    tokens = Authenticator(secret=SECRET, jwks=None, now=lambda: clock[0])
    token = mint(SECRET, member=1, expires_at=NOW)
    clock[0] = NOW + 29.9
    assert own(token, tokens) is not None
    clock[0] = NOW + 30
    assert "expired" in refusal(f"Bearer {token}", tokens).detail


@pytest.mark.parametrize("sign", ["+", "/", "=", "!", ".", "\n", " "])
@pytest.mark.parametrize("place", [0, 1, 2, 3, 40])
def test_a_well_signed_token_outside_the_alphabet_is_refused(sign: str, place: int) -> None:
    """Standard base64 and stray characters in header and claims: a signature does not excuse a second spelling."""
    head = segment(b'{"alg":"HS256","x":"\xc3\xbf\xc3\xbf\xc3\xbf\xc3\xbf and more than forty characters"}').decode()
    body = segment(b'{"sub":"1","exp":1800000060,"x":"\xc3\xbf\xc3\xbf and more than forty characters"}').decode()
    assert own(signed(head.encode(), body.encode())) is not None
    for odd in (f"{body[:place]}{sign}{body[place:]}", body[:place] + sign * 4 + body[place:]):
        assert own(signed(head.encode(), odd.encode())) is None
    for odd in (f"{head[:place]}{sign}{head[place:]}", head[:place] + sign * 4 + head[place:]):
        assert own(signed(odd.encode(), body.encode())) is None


def test_standard_base64_is_refused_though_it_says_the_same() -> None:
    """`+` and `/` in the place of `-` and `_`, signed as they stand."""
    body = segment(b'{"sub":"1","exp":1800000060,"x":"~~~???"}   ')
    assert b"_" in body
    assert b"-" in body
    assert own(signed(HEAD.encode(), body)) is not None
    assert own(signed(HEAD.encode(), body.replace(b"_", b"/"))) is None
    assert own(signed(HEAD.encode(), body.replace(b"-", b"+"))) is None


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_may_be_written_in_any_case(scheme: str) -> None:
    """RFC 9110: authentication schemes ignore case."""
    assert authenticator().authenticate(f"{scheme} {GOOD}") == Identity(1, "shopper", 0)


def test_a_header_over_8_kib_is_refused_though_its_token_is_good() -> None:
    """One byte decides, and the refusal comes before any cryptography."""
    room = HEADER_MAX_BYTES - len("Bearer ")
    fitting = next(
        token
        for n in range(5_000, 6_200)
        if len(token := token_of(PLAIN_CLAIMS | {"name": "x" * n})) in {room, room - 1}
    )
    longer = token_of(PLAIN_CLAIMS | {"name": "x" * 6_200})
    assert own(fitting) is not None
    assert "over 8192 bytes" in refusal(f"Bearer {longer}").detail
    assert "over 8192 bytes" in refusal("x" * (HEADER_MAX_BYTES + 1)).detail
    assert "the word `Bearer`" in refusal("x" * HEADER_MAX_BYTES).detail


def test_only_signed_headers_are_remembered_and_only_so_many() -> None:
    """Strangers cannot fill the memory, and an issuer whose every header differs is still served."""
    tokens = authenticator()
    for number in range(2 * KNOWN_HEADERS_MAX):
        header = {"alg": "HS256", "kid": str(number)}
        assert own(token_of(PLAIN_CLAIMS, header, OTHER_SECRET), tokens) is None
        assert len(tokens._known_headers) == min(number, KNOWN_HEADERS_MAX)
        assert own(token_of(PLAIN_CLAIMS, header), tokens) is not None
    assert len(tokens._known_headers) == KNOWN_HEADERS_MAX


@pytest.mark.parametrize("secret", ["", "x" * 31, "é" * 15])
def test_a_short_secret_stops_the_start(secret: str) -> None:
    """HS256 needs as many bytes as its hash has (RFC 7518, 3.2); neither side works with fewer."""
    with pytest.raises(SetupError, match="32 or more"):
        authenticator(secret)
    with pytest.raises(SetupError, match="32 or more"):
        mint(secret, member=1, expires_at=NOW)


def test_a_public_key_as_secret_stops_the_start() -> None:
    """Otherwise whoever knows the public key, which is everyone, could sign HS256 tokens with it."""
    public = generate_private_key(65_537, 2_048).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(public)
    for secret in (pem, jwk):
        with pytest.raises(SetupError, match="FLASHSALE_JWKS"):
            authenticator(secret)


def test_a_service_that_could_verify_nothing_does_not_start() -> None:
    """One clear line instead of 401 for everyone."""
    with pytest.raises(SetupError, match="FLASHSALE_JWT_SECRET or FLASHSALE_JWKS"):
        Authenticator(secret=None, jwks=None, now=lambda: NOW)


@pytest.mark.parametrize("role", [None, "ops", "payments", "shopper"])
@pytest.mark.parametrize("tier", [None, 0, 3])
@pytest.mark.parametrize("member", [1, MEMBER_MAX])
def test_a_minted_token_says_exactly_what_was_asked(member: int, role: Role | None, tier: int | None) -> None:
    """The library reads the same claims, and the service the same identity."""
    token = mint(SECRET, member=member, role=role, tier=tier, expires_at=NOW + 1)
    asked = {"sub": str(member), "exp": int(NOW) + 1, "role": role, "tier": tier}
    read = jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_exp": False})
    assert read == {name: value for name, value in asked.items() if value is not None}
    assert own(token) == Identity(member, role or "shopper", tier or 0)


@pytest.mark.parametrize(("member", "tier"), [(0, None), (-1, None), (MEMBER_MAX + 1, None), (1, -1)])
def test_no_token_is_minted_that_the_service_would_refuse(member: int, tier: int | None) -> None:
    """A wrong member or tier is the caller's mistake, told at once."""
    with pytest.raises(ValueError, match="must be"):
        mint(SECRET, member=member, tier=tier, expires_at=NOW)
