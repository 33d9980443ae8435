"""The order queue of the model ledger: one job an order, and what workers do with jobs."""

import itertools
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from flashsale.ledger.queue import SILENT_MAX_S
from tests.ledger.model_rows import Tables


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Work on an order, due at `due_at`; `beat_at` is when who took it last said so."""

    number: int
    order: str
    status: Literal["queued", "picked"]
    due_at: datetime
    beat_at: datetime
    priority: int = 0
    attempts: int = 0


class ModelQueue:
    """The jobs that wait or are being worked on, by order; those done are gone. `log` says when anything was done.

    The stores use what changes the job of an order, in a transaction of theirs; workers use the rest.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._numbers = itertools.count(1)
        self.jobs: dict[str, Job] = {}
        self.log: dict[int, datetime] = {}

    def put(self, order: str) -> None:
        """A job for an order that has none."""
        if order not in self.jobs:
            now, number = self._tables.now(), next(self._numbers)
            job = Job(number=number, order=order, status="queued", due_at=now, beat_at=now)
            self._tables.put(self.jobs, order, job)
            self._tables.put(self.log, next(self._numbers), now)

    def take_away(self, order: str) -> None:
        """The order is settled."""
        self._tables.remove(self.jobs, order)

    def hurry(self, order: str) -> None:
        """The next try is due now, unless one is under way."""
        job, now = self.jobs.get(order), self._tables.now()
        if job is not None and job.status == "queued" and job.due_at > now:
            self._tables.put(self.jobs, order, msgspec.structs.replace(job, due_at=now))

    def stand_back(self, order: str) -> None:
        """Behind those that were not tried so often."""
        if (job := self.jobs.get(order)) is not None:
            self._tables.put(self.jobs, order, msgspec.structs.replace(job, priority=job.priority - 1))

    def prune_log(self, before: datetime, limit: int) -> int:
        """Forget the oldest lines; how many."""
        old = sorted((at, number) for number, at in self.log.items() if at < before)[:limit]
        for _, number in old:
            del self.log[number]
        return len(old)

    def take(self, limit: int) -> list[Job]:
        """Jobs that are due, and those whose worker has been silent for too long; whoever takes them works on them."""
        now = self._tables.now()
        silent = now - timedelta(seconds=SILENT_MAX_S)
        due = [j for j in self.jobs.values() if j.due_at < now and (j.status == "queued" or j.beat_at < silent)]
        due.sort(key=lambda j: (-j.priority, j.number))
        taken = [msgspec.structs.replace(j, status="picked", beat_at=now) for j in due[:limit]]
        self.jobs.update({j.order: j for j in taken})
        self.log.update({next(self._numbers): now for _ in taken})
        return taken

    def beat(self, job: Job) -> None:
        """Who took this job is still at it."""
        if (there := self._there(job)) is not None:
            self.jobs[job.order] = msgspec.structs.replace(there, beat_at=self._tables.now())

    def done(self, job: Job) -> None:
        """This job, and no other of its order, is done."""
        if self._there(job) is not None:
            del self.jobs[job.order]
            self.log[next(self._numbers)] = self._tables.now()

    def put_off(self, job: Job, delay_s: float) -> None:
        """This job, and no other of its order, is to be done again later."""
        if (there := self._there(job)) is not None:
            now = self._tables.now()
            later, attempts = now + timedelta(seconds=delay_s), there.attempts + 1
            self.jobs[job.order] = msgspec.structs.replace(there, status="queued", due_at=later, attempts=attempts)
            self.log[next(self._numbers)] = now

    def _there(self, job: Job) -> Job | None:
        there = self.jobs.get(job.order)
        return there if there is not None and there.number == job.number else None
