"""The schedule is the seed's, and leaves out nothing; the controls still have the lines that they break; the table."""

from collections import Counter
from itertools import chain
from pathlib import Path
from random import Random

import pytest

from flashsale.audit import __doc__ as invariants
from tests.faults import product, report, sales
from tests.faults.audit import Finding
from tests.faults.gates import Stage
from tests.faults.hit import KINDS
from tests.faults.machine import Outcome
from tests.faults.schedule import STAGES, STRIKES_A_LANE_MAX, Planned, plan
from tests.faults.shop import Mood

PROMISED = {
    "web killed",
    "web stopped",
    "web renewed",
    "clock stepped",
    "worker killed",
    "worker stopped",
    "more workers",
    "valkey killed",
    "valkey stopped",
    "valkey emptied",
    "valkey restarted older",
    "valkey restarted empty",
    "valkey full",
    "sentinel failover",
    "cluster primary killed",
    "postgres killed",
    "postgres backend killed",
    "postgres stopped",
    "postgres restarted",
    "postgres crowded",
    "postgres locked",
    "postgres disk full",
    "postgres slow",
    "gate cut",
    "gate late",
    "gate replies lost",
    "ledger cut",
    "ledger late",
    "ledger replies lost",
    "shop down",
    "shop slow",
    "shop failing",
    "shop answers twice",
}


def strikes(seed: int, each: int, stage: Stage) -> list[Planned]:
    """All strikes of a stage, in the order of rounds and lanes."""
    return [each_ for found in plan(seed, stage, each) for lane in found.values() for each_ in lane]


def test_every_fault_strikes_ten_times() -> None:
    """In a full run, each of the faults there are, and all that were promised; 300 strikes and more in all."""
    counts = Counter(strike.kind.name for strike in chain(*(strikes(7, 10, stage) for stage in STAGES)))
    assert set(KINDS) >= PROMISED
    assert {name for name in KINDS if counts[name] < 10} == set()
    assert counts.total() >= 300


@pytest.mark.parametrize("stage", STAGES)
def test_a_seed_is_a_schedule(stage: Stage) -> None:
    """The same seed gives the same strikes with the same chances; another seed gives others."""
    assert strikes(3, 10, stage) == strikes(3, 10, stage)
    assert strikes(3, 10, stage) != strikes(4, 10, stage)
    longest = max(len(lane) for found in plan(3, stage, 10) for lane in found.values())
    assert longest <= STRIKES_A_LANE_MAX


def test_only_some_faults_on_the_stages_where_they_have_their_place() -> None:
    """A stage where none of them has its place does not run at all."""
    assert plan(1, "sentinel", 2, only=("web killed",)) == []
    (found,) = plan(1, "single", 2, only=("web killed", "shop down"))
    assert {lane: [strike.kind.name for strike in planned] for lane, planned in found.items()} == {
        "web": ["web killed"] * 2,
        "shop": ["shop down"] * 2,
    }
    assert [s for s in strikes(1, 1, "single") if s.kind.name == "postgres disk full"] != []
    without = plan(1, "single", 1, without=("postgres disk full",))
    assert [s for r in without for lane in r.values() for s in lane if s.kind.name == "postgres disk full"] == []


def test_a_seed_is_a_sale() -> None:
    """What is sold, to whom and for how long is the seed's; the large drop comes first, and no two share an id."""
    first, second = (sales.round_of(Random("7"), "r", 60.0) for _ in range(2))
    assert [(s.drop, s.units, s.per_member, s.hold_s, s.members) for s in first] == [
        (s.drop, s.units, s.per_member, s.hold_s, s.members) for s in second
    ]
    assert [s.large for s in first] == [True] + [False] * (len(first) - 1)
    assert len({s.drop for s in first}) == len(first)


@pytest.mark.parametrize("name", product.BROKEN)
def test_a_control_breaks_one_line(name: str, tmp_path: Path) -> None:
    """The product still has that line, and the copy differs from it in that line alone."""
    whole, broken = product.copy(tmp_path / "whole"), product.copy(tmp_path / "broken", name)
    different = [
        (before, after)
        for path in sorted(whole.rglob("*"))
        if path.is_file()
        for before, after in zip(
            path.read_bytes().splitlines(),
            (broken / path.relative_to(whole)).read_bytes().splitlines(),
            strict=True,
        )
        if before != after
    ]
    assert len(different) == 1


def test_the_table_counts_what_was_found_by_its_invariant() -> None:
    """Each column's invariant is one that the auditor has; what has no column of its own is counted as well."""
    assert invariants is not None
    assert [i for i in report.COUNTED.values() if f"- {i} " not in invariants] == []
    found = [Finding("I2", "one too many", 3), Finding("I1", "gone"), Finding("I5", "two for one"), Finding("I16", "…")]
    outcome = Outcome(name="single-1", findings=found, settle_s=1.0, calls=Counter({"503": 4, "lost": 1, "201": 9}))
    last = report.table([outcome])[-1].split()
    assert last == ["all", "0", "5", "–", "–", "3", "0", "0", "1", "2", "1.00"]
    assert report.contradictions([outcome])[0] == "I2 in single-1: one too many"
    assert "4 CONTRADICTIONS" in report.told(outcome)


def test_the_shop_has_a_fault_for_each_of_its_moods() -> None:
    """It is never in a mood that no fault puts it in."""
    moods = set(Mood.__args__) - {"good"}  # type: ignore[attr-defined]
    assert len(moods) == len([name for name in KINDS if name.startswith("shop ")])


def test_every_fault_says_what_it_does() -> None:
    """In one line, for `python -m tests.faults list`."""
    assert [kind.name for kind in KINDS.values() if not kind.strike.__doc__ or "\n" in kind.strike.__doc__] == []
