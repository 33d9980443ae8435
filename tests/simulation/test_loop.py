"""The loop that schedules run on: time that jumps, turns that are drawn, machines that can be stopped and killed."""

import asyncio
import random

import pytest

from tests.simulation.loop import Machine, SimLoop, Stuck, here


def run_all(loop: SimLoop, *tasks: "asyncio.Task[object]", until_s: float = 1e9) -> None:
    """Until these are done."""
    assert loop.run(lambda: all(task.done() for task in tasks), until_s=until_s)


def test_an_hour_passes_at_once() -> None:
    """Nobody waits for a timer; the clock stands where the last one was."""
    loop = SimLoop(random.Random(1))

    async def nap() -> float:
        async with asyncio.timeout(7_200):
            await loop.pause(3_600)
        return loop.time()

    task = loop.spawn(Machine("a"), nap())
    run_all(loop, task)
    assert (task.result(), loop.time()) == (3_600.0, 3_600.0)


def test_a_timeout_ends_what_takes_longer() -> None:
    """That of asyncio, by this loop's time."""
    loop = SimLoop(random.Random(1))

    async def hang() -> None:
        async with asyncio.timeout(5):
            await loop.create_future()

    task = loop.spawn(Machine("a"), hang())
    run_all(loop, task)
    assert isinstance(task.exception(), TimeoutError)
    assert loop.time() == 5.0


def turns(seed: int) -> list[str]:
    """Three machines, each of which says its name ten times, with a number."""
    loop, told = SimLoop(random.Random(seed)), list[str]()

    async def talk() -> None:
        for number in range(10):
            told.append(f"{here().name}{number}")
            await asyncio.sleep(0)

    run_all(loop, *(loop.spawn(Machine(name), talk()) for name in "abc"))
    return told


def test_the_seed_decides_whose_turn_it_is() -> None:
    """Another seed, another order; the same one, the same."""
    assert turns(1) == turns(1)
    assert len({tuple(turns(seed)) for seed in range(20)}) == 20


def test_on_one_machine_the_order_is_that_of_asyncio() -> None:
    """Callbacks run as they were scheduled: a process of the product may rely on it."""
    for seed in range(20):
        told = turns(seed)
        for name in "abc":
            mine = [word for word in told if word[0] == name]
            assert mine == [f"{name}{number}" for number in range(10)]


def test_tasks_of_a_machine_begin_tasks_on_it() -> None:
    """However deep."""
    loop, machine = SimLoop(random.Random(1)), Machine("a")

    async def inner() -> Machine:
        await loop.pause(1)
        return here()

    async def outer() -> Machine:
        return await asyncio.create_task(inner())

    task = loop.spawn(machine, outer())
    run_all(loop, task)
    assert task.result() is machine


def test_a_stopped_machine_goes_on_where_it_was() -> None:
    """What came meanwhile, its timers too, waits for it; the others do not."""
    loop, told = SimLoop(random.Random(1)), list[tuple[str, float]]()
    stopped, other = Machine("stopped"), Machine("other")

    async def tick() -> None:
        for _ in range(3):
            await loop.pause(1)
            told.append((here().name, loop.time()))

    tasks = [loop.spawn(machine, tick()) for machine in (stopped, other)]
    loop.after(1.5, loop.stop_machine, stopped)
    loop.after(10, loop.resume_machine, stopped)
    run_all(loop, *tasks)
    assert [at for name, at in told if name == "other"] == [1.0, 2.0, 3.0]
    assert [at for name, at in told if name == "stopped"] == [1.0, 10.0, 11.0]


def test_a_killed_machine_has_no_last_words() -> None:
    """No `finally`, no `except`: as after kill -9. The world goes on."""
    loop, told = SimLoop(random.Random(1)), list[str]()
    victim = Machine("victim")

    async def work() -> None:
        try:
            await loop.pause(5)
        finally:
            told.append("last words")

    task = loop.spawn(victim, work())
    loop.after(1, loop.kill_machine, victim)
    loop.after(3_600, lambda: None)
    assert not loop.run(task.done, until_s=60)
    assert told == []
    assert loop.time() == 60


def test_what_is_abandoned_is_closed_without_a_word() -> None:
    """Also a task that awaits something on its way out."""
    loop = SimLoop(random.Random(1))

    async def stubborn() -> None:
        try:
            await loop.create_future()
        finally:
            await asyncio.gather(loop.create_task(asyncio.sleep(0)))

    task = loop.spawn(Machine("a"), stubborn())
    loop.after(1, lambda: None)
    loop.run(lambda: loop.time() >= 1, until_s=2)
    loop.abandon()
    assert not task.done()
    assert loop.broken == []


def test_a_loop_that_can_never_finish_says_so() -> None:
    """Instead of waiting for what cannot come."""
    loop = SimLoop(random.Random(1))
    with pytest.raises(Stuck):
        loop.run(lambda: False, until_s=1)
