"""Failed tries are limited per member and per address, by several processes together, at a bounded cost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from flashsale.errors import Unavailable
from flashsale.tries import LOOKED_AT_MAX, SUBJECTS_PER_CALL_MAX, Blocked, Exchange, Tries, subject_of
from tests.unit.failed_tries import ADDRESS_MAX, MEMBER_MAX, WINDOW_S, Clock, Store, fail, process


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Store:
    return Store(clock)


async def test_a_member_at_the_limit_is_blocked_until_the_window_ends(store: Store, clock: Clock) -> None:
    """At once and without a call; the window runs from the first failure, whatever follows."""
    one = process(store)
    fail(one, MEMBER_MAX - 1)
    assert one.blocked_s(7, "192.0.2.1") is None
    clock.now_s += 20
    fail(one, 1)
    assert one.blocked_s(7, "192.0.2.1") == Blocked(member_s=40, address_s=0)
    clock.now_s += 39
    fail(one, 3)
    assert one.blocked_s(7, "192.0.2.1") == Blocked(member_s=1, address_s=0)
    clock.now_s += 1
    assert one.blocked_s(7, "192.0.2.1") is None
    assert store.calls == []


async def test_an_address_is_limited_by_itself(store: Store) -> None:
    """Many members behind one address share its limit; nobody elsewhere does."""
    one = process(store)
    for member in range(1, ADDRESS_MAX + 1):
        fail(one, 1, member)
    assert one.blocked_s(1, "192.0.2.1") == Blocked(member_s=0, address_s=WINDOW_S)
    assert one.blocked_s(1, "192.0.2.2") is None
    assert one.blocked_s(1, None) is None
    fail(one, MEMBER_MAX - 1, 1, None)
    assert one.blocked_s(1, "192.0.2.1") == Blocked(member_s=WINDOW_S, address_s=WINDOW_S)
    assert one.blocked_s(1, None) == Blocked(member_s=WINDOW_S, address_s=0)


@pytest.mark.parametrize(
    ("address", "subject"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:0201", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:0DB8:0001:0002::", "2001:db8:1:2::"),
        ("2001:db8:1:3:3:4:5:6", "2001:db8:1:3::"),
        ("fe80::1%eth0", "fe80::"),
        ("::1", "::"),
        ("a:socket", "a:socket"),
        ("", ""),
    ],
)
def test_what_an_address_counts_as(address: str, subject: str) -> None:
    """A subscriber has a whole /64, and a server that listens on both protocols sees IPv4 written as IPv6."""
    assert subject_of(address) == subject


async def test_two_processes_enforce_one_limit_within_an_exchange(store: Store) -> None:
    """Neither has seen five failures; after an exchange of each both block, until the same moment."""
    one, two = process(store), process(store)
    fail(one, 3)
    fail(two, 2)
    assert await one.run_once() == Exchange(subjects=3, failures=9, left=0)
    assert await two.run_once() == Exchange(subjects=3, failures=6, left=0)
    assert two.blocked_s(7, None) == Blocked(member_s=WINDOW_S, address_s=0)
    assert one.blocked_s(7, None) is None
    assert await one.run_once() == Exchange(subjects=1, failures=0, left=0)
    assert one.blocked_s(7, None) == Blocked(member_s=WINDOW_S, address_s=0)
    assert await one.run_once() is None


async def test_without_the_exchange_each_process_has_a_limit_of_its_own(store: Store) -> None:
    """What the exchange is there for: a guesser who is spread over two processes would have twice the tries."""
    one, two = process(store), process(store)
    fail(one, MEMBER_MAX - 1)
    fail(two, MEMBER_MAX - 1)
    assert one.blocked_s(7, None) is two.blocked_s(7, None) is None


async def test_a_process_learns_when_the_window_of_the_others_ends(store: Store, clock: Clock) -> None:
    """It joins the window that another process opened half a minute ago, and says the right time to wait."""
    one, two = process(store), process(store)
    fail(one, MEMBER_MAX - 1)
    await one.run_once()
    clock.now_s += 30
    fail(two, 1)
    await two.run_once()
    assert two.blocked_s(7, None) == Blocked(member_s=30, address_s=0)


async def test_nothing_is_told_twice_and_nothing_is_asked_in_vain(store: Store) -> None:
    """No call while nobody fails; none for a member who is blocked for good reason, however often it goes on."""
    one = process(store)
    assert await one.run_once() is None
    fail(one, 2)
    await one.run_once()
    assert await one.run_once() is None
    fail(one, 3)
    assert await one.run_once() == Exchange(subjects=3, failures=9, left=0)
    assert store.total("m:7") == 5
    assert await one.run_once() is None
    fail(one, 14, address=None)
    assert await one.run_once() == Exchange(subjects=1, failures=14, left=0)
    assert (store.total("m:7"), store.total("all:")) == (5, 19)


async def test_who_is_near_the_limit_is_asked_for_until_the_window_ends(store: Store, clock: Clock) -> None:
    """So that the block is there before the next try; who is far from it is not, and costs nothing."""
    one = process(store)
    fail(one, 2, 1, None)
    fail(one, 3, 2, None)
    await one.run_once()
    for _ in range(3):
        await one.run_once()
        assert store.calls[-1] == [("m:2", 0)]
    clock.now_s += WINDOW_S
    assert await one.run_once() is None
    assert (one.known, len(one._near)) == (0, 0)


@contextlib.asynccontextmanager
async def call_under_way(store: Store, one: Tries) -> AsyncIterator["asyncio.Task[Exchange | None]"]:
    """An exchange whose call has reached the store, which answers when the block ends."""
    store.doing, calls = asyncio.Event(), len(store.calls)
    task = asyncio.create_task(one.run_once())
    while len(store.calls) == calls:
        await asyncio.sleep(0)
    yield task
    store.doing.set()
    await asyncio.wait([task])
    store.doing = None


async def test_failures_during_a_call_are_counted_on_top(store: Store) -> None:
    """They are told by the next one."""
    one = process(store)
    fail(one, 3)
    async with call_under_way(store, one):
        fail(one, 1)
    assert one.blocked_s(7, None) is None
    fail(one, 1)
    assert one.blocked_s(7, None) is not None
    await one.run_once()
    assert store.total("m:7") == 5


async def test_what_could_not_be_told_is_told_later(store: Store) -> None:
    """While the store is away the process enforces the limit alone, and says so to its caller."""
    one = process(store)
    store.away = True
    fail(one, 3)
    with pytest.raises(Unavailable):
        await one.run_once()
    fail(one, 2)
    with pytest.raises(Unavailable):
        await one.run_once()
    assert one.blocked_s(7, None) is not None
    store.away = False
    await one.run_once()
    assert (store.total("m:7"), store.total("a:192.0.2.1"), store.total("all:")) == (5, 5, 5)


async def test_a_lost_reply_counts_twice_and_never_not_at_all(store: Store) -> None:
    """Nobody can tell whether the call had its effect; too strict for one window is the safe side."""
    one = process(store)
    store.reply_is_lost = True
    fail(one, 2)
    with pytest.raises(Unavailable):
        await one.run_once()
    store.reply_is_lost = False
    await one.run_once()
    assert store.total("m:7") == 4


async def test_a_cancelled_call_keeps_what_it_had_to_tell(store: Store) -> None:
    """As any other that did not come back, and what failed meanwhile with it."""
    one = process(store)
    fail(one, 2)
    async with call_under_way(store, one) as call:
        fail(one, 1)
        call.cancel()
    assert call.cancelled()
    assert await one.run_once() == Exchange(subjects=3, failures=9, left=0)
    assert store.total("m:7") == 3


@pytest.mark.parametrize("answered", [True, False])
async def test_who_is_forgotten_during_a_call_stays_forgotten(store: Store, answered: bool) -> None:
    """Neither the answer nor its loss brings back a subject that had to make room."""
    one = process(store, subjects_max=1)
    fail(one, 4, 1, None)
    async with call_under_way(store, one) as call:
        fail(one, 1, 2, None)
        if not answered:
            call.cancel()
    assert one.known == 1
    assert await one.run_once() == Exchange(subjects=2, failures=2 if answered else 6, left=0)
    assert [subject for subject, _ in store.calls[-1]] == ["all:", "m:2"]
    assert await one.run_once() is None


async def test_a_failure_while_the_store_forgot_is_counted(store: Store) -> None:
    """Only what the store had counted is gone."""
    one = process(store)
    fail(one, 3, 7, None)
    await one.run_once()
    store.windows.clear()
    async with call_under_way(store, one):
        fail(one, 1, 7, None)
    await one.run_once()
    assert store.total("m:7") == 1


async def test_a_store_that_forgot_is_believed(store: Store) -> None:
    """After it was emptied counting begins anew for who is not blocked yet; who is stays so until the end."""
    one = process(store)
    fail(one, 3, 1, None)
    fail(one, 5, 2, None)
    await one.run_once()
    store.windows.clear()
    await one.run_once()
    fail(one, 2, 1, None)
    assert one.blocked_s(1, None) is None
    assert one.blocked_s(2, None) == Blocked(member_s=WINDOW_S, address_s=0)


async def test_what_could_not_be_told_in_its_window_is_dropped(store: Store, clock: Clock) -> None:
    """A long outage leaves nothing behind that would block anybody afterwards."""
    one = process(store)
    store.away = True
    fail(one, 4)
    with pytest.raises(Unavailable):
        await one.run_once()
    clock.now_s += WINDOW_S
    store.away = False
    assert await one.run_once() is None
    fail(one, 4)
    assert one.blocked_s(7, None) is None
    await one.run_once()
    assert store.total("m:7") == 4


async def test_one_call_has_a_bounded_size_and_the_oldest_go_first(store: Store) -> None:
    """Everybody comes to the store in the end."""
    one = process(store)
    many = SUBJECTS_PER_CALL_MAX * 5 // 2
    for member in range(many):
        fail(one, 1, member, None)
    for left in (many + 1 - SUBJECTS_PER_CALL_MAX, many + 1 - 2 * SUBJECTS_PER_CALL_MAX, 0):
        done = await one.run_once()
        assert done is not None
        assert (done.subjects <= SUBJECTS_PER_CALL_MAX, done.left) == (True, left)
    assert [subject for subject, _ in store.calls[0][:3]] == ["all:", "m:0", "m:1"]
    assert len(store.windows) == many + 1


async def test_memory_is_bounded_and_the_oldest_is_forgotten_first(store: Store) -> None:
    """Of members and addresses apart: a flood from many addresses pushes no member out."""
    one = process(store, subjects_max=100)
    fail(one, MEMBER_MAX, 1, "192.0.2.1")
    store.away = True
    for number in range(1_000):
        fail(one, 1, 1, f"198.51.100.{number}")
        if not number % 100:
            with pytest.raises(Unavailable):
                await one.run_once()
    assert one.known == 101
    assert one.blocked_s(1, None) is not None
    store.away = False
    done = await one.run_once()
    assert done is not None
    assert (done.subjects, done.left) == (102, 0)
    for member in range(2, 102):
        fail(one, 1, member, None)
    assert one.blocked_s(1, None) is None


async def test_a_flood_that_is_over_is_forgotten_in_parts(store: Store, clock: Clock) -> None:
    """No exchange holds the process up for long, whatever ended at once."""
    one = process(store)
    for member in range(2 * LOOKED_AT_MAX + 1):
        fail(one, 1, member, None)
    clock.now_s += WINDOW_S
    left = []
    for _ in range(3):
        assert await one.run_once() is None
        left.append(one.known)
    assert left == [LOOKED_AT_MAX + 1, 1, 0]


async def test_the_alert_is_raised_once_a_window_for_everybodys_failures(store: Store, clock: Clock) -> None:
    """Each process that fails hears of it; nobody is blocked for it."""
    alerts: list[tuple[str, int]] = []
    one = process(store, alert_max=10, alert=lambda failures: alerts.append(("one", failures)))
    two = process(store, alert_max=10, alert=lambda failures: alerts.append(("two", failures)))
    for member in range(6):
        fail(one, 1, member, f"192.0.2.{member}")
        fail(two, 1, 100 + member, f"198.51.100.{member}")
    await one.run_once()
    assert (alerts, one.failures_in_window) == ([], 6)
    await two.run_once()
    assert (alerts, two.failures_in_window) == ([("two", 12)], 12)
    fail(one, 1, 50, None)
    fail(two, 1, 150, None)
    await one.run_once()
    await two.run_once()
    assert alerts == [("two", 12), ("one", 13)]
    assert one.blocked_s(50, "192.0.2.200") is None
    clock.now_s += WINDOW_S
    assert one.failures_in_window == 0
    fail(one, 11, 51, None)
    assert alerts[2:] == [("one", 11)]


async def test_the_loop_survives_a_store_that_is_away(store: Store) -> None:
    """It goes on, and tells everything once the store is back."""
    one = process(store, exchange_every_s=0.001)
    tried = 0
    share = store.share

    async def counted(increments: list[tuple[str, int]], window_ms: int) -> list[tuple[int, int]]:
        nonlocal tried
        tried += 1
        return await share(increments, window_ms)

    one._share = counted
    store.away = True
    fail(one, 3)
    running = asyncio.create_task(one.run())
    async with asyncio.timeout(60):
        while tried < 3:
            await asyncio.sleep(0.001)
        store.away = False
        while store.total("m:7") < 3:
            await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
