"""The acceptance test: a real sale, replayed over HTTP by its real members, with an audit that is true."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

MEMBERS = Path(__file__).parents[3] / "shared" / "data" / "forum_members.csv"
ROUND_S = 45  # a day; long enough for 24,259 presses while other tests take their share of the machine


@pytest.mark.skipif(not MEMBERS.exists(), reason=f"the real members are not at {MEMBERS}")
@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("workers", [2])
async def test_the_engineering_edition_sells_600_and_its_audit_is_true(workers: int) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "loadtests.replay", "engineering-edition", "--json"),
        *("--members", str(MEMBERS), "--workers", str(workers), "--round-seconds", str(ROUND_S)),
        cwd=Path(__file__).parents[2],
        env={name: value for name, value in os.environ.items() if not name.startswith("FLASHSALE_")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, f"{output.decode()[-4000:]}\n{errors.decode()[-4000:]}"
    told = json.loads(output)
    assert told["true"] is True, told
