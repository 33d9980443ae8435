"""What the processes share: where they find each other, patience with stores that are away, one form of log lines."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import structlog

from flashsale.errors import SetupError, Unavailable
from flashsale.settings import Settings

RUN_FILE: Final = "run.json"
SECRET_FILE: Final = "jwt_secret"  # noqa: S105 -- a file's name
FCODE_KEYS_FILE: Final = "fcode_keys"
"""All in the data directory, written by `flashsale up`: what runs where, and the secrets that it made."""
RETRY_BASE_S: Final = 0.1
RETRY_MAX_S: Final = 2.0
STEADY_S: Final = 10.0
"""An attempt that lasted this long had its stores: when they go again, the delays begin anew."""

Result = TypeVar("Result")

log = structlog.get_logger()


def kept_secret(data_dir: Path) -> str | None:
    """The secret that `up` made in this data directory; None when there is none."""
    path = data_dir / SECRET_FILE
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SetupError(f"The secret in {path} cannot be read: {error.strerror}.") from None


def url_of(host: str, port: int) -> str:
    """Where a client on this machine reaches a service that listens on `host`."""
    near = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 -- compared, not bound
    return f"http://[{near}]:{port}" if ":" in near else f"http://{near}:{port}"


def require_stores(settings: Settings) -> tuple[str, str]:
    """The URLs of Redis and Postgres; `SetupError` when one is not set."""
    redis_url, database_url = settings.redis_url, settings.database_url
    if redis_url is None or database_url is None:
        missing = "FLASHSALE_REDIS_URL" if redis_url is None else "FLASHSALE_DATABASE_URL"
        raise SetupError(f"{missing} is not set. Set it, or use `flashsale up`, which brings servers of its own.")
    return redis_url, database_url


def retry_delay_s(failures: int, chance: float) -> float:
    """Seconds before the next attempt: doubling up to a cap, each shortened by up to a half.

    `chance` in [0, 1) spreads the attempts of processes that lost their stores together.
    """
    full: float = min(RETRY_MAX_S, RETRY_BASE_S * 2 ** min(failures, 16))
    return full * (1 - chance / 2)


async def until_available(
    attempt: Callable[[], Awaitable[Result]],
    *,
    jitter: Callable[[], float],
    on_wait: Callable[[], None] = lambda: None,
) -> Result:
    """What `attempt` returns, as soon as the stores let it. Other faults than `Unavailable` pass through.

    `on_wait` is called before each wait; `jitter` gives numbers in [0, 1).
    """
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        since = loop.time()
        try:
            return await attempt()
        except Unavailable as fault:
            failures = 0 if loop.time() - since >= STEADY_S else failures
            delay_s = retry_delay_s(failures, jitter())
            log.warning("stores.away", detail=fault.detail, retry_in_s=round(delay_s, 2))
        on_wait()
        await asyncio.sleep(delay_s)
        failures += 1


class _ToStructlog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Write what a library has to say like a line of our own."""
        try:
            fault = {"exc_info": record.exc_info} if record.exc_info else {}
            log.log(record.levelno, "library", logger=record.name, message=record.getMessage(), **fault)
        except Exception:  # noqa: BLE001 -- a log line that cannot be written must not stop the process
            self.handleError(record)


def libraries_to_structlog() -> None:
    """Send warnings and errors of libraries the way of our own log lines."""
    logging.basicConfig(level=logging.WARNING, handlers=[_ToStructlog()], force=True)
