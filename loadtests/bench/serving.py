"""The server program that the product is served by, for handlers that it is compared with."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from gunicorn.app.base import BaseApplication

KEEPALIVE_S = 75
BACKLOG = 4096
UVLOOP = "aiohttp.GunicornUVLoopWebWorker"
STANDARD_LOOP = "aiohttp.GunicornWebWorker"


class Served(BaseApplication):  # type: ignore[misc]  # gunicorn is untyped
    """Gunicorn with aiohttp's worker, one process, no access log: as the product is served.

    `make` returns what is served; it is called in the process that serves.
    """

    def __init__(self, port: int, make: Callable[[], Awaitable[web.AppRunner | web.Application]], worker: str) -> None:
        self._port = port
        self._make = make
        self._worker = worker
        super().__init__()

    def load_config(self) -> None:
        """Say all that differs from gunicorn's defaults."""
        values = {
            "bind": f"127.0.0.1:{self._port}",
            "backlog": BACKLOG,
            "workers": 1,
            "worker_class": self._worker,
            "keepalive": KEEPALIVE_S,
            "accesslog": None,
            "loglevel": "warning",
            "control_socket_disable": True,
        }
        for name, value in values.items():
            self.cfg.set(name, value)

    def load(self) -> Callable[[], Awaitable[web.AppRunner | web.Application]]:
        """What the worker awaits."""

        async def made() -> web.AppRunner | web.Application:
            return await self._make()

        return made
