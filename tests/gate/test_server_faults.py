"""A server that is full, has forgotten the scripts, answers late, or is not there; and calls of any size."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from flashsale import embedded
from flashsale.domain import Grant, Refusal, Verdict
from flashsale.errors import GateUnavailable, SetupError
from flashsale.gate import Decisions, Gate, Unarmed, connect
from flashsale.gate.client import CONNECTIONS_MAX
from flashsale.gate.scripts import NAMES
from flashsale.ids import new_ids
from flashsale.reservations import Held
from tests.gate.support import HOST, arm, armed, at_epoch, entry, free_port
from tests.support import TIMEOUT_S, NewDrop, Node, allocation, claim, make_drop, until


@pytest.fixture
async def full_memory(valkey: "redis.asyncio.Redis") -> AsyncIterator["FullMemory"]:
    """Fills the server's memory when told; empty again when the test is over."""
    memory = FullMemory(valkey)
    yield memory
    await memory.give_back()


class FullMemory:
    """The server may use no more memory than it does: it writes nothing that grows."""

    def __init__(self, valkey: "redis.asyncio.Redis") -> None:
        self._valkey = valkey

    async def fill(self) -> None:
        """From now on."""
        await self._valkey.config_set("maxmemory", 1)

    async def give_back(self) -> None:
        """No limit, as it was before."""
        await self._valkey.config_set("maxmemory", 0)


async def test_a_full_server_grants_nothing_and_still_takes_units_back(gate: Gate, full_memory: FullMemory) -> None:
    """Release and settle, which make room, work; so do the calls that only read."""
    drop = await armed(gate, allocation("a", 3), per_member=2, entries={1: [entry("r1")]})
    decided = await gate.decide(drop, 0, [claim(2), claim(3)])
    assert isinstance(decided, Decisions)
    two, three = [result for result in decided.results if isinstance(result, Grant)]
    await full_memory.fill()
    with pytest.raises(GateUnavailable):
        await gate.decide(drop, 0, [claim(4)])
    with pytest.raises(GateUnavailable):
        await gate.arm_begin(drop.id, drop.epoch + 1)
    assert await gate.settle(drop.id, [(two.id, 2)]) == drop.epoch
    assert await gate.pending(drop.id, older_than_ms=0, limit=9) == [three]
    assert await gate.release(drop.id, [("r1", 1), (two.id, 2), (three.id, 3)]) == drop.epoch
    status = await gate.status(drop, drop.epoch, [("r1", 1)])
    assert not isinstance(status, Unarmed)
    assert (status.available, status.pending, status.found) == ({"a": 4}, {}, {})
    await full_memory.give_back()
    decided = await gate.decide(drop, 0, [claim(4)])
    assert isinstance(decided, Decisions)
    assert isinstance(decided.results[0], Grant)


async def test_a_full_server_lets_a_cancel_come_back(node: Node, new_drop: NewDrop, full_memory: FullMemory) -> None:
    """Through the whole flow: the press is unavailable, the cancel is done, and its unit is sold when there is room."""
    drop = await new_drop(allocation(quantity=1))
    held = await node.reservations.reserve(drop.id, claim(1))
    assert isinstance(held, Held)
    stored = await node.ledger.reservations.get(held.grant.id)
    assert stored is not None
    await full_memory.fill()
    with pytest.raises(GateUnavailable):
        await node.reservations.reserve(drop.id, claim(2))
    assert await node.reservations.cancel(stored) is not None
    await node.reservations.drain()
    assert await node.ledger.reservations.outbox(drop.id, 10) == []
    await full_memory.give_back()
    assert isinstance(await node.reservations.reserve(drop.id, claim(2)), Held)
    assert [b.balanced for b in await node.operations.balance(drop.id)] == [True]


async def test_a_server_that_has_forgotten_the_scripts_is_told_them_again(
    gate: Gate, valkey: "redis.asyncio.Redis"
) -> None:
    """Each verb, after SCRIPT FLUSH: the same call falls back to the source, and runs once."""
    await valkey.script_flush()
    drop = at_epoch(make_drop(allocation("a", 2)), 1)
    staging = await gate.eligible_begin(drop.id)
    await valkey.script_flush()
    assert await gate.eligible_chunk(staging, b"\xdc\x00\x02\xa11\xa2b\x01")
    await valkey.script_flush()
    assert await gate.eligible_finish(drop.id, "list-1", staging, fields=1, ttl_ms=60_000)
    await valkey.script_flush()
    assert await gate.arm_begin(drop.id, 1) == "ok"
    await valkey.script_flush()
    assert await gate.arm_chunk(drop.id, 1, ["1", entry("r1")])
    await valkey.script_flush()
    assert await gate.arm_finish(drop, 1, {"a": 2}, ttl_ms=60_000) == "ok"
    await valkey.script_flush()
    decided = await gate.decide(drop, 0, [claim(2)])
    assert isinstance(decided, Decisions)
    assert isinstance(decided.results[0], Grant)
    await valkey.script_flush()
    assert len(await gate.pending(drop.id, older_than_ms=0, limit=9)) == 1  # type: ignore[arg-type]
    await valkey.script_flush()
    assert await gate.settle(drop.id, [(decided.results[0].id, 2)]) == 1
    await valkey.script_flush()
    assert await gate.release(drop.id, [("r1", 1)]) == 1
    await valkey.script_flush()
    status = await gate.status(drop, 1)
    assert not isinstance(status, Unarmed)
    assert status.available == {"a": 2}
    known = await valkey.script_exists(*(script.sha for script in gate._scripts.values()))
    assert dict(zip(NAMES, known, strict=True))["status"]


async def test_a_reply_that_comes_too_late_is_not_taken_for_the_next_one(
    urls: embedded.Servers, gate: Gate, valkey: "redis.asyncio.Redis"
) -> None:
    """The caller hears 'unavailable'; what the call did after all is pending, for the janitor to find."""
    drop = await armed(gate, allocation("a", 5))
    hasty = Gate(connect(urls.redis_url, timeout_s=TIMEOUT_S), timeout_s=TIMEOUT_S, new_ids=new_ids)
    try:
        await hasty.ping()
        await valkey.execute_command("CLIENT", "PAUSE", 30_000, "WRITE")  # type: ignore[no-untyped-call]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hasty, "_timeout_s", 0.2)
            with pytest.raises(GateUnavailable):
                await hasty.decide(drop, 0, [claim(1), claim(2)])
        await valkey.execute_command("CLIENT", "UNPAUSE")  # type: ignore[no-untyped-call]
        decided = await hasty.decide(drop, 0, [claim(3)])
        assert isinstance(decided, Decisions)
        assert [r.member for r in decided.results if isinstance(r, Grant)] == [3]
        status = await hasty.status(drop, 0)
        assert not isinstance(status, Unarmed)
        found = await hasty.pending(drop.id, older_than_ms=0, limit=9)
        assert not isinstance(found, Unarmed)
        assert status.available["a"] + len(found) == 5
        assert {3} <= {grant.member for grant in found} <= {1, 2, 3}
    finally:
        await valkey.execute_command("CLIENT", "UNPAUSE")  # type: ignore[no-untyped-call]
        await hasty.aclose()


async def test_a_caller_that_is_cancelled_leaves_no_reply_behind(
    gate: Gate, valkey: "redis.asyncio.Redis", urls: embedded.Servers
) -> None:
    """In the middle of a call, on the only connection there is: the next call gets its own answer."""
    drop = await armed(gate, allocation("a", 5))
    client = connect(f"{urls.redis_url}?max_connections=1", timeout_s=TIMEOUT_S)
    one = Gate(client, timeout_s=TIMEOUT_S, new_ids=new_ids)
    try:
        await one.ping()
        await valkey.execute_command("CLIENT", "PAUSE", 30_000, "WRITE")  # type: ignore[no-untyped-call]
        call = asyncio.create_task(one.decide(drop, 0, [claim(1)]))

        async def blocked() -> bool:
            return int((await valkey.info("clients"))["blocked_clients"]) == 1

        await until(blocked, "the call has reached the server")
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        await valkey.execute_command("CLIENT", "UNPAUSE")  # type: ignore[no-untyped-call]
        decided = await one.decide(drop, 0, [claim(2, "ghost")])
        assert isinstance(decided, Decisions)
        assert decided.results == [Refusal(Verdict.NOT_FOUND)]
    finally:
        await valkey.execute_command("CLIENT", "UNPAUSE")  # type: ignore[no-untyped-call]
        await one.aclose()


@pytest.mark.parametrize("scheme", ["redis://{}", "redis+cluster://{}", "redis+sentinel://{}/mymaster"])
async def test_a_server_that_is_not_there_is_unavailable(scheme: str) -> None:
    """In every form of URL, as the one fault that callers know."""
    gate = Gate(connect(scheme.format(f"{HOST}:{free_port()}"), timeout_s=0.5), timeout_s=0.5, new_ids=new_ids)
    try:
        with pytest.raises(GateUnavailable):
            await gate.decide(make_drop(), 0, [claim(1)])
        with pytest.raises(GateUnavailable):
            await gate.ping()
    finally:
        await gate.aclose()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://localhost:6379", "'http'"),
        ("localhost:6379", "redis://"),
        ("redis+cluster://a:6379,:6380", "':6380'"),
        ("redis+cluster://a:port", "'a:port'"),
        ("redis+sentinel:///mymaster", "''"),
    ],
)
def test_a_url_that_names_no_server_is_a_fault_of_the_set_up(url: str, says: str) -> None:
    """One sentence that names what is wrong with it."""
    with pytest.raises(SetupError) as fault:
        connect(url, timeout_s=1.0)
    assert says in fault.value.detail


@pytest.mark.parametrize("count", [0, 1, 4_000, 4_001, 9_000])
async def test_calls_of_any_size_are_decided_whole(gate: Gate, count: int) -> None:
    """More arguments than fit on Lua's stack are handed over in parts, within the one call."""
    drop = await armed(gate, allocation("a", count + 1))
    decided = await gate.decide(drop, 0, [claim(member) for member in range(1, count + 1)])
    assert isinstance(decided, Decisions)
    grants = [result for result in decided.results if isinstance(result, Grant)]
    assert [grant.member for grant in grants] == list(range(1, count + 1))
    assert await gate.settle(drop.id, [(g.id, g.member) for g in grants]) == drop.epoch
    riding = await gate.decide(drop, 0, [claim(0x7FFF_FFFF)], grants)
    assert isinstance(riding, Decisions)
    waiting = await gate.pending(drop.id, older_than_ms=0, limit=10)
    assert waiting == riding.results
    assert await gate.release(drop.id, [(g.id, g.member) for g in (*grants, *riding.results) if isinstance(g, Grant)])
    status = await gate.status(drop, 0)
    assert not isinstance(status, Unarmed)
    assert status.available == {"a": count + 1}


async def test_a_rebuild_takes_parts_of_any_size_and_many_allocations(gate: Gate) -> None:
    """10,000 members in one part, 200 allocations."""
    allocations = [allocation(f"a-{n}", n + 1) for n in range(200)]
    entries = {member: [entry(f"r{member}", "a-7")] for member in range(1, 10_001)}
    drop = at_epoch(make_drop(*allocations), 1)
    assert await arm(gate, drop, entries=entries) == "ok"
    status = await gate.status(drop, 1, [(f"r{member}", member) for member in entries])
    assert not isinstance(status, Unarmed)
    assert len(status.found) == 10_000
    assert status.available == {a.id: a.quantity for a in allocations}


async def test_more_calls_at_once_than_connections(gate: Gate) -> None:
    """They wait for one another instead of being turned away."""
    drop = await armed(gate, allocation("a", 1), entries={1: [entry("r1")]})
    calls = [gate.release(drop.id, [("r1", 1)]) for _ in range(5 * CONNECTIONS_MAX)]
    assert await asyncio.gather(*calls) == [drop.epoch] * len(calls)
    status = await gate.status(drop, 0)
    assert not isinstance(status, Unarmed)
    assert status.available == {"a": 2}


async def test_odd_words_come_back_as_they_were_sent(gate: Gate) -> None:
    """Keys with signs that mean something to Lua's patterns, to MessagePack or to the entries' own form."""
    odd = ["%d+", "^$().[]*-?", "k|7", "-", "0", "\\n", "ключ", "x" * 255, "#", "|", " "]
    drop = await armed(gate, allocation("a", 99), per_member=99)
    first = await gate.decide(drop, 0, [claim(7, key=key) for key in odd])
    again = await gate.decide(drop, 0, [claim(7, key=key) for key in odd])
    assert isinstance(first, Decisions)
    assert isinstance(again, Decisions)
    for results, repeated in ((first.results, False), (again.results, True)):
        assert [(r.key, r.again) for r in results if isinstance(r, Grant)] == [(key, repeated) for key in odd]
    ids = [r.id for r in first.results if isinstance(r, Grant)]
    assert ids == [r.id for r in again.results if isinstance(r, Grant)]
    assert [r.slot for r in first.results if isinstance(r, Grant)] == list(range(1, len(odd) + 1))
    assert await gate.release(drop.id, [(ids[1], 7), (ids[4], 7)])
    third = await gate.decide(drop, 0, [claim(7, key="a"), claim(7, key="b"), claim(7, key="c")])
    assert isinstance(third, Decisions)
    assert [r.slot for r in third.results if isinstance(r, Grant)] == [2, 5, len(odd) + 1]
