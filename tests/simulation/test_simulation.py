"""Some hundreds of schedules, and that they are what they claim to be: full of faults, and the same at every run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flashsale.domain import State, Verdict
from tests.simulation.plan import FAULTS
from tests.simulation.runner import Ran, main, quiet, run_range, run_seed

ROOT = Path(__file__).parents[2]
SCHEDULES = 200
MISFORTUNES = ("before", "after", "late", "silent", "unanswered")


@pytest.fixture(scope="module")
def ran() -> Ran:
    """The first schedules."""
    return run_range(0, SCHEDULES)


def test_no_schedule_breaks_an_invariant(ran: Ran) -> None:
    """`python -m tests.simulation SEED` tells the story of one that does."""
    assert ran.broken == {}
    assert ran.counts["schedules"] == SCHEDULES


def test_every_fault_strikes_and_every_call_is_lost_in_every_way(ran: Ran) -> None:
    """A schedule in which nothing goes wrong proves nothing."""
    struck = {name: ran.counts[f"fault {name}"] for name in FAULTS}
    assert [name for name, count in struck.items() if count < SCHEDULES / 50] == []
    assert [kind for kind in MISFORTUNES if ran.counts[f"call {kind}"] < SCHEDULES / 5] == []


def test_the_sale_goes_on_all_the_while(ran: Ran) -> None:
    """Every verdict is given, every state is reached, every kind of repair is needed."""
    decided = ran.counts["verdict grant"]
    assert decided > 5 * SCHEDULES
    refusals = set(Verdict) - {Verdict.AGAIN, Verdict.HELD, Verdict.NOT_FOUND}
    assert [verdict for verdict in refusals if not ran.counts[f"verdict {verdict}"]] == []
    assert [state for state in set(State) - {State.HELD, State.VOID} if not ran.counts[f"became {state}"]] == []
    assert [name for name in ("rebuilt", "expired", "returned", "voided", "settled") if not ran.counts[name]] == []
    assert ran.counts["status 503"] > SCHEDULES


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_seed_is_the_same_story_again(seed: int) -> None:
    """Word by word, whatever ran before it; and whether or not somebody listens changes nothing."""
    with quiet():
        first, silent, again = (run_seed(seed, with_story=told) for told in (True, False, True))
    assert first.story == again.story
    assert len(first.story or ()) > 100
    assert first.counts == silent.counts


def test_a_seed_is_the_same_story_in_another_process() -> None:
    """With another hash seed, too: no order is left to chance."""
    told = [
        subprocess.run(
            [sys.executable, "-m", "tests.simulation", "17"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert told[0] == told[1]
    assert told[0].endswith(b"seed 17: no violation\n")


def test_a_range_prints_what_happened(capsys: pytest.CaptureFixture[str]) -> None:
    """Counts, and nothing to complain of: exit code 0."""
    assert main(["0", "3"]) == 0
    told = capsys.readouterr().out
    assert "3 schedules in" in told
    assert told.rstrip().endswith("0 with a violation")


def test_a_violation_is_printed_with_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    """With a safeguard off: exit code 1, the invariant, and a story that ends with it."""
    rule = "outbox line: nothing is ever done"
    assert main(["0", "4", "--off", rule]) == 1
    told = capsys.readouterr().out.splitlines()
    [seed, *_] = [line.split()[1].rstrip(":") for line in told if line.startswith("seed")]
    assert main([seed, "--off", rule]) == 1
    story = capsys.readouterr().out.splitlines()
    assert "VIOLATION" in "".join(story[-3:])
    assert story[-1].startswith(f"seed {seed}: I16: ended, and the gate was not told")


@pytest.mark.parametrize("arguments", [[], ["0", "1", "--off", "no such rule"], ["x"]])
def test_a_wrong_command_line_is_an_error_of_use(arguments: list[str]) -> None:
    """Exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
