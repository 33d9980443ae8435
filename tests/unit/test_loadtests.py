"""The load tools themselves: a customer that presses honestly and an auditor that can say no.

The shop in here imitates the contract's answers, faults and lies on demand; it tests the tools, never the product.
"""

import asyncio
import contextlib
import csv
import io
import json
import re
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from loadtests import replay
from loadtests.api import rfc3339, unix_s
from loadtests.errors import SetupError
from loadtests.report import as_json, audit_text, round_text
from loadtests.sale import ENGINEERING_EDITION, Replay
from loadtests.service import Service, free_port, running, started

SECRET = "a secret of at least thirty-two bytes"
REAL_MEMBERS = Path(__file__).parents[3] / "shared" / "data" / "forum_members.csv"
SMALL = replace(ENGINEERING_EDITION, units=5)


@dataclass
class Shop:
    """A shop for the load tools' own tests: `fault` breaks its answers, `lie` makes what it says untrue."""

    fault: str = ""
    lie: str = ""
    points: dict[int, int] = field(default_factory=dict)
    drop: dict[str, Any] = field(default_factory=dict)
    held: dict[int, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    sold: Counter[str] = field(default_factory=Counter)
    early: int = 0
    transports: set[int] = field(default_factory=set)
    journal: Path = Path()

    def app(self) -> web.Application:
        """The routes that a replay needs."""
        app = web.Application()
        app.router.add_post("/v1/ops/points", self.import_points)
        app.router.add_post("/v1/ops/drops", self.create)
        app.router.add_get("/v1/drops/{drop}", self.show)
        app.router.add_get("/v1/ops/drops/{drop}/balance", self.balance)
        app.router.add_post("/v1/drops/{drop}/reservations", self.reserve)
        return app

    def claims(self, request: web.Request) -> dict[str, Any]:
        """What the request's token says."""
        token = request.headers["Authorization"].removeprefix("Bearer ")
        found: dict[str, Any] = jwt.decode(token, SECRET, algorithms=["HS256"], options={"require": ["exp"]})
        return found

    async def import_points(self, request: web.Request) -> web.Response:
        """Keep the points."""
        assert self.claims(request)["role"] == "ops"
        rows = csv.reader(io.StringIO(await request.text()))
        assert next(rows)[:2] == ["member_id", "points"]
        self.points = {int(row[0]): int(row[1]) for row in rows}
        cutoff = datetime.fromisoformat(request.query["cutoff"])
        assert cutoff == datetime(2011, 8, 15, 16, tzinfo=UTC)
        answer = {"snapshot": request.query["name"], "cutoff": cutoff.isoformat(), "members": len(self.points)}
        return web.json_response(answer, status=201)

    async def create(self, request: web.Request) -> web.Response:
        """Keep the drop."""
        self.drop = await request.json()
        return web.json_response(self.drop, status=201)

    async def show(self, _: web.Request) -> web.Response:
        """The drop, and what time it is."""
        return web.json_response(self.drop | {"server_time": rfc3339(time.time())})

    async def balance(self, _: web.Request) -> web.Response:
        """What was sold, or not quite."""
        rows = []
        for allocation in self.drop["allocations"]:
            sold = sum(r["allocation"] == allocation["id"] for r in self.held.values())
            left = allocation["quantity"] - sold + (self.lie == "drift")
            row = {"id": allocation["id"], "quantity": allocation["quantity"], "available": left, "pending": 0}
            rows.append(row | {"held": sold, "confirmed": 0, "balanced": True})
        return web.json_response({"drop": self.drop["id"], "balanced": True, "allocations": rows})

    async def reserve(self, request: web.Request) -> web.StreamResponse:
        """A verdict, if its fault lets it through."""
        member, key = int(self.claims(request)["sub"]), request.headers.get("Idempotency-Key", "")
        wanted = (await request.json())["allocation"]
        allocation = next(a for a in self.drop["allocations"] if a["id"] == wanted)
        self.transports.add(id(request.transport))
        if self.fault == "silent":
            await asyncio.Event().wait()
        self.seen[key] += 1
        self.early += time.time() < unix_s(allocation["opens_at"])
        first = bool(key) and self.seen[key] == 1
        if first and self.fault == "unavailable" and member % 2:
            return problem(503, "unavailable", retry_after="0")
        if first and self.fault == "not_open" and member % 2:
            return problem(403, "not_open", retry_after="0")
        answer = self.decide(member, key, allocation)
        if first and self.fault == "cut":  # decided, and the answer is lost on its way
            assert request.transport is not None
            request.transport.abort()
        if self.fault == "close":
            answer.force_close()
        if self.fault == "chunked":
            answer.enable_chunked_encoding()
        return answer

    def decide(self, member: int, key: str, allocation: dict[str, Any]) -> web.Response:
        """A verdict, true unless it lies."""
        mine = self.keys.get(key) or (None if key else self.held.get(member))
        if mine is not None and mine["allocation"] == allocation["id"]:
            if self.lie == "forgets" and not key:
                return problem(409, "member_limit")
            return web.json_response(mine, status=200)
        if self.points[member] < allocation["access"]["at_least"] and self.lie != "lets anyone in":
            return problem(403, "not_eligible")
        if time.time() < unix_s(allocation["opens_at"]):
            return problem(403, "not_open", retry_after="1")
        if member in self.held and self.lie != "twice":
            return problem(409, "member_limit")
        if self.sold[allocation["id"]] >= allocation["quantity"] + (self.lie == "oversells"):
            return problem(409, "sold_out")
        ends = rfc3339(time.time() + self.drop["hold_seconds"])
        mine = {"id": str(uuid.uuid4()), "drop": self.drop["id"], "allocation": allocation["id"], "member": member}
        mine |= {"quantity": 1, "state": "held", "expires_at": ends}
        self.held[member] = self.keys[key] = mine
        self.sold[allocation["id"]] += 1
        return web.json_response(mine, status=201)


def problem(status: int, code: str, retry_after: str | None = None) -> web.Response:
    """A refusal."""
    headers = {"Retry-After": retry_after} if retry_after is not None else {}
    body = json.dumps({"type": "about:blank", "status": status, "code": code}).encode()
    return web.Response(status=status, body=body, headers=headers, content_type="application/problem+json")


@contextlib.asynccontextmanager
async def serving(shop: Shop) -> AsyncIterator[str]:
    """The shop on a free port of the loopback; gives its URL."""
    async with TestServer(shop.app()) as server:
        yield str(server.make_url(""))


def write_members(path: Path, rows: list[str] | None = None) -> Path:
    """A hundred members, every other one with 100 points or more, unless `rows` says otherwise."""
    rows = rows or [f"{member},{150 if member % 4 < 2 else 99},2011-01-01T00:00:00Z" for member in range(1, 101)]
    path.write_text("\n".join(["member_id,points,registered_at", *rows]) + "\n")
    return path


async def run_replay(shop: Shop, members: Path, *, round_s: float, **stores: str) -> Replay:
    """The small sale against `shop`."""
    shop.journal = members.with_name(f"journal-{shop.fault}-{shop.lie}")
    async with serving(shop) as url:
        return await replay.replay(
            Service(url, SECRET, **stores),
            SMALL,
            members,
            connections=20,
            round_s=round_s,
            random=Random(1),
            out=io.StringIO(),
            journal_file=shop.journal,
            lead_s=0.5,
            settle_timeout_s=0.0,
            clock_samples=3,
        )


FAULTS = ["unavailable", "not_open", "cut", "close", "chunked"]
LIES = {
    "oversells": "day-1: 5 sold: day-1 sold 6 units instead of 5",
    "lets anyone in": "day-1: none under 100 points: member ",
    "twice": "day-2: verdicts agree with the file: member ",
    "drift": "day-1: balance true in gate and ledger: day-1: available 1",
    "forgets": "every buyer who asks again has the same one: member ",
}


@pytest.fixture(scope="module")
async def replays(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Shop, Replay]]:
    """The small sale in an honest shop and with every fault and lie, all at the same time: fault or lie → what was."""
    members = write_members(tmp_path_factory.mktemp("replays") / "members.csv")
    shops = {"": Shop()} | {fault: Shop(fault=fault) for fault in FAULTS} | {lie: Shop(lie=lie) for lie in LIES}
    results = await asyncio.gather(*(run_replay(shop, members, round_s=10.0) for shop in shops.values()))
    return {name: (shop, result) for (name, shop), result in zip(shops.items(), results, strict=True)}


async def test_a_true_sale_passes_the_audit(replays: dict[str, tuple[Shop, Replay]]) -> None:
    """Every member presses in every round, the words add up, and nobody pressed before the opening."""
    shop, result = replays[""]
    assert result.contradiction is None
    assert [Counter(r.verdicts.values()) for r in result.rounds] == [
        {"held": 5, "not_eligible": 50, "sold_out": 45},
        {"held": 5, "not_eligible": 50, "member_limit": 5, "sold_out": 40},
        {"held": 5, "not_eligible": 50, "member_limit": 10, "sold_out": 35},
    ]
    assert shop.early == 0
    assert shop.seen.total() == 3 * 100 + 15  # and each buyer asked once more
    assert len(shop.transports) <= result.connections == 20
    assert all(r.released_s >= 0 for r in result.rounds)
    assert {claim.reservation for claim in result.journal()} == {r["id"] for r in shop.held.values()}


async def test_a_replay_is_told_to_people_and_to_machines(replays: dict[str, tuple[Shop, Replay]]) -> None:
    """Tables with the words and times of a round and the audit line by line; the same as JSON."""
    result = replays[""][1]
    table = round_text(result.rounds[1])
    assert re.search(r"presses +100\n +not_eligible +50\n +sold_out +40\n +held +5\n +member_limit +5\n", table)
    assert re.search(r"opening to the last unit +\d+\.\d{3} s\nopening to the last verdict +\d+\.\d{3} s\n", table)
    report = audit_text(result)
    assert "true  15 sold: 15 acknowledged" in report
    assert "the stores were not audited: their URLs are not all known (--redis-url)" in report
    assert report.endswith("The audit is true.\n")
    document = json.loads(as_json(result))
    assert document["true"] is True
    assert document["rounds"][1]["verdicts"]["member_limit"] == 5


@pytest.mark.parametrize("fault", FAULTS)
async def test_nobody_is_lost_when_answers_are(replays: dict[str, tuple[Shop, Replay]], fault: str) -> None:
    """A 503, "not open", a connection broken or closed after each answer, chunks: the same key until a verdict."""
    shop, result = replays[fault]
    assert result.contradiction is None
    keyed = {key: count for key, count in shop.seen.items() if key}
    assert len(keyed) == 300
    if fault in {"unavailable", "not_open"}:
        assert result.rounds[0].repeated == {fault: 50}
        assert max(keyed.values()) == 2
    if fault == "cut":
        assert result.rounds[0].broken.total() == 100
        assert Counter(result.rounds[0].verdicts.values())["again"] == 5  # held at once, heard at the second try
        written = Counter(json.loads(line)["status"] for line in shop.journal.read_text().splitlines())
        assert (written[0], written.total()) == (300, shop.seen.total())  # each press, answered or not, has its line


@pytest.mark.parametrize("lie", LIES)
async def test_a_lying_shop_is_found_out(replays: dict[str, tuple[Shop, Replay]], lie: str) -> None:
    """Each lie is contradicted, and the first contradiction says which."""
    result = replays[lie][1]
    assert result.contradiction is not None
    assert LIES[lie] in result.contradiction
    assert f"The audit is NOT true: {result.contradiction}" in audit_text(result)


async def test_members_without_a_verdict_at_the_windows_end_are_a_contradiction(tmp_path: Path) -> None:
    """A shop that never answers is not waited for beyond the window; stores that cannot be read are no silence."""
    nowhere = f"127.0.0.1:{free_port()}"
    shop, members = Shop(fault="silent"), write_members(tmp_path / "members.csv")
    urls = {"redis_url": f"redis://{nowhere}", "database_url": f"postgresql://nobody@{nowhere}/none"}
    result = await run_replay(shop, members, round_s=0.2, **urls)
    assert "day-1: everyone heard a verdict: 100 heard none" in str(result.contradiction)
    assert result.checks[-1].line == "the auditor has read both stores"
    assert "The ledger could not be read" in str(result.checks[-1].contradiction)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,points\n1,2\n", "header"),
        ("member_id,points\n1,2\nx,3\n", "line 3"),
        ("member_id,points\n1,2\n1,2\n", "line 3: member 1 is there twice"),
        ("member_id,points\n1\n", "line 2"),
    ],
)
def test_a_bad_members_file_is_refused_by_line(tmp_path: Path, text: str, says: str) -> None:
    """The command ends with 2 before it starts anything."""
    path = tmp_path / "members.csv"
    path.write_text(text)
    with pytest.raises(SetupError, match=says):
        replay.read_members(path)


@pytest.mark.skipif(not REAL_MEMBERS.exists(), reason="the forum's members are not beside this checkout")
def test_the_real_file_is_the_one_the_sale_is_told_of() -> None:
    """24,259 members, 11,146 of them with 100 points or more."""
    points = replay.read_members(REAL_MEMBERS)
    assert (len(points), sum(had >= 100 for had in points.values())) == (24_259, 11_146)


def test_a_running_services_secret_and_stores_come_from_its_data_directory(tmp_path: Path) -> None:
    """The flag first, then the environment, then the directory; a directory of another service is refused."""
    url = "http://127.0.0.1:8080"
    (tmp_path / "run.json").write_text(
        json.dumps({"url": url, "redis_url": "redis://r", "database_url": "postgresql://d"})
    )
    (tmp_path / "jwt_secret").write_text(SECRET + "\n")
    assert running(url + "/", tmp_path, None, {}).secret == SECRET
    assert running(url, tmp_path, None, {}) == Service(url, SECRET, "redis://r", "postgresql://d")
    assert running(url, tmp_path, None, {"FLASHSALE_JWT_SECRET": "env"}).secret == "env"
    assert running(url, tmp_path, "flag", {"FLASHSALE_JWT_SECRET": "env"}).secret == "flag"
    with pytest.raises(SetupError, match="belongs to the service at"):
        running("http://127.0.0.1:9", tmp_path, None, {})
    with pytest.raises(SetupError, match="--secret"):
        running(url, tmp_path / "none", None, {})


COMMAND = [sys.executable, "-m", "loadtests.replay", "engineering-edition"]

FAKE_UP = """
import json, pathlib, signal, sys
arguments = sys.argv[1:]
data = pathlib.Path(arguments[arguments.index("--data-dir") + 1])
data.mkdir()
print("warming up", file=sys.stderr)
if "3" in arguments:
    sys.exit("no room")
(data / "jwt_secret").write_text("made by the service, thirty-two bytes")
(data / "run.json").write_text(json.dumps({"url": "http://x", "redis_url": "redis://r", "database_url": "postgresql://d"}))
def stop(*_):
    (data / "stopped").write_text(" ".join(arguments))
    sys.exit(0)
signal.signal(signal.SIGINT, stop)
print("ready http://127.0.0.1:" + arguments[arguments.index("--port") + 1], flush=True)
signal.pause()
"""


@pytest.fixture
def fake_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment in which `python -m flashsale` is a program that only says that it is ready."""
    package = tmp_path / "path" / "flashsale"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(FAKE_UP)
    monkeypatch.chdir(tmp_path)
    return {"PYTHONPATH": str(package.parent)}


async def test_a_service_of_its_own_is_started_and_stopped(tmp_path: Path, fake_up: dict[str, str]) -> None:
    """It waits for the ready line, reads secret and stores from the data directory, and ends with an interrupt."""
    data = tmp_path / "data"
    async with started(data, port=4711, workers=2, secret=None, environ=fake_up) as service:
        assert service.url == "http://127.0.0.1:4711"
        assert service.secret == "made by the service, thirty-two bytes"
        assert (service.redis_url, service.database_url) == ("redis://r", "postgresql://d")
    assert (data / "stopped").read_text() == f"up --no-demo --port 4711 --data-dir {data} --workers 2"


async def test_a_service_that_does_not_start_is_told_with_its_log(tmp_path: Path, fake_up: dict[str, str]) -> None:
    """The last lines of its log are in the message."""
    with pytest.raises(SetupError, match="exit code 1 before it was ready") as refused:
        async with started(tmp_path / "data", port=4711, workers=3, secret=None, environ=fake_up):
            raise AssertionError
    assert "no room" in str(refused.value)


def test_the_command_ends_with_2_when_it_cannot_run(tmp_path: Path) -> None:
    """Nobody listens there: one line, no traceback."""
    command = [*COMMAND, "--members", str(write_members(tmp_path / "members.csv"))]
    url = f"http://127.0.0.1:{free_port()}"
    done = subprocess.run([*command, "--url", url, "--secret", SECRET], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"{url} cannot be reached" in done.stderr


async def test_the_commands_exit_code_is_the_audits(tmp_path: Path) -> None:
    """0 for a true sale; 1 for another, with the first contradiction on standard error."""
    members = write_members(tmp_path / "members.csv", [f"{member},100" for member in range(1, 702)])

    async def command(shop: Shop) -> tuple[int | None, dict[str, Any], str]:
        options = ["--members", str(members), "--secret", SECRET, "--connections", "50", "--json"]
        options += ["--lead-seconds", "2", "--round-seconds", "8", "--journal", str(tmp_path / f"journal-{shop.lie}")]
        async with serving(shop) as url:
            process = await asyncio.create_subprocess_exec(
                *COMMAND, *options, "--url", url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            out, err = await process.communicate()
        return process.returncode, json.loads(out), err.decode()

    good, bad = await asyncio.gather(command(Shop()), command(Shop(lie="oversells")))
    assert (good[0], good[1]["true"], good[1]["eligible"], good[2]) == (0, True, 701, "")
    assert (bad[0], bad[1]["true"]) == (1, False)
    assert bad[2] == "The audit is not true: day-1: 200 sold: day-1 sold 201 units instead of 200.\n"
