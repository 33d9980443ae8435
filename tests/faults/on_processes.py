"""Faults of the service's own processes: killed, stopped, renewed, with a clock that steps."""

import os
import signal

from flashsale.supervise import end, spawn
from tests.faults.hit import Hit, fault
from tests.faults.world import WEB_PROCESSES, WORKERS, process_of, signal_all
from tests.support import until

READY_S = 60.0


async def _web_is_whole(hit: Hit, gone: set[int]) -> None:
    async def whole() -> bool:
        pids = set(hit.world.web_pids)
        return len(pids) >= WEB_PROCESSES and not pids & gone

    await until(whole, "all web processes are there", READY_S)


@fault("web killed", "web", stages=("single", "sentinel", "cluster"))
async def web_killed(hit: Hit) -> None:
    """Kill -9 of one web process, or of both."""
    await hit.moment("press", "grant", "commit", "committed")
    pids = hit.world.web_pids
    if hit.random.random() < 0.7:
        pids = [hit.random.choice(pids)]
    hit.details.append(f"{len(pids)} of {WEB_PROCESSES}")
    signal_all(pids, signal.SIGKILL)
    await _web_is_whole(hit, set(pids))


@fault("web master killed", "web")
async def web_master_killed(hit: Hit) -> None:
    """Kill -9 of the process that keeps the web processes; its children go with it."""
    await hit.moment()
    killed = hit.world.kill("web")
    await hit.world.ready("web", other_than=killed)
    await _web_is_whole(hit, set())


@fault("web stopped", "web", stages=("single", "sentinel", "cluster"))
async def web_stopped(hit: Hit) -> None:
    """SIGSTOP of one web process for longer than a hold: it wakes up with grants of another time in its hands."""
    await hit.moment()
    pid = hit.random.choice(hit.world.web_pids)
    signal_all([pid], signal.SIGSTOP)
    try:
        await hit.hold(5.0, 9.0)
    finally:
        signal_all([pid], signal.SIGCONT)


@fault("web renewed", "web")
async def web_renewed(hit: Hit) -> None:
    """A rolling restart in the rush: SIGHUP starts new web processes, and lets the old ones finish."""
    await hit.moment("press")
    old = set(hit.world.web_pids)
    os.kill(hit.world.pid("web"), signal.SIGHUP)
    await _web_is_whole(hit, set())

    async def renewed() -> bool:
        return not old & set(hit.world.web_pids)

    await until(renewed, "the old web processes have finished", READY_S)


@fault("clock stepped", "clock", stages=("single", "cluster"))
async def clock_stepped(hit: Hit) -> None:
    """The web machine's wall clock steps, back or forward, by seconds or hours; and back again."""
    await hit.moment("grant", "opening", "opening")
    offset_s = hit.random.choice([-1, 1]) * hit.random.choice([5.0, 90.0, 7_200.0, 40 * 86_400.0])
    hit.details.append(f"{offset_s:+.0f} s")
    hit.world.clock.step(offset_s)
    try:
        await hit.hold(1.5, 4.0)
    finally:
        hit.world.clock.step(0.0)


def _worker(hit: Hit) -> str:
    return hit.random.choice(WORKERS)


@fault("worker killed", "worker", stages=("single", "sentinel", "cluster"))
async def worker_killed(hit: Hit) -> None:
    """Kill -9 of one of the workers: in the middle of a delivery, or of a repair."""
    await hit.moment("delivery", "commit", "committed")
    name = _worker(hit)
    killed = hit.world.kill(name)
    await hit.world.ready(name, other_than=killed)


@fault("worker stopped", "worker")
async def worker_stopped(hit: Hit) -> None:
    """SIGSTOP of one of the workers for longer than a hold."""
    await hit.moment("delivery", "commit", "committed")
    pid = hit.world.pid(_worker(hit))
    signal_all([pid], signal.SIGSTOP)
    try:
        await hit.hold(5.0, 9.0)
    finally:
        signal_all([pid], signal.SIGCONT)


@fault("more workers", "worker")
async def more_workers(hit: Hit) -> None:
    """Two more workers for a while: four reconcilers and four deliverers at once; then both are killed."""
    hit.struck()
    programs = [process_of(hit.world.program, f"worker-more-{each}", "worker") for each in (1, 2)]
    started = [await spawn(each.argv, env=each.env, cwd=each.cwd, log=each.log) for each in programs]
    try:
        await hit.hold(3.0, 5.0)
    finally:
        for process in started:
            await end(process, signal.SIGKILL, 0.0)
