"""Runs schedules by their seeds, counts what happened in them, and tells the story of one."""

import argparse
import gc
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Final, NamedTuple

import structlog

from tests.simulation.controls import CONTROLS
from tests.simulation.processes import Build
from tests.simulation.seeds import SEEDS
from tests.simulation.world import World

COLLECT_EVERY: Final = 20
SHARE: Final = 100
SEARCHED_MAX: Final = 3_000


class Ran(NamedTuple):
    """What came of seeds: what was broken in which, how often everything happened, how long each took to settle."""

    broken: dict[int, tuple[str, str]]
    counts: Counter[str]
    settled_s: dict[int, float]


@contextmanager
def quiet() -> Iterator[None]:
    """Without the product's log lines, which nobody reads here, and without a collector that looks at every turn."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), processors=[])
    collecting = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        structlog.configure(**before)
        if collecting:
            gc.enable()


def run_seed(seed: int, build: Build | None = None, *, with_story: bool = False) -> World:
    """Run one schedule to its end."""
    world = World(seed, build, with_story=with_story)
    world.run()
    return world


def run_range(first: int, last: int, off: str | None = None) -> Ran:
    """Run the schedules of these seeds, perhaps with a safeguard off."""
    ran = Ran({}, Counter(), {})
    build = None if off is None else CONTROLS[off]()
    with quiet():
        for seed in range(first, last):
            world = run_seed(seed, build)
            ran.counts.update(world.counts)
            ran.counts.update({"schedules": 1, "turns": world.loop.steps})
            ran.settled_s[seed] = world.settled_s
            if world.violation is not None:
                ran.broken[seed] = world.violation
            if seed % COLLECT_EVERY == 0:
                gc.collect()
    return ran


def run_shared(first: int, last: int, off: str | None, jobs: int) -> Ran:
    """As `run_range`, with several processes at work."""
    ran = Ran({}, Counter(), {})
    with ProcessPoolExecutor(jobs) as pool:
        shares = range(first, last, SHARE)
        for part in pool.map(run_range, shares, [min(at + SHARE, last) for at in shares], [off] * len(shares)):
            ran.broken.update(part.broken)
            ran.counts.update(part.counts)
            ran.settled_s.update(part.settled_s)
    return ran


def first_seed(off: str, invariant: str) -> int | None:
    """The first seed that finds this safeguard missing, as that invariant broken; None: not found soon enough."""
    build = CONTROLS[off]()
    with quiet():
        for seed in range(SEARCHED_MAX):
            violation = run_seed(seed, build).violation
            if violation is not None and violation[0] == invariant:
                return seed
            if seed % COLLECT_EVERY == 0:
                gc.collect()
    return None


def find_seeds(jobs: int) -> int:
    """Print the table of `seeds` as it is now; exit code 1 when something is not found any more."""
    with ProcessPoolExecutor(jobs) as pool:
        found = pool.map(first_seed, SEEDS, [invariant for _, invariant in SEEDS.values()])
        lost = 0
        for (name, (_, invariant)), seed in zip(SEEDS.items(), found, strict=True):
            say(f'    "{name}": ({seed}, "{invariant}"),')
            lost += seed is None
    return 1 if lost else 0


def say(line: str) -> None:
    """To standard output."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def tell(seed: int, off: str | None) -> int:
    """Print the story of a seed."""
    with quiet():
        world = run_seed(seed, None if off is None else CONTROLS[off](), with_story=True)
    for line in world.story or ():
        say(line)
    say(f"seed {seed}: {'no violation' if world.violation is None else ': '.join(world.violation)}")
    return 0 if world.violation is None else 1


def main(arguments: Sequence[str]) -> int:
    """The command line; exit code 1 when an invariant was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description="Run seeded schedules of the product's flow over model stores."
    )
    parser.add_argument("first", type=int, nargs="?", help="a seed: tell its story")
    parser.add_argument("last", type=int, nargs="?", help="run all seeds from the first up to, without, this one")
    parser.add_argument("--off", choices=CONTROLS, metavar="RULE", help="with this safeguard off")
    parser.add_argument("--jobs", type=int, default=1, help="processes to share the work")
    parser.add_argument("--controls", action="store_true", help="find the seeds of all safeguards anew")
    given = parser.parse_args(arguments)
    if given.controls:
        return find_seeds(given.jobs)
    if given.first is None:
        parser.error("name a seed, or a range of them, or --controls")
    if given.last is None:
        return tell(given.first, given.off)
    began = time.perf_counter()
    ran = run_shared(given.first, given.last, given.off, given.jobs)
    took_s = time.perf_counter() - began
    for what, count in sorted(ran.counts.items()):
        say(f"{count:>12,}  {what}")
    for seed, (invariant, text) in ran.broken.items():
        say(f"seed {seed}: {invariant}: {text}")
    slowest = max(ran.settled_s, key=lambda seed: ran.settled_s[seed])
    mean_s = sum(ran.settled_s.values()) / len(ran.settled_s)
    say(f"settled after {mean_s:.1f} s on average; slowest: seed {slowest}, {ran.settled_s[slowest]:.1f} s")
    say(f"{ran.counts['schedules']:,} schedules in {took_s:.1f} s, {len(ran.broken)} with a violation")
    return 1 if ran.broken else 0
