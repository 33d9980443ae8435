"""A short run of the fault machine, audited; and a control, in which the audit finds the line that was broken.

The whole of it: `make faults`.
"""

from collections import Counter

import pytest

from tests.faults import report
from tests.faults.machine import Outcome
from tests.faults.run import Options, run

SEED = 1
RATE = 40.0
STRIKES = ("web killed", "valkey killed", "valkey emptied", "postgres killed", "ledger replies lost")


@pytest.mark.timeout(300)
async def test_nothing_is_lost_whatever_dies() -> None:
    """Kill -9 of a web process, of Valkey and of Postgres, an emptied Valkey, commits that nobody hears of.

    What was acknowledged is there, once; nothing is oversold; every unit has its place, within 30 s; all that is left
    can be bought. And the sale goes on: once no fault is in the way, somebody is granted a unit.
    """
    said: list[str] = []
    (outcome,) = await run(Options(seed=SEED, each=1, only=STRIKES, rate=RATE), said.append)
    assert report.contradictions([outcome]) == [], "\n".join(said)
    assert Counter(hit.kind.name for hit in outcome.hits) == Counter(STRIKES)
    assert outcome.audited >= 3
    assert outcome.acknowledged > 100
    assert [hit.first_grant_s for hit in outcome.hits if hit.first_grant_s is not None] != []


@pytest.mark.timeout(300)
async def test_a_broken_line_is_found() -> None:
    """With one line of `release.lua` broken, units that were cancelled never come back: the auditor says so (I1)."""
    options = Options(seed=SEED, each=1, only=("shoppers cut",), broken="release", rate=RATE, settle_s=2.0)
    outcomes: list[Outcome] = await run(options, lambda _: None)
    (outcome,) = outcomes
    assert "I1" in {finding.invariant for finding in outcome.findings}
    assert report.table(outcomes)[-1].split()[8] != "0"
