"""The own HS256 path beside PyJWT: what one refuses the other refuses, on any claims, headers, spellings and damage.

Both see the same frozen clock, so that the borders of the leeway are exact.
"""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, tzinfo
from typing import Any, Self

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashsale.web.auth import Identity, mint
from tests.web.tokens import (
    MEMBER_MAX,
    NOW,
    OTHER_SECRET,
    PLAIN_CLAIMS,
    PLAIN_HEADER,
    SECRET,
    authenticator,
    by_library,
    expected,
    own,
    refusal,
    segment,
    signed,
    token_of,
)

URLSAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

many = settings(max_examples=400, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def _frozen_clock() -> Iterator[None]:
    class Frozen(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(NOW, tz)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jwt.api_jwt.datetime", Frozen)
        yield


finite = st.floats(allow_nan=False, allow_infinity=False)
scalars = (st.none(), st.booleans(), st.text(max_size=6), st.integers(), finite)
small = st.integers()
junk: st.SearchStrategy[Any] = st.one_of(
    *scalars, st.lists(small, max_size=2), st.dictionaries(st.text(max_size=2), small, max_size=2)
)
near = st.integers(-62, 62).map(lambda offset: int(NOW) + offset) | st.floats(-32, 32).map(lambda offset: NOW + offset)
sane_sub = st.integers(1, MEMBER_MAX).map(str)
odd_sub = st.sampled_from(["0", "01", "+1", " 1", "1 ", "1_0", "-1", "", "1.0", "1e3", "٣", "²", str(MEMBER_MAX + 1)])


def mostly(sane: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw from `odd` one time in ten, so that one token seldom has two faults."""
    return st.integers(0, 9).flatmap(lambda die: odd if die == 0 else sane)


claims_strategy = st.fixed_dictionaries(
    {
        "sub": mostly(sane_sub, odd_sub | junk),
        "exp": mostly(st.integers(int(NOW) + 1, 2**40), near | near.map(str) | junk),
    },
    optional={
        "nbf": mostly(st.integers(0, int(NOW)), near | near.map(str) | junk),
        "iat": mostly(st.integers(0, int(NOW)), near | near.map(str) | junk),
        "role": mostly(st.sampled_from(["ops", "payments", "shopper"]), junk),
        "tier": mostly(st.integers(0, 9), junk | st.just(MEMBER_MAX + 1) | st.just(-1)),
        "aud": junk,
        "jti": junk,
        "name": junk,
    },
).flatmap(
    lambda claims: st.sampled_from([claims] * 8 + [{k: v for k, v in claims.items() if k != "exp"}, claims["sub"]])
)


def test_random_claims_are_accepted_exactly_when_the_library_and_the_contract_accept_them() -> None:
    """Same verdict and same identity for right, missing, odd and wrongly typed claims."""
    seen: Counter[bool] = Counter()

    @many
    @given(claims_strategy)
    def agree(claims: object) -> None:
        token = token_of(claims)
        assert own(token) == expected(token)
        seen[own(token) is not None] += 1

    agree()
    assert min(seen[True], seen[False]) > 20, "the comparison must see both verdicts"


def test_random_headers_are_accepted_exactly_when_the_library_accepts_them() -> None:
    """Only HS256 without extensions passes; `typ` and unknown members have no effect."""
    seen: Counter[bool] = Counter()
    algs = st.sampled_from(["HS256"] * 12 + ["hs256", "none", "None", "HS384", "RS256", "ES256", "EdDSA", ""])
    common = {"typ": junk, "kid": mostly(st.text(max_size=3), junk), "x": junk}
    rare = {"b64": st.booleans() | junk, "crit": st.sampled_from([["b64"], ["exp"], []]) | junk}
    plain = st.fixed_dictionaries({"alg": mostly(algs, junk)}, optional=common)
    extended = st.fixed_dictionaries({}, optional={"alg": algs} | common | rare)

    @many
    @given(mostly(plain, extended))
    def agree(header: dict[str, Any]) -> None:
        token = token_of(PLAIN_CLAIMS, header)
        strict = "crit" in header or not isinstance(header.get("b64", True), bool)
        assert own(token) == (None if strict else expected(token))
        seen[own(token) is not None] += 1

    agree()
    assert min(seen[True], seen[False]) > 20, "the comparison must see both verdicts"


@many
@given(st.data())
def test_a_token_that_was_changed_anywhere_is_refused_as_the_library_refuses_it(data: st.DataObject) -> None:
    """Every segment: characters replaced, dropped or added, segments truncated, padded, swapped, doubled."""
    token = mint(SECRET, member=data.draw(st.integers(1, MEMBER_MAX)), expires_at=NOW + 60)
    parts = token.split(".")
    at = data.draw(st.integers(0, len(token) - 1))
    which = data.draw(st.integers(0, 2))
    odd = data.draw(st.sampled_from([*URLSAFE, *"=+/.!\n \x00é\udc80"]))
    padded = [part + "=" * (-len(part) % 4) if place == which else part for place, part in enumerate(parts)]
    changed = data.draw(
        st.sampled_from(
            [
                token[:at] + odd + token[at + 1 :],
                token[:at] + odd + token[at:],
                token[:at] + token[at + 1 :],
                token[:at],
                ".".join(parts[:which] + parts[which + 1 :]),
                ".".join([*parts, parts[which]]),
                ".".join([*parts[:which], "", *parts[which + 1 :]]),
                ".".join(padded),
                token.replace("-", "+").replace("_", "/"),
                ".".join(data.draw(st.permutations(parts))),
            ]
        )
    )
    assert own(token) is not None
    if changed != token:
        assert own(changed) is None
        if changed.isascii() and "=" not in changed:
            assert by_library(changed) is None


def test_signed_bytes_that_are_not_quite_json_are_refused_wherever_the_library_refuses_them() -> None:
    """One byte of the claims changed before signing: what the own path reads, PyJWT reads the same way."""
    seen: Counter[bool] = Counter()
    whole_claims = (
        b'{"sub":"12","exp":1800000060,"tier":3,"name":"J\xc3\xbcrg \\u00e9","more":[1.5e3,{"a":null,"b":true}]}'
    )

    @settings(max_examples=1_000, deadline=None)
    @given(st.integers(0, len(whole_claims) - 1), st.binary(max_size=2), st.integers(0, 2))
    def agree(at: int, new: bytes, dropped: int) -> None:
        body = whole_claims[:at] + new + whole_claims[at + dropped :]
        token = signed(segment(json.dumps(PLAIN_HEADER).encode()), segment(body))
        if own(token) is not None:
            assert own(token) == expected(token)
        seen[own(token) is not None] += 1

    agree()
    assert min(seen[True], seen[False]) > 20, "the comparison must see both verdicts"


@pytest.mark.parametrize(
    "claims",
    [
        b'{"sub":"1","exp":1800000060,"x":"\xff"}',
        b'{"sub":"1","exp":1800000060,"\xff":1}',
        b'{"sub":"1","exp":1800000060,"x":NaN}',
        b'{"sub":"1","exp":1800000060,"x":"\\ud800"}',
        b'\xef\xbb\xbf{"sub":"1","exp":1800000060}',
        '{"sub":"1","exp":1800000060}'.encode("utf-16"),
        b'{"sub":"1","exp":1800000060}{}',
        b'{"sub":"1","exp":1800000060,"x":' + b"[" * 2_500 + b"]" * 2_500 + b"}",
        b'{"sub":"1","exp":' + b"9" * 4_400 + b"}",
        b"[" * 5_000,
        b"[]",
        b"",
    ],
    ids=range(12),
)
def test_claims_that_are_not_plain_json_in_utf8_are_refused_even_when_well_signed(claims: bytes) -> None:
    """Also where PyJWT is lenient (NaN, UTF-16, lone surrogates, a byte order mark)."""
    assert "claims" in refusal("Bearer " + signed(segment(json.dumps(PLAIN_HEADER).encode()), segment(claims))).detail


def test_of_a_key_given_twice_the_last_one_counts_as_in_the_library() -> None:
    """Two readers that disagree on duplicates would see two different members in one token."""
    head = segment(b'{"alg":"none","alg":"HS256"}')
    token = signed(head, segment(b'{"sub":"1","role":"ops","exp":1,"exp":1800000060,"sub":"2","role":"shopper"}'))
    assert own(token) == Identity(2, "shopper", 0) == expected(token)
    reverse = signed(segment(b'{"alg":"HS256","alg":"none"}'), segment(json.dumps(PLAIN_CLAIMS).encode()))
    assert own(reverse) is None
    assert by_library(reverse) is None


@pytest.mark.parametrize("name", ["x", "xy", "xyz"])
def test_each_token_has_one_spelling(name: str) -> None:
    """Stray bits in the last character of a segment are refused, in every segment and for every length."""
    good = token_of({"sub": "7", "exp": NOW + 60, "name": name}, {"alg": "HS256", "x": name})
    head, body, signature = good.split(".")
    for last in URLSAFE + "=+/":
        respelt = [
            signed((head[:-1] + last).encode(), body.encode()),
            signed(head.encode(), (body[:-1] + last).encode()),
            f"{head}.{body}.{signature[:-1]}{last}",
        ]
        for place, token in enumerate(respelt):
            assert own(token) == expected(token)
            assert own(token) is None or place < 2 or token == good


@pytest.mark.parametrize("secret", ["s" * 32, "s" * 63, "s" * 64, "s" * 65, "s" * 200, "密" * 11])
def test_every_length_of_secret_signs_as_in_the_library(secret: str) -> None:
    """Below, at and above the hash's block, and counted in UTF-8 bytes."""
    token = jwt.encode({"sub": "5", "exp": int(NOW) + 1, "tier": 2}, secret, "HS256")
    tokens = authenticator(secret)
    for _ in range(2):  # the second time over the remembered header
        assert own(token, tokens) == Identity(5, "shopper", 2)
        assert own(token_of(PLAIN_CLAIMS, secret=OTHER_SECRET), tokens) is None


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.75])
@pytest.mark.parametrize("offset", [-31, -30, -29, 29, 30, 31])
def test_the_leeway_is_thirty_seconds_to_the_second(offset: int, fraction: float) -> None:
    """`exp` holds until 30 s after it, `nbf` and `iat` from 30 s before them; fractions count as PyJWT counts them."""
    at = NOW + offset + fraction
    for claims in ({"exp": at}, {"exp": NOW + 99, "nbf": at}, {"exp": NOW + 99, "iat": at}):
        token = token_of({"sub": "1"} | claims)
        assert own(token) == expected(token)
    assert (own(token_of({"sub": "1", "exp": NOW + offset})) is not None) == (offset > -30)
    assert (own(token_of(PLAIN_CLAIMS | {"nbf": NOW + offset})) is not None) == (offset <= 30)
    assert (own(token_of(PLAIN_CLAIMS | {"iat": NOW + offset})) is not None) == (offset <= 30)
