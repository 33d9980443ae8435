"""A drop over several stripes: sold to the last unit and not one more, whoever comes to whichever of them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from redis.asyncio import Redis

from flashsale import embedded, reconcile
from flashsale.batches import Batches
from flashsale.domain import Decision, Fcode, Grant, Refusal, Tier, Verdict, home_stripe
from flashsale.gate import Decisions, Gate, Unarmed
from flashsale.ledger import ArmState
from flashsale.looks import Seen
from flashsale.reservations import Held, Limits
from flashsale.stripes import Back, Decided, Look, Stripes
from tests.flow.faults import at_rest, id_of, press
from tests.flow.striped import BUYERS, PROCESSES, STRIPES, UNITS, rush, units
from tests.flow.test_fcodes import KEYS, codes_of, minted, shows
from tests.ledger.support import new_database
from tests.support import NewDrop, Node, allocation, claim, make_node, members_at


@pytest.fixture(scope="module")
async def servers(urls: embedded.Servers) -> AsyncIterator[embedded.Servers]:
    """The session's servers, with a database of this module's own: a round looks after these drops only."""
    async with new_database(urls.database_url) as url:
        yield embedded.Servers(urls.redis_url, url, urls.supervisor)


@pytest.fixture(scope="module")
async def nodes(servers: embedded.Servers) -> AsyncIterator[list[Node]]:
    """Three processes."""
    made = [await make_node(servers) for _ in range(PROCESSES)]
    yield made
    for each in made:
        await each.aclose()


@pytest.fixture
def node(nodes: list[Node]) -> Node:
    """The first of them."""
    return nodes[0]


@pytest.fixture
async def redis(servers: embedded.Servers) -> AsyncIterator["Redis"]:
    """A hand at the gate's own prompt."""
    client: Redis = Redis.from_url(servers.redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The janitor takes a grant for orphaned at once, and not after three seconds."""
    monkeypatch.setattr(reconcile, "PENDING_MAX_MS", 0)


CROWDS = {
    "from everywhere": range(1, BUYERS + 1),
    "all of one home": members_at(1, STRIPES, BUYERS),
}


@pytest.mark.parametrize("crowd", CROWDS)
async def test_exactly_what_there_is_is_sold(nodes: list[Node], new_drop: NewDrop, crowd: str) -> None:
    """Through three processes; also when all come to one stripe, and it has a quarter of the units."""
    drop = await new_drop(allocation(quantity=UNITS), stripes=STRIPES)
    assert await units(nodes[0], drop) == [UNITS // STRIPES] * STRIPES
    heard = await rush(nodes, drop, [claim(member) for member in CROWDS[crowd]])
    assert heard == {"Held": UNITS, "sold_out": BUYERS - UNITS}
    assert await at_rest(nodes[0], drop.id) == {"a": 0}


async def test_home_alone_strands_units_in_this_harness(
    nodes: list[Node], new_drop: NewDrop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: where home's word is taken for all stripes', most units are never sold."""

    async def believed(_: Stripes, _press: object, decided: Decided, _home: int) -> Decision:
        return decided.decision

    monkeypatch.setattr(Stripes, "_short", believed)
    monkeypatch.setattr(Stripes, "_elsewhere", lambda *_: {})
    drop = await new_drop(allocation(quantity=UNITS), stripes=STRIPES)
    heard = await rush(nodes, drop, [claim(member) for member in CROWDS["all of one home"]])
    assert heard == {"Held": UNITS // STRIPES, "sold_out": BUYERS - UNITS // STRIPES}
    assert sum(await units(nodes[0], drop)) == UNITS - UNITS // STRIPES


async def test_stripes_that_each_have_all_units_oversell_in_this_harness(
    nodes: list[Node], new_drop: NewDrop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one: units that are copied instead of spread are granted four times; the ledger keeps them once."""
    monkeypatch.setattr(ArmState, "free_at", lambda state, _stripe: state.free)
    drop = await new_drop(allocation(quantity=UNITS), stripes=STRIPES)
    grants: list[Grant] = []
    for stripe in range(STRIPES):
        claims = [claim(member) for member in members_at(stripe, STRIPES, UNITS)]
        decided = await nodes[0].gate.decide(drop, 0, claims, stripe=stripe, elsewhere={})
        assert isinstance(decided, Decisions)
        grants += [result for result in decided.results if isinstance(result, Grant)]
    assert len(grants) == STRIPES * UNITS
    outcomes = Counter(type(o).__name__ for o in await nodes[0].ledger.reservations.commit(drop.id, grants))
    assert outcomes == {"Committed": UNITS, "SecondLock": (STRIPES - 1) * UNITS}


async def test_a_call_that_gives_units_back_answers_no_look(node: Node, new_drop: NewDrop) -> None:
    """It tells nothing of what is left: what the stripe told long before would be taken for news, and be sold out."""
    drop = await new_drop(allocation(quantity=2), stripes=2)
    stripes = node.reservations._lanes_of(drop.id).gate
    assert isinstance(stripes, Stripes)
    stripes._seen[1] = Seen(drop.epoch, {"a": 0})
    look: asyncio.Future[Seen | Unarmed] = asyncio.get_running_loop().create_future()
    stripes._looking[1].append(look)
    await stripes._call_of(1)([Back(Grant("nobody's", 1, "a", 1, 1, None, "a|1", drop.epoch, 1))])
    assert not look.done()
    await stripes._call_of(1)([Look()])
    assert look.result() == Seen(drop.epoch, {"a": 1})


async def test_a_look_that_is_older_than_the_press_is_not_believed(node: Node, new_drop: NewDrop) -> None:
    """A unit comes back to another stripe between two presses of a sold out drop: the second one gets it."""
    drop = await new_drop(allocation(quantity=STRIPES), stripes=STRIPES)
    held = [await press(node, drop.id, claim(members_at(stripe, STRIPES, 1)[0])) for stripe in range(STRIPES)]
    [late] = members_at(0, STRIPES, 1, first=10_000)
    assert await press(node, drop.id, claim(late)) == Refusal(Verdict.SOLD_OUT)
    stored = await node.ledger.reservations.get(id_of(held[3]))
    assert stored is not None
    assert (stored.home, stored.unit) == (3, 3)
    await node.reservations.cancel(stored)
    await node.reservations.drain()
    answer = await press(node, drop.id, claim(late))
    assert isinstance(answer, Held)
    assert (answer.grant.stripe, answer.grant.unit) == (0, 3)
    assert await at_rest(node, drop.id) == {"a": 0}


async def test_the_limit_holds_across_stripes(nodes: list[Node], new_drop: NewDrop) -> None:
    """A member whose home is dry presses under a hundred keys, through all processes: two units, from elsewhere."""
    drop = await new_drop(allocation(quantity=UNITS), stripes=STRIPES, per_member=2)
    first, *others = members_at(2, STRIPES, UNITS // STRIPES + 1)
    assert await rush(nodes, drop, [claim(member) for member in others]) == {"Held": UNITS // STRIPES}
    heard = await rush(nodes, drop, [claim(first, key=f"k{n}") for n in range(100)])
    assert heard == {"Held": 2, "member_limit": 98}
    assert await at_rest(nodes[0], drop.id) == {"a": UNITS - UNITS // STRIPES - 2}


async def test_several_units_come_from_one_stripe(node: Node, new_drop: NewDrop) -> None:
    """The documented edge: two units on two stripes are no pair; and who wants one each gets them."""
    drop = await new_drop(allocation(quantity=5), stripes=STRIPES, per_member=2)
    assert await units(node, drop) == [2, 1, 1, 1]
    [first], [second] = members_at(1, STRIPES, 1), members_at(2, STRIPES, 1)
    pair = await press(node, drop.id, claim(first, quantity=2))
    assert isinstance(pair, Held)
    assert (pair.grant.stripe, pair.grant.unit) == (1, 0)
    assert await press(node, drop.id, claim(second, quantity=2)) == Refusal(Verdict.SOLD_OUT)
    for key in ("a", "b"):
        assert isinstance(await press(node, drop.id, claim(second, key=key)), Held)
    assert await at_rest(node, drop.id) == {"a": 1}


@pytest.mark.parametrize("key", [None, "k"])
async def test_ten_presses_at_once_make_one_reservation(nodes: list[Node], new_drop: NewDrop, key: str | None) -> None:
    """Also while its unit is being fetched from another stripe: the others wait, and hear of that one."""
    drop = await new_drop(allocation(quantity=3), stripes=STRIPES)
    [member] = members_at(3, STRIPES, 1)
    assert (await units(nodes[0], drop))[3] == 0
    heard = await rush(nodes, drop, [claim(member, key=key)] * 10)
    assert heard == {"Held": 1, "Known": 9}
    assert await at_rest(nodes[0], drop.id) == {"a": 2}


@pytest.fixture
def batches(node: Node) -> Batches:
    return Batches(ledger=node.ledger, keys=KEYS, after=node.operations.after, now=lambda: datetime.now(UTC))


async def test_every_code_is_honoured_once_wherever_its_holder_is_at_home(
    nodes: list[Node], new_drop: NewDrop, batches: Batches
) -> None:
    """Each code is shown by five members of different homes, through all processes; the public has sold out."""
    lanes = (allocation("public", STRIPES), allocation("vip", 30, access=Fcode()))
    drop = await new_drop(*lanes, stripes=STRIPES)
    codes = await codes_of(batches, await minted(batches, drop, 30))
    await rush(nodes, drop, [claim(member) for member in range(10_000, 10_020)])
    shown = [shows(1 + number, code) for number, code in enumerate(codes * 5)]
    assert len({home_stripe(c.member, STRIPES) for c in shown}) == STRIPES
    assert await rush(nodes, drop, shown) == {"Held": 30, "fcode_spent": 120}
    assert await at_rest(nodes[0], drop.id) == {"public": 0, "vip": 0}
    rows = [r for n in range(len(shown)) for r in await nodes[0].ledger.reservations.list_of(1 + n, None, 9)]
    mine = [r for r in rows if r.drop == drop.id]
    assert sorted(r.code for r in mine if r.code is not None) == sorted(codes)
    assert {r.unit for r in mine} == {0}
    assert len({r.home for r in mine}) > 1


async def test_a_code_whose_hold_ends_can_be_spent_again_from_another_home(
    nodes: list[Node], new_drop: NewDrop, batches: Batches
) -> None:
    """The bit is on stripe 0, wherever the claim was; a rebuild leaves it there."""
    node = nodes[0]
    drop = await new_drop(allocation("vip", 1, access=Fcode()), stripes=STRIPES)
    [code] = await codes_of(batches, await minted(batches, drop, 1))
    first, second = members_at(3, STRIPES, 1) + members_at(1, STRIPES, 1)
    held = await press(node, drop.id, shows(first, code))
    assert await press(node, drop.id, shows(second, code)) == Refusal(Verdict.FCODE_SPENT)
    assert await node.arming.arm(drop.id, force=True)
    assert await press(node, drop.id, shows(second, code)) == Refusal(Verdict.FCODE_SPENT)
    stored = await node.ledger.reservations.get(id_of(held))
    assert stored is not None
    await node.reservations.cancel(stored)
    await node.reservations.drain()
    assert isinstance(await press(node, drop.id, shows(second, code)), Held)
    assert await at_rest(node, drop.id) == {"vip": 0}


async def test_reasons_keep_their_order_across_stripes(node: Node, new_drop: NewDrop, batches: Batches) -> None:
    """At home elsewhere, and at the limit: what is wrong with the code comes first; a lane that was named, too."""
    lanes = (allocation("public", 20), allocation("vip", 5, access=Fcode()))
    drop = await new_drop(*lanes, stripes=STRIPES)
    spent, free, *_ = await codes_of(batches, await minted(batches, drop, 5))
    for home in range(STRIPES):
        [member], [spender] = members_at(home, STRIPES, 1), members_at((home + 1) % STRIPES, STRIPES, 1, first=5_000)
        await press(node, drop.id, shows(spender, spent))
        assert isinstance(await press(node, drop.id, claim(member)), Held)
        for name in (None, "vip"):
            ask = [spent, free, free + 1_000]
            said = [await press(node, drop.id, shows(member, code, name, key="other")) for code in ask]
            words = [answer.verdict.value for answer in said if isinstance(answer, Refusal)]
            assert words == ["fcode_spent", "member_limit", "fcode_invalid"]
    assert [b.balanced for b in await node.operations.balance(drop.id)] == [True, True]


async def test_a_reason_of_another_allocation_does_not_hide_units_elsewhere(node: Node, new_drop: NewDrop) -> None:
    """Home has none of the first, and the second does not let the member in: the first is not sold out for that."""
    drop = await new_drop(allocation("few", 1), allocation("core", 8, access=Tier(3)), stripes=STRIPES)
    [member], [late] = members_at(2, STRIPES, 1), members_at(2, STRIPES, 1, first=1_000)
    held = await press(node, drop.id, claim(member))
    assert isinstance(held, Held)
    assert held.grant.allocation == "few"
    assert await press(node, drop.id, claim(late)) == Refusal(Verdict.NOT_ELIGIBLE)


def _counted(verb: str, sound: Any, calls: Counter[str]) -> Any:  # noqa: ANN401 -- a method of the gate's
    async def method(*args: object, **named: object) -> object:
        calls[verb] += 1
        return await sound(*args, **named)

    return method


async def test_refusals_after_the_sell_out_ask_each_stripe_once_a_batch(
    node: Node, new_drop: NewDrop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand presses of one home: the others are looked at per call, never per press."""
    drop = await new_drop(allocation(quantity=0), stripes=STRIPES)
    calls: Counter[str] = Counter()
    for verb in ("decide", "take"):
        monkeypatch.setattr(Gate, verb, _counted(verb, getattr(Gate, verb), calls))
    crowd = members_at(1, STRIPES, 1_000)
    assert await rush([node], drop, [claim(member) for member in crowd]) == {"sold_out": 1_000}
    assert calls["decide"] == -(-1_000 // Limits().gate_batch_max)
    assert calls["take"] <= calls["decide"] * (STRIPES - 1)
    calls.clear()
    assert await rush([node], drop, [claim(member) for member in range(1, 1_001)]) == {"sold_out": 1_000}
    assert calls["take"] <= calls["decide"] * (STRIPES - 1)
