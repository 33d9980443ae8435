"""The noon rush at a quick size: the real sale on real servers, in all its parts, with an audit that is true."""

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from loadtests import replay, rush
from loadtests.auditor import AUDITED
from loadtests.auditor import audited as really_audited
from loadtests.verify import Check

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
LEAD = ("--lead-seconds", "6")
"""Setting up may be held up."""


async def rushed(*arguments: str) -> tuple[dict[str, Any], str]:
    """What a rush tells, and what it says beside that; it must be true."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "loadtests.replay", "noon-rush", "--json", *LEAD, *arguments),
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("FLASHSALE_")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, f"{output.decode()[-4000:]}\n{errors.decode()[-4000:]}"
    told: dict[str, Any] = json.loads(output)
    return told, errors.decode()


def check_numbers(told: dict[str, Any], contenders: int, units: int) -> None:
    """Exactly as many wins as units, a refusal for everybody else, no error; each of them in its second."""
    assert told["true"] is True, told
    assert (told["wins"], told["refusals"], told["errors"]) == (units, contenders - units, 0)
    assert sum(map(sum, told["by_second"].values())) == contenders
    assert set(told["by_second"]) <= {"held", "again", "sold_out"}
    assert sum(told["by_second"]["sold_out"]) == contenders - units
    assert 0 < told["sold_out_s"] <= told["last_verdict_s"]
    assert len(told["by_second"]["sold_out"]) == int(told["last_verdict_s"]) + 1
    assert set(told["pressed_early"]) == {"not_open"}
    checks = {check["line"]: check for check in told["audit"]}
    assert all(check["true"] for check in checks.values())
    assert f"{units:,} sold" in checks
    assert checks["nothing was given before the opening"]["found"].count("pressed before it") == 1
    assert checks["I10 nothing is held before its opening"]["found"].startswith(f"{units:,} reservations, the first +")
    acknowledged = checks["I3 what was acknowledged is in the ledger, and its state has a cause"]["found"]
    assert acknowledged.startswith(f"{units:,} reservations acknowledged")
    assert checks[AUDITED]["judged"]


@pytest.mark.timeout(300)
async def test_without_http_each_unit_is_sold_once_and_everybody_else_is_refused() -> None:
    contenders, units = 20_000, 1_500
    told, said = await rushed("--contenders", str(contenders), "--units", str(units))
    check_numbers(told, contenders, units)
    assert set(told["memory_peak_bytes"]) == {
        *("driver", "crowd 1", "crowd 2", "up", "web", "worker", "valkey", "postgres", "all"),
    }
    assert all(each > 1 << 20 for each in told["memory_peak_bytes"].values())
    assert {name for name, used in told["cpu_s"].items() if used > 0} >= {"crowd 1", "crowd 2", "valkey", "postgres"}
    assert "kept in" not in said


@pytest.mark.timeout(300)
async def test_one_by_one_it_is_the_same_sale() -> None:
    """Each with a call of the flow to themselves, as a web process makes it."""
    told, _ = await rushed("--contenders", "3000", "--units", "200", "--group", "1", "--processes", "3", "--seed", "7")
    check_numbers(told, 3_000, 200)


@pytest.mark.timeout(300)
async def test_over_http_a_tenth_of_everything_is_pressed() -> None:
    told, _ = await rushed("--http", "--workers", "2", "--contenders", "20000", "--units", "1500")
    check_numbers(told, 2_000, 150)


@pytest.mark.timeout(300)
def test_a_reservation_that_the_ledger_lost_makes_the_exit_code_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last thing before the audit: a buyer who was told yes is in no ledger any more."""
    lost: list[str] = []

    async def lose_one(drop: str, journals: Sequence[Path], *, database_url: str, **more: Any) -> list[Check]:  # noqa: ANN401 -- handed on
        connection = await asyncpg.connect(database_url)
        query = (
            "DELETE FROM reservations WHERE id = (SELECT id FROM reservations WHERE drop_id = $1 LIMIT 1) RETURNING id"
        )
        lost.append(str(await connection.fetchval(query, drop)))
        await connection.close()
        return await really_audited(drop, journals, database_url=database_url, **more)

    monkeypatch.setattr(rush, "audited", lose_one)
    assert replay.main(["noon-rush", "--contenders", "1000", "--units", "50", "--json", *LEAD]) == 1
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["true"] is False
    [acknowledged] = [check for check in told["audit"] if check["line"].startswith("I3 what was acknowledged")]
    assert lost[0] in acknowledged["contradiction"]
    assert (told["wins"], told["refusals"]) == (50, 950)
    assert "The audit is not true: I" in err
    kept = re.search(r"^Data and log are kept in (\S+)\.$", err, re.MULTILINE)
    assert kept
    assert (Path(kept[1]) / "crowd-1.jsonl").exists()
    shutil.rmtree(kept[1])
