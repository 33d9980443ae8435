"""A look at an operator's own servers before anything starts: reachable, let us in, new enough."""

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg
import redis.asyncio as redis
from redis import exceptions as redis_errors
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff

from flashsale.errors import SetupError

REDIS_MINIMUM: Mapping[str, tuple[int, int]] = {"redis": (7, 0), "valkey": (8, 0)}
POSTGRES_MINIMUM = 150_000
"""As `server_version_num`: 15."""
TIMEOUT_S = 5.0
ONCE = Retry(NoBackoff(), 0)
"""The client's own habit is to try for seconds; whoever waits here asks again by itself, or wants to know at once."""


async def check_redis(
    url: str, *, minimum: Mapping[str, tuple[int, int]] = REDIS_MINIMUM, timeout_s: float = TIMEOUT_S
) -> None:
    """SetupError, in one line that names the host and never the password, unless the gate can live on this server.

    Takes `redis://`, `rediss://`, `redis+cluster://host:port,…` and `redis+sentinel://host:port,…/service`.
    """
    where = _where(url, 6379)
    try:
        info = await _redis_info(url, timeout_s)
    except MasterNotFoundError:
        raise SetupError(f"The Sentinels at {where} know no such service as the Redis URL names.") from None
    except redis_errors.AuthenticationError:  # before ConnectionError, of which it is one
        raise SetupError(f"Redis at {where} refuses the login. Check user and password in the URL.") from None
    except redis_errors.NoPermissionError:
        raise SetupError(f"Redis at {where} does not let this user call INFO. Give the user more rights.") from None
    except (redis_errors.RedisError, OSError) as error:
        raise SetupError(f"Redis at {where} cannot be reached: {_reason(error)}.") from None
    name = "valkey" if "valkey_version" in info else "redis"
    version = str(info.get(f"{name}_version", "0"))
    if _numbers(version) < minimum[name]:
        least = ".".join(map(str, minimum[name]))
        raise SetupError(f"{name.capitalize()} at {where} is {version}; at least {least} is needed.")


async def check_database(url: str, *, minimum: int = POSTGRES_MINIMUM, timeout_s: float = TIMEOUT_S) -> None:
    """SetupError, in one line that names the host and never the password, unless the ledger can live on this server."""
    where = _where(url, 5432)
    if not url.startswith(("postgresql://", "postgres://")):
        raise SetupError("The database URL must begin with postgresql://.")
    try:
        connection = await asyncpg.connect(url, timeout=timeout_s)
        try:
            number = int(await connection.fetchval("SHOW server_version_num"))
            version = str(await connection.fetchval("SHOW server_version"))
            standby = bool(await connection.fetchval("SELECT pg_is_in_recovery()"))
        finally:
            await connection.close(timeout=timeout_s)
    except asyncpg.InvalidAuthorizationSpecificationError:  # the wrong password is one
        raise SetupError(f"Postgres at {where} refuses the login. Check user and password in the URL.") from None
    except asyncpg.InvalidCatalogNameError:
        raise SetupError(f"Postgres at {where} has no such database as the URL names. Create it first.") from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
        raise SetupError(f"Postgres at {where} cannot be reached: {_reason(error)}.") from None
    if number < minimum:
        raise SetupError(f"Postgres at {where} is {version}; at least {minimum // 10_000} is needed.")
    if standby:
        raise SetupError(f"Postgres at {where} is a standby; the ledger needs the primary.")


async def _redis_info(url: str, timeout_s: float) -> Mapping[str, object]:
    """INFO of the server, of one node of the cluster, or of the master that the Sentinels name."""
    options: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s, "retry": ONCE}
    scheme, _, rest = url.partition("://")
    if scheme in ("redis", "rediss"):
        try:
            client = redis.Redis.from_url(url, **options)
        except ValueError as error:
            raise SetupError(f"The Redis URL is wrong: {error}.") from None
        async with client:
            return dict(await client.info("server"))
    if scheme not in ("redis+cluster", "redis+sentinel"):
        raise SetupError("The Redis URL must begin with redis://, rediss://, redis+cluster:// or redis+sentinel://.")
    netloc, _, path = rest.partition("/")
    login, _, _ = netloc.rpartition("@")
    user, _, password = login.partition(":")
    login_options = {"username": unquote(user) or None, "password": unquote(password) or None}
    hosts = _hosts(url, 6379 if scheme == "redis+cluster" else 26379)
    if scheme == "redis+cluster":
        return await _cluster_info(hosts, options | login_options)
    sentinel = Sentinel(hosts, sentinel_kwargs=options, **options, **login_options)  # type: ignore[no-untyped-call]
    try:
        async with sentinel.master_for(path.partition("?")[0]) as master:
            return dict(await master.info("server"))
    finally:
        for one in sentinel.sentinels:
            await one.aclose()


async def _cluster_info(hosts: list[tuple[str, int]], options: Mapping[str, Any]) -> Mapping[str, object]:
    """INFO of the first node that can be reached; SetupError if it is in no cluster, or in one that does not serve."""
    unreachable: redis_errors.RedisError | OSError | None = None
    for host, port in hosts:
        async with redis.Redis(host=host, port=port, **options) as node:
            try:
                info = dict(await node.info("server"))
                state = dict(await node.cluster("info"))["cluster_state"]
            except redis_errors.AuthenticationError:
                raise
            except (redis_errors.ConnectionError, redis_errors.TimeoutError, OSError) as error:
                unreachable = error
                continue
            except redis_errors.ResponseError:
                raise SetupError(
                    f"Redis at {host}:{port} is in no cluster. Use a redis:// URL, or enable its cluster mode."
                ) from None
            if state != "ok":
                raise SetupError(f"The Redis cluster of {host}:{port} does not serve all slots (its state: {state}).")
            return info
    raise unreachable or redis_errors.ConnectionError("no host given")


def _hosts(url: str, default_port: int) -> list[tuple[str, int]]:
    netloc = url.partition("://")[2].partition("/")[0].partition("?")[0].rpartition("@")[2]
    hosts = []
    try:
        for part in netloc.split(","):
            split = urlsplit(f"//{part}")
            hosts.append((split.hostname or "localhost", split.port or default_port))
    except ValueError as error:
        raise SetupError(f"A URL's host or port is wrong: {error}.") from None
    return hosts


def _where(url: str, default_port: int) -> str:
    """The hosts and ports of a URL, without its login."""
    return ", ".join(
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in _hosts(url, default_port)
    )


def _reason(error: Exception) -> str:
    """Why, in a few words, without addresses (the line has them) and never with a login."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed ({cause.reason or 'handshake'})"
        if isinstance(cause, TimeoutError | redis_errors.TimeoutError):
            return "no answer in time"
        if isinstance(cause, ConnectionRefusedError):
            return "nothing listens there"
        cause = cause.__cause__ or cause.__context__
    return f"{type(error).__name__}: {error}".rstrip(".")


def _numbers(version: str) -> tuple[int, int]:
    major, minor = (*version.split("."), "0")[:2]
    return int(major), int(minor)
