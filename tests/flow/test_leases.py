"""Local verdicts on real servers: who is refused without the gate, and that nobody hears a word that is not so.

Each safeguard is also switched off here, or in the simulation: then somebody hears the wrong one.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from flashsale import embedded
from flashsale.domain import SOLD_OUT, Access, Allocation, Claim, Drop, Everyone, Fcode, Points, Refusal, Tier, Verdict
from flashsale.drops import AllocationChange
from flashsale.errors import Unavailable
from flashsale.gate import Gate, Unarmed, keys
from flashsale.leases import LEASE_S, Leases, _nobodys_own
from flashsale.reservations import Held, Known, Limits
from tests.flow.faults import id_of, press
from tests.support import PATIENCE_S, NewDrop, Node, allocation, claim, make_drop, make_node, until

AT_ONCE = Limits(leases_from=1, answer_max_s=PATIENCE_S)
LONG_MS = 3_000
ENDLESS_MS = 60_000
BOUGHT: dict[str, str] = {}
"""By drop, the reservation of its one unit."""


@pytest.fixture
async def nodes(urls: embedded.Servers) -> AsyncIterator[list[Node]]:
    """Two processes that ask for a lease at the first refusal."""
    made = [await make_node(urls, limits=AT_ONCE) for _ in range(2)]
    yield made
    for each in made:
        await each.aclose()


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that nobody waits for."""
    monkeypatch.setattr("flashsale.gate.LEASE_MS", ENDLESS_MS)
    monkeypatch.setattr("flashsale.reconcile.LEASE_MS", ENDLESS_MS)


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that are sure to be out still when the next line is reached, on however busy a machine."""
    monkeypatch.setattr("flashsale.gate.LEASE_MS", LONG_MS)
    monkeypatch.setattr("flashsale.reconcile.LEASE_MS", LONG_MS)


def leases_of(node: Node, drop: Drop) -> Leases:
    """What that process knows of leases."""
    found = node.reservations._lanes_of(drop.id).leases
    assert found is not None
    return found


async def leased(node: Node, drop: Drop, wanted: Claim) -> None:
    """Press until the process refuses such a claim by itself."""
    await node.catalog.get(drop.id)

    async def refuses() -> bool:
        await node.reservations.reserve(drop.id, wanted)
        return leases_of(node, drop)._ends.get((wanted.allocation, wanted.quantity, wanted.tier), 0.0) > 0

    await until(refuses, "the process has a lease")


async def sold_out(node: Node, new_drop: NewDrop, *others: Allocation, per_member: int = 1) -> Drop:
    """A drop whose one unit has gone to member 1."""
    drop = await new_drop(allocation(quantity=1), *others, per_member=per_member)
    BOUGHT[drop.id] = id_of(await press(node, drop.id, claim(1)))
    return drop


def count_calls(node: Node, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many claims each further call to the gate carries."""
    calls: list[int] = []
    decide = node.gate.decide

    async def counted(drop: Drop, min_epoch: int, claims: list[Claim], *args: Any, **named: Any) -> Any:  # noqa: ANN401
        calls.append(len(claims))
        return await decide(drop, min_epoch, claims, *args, **named)

    monkeypatch.setattr(node.gate, "decide", counted)
    return calls


async def test_a_crowd_is_refused_without_the_gate(
    nodes: list[Node], new_drop: NewDrop, monkeypatch: pytest.MonkeyPatch, long: None
) -> None:
    """All but one of a thousand, who asks for the next lease."""
    drop = await sold_out(nodes[0], new_drop)
    told: list[int] = []
    monkeypatch.setattr(nodes[0].reservations, "_on_decided", lambda _drop, results: told.append(len(results)))
    await leased(nodes[0], drop, claim(2))
    calls = count_calls(nodes[0], monkeypatch)
    told.clear()
    heard: dict[int, Any] = {}
    await nodes[0].reservations.reserve_together(drop.id, [claim(m) for m in range(10, 1_010)], heard.__setitem__)
    assert [heard[at] for at in range(1_000)] == [SOLD_OUT] * 1_000
    assert sum(calls) <= 1
    await until_told(told, 1_000)


async def until_told(told: list[int], total: int) -> None:
    """Whoever counts verdicts hears of those, too."""

    async def all_told() -> bool:
        return sum(told) == total

    await until(all_told, f"{total} verdicts were counted")


async def test_who_must_be_asked_for_is_asked_for(
    nodes: list[Node], new_drop: NewDrop, monkeypatch: pytest.MonkeyPatch, long: None
) -> None:
    """Who has one, a key, another wish: each goes to the gate under a lease, and hears what is so."""
    drop = await sold_out(nodes[0], new_drop, allocation("b", 1, opens_in_s=1_000), per_member=2)
    await leased(nodes[0], drop, claim(2, "a"))
    calls = count_calls(nodes[0], monkeypatch)
    answers = [
        await nodes[0].reservations.reserve(drop.id, asked)
        for asked in (claim(1, "a"), claim(3, "a", key="k"), claim(3, "b"), claim(3, "a", quantity=2))
    ]
    assert len(calls) == len(answers)
    assert [answer.verdict for answer in answers if isinstance(answer, Refusal)] == [
        *(Verdict.SOLD_OUT, Verdict.SOLD_OUT, Verdict.NOT_OPEN, Verdict.SOLD_OUT),
    ]


async def test_the_same_one_again_under_a_lease(nodes: list[Node], new_drop: NewDrop, long: None) -> None:
    """Who got the last unit from one process hears of it from the other, which refuses everybody else by itself."""
    drop = await sold_out(nodes[0], new_drop)
    await leased(nodes[1], drop, claim(2))
    assert isinstance(await nodes[1].reservations.reserve(drop.id, claim(1)), Known)
    assert await nodes[1].reservations.reserve(drop.id, claim(3)) == SOLD_OUT


async def give_back(node: Node, drop: Drop) -> None:
    """Member 1 gives the unit back."""
    stored = await node.ledger.reservations.get(BOUGHT[drop.id])
    assert stored is not None
    await node.reservations.cancel(stored)
    await node.reservations.drain()


async def late(nodes: list[Node], new_drop: NewDrop, *, lost: bool = False) -> tuple[Any, Any]:
    """A unit comes back while the second process has a lease; who gets it from the first one presses there, too.

    `lost`: the gate that gave the lease is lost, and another one armed.
    """
    drop = await sold_out(nodes[0], new_drop)
    await leased(nodes[1], drop, claim(2))
    await give_back(nodes[0], drop)
    if lost:
        await nodes[0].gate._command("UNLINK", *keys.stripe(drop.id))
        await nodes[0].arming.arm(drop.id)
    first = await nodes[0].reservations.reserve(drop.id, claim(3, key="k"))
    return first, await nodes[1].reservations.reserve(drop.id, claim(3))


@pytest.mark.parametrize("lost", [False, True])
async def test_a_yes_is_kept_back_while_a_lease_is_out(
    nodes: list[Node], new_drop: NewDrop, long: None, lost: bool
) -> None:
    """Neither answered nor committed: when it is told, no process refuses any more who does not know of it."""
    first, again = await late(nodes, new_drop, lost=lost)
    assert isinstance(first, Held)
    assert isinstance(again, Known)
    assert again.reservation.id == first.grant.id


async def test_a_yes_that_is_told_at_once_is_denied_in_this_harness(
    nodes: list[Node], new_drop: NewDrop, monkeypatch: pytest.MonkeyPatch, endless: None
) -> None:
    """The negative control: the other process has not heard of it, and refuses who has it (I8)."""
    monkeypatch.setattr(Leases, "kept_back_s", 0.0)
    first, again = await late(nodes, new_drop)
    assert isinstance(first, Held)
    assert again == SOLD_OUT


async def test_a_new_gate_that_knows_of_no_lease_breaks_one_in_this_harness(
    nodes: list[Node], new_drop: NewDrop, monkeypatch: pytest.MonkeyPatch, endless: None
) -> None:
    """The negative control: it keeps nothing back, and the lease that the lost one gave is still out (I8)."""
    monkeypatch.setattr("flashsale.reconcile.LEASE_MS", 0)
    first, again = await late(nodes, new_drop, lost=True)
    assert isinstance(first, Held)
    assert again == SOLD_OUT


async def test_an_operator_is_answered_when_the_leases_are_over(
    nodes: list[Node], new_drop: NewDrop, long: None
) -> None:
    """Then whoever presses, anywhere, finds the unit that was added."""
    drop = await sold_out(nodes[0], new_drop)
    await leased(nodes[1], drop, claim(2))
    await nodes[0].operations.change_allocation(drop.id, "a", AllocationChange(quantity=2), actor="ops:1")
    assert isinstance(await nodes[1].reservations.reserve(drop.id, claim(2)), Held)


async def test_an_operator_who_is_answered_at_once_is_contradicted_in_this_harness(
    nodes: list[Node], new_drop: NewDrop, monkeypatch: pytest.MonkeyPatch, endless: None
) -> None:
    """The negative control: the unit is there, and a process refuses who asks for it."""

    async def at_once(_self: object, _drop: Drop) -> None:
        """Wait for nothing."""

    monkeypatch.setattr(type(nodes[0].operations), "_leases_are_over", at_once)
    drop = await sold_out(nodes[0], new_drop)
    await leased(nodes[1], drop, claim(2))
    await nodes[0].operations.change_allocation(drop.id, "a", AllocationChange(quantity=2), actor="ops:1")
    assert await nodes[1].reservations.reserve(drop.id, claim(2)) == SOLD_OUT


def test_rules_that_are_somebodys_own_are_left_to_the_gate() -> None:
    """Points are each member's own, and the token tells the tier, which is part of what is asked for."""
    rules: dict[str, Access] = {"a": Everyone(), "t": Tier(2), "p": Points("forum", 1), "f": Fcode()}
    nobodys = _nobodys_own(make_drop(*(allocation(name, access=access) for name, access in rules.items())))
    assert {name: nobodys(name) for name in (*rules, "ghost", None)} == {
        "a": True,
        "t": True,
        "p": False,
        "f": False,
        "ghost": False,
        None: False,
    }
    assert _nobodys_own(make_drop(allocation("a"), allocation("f", access=Fcode())))(None)


async def test_the_lane_of_codes_is_asked_for(nodes: list[Node], new_drop: NewDrop) -> None:
    """Without a code, too: it is not sold out."""
    codes = await sold_out(nodes[0], new_drop, allocation("f", 3, access=Fcode()))
    await leased(nodes[0], codes, claim(2))
    assert await nodes[0].reservations.reserve(codes.id, claim(2, "f")) == Refusal(Verdict.FCODE_INVALID)


async def test_a_lost_gate_does_not_forget_that_leases_are_out(
    nodes: list[Node], new_drop: NewDrop, long: None
) -> None:
    """The next one keeps everything back for as long; a drop's first gate keeps nothing back."""
    drop = await new_drop(allocation(quantity=2))
    await nodes[0].catalog.get(drop.id)
    assert isinstance(await nodes[0].reservations.reserve(drop.id, claim(1)), Held)
    assert leases_of(nodes[0], drop).kept_back_s == 0.0
    await nodes[0].gate._command("UNLINK", *keys.stripe(drop.id))
    await nodes[0].arming.arm(drop.id)
    now = await nodes[0].catalog.reload(drop.id)
    assert now is not None
    status = await nodes[0].gate.status(now, now.epoch)
    assert not isinstance(status, Unarmed)
    assert 0 < status.out_ms <= LONG_MS


async def test_members_that_cannot_be_read_cost_the_lease_and_nothing_else(
    nodes: list[Node], new_drop: NewDrop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate goes on to be asked; the next lease is the next try."""
    drop = await sold_out(nodes[0], new_drop)
    tries: list[str] = []
    members = Gate.members

    async def fails_once(gate: Gate, drop_id: str, *, stripe: int = 0) -> set[int]:
        tries.append(drop_id)
        if len(tries) == 1:
            raise Unavailable("not now")
        return await members(gate, drop_id, stripe=stripe)

    monkeypatch.setattr(Gate, "members", fails_once)
    await leased(nodes[0], drop, claim(2))
    assert len(tries) == 2


async def test_without_a_rush_there_are_no_leases(urls: embedded.Servers, new_drop: NewDrop) -> None:
    """A refusal now and then asks for none, and no yes is ever kept back."""
    node = await make_node(urls)
    drop = await sold_out(node, new_drop)
    for member in range(2, 12):
        assert await node.reservations.reserve(drop.id, claim(member)) == SOLD_OUT
    leases = leases_of(node, drop)
    assert leases.log is None
    assert (leases._ends, leases.kept_back_s) == ({}, 0.0)
    await node.aclose()


async def test_a_rush_is_over_when_it_is_over(nodes: list[Node]) -> None:
    """Counted in stretches as long as a lease: two without a refusal, and none is asked for."""
    clock = [100.0]
    leases = Leases(
        nodes[0].gate,
        "drop",
        min_epoch=lambda: 0,
        now=lambda: clock[0],
        told=lambda _count: None,
        leases_from=3,
    )
    leases._count(3)
    assert leases.log == ("", 0)
    clock[0] += LEASE_S
    assert leases.log == ("", 0)
    clock[0] += LEASE_S
    assert leases.log is None


async def test_two_processes_renew_one_lease(nodes: list[Node], new_drop: NewDrop) -> None:
    """Both go on refusing, and both know who came meanwhile."""
    drop = await sold_out(nodes[0], new_drop)
    await asyncio.gather(*(leased(node, drop, claim(2 + at)) for at, node in enumerate(nodes)))
    assert leases_of(nodes[0], drop)._log == leases_of(nodes[1], drop)._log
    await give_back(nodes[0], drop)

    async def got_it() -> bool:
        return isinstance(await nodes[0].reservations.reserve(drop.id, claim(9, key="k")), Held | Known)

    await until(got_it, "member 9 has the unit")
    for node in nodes:
        await leased(node, drop, claim(5))
        assert isinstance(await node.reservations.reserve(drop.id, claim(9)), Known)
