"""The README's first steps, run as they are printed; and what such a run leaves in the logs."""

import asyncio
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.flow.command import Running, Up, reachable_folder, up
from tests.gate.support import free_port

TOP = Path(__file__).parents[2]
BLOCKS = re.findall(r"```(sh|json)\n(.*?)```", (TOP / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)

pytestmark = [pytest.mark.long, pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")]


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Up]:
    """What `make up` starts."""
    with reachable_folder() as folder:
        async with up(folder / "data") as started:
            await started.said("Demo drop demo-1: 200 phones")
            yield started


def clean_environ() -> dict[str, str]:
    """The environment without settings; the checkout is found from any folder."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLASHSALE_")}
    return {**inherited, "PYTHONPATH": str(TOP)}


def stand_in(script: str, folder: Path) -> str:
    """The script; the folder that it is to run in looks like a checkout."""
    bin_folder = folder / ".venv" / "bin"
    bin_folder.mkdir(parents=True, exist_ok=True)
    command = bin_folder / "flashsale"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m flashsale "$@"\n')
    command.chmod(0o755)
    python = bin_folder / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return script


async def shell(service: Up, script: str, folder: Path) -> str:
    """Run a block of the README from a folder that looks like a checkout; only port and data directory are ours."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-ec", stand_in(script.replace("http://127.0.0.1:8080", service.url), folder)),
        cwd=folder,
        env={**clean_environ(), "FLASHSALE_DATA_DIR": str(service.data_dir)},
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


async def test_an_order_leaves_as_printed(service: Up, tmp_path: Path) -> None:
    """The hold is confirmed with the answer that is printed, and is listed as an order."""
    (_, script), (_, printed), (_, seen) = BLOCKS[3:6]
    answer, expected = json.loads(await shell(service, script, tmp_path)), json.loads(printed)
    assert answer.keys() == expected.keys()
    own = {"id", "expires_at", "order"}
    assert {k: v for k, v in answer.items() if k not in own} == {k: v for k, v in expected.items() if k not in own}
    told = await shell(service, seen, tmp_path)
    assert answer["order"] in told
    assert "0 orders are on their way again." in told


async def test_receiver_and_service_are_started_as_printed(service: Up, tmp_path: Path) -> None:
    """The block that keeps running is run on free ports; the printed settings are what makes an order arrive."""
    kind, script = BLOCKS[2]
    assert kind == "sh"
    port = free_port()
    script = script.replace("--port 9000", f"--port {port}").replace("127.0.0.1:9000", f"127.0.0.1:{port}")
    script = script.replace("flashsale up", "flashsale up --port 0").replace("export ", "exec 2>&1; export ")
    with reachable_folder() as folder:
        command = ("sh", "-ec", stand_in(script, tmp_path))
        environ = {**clean_environ(), "FLASHSALE_DATA_DIR": str(folder / "data")}
        process = await asyncio.create_subprocess_exec(
            *command, cwd=tmp_path, env=environ, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(60):
                while not (line := (await process.stdout.readline()).decode()).startswith("ready "):
                    assert line, "it ended before it was ready"
                own = Up(Running(process, folder / "none"), folder / "data", line.split()[1])
                while not (line := (await process.stdout.readline()).decode()).startswith("Demo drop demo-1: "):
                    assert line, "it ended before there was a drop"
                answer = json.loads(await shell(own, BLOCKS[3][1], tmp_path))
                while not (line := (await process.stdout.readline()).decode()).startswith("order.confirmed "):
                    assert line, "it ended before the order arrived"
            assert answer["order"] in line
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            async with asyncio.timeout(60):
                await process.stdout.read()
                await process.wait()


async def test_a_drop_is_set_up_as_printed(service: Up, tmp_path: Path) -> None:
    (tmp_path / "members.csv").write_text("member_id,points\n7,120\n8,80\n")
    told = await shell(service, BLOCKS[6][1], tmp_path)
    assert "paused" in told
    assert told.splitlines().count("Balanced.") == 2
    assert told.splitlines()[-1].startswith("The audit is true.")


async def test_f_codes_are_handed_out_as_printed(service: Up, tmp_path: Path) -> None:
    """Fifty minted, exported and printed, two revoked; the last one buys."""
    told = await shell(service, BLOCKS[7][1], tmp_path)
    answer = json.loads(told[told.rindex("{") :])
    assert (answer["allocation"], answer["state"], answer["member"]) == ("friends", "held", 4713)
    assert len((tmp_path / "codes.csv").read_text().splitlines()) == 51
    assert "<svg" in (tmp_path / "cards.html").read_text()
    assert (tmp_path / "codes.csv").stat().st_mode & 0o077 == 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("block", [8, 9], ids=["two processes", "a leader and workers"])
async def test_load_is_run_as_printed(service: Up, tmp_path: Path, block: int) -> None:
    """With a service of its own; the report is where it is said to be."""
    kind, script = BLOCKS[block]
    assert (kind, "loadtests.load" in script) == ("sh", True)
    told = await shell(service, script.replace("5557", str(free_port())), tmp_path)
    assert "Everything is true." in told
    assert (tmp_path / "build" / "load" / "index.html").exists()


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
