"""What everything is compared with: an empty aiohttp POST handler, served as the product is.

    python -m loadtests.bench.empty PORT

The same server program on the same loop (`serving`), one process, no access log; a request is parsed, routed and
answered, and nothing else happens.
"""

import sys

from aiohttp import web

from loadtests.bench.serving import UVLOOP, Served


async def empty(_: web.Request) -> web.Response:
    """Answer, and do nothing."""
    return web.Response()


async def make_app() -> web.Application:
    """The application with that one handler at the path where the product has its own."""
    app = web.Application()
    app.router.add_post("/v1/drops/{drop}/reservations", empty)
    return app


if __name__ == "__main__":
    Served(int(sys.argv[1]), make_app, UVLOOP).run()
