"""Stores that stop, die and come back, and wires that lose replies: what was acknowledged is kept, once."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from flashsale import embedded, reconcile, reservations
from flashsale.domain import Drop, Refusal, State, Tier, Verdict
from flashsale.errors import GateUnavailable, LedgerUnavailable
from flashsale.gate import Unarmed
from flashsale.ledger.migrate import migrate
from flashsale.reservations import Held, Known, Limits
from tests.flow.faults import Wire, id_of, press
from tests.support import PATIENCE_S, TIMEOUT_S, Node, allocation, claim, make_drop, make_node, until

GATE_TIMEOUT_S = 0.5
SMALL = Limits(gate_batch_max=4, ledger_batch_max=4, answer_max_s=PATIENCE_S)


@pytest.fixture(scope="module")
async def servers() -> AsyncIterator[embedded.Servers]:
    """Servers to kill."""
    async with embedded.temporary() as own:
        await migrate(own.database_url)
        yield own


@pytest.fixture
async def node(servers: embedded.Servers) -> AsyncIterator[Node]:
    """One process, in small steps, so that a fault finds it in the middle."""
    made = await make_node(servers, limits=SMALL)
    yield made
    await made.aclose()


async def sold(node: Node, drop_id: str, quantity: int) -> None:
    """All units are sold, in gate and ledger, and both agree in every unit."""

    async def settled() -> bool:
        report = await node.reconciler.run_once()
        (balance,) = await node.operations.balance(drop_id)
        return not report.failed and balance.balanced and (balance.available, balance.pending) == (0, 0)

    await until(settled, "gate and ledger agree")
    (balance,) = await node.operations.balance(drop_id)
    assert (balance.held, balance.confirmed) == (quantity, 0)


async def rush(node: Node, servers: embedded.Servers, victim: str) -> None:
    """Two hundred members press for 120 units; after thirty answers, `victim` is killed -9, and comes back.

    Half of them come when it is dead: on a fast machine, all units would be gone before.
    """
    drop = await node.operations.create(make_drop(allocation(quantity=120)), actor="ops:1", detail={})
    told: dict[int, str] = {}
    refused: list[Refusal] = []
    killed = asyncio.Event()

    async def shopper(member: int) -> None:
        if member > 100:
            await killed.wait()
        answer = await press(node, drop.id, claim(member, key=f"k{member}"))
        if isinstance(answer, Refusal):
            refused.append(answer)
        else:
            told[member] = id_of(answer)

    shoppers = [asyncio.create_task(shopper(member)) for member in range(1, 201)]

    async def thirty() -> bool:
        return len(told) >= 30

    await until(thirty, "thirty shoppers have heard yes")
    assert len(told) < 120
    pid = servers.supervisor.pids[victim]
    os.kill(pid, signal.SIGKILL)
    killed.set()
    await asyncio.gather(*shoppers)
    async with asyncio.timeout(60):
        assert await servers.supervisor.ready(victim, other_than=pid) != pid
    assert (len(told), set(map(str, refused))) == (120, {str(Refusal(Verdict.SOLD_OUT))})
    for member, told_id in told.items():
        stored = await node.ledger.reservations.get(told_id)
        assert stored is not None
        assert (stored.member, stored.state, stored.key) == (member, State.HELD, f"k{member}")
    assert len(set(told.values())) == 120
    await sold(node, drop.id, 120)


async def test_the_gate_is_killed_in_the_middle_of_a_rush(node: Node, servers: embedded.Servers) -> None:
    """Its old data comes back with it and is not trusted: rebuilt from the ledger, it sells the rest, and no more."""
    await rush(node, servers, "valkey")


async def test_the_ledger_is_killed_in_the_middle_of_a_rush(node: Node, servers: embedded.Servers) -> None:
    """Who heard yes has a reservation; whose commit was cut off, hears of the same one on asking again."""
    await rush(node, servers, "postgres")


async def test_a_gate_that_stands_still(servers: embedded.Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped, not dead: a press fails within the time-out, cancels and acts go on in the ledger.

    Afterwards nothing is lost of what the gate did without anybody hearing of it.
    """
    monkeypatch.setattr(reconcile, "PENDING_MAX_MS", 0)
    node = await make_node(servers, gate_timeout_s=GATE_TIMEOUT_S)
    drop = await node.operations.create(make_drop(allocation(quantity=3)), actor="ops:1", detail={})
    held = await press(node, drop.id, claim(1))
    stored = await node.ledger.reservations.get(id_of(held))
    assert stored is not None
    pid = servers.supervisor.pids["valkey"]
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(GateUnavailable, match=r"within 0\.5 s"):
            await node.reservations.reserve(drop.id, claim(2))
        assert await node.reservations.cancel(stored) is not None
        await node.reservations.drain()
        assert [e.id for e in await node.ledger.reservations.outbox(drop.id, 10)] == [stored.id]
        report = await node.reconciler.run_once()
        assert any(drop.id in step for step in report.failed)
        paused = await node.operations.switch(drop.id, "pause", actor="ops:1")
        assert paused.paused
    finally:
        os.kill(pid, signal.SIGCONT)
    assert await press(node, drop.id, claim(2)) == Refusal(Verdict.PAUSED)
    await node.operations.switch(drop.id, "resume", actor="ops:1")
    answers = await asyncio.gather(*(press(node, drop.id, claim(member)) for member in (2, 3, 4, 5)))
    assert sum(isinstance(answer, Held) for answer in answers) == 3
    await sold(node, drop.id, 3)
    assert servers.supervisor.pids["valkey"] == pid
    await node.aclose()


async def test_a_stalled_grant_is_found_again(servers: embedded.Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate grants after the caller has given up: the same member gets that unit, or the janitor returns it."""
    node = await make_node(servers, gate_timeout_s=GATE_TIMEOUT_S)
    drop = await node.operations.create(make_drop(allocation(quantity=2)), actor="ops:1", detail={})
    await node.gate.status(drop, 0)
    pid = servers.supervisor.pids["valkey"]
    os.kill(pid, signal.SIGSTOP)
    try:
        lost = await asyncio.gather(
            *(node.gate.decide(drop, 0, [claim(member)]) for member in (1, 2)), return_exceptions=True
        )
    finally:
        os.kill(pid, signal.SIGCONT)
    assert all(isinstance(each, GateUnavailable) for each in lost)
    answers = [await press(node, drop.id, claim(member)) for member in (1, 2, 3)]
    monkeypatch.setattr(reconcile, "PENDING_MAX_MS", 0)
    assert all(isinstance(answer, Held) for answer in answers[:2])
    assert answers[2] == Refusal(Verdict.SOLD_OUT)
    await sold(node, drop.id, 2)
    await node.aclose()


@pytest.mark.parametrize("lost", [1, 2])
async def test_a_commit_whose_reply_is_lost_is_one_reservation(servers: embedded.Servers, lost: int) -> None:
    """The ledger has committed and nobody heard of it: the same call again tells of that very reservation."""
    async with Wire().to(servers.database_url) as wire:
        node = await make_node(servers, database_url=wire.url)
        drop = await node.operations.create(make_drop(allocation(quantity=5)), actor="ops:1", detail={})
        assert isinstance(await node.reservations.reserve(drop.id, claim(1)), Held)
        wire.lose_replies(lost)
        answer = await node.reservations.reserve(drop.id, claim(2))
        assert wire.lost == lost
        assert isinstance(answer, Known)  # it was there when the call was made again
        rows = await node.ledger.reservations._pool.fetch("SELECT id FROM reservations WHERE member = 2")
        assert id_of(answer) in {str(row["id"]) for row in rows}
        assert await node.ledger.drops.taken([drop.id]) == {(drop.id, "a"): 2}
        (balance,) = await node.operations.balance(drop.id)
        assert (balance.held, balance.available, balance.balanced) == (2, 3, True)
        await node.aclose()


async def test_a_commit_that_stays_unknown_is_told_as_such(servers: embedded.Servers) -> None:
    """After three lost replies the shopper hears "unavailable", and on pressing again of the reservation there is."""
    async with Wire().to(servers.database_url) as wire:
        node = await make_node(servers, database_url=wire.url)
        drop = await node.operations.create(make_drop(allocation(quantity=1)), actor="ops:1", detail={})
        warm = await node.operations.create(make_drop(allocation(quantity=1)), actor="ops:1", detail={})
        assert isinstance(await node.reservations.reserve(warm.id, claim(1)), Held)
        wire.lose_replies(100)
        with pytest.raises(LedgerUnavailable):
            await node.reservations.reserve(drop.id, claim(1))
        wire.lose_replies(0)
        assert isinstance(await node.reservations.reserve(drop.id, claim(1)), Known)
        assert await node.reservations.reserve(drop.id, claim(2)) == Refusal(Verdict.SOLD_OUT)
        await sold(node, drop.id, 1)
        await node.aclose()


async def pending(node: Node, drop: Drop) -> int:
    """How many units lie in the gate without anybody having been told of them."""
    status = await node.gate.status(drop, 0, [])
    assert not isinstance(status, Unarmed)
    return len(status.pending)


async def presses_while_the_ledger_is_away(servers: embedded.Servers, presses: int) -> tuple[int, list[Refusal]]:
    """One press after the other: the units that they leave pending, and what those heard who could not win.

    In the end the ledger is back, and everything is sold.
    """
    async with Wire().to(servers.database_url) as wire:
        node = await make_node(servers, database_url=wire.url, timeout_s=TIMEOUT_S)
        early = allocation("early", 5, access=Tier(at_least=3))
        drop = await node.operations.create(make_drop(allocation(quantity=60), early), actor="ops:1", detail={})
        assert isinstance(await node.reservations.reserve(drop.id, claim(1, "a")), Held)
        wire.lose_replies(1_000_000)
        heard: list[Refusal] = []
        for member in range(2, 2 + presses):
            with pytest.raises(LedgerUnavailable):
                await node.reservations.reserve(drop.id, claim(member, "a"))
            answer = await node.reservations.reserve(drop.id, claim(member, "early"))
            assert isinstance(answer, Refusal)
            heard.append(answer)
        wire.lose_replies(0)
        left = await pending(node, drop)
        answers = await asyncio.gather(*(press(node, drop.id, claim(member, "a")) for member in range(2, 61)))
        assert not any(isinstance(answer, Refusal) for answer in answers)
        assert await press(node, drop.id, claim(99, "a")) == Refusal(Verdict.SOLD_OUT)
        await node.aclose()
    return left, heard


async def test_while_the_ledger_is_away_nothing_is_granted_and_losers_hear_why(
    servers: embedded.Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two grants find out, and now and then one that probes; with the circuit off, every press leaves a unit behind."""
    left, heard = await presses_while_the_ledger_is_away(servers, 8)
    assert 2 <= left < 8
    assert heard == [Refusal(Verdict.NOT_ELIGIBLE)] * 8
    monkeypatch.setattr(reservations, "KEEPS_NOTHING_AFTER", 1_000_000)
    left, _ = await presses_while_the_ledger_is_away(servers, 8)
    assert left == 8
