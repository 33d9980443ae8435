"""Commit: fenced by the epoch, idempotent by id and by key, and never after its tombstone."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import asyncpg
import pytest

from flashsale.domain import Grant, State
from flashsale.ledger import Commit, Committed, Existing, Ledger, Stale, Standing
from flashsale.ledger.statements import sql
from tests.ledger.support import Sale, columns_of, open_sale, words
from tests.support import until

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.mark.parametrize("per_member", [1, 3])
async def test_a_grant_of_another_epoch_is_stale(ledger: Ledger, per_member: int) -> None:
    """Older or newer: nothing is written, and the answer says the ledger's epoch and whether the drop is paused."""
    sale = await open_sale(ledger, 5, per_member=per_member)
    granted = sale.epoch
    async with ledger.drops.act(sale.drop.id, actor="m", action="drop.pause", subject="s", detail={}) as act:
        assert act is not None
        act.paused = True
    now = await ledger.drops.get(sale.drop.id)
    assert now is not None
    assert now.epoch > granted
    outcomes = await sale.commit(sale.grant(1), sale.grant(2, epoch=now.epoch + 1))
    assert outcomes == [Stale(now.epoch, paused=True)] * 2
    assert await sale.rows() == []


async def test_an_epoch_is_never_given_twice(ledger: Ledger) -> None:
    """Bumps at once all differ; each is at least the time in ms, so that a restored ledger cannot repeat one."""
    sale = await open_sale(ledger, 5)
    epochs = await asyncio.gather(*(ledger.drops.bump(sale.drop.id) for _ in range(30)))
    assert len(set(epochs)) == 30
    assert min(e for e in epochs if e is not None) > sale.epoch
    await sale.pool.execute("UPDATE drops SET epoch = 5 WHERE id = $1", sale.drop.id)  # a backup from long ago
    restored = await sale.bump()
    assert abs(restored - datetime.now(UTC).timestamp() * 1000) < 60_000
    assert await ledger.drops.bump("unknown") is None


CommitOne = Callable[[Sale, Grant, Callable[[], Awaitable[None]]], Awaitable[bool]]


async def as_it_is(sale: Sale, grant: Grant, _meanwhile: Callable[[], Awaitable[None]]) -> bool:
    """The product's commit: one call, in which nothing can be waited for."""
    return isinstance((await sale.commit(grant))[0], Committed)


async def epoch_read_first(sale: Sale, grant: Grant, meanwhile: Callable[[], Awaitable[None]]) -> bool:
    """The variant without the lock: the epoch is read by a statement of its own, then the row is inserted."""
    async with sale.pool.connection() as connection, connection.transaction():
        drop = await connection.fetchrow("SELECT epoch FROM drops WHERE id = $1", sale.drop.id)
        if drop["epoch"] != grant.epoch:
            return False
        await meanwhile()
        query = """INSERT INTO reservations
            (id, drop_id, allocation_id, member, quantity, slot, payload, epoch, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now() + interval '15 minutes')"""
        row = (grant.id, sale.drop.id, grant.allocation, grant.member, 1, 1, grant.payload, grant.epoch)
        await connection.execute(query, *row)
    return True


@pytest.mark.parametrize("commit_one", [as_it_is, epoch_read_first])
async def test_no_row_of_an_old_epoch_appears_after_the_bump(ledger: Ledger, commit_one: CommitOne) -> None:
    """When a bump has returned, the rows of all epochs before it are complete.

    Commits come from five connections, with thirty bumps between them. The variant that reads the epoch in a statement
    of its own shows that the race is real.
    """
    sale = await open_sale(ledger, 1_000_000)
    older = "SELECT count(*) FROM reservations WHERE drop_id = $1 AND epoch < $2"
    bumped, over, members = asyncio.Event(), asyncio.Event(), iter(range(1, 1_000_000))
    answers: list[bool] = []

    async def next_bump() -> None:
        await bumped.wait()

    async def shopper() -> None:
        while not over.is_set():
            answers.append(await commit_one(sale, sale.grant(next(members)), next_bump))

    async def another_commit(before: int) -> bool:
        return sum(answers) > before

    shoppers = [asyncio.create_task(shopper()) for _ in range(5)]
    seen = []
    for _ in range(30):
        if commit_one is as_it_is:
            await until(partial(another_commit, sum(answers)), "a commit under this epoch")
        epoch = await sale.bump()
        seen.append((epoch, await sale.pool.fetchval(older, sale.drop.id, epoch)))
        bumped.set()
        bumped = asyncio.Event()
    over.set()
    bumped.set()
    await asyncio.gather(*shoppers)
    late = [await sale.pool.fetchval(older, sale.drop.id, epoch) - count for epoch, count in seen]
    if commit_one is as_it_is:
        assert late == [0] * 30
        assert await sale.taken() == sum(answers) >= 30
    else:
        assert max(late) > 0


@pytest.mark.parametrize("per_member", [1, 2])
async def test_the_same_id_is_one_reservation(ledger: Ledger, per_member: int) -> None:
    """Again in a later call, many times at once, or twice in one call: one row, counted once, and told each time."""
    sale = await open_sale(ledger, 5, per_member=per_member)
    first, second = sale.grant(1, key="k"), sale.grant(2)
    assert words(await sale.commit(first, second, first)) == ["committed", "committed", "exists"]
    answers = await asyncio.gather(*(sale.commit(second, first) for _ in range(8)))
    found = [o.reservation for batch in answers for o in batch if isinstance(o, Existing)]
    assert [r.id for r in found] == [second.id, first.id] * 8
    assert {r.state for r in found} == {State.HELD}
    assert await sale.taken() == 2
    fresh = sale.grant(3)
    racing = await asyncio.gather(*(sale.commit(fresh) for _ in range(8)))
    assert sorted(words([o for batch in racing for o in batch])) == ["committed"] + ["exists"] * 7
    assert await sale.taken() == 3


@pytest.mark.parametrize("per_member", [1, 2])
async def test_the_same_key_is_one_reservation(ledger: Ledger, per_member: int) -> None:
    """Also after it has ended, also under another epoch and payload; but a key is its member's and its drop's own."""
    sale = await open_sale(ledger, 5, per_member=per_member)
    first = sale.grant(1, key="k")
    assert words(await sale.commit(first, sale.grant(1, key="k"), sale.grant(2, key="k"))) == [
        *("committed", "exists", "committed")
    ]
    await sale.bump()
    await sale.cancel(first)
    (told,) = await sale.commit(sale.grant(1, key="k", quantity=2, epoch=1))
    assert isinstance(told, Existing)
    assert (told.reservation.id, told.reservation.state, told.reservation.payload) == (first.id, "cancelled", "a|1")
    other = await open_sale(ledger, 5)
    assert words(await other.commit(other.grant(1, key="k"))) == ["committed"]
    assert await sale.taken() == 1


async def test_a_hold_lasts_as_long_as_the_drop_says_by_the_ledgers_clock(ledger: Ledger) -> None:
    """In both ways through commit: all of a call at once, and one by one."""
    sale = await open_sale(ledger, 9, hold_seconds=1234)
    outcomes = await sale.commit(sale.grant(1))
    outcomes += await sale.commit(sale.grant(2), sale.grant(1, slot=2))
    answered = [o.expires_at for o in outcomes if isinstance(o, Committed)]
    rows = await sale.rows()
    assert [row["expires_at"] for row in rows] == answered
    assert all(abs((row["expires_at"] - row["created_at"]).total_seconds() - 1234) < 5 for row in rows)


@pytest.mark.parametrize("per_member", [1, 2])
async def test_where_a_tombstone_stands_nothing_is_inserted(ledger: Ledger, per_member: int) -> None:
    """The commit that comes after it is told of it; its member may buy under another id, with the same key."""
    sale = await open_sale(ledger, 1, per_member=per_member)
    late = sale.grant(1, key="k")
    assert await ledger.reservations.void(sale.drop.id, [late]) == [Standing(late.id, 1, State.VOID)]
    (told,) = await sale.commit(late)
    assert isinstance(told, Existing)
    assert told.reservation.state is State.VOID
    assert await sale.taken() == 0
    assert await ledger.reservations.get(late.id) is None
    assert words(await sale.commit(sale.grant(1, key="k"))) == ["committed"]
    assert await ledger.reservations.outbox(sale.drop.id, 10) == []


async def test_where_a_reservation_stands_no_tombstone_is_set(ledger: Ledger) -> None:
    """Live or ended, it stays as it is, and the janitor is told so, beside the tombstones of the same call."""
    sale = await open_sale(ledger, 9)
    live, ended, orphan = sale.grant(1), sale.grant(2), sale.grant(3)
    await sale.commit(live, ended)
    await sale.cancel(ended)
    before = await sale.rows()
    for _ in range(2):
        standing = await ledger.reservations.void(sale.drop.id, [orphan, ended, live])
        assert sorted(standing, key=lambda each: each.member) == [
            Standing(live.id, 1, State.HELD),
            Standing(ended.id, 2, State.CANCELLED),
            Standing(orphan.id, 3, State.VOID),
        ]
    assert (await sale.rows())[:2] == before
    assert await sale.taken() == 1
    assert await ledger.reservations.void(sale.drop.id, []) == []


@pytest.mark.parametrize("quicker", ["commit", "void"])
@pytest.mark.parametrize("per_member", [1, 2])
async def test_of_commit_and_tombstone_the_first_wins(ledger: Ledger, quicker: str, per_member: int) -> None:
    """Both already wait at the drop's lock; the second decides on what the first has just written."""
    sale = await open_sale(ledger, 9, per_member=per_member)
    grants = [sale.grant(member) for member in range(1, 4)]

    async def waiting(count: int) -> None:
        async def so() -> bool:
            return bool(await sale.pool.fetchval(WAITING) == count)

        await until(so, f"{count} calls at the lock")

    async with sale.pool.connection() as holder:
        async with holder.transaction():
            await holder.fetch(sql("drop_lock"), sale.drop.id)
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "commit": lambda: sale.commit(*grants),
                "void": lambda: ledger.reservations.void(sale.drop.id, grants),
            }
            tasks = {}
            for count, name in enumerate(sorted(calls, key=lambda name: name != quicker), 1):
                tasks[name] = asyncio.ensure_future(calls[name]())
                await waiting(count)
        committed, standing = await tasks["commit"], await tasks["void"]
    assert isinstance(committed, list)
    assert isinstance(standing, list)
    state = State.HELD if quicker == "commit" else State.VOID
    assert [s.state for s in standing] == [state] * 3
    assert words(committed) == ["committed" if quicker == "commit" else "exists"] * 3
    assert await sale.taken() == (3 if quicker == "commit" else 0)


async def test_of_commit_and_tombstone_one_wins_each_time(ledger: Ledger) -> None:
    """Three hundred ids, both calls under way together, in every mixture: they never both have their way."""
    sale = await open_sale(ledger, 1_000)

    async def race(first: int) -> list[tuple[Commit, State]]:
        grants = [sale.grant(member) for member in range(first, first + 6)]
        shuffled = sorted(grants, key=lambda g: g.member % 4)
        pair: list[Awaitable[object]] = [sale.commit(*grants), ledger.reservations.void(sale.drop.id, shuffled)]
        if first % 12 == 1:
            pair.reverse()
        answers: list[Any] = await asyncio.gather(*pair)
        committed, standing = answers if first % 12 != 1 else answers[::-1]
        states = {s.id: s.state for s in standing}
        return [(outcome, states[g.id]) for g, outcome in zip(grants, committed, strict=True)]

    results = []
    for start in range(1, 301, 30):
        results += [r for batch in await asyncio.gather(*(race(m) for m in range(start, start + 30, 6))) for r in batch]
    assert len(results) == 300
    live = 0
    for outcome, state in results:
        if isinstance(outcome, Committed):
            live += 1
            assert state is State.HELD
        else:
            assert isinstance(outcome, Existing)
            assert outcome.reservation.state is state is State.VOID
    assert await sale.taken() == live


async def test_one_call_is_one_transaction(ledger: Ledger) -> None:
    """A fault in the middle (here a slot that cannot be) leaves nothing of its call behind."""
    sale = await open_sale(ledger, 9, per_member=2)
    good, bad = sale.grant(1), sale.grant(2)
    columns = [list(column) for column in zip(columns_of(good), columns_of(bad), strict=True)]
    columns[4] = [1, 0]  # slots
    with pytest.raises(asyncpg.CheckViolationError, match="reservations_slot_check"):
        await sale.pool.fetch(sql("commit"), sale.drop.id, *columns)
    assert await sale.rows() == []
    assert await sale.taken() == 0
