"""What is told of an allocation's state, and of whom the gate's part in it is asked."""

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from flashsale.gate import Gate, Status, Unarmed, connect
from flashsale.ids import new_ids
from flashsale.web import board as board_module
from flashsale.web import views
from flashsale.web.board import CALLS_MAX, Board
from tests.support import NewDrop, Node, allocation, make_drop

BEFORE, AFTER = timedelta(seconds=-1), timedelta(seconds=1)


@pytest.mark.parametrize("available", [None, 0, 5])
@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("closed", [False, True])
def test_the_first_of_closed_paused_upcoming_sold_out_open_is_told(
    closed: bool, paused: bool, available: int | None
) -> None:
    """At each side of both ends of the window; sold out only where the gate says so, and never before the opening."""
    one = allocation()
    drop = msgspec.structs.replace(make_drop(one), closed=closed, paused=paused)
    while_open = "sold_out" if available == 0 else "open"
    table = {
        one.opens_at + BEFORE: "upcoming",
        one.opens_at: while_open,
        one.closes_at + BEFORE: while_open,
        one.closes_at: "closed",
        one.closes_at + AFTER: "closed",
    }
    for now, unless_switched in table.items():
        over = closed or unless_switched == "closed"
        expected = "closed" if over else "paused" if paused else unless_switched
        assert views.state_of(drop, one, available, now) == expected


def test_the_clock_is_that_of_the_gate() -> None:
    """This machine's clock counts only while the gate cannot be asked; then nothing is said to be sold out."""
    one = allocation(opens_in_s=100)
    drop, now = make_drop(one), datetime.now(UTC)
    opened_ms = int((one.opens_at + AFTER).timestamp() * 1000)
    status = Status(epoch=1, now_ms=opened_ms, out_ms=0, available={one.id: 0}, pending={}, found={})
    told = views.drop_out(drop, status, now)
    assert abs(told.server_time - (one.opens_at + AFTER)) < timedelta(milliseconds=2)
    assert told.allocations[0].state == "sold_out"
    assert views.ops_drop_out(drop, status, now, {(drop.id, one.id): 10}).allocations[0].state == "sold_out"
    alone = views.drop_out(drop, None, one.opens_at + AFTER)
    assert (alone.server_time, alone.allocations[0].state) == (one.opens_at + AFTER, "open")


async def test_a_page_of_drops_hears_the_gate_on_each(node: Node, new_drop: NewDrop) -> None:
    """Also when the page is longer than the number of calls that go at once."""
    drops = [await new_drop(allocation(quantity=number)) for number in range(CALLS_MAX + 4)]
    statuses = await Board(node.gate).statuses(drops)
    assert [s.available["a"] if s is not None else None for s in statuses] == list(range(CALLS_MAX + 4))
    assert await Board(node.gate).statuses([]) == []


async def test_the_clock_that_is_told_is_not_ahead_of_the_gate(
    node: Node, new_drop: NewDrop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the question was on its way: who presses by this clock must not come before the opening."""
    drop = await new_drop(allocation())
    ask, late = node.gate.status, asyncio.Event()

    async def slowly(*args: Any, **named: Any) -> Any:  # noqa: ANN401 -- as the gate's
        asyncio.get_running_loop().call_later(0.3, late.set)
        await late.wait()
        return await ask(*args, **named)

    monkeypatch.setattr(node.gate, "status", slowly)
    told = await Board(node.gate).status(drop)
    monkeypatch.undo()
    now = await node.gate.status(drop, drop.epoch)
    assert told is not None
    assert not isinstance(now, Unarmed)
    assert told.now_ms <= now.now_ms


async def test_a_gate_that_stalls_costs_a_page_one_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes connections and says nothing: the page comes without it, after one wait for all."""
    monkeypatch.setattr(board_module, "PAGE_WAIT_S", 0.2)
    waited, wait = list[int](), asyncio.wait

    async def counted(tasks: Collection[asyncio.Task[Any]], timeout: float) -> tuple[set[Any], set[Any]]:  # noqa: ASYNC109 -- as asyncio's
        waited.append(len(tasks))
        return await wait(tasks, timeout=timeout)

    monkeypatch.setattr("flashsale.web.board.asyncio.wait", counted)
    gone = asyncio.Event()

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    gate = Gate(connect(f"redis://127.0.0.1:{port}", timeout_s=600), timeout_s=600, new_ids=new_ids)
    drops = [make_drop() for _ in range(3 * CALLS_MAX)]
    async with asyncio.timeout(60):  # a call that is waited for by itself has ten times as long
        assert await Board(gate).statuses(drops) == [None] * len(drops)
    assert waited == [len(drops)]
    gone.set()
    await gate.aclose()
    server.close()
