"""Connections to Redis: standalone, Sentinel or Cluster, by URL, with the client's own retries off.

Retries are off because an id is used in one decide call only: a library that sends the same call
again after a lost reply would hear "again" about a grant that nobody was told of (PROTOCOL.md, step 1).
So a connection that died while it was idle must be noticed before it is used. The library does that only without its
maintenance notifications, a feature of hosted servers: they are off.

`Gate` gives up a call in time, and the connection with it. A time-out of the client's own on top of that is a task for
each command, 60 of the 170 µs that a call costs here; only a cluster's client has one, for it is by its own time-outs
that it notices a primary that stands still, and asks who has taken its place.
"""

from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from flashsale.errors import SetupError

CONNECTIONS_MAX: Final = 64
SENTINEL_PORT: Final = 26379


class Client(Protocol):
    """What the gate needs of a Redis client."""

    async def execute_command(self, *args: Any) -> Any:  # noqa: ANN401 -- as the library declares it
        """Send one command and return its reply."""

    async def aclose(self) -> None:
        """Close all connections."""


class _WatchedPrimary:
    """The primary that Sentinel names. Closing it closes the connections to the Sentinels, too."""

    def __init__(self, sentinel: Sentinel, primary: Client) -> None:
        self._sentinel = sentinel
        self._primary = primary

    async def execute_command(self, *args: Any) -> Any:  # noqa: ANN401 -- as the library declares it
        return await self._primary.execute_command(*args)

    async def aclose(self) -> None:
        await self._primary.aclose()
        for each in self._sentinel.sentinels:
            await each.aclose()


def _hosts(netloc: str, default_port: int) -> list[tuple[str, int]]:
    hosts = []
    for part in netloc.rpartition("@")[2].split(","):
        host, _, port = part.partition(":")
        if not host or not (port or str(default_port)).isdigit():
            raise SetupError(f"FLASHSALE_REDIS_URL names no host in {part!r}; write host:port, separated by commas.")
        hosts.append((host, int(port or default_port)))
    return hosts


def connect(url: str, *, timeout_s: float) -> Client:
    """A client for `url`; connects on first use. To connect may take `timeout_s`; who calls sees to the time of calls.

    `redis://`, `rediss://`, `unix://` for one server, `redis+cluster://[user:password@]host:port,…` for a cluster,
    `redis+sentinel://[user:password@]host:port,…/service` for a primary that Sentinel names.
    """
    parts = urlsplit(url)
    once = Retry(NoBackoff(), 0)
    no_notices = MaintNotificationsConfig(enabled=False)
    username = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    if parts.scheme in {"redis", "rediss", "unix"}:
        return Redis.from_url(
            url,
            socket_timeout=None,
            socket_connect_timeout=timeout_s,
            retry=once,
            retry_on_error=[],
            max_connections=CONNECTIONS_MAX,
            maint_notifications_config=no_notices,
        )
    if parts.scheme == "redis+cluster":
        cluster: Client = RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in _hosts(parts.netloc, 6379)],
            username=username,
            password=password,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=once,
            max_connections=CONNECTIONS_MAX,
            maint_notifications_config=no_notices,
        )
        return cluster
    if parts.scheme == "redis+sentinel":
        hosts = _hosts(parts.netloc, SENTINEL_PORT)
        each_s = timeout_s / (len(hosts) + 1)  # so that one that is away leaves time to ask the others, and the primary
        ask = {"socket_timeout": each_s, "socket_connect_timeout": each_s, "retry": once, "retry_on_error": []}
        sentinel = Sentinel(hosts, sentinel_kwargs=ask)  # type: ignore[no-untyped-call]
        primary: Client = sentinel.master_for(
            parts.path.strip("/") or "mymaster",
            username=username,
            password=password,
            socket_timeout=None,
            socket_connect_timeout=timeout_s,
            retry=once,
            retry_on_error=[],
            max_connections=CONNECTIONS_MAX,
            maint_notifications_config=no_notices,
        )
        return _WatchedPrimary(sentinel, primary)
    raise SetupError(
        f"FLASHSALE_REDIS_URL has the scheme {parts.scheme!r}; "
        "use redis://, rediss://, unix://, redis+cluster:// or redis+sentinel://."
    )
