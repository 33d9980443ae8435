"""A gate that may not be trusted says so, to everyone and in every call, and is made anew from the ledger."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import msgspec
import pytest
import redis.asyncio

from flashsale import embedded
from flashsale.domain import Drop, Grant, Refusal, Verdict
from flashsale.errors import GateUnavailable
from flashsale.gate import UNARMED, Decisions, Gate, Unarmed, keys
from flashsale.ledger import Stale
from flashsale.reservations import Held
from tests.gate.support import arm, at_epoch, entry, listed, put_eligible
from tests.support import NewDrop, Node, allocation, claim, make_drop, make_node


async def every_answer(gate: Gate, drop: Drop, *, min_epoch: int = 0) -> set[bool]:
    """Whether each call that must not touch an unarmed gate says `unarmed`."""
    answers = [
        await gate.decide(drop, min_epoch, [claim(1)]),
        await gate.status(drop, min_epoch),
        await gate.status(drop, min_epoch, [("r1", 1)]),
        await gate.pending(drop.id, older_than_ms=0, limit=10),
        await gate.release(drop.id, [("r1", 1)]),
        await gate.settle(drop.id, [("r1", 1)]),
    ]
    return {isinstance(answer, Unarmed) for answer in answers}


@pytest.fixture
async def drop(gate: Gate) -> Drop:
    """A drop at epoch 5 with an allocation for listed members and one for everybody; member 1 has a unit."""
    made = at_epoch(make_drop(listed("listed"), allocation("a")), 5)
    await put_eligible(gate, made, [1, 2])
    assert await arm(gate, made, entries={1: [entry("r1")]}) == "ok"
    assert await every_answer(gate, made) == {False}
    assert await arm(gate, at_epoch(made, 6), entries={1: [entry("r1")]}) == "ok"
    return at_epoch(made, 6)


async def test_a_gate_that_was_never_armed_knows_nothing(gate: Gate) -> None:
    """Neither 'not eligible' nor 'not found': nobody is refused by a gate that has nothing."""
    assert await every_answer(gate, make_drop(listed())) == {True}


@pytest.mark.parametrize("lost", ["meta", "ent", "pend", "codes"])
async def test_one_lost_key_makes_every_call_unarmed(
    gate: Gate, valkey: "redis.asyncio.Redis", drop: Drop, lost: str
) -> None:
    """Whichever was evicted: no grant, no refusal, no release; a rebuild repairs it, also one for the same epoch."""
    for epoch in (6, 7):
        assert await valkey.unlink(getattr(keys.stripe(drop.id), lost)) == 1
        assert await every_answer(gate, drop) == {True}
        assert await arm(gate, at_epoch(drop, epoch), entries={1: [entry("r1")]}) == "ok"
    assert await every_answer(gate, drop) == {False}


async def test_a_lost_list_of_members_makes_the_gate_unarmed_for_all(
    gate: Gate, valkey: "redis.asyncio.Redis", drop: Drop
) -> None:
    """Also for members and allocations that do not need it: the rebuild that brings it must come."""
    assert await valkey.unlink(keys.eligible(drop.id, 0, "list-1")) == 1
    for member, name in ((1, None), (2, "listed"), (3, "a")):
        assert await gate.decide(drop, 0, [claim(member, name)]) is UNARMED
    assert await gate.status(drop, 0) is UNARMED
    assert await arm(gate, at_epoch(drop, 7)) == "lost"


async def test_a_caller_that_does_not_know_of_a_rule_decides_nothing(gate: Gate, drop: Drop) -> None:
    """A process with an older picture of the drop brings too few keys: it must look again, not refuse."""
    older = msgspec.structs.replace(drop, epoch=drop.epoch - 1, allocations=(allocation("a"),))
    assert await gate.decide(older, 0, [claim(3)]) is UNARMED


async def test_a_damaged_list_is_removed_by_the_rebuild_that_finds_it(
    gate: Gate, valkey: "redis.asyncio.Redis", drop: Drop
) -> None:
    """Otherwise it would count as being in place, and every rebuild would fail for ever."""
    await valkey.hset(keys.eligible(drop.id, 0, "list-1"), "17", "b\x01")
    assert await arm(gate, at_epoch(drop, 7)) == "lost"
    assert not await gate.has_eligible(drop.id, "list-1")
    await put_eligible(gate, drop, [1, 2])
    assert await arm(gate, at_epoch(drop, 7)) == "ok"


async def test_data_of_another_server_are_not_trusted(gate: Gate, valkey: "redis.asyncio.Redis", drop: Drop) -> None:
    """As after a failover: all keys are there, the replication id is another one."""
    meta = keys.stripe(drop.id).meta
    own = await valkey.hget(meta, "replid")
    await valkey.hset(meta, "replid", "0" * 40)
    assert await every_answer(gate, drop) == {True}
    await valkey.hset(meta, "replid", own or b"")
    assert await every_answer(gate, drop) == {False}


async def test_a_gate_of_an_epoch_before_the_callers_is_left_behind(gate: Gate, drop: Drop) -> None:
    """Decide and status are asked with the least epoch that the caller knows of."""
    for epoch, trusted in ((5, True), (6, True), (7, False)):
        assert isinstance(await gate.decide(drop, epoch, [claim(3)]), Decisions if trusted else Unarmed)
        assert (await gate.status(drop, epoch) is UNARMED) is not trusted


@pytest.mark.parametrize("epoch", [4, 6])
async def test_a_rebuild_for_an_epoch_that_is_not_later_changes_nothing(gate: Gate, drop: Drop, epoch: int) -> None:
    """The slower of two rebuilds stops when it begins."""
    assert await gate.arm_begin(drop.id, epoch) == "superseded"
    status = await gate.status(drop, 6)
    assert not isinstance(status, Unarmed)
    assert status.epoch == 6


async def test_a_rebuild_that_was_overtaken_half_way_changes_nothing(gate: Gate, drop: Drop) -> None:
    """Both have begun; the later epoch is done first; the earlier one is told when it finishes."""
    slow, fast = at_epoch(drop, 7), at_epoch(drop, 8)
    assert await gate.arm_begin(drop.id, 7) == "ok"
    assert await arm(gate, fast, free={"a": 3}) == "ok"
    free = {"listed": 9, "a": 9}
    assert await gate.arm_finish(slow, 0, free, ttl_ms=60_000) == "superseded"
    status = await gate.status(drop, 8)
    assert not isinstance(status, Unarmed)
    assert (status.epoch, status.available["a"]) == (8, 3)


async def test_a_staging_that_is_lost_half_way_is_not_put_in_place(
    gate: Gate, valkey: "redis.asyncio.Redis", drop: Drop
) -> None:
    """What comes after the loss would be half a copy: members with units would look as if they had none."""
    staging = keys.staging(drop.id, 0, "7")
    assert await gate.arm_begin(drop.id, 7) == "ok"
    assert await gate.arm_chunk(drop.id, 7, ["1", entry("r1")])
    assert await valkey.unlink(staging) == 1
    assert not await gate.arm_chunk(drop.id, 7, ["2", entry("r2")])
    assert await valkey.exists(staging) == 0
    assert await gate.arm_finish(at_epoch(drop, 7), 2, {"listed": 0, "a": 0}, ttl_ms=60_000) == "lost"
    assert await gate.arm_begin(drop.id, 7) == "ok"
    assert await gate.arm_chunk(drop.id, 7, ["2", entry("r2")])
    assert await gate.arm_finish(at_epoch(drop, 7), 2, {"listed": 0, "a": 0}, ttl_ms=60_000) == "lost"


async def test_a_staging_begun_on_another_server_is_not_put_in_place(
    gate: Gate, valkey: "redis.asyncio.Redis", drop: Drop
) -> None:
    """A rebuild over a restart or a failover: what was written before it may be incomplete in ways no count shows."""
    assert await gate.arm_begin(drop.id, 7) == "ok"
    await valkey.hset(keys.staging(drop.id, 0, "7"), "#", "0" * 40)
    assert await gate.arm_finish(at_epoch(drop, 7), 0, {"listed": 1, "a": 1}, ttl_ms=60_000) == "lost"


async def test_a_unit_is_released_once(gate: Gate, drop: Drop) -> None:
    """By its id and its member: again, under another id or another member, nothing happens."""

    async def left() -> int:
        status = await gate.status(drop, 0)
        assert not isinstance(status, Unarmed)
        return status.available["a"]

    before = await left()
    assert await gate.release(drop.id, [("r0", 1), ("r1", 2), ("r", 1), ("r11", 1)]) == 6
    assert await left() == before
    assert await gate.release(drop.id, [("r1", 1), ("r1", 1)]) == 6
    assert await left() == before + 1
    assert await gate.release(drop.id, [("r1", 1)]) == 6
    assert await left() == before + 1
    decided = await gate.decide(drop, 0, [claim(1, "a")])
    assert isinstance(decided, Decisions)
    assert isinstance(decided.results[0], Grant)


async def test_a_rebuild_forgets_what_was_pending(gate: Gate, drop: Drop) -> None:
    """Its commit is stale under the new epoch; kept, its unit would be sold to nobody."""
    decided = await gate.decide(drop, 0, [claim(3, "a")])
    assert isinstance(decided, Decisions)
    assert await gate.pending(drop.id, older_than_ms=0, limit=10) == decided.results
    assert await arm(gate, at_epoch(drop, 7), entries={1: [entry("r1")]}) == "ok"
    assert await gate.pending(drop.id, older_than_ms=0, limit=10) == []
    status = await gate.status(drop, 7, [("r1", 1), (decided.results[0].id, 3)])  # type: ignore[union-attr]
    assert not isinstance(status, Unarmed)
    assert status.found == {"r1": ("a", 1)}


async def test_stripes_of_a_drop_know_nothing_of_each_other(gate: Gate, drop: Drop) -> None:
    """Each has keys of its own under a tag of its own; a grant names the one that made it."""
    assert await gate.decide(drop, 0, [claim(3, "a")], stripe=1) is UNARMED
    await put_eligible(gate, drop, [1], stripe=1)
    assert await arm(gate, drop, free={"a": 1, "listed": 0}, stripe=1) == "ok"
    decided = await gate.decide(drop, 0, [claim(3, "a"), claim(4, "a")], stripe=1)
    assert isinstance(decided, Decisions)
    grant, refusal = decided.results
    assert isinstance(grant, Grant)
    assert (grant.stripe, refusal) == (1, Refusal(Verdict.SOLD_OUT))
    assert await gate.pending(drop.id, older_than_ms=0, limit=9, stripe=1) == [grant]
    assert await gate.pending(drop.id, older_than_ms=0, limit=9) == []
    assert await gate.settle(drop.id, [(grant.id, 3)], stripe=1) == 6
    assert await gate.release(drop.id, [(grant.id, 3)], stripe=1) == 6
    other = await gate.status(drop, 0, stripe=1)
    assert not isinstance(other, Unarmed)
    assert other.available == {"a": 1, "listed": 0}


# The same through the whole flow, where the ledger makes the gate anew.


@pytest.mark.parametrize("lost", ["meta", "ent", "pend", "codes"])
async def test_a_sale_goes_on_over_a_lost_key(
    node: Node, new_drop: NewDrop, valkey: "redis.asyncio.Redis", lost: str
) -> None:
    """The next press finds the gate unarmed, has it rebuilt, and is answered; who had a unit still has it."""
    drop = await new_drop(allocation(quantity=2))
    assert isinstance(await node.reservations.reserve(drop.id, claim(1)), Held)
    assert await valkey.unlink(getattr(keys.stripe(drop.id), lost)) == 1
    assert isinstance(await node.reservations.reserve(drop.id, claim(2)), Held)
    assert await node.reservations.reserve(drop.id, claim(1, key="k")) == Refusal(Verdict.MEMBER_LIMIT)
    assert await node.reservations.reserve(drop.id, claim(3)) == Refusal(Verdict.SOLD_OUT)
    assert [b.balanced for b in await node.operations.balance(drop.id)] == [True]


class LosesOneStaging(Gate):
    """Over a server that loses the first staging it is given."""

    lost = 0

    async def arm_chunk(self, drop_id: str, epoch: int, fields: list[str], *, stripe: int = 0) -> bool:  # type: ignore[override]
        """As the gate does it, except for the first."""
        if not self.lost:
            self.lost = await self._client.execute_command("UNLINK", keys.staging(drop_id, stripe, str(epoch)))
        return await super().arm_chunk(drop_id, epoch, fields, stripe=stripe)


async def test_a_rebuild_that_loses_its_staging_is_tried_again(
    urls: embedded.Servers, node: Node, new_drop: NewDrop, valkey: "redis.asyncio.Redis"
) -> None:
    """Under a new epoch, within the same call."""
    drop = await new_drop(allocation(quantity=2))
    assert isinstance(await node.reservations.reserve(drop.id, claim(1)), Held)
    other = await make_node(urls, make_gate=LosesOneStaging)
    try:
        await other.catalog.reload(drop.id)
        await valkey.unlink(*keys.stripe(drop.id))
        assert isinstance(await other.reservations.reserve(drop.id, claim(2)), Held)
        assert isinstance(other.gate, LosesOneStaging)
        assert other.gate.lost == 1
        assert await other.reservations.reserve(drop.id, claim(3)) == Refusal(Verdict.SOLD_OUT)
    finally:
        await other.aclose()


@pytest.fixture
async def kill_valkey(urls: embedded.Servers) -> AsyncIterator["KillValkey"]:
    """Kills the session's Valkey; whatever happens, it is back when the test is over."""
    killer = KillValkey(urls)
    yield killer
    await killer.back()


class KillValkey:
    """Ends the server as a power failure does, once all it was told is in a file that it will read when it starts."""

    def __init__(self, urls: embedded.Servers) -> None:
        self._urls = urls
        self._killed: int | None = None

    async def __call__(self, valkey: "redis.asyncio.Redis") -> None:
        """Write out, then kill."""
        await valkey.save()  # the server is set up to write no such file by itself
        self._killed = self._urls.supervisor.pids["valkey"]
        os.kill(self._killed, signal.SIGKILL)

    async def back(self) -> None:
        """Wait until the supervisor has it ready again."""
        async with asyncio.timeout(30):
            await self._urls.supervisor.ready("valkey", other_than=self._killed)


async def test_data_that_came_back_with_a_server_are_not_trusted(
    node: Node, new_drop: NewDrop, valkey: "redis.asyncio.Redis", kill_valkey: KillValkey
) -> None:
    """Killed and restarted with its file, the server has every key and would sell: it is armed anew instead.

    The grant that was pending is gone, its commit is stale, and its unit is sold to somebody else.
    """
    drop = await new_drop(allocation(quantity=2))
    assert isinstance(await node.reservations.reserve(drop.id, claim(1)), Held)
    decided = await node.gate.decide(drop, 0, [claim(2)])
    assert isinstance(decided, Decisions)
    (pending,) = decided.results
    assert isinstance(pending, Grant)
    await kill_valkey(valkey)
    await kill_valkey.back()

    names = keys.stripe(drop.id)
    assert await valkey.exists(names.meta, names.ent, names.pend, names.codes) == 4
    assert await valkey.hget(names.meta, "epoch") == str(drop.epoch).encode()
    assert await every_answer(node.gate, drop) == {True}

    assert isinstance(await node.reservations.reserve(drop.id, claim(3)), Held)
    (outcome,) = await node.ledger.reservations.commit(drop.id, [pending])
    assert isinstance(outcome, Stale)
    assert await node.reservations.reserve(drop.id, claim(4)) == Refusal(Verdict.SOLD_OUT)
    assert [b.balanced for b in await node.operations.balance(drop.id)] == [True]


async def test_while_the_server_is_away_the_answer_is_unavailable_and_the_sale_goes_on_afterwards(
    node: Node, new_drop: NewDrop, valkey: "redis.asyncio.Redis", kill_valkey: KillValkey
) -> None:
    """Nothing is refused and nothing granted by a gate that cannot be asked."""
    drop = await new_drop(allocation(quantity=1))
    await kill_valkey(valkey)
    with pytest.raises(GateUnavailable):
        await node.reservations.reserve(drop.id, claim(1))
    await kill_valkey.back()
    assert isinstance(await node.reservations.reserve(drop.id, claim(1)), Held)
    assert await node.reservations.reserve(drop.id, claim(2)) == Refusal(Verdict.SOLD_OUT)


async def test_connections_that_died_unused_fail_no_call(
    gate: Gate, valkey: "redis.asyncio.Redis", kill_valkey: KillValkey
) -> None:
    """After a restart every connection in the pool is dead; the next calls get new ones instead of an error."""
    await asyncio.gather(*(gate.ping() for _ in range(30)))
    await kill_valkey(valkey)
    await kill_valkey.back()
    await asyncio.gather(*(gate.ping() for _ in range(30)))
