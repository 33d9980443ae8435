"""One schedule: its servers, its processes, its people, its faults; told as a story when somebody wants to read it."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

from flashsale.errors import Refused, Unavailable
from flashsale.reconcile import Report
from flashsale.reservations import Limits
from tests.simulation.actors import begin_actors
from tests.simulation.checker import Checker
from tests.simulation.faults import begin_storm, end_storm
from tests.simulation.loop import SimLoop
from tests.simulation.opening import open_sale
from tests.simulation.plan import draw_plan
from tests.simulation.processes import Answer, Build, Process, Web, Worker
from tests.simulation.rest import fresh_demand, last_look, unrest
from tests.simulation.shop import Shop
from tests.simulation.stock import Stock
from tests.simulation.stores import GATE_MATTERS, LEDGER_WRITES, GateServer, LedgerServer
from tests.simulation.story import brief

SETTLES_WITHIN_S: Final = 30.0
DEMAND_WITHIN_S: Final = 60.0
CLIENT_PATIENCE_S: Final = 12.0
ANSWER_SLACK_S: Final = 0.5
NETWORK_S: Final = 0.01
LATENCY_S: Final = 0.002
LOOK_EVERY_S: Final = 0.25


class World:
    """Everything there is in one schedule."""

    def __init__(self, seed: int, build: Build | None = None, *, with_story: bool = False) -> None:
        self.seed = seed
        self.build = build or Build()
        self.plan = draw_plan(seed)
        self.people = random.Random(f"people {seed}")
        self.faults = random.Random(f"faults {seed}")
        self.loop = SimLoop(random.Random(f"turns {seed}"))
        self.story: list[str] | None = [] if with_story else None
        self.counts: Counter[str] = Counter()
        self.violation: tuple[str, str] | None = None
        self.set_stormy(False)
        self.calm_since_s = 0.0
        self.settled_s = 0.0
        self._ids = 0
        self._replids = 0
        self._process_numbers: Counter[str] = Counter()
        self.ledger = LedgerServer(self.loop, self.build.ledger)
        self.primaries: list[GateServer] = []
        for stripe in range(self.plan.drop.stripes):
            self.primaries.append(self.new_gate_server(stripe))
        self.gate_servers = [*self.primaries]
        self.stock = Stock(self)
        self.checker = Checker(self)
        self.shop = Shop(self)
        self.processes: list[Process] = []
        self.webs: list[Web] = []
        self.requests: dict[asyncio.Future[Answer], Process] = {}

    # What happens is counted, told, and judged.

    def count(self, what: str, more: int = 1) -> None:
        """One more of these."""
        self.counts[what] += more

    def tell(self, who: str, text: str) -> None:
        """A line of the story."""
        if self.story is not None:
            self.story.append(f"{self.loop.time():8.4f}  {who:<9} {text}")

    def bad(self, invariant: str, text: str) -> None:
        """An invariant is broken: the first one ends the schedule."""
        if self.violation is None and (not self.build.judged or invariant in self.build.judged):
            self.violation = (invariant, text)
            self.tell("VIOLATION", f"{invariant}: {text}")

    # What the parts ask for.

    def new_ids(self, count: int) -> list[str]:
        """Ids that tell by their order which came first."""
        first = self._ids + 1
        self._ids += count
        return [f"r{number:04d}" for number in range(first, first + count)]

    def new_gate_server(self, stripe: int) -> GateServer:
        """Another run of a Redis server, empty, for a stripe."""
        self._replids += 1
        server = self.build.gate_server(self.loop, f"gate{self._replids}", self._replids, self.new_ids)
        server.stripe = stripe
        if stripe < len(self.primaries):
            server.skew_s = self.primaries[stripe].skew_s
        return server

    def set_stormy(self, stormy: bool) -> None:
        """Whether calls may be late, or lost, from now on."""
        self.stormy = stormy
        self.latency_s = self.plan.latency_s if stormy else LATENCY_S
        self.chance_gate = self.plan.chance_gate if stormy else 0.0
        self.chance_ledger = self.plan.chance_ledger if stormy else 0.0

    def before_gate_write(self, server: GateServer) -> None:
        """What the server has now may come back one day."""
        if self.stormy and self.faults.random() < 0.5:
            server.remember()

    def after_gate(self, process: Process, server: GateServer, verb: str, args: tuple[Any, ...], result: Any) -> None:  # noqa: ANN401
        """A call was carried out there."""
        if self.story is not None:
            self.tell(process.name, f"{server.name}.{verb}{brief(args)} = {brief(result)}")
        self.stock.look(server)
        if verb == "decide":
            self.checker.decided(server, args, result)
        if verb in GATE_MATTERS:
            self.checker.look()

    def after_ledger(self, process: Process, verb: str, tale: Any, result: Any) -> None:  # noqa: ANN401
        """A call was carried out there."""
        if self.story is not None:
            self.tell(process.name, f"ledger.{verb}{brief(tale)} = {brief(result)}")
        if verb in LEDGER_WRITES or verb == "act_commits":
            self.checker.look()

    def note_gate_fault(self, process: Process, stripe: int) -> None:
        """A client that lost its server asks where the primary is."""
        if not process.gate_servers[stripe].up:
            process.gate_servers[stripe] = self.primaries[stripe]

    def note_report(self, process: Process, report: Report) -> None:
        """What a round of repairs did; a fault that nobody foresaw is one of the product's."""
        for name in ("expired", "returned", "voided", "settled"):
            self.count(name, getattr(report, name))
        self.count("rebuilt", len(report.rebuilt))
        for line in report.failed:
            if line.rpartition(": ")[2].isidentifier():
                self.bad("FAULT", f"{process.name} reconcile: {line}")

    # Processes.

    def start(self, kind: type[Process], place: str) -> Process:
        """Start a process at a place of that name, anew."""
        self._process_numbers[place] += 1
        process = kind(self, f"{place}.{self._process_numbers[place]}")
        self.processes = [p for p in self.processes if p.name.partition(".")[0] != place] + [process]
        self.webs = [p for p in self.processes if isinstance(p, Web)]
        self.tell(process.name, "starts")
        return process

    def watch(self, task: asyncio.Task[Any]) -> None:
        """A task of a process that breaks off is a fault of the product's."""
        if not task.cancelled() and (fault := task.exception()) is not None:
            self.bad("FAULT", f"{task.get_coro()}: {fault!r}")

    async def request(
        self, web: Web, what: tuple[object, ...], make: Callable[[], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        """Send a request to a web process; its answer, or status 0 when none comes back."""
        loop, draw = self.loop, self.people.random
        future: asyncio.Future[Answer] = loop.create_future()
        self.requests[future] = web
        lost = self.stormy and draw() < self.plan.chance_http
        back_s = NETWORK_S * draw()

        async def handle() -> None:
            since_s, stops = loop.time(), web.stops
            answer = await _answered(self, web, make)
            if web.stops == stops and loop.time() - since_s > Limits().answer_max_s + ANSWER_SLACK_S:
                self.bad("ANSWER", f"{web.name} answered {brief(what)} after {loop.time() - since_s:.1f} s")
            if not lost:
                loop.after(back_s, _reply, future, answer)

        def arrive() -> None:
            if web.machine.dead:
                self.hang_up(future)
            else:
                web.begin(handle())

        loop.after(NETWORK_S * draw(), arrive)
        loop.after(CLIENT_PATIENCE_S, self.hang_up, future)
        answer = await future
        del self.requests[future]
        self.count(f"status {answer.status}")
        self.count(f"heard {answer.code or answer.state}")
        if self.story is not None:
            self.tell(web.name, f"{brief(what)} ⇒ {brief(answer)}")
        return answer

    def hang_up(self, future: asyncio.Future[Answer]) -> None:
        """The connection is gone."""
        if not future.done():
            future.set_result(Answer(0))

    # The schedule.

    def run(self) -> tuple[str, str] | None:
        """Run it; what was broken, and how, or None."""
        try:
            self._run()
        finally:
            self.loop.abandon()
        return self.violation

    def _run(self) -> None:
        for number in range(self.plan.webs):
            self.start(Web, f"web{number + 1}")
        for number in range(self.plan.workers):
            self.start(Worker, f"worker{number + 1}")
        opening = self._begin(open_sale(self))
        if not self._until(opening.done, 5.0, "the sale is set up"):
            return
        self.set_stormy(True)
        self.tell("world", f"the storm begins: {', '.join(self.plan.faults)}")
        acting = begin_actors(self)
        begin_storm(self)
        ends_s = self.loop.time() + self.plan.storm_s
        self.loop.run(lambda: self.violation is not None, until_s=ends_s)
        if self.violation is not None:
            return
        end_storm(self)
        self.calm_since_s = self.loop.time()
        helping = self._begin(self.shop.help())
        if not self._until(acting.done, SETTLES_WITHIN_S, "everybody has an answer"):
            return
        if not self._rests("after the storm"):
            return
        self.settled_s = self.loop.time() - self.calm_since_s
        late = self._begin(fresh_demand(self))
        if self._until(late.done, DEMAND_WITHIN_S, "the late members have an answer") and self._rests("at the end"):
            last_look(self)
        helping.cancel()

    def _begin(self, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.spawn(self.loop.world, coro)
        task.add_done_callback(self.watch)
        return task

    def _until(self, done: Callable[[], bool], within_s: float, what: str) -> bool:
        if not self.loop.run(lambda: self.violation is not None or done(), until_s=self.loop.time() + within_s):
            self.bad("I16", f"not within {within_s:g} s: {what}")
        return self.violation is None

    def _rests(self, when: str) -> bool:
        """Whether everything has found its place in time."""
        until_s = self.loop.time() + SETTLES_WITHIN_S
        while self.violation is None and (reason := unrest(self)) is not None:
            if self.loop.time() >= until_s:
                self.bad(*reason)
                break
            self.loop.run(lambda: self.violation is not None, until_s=self.loop.time() + LOOK_EVERY_S)
        for told in self.loop.unseen():
            self.bad("FAULT", f"{told.get('message')}: {told.get('exception')!r}")
        self.tell("world", f"at rest {when}")
        return self.violation is None


def _reply(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)


async def _answered(world: World, web: Web, make: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
    try:
        return await make()
    except Refused as refused:
        return Answer(409, refused.code)
    except Unavailable:
        return Answer(503, "unavailable")
    except Exception as fault:  # noqa: BLE001 -- a 500, which nobody should ever get
        world.bad("FAULT", f"{web.name}: {fault!r}")
        return Answer(500)
