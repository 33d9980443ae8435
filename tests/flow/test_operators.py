"""Operator acts: each whole or not at all, with who, what and when in the audit log, and a new epoch for the gate."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from flashsale.domain import Drop, Money, Points, Refusal, Tier, Verdict
from flashsale.drops import AllocationChange
from flashsale.errors import Refused
from flashsale.gate import Unarmed
from flashsale.ledger import AuditLine
from flashsale.reservations import Held
from tests.support import NewDrop, Node, allocation, claim, make_drop, unique

Act = Callable[[Node, str], Awaitable[Drop]]

LATER = datetime(2031, 8, 29, 12, 0, tzinfo=UTC)
ACTOR = "member:77"

ACTS: dict[str, tuple[Act, str, dict[str, Any]]] = {
    "drop.edit": (lambda n, d: n.operations.rename(d, "Second batch", actor=ACTOR), "", {"title": "Second batch"}),
    "drop.pause": (
        lambda n, d: n.operations.switch(d, "pause", actor=ACTOR, reason="queue at the door"),
        "",
        {"reason": "queue at the door"},
    ),
    "drop.resume": (lambda n, d: n.operations.switch(d, "resume", actor=ACTOR), "", {}),
    "drop.close": (lambda n, d: n.operations.switch(d, "close", actor=ACTOR, reason="done"), "", {"reason": "done"}),
    "allocation.create": (
        lambda n, d: n.operations.add_allocation(d, allocation("late", 7, access=Tier(at_least=3)), actor=ACTOR),
        "/late",
        {"id": "late", "quantity": 7, "access": {"kind": "tier", "at_least": 3}, "channel": None},
    ),
    "allocation.edit": (
        lambda n, d: n.operations.change_allocation(
            d, "a", AllocationChange(quantity=12, closes_at=LATER, channel="carrier"), actor=ACTOR
        ),
        "/a",
        {"quantity": 12, "closes_at": "2031-08-29T12:00:00Z", "channel": "carrier"},
    ),
}


async def lines(node: Node, drop_id: str) -> list[AuditLine]:
    """The drop's audit lines, newest first."""
    return await node.operations.audit(drop_id, None, 100)


async def state(node: Node, drop_id: str) -> tuple[Drop | None, list[AuditLine]]:
    """All that an act could change: the drop with its epoch and allocations, and the log."""
    return await node.ledger.drops.get(drop_id), await lines(node, drop_id)


@pytest.mark.parametrize("action", ACTS)
async def test_an_act_leaves_one_line_and_a_gate_that_knows(node: Node, new_drop: NewDrop, action: str) -> None:
    """Who, what, on what, with which values, and when; under a new epoch, for which the gate is armed on return."""
    act, subject, detail = ACTS[action]
    drop = await new_drop(allocation())
    began = datetime.now(UTC)
    done = await act(node, drop.id)
    line, created = await lines(node, drop.id)
    assert (line.actor, line.action, line.subject) == (ACTOR, action, drop.id + subject)
    assert {name: line.detail[name] for name in detail} == detail
    assert action == "allocation.create" or line.detail == detail
    assert line.at > created.at
    assert abs(line.at - began) < timedelta(seconds=30)
    assert created.action == "drop.create"
    assert done == await node.ledger.drops.get(drop.id)
    assert done.epoch > drop.epoch
    status = await node.gate.status(done, done.epoch)
    assert not isinstance(status, Unarmed)
    assert status.epoch == done.epoch
    assert node.catalog.known(drop.id) == done


async def test_an_act_changes_what_it_says_and_nothing_else(node: Node, new_drop: NewDrop) -> None:
    """Title, pause, close, quantity, window, channel, one more allocation: everything beside it stays as it was."""
    drop = await new_drop(allocation("a", 5), allocation("b", 6), per_member=2)
    expected = drop
    for action, changed in (
        ("drop.edit", lambda d: msgspec.structs.replace(d, title="Second batch")),
        ("drop.pause", lambda d: msgspec.structs.replace(d, paused=True)),
        ("drop.resume", lambda d: msgspec.structs.replace(d, paused=False)),
        ("allocation.edit", _edited),
        ("drop.close", lambda d: msgspec.structs.replace(d, closed=True)),
    ):
        done = await ACTS[action][0](node, drop.id)
        expected = msgspec.structs.replace(changed(expected), epoch=done.epoch)
        assert done == expected, action
    done = await ACTS["allocation.create"][0](node, drop.id)
    assert done.allocations[:2] == expected.allocations
    assert [a.id for a in done.allocations] == ["a", "b", "late"]
    emptied = AllocationChange(channel=None)
    done = await node.operations.change_allocation(drop.id, "a", emptied, actor=ACTOR)
    assert (done.allocations[0].channel, done.allocations[0].quantity) == (None, 12)


def _edited(drop: Drop) -> Drop:
    first = msgspec.structs.replace(drop.allocations[0], quantity=12, closes_at=LATER, channel="carrier")
    return msgspec.structs.replace(drop, allocations=(first, *drop.allocations[1:]))


@pytest.mark.parametrize("action", ACTS)
async def test_an_act_on_an_unknown_drop_is_refused(node: Node, action: str) -> None:
    """By name, and nothing is logged."""
    unknown = unique("nowhere")
    with pytest.raises(Refused, match=unknown) as caught:
        await ACTS[action][0](node, unknown)
    assert caught.value.code == "not_found"
    assert await lines(node, unknown) == []


@pytest.mark.parametrize(
    ("act", "code", "says"),
    [
        (lambda n, d: n.operations.add_allocation(d, allocation("a"), actor=ACTOR), "conflict", "already has"),
        (
            lambda n, d: n.operations.add_allocation(d, allocation("z", opens_in_s=5, closes_in_s=5), actor=ACTOR),
            "invalid_request",
            "closes before it opens",
        ),
        (
            lambda n, d: n.operations.add_allocation(
                d, allocation("z", access=Points(snapshot="none", at_least=1)), actor=ACTOR
            ),
            "invalid_request",
            "no points snapshot 'none'",
        ),
        (
            lambda n, d: n.operations.change_allocation(d, "z", AllocationChange(quantity=3), actor=ACTOR),
            "not_found",
            "no allocation 'z'",
        ),
        (
            lambda n, d: n.operations.change_allocation(
                d, "a", AllocationChange(quantity=99, closes_at=LATER - timedelta(days=9999)), actor=ACTOR
            ),
            "invalid_request",
            "closes before it opens",
        ),
        (
            lambda n, d: n.operations.change_allocation(d, "a", AllocationChange(quantity=1), actor=ACTOR),
            "conflict",
            "2 units are taken already",
        ),
    ],
    ids=["allocation twice", "window", "snapshot", "unknown allocation", "window of a change", "below taken"],
)
async def test_a_refused_act_leaves_nothing_behind(
    node: Node, new_drop: NewDrop, act: Act, code: str, says: str
) -> None:
    """No audit line, no new epoch, no half of the change; and the drop sells on."""
    drop = await new_drop(allocation(quantity=5))
    for member in (1, 2):
        assert isinstance(await node.reservations.reserve(drop.id, claim(member)), Held)
    before = await state(node, drop.id)
    with pytest.raises(Refused, match=says) as caught:
        await act(node, drop.id)
    assert caught.value.code == code
    assert await state(node, drop.id) == before
    assert isinstance(await node.reservations.reserve(drop.id, claim(3)), Held)


async def test_an_act_that_breaks_off_leaves_nothing_behind(node: Node, new_drop: NewDrop) -> None:
    """After it has already written: the change, the epoch and the line are one transaction."""
    drop = await new_drop(allocation(quantity=5))
    before = await state(node, drop.id)

    async def broken() -> None:
        async with node.ledger.drops.act(drop.id, actor=ACTOR, action="x", subject=drop.id, detail={}) as act:
            assert act is not None
            row = await act.lock_allocation("a")
            window = {"opens_at": row["opens_at"], "closes_at": row["closes_at"]}
            await act.update_allocation("a", quantity=50, channel="c", **window)
            assert await act.add_allocation(allocation("b"))
            act.paused = True
            raise ConnectionResetError

    with pytest.raises(Exception, match="ConnectionResetError"):
        await broken()
    assert await state(node, drop.id) == before


async def test_what_is_closed_stays_closed(node: Node, new_drop: NewDrop) -> None:
    """Nobody buys, nobody reopens it; to close it again is no harm."""
    drop = await new_drop(allocation())
    await node.operations.switch(drop.id, "close", actor=ACTOR)
    assert await node.reservations.reserve(drop.id, claim(1)) == Refusal(Verdict.CLOSED)
    before = await state(node, drop.id)
    for word in ("pause", "resume"):
        with pytest.raises(Refused, match="closed for good") as caught:
            await node.operations.switch(drop.id, word, actor=ACTOR)
        assert caught.value.code == "conflict"
    assert await state(node, drop.id) == before
    assert (await node.operations.switch(drop.id, "close", actor=ACTOR)).closed


async def test_a_window_moves_while_the_drop_runs(node: Node, new_drop: NewDrop) -> None:
    """Later: not open yet, and when it will be. Past: closed. Back again: open, with what was left."""
    drop = await new_drop(allocation(quantity=2))
    assert isinstance(await node.reservations.reserve(drop.id, claim(1)), Held)
    a = drop.allocations[0]
    edit = node.operations.change_allocation
    opens = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    await edit(drop.id, "a", AllocationChange(opens_at=opens, closes_at=opens + timedelta(hours=1)), actor=ACTOR)
    later = await node.reservations.reserve(drop.id, claim(2))
    assert later == Refusal(Verdict.NOT_OPEN, opens_at_ms=int(opens.timestamp() * 1000))
    closed = datetime.now(UTC) - timedelta(seconds=1)
    await edit(drop.id, "a", AllocationChange(opens_at=a.opens_at, closes_at=closed), actor=ACTOR)
    assert await node.reservations.reserve(drop.id, claim(2)) == Refusal(Verdict.CLOSED)
    await edit(drop.id, "a", AllocationChange(closes_at=a.closes_at), actor=ACTOR)
    assert isinstance(await node.reservations.reserve(drop.id, claim(2)), Held)
    assert await node.reservations.reserve(drop.id, claim(3)) == Refusal(Verdict.SOLD_OUT)


async def test_an_allocation_added_to_a_running_drop_is_sold_at_once(node: Node, new_drop: NewDrop) -> None:
    """Batch after batch: listed last, and taken when those before it are gone."""
    drop = await new_drop(allocation("first", 1))
    assert isinstance(await node.reservations.reserve(drop.id, claim(1)), Held)
    assert await node.reservations.reserve(drop.id, claim(2)) == Refusal(Verdict.SOLD_OUT)
    await node.operations.add_allocation(drop.id, allocation("second", 1), actor=ACTOR)
    second = await node.reservations.reserve(drop.id, claim(2))
    assert isinstance(second, Held)
    assert second.grant.allocation == "second"
    assert [b.balanced for b in await node.operations.balance(drop.id)] == [True, True]


@pytest.mark.parametrize(
    ("wrong", "code", "says"),
    [
        (lambda: make_drop(allocation("a"), allocation("b"), allocation("a")), "invalid_request", "called 'a'"),
        (lambda: make_drop(allocation(closes_in_s=-60, opens_in_s=-60)), "invalid_request", "closes before it opens"),
        (
            lambda: make_drop(allocation("a"), allocation("b", access=Points(snapshot="none", at_least=1))),
            "invalid_request",
            "no points snapshot",
        ),
        (
            lambda: msgspec.structs.replace(make_drop(), list_price=Money(1, "EUR")),
            "invalid_request",
            "same currency",
        ),
    ],
    ids=["allocation twice", "window", "snapshot", "currency"],
)
async def test_a_drop_that_cannot_be_is_not_set_up(node: Node, wrong: Callable[[], Drop], code: str, says: str) -> None:
    """Refused with what to do; no drop, no line."""
    drop = wrong()
    with pytest.raises(Refused, match=says) as caught:
        await node.operations.create(drop, actor=ACTOR, detail={})
    assert caught.value.code == code
    assert await state(node, drop.id) == (None, [])


async def test_an_id_is_given_once(node: Node) -> None:
    """Of ten that set up the same id at once, one does; the others hear so, and the log has one line."""
    drop = make_drop(allocation(quantity=3))
    answers = await asyncio.gather(
        *(node.operations.create(drop, actor=f"member:{n}", detail={"n": n}) for n in range(1, 11)),
        return_exceptions=True,
    )
    made = [n for n, answer in enumerate(answers, 1) if isinstance(answer, Drop)]
    refused = [answer.code for answer in answers if isinstance(answer, Refused)]
    assert (len(made), refused) == (1, ["conflict"] * 9)
    (line,) = await lines(node, drop.id)
    assert (line.actor, line.detail) == (f"member:{made[0]}", {"n": made[0]})
    stored = await node.ledger.drops.get(drop.id)
    assert stored is not None
    assert [(a.id, a.quantity) for a in stored.allocations] == [("a", 3)]


async def test_acts_at_once_all_hold(node: Node, new_drop: NewDrop) -> None:
    """None writes over another's change: they take turns at the drop's lock, each with its own epoch and line."""
    drop = await new_drop(allocation("a", 5), allocation("b", 5))
    ops = node.operations
    await asyncio.gather(
        ops.change_allocation(drop.id, "a", AllocationChange(quantity=8), actor="member:1"),
        ops.change_allocation(drop.id, "a", AllocationChange(closes_at=LATER), actor="member:2"),
        ops.change_allocation(drop.id, "b", AllocationChange(channel="carrier"), actor="member:3"),
        ops.rename(drop.id, "Renamed", actor="member:4"),
        ops.switch(drop.id, "pause", actor="member:5"),
        *(ops.add_allocation(drop.id, allocation(f"n{i}"), actor="member:6") for i in range(4)),
    )
    done = await node.ledger.drops.get(drop.id)
    assert done is not None
    a, b, *new = done.allocations
    assert (a.quantity, a.closes_at, b.channel, done.title, done.paused) == (8, LATER, "carrier", "Renamed", True)
    assert {n.id for n in new} == {"n0", "n1", "n2", "n3"}
    written = await lines(node, drop.id)
    actors = [f"member:{n}" for n in (1, 2, 3, 4, 5, 6, 6, 6, 6)]
    assert sorted(line.actor for line in written[:-1]) == actors
    status = await node.gate.status(done, done.epoch)
    assert not isinstance(status, Unarmed)
    assert status.epoch == done.epoch


async def test_the_log_is_read_page_by_page(node: Node, new_drop: NewDrop) -> None:
    """Newest first, of one drop and what lies below it and no other whose name begins alike; or of everything."""
    drop = await new_drop(allocation())
    namesake = msgspec.structs.replace(make_drop(), id=f"{drop.id}-b")
    await node.operations.create(namesake, actor=ACTOR, detail={})
    for n in range(5):
        await node.operations.change_allocation(drop.id, "a", AllocationChange(quantity=20 + n), actor=ACTOR)
    everything = await lines(node, drop.id)
    assert [line.detail.get("quantity") for line in everything] == [24, 23, 22, 21, 20, None]
    assert [line.id for line in everything] == sorted((line.id for line in everything), reverse=True)
    pages: list[AuditLine] = []
    while page := await node.operations.audit(drop.id, pages[-1].id if pages else None, 2):
        pages += page
    assert pages == everything
    newest = await node.operations.audit(None, None, 7)
    assert newest[:5] == everything[:5]
    assert newest[5].subject == namesake.id
