"""The faults that strike while the storm is on, and how each of them ends."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tests.simulation.plan import DROP
from tests.simulation.processes import Process
from tests.simulation.stores import GateServer

if TYPE_CHECKING:
    from tests.simulation.world import World

RESTART_S: Final = 1.5
OLD_PRIMARY_S: Final = 4.0
STEP_S: Final = 3.0
PROCESS_STEP_S: Final = 60.0


def begin_storm(world: "World") -> None:
    """From now on, one fault after the other."""
    storm = Storm(world)
    if world.plan.faults:
        storm.next()


def end_storm(world: "World") -> None:
    """No more faults: what was stopped goes on, what died is there again, and what is on its way arrives."""
    world.tell("world", "the faults are over")
    world.set_stormy(False)
    Storm(world).mend()


class Storm:
    """Faults by their names."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._draw = world.faults.random
        self._loop = world.loop

    def next(self) -> None:
        """The next fault, some time from now."""
        wait_s = self._world.plan.between_s * (0.2 + 1.6 * self._draw())
        self._loop.after(wait_s, self._strike)

    def _strike(self) -> None:
        world = self._world
        if not world.stormy:
            return
        kind = world.faults.choice(world.plan.faults)
        strike: Callable[[], str | None] = getattr(self, f"_{kind}")
        how = strike()
        if how is not None:
            world.count(f"fault {kind}")
            world.tell("FAULT", f"{kind}: {how}")
        self.next()

    def _later(self, at_most_s: float, end: Callable[[], None], at_least_s: float = 0.05) -> float:
        """`end` happens after a time that is drawn, if the storm is still on: else all is mended anyway."""
        wait_s = at_least_s + (at_most_s - at_least_s) * self._draw()
        self._loop.after(wait_s, lambda: end() if self._world.stormy else None)
        return wait_s

    # The gate.

    def _struck(self) -> GateServer:
        """The primary of one stripe: the others know nothing of it."""
        primaries = self._world.primaries
        return primaries[0] if len(primaries) == 1 else self._world.faults.choice(primaries)

    def _flush(self) -> str:
        server = self._struck()
        server.flush()
        return f"{server.name} is empty"

    def _evict(self) -> str | None:
        server = self._struck()
        if not server.keys:
            return None
        name = self._world.faults.choice(server.keys)
        server.evict(name)
        return name

    def _replace(self, server: GateServer) -> None:
        self._world.primaries[server.stripe] = server
        self._world.gate_servers.append(server)

    def _restart(self, old: GateServer, state: tuple[dict[str, object], dict[str, int]] | None) -> str | None:
        world = self._world
        if not old.up:
            return None
        old.die()

        def start() -> None:
            if world.primaries[old.stripe] is old:
                new = world.new_gate_server(old.stripe)
                if state is not None:
                    new.come_back_with(state)
                self._replace(new)

        gone_s = self._later(RESTART_S, start)
        return f"{old.name} for {gone_s:.2f} s"

    def _restart_empty(self) -> str | None:
        return self._restart(self._struck(), None)

    def _restart_old(self) -> str | None:
        server = self._struck()
        return self._restart(server, self._world.faults.choice(server.past)) if server.past else None

    def _failover(self) -> str | None:
        """A replica that lagged takes over; some processes go on with the old primary for a while."""
        world, old = self._world, self._struck()
        if not old.up or not old.past:
            return None
        new = world.new_gate_server(old.stripe)
        new.come_back_with(world.faults.choice(old.past))
        self._replace(new)
        for process in world.processes:
            if self._draw() < 0.5:
                process.gate_servers[new.stripe] = new
        self._later(OLD_PRIMARY_S, old.die)
        return f"from {old.name} to {new.name}"

    def _stall_gate(self) -> str:
        server = self._struck()
        server.stalled = True
        return f"{server.name} for {self._later(6.0, server.go_on):.2f} s"

    def _full(self) -> str:
        server = self._struck()
        server.full = True
        return f"{server.name} for {self._later(4.0, lambda: setattr(server, 'full', False)):.2f} s"

    def _gate_clock(self) -> str:
        server = self._struck()
        server.skew_s += STEP_S * (2 * self._draw() - 1)
        return f"{server.skew_s:+.2f} s"

    # The ledger.

    def _away(self, at_most_s: float) -> str | None:
        ledger = self._world.ledger
        if not ledger.up:
            return None
        ledger.die()
        return f"{self._later(at_most_s, lambda: setattr(ledger, 'up', True)):.2f} s"

    def _ledger_away(self) -> str | None:
        return self._away(7.0)

    def _ledger_restart(self) -> str | None:
        return self._away(0.3)

    def _stall_ledger(self) -> str | None:
        ledger = self._world.ledger
        if not ledger.up:
            return None
        ledger.stalled = True
        return f"{self._later(7.0, ledger.go_on):.2f} s"

    def _slow_commits(self) -> str:
        ledger = self._world.ledger
        ledger.slow_s = 4.0 * self._draw() ** 2
        return f"{ledger.slow_s:.2f} s each, for {self._later(4.0, lambda: setattr(ledger, 'slow_s', 0.0)):.2f} s"

    def _row_locked(self) -> str | None:
        """Somebody else's transaction sits on the drop."""
        ledger = self._world.ledger
        if not ledger.lock_foreign(DROP):
            return None
        return f"{self._later(5.0, lambda: ledger.free_foreign(DROP)):.2f} s"

    def _disk_full(self) -> str:
        ledger = self._world.ledger
        ledger.full = True
        return f"{self._later(6.0, lambda: setattr(ledger, 'full', False)):.2f} s"

    def _ledger_clock(self) -> str:
        self._world.ledger.skew_s += STEP_S * (2 * self._draw() - 1)
        return f"{self._world.ledger.skew_s:+.2f} s"

    # Processes.

    def _victim(self) -> Process | None:
        alive = [p for p in self._world.processes if not p.machine.dead]
        return self._world.faults.choice(alive) if alive else None

    def _crash(self) -> str | None:
        victim = self._victim()
        if victim is None:
            return None
        self.kill(victim)
        again_s = self._later(RESTART_S, lambda: self._start_again(victim))
        return f"{victim.name}, again after {again_s:.2f} s"

    def kill(self, victim: Process) -> None:
        """SIGKILL: its connections close, its transactions are rolled back, whoever waits for it is hung up on."""
        world = self._world
        self._loop.kill_machine(victim.machine)
        for transaction in [*world.ledger.transactions]:
            if transaction.process is victim:
                transaction.roll_back()
        for future, process in [*world.requests.items()]:
            if process is victim:
                world.hang_up(future)

    def _start_again(self, dead: Process) -> None:
        self._world.start(type(dead), dead.name.partition(".")[0])

    def _pause(self, at_most_s: float, at_least_s: float) -> str | None:
        victim = self._victim()
        if victim is None or victim.machine.stopped:
            return None
        victim.stops += 1
        self._loop.stop_machine(victim.machine)
        stopped_s = self._later(at_most_s, lambda: self._loop.resume_machine(victim.machine), at_least_s)
        return f"{victim.name} for {stopped_s:.2f} s"

    def _stop(self) -> str | None:
        return self._pause(1.5, 0.05)

    def _long_stop(self) -> str | None:
        hold_s = self._world.plan.drop.hold_seconds
        return self._pause(hold_s + 4.0, hold_s + 0.5)

    def _process_clock(self) -> str | None:
        victim = self._victim()
        if victim is None:
            return None
        victim.skew_s += PROCESS_STEP_S * (2 * self._draw() - 1)
        return f"{victim.name} {victim.skew_s:+.0f} s"

    # The shop.

    def _shop(self, mood: str) -> str:
        shop = self._world.shop
        shop.mood = mood
        return f"{self._later(4.0, lambda: setattr(shop, 'mood', 'well')):.2f} s"

    def _shop_down(self) -> str:
        return self._shop("down")

    def _shop_slow(self) -> str:
        return self._shop("slow")

    def _shop_lies(self) -> str:
        return self._shop("lies")

    def _shop_gone(self) -> str:
        return self._shop("gone")

    # The end.

    def mend(self) -> None:
        """Everything is there again."""
        world = self._world
        for stripe, server in enumerate(world.primaries):
            if not server.up:
                self._replace(world.new_gate_server(stripe))
        for server in world.gate_servers:
            server.full = False
            if server is world.primaries[server.stripe]:
                server.go_on()
            else:
                server.die()
        ledger = world.ledger
        ledger.up, ledger.full, ledger.slow_s = True, False, 0.0
        ledger.free_foreign(DROP)
        ledger.go_on()
        for process in world.processes:
            process.gate_servers = [*world.primaries]
            if process.machine.dead:
                self._start_again(process)
            elif process.machine.stopped:
                self._loop.resume_machine(process.machine)
        world.shop.mood = "well"
