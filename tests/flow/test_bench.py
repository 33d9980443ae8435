"""The benchmark: it runs, it compares like with like, and it admits what it misses or cannot measure."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from flashsale import embedded
from loadtests.api import Api
from loadtests.bench import codes, confirms, contest, customers, forged, minting, points
from loadtests.bench.contest import Contestant, Members
from loadtests.bench.house import FCODE_KEYS, House
from loadtests.bench.processes import cpu_s, program
from loadtests.bench.table import Failed, Row, Target, document, table_text
from loadtests.bench.tokenfile import Hold, write_confirms, write_presses
from loadtests.bench.wrk import CONNECTIONS, SCRIPT, Expected, load, load_all, read_output
from loadtests.service import Service, free_port
from loadtests.tokens import Minter
from tests.flow import bench_rows

ROOT = Path(__file__).parents[2]
QUICK = [sys.executable, "-m", "loadtests.bench", "--quick"]
MINTER = Minter("s" * 32, expires_at=4_000_000_000)
WAITING = ("durable wins, no order waiting", "durable wins, 500 orders waiting", "their ratio")
FORGED = ("forged F-codes, from one address", "forged F-codes, no limit by address")
READING = (
    "F-codes read and verified, one process",
    "bare hmac.digest of 9 bytes, one process",
    "the first to the second",
)
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
@pytest.mark.long
@pytest.mark.timeout(600)
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
    assert len(rows) == len(found["rows"]) == 14 + 11 + 2 + 3 + 1 + 3 + 7 + 3 + 3 + 1 + 3 + 4 + 2 + 1
    for name, row in rows.items():
        assert row["figure"] > 0 or "gains" in name, name  # a process may gain nothing at all
        assert name in done.stdout
    pressed = [row for row in found["rows"] if row["unit"] == "req/s"]
    compared = [row for row in pressed if row["ratios"]]
    assert [len(row["ratios"]) for row in compared] == [1] * 13
    assert compared[0]["ratios"] == [1.0]
    assert len(pressed) == 13 + 2
    for row in pressed:
        assert 0 < row["p50_ms"][0] <= row["p99_ms"][0] <= row["p999_ms"][0] <= row["max_ms"][0]
        assert row["cpu_us"]["web"][0] > 0
        assert row["command"].startswith(shutil.which("wrk"))
    wins = rows["durable wins (fsync before the 201)"]
    assert wins["cpu_us"]["valkey"][0] > 0
    assert wins["cpu_us"]["postgres"][0] > 0
    confirms = rows["durable confirms, each with its order's job"]
    assert confirms["cpu_us"]["postgres"][0] > 0
    assert re.fullmatch(r"\d+\.\d\d of durable wins", confirms["note"])
    none, many, share = (rows[name] for name in WAITING)
    assert share["samples"] == [pytest.approx(many["samples"][0] / none["samples"][0])]
    delivery = rows["delivery of 200 waiting orders, one worker"]
    assert min(delivery["cpu_us"][name][0] for name in ("worker", "postgres")) > 0
    calls = r"Redis calls a second: [\d.,]+ \([\d.,]+ at rest\), with those inside scripts [\d.,]+ \([\d.,]+\)"
    split = r"(\d+) of [\d,]+ fcode_invalid, the others rate_limited; "
    one, many = (rows[name] for name in FORGED)
    assert (limit := re.fullmatch(split + calls, one["note"])), one["note"]
    assert int(limit[1]) in {20, 40}  # the address' limit, in one window or in two
    assert re.fullmatch(calls, many["note"])
    read, bare, share = (rows[name] for name in READING)
    each = zip(read["samples"], bare["samples"], strict=True)
    assert share["samples"] == [pytest.approx(mine / theirs) for mine, theirs in each]
    assert compared[0]["command"] in done.stdout
    bench_rows.check_what_is_left_out(rows)
    bench_rows.check_crowds(rows)
    bench_rows.check_growth(rows)
    bench_rows.check_sizing(tmp_path / "bench.json", tmp_path / "page.md")
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
    requests = write_presses(tmp_path / "requests.bin", MINTER, "d", 1_000_000_000, 60_000)
    command = [sys.executable, "-c", MOSTLY_SOLD_OUT, str(port)]
    url = f"http://127.0.0.1:{port}"
    async with program(command, environ=os.environ, log=tmp_path / "log", url=f"{url}/healthz"):
        with pytest.raises(Failed, match=r"^1 of \d+ answers .*503 .*unavailable"):
            await load(url, requests, contest.REFUSED, 1)
        measured = await load(url, requests, contest.REFUSED, 1)
        with pytest.raises(Failed, match=r"^(\d+) of \1 answers .*409 .*sold_out"):
            await load(url, requests, Expected(409, "paused"), 1)
        few = write_presses(tmp_path / "few.bin", MINTER, "d", 1_000_000_000, 100)
        with pytest.raises(Failed, match="too short"):
            await load(url, few, contest.REFUSED, 1)
    assert measured.requests > 0
    assert measured.rate == measured.requests / measured.seconds
    assert str(SCRIPT) in measured.command


@needs_wrk
async def test_every_request_of_a_file_has_its_answer_when_that_is_asked(tmp_path: Path) -> None:
    """The run ends with the last answer, not with the time; an odd answer among them still voids it."""
    port = free_port()
    requests = write_presses(tmp_path / "requests.bin", MINTER, "d", 1_000_000_000, 701)
    command = [sys.executable, "-c", MOSTLY_SOLD_OUT, str(port)]
    url = f"http://127.0.0.1:{port}"
    async with program(command, environ=os.environ, log=tmp_path / "log", url=f"{url}/healthz"):
        all_of_them = await load_all(url, requests, Expected(503, "unavailable", (409, "sold_out")), connections=100)
        with pytest.raises(Failed, match=r"^700 of 700 answers .*409 .*sold_out"):
            await load_all(url, requests, Expected(409, "paused"), connections=100)
    assert (all_of_them.requests, all_of_them.first, all_of_them.second) == (700, 1, 699)
    assert 0 < all_of_them.first_s < all_of_them.seconds < 60
    assert 0 < all_of_them.p50_ms <= all_of_them.max_ms <= all_of_them.seconds * 1_000


@needs_wrk
async def test_answers_of_the_second_kind_are_expected_and_counted(tmp_path: Path) -> None:
    """Where two kinds of answer are right, how many were of the second is told; a third kind still voids the run."""
    port = free_port()
    requests = write_presses(tmp_path / "requests.bin", MINTER, "d", 1_000_000_000, 60_000)
    command = [sys.executable, "-c", MOSTLY_SOLD_OUT, str(port)]
    url = f"http://127.0.0.1:{port}"
    async with program(command, environ=os.environ, log=tmp_path / "log", url=f"{url}/healthz"):
        both = await load(url, requests, Expected(503, "unavailable", (409, "sold_out")), 1)
        with pytest.raises(Failed, match=r"^(\d+) of \1 answers .*409 .*sold_out"):
            await load(url, requests, Expected(503, "unavailable", (409, "paused")), 1)
    assert both.second == both.requests - 1 > 1


def test_no_two_requests_are_of_one_member(tmp_path: Path) -> None:
    """A file holds whole requests of one length, each by another member with another token."""
    written = write_presses(tmp_path / "requests.bin", MINTER, "d", 1_000_000_000, 2_500)
    raw = written.path.read_bytes()
    requests = {raw[at : at + written.length_bytes] for at in range(0, len(raw), written.length_bytes)}
    assert len(requests) == written.number == 2_500
    assert len(raw) == 2_500 * written.length_bytes
    expected = MINTER.shopper(1_000_000_000 + 2_499).encode()
    assert sum(expected in request for request in requests) == 1
    with pytest.raises(ValueError, match="another length"):
        write_presses(tmp_path / "requests.bin", MINTER, "d", 999, 2)


def test_no_two_confirms_are_of_one_hold(tmp_path: Path) -> None:
    """Each hold is confirmed once, by the member whose it is."""
    holds = [Hold(1_000_000_000 + n, str(uuid.UUID(int=n))) for n in range(100)]
    written = write_confirms(tmp_path / "requests.bin", MINTER, holds)
    raw = written.path.read_bytes()
    assert len(raw) == written.number * written.length_bytes
    requests = [raw[at : at + written.length_bytes].decode() for at in range(0, len(raw), written.length_bytes)]
    for request, hold in zip(requests, holds, strict=True):
        assert request.startswith(f"POST /v1/reservations/{hold.reservation}/confirm HTTP/1.1\r\n")
        assert f"Bearer {MINTER.shopper(hold.member)}\r\n" in request
        assert request.endswith("Content-Length: 0\r\n\r\n")


@dataclass
class Liar:
    """A service that holds and confirms whatever it is asked to, and remembers nothing of it but who asked."""

    sold_out_after: int = sys.maxsize
    asked: list[str] = field(default_factory=list)
    ring: str = field(default_factory=codes.new_ring)
    exported: Callable[[list[str]], list[str]] = list

    async def reserve(self, request: web.Request) -> web.Response:
        self.asked.append(request.headers["Authorization"])
        if len(self.asked) > self.sold_out_after:
            return web.json_response({"code": "sold_out"}, status=409)
        return web.json_response({"id": str(uuid.uuid4()), "state": "held"}, status=201)

    async def create(self, _: web.Request) -> web.Response:
        return web.json_response({}, status=201)

    async def mint(self, request: web.Request) -> web.Response:
        return web.json_response({"batch": "7", "count": (await request.json())["count"]}, status=201)

    async def export(self, _: web.Request) -> web.Response:
        genuine = list(codes.genuine(self.ring, "7", range(100)))
        return web.Response(text="".join(f"{line}\n" for line in ("code", *self.exported(genuine))))

    async def balance(self, _: web.Request) -> web.Response:
        taken = {"held": len(self.asked), "confirmed": 0}
        return web.json_response({"balanced": True, "allocations": [taken]})

    @contextlib.asynccontextmanager
    async def house(self, folder: Path, database_url: str = "") -> AsyncIterator[House]:
        """As the benchmark sees it."""
        app = web.Application()
        app.router.add_post("/v1/drops/{drop}/reservations", self.reserve)
        app.router.add_post("/v1/ops/drops", self.create)
        app.router.add_get("/v1/ops/drops/{drop}/balance", self.balance)
        app.router.add_post("/v1/ops/drops/{drop}/allocations/all/fcodes", self.mint)
        app.router.add_get("/v1/ops/fcodes/7.csv", self.export)
        async with TestServer(app) as server, aiohttp.ClientSession() as session:
            at = Service(str(server.make_url("")).rstrip("/"), "s" * 32, None, database_url)
            pids = dict.fromkeys(("web", "valkey", "postgres"), os.getpid())
            yield House(at, Api(session, at.url), session, MINTER, pids, folder, {FCODE_KEYS: self.ring})


async def test_customers_who_prepare_are_all_served_or_it_is_told(tmp_path: Path) -> None:
    """As many holds as members, each one's own; one odd answer, and the preparation has failed."""
    async with Liar().house(tmp_path) as house:
        holds = await customers.reserve(house.at.url, MINTER, "d", range(1, 1_001))
    assert sorted(hold.member for hold in holds) == list(range(1, 1_001))
    assert len({hold.reservation for hold in holds}) == 1_000
    async with Liar(sold_out_after=999).house(tmp_path) as house:
        with pytest.raises(Failed, match=r"member \d+ was answered 409 .*sold_out"):
            await customers.reserve(house.at.url, MINTER, "d", range(1, 1_001))


async def test_no_hold_is_confirmed_in_two_runs(tmp_path: Path) -> None:
    """The next file begins after the holds that were answered, and after those that may have been under way."""
    liar = Liar()
    async with liar.house(tmp_path) as house:
        holds = confirms.Holds(house, Members(1_000_000_000))
        files = []
        for answered in (500, 0):
            written = await holds.prepare(1_000)
            raw = written.path.read_bytes()
            files.append([raw[at : at + written.length_bytes] for at in range(0, len(raw), written.length_bytes)])
            holds.sent(answered)
    assert [len(requests) for requests in files] == [1_000, 1_000]
    under_way = CONNECTIONS + 1
    assert files[0][500 + under_way :] == files[1][: 500 - under_way]
    assert len({*files[0], *files[1]}) == len(liar.asked) == holds.made == 1_500 + under_way


async def test_confirms_that_nobody_wrote_down_void_their_row(tmp_path: Path, urls: embedded.Servers) -> None:
    """A service answers every confirm, and the ledger knows of none: the row fails, and says so."""
    async with Liar().house(tmp_path, urls.database_url) as house:
        each = await confirms.contestant(house, Members(1_000_000_000))
        assert each.check is not None
        await each.check()
        each.answered, each.runs = 70, 1
        with pytest.raises(Failed, match="70 confirms were answered, the ledger has 0"):
            await each.check()


async def test_a_flood_that_got_anything_or_locked_out_a_holder_voids_its_row(tmp_path: Path) -> None:
    """After the flood one genuine code is honoured, and its unit is the only one taken; else the row fails."""
    for liar, wrong in (
        (Liar(), None),
        (Liar(asked=["a forger was served"]), "and 2 units are taken"),
        (Liar(sold_out_after=0), "a genuine one was answered 409"),
    ):
        async with liar.house(tmp_path) as house:
            calls = forged.Calls("")
            calls.seconds = 1.0
            flood = forged.Flood(house, "d", "7", Members(1_000_000_000), calls, calls)
            each = Contestant(Row("flood", "req/s"), house.at.url, {}, forged.INVALID, flood.prepare)
            with pytest.raises(Failed, match=wrong) if wrong else contextlib.nullcontext():
                await flood.check(each)


async def test_an_export_that_is_not_the_minted_codes_is_a_failure(tmp_path: Path) -> None:
    """One code too few, one twice, one altered: as many codes a second as you like, the row fails."""
    lies: dict[str, Callable[[list[str]], list[str]]] = {
        "has 100 lines": lambda right: right[1:],
        "is not those codes": lambda right: [right[1], *right[1:]],
        "and is not": lambda right: [*right[:-1], right[-1][:-1] + "-"],
    }
    async with Liar().house(tmp_path) as house:
        assert await minting.mint_and_export(house, 100) > 0
    for wrong, lie in lies.items():
        async with Liar(exported=lie).house(tmp_path) as house:
            with pytest.raises(Failed, match=wrong):
                await minting.mint_and_export(house, 100)


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
        Row("absolute", "req/s", [4_999.0], Target("at least", 5_000, absolute=True), ratios=[0.99]),
        Row("small", "MiB", [31.0], Target("at most", 32)),
        Row("large", "MiB", [33.0], Target("at most", 32)),
        Row("broken", "s", [1.0], Target("at most", 2), failed="it was not ready"),
    ]
    assert [row.met for row in rows] == [None, True, False, False, True, False, None]
    lines = table_text(rows).splitlines()
    assert [word for line in lines for word in ("yes", "NO", "FAILED") if word in line.split()] == [
        "yes", "NO", "NO", "yes", "NO", "FAILED",
    ]  # fmt: skip
    assert lines[-1].endswith("it was not ready")
    assert [row["met"] for row in json.loads(document(rows, {}, {}))["rows"]] == [row.met for row in rows]


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
