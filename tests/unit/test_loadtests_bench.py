"""The benchmark's parts: figures that are kept, a sizing that is arithmetic, sales without web or without Redis."""

import asyncio
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from aiohttp.test_utils import BaseTestServer, TestServer

from flashsale import embedded
from loadtests.bench import contest, figures, redisoff, sizing
from loadtests.bench.__main__ import main
from loadtests.bench.atgate import NOT_ELIGIBLE, SOLD_OUT, AtGate, Spent
from loadtests.bench.house import Plan
from loadtests.bench.table import Failed, Row, Target, document, table_text
from loadtests.bench.tokenfile import Requests
from loadtests.bench.wrk import Load, Silent
from loadtests.errors import SetupError
from loadtests.tokens import Minter

ROOT = Path(__file__).parents[2]
SIZING = (ROOT / "deploy" / "SIZING.md").read_text(encoding="utf-8")
SECRET = "s" * 32
MINTER = Minter(SECRET, expires_at=4_000_000_000)
COSTS = sizing.Costs(
    refusal_us=100.0, win_us=200.0, decision_us=4.0, commit_us=50.0, row_wins=20_000.0, row_batch=512, p99_ms=100.0,
    press_bytes=400.0, refusal_bytes=300.0, win_bytes=350.0, connection_bytes=6_000.0, eligible_bytes=0.2,
    scattered_bytes=50.0, holder_bytes=100.0,
)  # fmt: skip


def test_a_row_is_judged_by_the_ratio_that_its_target_names() -> None:
    """Not by its figure, and by nothing when that ratio is missing; columns that nobody has are left out."""
    rows = [
        Row("flat", "µs", [900.0], Target("at most", 1.2, of="smallest"), others={"smallest": [1.1, 1.2, 1.3]}),
        Row("steep", "µs", [1.0], Target("at most", 1.2, of="smallest"), others={"smallest": [1.3]}),
        Row("alone", "µs", [1.0], Target("at most", 1.2, of="smallest"), others={"plain": [9.0]}),
    ]
    assert [row.met for row in rows] == [True, False, None]
    heading, *lines = table_text(rows).splitlines()
    assert heading.split() == ["figure", "of", "plain", "of", "smallest", "target", "met"]
    assert lines[0].split()[-4:] == ["1.20", "≤", "1.2", "yes"]


def test_figures_are_appended_with_what_they_are_of(tmp_path: Path) -> None:
    """Two versions, one after the other, each with its line, its machine and its table; what was there stays."""
    kept = tmp_path / "figures.txt"
    kept.write_text("What was measured.\n")
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    for what, names in (("0.1.0 (abc)", ()), ("0.2.0 (def-dirty)", ("wins", "overload"))):
        rows = [Row("durable wins", "req/s", [2_744.0])]
        about = {"machine": "2 cores", "python": "Python 3"}
        figures.keep(kept, figures.entry(what=what, at=at, how="5 rounds", names=names, about=about, rows=rows))
    assert kept.read_text() == (
        "What was measured.\n"
        "\n== 0.1.0 (abc) · 2026-01-02T03:04:05Z · 5 rounds · all rows\n2 cores\nPython 3\n\n"
        "                   figure\ndurable wins  2,744 req/s\n"
        "\n== 0.2.0 (def-dirty) · 2026-01-02T03:04:05Z · 5 rounds · only wins, overload\n2 cores\nPython 3\n\n"
        "                   figure\ndurable wins  2,744 req/s\n"
    )


def test_the_version_is_the_projects_own_and_its_commit(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "7.8"\n')
    assert figures.version(tmp_path) == "7.8 (no commit known)"
    assert re.fullmatch(r"\d+\.\d+\.\d+ \(.+\)", figures.version())


def test_a_quick_look_is_not_kept(capsys: pytest.CaptureFixture[str]) -> None:
    before = figures.FIGURES.read_bytes()
    with pytest.raises(SystemExit) as ended:
        main(["--quick", "--keep"])
    assert ended.value.code == 2
    assert "say nothing" in capsys.readouterr().err
    assert figures.FIGURES.read_bytes() == before


def test_a_plant_is_costs_times_rate() -> None:
    """By hand: 100,000 presses a second, of which each tenth wins, on cores that are busy for half of their time."""
    found = sizing.plant(100_000, COSTS, sizing.Assumed(contenders=10, busy=0.5, press_every_s=10))
    assert found.wins == 10_000
    assert found.web == 22  # (90,000 × 100 µs + 10,000 × 200 µs) = 11 cores, each half busy
    assert found.stripes == 1  # 0.4 of a core
    assert found.rows == 1
    assert found.postgres_cores == 1
    assert found.shoppers == 1_000_000
    assert found.busy_connections == 10_000  # for 100 ms each
    assert (found.in_bytes, found.out_bytes) == (40_000_000, 90_000 * 300 + 10_000 * 350)
    more = sizing.plant(1_000_000, COSTS, sizing.Assumed(contenders=10, busy=0.5))
    assert (more.web, more.stripes, more.rows, more.postgres_cores) == (220, 8, 10, 10)


def measured(**changed: float | None) -> dict[str, Any]:
    """The benchmark's JSON with what a sizing needs."""
    figure = {
        "refusals": 5_000.0, "wins": 2_500.0, "overload-26": 4_000.0, "hot-row-1": 900.0, "hot-row-512": 20_000.0,
        "wire-press": 400.0, "wire-refusal": 300.0, "wire-win": 350.0, "connection": 6.0, "gate-units-100": 3.0,
        "gate-units-1000": 4.0, "eligible": 0.2, "scattered": 50.0, "holder": 100.0,
    } | changed  # fmt: skip
    rows = [
        Row(key, "", [value], key=key, cpu_us={"web": [100.0], "postgres": [50.0]}, p99_ms=[100.0])
        for key, value in figure.items()
        if value is not None
    ]
    found: dict[str, Any] = json.loads(document(rows, {"machine": "2 cores", "python": "3"}, {"quick": False}))
    return found


def test_costs_come_from_the_rows_that_measured_them() -> None:
    """Of the gate the largest sale, of the ledger the largest batch; a missing one is named."""
    found = sizing.Costs.read(measured())
    assert (found.decision_us, found.row_wins, found.row_batch, found.connection_bytes) == (4.0, 20_000.0, 512, 6_144.0)
    with pytest.raises(SetupError, match="holder was not measured"):
        sizing.Costs.read(measured(holder=None))
    with pytest.raises(SetupError, match="gate-units-1000000 was not measured"):
        sizing.Costs.read(measured(**{"gate-units-100": None, "gate-units-1000": None}))


def test_a_page_without_a_place_for_the_tables_is_left_alone(tmp_path: Path) -> None:
    page, found = tmp_path / "page.md", tmp_path / "bench.json"
    page.write_text("nothing here\n")
    found.write_text(json.dumps(measured()))
    assert sizing.main(["--json", str(found), "--write", str(page)]) == 2
    assert page.read_text() == "nothing here\n"


def first_cells(tables: str) -> list[str]:
    """What each line of some tables is about, figures aside: sizes of a batch belong to a measurement."""
    return [re.sub(r"[\d,.]+", "#", line.split("|")[1]) for line in tables.splitlines() if line.startswith("|")]


def test_the_sizing_page_holds_the_tables_and_quotes_nothing_else() -> None:
    """The tables are whole, as the command writes them; no figure in the text is one that they lack."""
    tables = SIZING.partition(sizing.BEGIN)[2].partition(sizing.END)[0]
    assert first_cells(tables) == first_cells(sizing.text(measured()))
    widths = [line.count("|") for line in tables.splitlines() if line.startswith("|")]
    assert set(widths) == {3, 2 + len(sizing.RATES)}
    prose = re.sub(r"```.*?```|`[^`]*`", "", SIZING.replace(tables, ""), flags=re.DOTALL)
    assert [figure for figure in re.findall(r"\d[\d.,]*", prose) if figure not in tables] == []


@pytest.mark.parametrize(("quick", "calls"), [(True, 3), (False, 1)])
async def test_only_a_quick_look_is_taken_again_when_nobody_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: bool, calls: int
) -> None:
    """What is measured and answers nobody has failed."""
    asked: list[int] = []

    async def silent(*_: object) -> Load:
        asked.append(1)
        raise Silent("not one request was answered")

    async def prepare(count: int) -> Requests:
        return Requests(tmp_path, 1, count)

    monkeypatch.setattr("loadtests.bench.wrk.load", silent)
    plan = Plan(1, 1, quick, tmp_path, {}, lambda _: None)
    each = contest.Contestant(Row("wins", "req/s"), "http://127.0.0.1", {}, contest.WON, prepare)
    assert await contest.run(plan, each, 1) is None
    assert (each.row.failed, len(asked)) == ("not one request was answered", calls)


async def test_a_sale_at_the_gate_is_counted_to_the_last_verdict(urls: embedded.Servers) -> None:
    """Who wins and who does not is known beforehand; one verdict that is another voids the measurement."""
    gate = AtGate(urls.redis_url, "counted-at-the-gate")
    try:
        await gate.arm(300)
        spent = Spent()
        grants = await gate.press(spent, range(1, 601), won=300, otherwise=SOLD_OUT)
        assert [grant.member for grant in grants] == [*range(1, 301)]
        assert (spent.decisions, len(spent.calls_s)) == (600, 3)
        assert spent.us > 0
        assert await gate.holders_bytes() > 300 * 50
        with pytest.raises(Failed, match=r"of 10 presses 0 won and 10 were sold_out; 1 should have won"):
            await gate.press(spent, range(601, 611), won=1, otherwise=SOLD_OUT)
        await gate.arm(1_000, among=1_000)
        even, odd = range(2, 2_001, 2), range(1, 2_000, 2)
        with pytest.raises(Failed, match="of 1,000 presses 0 won and 1,000 were not_eligible"):
            await gate.press(spent, odd, won=1, otherwise=NOT_ELIGIBLE)
        assert len(await gate.press(spent, [*even, *odd], won=1_000, otherwise=NOT_ELIGIBLE)) == 1_000
    finally:
        await gate.aclose()


async def test_postgres_alone_sells_each_unit_once(urls: embedded.Servers) -> None:
    """What the product without Redis is compared with is honest: two processes' crowds, no unit and no member twice."""
    connection = await asyncpg.connect(urls.database_url)
    name = f"redis_off_{time.time_ns()}"
    url = re.sub(r"/[^/?]*(\?|$)", rf"/{name}\1", urls.database_url)
    await connection.execute(f"CREATE DATABASE {name}")
    try:
        await redisoff.prepare(url, {"few": 50, "none": 0})
        apps = [redisoff.make_app(url, SECRET) for _ in range(2)]
        async with TestServer(apps[0]) as one, TestServer(apps[1]) as two, aiohttp.ClientSession() as session:

            async def press(at: BaseTestServer, drop: str, token: str) -> int:
                headers = {"Authorization": f"Bearer {token}"}
                path = at.make_url(f"/v1/drops/{drop}/reservations")
                async with session.post(path, json={"allocation": "all"}, headers=headers) as answer:
                    return answer.status

            crowd = [press(at, "few", MINTER.shopper(member)) for member in range(1, 101) for at in (one, two)]
            statuses = await asyncio.gather(*crowd)
            assert (statuses.count(201), statuses.count(409)) == (50, 150)
            assert await press(one, "none", MINTER.shopper(1)) == 409
            assert await press(one, "few", Minter("t" * 32, expires_at=4_000_000_000).shopper(1)) == 401
            assert await press(one, "few", Minter(SECRET, expires_at=1).shopper(1)) == 401
        assert await redisoff.counted(url) == (50, 50)
    finally:
        await connection.execute(f"DROP DATABASE {name}")
        await connection.close()
