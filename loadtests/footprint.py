"""What processes cost while something runs: memory at its peak, and processor time.

Memory is proportional (PSS): a page that several processes share counts for each of them by its share. So the sum over
Postgres and all its sessions has the shared buffers once, where a sum of resident sizes would have them once a session.
Where the system does not tell it, what a process shares with nobody (USS) has to do.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import NamedTuple

import psutil

SAMPLE_EVERY_S = 1.0  # reading the memory of a score of processes takes some 15 ms of a processor


class Sample(NamedTuple):
    """At one moment (`time.monotonic`): bytes, and processor seconds so far, by name."""

    at: float
    memory: Mapping[str, int]
    cpu_s: Mapping[str, float]


def named_of(pid: int, parents: Mapping[int, int], named: Mapping[int, str]) -> str | None:
    """To whom a process belongs: to itself, or to the nearest of its ancestors that has a name. `parents`: by child."""
    seen = set[int]()
    while pid not in named:
        seen.add(pid)
        if pid not in parents or (pid := parents[pid]) in seen:
            return None
    return named[pid]


def look(pids: Mapping[str, int]) -> Sample:
    """All of them now, each with its descendants but for those that have a name of their own."""
    named = {pid: name for name, pid in pids.items()}
    processes = {process.pid: process for process in psutil.process_iter(["ppid"])}
    parents = {pid: process.info["ppid"] or 0 for pid, process in processes.items()}
    above = {named_of(parents.get(pid, 0), parents, named) for pid in named}
    memory, used = dict.fromkeys(pids, 0), dict.fromkeys(pids, 0.0)
    for pid, process in processes.items():
        name = named_of(pid, parents, named)
        if name is None:
            continue
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used[name] += times.user + times.system
            if pid == pids[name] and name not in above:  # those that have ended, too, unless they had a name
                used[name] += times.children_user + times.children_system
            full = process.memory_full_info()
            memory[name] += getattr(full, "pss", 0) or full.uss
    return Sample(time.monotonic(), memory, used)


class Footprint:
    """Samples of processes by name, one every `SAMPLE_EVERY_S`: memory that is had for less may be missed."""

    def __init__(self, pids: Mapping[str, int], look_at: Callable[[Mapping[str, int]], Sample] = look) -> None:
        self._pids = dict(pids)
        self._look = look_at
        self.samples: list[Sample] = []

    async def sample(self) -> None:
        """Look at all of them; the loop goes on meanwhile."""
        self.samples.append(await asyncio.to_thread(self._look, self._pids))

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Look now and then until the block ends, and then once more."""

        async def watch() -> None:
            while True:
                await self.sample()
                await asyncio.sleep(SAMPLE_EVERY_S)

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        await self.sample()

    def peaks(self) -> dict[str, int]:
        """The most that each had at a time, bytes."""
        return {name: max((s.memory[name] for s in self.samples), default=0) for name in self._pids}

    @property
    def peak(self) -> int:
        """The most that all had together, bytes: their peaks need not have come together."""
        return max((sum(s.memory.values()) for s in self.samples), default=0)

    def used_s(self, begin: float, end: float) -> dict[str, float]:
        """Processor seconds of each from `begin` to `end` (`time.monotonic`), by the samples around them."""
        return {name: self._used_by(name, end) - self._used_by(name, begin) for name in self._pids}

    def _used_by(self, name: str, at: float) -> float:
        """Between two samples it is taken to have grown evenly."""
        before = max((s for s in self.samples if s.at <= at), key=lambda s: s.at, default=self.samples[0])
        after = min((s for s in self.samples if s.at >= at), key=lambda s: s.at, default=self.samples[-1])
        share = (at - before.at) / (after.at - before.at) if after.at > before.at else 0.0
        return before.cpu_s[name] + share * (after.cpu_s[name] - before.cpu_s[name])
