"""Flat combining: what piles up behind one call, and that no request suffers for another."""

import asyncio
import gc
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from flashsale.combining import Lane
from flashsale.errors import Overloaded, Unavailable


class Calls:
    """A store whose calls end only when the test says so; each answers its items, negated."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self._began = asyncio.Condition()
        self._ends: list[asyncio.Future[Sequence[int] | None]] = []

    async def __call__(self, items: list[int]) -> Sequence[int]:
        self.batches.append(items)
        self._ends.append(asyncio.get_running_loop().create_future())
        async with self._began:
            self._began.notify_all()
        other = await self._ends[-1]
        return [-item for item in items] if other is None else other

    def forget(self) -> None:
        """Keep nothing of the calls that have ended."""
        self.batches.clear()
        self._ends.clear()

    async def begun(self, number: int) -> None:
        """Return when the call of that number, from 1, is under way."""
        async with self._began, asyncio.timeout(60):
            await self._began.wait_for(lambda: len(self.batches) >= number)

    async def end(self, number: int, fault: Exception | None = None, *, answer: Sequence[int] | None = None) -> None:
        """Let the call of that number answer (by default as it should), or fail."""
        await self.begun(number)
        if fault is None:
            self._ends[number - 1].set_result(answer)
        else:
            self._ends[number - 1].set_exception(fault)


MakeLane = Callable[..., Lane[int, int]]


@pytest.fixture
def calls() -> Calls:
    """The store behind the lane."""
    return Calls()


@pytest.fixture
async def lane(calls: Calls) -> AsyncIterator[MakeLane]:
    """Makes lanes in front of `calls`: `lane(batch_max=4, queue_max=8)`; in the end none may still be at work."""
    made = []

    def make(
        *,
        batch_max: int = 4,
        queue_max: int = 8,
        wait_max_s: float = 60.0,
        observe: Callable[[int], None] | None = None,
    ) -> Lane[int, int]:
        made.append(Lane(calls, batch_max=batch_max, queue_max=queue_max, wait_max_s=wait_max_s, observe=observe))
        return made[-1]

    yield make
    assert all(each.idle and each.depth == 0 for each in made)


async def test_an_idle_lane_calls_at_once_with_what_there_is(calls: Calls, lane: MakeLane) -> None:
    """No timer holds a lone request back: the call is under way after the loop's next turn."""
    one = lane()
    answer = one.submit(1)
    assert not one.idle
    await asyncio.sleep(0)
    assert calls.batches == [[1]]
    await calls.end(1)
    assert await answer == -1


async def test_what_comes_during_a_call_goes_together_in_the_next(calls: Calls, lane: MakeLane) -> None:
    """One call at a time; the second takes all that waited, in the order in which they came."""
    one = lane()
    answers = [one.submit(1)]
    await calls.begun(1)
    answers += [one.submit(item) for item in (2, 3, 4)]
    await asyncio.sleep(0)
    assert (calls.batches, one.depth) == ([[1]], 3)
    await calls.end(1)
    await calls.end(2)
    assert await asyncio.gather(*answers) == [-1, -2, -3, -4]
    assert calls.batches == [[1], [2, 3, 4]]


async def test_a_batch_is_bounded_and_its_size_is_told(calls: Calls, lane: MakeLane) -> None:
    """More than `batch_max` are split over several calls; `observe` hears of each."""
    sizes: list[int] = []
    one = lane(batch_max=3, observe=sizes.append)
    answers = [one.submit(item) for item in range(1, 8)]
    for number in (1, 2, 3):
        await calls.end(number)
    assert await asyncio.gather(*answers) == [-1, -2, -3, -4, -5, -6, -7]
    assert calls.batches == [[1, 2, 3], [4, 5, 6], [7]]
    assert sizes == [3, 3, 1]


async def test_a_full_queue_refuses_one_more_and_takes_the_next_when_there_is_room(
    calls: Calls, lane: MakeLane
) -> None:
    """Who waits is counted, not who is in the call; a refusal harms none of those."""
    one = lane(queue_max=2)
    answers = [one.submit(1)]
    await calls.begun(1)
    answers += [one.submit(2), one.submit(3)]
    with pytest.raises(Overloaded) as refused:
        await one.submit(4)
    assert refused.value.retry_after_s >= 1
    await calls.end(1)
    await calls.begun(2)
    answers.append(one.submit(5))
    await calls.end(2)
    await calls.end(3)
    assert await asyncio.gather(*answers) == [-1, -2, -3, -5]
    assert calls.batches == [[1], [2, 3], [5]]


async def test_a_failing_batch_fails_its_own_requests_and_no_others(calls: Calls, lane: MakeLane) -> None:
    """The exception of the call reaches each item of that batch; those that waited get the next call's answer."""
    one = lane()
    failing = [one.submit(1), one.submit(2)]
    await calls.begun(1)
    waiting = [one.submit(3), one.submit(4)]
    fault = Unavailable("the store is away")
    await calls.end(1, fault)
    assert await asyncio.gather(*failing, return_exceptions=True) == [fault, fault]
    await calls.end(2)
    assert await asyncio.gather(*waiting) == [-3, -4]


async def test_a_fault_nobody_expected_fails_its_batch_too(calls: Calls, lane: MakeLane) -> None:
    """A bug in one call must not leave its callers waiting, nor stop the lane."""
    one = lane()
    answer = one.submit(1)
    await calls.end(1, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await answer
    answer = one.submit(2)
    await calls.end(2)
    assert await answer == -2


@pytest.mark.parametrize("answer", [[], [-1], [-1, -2, -3]])
async def test_a_wrong_number_of_results_is_a_fault_of_the_batch(
    calls: Calls, lane: MakeLane, answer: list[int]
) -> None:
    """Nobody may be given another's result: with one too many or too few, none is trusted."""
    one = lane()
    answers = [one.submit(1), one.submit(2)]
    await calls.end(1, answer=answer)
    outcomes = await asyncio.gather(*answers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [RuntimeError, RuntimeError]
    assert f"2 came back with {len(answer)}" in str(outcomes[0])


async def test_a_caller_that_goes_away_harms_no_other(calls: Calls, lane: MakeLane) -> None:
    """Cancelled while its call is under way, or while it waits: everyone else gets the result of their own item."""
    one = lane()

    async def press(item: int) -> int:
        return await one.submit(item)

    first = [asyncio.create_task(press(item)) for item in (1, 2, 3)]
    await calls.begun(1)
    second = [asyncio.create_task(press(item)) for item in (4, 5, 6)]
    await asyncio.sleep(0)
    assert one.depth == 3
    first[0].cancel()
    second[1].cancel()
    await asyncio.wait([first[0], second[1]])
    await calls.end(1)
    await calls.end(2)
    outcomes = await asyncio.gather(*first, *second, return_exceptions=True)
    assert [outcome if isinstance(outcome, int) else type(outcome) for outcome in outcomes] == [
        *(asyncio.CancelledError, -2, -3),
        *(-4, asyncio.CancelledError, -6),
    ]


async def test_a_failure_reaches_no_log_when_its_caller_went_away(
    calls: Calls, lane: MakeLane, caplog: pytest.LogCaptureFixture
) -> None:
    """A dropped future of a failed batch is not reported as 'exception was never retrieved'."""
    gc.collect()  # what others left behind is theirs
    caplog.clear()
    one = lane()
    dropped, kept = one.submit(1), one.submit(2)
    del dropped
    await calls.end(1, Unavailable())
    assert [type(o) for o in await asyncio.gather(kept, return_exceptions=True)] == [Unavailable]
    del kept
    calls.forget()
    await asyncio.sleep(0)
    gc.collect()
    assert caplog.records == []


async def test_a_stopped_runner_fails_its_batch_and_all_who_wait(calls: Calls, lane: MakeLane) -> None:
    """At shutdown nobody hangs: those in the call and those behind it hear that the service is stopping."""
    one = lane(batch_max=2)
    answers = [one.submit(item) for item in (1, 2, 3, 4, 5)]
    await calls.begun(1)
    assert one._runner is not None
    one._runner.cancel()
    outcomes = await asyncio.gather(*answers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 5
    assert calls.batches == [[1, 2]]


async def test_a_lane_works_again_after_a_failure_and_after_a_stop(calls: Calls, lane: MakeLane) -> None:
    """What happened to one batch leaves nothing behind."""
    one = lane()
    failed = one.submit(1)
    await calls.end(1, Unavailable())
    stopped = one.submit(2)
    await calls.begun(2)
    assert one._runner is not None
    one._runner.cancel()
    assert [type(o) for o in await asyncio.gather(failed, stopped, return_exceptions=True)] == [Unavailable] * 2
    answer = one.submit(3)
    await calls.end(3)
    assert await answer == -3


async def test_thousands_of_callers_each_get_their_own_result() -> None:
    """Order holds at any mix of batch sizes: 5,000 presses that come in bursts while calls are under way."""
    sizes: list[int] = []

    async def negate(items: list[int]) -> list[int]:
        sizes.append(len(items))
        await asyncio.sleep(0)
        return [-item for item in items]

    one: Lane[int, int] = Lane(negate, batch_max=64, queue_max=10_000)

    async def press(item: int) -> int:
        for _ in range(item % 7):
            await asyncio.sleep(0)
        return await one.submit(item)

    assert await asyncio.gather(*map(press, range(5_000))) == [-item for item in range(5_000)]
    assert max(sizes) == 64
    assert sum(sizes) == 5_000
    assert one.idle


async def test_who_has_waited_for_too_long_is_told_and_the_others_go_on(calls: Calls, lane: MakeLane) -> None:
    """A store that stalls keeps nobody longer than the limit: the old are refused, the fresh get the next call."""
    one = lane(wait_max_s=60.0)
    first = one.submit(1)
    await calls.begun(1)
    late = [one.submit(2), one.submit(3)]
    now = asyncio.get_running_loop().time()
    one._waiting = deque((item, future, now - 60.0) for item, future, _ in one._waiting)
    fresh = one.submit(4)
    await calls.end(1)
    await calls.end(2)
    outcomes = await asyncio.gather(first, *late, fresh, return_exceptions=True)
    assert [outcome if isinstance(outcome, int) else type(outcome) for outcome in outcomes] == [
        *(-1, Overloaded),
        *(Overloaded, -4),
    ]
    assert calls.batches == [[1], [4]]


async def test_when_all_have_waited_for_too_long_no_call_is_made(calls: Calls, lane: MakeLane) -> None:
    """The lane rests, and works again for the next request."""
    one = lane(wait_max_s=60.0)
    first = one.submit(1)
    await calls.begun(1)
    late = one.submit(2)
    now = asyncio.get_running_loop().time()
    one._waiting = deque((item, future, now - 60.0) for item, future, _ in one._waiting)
    await calls.end(1)
    outcomes = await asyncio.gather(first, late, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [int, Overloaded]
    assert one.idle
    again = one.submit(3)
    await calls.end(2)
    assert await again == -3


async def test_a_call_that_does_not_end_is_given_up_and_the_others_go_on(calls: Calls) -> None:
    """Each item is answered within `answer_max_s`: those of that call are told to repeat, the next have theirs."""
    one: Lane[int, int] = Lane(calls, batch_max=2, queue_max=10, answer_max_s=0.05)
    stuck = [one.submit(1), one.submit(2)]
    outcomes = await asyncio.gather(*stuck, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    one._answer_max_s = 60.0  # a slow machine must not make the second call late, too
    after = one.submit(3)
    await calls.begun(2)
    await calls.end(2)
    assert await after == -3
    assert calls.batches == [[1, 2], [3]]


async def test_an_observer_that_fails_fails_its_batch_alone(calls: Calls, lane: MakeLane) -> None:
    """Nobody hangs for the fault of who only counts."""

    def observe(size: int) -> None:
        if size == 2:
            raise ZeroDivisionError

    one = lane(observe=observe)
    first = one.submit(1)
    await calls.begun(1)
    failing = [one.submit(2), one.submit(3)]
    await calls.end(1)
    outcomes = await asyncio.gather(first, *failing, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [int, ZeroDivisionError, ZeroDivisionError]


async def test_who_came_together_goes_in_one_call_with_others_and_is_answered_in_order(
    calls: Calls, lane: MakeLane
) -> None:
    """A group is never split: what it leaves no room for waits for the next call, and so does all that comes after."""
    one = lane(batch_max=4, queue_max=20)
    first = one.submit(1)
    await calls.begun(1)
    together, single, others = one.submit_many([2, 3, 4]), one.submit(5), one.submit_many(iter([6, 7]))
    assert one.depth == 6
    for number in (1, 2, 3):
        await calls.end(number)
    assert (await first, await single) == (-1, -5)
    assert (await together, await others) == ([-2, -3, -4], [-6, -7])
    assert calls.batches == [[1], [2, 3, 4, 5], [6, 7]]


@pytest.mark.parametrize("count", [0, 5])
async def test_a_group_that_fits_in_no_call_is_refused(lane: MakeLane, count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} items came together"):
        await lane(batch_max=4, queue_max=20).submit_many(range(count))


async def test_a_group_counts_by_its_items_and_fails_together(calls: Calls, lane: MakeLane) -> None:
    """A full queue refuses the whole group; a call that fails fails the group in it and no other."""
    one = lane(batch_max=4, queue_max=5)
    first = one.submit(1)
    await calls.begun(1)
    failing, fine = one.submit_many([2, 3]), one.submit_many([4, 5, 6])
    with pytest.raises(Overloaded):
        await one.submit_many([7])
    fault = Unavailable("the store is away")
    await calls.end(1)
    await calls.end(2, fault)
    await calls.end(3)
    with pytest.raises(Unavailable):
        await failing
    assert (await first, await fine) == (-1, [-4, -5, -6])
    assert one.depth == 0


async def test_a_group_that_has_waited_for_too_long_is_told_as_one(calls: Calls, lane: MakeLane) -> None:
    one = lane(wait_max_s=60.0)
    first = one.submit(1)
    await calls.begun(1)
    late = one.submit_many([2, 3])
    now = asyncio.get_running_loop().time()
    one._waiting = deque((item, future, now - 60.0) for item, future, _ in one._waiting)
    await calls.end(1)
    outcomes = await asyncio.gather(first, late, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [int, Overloaded]
    assert one.depth == 0


async def test_who_listens_hears_how_long_the_oldest_waited(calls: Calls) -> None:
    """Of each call that was answered, after it was; of one that failed, nothing."""
    heard: list[tuple[float, int]] = []
    made: Lane[int, int] = Lane(
        calls, batch_max=4, queue_max=8, answered=lambda seconds, items: heard.append((seconds, items))
    )
    loop = asyncio.get_running_loop()
    began = loop.time()
    first = made.submit(1)
    await calls.begun(1)
    rest = made.submit_many([2, 3])
    assert heard == []
    await calls.end(1)
    assert await first == -1
    await calls.end(2)
    assert await rest == [-2, -3]
    assert [items for _, items in heard] == [1, 2]
    assert all(0 <= seconds <= loop.time() - began for seconds, _ in heard)
