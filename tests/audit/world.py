"""A sale with everything in it, its journal, and a way back to it after something was planted."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
from redis.asyncio import Redis

from fcodes import Code, Keys, read
from flashsale import embedded
from flashsale.audit import Report, audit
from flashsale.batches import Batches
from flashsale.domain import Claim, Drop, Fcode, Payment, Points, Refusal, Reservation
from flashsale.drops import AllocationChange
from flashsale.gate import keys
from flashsale.ledger import Batch
from flashsale.owners import owners_of
from flashsale.points import import_points
from flashsale.reservations import Held
from tests.flow.workers import delivering, opened_shop, until_taken
from tests.ledger.support import new_database
from tests.support import Node, allocation, make_drop, make_node, until

KEYS = Keys({0: bytes(range(32))})
OPERATOR = "member:1"
TABLES = (
    "drops", "allocations", "reservations", "orders", "payments", "pgqueuer", "audit", "fcode_batches", "fcode_bound",
    "fcode_revoked", "drop_words", "rehearsals",
)  # fmt: skip
STATUS = {"paused": 503, "not_eligible": 403, "not_open": 403, "fcode_invalid": 422}

Json = dict[str, Any]


class World:
    """The sale, what was written down of it, and both stores as they were at its end.

    `ids` are reservations and orders by the names that the story gives them; `lines` is the journal.
    """

    def __init__(self, node: Node, database_url: str, redis_url: str, drop: Drop) -> None:
        self.node = node
        self.database_url = database_url
        self.redis_url = redis_url
        self.drop = drop
        self.ids: dict[str, str] = {}
        self.codes: list[int] = []
        self.lines: list[Json] = []
        self.redis: Redis
        self.postgres: asyncpg.Connection
        self._kept: dict[bytes, tuple[bytes, int]] = {}

    async def timed(self, line: Json, call: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 -- whatever it gives
        """Do it, and write down when it was asked and when it was heard."""
        line["drop"], line["sent_at"] = self.drop.id, time.time()
        found = await call()
        line["heard_at"] = time.time()
        self.lines.append(line)
        return found

    async def reserve(
        self, member: int, wanted: str | None, *, key: str | None = None, code: int | None = None, name: str = ""
    ) -> str:
        """Press; the word that was heard."""
        line: Json = {"call": "reserve", "member": member, "key": key, "allocation": wanted, "quantity": 1}
        line |= {"fcode": code, "status": 201}
        made = Claim(member, wanted, 1, key, 0, code)
        answer = await self.timed(line, lambda: self.node.reservations.reserve(self.drop.id, made))
        if isinstance(answer, Refusal):
            word = answer.verdict.value
            line |= {"status": STATUS.get(word, 409), "code": word}
            return word
        if isinstance(answer, Held):
            grant, ends = answer.grant, answer.expires_at
            line |= {"reservation": grant.id, "state": "held", "in": grant.allocation, "expires_at": ends.timestamp()}
            self.ids[name or f"r{member}"] = grant.id
            return "held"
        self._tell(line, answer.reservation)
        return "again"

    def _tell(self, line: Json, found: Reservation) -> None:
        line |= {"status": 200, "reservation": found.id, "state": found.state.value, "in": found.allocation}
        line |= {"expires_at": found.expires_at.timestamp(), "order": found.order}

    async def confirm(self, name: str, member: int, payment: Payment | None = None) -> None:
        """Make an order of it; the order is `o` and its member."""
        line: Json = {"call": "confirm", "member": None if payment else member, "reservation": self.ids[name]}
        ask = self.node.reservations.confirm
        answer = await self.timed(line, lambda: ask(self.ids[name], member=member, payment=payment))
        if answer.outcome.value == "expired":
            line |= {"status": 409, "code": "expired"}
        else:
            self._tell(line, answer.reservation)
            self.ids[f"o{name[1:]}"] = answer.reservation.order

    async def cancel(self, name: str) -> None:
        """Give it up."""
        found = await self.node.ledger.reservations.get(self.ids[name])
        assert found is not None
        line: Json = {"call": "cancel", "member": found.member}
        self._tell(line, await self.timed(line, lambda: self.node.reservations.cancel(found)))

    async def expire(self, name: str) -> None:
        """Let its time be over, and the ledger see that."""
        short = "UPDATE reservations SET expires_at = created_at + interval '1 ms' WHERE id = $1 RETURNING expires_at"
        ends = await self.postgres.fetchval(short, self.ids[name])
        for line in self.lines:
            if line.get("reservation") == self.ids[name]:
                line["expires_at"] = ends.timestamp()

        async def ended() -> bool:
            return bool(await self.node.ledger.reservations.expire(self.drop.id, [self.ids[name]]))

        await until(ended, f"{name} has expired")

    async def act(self, call: str, **more: object) -> None:
        """An operator's act."""
        line: Json = {"call": call, "actor": OPERATOR, "status": 200, **more}
        operations = self.node.operations
        change = AllocationChange(quantity=5)
        acts: dict[str, Callable[[], Awaitable[object]]] = {
            "pause": lambda: operations.switch(self.drop.id, "pause", actor=OPERATOR),
            "resume": lambda: operations.switch(self.drop.id, "resume", actor=OPERATOR),
            "resize": lambda: operations.change_allocation(self.drop.id, "public", change, actor=OPERATOR),
        }
        await self.timed(line, acts[call])

    async def settle(self) -> None:
        """Nothing is under way any more."""
        await self.node.reservations.drain()
        won = [line for line in self.lines if line["call"] == "reserve" and line["status"] == 201]
        grants = [(line["reservation"], line["member"]) for line in won]
        await self.node.gate.settle(self.drop.id, grants)
        await self.node.reconciler.run_once()

    async def keep(self) -> None:
        """Remember both stores."""
        await self.postgres.execute("CREATE SCHEMA kept")
        for table in TABLES:
            await self.postgres.execute(f"CREATE TABLE kept.{table} AS TABLE {table}")
        tag = keys.stripe(self.drop.id).meta.removesuffix("meta")
        async for key in self.redis.scan_iter(match=f"{tag}*", count=1000):
            dumped = await self.redis.dump(key)
            assert isinstance(dumped, bytes)
            self._kept[key] = dumped, await self.redis.pttl(key)

    async def restore(self) -> None:
        """Both stores are as they were."""
        back = [f"TRUNCATE {', '.join(TABLES)}"]
        back += [f"INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE kept.{table}" for table in TABLES]
        await self.postgres.execute("; ".join(back))
        tag = keys.stripe(self.drop.id).meta.removesuffix("meta")
        async for key in self.redis.scan_iter(match=f"{tag}*", count=1000):
            await self.redis.delete(key)
        for key, (dumped, ttl) in self._kept.items():
            await self.redis.restore(key, ttl, dumped, replace=True)

    async def audit(self, path: Path, lines: Sequence[Json] | None = None, **more: Any) -> Report:  # noqa: ANN401
        """Audit it, with this journal (or the true one), without waiting."""
        path.write_text("".join(json.dumps(line) + "\n" for line in (self.lines if lines is None else lines)))
        options: Json = {"journals": [path], "settle_s": 0.0} | more
        return await audit(self.drop.id, database_url=self.database_url, redis_url=self.redis_url, **options)


def batches_of(node: Node) -> Batches:
    """What mints and revokes codes."""
    return Batches(ledger=node.ledger, keys=KEYS, after=node.operations.after, now=lambda: datetime.now(UTC))


async def codes_of(batches: Batches, batch: Batch) -> list[int]:
    """The numbers of a batch's codes."""
    _, parts = await batches.export(batch.id, actor=OPERATOR, reason=None)
    text = b"".join([part async for part in parts]).decode()
    found = [read(line.split(",")[0], KEYS) for line in text.splitlines()[1:]]
    return [code.number for code in found if isinstance(code, Code)]


async def _sell(world: World, batches: Batches) -> None:
    """The story: wins, refusals, lost answers, ends of every kind, codes, payments, operators."""
    assert await world.reserve(1, "public", key="k1") == "held"
    assert await world.reserve(1, "public", key="k1") == "again"
    assert await world.reserve(2, None, key="k2") == "held"
    lost = world.lines.pop()
    world.lines.append({**{k: lost[k] for k in ("call", "drop", "sent_at", "member", "key")}, "status": 0})
    assert await world.reserve(2, None, key="k2") == "again"
    assert await world.reserve(3, "public", key="k3") == "held"
    await world.cancel("r3")
    assert await world.reserve(4, "public") == "held"
    await world.expire("r4")
    assert await world.reserve(5, "public", key="k5") == "held"
    await world.settle()
    await world.confirm("r1", 1)
    await world.confirm("r5", 5)
    await world.node.operations.take_back(world.ids["r5"], restock=True, to=None, reason="scratched", actor=OPERATOR)
    assert await world.reserve(6, "members", key="k6") == "held"
    await world.confirm("r6", 6, Payment("pay-6", 169_900, "CNY"))
    assert await world.reserve(19, "members") == "held"
    await world.expire("r19")
    await world.confirm("r19", 19, Payment("pay-19", 169_900, "CNY"))
    assert await world.reserve(40, "members") == "not_eligible"
    assert await world.reserve(1, "members", name="r1b") == "held"
    assert await world.reserve(1, "public") == "member_limit"
    assert await world.reserve(17, "later") == "not_open"
    first, second, third = world.codes[:3]
    assert await world.reserve(8, None, key="k8", code=first) == "held"
    assert await world.reserve(9, "vip", code=second) == "held"
    assert await world.reserve(29, "vip", code=second) == "fcode_spent"
    await world.cancel("r9")
    await world.settle()
    assert await world.reserve(10, "vip", key="k10", code=second) == "held"
    await world.confirm("r10", 10)
    assert await world.reserve(11, None, code=world.codes[4]) == "held"
    line: Json = {"call": "revoke", "actor": OPERATOR, "status": 200}
    revoke = batches.revoke
    await world.timed(
        line, lambda: revoke(third >> 22, serials=[third & 0x3FFFFF], to=None, reason="lost", actor=OPERATOR)
    )
    assert await world.reserve(12, None, code=third) == "fcode_invalid"
    await world.act("pause")
    assert await world.reserve(18, "public") == "paused"
    await world.act("resume")
    await world.act("resize", allocation="public")
    assert [await world.reserve(m, "public") for m in (14, 15, 20)] == ["held"] * 3
    assert await world.reserve(16, "public") == "sold_out"


async def _deliver(world: World) -> None:
    """The shop takes every order that there is; one more comes after that, and waits."""
    async with opened_shop() as shop, delivering(world.database_url, world.node.ledger.orders, shop.url):
        rows = await world.postgres.fetch("SELECT id::text FROM orders")
        await until_taken(shop, [row[0] for row in rows])

        async def settled() -> bool:
            return bool(await world.postgres.fetchval("SELECT bool_and(state = 'delivered') FROM orders"))

        await until(settled, "all orders are delivered")
        for order, bodies in shop.bodies.items():
            event = json.loads(next(iter(bodies)))
            line = {"call": "delivery", "drop": world.drop.id, "sent_at": time.time(), "heard_at": time.time()}
            line |= {"order": order, "event": event["type"], "reservation": event["data"]["reservation"]}
            world.lines.append({**line, "status": 204})
    await world.confirm("r2", 2)


async def _unguarded(postgres: asyncpg.Connection) -> None:
    """The ledger without its second lock: what it would refuse can be planted."""
    constraints = (
        "SELECT conrelid::regclass::text AS t, conname AS n FROM pg_constraint"
        " WHERE contype IN ('c', 'f', 'u') AND conrelid::regclass::text = ANY ($1::text[])"
    )
    for row in await postgres.fetch(constraints, TABLES):
        await postgres.execute(f"ALTER TABLE {row['t']} DROP CONSTRAINT {row['n']}")
    indexes = (
        "SELECT indexrelid::regclass::text AS n FROM pg_index"
        " WHERE indisunique AND NOT indisprimary AND indrelid::regclass::text = ANY ($1::text[])"
    )
    for row in await postgres.fetch(indexes, TABLES):
        await postgres.execute(f"DROP INDEX {row['n']}")
    await postgres.execute("ALTER TABLE pgqueuer DISABLE TRIGGER ALL")


async def _points() -> AsyncIterator[bytes]:
    yield b"member_id,points\n" + b"".join(b"%d,%d\n" % (m, 150 if m < 30 else 99) for m in range(1, 60))
    yield b"4000000000000,100\n"


async def _friends() -> AsyncIterator[bytes]:
    yield b"member_id,note\n11,friend\n13,friend\n"


async def _set_up(node: Node) -> Drop:
    """Four allocations, one of each kind, and the whole of it in the log."""
    await import_points(node.ledger.points, _points(), snapshot="august", cutoff=datetime.now(UTC), actor=OPERATOR)
    wanted = make_drop(
        allocation("public", 4),
        allocation("members", 3, access=Points("august", 100)),
        allocation("vip", 6, access=Fcode()),
        allocation("later", 2, opens_in_s=3000),
        per_member=2,
    )
    return await node.operations.create(wanted, actor=OPERATOR, detail=msgspec.to_builtins(wanted))


@asynccontextmanager
async def sold(servers: embedded.Servers) -> AsyncIterator[World]:
    """The sale at its end, in a database of its own."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(new_database(servers.database_url))
        node = await make_node(servers, database_url=url)
        stack.push_async_callback(node.aclose)
        world = World(node, url, servers.redis_url, await _set_up(node))
        world.postgres = await asyncpg.connect(url)
        stack.push_async_callback(world.postgres.close)
        world.redis = await stack.enter_async_context(Redis.from_url(servers.redis_url))
        batches = batches_of(node)
        given: Json = {"expires_at": None, "note": None, "actor": OPERATOR}
        free = await batches.mint(world.drop.id, "vip", count=4, **given)
        theirs = await batches.mint_bound(world.drop.id, "vip", owners_of(_friends()), **given)
        world.codes = [*await codes_of(batches, free), *await codes_of(batches, theirs)]
        await node.catalog.reload(world.drop.id)
        await _sell(world, batches)
        await _deliver(world)
        await world.settle()
        await _unguarded(world.postgres)
        await world.keep()
        yield world
