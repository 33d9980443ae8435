"""The README's first steps, run as they are printed; and what such a run leaves in the logs."""

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.flow.command import Up, reachable_folder, up

TOP = Path(__file__).parents[2]
BLOCKS = re.findall(r"```(sh|json)\n(.*?)```", (TOP / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Up]:
    """What `make up` starts."""
    with reachable_folder() as folder:
        async with up(folder / "data") as started:
            yield started


async def shell(service: Up, script: str, folder: Path) -> str:
    """Run a block of the README from a folder that looks like a checkout; only port and data directory are ours."""
    (folder / ".venv").mkdir(exist_ok=True)
    (folder / ".venv" / "bin").mkdir(exist_ok=True)
    command = folder / ".venv" / "bin" / "flashsale"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m flashsale "$@"\n')
    command.chmod(0o755)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FLASHSALE_")}
    process = await asyncio.create_subprocess_exec(
        *("sh", "-ec", script.replace("http://127.0.0.1:8080", service.url)),
        cwd=folder,
        env={**environ, "PYTHONPATH": str(TOP), "FLASHSALE_DATA_DIR": str(service.data_dir)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    return output


async def test_the_first_reservation_works_as_printed(service: Up, tmp_path: Path) -> None:
    (kind, script), (answer_kind, printed) = BLOCKS[:2]
    assert (kind, answer_kind) == ("sh", "json")
    answer, expected = json.loads(await shell(service, script, tmp_path)), json.loads(printed)
    assert answer.keys() == expected.keys()
    own = {"id", "expires_at"}
    assert {k: v for k, v in answer.items() if k not in own} == {k: v for k, v in expected.items() if k not in own}
    assert json.loads(await shell(service, script, tmp_path)) == answer


async def test_a_drop_is_set_up_as_printed(service: Up, tmp_path: Path) -> None:
    (tmp_path / "members.csv").write_text("member_id,points\n7,120\n8,80\n")
    told = await shell(service, BLOCKS[2][1], tmp_path)
    assert "paused" in told
    assert told.splitlines()[-1] == "Balanced."


async def test_no_secret_is_logged(service: Up, tmp_path: Path) -> None:
    """Wins, refusals and acts are; tokens, keys, the secret and the stores' passwords are not."""
    await shell(service, BLOCKS[0][1], tmp_path)
    await service.said("Demo drop demo-1: 300 presses")
    await service.said(r'"reservation\.refused"|reservation\.refused')
    logged = "\n".join(line for line in service.stderr.splitlines() if line.startswith("{"))
    assert '"event":"reservation.held"' in logged
    assert "ops.act" in logged
    urls = (service.run["redis_url"], service.run["database_url"])
    passwords = [url.split("://")[1].rpartition("@")[0].rpartition(":")[2] for url in urls]
    secret = (service.data_dir / "jwt_secret").read_text().strip()
    for hidden in (*passwords, secret, "Bearer", "eyJ", "my-first-press"):
        assert hidden
        assert hidden not in logged
