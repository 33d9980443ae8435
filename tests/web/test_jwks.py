"""Public keys: each algorithm, which keys are trusted, rotation, and a source that fails, over a real HTTP server."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from structlog.testing import capture_logs

from flashsale.errors import SetupError
from flashsale.web.auth import Authenticator, Identity
from flashsale.web.jwks import JWKS_MAX_BYTES, JWKS_RETRY_S, Fetch, Jwks, fetch_with
from tests.web.tokens import NOW, PLAIN_CLAIMS, SECRET, own, refusal, token_of

ED = ed25519.Ed25519PrivateKey.generate()
OTHER_ED = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65_537, 2_048)
EC = ec.generate_private_key(ec.SECP256R1())
PRIVATE: dict[str, Any] = {"EdDSA": ED, "RS256": RSA, "ES256": EC}


def jwk(key: Any, **members: object) -> dict[str, Any]:  # noqa: ANN401 - three libraries' kinds of key
    """Describe a key's public half, or a private key when it has no other form."""
    public = key.public_key() if hasattr(key, "public_key") else key
    kind = {rsa.RSAPublicKey: RSAAlgorithm, ec.EllipticCurvePublicKey: ECAlgorithm}
    algorithm = next((known for base, known in kind.items() if isinstance(public, base)), OKPAlgorithm)
    return algorithm.to_jwk(public, as_dict=True) | members  # type: ignore[attr-defined, no-any-return]


def private_jwk(key: ed25519.Ed25519PrivateKey) -> dict[str, Any]:
    """Describe the half that must never be published."""
    return OKPAlgorithm.to_jwk(key, as_dict=True)


def keyset(*keys: object) -> bytes:
    """Write a JWK set."""
    return json.dumps({"keys": keys}).encode()


ALL = keyset(jwk(ED, kid="ed"), jwk(RSA, kid="rsa"), jwk(EC, kid="ec"))


def signed_by(alg: str, kid: str | None = None, claims: dict[str, Any] = PLAIN_CLAIMS, key: Any = None) -> str:  # noqa: ANN401 - as above
    """Sign with PyJWT, naming the key or not."""
    return jwt.encode(claims, key or PRIVATE[alg], alg, headers={"kid": kid} if kid else None)


def serving(*bodies: bytes) -> Fetch:
    """Make a fetch that hands out one body after the other, the last one for ever."""
    waiting = list(bodies)

    async def fetch(source: str) -> bytes:
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    return fetch


async def reader(*bodies: bytes) -> tuple[Authenticator, Jwks]:
    """Trust the first set; the next ones follow at each refresh."""
    jwks = await Jwks.load("keys.json", serving(*bodies), now=lambda: 0.0)
    return Authenticator(secret=None, jwks=jwks, now=lambda: NOW), jwks


@asynccontextmanager
async def served(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[tuple[str, Fetch]]:
    """Run an issuer; yield the URL of its keys and the fetch that the service uses."""
    app = web.Application()
    app.router.add_get("/keys", answer)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        yield str(server.make_url("/keys")), fetch_with(session)


@asynccontextmanager
async def running(jwks: Jwks) -> AsyncIterator[None]:
    """Keep the keys fresh in the background for a while."""
    task = asyncio.create_task(jwks.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("alg", PRIVATE)
@pytest.mark.parametrize("named", [True, False])
async def test_each_algorithm_is_verified_and_its_claims_are_checked(alg: str, named: bool) -> None:
    """The only key of a kind needs no `kid`; expiry and roles follow the same rules as with HS256."""
    tokens, _ = await reader(ALL)
    kid = {"EdDSA": "ed", "RS256": "rsa", "ES256": "ec"}[alg] if named else None
    assert own(signed_by(alg, kid, PLAIN_CLAIMS | {"role": "ops", "tier": 2}), tokens) == Identity(1, "ops", 2)
    assert "expired" in refusal("Bearer " + signed_by(alg, kid, {"sub": "1", "exp": NOW - 31}), tokens).detail
    assert "`role`" in refusal("Bearer " + signed_by(alg, kid, PLAIN_CLAIMS | {"role": "root"}), tokens).detail
    assert "`sub`" in refusal("Bearer " + signed_by(alg, kid, {"sub": "01", "exp": NOW}), tokens).detail


@pytest.mark.parametrize("alg", PRIVATE)
async def test_a_changed_or_strangers_token_is_refused(alg: str) -> None:
    """A changed claim, a cut or padded signature, another key under the trusted name."""
    tokens, _ = await reader(ALL)
    kid = {"EdDSA": "ed", "RS256": "rsa", "ES256": "ec"}[alg]
    stranger = {"EdDSA": OTHER_ED, "RS256": rsa.generate_private_key(65_537, 2_048)}
    good = signed_by(alg, kid)
    head, _, signature = good.split(".")
    other_body = signed_by(alg, kid, PLAIN_CLAIMS | {"sub": "2"}).split(".")[1]
    bad = [
        f"{head}.{other_body}.{signature}",
        good[:-4],
        signed_by(alg, kid, key=stranger.get(alg) or ec.generate_private_key(ec.SECP256R1())),
    ]
    for token in bad:
        fault = refusal(f"Bearer {token}", tokens)
        assert "signature does not match" in fault.detail
        assert fault.__context__ is None
    assert "not a JWT" in refusal(f"Bearer {good}==", tokens).detail
    assert own(good, tokens) is not None


async def test_the_algorithm_is_the_keys_and_never_the_tokens_choice() -> None:
    """A key verifies one algorithm only; a public key is never a shared secret; `none` and others are not accepted."""
    tokens, _ = await reader(ALL)
    assert "does not fit the key" in refusal("Bearer " + signed_by("ES256", "rsa"), tokens).detail
    public = json.dumps(jwk(RSA))
    for alg in ("HS256", "none", "RS512", "PS256"):
        forged = token_of(PLAIN_CLAIMS, {"alg": alg, "kid": "rsa"}, public)
        assert "Sign it with EdDSA or RS256 or ES256." in refusal(f"Bearer {forged}", tokens).detail
    assert (
        "signature does not match"
        in refusal("Bearer " + token_of(PLAIN_CLAIMS, {"alg": "RS256", "kid": "rsa"}, public), tokens).detail
    )


async def test_secret_and_public_keys_work_side_by_side() -> None:
    """An HS256 token is read with the secret even when it names a public key."""
    jwks = await Jwks.load("keys.json", serving(ALL), now=lambda: 0.0)
    tokens = Authenticator(secret=SECRET, jwks=jwks, now=lambda: NOW)
    assert own(token_of(PLAIN_CLAIMS, {"alg": "HS256", "kid": "rsa"}), tokens) is not None
    assert own(signed_by("RS256", "rsa"), tokens) is not None
    assert "HS256 or EdDSA" in refusal("Bearer " + token_of(PLAIN_CLAIMS, {"alg": "none"}), tokens).detail


async def test_without_kid_several_keys_of_a_kind_are_ambiguous() -> None:
    """The service does not try one key after the other."""
    tokens, _ = await reader(keyset(jwk(ED, kid="a"), jwk(OTHER_ED, kid="b")))
    assert "name its key by `kid`" in refusal("Bearer " + signed_by("EdDSA"), tokens).detail
    assert own(signed_by("EdDSA", "a"), tokens) is not None
    assert own(signed_by("EdDSA", "b"), tokens) is None


UNTRUSTED = {
    "for encryption": jwk(ED, use="enc"),
    "for signing only": jwk(ED, key_ops=["sign"]),
    "key_ops malformed": jwk(ED, key_ops="verify"),
    "for another algorithm": jwk(RSA, alg="RS512"),
    "RSA below 2,048 bits": jwk(rsa.generate_private_key(65_537, 1_024)),  # noqa: S505 - weak on purpose
    "another EC curve": jwk(ec.generate_private_key(ec.SECP384R1())),
    "another Edwards curve": jwk(ed448.Ed448PrivateKey.generate()),
    "a shared secret": {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ"},
    "a shared secret with alg": {"kty": "oct", "alg": "HS256", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ"},
    "half a key": {"kty": "OKP", "crv": "Ed25519"},
    "a broken key": jwk(ED) | {"x": "AAAA"},
    "kty not a string": {"kty": ["RSA"]},
    "not an object": "key",
}


@pytest.mark.parametrize("member", UNTRUSTED.values(), ids=UNTRUSTED.keys())
async def test_keys_of_other_kinds_and_uses_are_passed_over(member: object) -> None:
    """They do no harm beside a good key, and alone they stop the start."""
    tokens, _ = await reader(keyset(member, jwk(EC)))
    assert own(signed_by("ES256"), tokens) is not None
    assert own(signed_by("EdDSA"), tokens) is None
    assert own(signed_by("RS256"), tokens) is None
    with pytest.raises(SetupError, match="holds no key for EdDSA"):
        await reader(keyset(member))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"<html>", "does not hold a JWK set"),
        (b"[]", "does not hold a JWK set"),
        (b'{"keys": {}}', "does not hold a JWK set"),
        (b"[" * 100_000, "does not hold a JWK set"),
        (b'{"keys": []}', "holds no key"),
        (keyset(jwk(EC), private_jwk(ED)), "holds a private key"),
    ],
    ids=["html", "list", "keys not a list", "deep", "empty", "private"],
)
async def test_a_source_without_usable_keys_stops_the_start_and_never_replaces_good_keys(
    body: bytes, sentence: str
) -> None:
    """At the start one clear line; later the old keys stay and the log says why."""
    with pytest.raises(SetupError, match=sentence):
        await reader(body)
    tokens, jwks = await reader(ALL, body)
    with capture_logs() as logs:
        assert await jwks.refresh() is False
    assert sentence in logs[0]["reason"]
    assert logs[0]["keys_kept"] == 3
    assert own(signed_by("EdDSA", "ed"), tokens) is not None


async def test_a_rotated_key_is_fetched_when_a_token_names_it_but_at_most_once_in_thirty_seconds() -> None:
    """An unknown `kid` is refused at once and brings the new keys in the background; a flood makes one request."""
    current = [keyset(jwk(ED, kid="old"))]
    hits: list[float] = []
    clock = [100.0]
    fetched = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        hits.append(clock[0])
        return web.Response(body=current[0])

    async with served(answer) as (url, fetch):

        async def noted(source: str) -> bytes:
            body = await fetch(source)
            fetched.set()
            return body

        jwks = await Jwks.load(url, noted, now=lambda: clock[0], period_s=3_600)
        tokens = Authenticator(secret=None, jwks=jwks, now=lambda: NOW)
        current[0] = keyset(jwk(OTHER_ED, kid="new"))
        new = signed_by("EdDSA", "new", key=OTHER_ED)
        async with running(jwks), asyncio.timeout(60):
            clock[0] += JWKS_RETRY_S - 0.1
            for stranger in range(100):
                assert own(signed_by("EdDSA", str(stranger)), tokens) is None
            assert not jwks._wanted.is_set()
            fetched.clear()
            clock[0] += 0.1
            assert "repeat the request in 30 seconds" in refusal(f"Bearer {new}", tokens).detail
            assert own(signed_by("EdDSA", "old"), tokens) is not None, "the old keys serve until the new ones are here"
            await fetched.wait()
            assert own(new, tokens) == Identity(1, "shopper", 0)
            assert own(signed_by("EdDSA", "old"), tokens) is None, "a key that the issuer withdrew is not trusted"
            assert not jwks._wanted.is_set()
    assert hits == [100.0, 100.0 + JWKS_RETRY_S]


async def test_keys_are_read_again_periodically_and_a_failure_does_not_end_that() -> None:
    """A withdrawn key stops working without any unknown token, and after an outage of the issuer."""
    rounds = 0
    third = asyncio.Event()

    async def fetch(source: str) -> bytes:
        nonlocal rounds
        rounds += 1
        if rounds == 2:
            raise aiohttp.ClientConnectionError
        if rounds == 4:  # the third answer is in use
            third.set()
        return ALL if rounds == 1 else keyset(jwk(EC, kid="ec"))

    jwks = await Jwks.load("https://issuer.example/keys", fetch, now=lambda: 0.0, period_s=0.001)
    tokens = Authenticator(secret=None, jwks=jwks, now=lambda: NOW)
    assert own(signed_by("EdDSA", "ed"), tokens) is not None
    async with running(jwks), asyncio.timeout(60):
        await third.wait()
        assert own(signed_by("EdDSA", "ed"), tokens) is None
        assert own(signed_by("ES256", "ec"), tokens) is not None


async def _fails(request: web.Request) -> web.StreamResponse:
    return web.Response(status=503)


async def _redirects(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/keys?again")


async def _floods(request: web.Request) -> web.StreamResponse:
    return web.Response(body=ALL + b" " * JWKS_MAX_BYTES)


async def _hangs_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(_fails, "status 503"), (_redirects, "status 302"), (_floods, "larger than"), (_hangs_up, "Disconnected")],
)
async def test_an_issuer_that_fails_stops_the_start_with_one_line_that_hides_the_urls_password(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]], reason: str
) -> None:
    """An error, a redirect (keys are trusted by their address), too much, nothing at all."""
    async with served(answer) as (url, fetch):
        secret_url = url.replace("http://", "http://user:hunter2@")
        with pytest.raises(SetupError, match=reason) as caught:
            await Jwks.load(secret_url, fetch, now=lambda: 0.0)
        assert "hunter2" not in caught.value.detail


async def test_nobody_listening_is_one_clear_line_at_the_start() -> None:
    """The address is not quoted."""
    async with served(_fails) as (url, _):
        pass
    async with aiohttp.ClientSession() as session:
        with pytest.raises(SetupError, match="FLASHSALE_JWKS cannot be read"):
            await Jwks.load(url, fetch_with(session), now=lambda: 0.0)


@pytest.mark.parametrize("scheme", ["", "file://"])
async def test_a_file_of_keys_is_read_again_like_a_url(tmp_path: Path, scheme: str) -> None:
    """By path or `file:` URL; a file that has gone keeps the old keys; one that was never there stops the start."""
    file = tmp_path / "keys.json"
    async with aiohttp.ClientSession() as session:
        with pytest.raises(SetupError, match="No such file"):
            await Jwks.load(f"{scheme}{file}", fetch_with(session), now=lambda: 0.0)
        file.write_bytes(keyset(jwk(ED)))
        jwks = await Jwks.load(f"{scheme}{file}", fetch_with(session), now=lambda: 0.0)
        tokens = Authenticator(secret=None, jwks=jwks, now=lambda: NOW)
        assert own(signed_by("EdDSA"), tokens) is not None
        file.write_bytes(keyset(jwk(EC)))
        assert await jwks.refresh() is True
        assert own(signed_by("EdDSA"), tokens) is None
        assert own(signed_by("ES256"), tokens) is not None
        file.unlink()
        assert await jwks.refresh() is False
        assert own(signed_by("ES256"), tokens) is not None
        file.write_bytes(b" " * (JWKS_MAX_BYTES + 1))
        assert await jwks.refresh() is False
