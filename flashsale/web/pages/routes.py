"""Every address of the pages. None is part of the API: they answer people, with HTML."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from aiohttp import web

from flashsale.errors import Refused, Unauthenticated, Unavailable
from flashsale.web.context import Context
from flashsale.web.pages import operators, shopper, signin
from flashsale.web.pages.assets import FOR_EVER
from flashsale.web.pages.serving import body_of, send
from flashsale.web.pages.site import SITE, Site
from flashsale.web.pages.words import LANGUAGES, Language, preferred
from flashsale.web.pictures import PICTURES, TYPES
from flashsale.web.problems import STATUS, spread_s
from flashsale.web.routing import CONTEXT

Page = Callable[[web.Request, Context, Site, Language], Awaitable[web.StreamResponse]]

PAGES: Final[tuple[tuple[str, str, Page], ...]] = (
    ("GET", "/", shopper.album),
    ("GET", "/d/{drop}", shopper.drop_page),
    ("GET", "/reservations", partial(shopper.shell, "reservations.html")),
    ("GET", "/fcodes", partial(shopper.shell, "fcodes.html")),
    ("GET", "/sign-in", signin.sign_in_page),
    *operators.SHEETS,
)
"""Each below the language: `/zh/…`, `/en/…`."""


def page(handler: Page, language: Language) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler of one page: what it refuses becomes a page, too."""

    async def handle(request: web.Request) -> web.StreamResponse:
        context, site = request.app[CONTEXT], request.app[SITE]
        try:
            return await handler(request, context, site, language)
        except Refused as refused:
            return _sorry(request, site, language, refused.code, STATUS[refused.code])
        except Unauthenticated:
            return _sorry(request, site, language, "unauthenticated", 401)
        except Unavailable as away:
            answer = _sorry(request, site, language, "unavailable", 503)
            answer.headers["Retry-After"] = str(spread_s(away.retry_after_s))
            return answer

    return handle


def _sorry(request: web.Request, site: Site, language: Language, code: str, status: int) -> web.Response:
    body = site.kept("sorry.html", language, code, {"code": code})
    return send(request, body, site.headers, cache="no-store", status=status)


async def _home(request: web.Request) -> web.StreamResponse:
    language = preferred(request.headers.get("Accept-Language", ""))
    headers = {**request.app[SITE].headers, "Location": f"/{language}/", "Vary": "Accept-Language"}
    return web.Response(status=302, headers={**headers, "Cache-Control": "no-cache"})


async def _asset(request: web.Request) -> web.StreamResponse:
    site = request.app[SITE]
    return site.assets.answer(request, site.headers)


async def _picture(request: web.Request) -> web.StreamResponse:
    name = request.match_info["name"]
    content = await request.app[PICTURES].get(request.app[CONTEXT], name)
    if content is None:
        raise web.HTTPNotFound
    body = body_of(content, TYPES[name.rpartition(".")[2]])
    return send(request, body, request.app[SITE].headers, cache=FOR_EVER)


async def _plain(handler: Page, request: web.Request) -> web.StreamResponse:
    """What has no language of its own."""
    return await page(handler, preferred(request.headers.get("Accept-Language", "")))(request)


async def _nothing(_request: web.Request, _context: Context, _site: Site, _language: Language) -> web.StreamResponse:
    raise Refused("not_found", "There is nothing at this address.")


def register(app: web.Application, site: Site) -> None:
    """Put the pages on the router."""
    app[SITE] = site
    app.router.add_get("/", _home)
    app.router.add_get("/assets/{version}/{name}", _asset)
    app.router.add_get("/pictures/{name}", _picture)
    app.router.add_post("/sign-in", partial(_plain, signin.sign_in))
    app.router.add_get("/sign-in/return", partial(_plain, signin.sign_in_return))
    app.router.add_post("/sign-out", partial(_plain, signin.sign_out))
    for language in LANGUAGES:
        for method, path, handler in PAGES:
            if method == "GET":
                app.router.add_get(f"/{language}{path}", page(handler, language))  # HEAD, too
            else:
                app.router.add_route(method, f"/{language}{path}", page(handler, language))
        app.router.add_get(f"/{language}{{rest:.*}}", page(_nothing, language))
