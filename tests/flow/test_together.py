"""Presses that come together: each is answered as if it had come alone."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio as redis

from flashsale import embedded
from flashsale.domain import Claim, Refusal, Verdict
from flashsale.errors import Overloaded
from flashsale.gate import Decisions, Unarmed
from flashsale.reservations import Held, Known, Limits, Outcome
from tests.flow.faults import HeldBack
from tests.support import PATIENCE_S, NewDrop, Node, allocation, claim, make_node, until


@pytest.fixture
async def small(urls: embedded.Servers) -> AsyncIterator[Node]:
    """A process whose calls to the ledger take 3 grants."""
    node = await make_node(urls, limits=Limits(gate_batch_max=20, ledger_batch_max=3, answer_max_s=PATIENCE_S))
    yield node
    await node.aclose()


async def together(node: Node, drop_id: str, claims: list[Claim]) -> list[Outcome | Exception]:
    """What each of them hears: exactly one answer."""
    heard: dict[int, Outcome | Exception] = {}

    def tell(at: int, answer: Outcome | Exception) -> None:
        assert at not in heard
        heard[at] = answer

    await node.reservations.reserve_together(drop_id, claims, tell)
    return [heard[at] for at in range(len(claims))]


async def test_each_hears_its_own_verdict_in_order(small: Node, new_drop: NewDrop) -> None:
    """Wins over several calls of the ledger, what one has already, a refusal of one alone, and who came too late."""
    drop = await new_drop(allocation("a", 8), allocation("b", 1))
    await small.catalog.get(drop.id)
    first = await small.reservations.reserve(drop.id, claim(1, "a", key="k"))
    assert isinstance(first, Held)
    claims = [
        *(claim(1, "a", key="k"), claim(1, "b", key="k"), claim(1, "a", key="other"), claim(2, "none")),
        *(claim(member, "a") for member in range(10, 20)),
    ]
    again, mismatch, limit, unknown, *rest = await together(small, drop.id, claims)
    assert isinstance(again, Known)
    assert again.reservation.id == first.grant.id
    assert (mismatch, limit, unknown) == (
        Refusal(Verdict.IDEMPOTENCY_MISMATCH),
        Refusal(Verdict.MEMBER_LIMIT),
        Refusal(Verdict.NOT_FOUND),
    )
    held = [answer for answer in rest[:7] if isinstance(answer, Held)]
    assert [answer.grant.member for answer in held] == list(range(10, 17))
    assert rest[7:] == [Refusal(Verdict.SOLD_OUT)] * 3
    for answer in held:
        stored = await small.ledger.reservations.get(answer.grant.id)
        assert stored is not None
        assert (stored.member, stored.expires_at) == (answer.grant.member, answer.expires_at)
    assert [b.balanced for b in await small.operations.balance(drop.id)] == [True, True]


async def test_a_gate_that_was_emptied_is_rebuilt_and_all_are_answered(
    small: Node, new_drop: NewDrop, urls: embedded.Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together, not one after the other: that would be a call of the gate for each."""
    drop = await new_drop(allocation(quantity=2))
    await small.catalog.get(drop.id)
    first = await small.reservations.reserve(drop.id, claim(1))
    assert isinstance(first, Held)
    async with redis.from_url(urls.redis_url) as client:
        await client.flushall()
    calls = 0
    decide = small.gate.decide

    async def counted(*args: Any, **more: Any) -> Decisions | Unarmed:  # noqa: ANN401 -- handed on as they are
        nonlocal calls
        calls += 1
        return await decide(*args, **more)

    monkeypatch.setattr(small.gate, "decide", counted)
    again, won, *lost = await together(small, drop.id, [claim(member) for member in range(1, 21)])
    assert isinstance(again, Known)
    assert again.reservation.id == first.grant.id
    assert isinstance(won, Held)
    assert lost == [Refusal(Verdict.SOLD_OUT)] * 18
    assert calls <= 5


async def test_who_is_refused_waits_for_nobody_s_commit(urls: embedded.Servers, new_drop: NewDrop) -> None:
    """Losers hear their verdict while the winner's commit is held up, and more than one call's worth of them."""
    node = await make_node(urls, limits=Limits(gate_batch_max=4, answer_max_s=PATIENCE_S), make_store=HeldBack)
    drop = await new_drop(allocation(quantity=1))
    await node.catalog.get(drop.id)
    heard: dict[int, Outcome | Exception] = {}
    claims = [claim(member) for member in range(1, 11)]
    reserving = asyncio.create_task(node.reservations.reserve_together(drop.id, claims, heard.__setitem__))

    async def refused() -> bool:
        return len(heard) == 9

    await until(refused, "all but the winner have their answer")
    assert set(map(repr, heard.values())) == {repr(Refusal(Verdict.SOLD_OUT))}
    store = node.ledger.reservations
    assert isinstance(store, HeldBack)
    store.go.set()
    await reserving
    assert [type(heard[at]) for at in range(10)].count(Held) == 1
    await node.aclose()


@pytest.mark.parametrize("limits", [Limits(ledger_queue_max=2), Limits(gate_queue_max=2)])
async def test_as_many_go_on_as_there_is_room_for(urls: embedded.Servers, new_drop: NewDrop, limits: Limits) -> None:
    """The others are told to repeat, and nothing is granted to them: a grant that cannot be kept helps nobody."""
    node = await make_node(urls, limits=limits)
    drop = await new_drop(allocation(quantity=5))
    await node.catalog.get(drop.id)
    answers = await together(node, drop.id, [claim(member) for member in (1, 2, 3)])
    assert [type(answer) for answer in answers] == [Held, Held, Overloaded]
    status = await node.gate.status(drop, 0)
    assert status.available == {"a": 3}  # type: ignore[union-attr]
    await node.aclose()


async def test_where_there_is_no_room_at_all_nobody_goes_on(urls: embedded.Servers, new_drop: NewDrop) -> None:
    """While a commit is held up, the next ones wait in the queue, and who comes then is sent away at once."""
    node = await make_node(urls, limits=Limits(ledger_batch_max=1, ledger_queue_max=2), make_store=HeldBack)
    store = node.ledger.reservations
    assert isinstance(store, HeldBack)
    drop = await new_drop(allocation(quantity=5))
    await node.catalog.get(drop.id)
    going = [asyncio.create_task(node.reservations.reserve(drop.id, claim(1)))]
    await store.waiting.wait()
    going += [asyncio.create_task(node.reservations.reserve(drop.id, claim(member))) for member in (2, 3)]

    async def are_waiting() -> bool:
        return node.reservations.waiting()[1] == 2

    await until(are_waiting, "two wait for the ledger")
    answers = await together(node, drop.id, [claim(member) for member in (4, 5)])
    assert [type(answer) for answer in answers] == [Overloaded] * 2
    store.go.set()
    assert [type(answer) for answer in await asyncio.gather(*going)] == [Held] * 3
    await node.aclose()
