"""The noon rush's own machinery: who presses in which order, what is counted, what it costs, what must be true."""

import asyncio
import json
import mmap
import os
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import psutil
import pytest

from loadtests import replay
from loadtests.footprint import Footprint, Sample, look, named_of
from loadtests.part import JOURNAL_REFUSALS_EACH, Heard, Opening, Part, Told, order
from loadtests.rush import bar
from loadtests.rushed import Plan, Rushed, as_json, by_second, histogram_text, text_of

PLAN = Plan(
    contenders=100, units=10, http=False, processes=2, outstanding=8, group=4, seed=1, lead_s=1.0
)  # fmt: skip
PART = Part(
    drop="noon", number=0, parts=2, contenders=100, seed=1, outstanding=8, group=4, url="", redis_url="",
    database_url="", secret="", journal="",
)  # fmt: skip
SHARED_BYTES = 64 << 20


def true_told() -> list[Told]:
    """What two parts tell of a rush in which all is well."""
    return [
        Told(done=True, heard={"held": [4, 1], "sold_out": [0, 45]}, early={"not_open": 3}, last_win_s=1.5,
             first_refusal_s=1.2, last_verdict_s=1.9, first_created_s=0.002),
        Told(done=True, heard={"held": [5], "sold_out": [0, 20, 25]}, last_win_s=0.8, first_refusal_s=1.1,
             last_verdict_s=2.5, first_created_s=0.004),
    ]  # fmt: skip


def rushed(told: list[Told]) -> Rushed:
    """A rush of which this was told, judged."""
    footprint = Footprint({"valkey": 1, "postgres": 2})
    footprint.samples += [
        Sample(10.0, {"valkey": 100, "postgres": 900}, {"valkey": 1.0, "postgres": 5.0}),
        Sample(12.0, {"valkey": 400, "postgres": 500}, {"valkey": 3.0, "postgres": 5.0}),
    ]
    found = Rushed(PLAN, "noon", told, footprint, 10.5)
    found.judge()
    return found


def test_everybody_presses_once_in_an_order_that_the_seed_decides() -> None:
    parts = [msgspec.structs.replace(PART, number=number) for number in range(2)]
    first, second = (list(order(part)) for part in parts)
    assert sorted(first + second) == list(range(1, 101))
    assert sorted(first) == list(range(1, 101, 2))
    assert first != sorted(first)
    assert list(order(PART)) == first
    assert list(order(msgspec.structs.replace(PART, seed=2))) != first
    assert isinstance(order(PART), array)  # four bytes a member


def test_seconds_of_all_parts_are_added_and_none_is_lost() -> None:
    """Parts end at different times; words that only one of them heard count as well."""
    counts = by_second([*true_told(), Told(heard={"again": [0, 0, 0, 1]})])
    assert counts == {"again": [0, 0, 0, 1], "held": [9, 1, 0, 0], "sold_out": [0, 65, 25, 0]}
    assert list(counts) == ["again", "held", "sold_out"]
    assert by_second([Told(), Told()]) == {}


def test_a_histogram_has_a_line_a_second_and_bars_that_can_be_compared() -> None:
    lines = histogram_text({"held": [1_500, 0], "sold_out": [1_500, 1_500]}).splitlines()
    assert lines == [
        "second        held    sold_out",
        "     0       1,500       1,500  " + 30 * "█",
        "     1           0       1,500  " + 15 * "█",
    ]
    assert histogram_text({}) == "nobody heard a verdict\n"


def test_figures_are_those_of_all_parts() -> None:
    found = rushed(true_told())
    assert found.contradiction is None
    told = json.loads(as_json(found))
    assert (told["wins"], told["refusals"], told["errors"], told["true"]) == (10, 90, 0, True)
    assert (told["sold_out_s"], told["last_verdict_s"], told["sold_out_to_last_verdict_s"]) == (1.5, 2.5, 1.0)
    assert told["wins_a_second"] == pytest.approx(10 / 1.5)
    assert told["refusals_a_second"] == pytest.approx(90 / (2.5 - 1.1))
    assert told["memory_peak_bytes"] == {"valkey": 400, "postgres": 900, "all": 1_000}
    assert told["cpu_s"] == {"valkey": pytest.approx(1.5), "postgres": 0.0}
    assert told["cpu_until_sold_out_s"] == {"valkey": pytest.approx(1.5), "postgres": 0.0}
    text = text_of(found)
    for line in ("opening to sold out                     1.50 s", "sold out to the last verdict            1.00 s"):
        assert line in text
    assert text.endswith("The audit is true.\n")


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (Told(heard={"held": [5], "sold_out": [44]}), "everyone heard a verdict: 1 heard none"),
        (Told(heard={"held": [4], "sold_out": [46]}), "10 sold: 9 units were sold instead of 10"),
        (Told(heard={"held": [6], "sold_out": [44]}), "10 sold: 11 units were sold instead of 10"),
        (Told(heard={"held": [5], "sold_out": [44], "closed": [1]}), "who did not win heard sold_out: 1 met closed"),
        (
            Told(heard={"held": [5], "sold_out": [45]}, faults={"KeyError: 7": 2}),
            "who did not win heard sold_out: 2 met KeyError: 7",
        ),
        (
            Told(heard={"held": [5], "sold_out": [45]}, first_created_s=-0.25),
            "nothing was given before the opening: a unit was written down 0.250 s before the opening",
        ),
    ],
)
def test_what_must_not_be_is_said(told: Told, says: str) -> None:
    found = rushed([true_told()[0], told])
    assert found.contradiction == says
    assert json.loads(as_json(found))["true"] is False
    assert text_of(found).endswith(f"The audit is NOT true: {says}\n")


async def test_what_is_heard_is_counted_by_its_second_and_wins_are_written_down(tmp_path: Path) -> None:
    """Of refusals the journal has the first, and one of each so many; of wins all."""
    journal = tmp_path / "journal.jsonl"
    opening = Opening(opens_at_s=time.time() - 100.0, hold_s=900)
    with Heard("noon", opening, journal) as heard:
        at = heard.opens_at
        heard.not_open(7, sent_at=at - 0.5, at=at - 0.4)
        heard.not_open(7, sent_at=at + 0.1, at=at + 0.2)
        heard.won(7, "held", "id-7", opening.opens_at_s + 900.25, sent_at=at, at=at + 1.5)
        heard.won(8, "again", "id-8", opening.opens_at_s + 900.75, sent_at=at, at=at + 0.5)
        for number in range(3):
            heard.refused("sold_out", JOURNAL_REFUSALS_EACH // 2, 100 + number, sent_at=at, at=at + number)
        heard.repeat("Overloaded", 4)
        heard.fault("KeyError: 1", 2)
        heard.tell(done=True)
    told = heard.told
    assert told.heard == {"held": [0, 1], "again": [1], "sold_out": [JOURNAL_REFUSALS_EACH // 2] * 3}
    assert (told.early, told.repeated) == ({"not_open": 1}, {"not_open": 1, "Overloaded": 4})
    assert (told.faults, told.done) == ({"KeyError: 1": 2}, True)
    assert (told.last_win_s, told.last_verdict_s, told.first_refusal_s) == pytest.approx((1.5, 2.0, 0.0))
    assert told.first_created_s == pytest.approx(0.25, abs=1e-3)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [(line["member"], line["status"]) for line in lines] == [
        *((7, 403), (7, 403), (7, 201), (8, 200), (100, 409), (102, 409)),
    ]
    assert (lines[2]["reservation"], lines[2]["in"], lines[2]["drop"]) == ("id-7", "all", "noon")
    assert lines[2]["heard_at"] - lines[2]["sent_at"] == pytest.approx(1.5, abs=1e-3)
    assert lines[2]["sent_at"] == pytest.approx(opening.opens_at_s, abs=0.05)


def test_a_bar_tells_how_far_everybody_is() -> None:
    assert bar({}, PLAN, -0.75) == "opens in 0.8 s"
    assert bar({"held": [10], "sold_out": [0, 40]}, PLAN, 1.6) == (
        15 * "█" + 15 * "░" + " 50 of 100 have their verdict, 10 of 10 units sold, 2 s"
    )


def test_a_process_belongs_to_the_nearest_above_it_that_has_a_name() -> None:
    parents = {10: 1, 11: 10, 12: 11, 20: 12, 30: 30}
    named = {10: "up", 12: "postgres"}
    assert [named_of(pid, parents, named) for pid in (10, 11, 12, 20)] == ["up", "up", "postgres", "postgres"]
    assert [named_of(pid, parents, named) for pid in (1, 30, 99)] == [None, None, None]


def test_peaks_are_of_each_and_of_all_at_a_time_and_processor_time_of_a_stretch() -> None:
    footprint = rushed(true_told()).footprint
    assert footprint.peaks() == {"valkey": 400, "postgres": 900}
    assert footprint.peak == 1_000
    assert footprint.used_s(10.0, 12.0) == {"valkey": 2.0, "postgres": 0.0}
    assert footprint.used_s(11.0, 11.5) == {"valkey": pytest.approx(0.5), "postgres": 0.0}
    assert footprint.used_s(0.0, 99.0) == {"valkey": 2.0, "postgres": 0.0}


async def test_samples_are_taken_from_the_beginning_to_the_end_of_the_block() -> None:
    """However short it is: what was done in it is between the first and the last."""
    clock = iter(range(100))

    def look_at(_: Mapping[str, int]) -> Sample:
        at = float(next(clock))
        return Sample(at, {"a": 1}, {"a": at})

    footprint = Footprint({"a": 1}, look_at)
    async with footprint.watched():
        async with asyncio.timeout(60):
            while not footprint.samples:
                await asyncio.sleep(0)
    assert [sample.at for sample in footprint.samples] == [0.0, 1.0]


@pytest.fixture
def sharers(tmp_path: Path) -> Iterator[list[int]]:
    """Two processes under one, all three with the same pages in memory, as sessions have Postgres' buffers."""
    program = f"""
import mmap, os, sys, time
pages = mmap.mmap(-1, {SHARED_BYTES})
pages.write(b"x" * {SHARED_BYTES})
for _ in range(2):
    if os.fork() == 0:
        pages.seek(0); pages.read({SHARED_BYTES})
        os.write(1, b"+")
        sys.stdin.read()
        os._exit(0)
sys.stdin.read()
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.read(2) == b"++"
    yield [process.pid, *(child.pid for child in psutil.Process(process.pid).children())]
    process.stdin.close()
    process.stdout.close()
    process.wait(timeout=30)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="this system tells no proportional memory")
def test_memory_that_processes_share_is_counted_once(sharers: list[int]) -> None:
    """The sum of what is resident has it three times; what is said of the family has it once."""
    resident = sum(psutil.Process(pid).memory_info().rss for pid in sharers)
    found = look({"family": sharers[0]}).memory["family"]
    assert resident > 3 * SHARED_BYTES
    assert SHARED_BYTES < found < 1.6 * SHARED_BYTES
    apart = look({"family": sharers[0], "child": sharers[1]}).memory
    assert SHARED_BYTES / 4 < apart["child"] < SHARED_BYTES / 2
    assert sum(apart.values()) == pytest.approx(found, rel=0.05)


def test_a_process_that_is_gone_has_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(timeout=30)
    assert look({"gone": process.pid}).memory == {"gone": 0}
    assert look({"self": os.getpid()}).cpu_s["self"] > 0
    assert look({"self": os.getpid()}).memory["self"] > mmap.PAGESIZE


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--contenders", "0"], "'0' is no number of them"),
        (["--contenders", "1.5"], "'1.5' is no number of them"),
        (["--contenders", "4294967296"], "--contenders is at most 4,294,967,295"),
        (["--units", "many"], "'many' is no number of them"),
        (["--contenders", "10", "--units", "10"], "10 contenders for 10 units are no rush"),
        (["--contenders", "100", "--units", "9", "--http"], "give --units 10 or more"),
        (["--contenders", "3", "--units", "2", "--processes", "4"], "4 processes cannot share 3 contenders"),
        (["--group", "1025"], "--group is at most 1024"),
        (["--workers", "2"], "without --http nobody presses there"),
        (["--lead-seconds", "nan"], "'nan' is no time"),
        (["--members", "x.csv"], "unrecognized arguments: --members x.csv"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_started(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        replay.main(["noon-rush", *arguments])
    told = capsys.readouterr()
    assert (ended.value.code, told.out) == (2, "")
    assert says in told.err
    assert "Starting a service" not in told.err


def test_the_edition_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        replay.main(["--members", "x.csv", "noon-rush"])
    assert ended.value.code == 2
    assert "noon-rush comes first" in capsys.readouterr().err
