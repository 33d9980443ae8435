"""What everything is compared with: an empty aiohttp POST handler, served as the product is.

    python -m loadtests.bench.empty PORT

The same server program (gunicorn with aiohttp's uvloop worker), one process, no access log; a request is parsed, routed
and answered, and nothing else happens.
"""

import sys

from aiohttp import web
from gunicorn.app.base import BaseApplication

KEEPALIVE_S = 75


async def empty(_: web.Request) -> web.Response:
    """Answer, and do nothing."""
    return web.Response()


def make_app() -> web.Application:
    """The application with that one handler at the path where the product has its own."""
    app = web.Application()
    app.router.add_post("/v1/drops/{drop}/reservations", empty)
    return app


class _Gunicorn(BaseApplication):  # type: ignore[misc]  # gunicorn is untyped
    def __init__(self, port: int) -> None:
        self._port = port
        super().__init__()

    def load_config(self) -> None:
        """Say all that differs from gunicorn's defaults."""
        values = {
            "bind": f"127.0.0.1:{self._port}",
            "workers": 1,
            "worker_class": "aiohttp.GunicornUVLoopWebWorker",
            "keepalive": KEEPALIVE_S,
            "accesslog": None,
            "loglevel": "warning",
            "control_socket_disable": True,
        }
        for name, value in values.items():
            self.cfg.set(name, value)

    def load(self) -> web.Application:
        """Make the application, in the worker."""
        return make_app()


if __name__ == "__main__":
    _Gunicorn(int(sys.argv[1])).run()
