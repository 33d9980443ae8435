"""What the rows of a quick look at the benchmark must say of each other, however slow the machine is."""

import json
from pathlib import Path
from typing import Any

import pytest

from loadtests.bench import growth, overload, sizing

Rows = dict[str, dict[str, Any]]
LESS = {
    "refusals, combining off: one call a request": "refusals (sold out)",
    "durable wins, combining off": "durable wins (fsync before the 201)",
    "refusals, Redis off: Postgres alone decides, in batches": "refusals (sold out)",
    "durable wins, Redis off": "durable wins (fsync before the 201)",
    "wins, fsync and synchronous_commit off": "durable wins (fsync before the 201)",
    "refusals, uvloop off: asyncio's own loop": "refusals (sold out)",
    "durable wins, uvloop off": "durable wins (fsync before the 201)",
}


def check_what_is_left_out(rows: Rows) -> None:
    """With one thing less: each has its ratio to the shipped product, which has its own to batches of one."""
    for name, shipped in LESS.items():
        ratio = rows[name]["samples"][0] / rows[shipped]["samples"][0]
        assert rows[name]["others"] == {"shipped": [pytest.approx(ratio)]}, name
        if "combining" in name:
            assert rows[shipped]["others"] == {"plain": [pytest.approx(1 / ratio)]}
    assert "valkey" not in rows["durable wins, Redis off"]["cpu_us"]
    assert rows["refusals, Redis off: Postgres alone decides, in batches"]["cpu_us"]["postgres"][0] > 0
    same = rows["the same, whatever an empty handler does"]
    assert same["samples"] == rows["durable wins (fsync before the 201)"]["samples"]


def check_crowds(rows: Rows) -> None:
    """Every overload ended with all units sold (or its rows had failed), and the flatness is of the outermost two."""
    for times in overload.LEVELS:
        verdicts = rows[f"overload, {times} members a unit: verdicts"]
        assert verdicts["note"] == f"{times * overload.QUICK_UNITS:,} members"
        assert f"-c{overload.CONNECTIONS} " in verdicts["command"]
        assert 0 < verdicts["p99_ms"][0] <= verdicts["p999_ms"][0] <= verdicts["max_ms"][0]
        assert rows[f"p99 of a verdict, {times} members a unit"]["samples"] == verdicts["p99_ms"]
        assert verdicts["cpu_us"]["web"][0] > 0
    few, many = (f"{times} members a unit" for times in (overload.LEVELS[0], overload.LEVELS[-1]))
    for what, of in (("overload, {}: verdicts", "verdicts"), ("durable wins until all was sold, {}", "wins")):
        least, most = (rows[what.format(crowd)]["samples"][0] for crowd in (few, many))
        flat = rows[f"{of} a second, {many} to {overload.LEVELS[0]}"]
        assert flat["samples"] == [pytest.approx(most / least)]
    one, batch = (rows[f"one allocation's row: wins committed {how}"] for how in ("one by one", "512 at a time"))
    assert batch["samples"][0] > one["samples"][0]
    press = rows["a press on the wire"]
    assert press["samples"][0] > float(press["note"].split()[0]) > 250  # a token alone has some 150


def check_growth(rows: Rows) -> None:
    """Each size has its processor time, and its ratio to the smallest, which has none but its own."""
    for what, sizes in (
        ("eligible members, dense ids", growth.ELIGIBLE),
        ("units, all of them sold", growth.UNITS),
    ):
        found = [rows[f"gate, a decision: {size:,} {what}"] for size in sizes[: growth.QUICK]]
        assert found[0]["others"] == {"smallest": [1.0]}
        for row in found[1:]:
            [ratio] = row["others"]["smallest"]
            assert 0.1 < ratio < 10
    holder = rows["a holder of a unit, in the gate of the last"]
    assert 50 < holder["figure"] < 500


def check_sizing(measured: Path, page: Path) -> None:
    """The sizing takes all its costs from what was just measured, and says that they were a quick look."""
    page.write_text(f"before\n\n{sizing.BEGIN}\nold\n{sizing.END}\n\nafter\n")
    assert sizing.main(["--json", str(measured), "--write", str(page)]) == 0
    text = page.read_text()
    assert text.startswith(f"before\n\n{sizing.BEGIN}\n\nMeasured on: ")
    assert text.endswith(f"{sizing.END}\n\nafter\n")
    assert "old" not in text.split()
    assert "these figures say nothing" in text
    costs = sizing.Costs.read(json.loads(measured.read_text()))
    assert min(costs) > 0
