"""`flashsale serve`: the web processes, on one socket, under gunicorn, which starts again what dies or hangs.

A stop (SIGTERM) lets accepted requests finish, for `shutdown_timeout_s` at most, and takes nothing new.
"""

import errno
import math
import os
import random
import re
import resource
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import psutil
import structlog
from aiohttp import web
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from flashsale.errors import SetupError
from flashsale.process import libraries_to_structlog, require_stores, until_available, url_of
from flashsale.settings import Settings
from flashsale.web.auth import mint

KEEPALIVE_S: Final = 75
"""Longer than the 60 s after which the usual proxies drop an idle connection: they, not we, close first."""
HANG_TIMEOUT_S: Final = 60
"""A process whose event loop says nothing for this long is replaced."""
CLEANUP_S: Final = 5
"""For closing the stores, after the last request has been answered."""
BACKLOG: Final = 4096
"""Connections that may wait for `accept` at an opening; the system's own limit may be lower."""
FILES_MAX: Final = 65_536
METRICS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"

log = structlog.get_logger()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. `SetupError` says why there is none."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SetupError(f"{host!r} is no address to listen on: {error.strerror}.") from None
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger do not count
        found.bind(address)
        found.listen(BACKLOG)
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            raise SetupError(
                f"Port {port} on {host} is taken. Stop what listens there, or choose another with --port "
                "(FLASHSALE_PORT)."
            ) from None
        raise SetupError(f"Cannot listen on port {port} of {host}: {error.strerror}.") from None
    return found


def check_secret(secret: str) -> None:
    """`SetupError` when no token could be signed with it."""
    mint(secret, member=1, expires_at=time.time())


class _Gunicorn(BaseApplication):  # type: ignore[misc]  # gunicorn is untyped
    """Gunicorn, set up by our settings alone: it reads no file, no argument and no variable of its own."""

    def __init__(self, settings: Settings, listening: socket.socket) -> None:
        self._settings = settings
        self._fd = listening.detach()
        self._notify: Callable[[], None] = lambda: None
        super().__init__()

    def load_config(self) -> None:
        """Say all that differs from gunicorn's defaults."""
        values: dict[str, Any] = {
            "bind": f"fd://{self._fd}",
            "workers": self._settings.workers,
            "worker_class": "aiohttp.GunicornUVLoopWebWorker",
            "timeout": HANG_TIMEOUT_S,
            "graceful_timeout": math.ceil(self._settings.shutdown_timeout_s) + CLEANUP_S,
            "keepalive": KEEPALIVE_S,
            "proc_name": "flashsale",
            "preload_app": False,
            "accesslog": None,
            "loglevel": "warning",
            "logconfig_dict": {  # its lines go the way of all others
                "root": {"level": "WARNING", "handlers": ["structlog"]},
                "loggers": {"gunicorn.error": {"level": "WARNING", "handlers": [], "propagate": True}},
                "handlers": {"structlog": {"class": "flashsale.process._ToStructlog"}},
            },
            "control_socket_disable": True,  # it would be one for all services of an account
            "post_fork": self._forked,
            "child_exit": _forget,
        }
        for name, value in values.items():
            self.cfg.set(name, value)

    def _forked(self, _arbiter: object, worker: Any) -> None:  # noqa: ANN401 -- gunicorn is untyped
        self._notify = worker.notify

    def load(self) -> Callable[[], Awaitable[web.AppRunner]]:
        """What a web process runs; called in that process."""
        from flashsale.web.app import make_runner  # noqa: PLC0415 -- after the fork, and after METRICS_VARIABLE is set

        async def runner() -> web.AppRunner:
            libraries_to_structlog()
            try:
                return await until_available(
                    lambda: make_runner(self._settings),
                    jitter=random.random,
                    on_wait=self._notify,  # waiting is not hanging
                )
            except SetupError as error:
                log.error("web.cannot_start", detail=error.detail)  # noqa: TRY400 -- the sentence says it all
                sys.exit(Arbiter.APP_LOAD_ERROR)

        return runner


def _forget(_arbiter: object, worker: Any) -> None:  # noqa: ANN401 -- gunicorn is untyped
    """Take an ended process' share out of the gauges."""
    from prometheus_client import multiprocess  # noqa: PLC0415 -- after METRICS_VARIABLE is set

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def _forget_earlier(folder: Path) -> None:
    """The same for processes that ended with a master which could not say so."""
    for path in folder.glob("gauge_live*.db"):
        found = re.search(r"_(\d+)\.db$", path.name)
        if found and not psutil.pid_exists(int(found[1])):
            path.unlink(missing_ok=True)


def raise_files_limit() -> None:
    """Let this process hold as many connections as the system allows it; the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def serve(settings: Settings) -> int:
    """Serve until stopped by a signal; the exit code. `SetupError` before anything starts, if it cannot."""
    require_stores(settings)
    _ = settings.fcode_ring  # read once, so that what is wrong with it is said before anything starts
    if settings.jwt_secret is not None:
        check_secret(settings.jwt_secret)
    elif settings.jwks is None:
        raise SetupError("No token could be verified: set FLASHSALE_JWT_SECRET or FLASHSALE_JWKS.")
    listening = listen(settings.host, settings.port)
    raise_files_limit()
    folder = os.environ.get(METRICS_VARIABLE)
    if folder is not None:
        _forget_earlier(Path(folder))
        return _run(settings, listening)
    folder = os.environ[METRICS_VARIABLE] = tempfile.mkdtemp(prefix="flashsale-metrics-")
    master = os.getpid()
    try:
        return _run(settings, listening)
    finally:
        if os.getpid() == master:  # web processes come by here as well when they end
            shutil.rmtree(folder, ignore_errors=True)


def _run(settings: Settings, listening: socket.socket) -> int:
    assert "prometheus_client" not in sys.modules, "it reads METRICS_VARIABLE once, when it is imported"
    from flashsale.log import configure  # noqa: PLC0415 -- as said

    configure(settings.log_format)
    url = url_of(settings.host, listening.getsockname()[1])
    log.info("web.serving", url=url, processes=settings.workers)
    master = os.getpid()
    try:
        Arbiter(_Gunicorn(settings, listening)).run()
    except SystemExit as ended:
        if os.getpid() != master:  # a web process; gunicorn knows the code
            raise
        return _exit_code(ended.code)
    raise AssertionError("gunicorn ends by SystemExit")


def _exit_code(code: object) -> int:
    """Gunicorn's exit code in the words of ours: 0 done, 1 failed, 2 set-up."""
    if code in (0, None):
        return 0
    return 2 if code == Arbiter.APP_LOAD_ERROR else 1
