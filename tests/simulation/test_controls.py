"""Each safeguard off is found by a seed that `seeds` names; one that no schedule needs would not be one.

So is one line of the product's own source broken, in what releases, in what fences, in the outbox.
"""

import pytest

from tests.simulation.broken import Broken, edition
from tests.simulation.controls import CONTROLS, LINES
from tests.simulation.controls_ledger import OnlySecondLock
from tests.simulation.runner import quiet, run_seed
from tests.simulation.seeds import SEEDS

SCHEDULES = 60


@pytest.mark.parametrize(("name", "seed", "invariant"), [(name, *found) for name, found in SEEDS.items()])
def test_without_a_safeguard_a_schedule_breaks_an_invariant(name: str, seed: int, invariant: str) -> None:
    """And with it, the same schedule breaks none."""
    with quiet():
        off, on = run_seed(seed, CONTROLS[name]()), run_seed(seed)
    assert off.violation is not None, "not found by this seed any more: python -m tests.simulation --controls"
    assert off.violation[0] == invariant
    assert on.violation is None


def test_every_safeguard_has_its_seed() -> None:
    """Also the lines: at least one in each of release, fencing and outbox."""
    assert SEEDS.keys() == CONTROLS.keys()
    assert {name.partition(" ")[0] for name in LINES} >= {"release", "fencing", "outbox"}


def test_the_second_lock_alone_keeps_stock_and_limit() -> None:
    """With the fence off, nobody gets what is not there or more than allowed: CHECK and unique rows are in the way."""
    with quiet():
        found = {seed: run_seed(seed, OnlySecondLock()).violation for seed in range(SCHEDULES)}
    assert {seed: violation for seed, violation in found.items() if violation is not None} == {}


def test_a_line_that_is_not_there_cannot_be_broken() -> None:
    """The table follows the product: a line that has changed has to be named anew."""
    with pytest.raises(AssertionError, match="0 times the line"):
        edition(Broken("flashsale.reconcile", "never = written", "pass"))
