"""The frame of the pages: headers, assets, languages, what is the same for everybody."""

import re

import pytest
from aiohttp import ClientSession

from tests.pages.conftest import NewSale, Visit
from tests.pages.support import Service
from tests.support import allocation


async def test_a_page_shows_and_nothing_is_complained_about(visit: Visit, new_sale: NewSale) -> None:
    """With the policy in force: no console line, the countdown runs."""
    drop = await new_sale(allocation(opens_in_s=600))
    opened = await visit(f"/en/d/{drop.id}")
    await opened.state("upcoming")
    assert await opened.page.title() == "Engineering edition · Flashsale"


async def test_a_page_is_the_same_for_two_members(http: ClientSession, service: Service, new_sale: NewSale) -> None:
    """Byte for byte, whoever is signed in: a CDN may keep it."""
    drop = await new_sale()
    bodies = set()
    for member in (None, 11, 12):
        headers = {} if member is None else {"Authorization": f"Bearer {service.token(member)}"}
        async with http.get(f"/en/d/{drop.id}", headers=headers) as answer:
            assert answer.status == 200
            assert answer.headers["Cache-Control"].startswith("public")
            assert "Set-Cookie" not in answer.headers
            bodies.add((answer.headers["ETag"], await answer.read()))
    assert len(bodies) == 1


async def test_a_known_tag_is_answered_without_a_body(http: ClientSession, new_sale: NewSale) -> None:
    """Also with a list of tags; an edit makes another."""
    drop = await new_sale()
    async with http.get(f"/zh/d/{drop.id}") as answer:
        tag = answer.headers["ETag"]
    async with http.get(f"/zh/d/{drop.id}", headers={"If-None-Match": f'"x", {tag}'}) as again:
        assert (again.status, await again.read()) == (304, b"")


@pytest.mark.parametrize(
    "path", ["/en/", "/zh/sign-in", "/en/d/no-such-drop", "/assets/x/style.css", "/", "/pictures/x"]
)
async def test_every_answer_says_what_browsers_may_do(http: ClientSession, path: str) -> None:
    async with http.get(path, allow_redirects=False) as answer:
        if path == "/pictures/x":
            assert answer.status == 404
            return
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "require-trusted-types-for 'script'" in policy
        assert "unsafe" not in policy
        assert set(re.findall(r"'[^']+'", policy)) <= {"'none'", "'self'", "'script'"}
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"


async def test_assets_are_kept_for_ever_under_their_version(http: ClientSession) -> None:
    """The page names the version; under another one there is the same content, and nobody keeps it."""
    async with http.get("/en/") as answer:
        path = re.findall(r'href="(/assets/[0-9a-f]+/style\.css)"', await answer.text())[0]
    async with http.get(path) as answer:
        assert "immutable" in answer.headers["Cache-Control"]
        style = await answer.text()
    async with http.get("/assets/0123/style.css") as answer:
        assert answer.headers["Cache-Control"] == "no-cache"
        assert await answer.text() == style
    async with http.get("/assets/0123/no-such.css") as answer:
        assert answer.status == 404


@pytest.mark.parametrize(
    ("asked", "language"),
    [("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("en-GB,en;q=0.9", "en"), ("fr, zh;q=0.2", "zh"), ("", "en"), ("*;q=x", "en")],
)
async def test_the_first_page_is_in_the_language_that_the_browser_asks_for(
    http: ClientSession, asked: str, language: str
) -> None:
    async with http.get("/", headers={"Accept-Language": asked}, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, f"/{language}/")
        assert answer.headers["Vary"] == "Accept-Language"
