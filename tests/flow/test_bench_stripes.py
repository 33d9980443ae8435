"""The benchmark of stripes: it runs, it counts what was answered, and it says what the busiest primary allows."""

import re

import pytest
from redis.crc import key_slot

from flashsale.domain import home_stripe
from flashsale.gate import keys
from loadtests.bench.stripes import SLOTS, Measured, main, spread_name, table


def test_ratios_are_to_the_fewest_stripes_and_bounds_of_the_busiest_primary() -> None:
    """Each kind by itself; medians of the rounds."""
    one = Measured("wins", 1, [1_000.0, 1_200.0, 5_000.0], [[20.0, 1.0], [10.0, 1.0], [10.0, 1.0]], [50.0])
    two = Measured("wins", 2, [1_800.0], [[4.0, 3.0]], [70.0])
    other = Measured("refusals", 2, [10.0], [[5.0, 5.0]], [70.0])
    lines = [line.split() for line in table([one, two, other]).splitlines()[1:]]
    assert [line[:6] for line in lines] == [
        ["wins", "1", "1,200", "1.00", "100,000", "1.00"],
        ["wins", "2", "1,800", "1.50", "250,000", "2.50"],
        ["refusals", "2", "10.0", "1.00", "200,000", "1.00"],
    ]
    assert lines[1][6:] == ["70.0", "7.00", "4.00,", "3.00"]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_stripes_of_a_measured_drop_are_on_different_primaries(count: int) -> None:
    """Else one of them would have the work of two."""
    name = spread_name("wins", count, 4)
    slots = [key_slot(keys.stripe(name, stripe).meta.encode()) for stripe in range(count)]
    assert len({slot * 4 // SLOTS for slot in slots}) == count
    assert {home_stripe(member, count) for member in range(1, 200)} == set(range(count))


def test_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    """A short run over a cluster of its own: every primary that has a stripe has work, the others hardly any."""
    options = ["--stripes", "1", "3", "--rounds", "1", "--seconds", "0.5", "--clients", "1"]
    assert main(options) == 0
    told = capsys.readouterr()
    assert told.err.splitlines()[-1] == "round 1: wins, 3"
    rows = [re.split(r"\s{2,}", line) for line in told.out.splitlines() if line.startswith(("wins", "refusals"))]
    assert [row[:2] for row in rows] == [["refusals", "1"], ["refusals", "3"], ["wins", "1"], ["wins", "3"]]
    for row in rows:
        each = [float(us) for us in row[-1].split(", ")]
        assert float(row[2].replace(",", "")) > 1
        assert (each[2] > each[0] / 4) is (row[1] == "3"), row


def test_a_wrong_command_line_is_an_error_of_use() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--stripes", "0"])
    assert ended.value.code == 2
