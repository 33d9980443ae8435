"""Holds that everybody wants to end at once: each ends exactly once, the counter is never off, nobody deadlocks."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import asyncpg

from flashsale.domain import Grant, Reservation, State
from flashsale.errors import LedgerUnavailable
from flashsale.ledger import Committed, Existing, Ledger
from flashsale.ledger.statements import sql
from tests.ledger.support import Sale, open_sale, watch, words
from tests.support import until

ROUNDS = 300


async def due(sale: Sale, count: int) -> None:
    """Wait until so many holds of the sale are over by the ledger's clock."""
    query = "SELECT count(*) FROM reservations WHERE drop_id = $1 AND state = 'held' AND expires_at <= now()"

    async def so() -> bool:
        return bool(await sale.pool.fetchval(query, sale.drop.id) == count)

    await until(so, f"{count} holds are due")


async def test_whoever_ends_a_hold_it_ends_exactly_once(ledger: Ledger) -> None:
    """On each of three hundred holds in two allocations: two cancels, two expiries, a tombstone and a late commit.

    One of them ends it, and the row says which; all the while, counters and rows agree in every look at them.
    """
    sale = await open_sale(ledger, ROUNDS, ROUNDS, hold_seconds=1)
    grants = [sale.grant(member, name="ab"[member % 2]) for member in range(1, ROUNDS + 1)]
    assert words(await sale.commit(*grants)) == ["committed"] * ROUNDS
    await due(sale, ROUNDS)
    rng = random.Random(1)
    over = asyncio.Event()
    watcher = asyncio.create_task(watch(sale, over))
    ends: Counter[str] = Counter()
    enders: dict[str, list[State]] = {g.id: [] for g in grants}

    async def cancel(batch: list[Grant]) -> None:
        for g in batch:
            if (ended := await sale.cancel(g)) is not None:
                note(ended)

    async def cancel_all(batch: list[Grant]) -> None:
        for ended in await ledger.reservations.cancel(sale.drop.id, [g.id for g in batch]):
            note(ended)

    async def expire(batch: list[Grant]) -> None:
        for ended in await ledger.reservations.expire(sale.drop.id, [g.id for g in batch]):
            note(ended)

    async def void(batch: list[Grant]) -> None:
        standing = await ledger.reservations.void(sale.drop.id, batch)
        assert State.VOID not in {s.state for s in standing}

    async def commit_late(batch: list[Grant]) -> None:
        assert all(isinstance(o, Existing) for o in await sale.commit(*batch))

    def note(ended: Reservation) -> None:
        ends[ended.state] += 1
        enders[ended.id].append(ended.state)

    acts: list[Callable[[list[Grant]], Awaitable[None]]] = [cancel, cancel_all, expire, expire, void, commit_late]
    for start in range(0, ROUNDS, 12):
        batch = grants[start : start + 12]
        calls = [act(rng.sample(batch, len(batch))) for act in rng.sample(acts, len(acts))]
        await asyncio.gather(*calls)
    over.set()
    assert await watcher > 5
    assert {len(states) for states in enders.values()} == {1}
    rows = {str(row["id"]): row for row in await sale.rows()}
    assert {i: [State(row["state"])] for i, row in rows.items()} == enders
    assert all(row["ended_at"] is not None and row["gate_released"] is False for row in rows.values())
    assert min(ends[State.CANCELLED], ends[State.EXPIRED]) > 0
    assert await sale.taken("a") == await sale.taken("b") == 0
    assert len(await ledger.reservations.outbox(sale.drop.id, 2 * ROUNDS)) == ROUNDS


async def test_commits_tombstones_and_cancels_of_the_same_ids_together(ledger: Ledger) -> None:
    """From the very first: every id ends up as one thing, and of whom was told "committed" there is a reservation."""
    sale = await open_sale(ledger, ROUNDS, ROUNDS)
    rng = random.Random(2)
    over = asyncio.Event()
    watcher = asyncio.create_task(watch(sale, over))
    committed: set[str] = set()
    cancelled: Counter[str] = Counter()

    async def commit(batch: list[Grant]) -> None:
        outcomes = await sale.commit(*batch)
        committed.update(g.id for g, o in zip(batch, outcomes, strict=True) if isinstance(o, Committed))

    async def cancel(batch: list[Grant]) -> None:
        for g in batch:
            if await sale.cancel(g) is not None:
                cancelled[g.id] += 1

    async def void(batch: list[Grant]) -> None:
        await ledger.reservations.void(sale.drop.id, batch)

    for start in range(1, ROUNDS + 1, 12):
        batch = [sale.grant(member, name=rng.choice("ab")) for member in range(start, start + 12)]
        acts = [commit, cancel, void, commit, cancel, void]
        await asyncio.gather(*(act(rng.sample(batch, rng.randint(1, 12))) for act in rng.sample(acts, len(acts))))
    over.set()
    assert await watcher > 5
    rows = {str(row["id"]): State(row["state"]) for row in await sale.rows()}
    assert {i for i, state in rows.items() if state is not State.VOID} == committed
    assert {i for i, state in rows.items() if state is State.CANCELLED} == set(cancelled)
    assert set(cancelled.values()) == {1}
    assert set(rows.values()) == {State.HELD, State.VOID, State.CANCELLED}
    assert await sale.taken("a") + await sale.taken("b") == list(rows.values()).count(State.HELD)


async def test_a_hold_is_expired_when_it_is_due_and_not_before(ledger: Ledger) -> None:
    """By the ledger's clock, in every drop, at most so many a call; twice the same hold never."""
    short, long = await open_sale(ledger, 9, hold_seconds=900), await open_sale(ledger, 9, hold_seconds=900)
    grants = [short.grant(member) for member in range(1, 6)]
    await short.commit(*grants)
    kept = long.grant(1)
    await long.commit(kept)
    ids = [g.id for g in grants]
    assert await ledger.reservations.expire(short.drop.id, ids) == []
    assert short.drop.id not in await ledger.reservations.due(100)
    await short.pool.execute("UPDATE reservations SET expires_at = clock_timestamp() WHERE drop_id = $1", short.drop.id)
    await due(short, 5)
    found = await ledger.reservations.due(2)
    assert sum(len(each) for each in found.values()) == 2
    assert sorted((await ledger.reservations.due(100_000))[short.drop.id]) == sorted(ids)
    assert await ledger.reservations.expire(long.drop.id, ids) == []
    at_once = await asyncio.gather(*(ledger.reservations.expire(short.drop.id, [*ids, kept.id]) for _ in range(5)))
    ended = [r for batch in at_once for r in batch]
    assert sorted(r.id for r in ended) == sorted(ids)
    assert {(r.drop, r.state) for r in ended} == {(short.drop.id, State.EXPIRED)}
    assert (await short.taken(), await long.taken()) == (0, 1)


async def test_a_release_counts_only_for_the_present_epoch(ledger: Ledger) -> None:
    """Marked done once, by whoever is first, unless the ledger has moved on; what lives cannot be marked."""
    sale = await open_sale(ledger, 9)
    ended, live = [sale.grant(member) for member in (1, 2, 3)], sale.grant(4)
    await sale.commit(*ended, live)
    for g in ended:
        await sale.cancel(g)
    ids = [g.id for g in (*ended, live)]
    old = sale.epoch
    await sale.bump()
    for epoch in (old, sale.epoch + 1):
        assert await ledger.reservations.mark_released(sale.drop.id, ids, epoch) == 0
    assert {e.id for e in await ledger.reservations.outbox(sale.drop.id, 10)} == {g.id for g in ended}
    assert len(await ledger.reservations.outbox(sale.drop.id, 2)) == 2
    marks = [ledger.reservations.mark_released(sale.drop.id, ids, sale.epoch) for _ in range(5)]
    assert sorted(await asyncio.gather(*marks)) == [0, 0, 0, 0, 3]
    assert await ledger.reservations.outbox(sale.drop.id, 10) == []
    assert await sale.cancel(live) is not None


async def test_the_lock_order_is_what_keeps_deadlocks_away(ledger: Ledger) -> None:
    """Reservation first, drop second, as no function here does it, deadlocks with a cancel: these tests would see it.

    In the product's order the same meeting passes.
    """
    sale = await open_sale(ledger, 9)
    g = sale.grant(1)
    await sale.commit(g)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    async def cancel_waits() -> bool:
        return bool(await sale.pool.fetchval(waiting) == 1)

    async def meet(first: str, second: str) -> None:
        async with sale.pool.transaction() as other:
            await other.fetch(first, *([g.id] if "reservations" in first else [sale.drop.id]))
            cancel = asyncio.create_task(sale.cancel(g))
            try:
                await until(cancel_waits, "the cancel waits for the lock")
                await other.fetch(second, *([g.id] if "reservations" in second else [sale.drop.id]))
            finally:
                results.append(cancel)

    results: list[asyncio.Task[Reservation | None]] = []
    row = "SELECT 1 FROM reservations WHERE id = $1 FOR NO KEY UPDATE"
    met = await asyncio.gather(meet(row, sql("drop_lock")), return_exceptions=True)
    cancelled = await asyncio.gather(*results, return_exceptions=True)
    (lost,) = [each for each in (*met, *cancelled) if isinstance(each, BaseException)]
    assert isinstance(lost, LedgerUnavailable)
    assert isinstance(lost.__cause__, asyncpg.DeadlockDetectedError)
    if lost in met:  # Postgres chose which one to end; the other had its way
        g = sale.grant(2)
        await sale.commit(g)
    await meet(sql("drop_lock"), row)
    assert isinstance(await results[1], Reservation)
    assert await sale.taken() == 0
