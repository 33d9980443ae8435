"""Reads the gate: its raw keys, standalone, behind Sentinel or in a cluster, without a script of the product's.

One hash tag per drop and stripe, `fs3:{drop:stripe}:`, and below it

- `meta`: hash `epoch`, `replid`, `paused`, `closed`, `limit`, `order` (MessagePack [allocation …]), `bound`
  (MessagePack [batch …]), and per allocation `a:<id>` (MessagePack [opens ms, closes ms, kind, argument]) and
  `n:<id>`, the units that are left;
- `ent`: hash member → its entries, one a line: id, allocation, quantity, slot, key, payload, code, by tabs; `@` at the
  end: the unit is on another stripe, which has an entry of it, too;
- `pend`: sorted set `id|member` by time in ms;
- `codes`: hash `b:<batch>` (MessagePack [allocation, expires ms, revoked, count, bound]), `s:<batch>:<thousand>` and
  `r:<batch>:<thousand>`, bitmaps of the spent and the revoked; `elig:<list>` and `bound:<batch>`: see `lists`.

Each has a sentinel `#`: one without it is half a copy. Errors: `Unreadable`.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import redis
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode

from flashsale.audit.facts import Entry, Head, Pending
from flashsale.audit.report import Unreadable, uuid_bytes

LAYOUT: Final = "fs3"
TIMEOUT_S: Final = 10.0
FIELDS_AT_ONCE: Final = 2_000
REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379
SHOWN_MAX_CHARS: Final = 80

_FAULTS: Final[tuple[type[Exception], ...]] = (redis.RedisError, OSError, TimeoutError)
# The clock and the identity of the very server that has the key.
_SERVER: Final = "local t = redis.call('TIME') return {t[1], t[2], redis.call('INFO', 'replication'), KEYS[1]}"


class GateReader:
    """A client of the gate that only reads."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401 -- one of three clients with the same methods
        self._client = client

    async def head(self, drop: str, stripe: int) -> Head:
        """The small part of a stripe."""
        tag = f"{LAYOUT}:{{{drop}:{stripe}}}"
        with _readable():
            seconds, us, info, _ = await self._client.eval(_SERVER, 1, f"{tag}:meta")
            meta = await self._client.hgetall(f"{tag}:meta")
            pend = await self._client.zrange(f"{tag}:pend", 0, -1, withscores=True)
            whole = {
                "meta": bool(meta),
                "ent": await self._client.hexists(f"{tag}:ent", "#"),
                "pend": any(member == b"#" for member, _ in pend),
                "codes": await self._client.hexists(f"{tag}:codes", "#"),
            }
            replid = next((li for li in info.decode().split() if li.startswith("master_replid:")), ":")
            return Head(
                now=int(seconds) * 1_000_000 + int(us),
                replid=replid.partition(":")[2],
                meta={name.decode(): value for name, value in meta.items()},
                pending=[_pending(member, score) for member, score in pend if member != b"#"],
                missing=tuple(name for name, there in whole.items() if not there),
            )

    async def entries(self, drop: str, stripe: int) -> AsyncIterator[list[Entry | str]]:
        """All entries of a stripe, some at a time; what is none, as text. A scan may show a member twice: once here."""
        seen: set[bytes] = {b"#"}
        async for fields in self._fields(f"{LAYOUT}:{{{drop}:{stripe}}}:ent"):
            new = fields.keys() - seen
            seen |= new
            yield [_entry(member, line, stripe) for member in new for line in fields[member].decode().split("\n")]

    async def codes(self, drop: str, stripe: int) -> dict[bytes, bytes]:
        """What the gate knows of F-codes, but for whose they are."""
        return await self.lists(f"{LAYOUT}:{{{drop}:{stripe}}}:codes")

    async def eligible(self, drop: str, stripe: int, eligible_set: str) -> dict[bytes, bytes]:
        """The gate's list of who a points rule lets in.

        Thousand of the member's id (empty below 1000) → `b` and a bitmap, or `s` and the last three digits of each, 2
        bytes a member; `#` → how many other fields there are.
        """
        return await self.lists(f"{LAYOUT}:{{{drop}:{stripe}}}:elig:{eligible_set}")

    async def bound(self, drop: str, stripe: int, batch: int) -> dict[bytes, bytes]:
        """Whose the codes of a batch are: thousand of the serial → members, 8 bytes each; `#` → how many fields."""
        return await self.lists(f"{LAYOUT}:{{{drop}:{stripe}}}:bound:{batch}")

    async def lists(self, key: str) -> dict[bytes, bytes]:
        """A whole hash."""
        found: dict[bytes, bytes] = {}
        async for fields in self._fields(key):
            found |= fields
        return found

    async def _fields(self, key: str) -> AsyncIterator[dict[bytes, bytes]]:
        cursor = 0
        with _readable():
            while True:
                cursor, fields = await self._client.hscan(key, cursor, count=FIELDS_AT_ONCE)
                if fields:
                    yield fields
                if cursor == 0:
                    return


def _pending(member: bytes, score: float) -> Pending:
    entry, _, who = member.decode().rpartition("|")
    return Pending(uuid_bytes(entry), entry, int(who), int(score))


def _entry(member: bytes, line: str, stripe: int) -> Entry | str:
    try:
        entry, allocation, quantity, slot, key, payload, code = line.removesuffix("@").split("\t")
        units, place, number = int(quantity), int(slot), int(code) if code else None
        told = (uuid_bytes(entry), entry, int(member), allocation, units, place, key, payload, number)
        return Entry(*told, stripe, line.endswith("@"))
    except ValueError:
        return f"member {member.decode(errors='replace')} has the entry {line[:SHOWN_MAX_CHARS]!r}, which is none"


@contextlib.contextmanager
def _readable(*more: type[Exception]) -> Iterator[None]:
    try:
        yield
    except (*_FAULTS, *more) as error:
        said = str(error).strip().splitlines() or ["no more is known"]
        raise Unreadable(f"The gate could not be read ({type(error).__name__}: {said[0]}).") from error


def _hosts(netloc: str, default_port: int) -> list[tuple[str, int]]:
    hosts = []
    for part in netloc.rpartition("@")[2].split(","):
        host, _, port = part.partition(":")
        hosts.append((host, int(port or default_port)))
    return hosts


@contextlib.asynccontextmanager
async def gate_reader(url: str) -> AsyncIterator[GateReader]:
    """A client for `redis://`, `rediss://`, `unix://`, `redis+cluster://host:port,…`, `redis+sentinel://…/service`."""
    parts = urlsplit(url)
    login: dict[str, Any] = {
        "username": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
    }
    async with contextlib.AsyncExitStack() as stack:
        with _readable(ValueError):
            client: Any
            if parts.scheme in {"redis", "rediss", "unix"}:
                client = Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
            elif parts.scheme == "redis+cluster":
                nodes = [ClusterNode(host, port) for host, port in _hosts(parts.netloc, REDIS_PORT)]
                client = RedisCluster(startup_nodes=nodes, **login)
            elif parts.scheme == "redis+sentinel":
                hosts, ask = _hosts(parts.netloc, SENTINEL_PORT), {"socket_timeout": TIMEOUT_S}
                sentinel = Sentinel(hosts, sentinel_kwargs=ask)  # type: ignore[no-untyped-call]
                for each in sentinel.sentinels:
                    stack.push_async_callback(each.aclose)
                client = sentinel.master_for(parts.path.strip("/") or "mymaster", **login)
            else:
                raise ValueError(f"no scheme of a gate in {parts.scheme!r}")
        stack.push_async_callback(client.aclose)
        yield GateReader(client)
