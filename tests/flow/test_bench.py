"""The benchmark: it runs, it compares like with like, and it admits what it misses or cannot measure."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from loadtests.bench import points, presses
from loadtests.bench.processes import cpu_s, program
from loadtests.bench.table import Failed, Row, Target, document, table_text
from loadtests.bench.tokenfile import write_requests
from loadtests.bench.wrk import SCRIPT, Expected, load, read_output
from loadtests.service import free_port
from loadtests.tokens import Minter

ROOT = Path(__file__).parents[2]
QUICK = [sys.executable, "-m", "loadtests.bench", "--quick"]
MINTER = Minter("s" * 32, expires_at=4_000_000_000)
needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")

# A server whose third answer, and no other, is a 503: `sys.argv[1]` is its port.
MOSTLY_SOLD_OUT = """
import itertools, sys
from aiohttp import web
count = itertools.count(1)
async def answer(_):
    if next(count) == 3:
        return web.json_response({"code": "unavailable"}, status=503)
    return web.json_response({"code": "sold_out"}, status=409)
async def healthz(_):
    return web.Response()
app = web.Application()
app.router.add_get("/healthz", healthz)
app.router.add_post("/v1/drops/d/reservations", answer)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
"""


@needs_wrk
def test_quick_run_fills_every_row(tmp_path: Path) -> None:
    """`--quick` measures everything once: each row has figures, requests a second also ratio, latency and CPU."""
    done = subprocess.run(
        [*QUICK, "--json", str(tmp_path / "bench.json")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "bench.json").read_text())
    assert set(found["machine"]) == {"machine", "python", "valkey", "postgres"}
    assert "fsync on, synchronous_commit on" in found["machine"]["postgres"]
    rows = {row["name"].strip(): row for row in found["rows"]}
    assert len(rows) == len(found["rows"]) == 5 + 3 + 3 + 1
    for name, row in rows.items():
        assert row["figure"] > 0 or "gains" in name, name  # a process may gain nothing at all
        assert name in done.stdout
    compared = [row for row in found["rows"] if row["unit"] == "req/s"]
    assert [len(row["ratios"]) for row in compared] == [1] * 5
    assert compared[0]["ratios"] == [1.0]
    for row in compared:
        assert 0 < row["p50_ms"][0] <= row["p99_ms"][0]
        assert row["cpu_us"]["web"][0] > 0
        assert row["command"].startswith(shutil.which("wrk"))
    wins = rows["durable wins (fsync before the 201)"]
    assert wins["cpu_us"]["valkey"][0] > 0
    assert wins["cpu_us"]["postgres"][0] > 0
    assert compared[0]["command"] in done.stdout
    assert "quick look" in done.stdout
    assert {row["met"] for row in found["rows"]} == {None}


def test_missing_generator_is_told_before_anything_starts(tmp_path: Path) -> None:
    """Without wrk: one line that says how to get it, exit code 2, and nothing was started."""
    done = subprocess.run(
        QUICK, cwd=ROOT, env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "wrk is missing: install it (Debian: apt install wrk; macOS: brew install wrk)."
    ]


@needs_wrk
async def test_one_wrong_answer_voids_the_run(tmp_path: Path) -> None:
    """All answers but one are the expected ones: the run has failed, and says what the odd one was."""
    port = free_port()
    requests = write_requests(tmp_path / "requests.bin", MINTER, "d", 1_000_000_000, 60_000)
    command = [sys.executable, "-c", MOSTLY_SOLD_OUT, str(port)]
    url = f"http://127.0.0.1:{port}"
    async with program(command, environ=os.environ, log=tmp_path / "log", url=f"{url}/healthz"):
        with pytest.raises(Failed, match=r"^1 of \d+ answers .*503 .*unavailable"):
            await load(url, requests, presses.REFUSED, 1)
        measured = await load(url, requests, presses.REFUSED, 1)
        with pytest.raises(Failed, match=r"^(\d+) of \1 answers .*409 .*sold_out"):
            await load(url, requests, Expected(409, "paused"), 1)
        few = write_requests(tmp_path / "few.bin", MINTER, "d", 1_000_000_000, 100)
        with pytest.raises(Failed, match="too short"):
            await load(url, few, presses.REFUSED, 1)
    assert measured.requests > 0
    assert measured.rate == measured.requests / measured.seconds
    assert str(SCRIPT) in measured.command


def test_no_two_requests_are_of_one_member(tmp_path: Path) -> None:
    """A file holds whole requests of one length, each by another member with another token."""
    written = write_requests(tmp_path / "requests.bin", MINTER, "d", 1_000_000_000, 2_500)
    raw = written.path.read_bytes()
    requests = {raw[at : at + written.length_bytes] for at in range(0, len(raw), written.length_bytes)}
    assert len(requests) == written.number == 2_500
    assert len(raw) == 2_500 * written.length_bytes
    expected = MINTER.shopper(1_000_000_000 + 2_499).encode()
    assert sum(expected in request for request in requests) == 1
    with pytest.raises(ValueError, match="different lengths"):
        write_requests(tmp_path / "requests.bin", MINTER, "d", 999, 2)


def test_output_without_figures_is_a_failure() -> None:
    """When wrk itself fails, its own words are the reason."""
    with pytest.raises(Failed, match="unable to connect"):
        read_output("unable to connect to 127.0.0.1:1 Connection refused\n", "wrk …")


def test_missed_targets_are_told() -> None:
    """The judged figure is the median of the ratios where there are any; what missed says NO, and so does the JSON."""
    rows = [
        Row("base", "req/s", [100.0, 300.0], ratios=[1.0, 1.0]),
        Row("fast", "req/s", [90.0, 240.0], Target("at least", 0.8), ratios=[0.9, 0.8]),
        Row("slow", "req/s", [79.0, 270.0, 70.0], Target("at least", 0.8), ratios=[0.79, 0.9, 0.7]),
        Row("small", "MiB", [31.0], Target("at most", 32)),
        Row("large", "MiB", [33.0], Target("at most", 32)),
        Row("broken", "s", [1.0], Target("at most", 2), failed="it was not ready"),
    ]
    assert [row.met for row in rows] == [None, True, False, True, False, None]
    lines = table_text(rows).splitlines()
    assert [word for line in lines for word in ("yes", "NO", "FAILED") if word in line.split()] == [
        "yes", "NO", "yes", "NO", "FAILED",
    ]  # fmt: skip
    assert lines[-1].endswith("it was not ready")
    assert [row["met"] for row in json.loads(document(rows, {}, {}))["rows"]] == [None, True, False, True, False, None]


async def test_processor_time_of_ended_children_counts() -> None:
    """What a child has used is not forgotten when it ends: a pool that replaces its processes hides nothing."""
    script = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(10**7))']); "
        "print(flush=True); sys.stdin.read()"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    own = psutil.Process(process.pid).cpu_times()
    used_s = cpu_s(process.pid)
    await process.communicate(b"")
    assert used_s > own.user + own.system + 0.05


def test_points_file_is_what_the_contract_asks_for(tmp_path: Path) -> None:
    """Header, one line a member, everyone with points enough."""
    points.write_points(tmp_path / "points.csv", range(1, 25_001))
    lines = (tmp_path / "points.csv").read_text().splitlines()
    assert lines[0] == "member_id,points"
    assert [int(line.split(",")[0]) for line in lines[1:]] == list(range(1, 25_001))
    assert min(int(line.split(",")[1]) for line in lines[1:]) >= points.POINTS_MIN
