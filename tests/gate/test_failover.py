"""The gate over a primary and its replica, with and without Sentinel: what a new primary has is not trusted."""

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis.asyncio

from flashsale import embedded
from flashsale.domain import Drop, Grant, Refusal, Verdict
from flashsale.errors import GateUnavailable
from flashsale.gate import UNARMED, Decisions, Gate, connect, keys
from flashsale.gate.client import Client
from flashsale.ids import new_ids
from flashsale.ledger import Committed, Stale
from flashsale.reservations import Held
from flashsale.supervise import Supervisor
from tests.gate.support import (
    HOST,
    client_at,
    free_port,
    immortal_keys,
    sentinel_program,
    temporary_folder,
    valkey_program,
)
from tests.support import TIMEOUT_S, Node, allocation, claim, make_drop, make_node, until

SERVICE = "gate"
SHORT_S = 1.0
"""A frozen server is given up after this."""


PROMOTED_S = 90.0
"""A Sentinel that was not let run for two seconds takes part in nothing for 30."""


class Impatient(Gate):
    """Gives a frozen server up soon."""

    def __init__(self, client: Client, *, timeout_s: float, new_ids: Callable[[int], list[str]]) -> None:
        super().__init__(client, timeout_s=min(timeout_s, SHORT_S), new_ids=new_ids)


class Replicated:
    """A primary, its replica, and plain clients of both."""

    def __init__(self, supervisor: Supervisor, folder: Path, ports: tuple[int, int]) -> None:
        self.supervisor = supervisor
        self.folder = folder
        self.ports = ports
        self.first: redis.asyncio.Redis
        self.second: redis.asyncio.Redis

    async def start(self, stack: AsyncExitStack) -> None:
        """Start both and wait until the second follows the first."""
        options = ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"]
        first, second = self.ports
        await self.supervisor.start(valkey_program("first", first, self.folder, *options))
        await self.supervisor.start(
            valkey_program("second", second, self.folder, *options, "--replicaof", f"{HOST} {first}")
        )
        self.first = await stack.enter_async_context(client_at(first))
        self.second = await stack.enter_async_context(client_at(second))
        await until(self.in_step, "the replica follows")

    async def in_step(self) -> bool:
        """Whether the second has everything that the first has."""
        one, other = await self.first.info("replication"), await self.second.info("replication")
        return other.get("master_link_status") == "up" and one["master_repl_offset"] == other.get("slave_repl_offset")


@pytest.fixture
async def pair() -> AsyncIterator[Replicated]:
    """A primary with its replica, and in the end no key without an end on either."""
    async with AsyncExitStack() as stack:
        folder = await stack.enter_async_context(temporary_folder())
        supervisor = await stack.enter_async_context(Supervisor())
        made = Replicated(supervisor, folder, (free_port(), free_port()))
        await made.start(stack)
        yield made
        for server in (made.first, made.second):
            assert await immortal_keys(server) == []


@pytest.fixture
async def sentinel(pair: Replicated) -> str:
    """The URL of a Sentinel that watches the pair."""
    port = free_port()
    await pair.supervisor.start(
        sentinel_program(port, pair.folder, SERVICE, pair.ports[0], down_after_ms=2_000, failover_timeout_ms=5_000)
    )
    async with client_at(port) as client:

        async def knows_the_replica() -> bool:
            found = await client.execute_command("SENTINEL", "REPLICAS", SERVICE)  # type: ignore[no-untyped-call]
            return len(found) == 1

        await until(knows_the_replica, "Sentinel knows the replica")
    return f"redis+sentinel://{HOST}:{free_port()},{HOST}:{port}/{SERVICE}"


async def sold_one(node: Node, drop: Drop, member: int) -> bool:
    """Whether this press, now, is a reservation."""
    try:
        return isinstance(await node.reservations.reserve(drop.id, claim(member)), Held)
    except GateUnavailable:
        return False


async def new_drop(node: Node, quantity: int) -> Drop:
    """A drop, set up by the process under test."""
    return await node.operations.create(make_drop(allocation(quantity=quantity)), actor="member:1", detail={})


async def test_a_sale_goes_on_over_a_failover(urls: embedded.Servers, pair: Replicated, sentinel: str) -> None:
    """The primary freezes, Sentinel promotes the replica; the gate that came along is made anew, and sells the rest.

    What was granted on the old primary and not yet committed is stale; no unit is lost or sold twice.
    """
    node = await make_node(urls, redis_url=sentinel, make_gate=Impatient)
    try:
        drop = await new_drop(node, 3)
        assert isinstance(await node.reservations.reserve(drop.id, claim(1)), Held)
        decided = await node.gate.decide(drop, 0, [claim(2)])
        assert isinstance(decided, Decisions)
        (pending,) = decided.results
        assert isinstance(pending, Grant)
        await until(pair.in_step, "the replica has the grant")

        frozen = pair.supervisor.pids["first"]
        os.kill(frozen, signal.SIGSTOP)
        try:
            with pytest.raises(GateUnavailable):
                await node.reservations.reserve(drop.id, claim(3))

            async def promoted() -> bool:
                return bool((await pair.second.info("replication"))["role"] == "master")

            await until(promoted, "the replica is the primary", PROMOTED_S)
            assert await pair.second.exists(*keys.stripe(drop.id)[:4]) == 4
            await until(lambda: sold_one(node, drop, 3), "the sale goes on")
        finally:
            os.kill(frozen, signal.SIGCONT)

        assert [type(o) for o in await node.ledger.reservations.commit(drop.id, [pending])] == [Stale]
        assert isinstance(await node.reservations.reserve(drop.id, claim(4)), Held)
        assert await node.reservations.reserve(drop.id, claim(5)) == Refusal(Verdict.SOLD_OUT)
        assert [b.balanced for b in await node.operations.balance(drop.id)] == [True]
    finally:
        await node.aclose()


async def test_an_old_primary_that_is_still_reached_can_sell_nothing(urls: embedded.Servers, pair: Replicated) -> None:
    """Cut off from the new one and alive, it is a valid gate of its own epoch: its grants cannot be committed."""
    old = await make_node(urls, redis_url=f"redis://{HOST}:{pair.ports[0]}")
    new = await make_node(urls, redis_url=f"redis://{HOST}:{pair.ports[1]}")
    try:
        drop = await new_drop(old, 2)
        assert isinstance(await old.reservations.reserve(drop.id, claim(1)), Held)
        await until(pair.in_step, "the replica has it all")
        await new.catalog.reload(drop.id)
        with pytest.raises(GateUnavailable):  # a replica takes no writes
            await new.gate.decide(drop, 0, [claim(2)])
        await pair.second.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]

        assert await new.gate.decide(drop, 0, [claim(2)]) is UNARMED
        assert isinstance(await new.reservations.reserve(drop.id, claim(2)), Held)

        decided = await old.gate.decide(drop, 0, [claim(3)])
        assert isinstance(decided, Decisions)
        (grant,) = decided.results
        assert isinstance(grant, Grant)
        (outcome,) = await old.ledger.reservations.commit(drop.id, [grant])
        assert isinstance(outcome, Stale)
        assert await old.gate.decide(drop, outcome.epoch, [claim(3)]) is UNARMED
        assert [b.held for b in await new.operations.balance(drop.id)] == [2]
    finally:
        await old.aclose()
        await new.aclose()


async def test_a_primary_that_changes_back_and_forth_is_not_trusted(urls: embedded.Servers, pair: Replicated) -> None:
    """From the first to the second and back: its own data, of before, belong to a server that is no more."""
    node = await make_node(urls, redis_url=f"redis://{HOST}:{pair.ports[0]}")
    try:
        drop = await new_drop(node, 1)
        decided = await node.gate.decide(drop, 0, [claim(1)])
        assert isinstance(decided, Decisions)
        (grant,) = decided.results
        assert isinstance(grant, Grant)
        await until(pair.in_step, "the replica has the grant")
        await pair.second.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]
        await pair.first.execute_command("REPLICAOF", HOST, pair.ports[1])  # type: ignore[no-untyped-call]

        async def follows() -> bool:
            return (await pair.first.info("replication")).get("master_link_status") == "up"

        await until(follows, "the first follows the second")
        await pair.first.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]
        assert await pair.first.exists(*keys.stripe(drop.id)[:4]) == 4
        assert await node.gate.decide(drop, 0, [claim(2)]) is UNARMED
        assert [type(o) for o in await node.ledger.reservations.commit(drop.id, [grant])] == [Committed]
        assert await node.reservations.reserve(drop.id, claim(2)) == Refusal(Verdict.SOLD_OUT)
        assert [b.balanced for b in await node.operations.balance(drop.id)] == [True]
    finally:
        await node.aclose()


async def test_a_closed_gate_leaves_no_connection_to_any_sentinel(sentinel: str) -> None:
    """A process that stops closes what it opened, to the Sentinels too."""
    port = int(sentinel.split(",")[1].split(":")[1].split("/", maxsplit=1)[0])
    gate = Gate(connect(sentinel, timeout_s=TIMEOUT_S), timeout_s=TIMEOUT_S, new_ids=new_ids)
    async with client_at(port) as client:
        before = len(await client.client_list())
        await gate.ping()
        await gate.aclose()

        async def gone() -> bool:
            return len(await client.client_list()) <= before

        await until(gone, "the Sentinel has no more clients than before")
