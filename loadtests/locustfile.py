"""What locust loads: shoppers who behave, others who do not, and the door that lets them in when the schedule says.

`python -m loadtests.load` starts locust with this file, in one process or several. Locust's own way of starting users
(some more each second, each with a loop of tasks) would make arrivals wait for answers and for each other. Here the
shape starts one `Door` in each process, and the door starts every shopper, a user of locust's like any other, when the
schedule says. What locust's statistics show as response time counts from the moment a request was *meant* to leave.

Pressing Start on locust's page sets up a drop of its own; when the run ends, it is audited and the report is written.
"""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import gevent
from gevent.pool import Group
from locust import LoadTestShape, User, events, task
from locust.contrib.fasthttp import FastHttpUser
from locust.env import Environment
from locust.exception import StopUser
from locust.rpc.protocol import Message
from locust.runners import LocalRunner, MasterRunner, Runner, WorkerRunner

from loadtests.crowd import ctrl_c
from loadtests.crowd.book import Book
from loadtests.crowd.door import Health, let_in, parcel, read_clock
from loadtests.crowd.gathering import Gathering, opened, tell
from loadtests.crowd.guests import Guest, Sale
from loadtests.crowd.hands import Hands
from loadtests.crowd.options import VARIABLE, Options
from loadtests.crowd.roles import ROLES
from loadtests.crowd.visit import Clock, Visit
from loadtests.errors import SetupError

ANSWER_TIMEOUT_S: Final = 20.0
"""The service answers within 10 s (`FLASHSALE_ANSWER_MAX_S`), and clients wait longer."""
REPORT_EVERY_S: Final = 1.0
LEAVE_WITHIN_S: Final = 15.0
"""When a run is ended early, so long for processes to send what they have."""
OVERTIME_S: Final = 60.0
"""So long after everybody's patience has ended, a process that is not done is lost."""
TELL_EVERY_S: Final = 2.0


class Here:
    """This process: what it leads, if it leads, and the sale that it takes part in."""

    gathering: Gathering | None = None
    run: Path | None = None
    runs = 0
    share = 0
    sale: Sale | None = None
    guests: Sequence[Guest] = ()
    clock = Clock()
    book = Book("", 0.0)
    finished = True
    """Whether the last parcel of this process has left."""


def hurt(environment: Environment, why: object) -> None:
    """The run cannot go on: say why, and end with exit code 2."""
    sys.stderr.write(f"{why}\n")
    environment.process_exit_code = 2
    options, runner = environment.parsed_options, environment.runner
    if runner is not None:
        gevent.spawn(runner.quit if options is not None and options.headless else runner.stop)


class Guesting(FastHttpUser):
    """A user of locust's who makes one visit. `guest` is set by the door before it starts."""

    abstract = True
    network_timeout = ANSWER_TIMEOUT_S
    connection_timeout = ANSWER_TIMEOUT_S
    concurrency = 1
    guest: Guest

    @task
    def visit(self) -> None:
        """The whole visit; there is no second one."""
        assert Here.sale is not None
        ROLES[self.guest.role](Visit(Here.sale, self.guest, Hands(self), Here.clock, Here.book))
        Here.book.tally.add("left", self.guest.role)
        raise StopUser

    def on_stop(self) -> None:
        """Hang up."""
        self.client.client.close()


class Shopper(Guesting):
    """Looks, waits for the opening, presses, confirms."""


class Fan(Guesting):
    """Wants what asks for points."""


class Coded(Guesting):
    """Has an F-code."""


class Canceler(Guesting):
    """Gives the unit back."""


class Lapser(Guesting):
    """Lets the hold lapse."""


class Eager(Guesting):
    """Presses before the opening."""


class Hammerer(Guesting):
    """Presses as often as possible."""

    concurrency = 8


class Sprayer(Guesting):
    """Guesses F-codes."""


class Replayer(Guesting):
    """Replays keys, and acts on what belongs to others."""


KINDS: Final[dict[str, type[Guesting]]] = {
    kind.__name__.lower(): kind for kind in (Shopper, Fan, Coded, Canceler, Lapser, Eager, Hammerer, Sprayer, Replayer)
}


class Door(FastHttpUser):
    """Lets the guests of this process in, and sends what they heard to who leads. One in each process."""

    network_timeout = ANSWER_TIMEOUT_S
    connection_timeout = ANSWER_TIMEOUT_S

    @task
    def serve(self) -> None:
        """From reading the clock to the last guest's leaving."""
        sale, book, runner = Here.sale, Here.book, self.environment.runner
        if sale is None or runner is None or Here.finished:  # it could not be set up
            raise StopUser
        hands, inside = Hands(self), Group()
        read_clock(sale, hands, Here.clock)
        book.opening = Here.clock.local(sale.opens_at_s)
        beside = [
            gevent.spawn(self._report, runner, inside),
            gevent.spawn(self._watch, Health(hands, book, Here.share)),
        ]

        def start(guest: Guest) -> None:
            user = KINDS[guest.role](self.environment)
            user.guest = guest
            inside.add(user.start(runner.user_greenlets))

        try:
            let_in(Here.guests, lambda: Here.clock.local(sale.opens_at_s), hands, book, start)
            inside.join()
        finally:
            gevent.killall(beside)
        send(runner, inside=0, done=True)
        while True:  # a process whose user has ended would be given another
            gevent.sleep(REPORT_EVERY_S)

    @staticmethod
    def _report(runner: Runner, inside: Group) -> None:
        while True:
            gevent.sleep(REPORT_EVERY_S)
            send(runner, inside=len(inside), done=False)

    @staticmethod
    def _watch(health: Health) -> None:
        while True:
            health.tick()


def send(runner: Runner, *, inside: int, done: bool) -> None:
    """Hand on what is new."""
    if Here.finished:
        return
    Here.finished = done
    runner.send_message("parcel", parcel(Here.book, Here.share, inside=inside, done=done))


class Schedule(LoadTestShape):
    """Starts one door a process, says how far the sale is, and ends the run when every process is done."""

    abstract = False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # locust's
        self._told_at = 0.0

    def tick(self) -> tuple[int, float, list[type[User]] | None] | None:
        """Called each second by locust."""
        gathering = Here.gathering
        doors = 1 if isinstance(self.runner, LocalRunner) else max(1, getattr(self.runner, "worker_count", 1))
        if gathering is None:
            return doors, float(doors), [Door]
        now_s, sale = time.time(), gathering.sale
        over = gathering.all_done or now_s > sale.opens_at_s + sale.seconds + 3 * sale.patience_s + OVERTIME_S
        if over or now_s - self._told_at >= TELL_EVERY_S:
            self._told_at = now_s
            tell(sys.stderr, gathering.progress(now_s), last=over)
        return None if over else (gathering.of, float(gathering.of), [Door])


def _begin(envelope: dict[str, Any]) -> None:
    """This process takes part in a sale."""
    Here.share, Here.sale, Here.guests = opened(envelope)
    Here.clock = Clock()
    Here.book = Book(Here.sale.drop, time.time() - time.monotonic())
    Here.finished = False


def _init(*, runner: Runner, **_: object) -> None:
    logging.getLogger("locust.stats_logger").setLevel(logging.WARNING)  # its tables; there is one of ours
    if isinstance(runner, WorkerRunner):
        runner.register_message("sale", lambda msg, **_: _begin(msg.data))
        runner.register_message("leave", lambda **_: _leave(runner), concurrent=True)
    else:
        ctrl_c.to_who_waits()
        runner.register_message("parcel", _take)


def _take(*, msg: Message, **_: object) -> None:
    if Here.gathering is not None:
        Here.gathering.take(msg.data)


def _leave(runner: Runner) -> None:
    """Everybody leaves now; what they heard so far is sent."""
    runner.user_greenlets.kill(block=True)
    send(runner, inside=0, done=True)


def _test_start(*, environment: Environment, **_: object) -> None:
    runner = environment.runner
    if runner is None or isinstance(runner, WorkerRunner):
        return
    try:
        if VARIABLE not in os.environ:
            raise SetupError(f"{VARIABLE} is not set: start this by python -m loadtests.load, which says what to do.")
        options = Options.read(Path(os.environ[VARIABLE]))
        Here.runs += 1
        Here.run = Path(options.folder) / f"run-{Here.runs}"
        Here.run.mkdir(mode=0o700)
        _helper("staging", os.environ[VARIABLE], str(Here.run))
        clients = list(runner.clients) if isinstance(runner, MasterRunner) else [""]
        Here.gathering = Gathering(Here.run, len(clients))
    except (SetupError, OSError) as error:
        Here.gathering = None
        hurt(environment, error)
        return
    for index, client in enumerate(sorted(clients)):
        if isinstance(runner, MasterRunner):
            runner.send_message("sale", Here.gathering.envelope(index), client)
        else:
            _begin(Here.gathering.envelope(index))


def _test_stop(*, environment: Environment, **_: object) -> None:
    runner, gathering = environment.runner, Here.gathering
    if runner is None or isinstance(runner, WorkerRunner) or gathering is None or Here.run is None:
        return
    interrupted = not gathering.all_done
    if isinstance(runner, MasterRunner):
        if interrupted:
            runner.send_message("leave")
        give_up_at = time.monotonic() + LEAVE_WITHIN_S
        while not gathering.all_done and time.monotonic() < give_up_at:
            gevent.sleep(0.05)
    elif interrupted:
        _leave(runner)
    Here.gathering = None
    gathering.close(interrupted=interrupted)
    try:
        code = _helper("verdict", os.environ[VARIABLE], str(Here.run), may_fail=True)
    except SetupError as error:
        hurt(environment, error)
        return
    environment.process_exit_code = max(code, environment.process_exit_code or 0)


def _helper(name: str, *arguments: str, may_fail: bool = False) -> int:
    """Run a program of ours and wait for it; what it says goes where our own errors go. Errors: `SetupError`."""
    command = [sys.executable, "-m", f"loadtests.crowd.{name}", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if done.returncode not in ({0, 1} if may_fail else {0}):
        raise SetupError(f"The sale could not be {'judged' if may_fail else 'set up'}.")
    return done.returncode


events.init.add_listener(_init)  # type: ignore[no-untyped-call]  # as are all listeners
events.test_start.add_listener(_test_start)  # type: ignore[no-untyped-call]
events.test_stop.add_listener(_test_stop)  # type: ignore[no-untyped-call]
