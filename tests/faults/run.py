"""A whole run: stage after stage, round after round, each stage with a service and servers of its own."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from tests.faults import product, report, schedule
from tests.faults.gates import Stage
from tests.faults.machine import Machine, Outcome
from tests.faults.schedule import Round
from tests.faults.world import opened, plain_program

SETTLES_WITHIN_S: Final = 30.0
"""I16: after the last fault everything is settled within this."""
Say = Callable[[str], None]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    `each`: how often each fault strikes where it has its place. `broken`: a line of `product.BROKEN`. `rate`: shoppers
    who arrive a second. `settle_s`: within how many seconds after the last fault all must be at rest. `small_disk`:
    whether one can be had. `keep`: journals and logs also when nothing is found. `stop_at_first`: end with the first
    round that contradicts the promise.
    """

    seed: int
    each: int
    only: tuple[str, ...] = ()
    broken: str | None = None
    rate: float = 100.0
    settle_s: float = SETTLES_WITHIN_S
    small_disk: bool = False
    keep: bool = False
    stop_at_first: bool = False

    def rounds(self, stage: Stage) -> list[Round]:
        """What strikes on a stage."""
        without = () if self.small_disk else ("postgres disk full",)
        return schedule.plan(self.seed, stage, self.each, only=self.only, without=without)


async def run(options: Options, say: Say) -> list[Outcome]:
    """All rounds. `say` hears of everything as it happens."""
    began = time.monotonic()
    outcomes: list[Outcome] = []

    def at(text: str) -> None:
        say(f"{time.monotonic() - began:7.1f} s  {text}")

    with _home() as top:
        whole = product.copy(top / "whole")
        broken = whole if options.broken is None else product.copy(top / "broken", options.broken)
        auditor = plain_program(top, whole)
        for stage in schedule.STAGES:
            if options.rounds(stage):
                home = _home_of(top, stage)
                try:
                    async with opened(stage, home, broken, small_disk=options.small_disk) as world:
                        at(f"{stage}: the service is ready")
                        machine = Machine(
                            world, auditor, seed=options.seed, rate=options.rate, settle_s=options.settle_s, say=at
                        )
                        await _rounds(machine, options, stage, outcomes, at)
                finally:
                    if options.keep or not all(outcome.true for outcome in outcomes):
                        at(f"journals and logs are kept in {_keep(home)}")
            if options.stop_at_first and not all(outcome.true for outcome in outcomes):
                break
    return outcomes


async def _rounds(machine: Machine, options: Options, stage: Stage, outcomes: list[Outcome], say: Say) -> None:
    for number, strikes in enumerate(options.rounds(stage), 1):
        outcomes.append(await machine.round(f"{stage}-{number}", strikes))
        say(report.told(outcomes[-1]))
        for line in report.contradictions(outcomes[-1:], at_most=5):
            say(line)
        if options.stop_at_first and not outcomes[-1].true:
            return


@contextlib.contextmanager
def _home() -> Iterator[Path]:
    """A folder that the servers' account may pass through, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="flashsale-faults-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def _home_of(top: Path, stage: Stage) -> Path:
    home = top / stage
    home.mkdir()
    home.chmod(0o711)
    (home / "tmp").mkdir()
    return home


def _keep(home: Path) -> Path:
    """Copy what tells how it came about to where it stays."""
    kept = Path(tempfile.mkdtemp(prefix=f"flashsale-faults-{home.name}-"))
    for path in (*home.glob("*.jsonl"), *home.glob("*.log"), *home.glob("data/*.log")):
        shutil.copy(path, kept)
    return kept
