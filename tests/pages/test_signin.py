"""Signing in by the forum's redirect, by a header of a proxy, by choice in the demo; and what a session may not do."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from aiohttp import ClientSession, CookieJar, web

from flashsale import embedded
from flashsale.settings import Settings
from flashsale.web.app import make_runner
from flashsale.web.auth import Identity, mint
from flashsale.web.session import COOKIE, HINT, SECURE_COOKIE, Sessions
from tests.pages.conftest import FCODE_KEY, SECRET, NewSale
from tests.pages.support import Service
from tests.support import PATIENT

OURS = {"Sec-Fetch-Site": "same-origin"}
NewService = Callable[..., Awaitable[ClientSession]]


@pytest.fixture
async def new_service(urls: embedded.Servers) -> AsyncIterator[NewService]:
    """The application with other settings, and a browser-like client of it."""
    async with AsyncExitStack() as closing:

        async def make(**settings: Any) -> ClientSession:  # noqa: ANN401
            runner = await make_runner(
                Settings(
                    redis_url=urls.redis_url,
                    database_url=urls.database_url,
                    jwt_secret=SECRET,
                    fcode_keys=FCODE_KEY,
                    **PATIENT,
                    **settings,
                )
            )
            await runner.setup()
            closing.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            return await closing.enter_async_context(ClientSession(url, cookie_jar=CookieJar(unsafe=True)))

        yield make


def token(member: int = 41, **claims: Any) -> str:  # noqa: ANN401
    """What the forum says."""
    return mint(SECRET, member=member, expires_at=time.time() + 60, **claims)


async def session_of(http: ClientSession) -> dict[str, Any]:
    """Who the service thinks this is."""
    async with http.get("/v1/me/session") as answer:
        found: dict[str, Any] = msgspec.json.decode(await answer.read())
        return found


async def test_the_forum_sends_the_browser_back_with_a_token(new_service: NewService) -> None:
    """Out with a state that only this browser knows, back with it, and on to where one came from."""
    http = await new_service(sign_in_url="https://forum.example/enter?shop=1")
    async with http.get("/zh/sign-in?next=/zh/d/x", allow_redirects=False) as out:
        target = urlsplit(out.headers["Location"])
        asked = parse_qs(target.query)
    assert (target.hostname, asked["shop"]) == ("forum.example", ["1"])
    assert urlsplit(asked["return_to"][0]).path == "/sign-in/return"
    back = {"token": token(41, tier=2), "state": asked["state"][0]}
    async with http.get("/sign-in/return", params=back, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/zh/d/x")
        cookies = {c.key: c for c in answer.cookies.values()}
    assert cookies[COOKIE]["httponly"]
    assert cookies[COOKIE]["samesite"] == "Lax"
    assert not cookies[COOKIE]["secure"]  # the loopback
    assert not cookies[HINT]["httponly"]
    assert "41" not in cookies[HINT].value
    found = await session_of(http)
    assert (found["signed_in"], found["member"], found["role"]) == (True, 41, "shopper")


@pytest.mark.parametrize("broken", ["state", "token", "none"])
async def test_a_return_that_did_not_begin_here_signs_nobody_in(new_service: NewService, broken: str) -> None:
    """Somebody else's link cannot make this browser theirs."""
    http = await new_service(sign_in_url="https://forum.example/")
    if broken != "none":
        async with http.get("/en/sign-in", allow_redirects=False) as out:
            state = parse_qs(urlsplit(out.headers["Location"]).query)["state"][0]
    else:
        state = ""
    back = {"token": "x.y.z" if broken == "token" else token(), "state": "other" if broken == "state" else state}
    async with http.get("/sign-in/return", params=back, allow_redirects=False) as answer:
        assert answer.status == 401
        assert COOKIE not in answer.cookies
    assert (await session_of(http))["signed_in"] is False


async def test_a_proxy_s_header_signs_in_when_its_token_is_good(new_service: NewService) -> None:
    """The token is signed, so a header that anybody could send is worth nothing without one."""
    http = await new_service(sign_in_header="X-Forum-Token")
    forged = {"X-Forum-Token": token()[:-2] + "xx"}
    async with http.get("/en/sign-in", headers=forged, allow_redirects=False) as answer:
        assert answer.status == 401
    good = {"X-Forum-Token": token(42)}
    async with http.get("/en/sign-in?next=//evil.example/", headers=good, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/en/")
    assert (await session_of(http))["member"] == 42


async def test_without_the_demo_nobody_chooses_who_they_are(new_service: NewService) -> None:
    http = await new_service()
    async with http.post("/sign-in", data={"who": "1"}, headers=OURS, allow_redirects=False) as answer:
        assert answer.status == 404
    assert (await session_of(http))["signed_in"] is False


async def test_elsewhere_than_on_the_loopback_a_session_is_for_https_alone(new_service: NewService) -> None:
    """By the public address, or by the name that was asked for."""
    for settings, headers in (({"public_url": "https://shop.example"}, {}), ({}, {"Host": "shop.example"})):
        http = await new_service(sign_in_header="X-Forum-Token", **settings)
        asked = {"X-Forum-Token": token(), **headers}
        async with http.get("/en/sign-in", headers=asked, allow_redirects=False) as answer:
            assert answer.cookies[SECURE_COOKIE]["secure"]
            assert ("Strict-Transport-Security" in answer.headers) == ("public_url" in settings)


@pytest.mark.parametrize(
    ("headers", "meant"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": "http://{host}"}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://["}, False),
        ({}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://{host}"}, False),
    ],
)
async def test_a_press_by_session_must_come_from_our_own_page(
    service: Service, new_sale: NewSale, headers: dict[str, str], meant: bool, member: int
) -> None:
    """By Sec-Fetch-Site, else by Origin; without either it is refused. The same goes for confirming and giving back."""
    drop = await new_sale()
    sessions = service.context.sessions
    assert sessions is not None
    cookie = sessions.text(sessions.open(Identity(member, "shopper", 0)))
    host = urlsplit(service.url).netloc
    sent = {name: value.replace("{host}", host) for name, value in headers.items()}
    async with ClientSession(service.url, cookies={COOKIE: cookie}, cookie_jar=CookieJar(unsafe=True)) as http:
        http.cookie_jar.update_cookies({COOKIE: cookie})
        async with http.post(f"/v1/me/drops/{drop.id}/reservations", json={}, headers=sent) as answer:
            assert answer.status == (201 if meant else 403), await answer.text()
            body = await answer.json(content_type=None)
        if meant:
            async with http.post(f"/v1/reservations/{body['id']}/confirm", json={}) as answer:
                assert answer.status == 403
            async with http.post(f"/v1/reservations/{body['id']}/confirm", json={}, headers=sent) as answer:
                assert answer.status == 200


def test_a_session_that_was_touched_or_is_over_is_none() -> None:
    """Every single character counts; the secret, too; time ends it, and visits make it longer up to a limit."""
    now = [1000.0]
    sessions = Sessions(b"k" * 32, session_s=100, session_max_s=250, now=lambda: now[0])
    opened = sessions.open(Identity(7, "shopper", 1))
    text = sessions.text(opened)
    assert sessions.read(text) == opened
    for at in range(len(text)):
        assert sessions.read(f"{text[:at]}{'A' if text[at] != 'A' else 'B'}{text[at + 1 :]}") is None
    assert Sessions(b"x" * 32, session_s=100, session_max_s=250, now=lambda: now[0]).read(text) is None
    assert sessions.read("é.ü") is None
    assert sessions.renewed(opened) is None
    now[0] = 1060
    longer = sessions.renewed(opened)
    assert longer is not None
    assert longer.until == 1160
    assert sessions.renewed(opened, needed_until_s=9_999).until == 1250  # type: ignore[union-attr]
    now[0] = 1101
    assert sessions.read(text) is None


async def test_who_may_only_read_sees_all_and_changes_nothing(service: Service, new_sale: NewSale) -> None:
    """The role ops-read: by token; every operator's call but the export of codes, which is an act."""
    drop = await new_sale()
    reader = {"Authorization": f"Bearer {service.token(2, 'ops-read')}"}
    async with ClientSession(service.url, headers=reader) as http:
        for path in ("drops", f"drops/{drop.id}", f"drops/{drop.id}/balance", "audit", "orders", "fcodes"):
            async with http.get(f"/v1/ops/{path}") as answer:
                assert answer.status == 200, path
        for method, path in (
            ("POST", "drops"),
            ("PATCH", f"drops/{drop.id}"),
            ("POST", f"drops/{drop.id}/pause"),
            ("POST", "pictures"),
            ("GET", "fcodes/1.csv"),
        ):
            async with http.request(method, f"/v1/ops/{path}", data=b"{}") as answer:
                assert answer.status == 403, path
    shopper = {"Authorization": f"Bearer {service.token(3)}"}
    async with ClientSession(service.url, headers=shopper) as http, http.get("/v1/ops/drops") as answer:
        assert answer.status == 403
