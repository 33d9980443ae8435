"""The crowd against the real service: a smoke in which every behaviour happens, audited; and what it would find."""

import asyncio
import contextlib
import json
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import psutil
import pytest

from loadtests.crowd.guests import MIX
from loadtests.crowd.options import Options
from tests.flow.command import SECRET, TOP, Up, environ, reachable_folder, until, up
from tests.gate.support import free_port

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

BEHAVIOURS = {
    "looked",
    "came again after not_open",
    "confirmed",
    "cancelled",
    "cancelled twice",
    "let a hold lapse",
    "was not let in",
    "bought with an F-code",
    "pressed again after sold_out",
    "got what another gave back",
    "hammered",
    "sprayed a forged code",
    "showed a spent code",
    "pressed with another member's key",
    "pressed with the own key again",
    "pressed with the own key and another request",
    "acted on another's reservation",
}


class Loaded(NamedTuple):
    """A run of the command that has ended."""

    code: int
    said: str
    out: Path

    @property
    def result(self) -> dict[str, Any]:
        """What it found."""
        found: dict[str, Any] = json.loads((self.out / "result.json").read_text())
        return found


@contextlib.asynccontextmanager
async def loading(service: Up, out: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m loadtests.load` against a service; whatever is left of it at the end is killed."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "stderr").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "loadtests.load", "--url", service.url, "--data-dir", str(service.data_dir)),
            *("--shape", "smoke", "--out", str(out), *arguments),
            cwd=TOP,
            env=environ(),
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(process.pid)
            for one in [*parent.children(recursive=True), parent]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        await process.communicate()


async def ended(process: asyncio.subprocess.Process, out: Path) -> Loaded:
    """Wait for the command."""
    assert process.stdout is not None
    said = (await process.stdout.read()).decode()
    return Loaded(await process.wait(), said + (out / "stderr").read_text(), out)


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Up]:
    """A service without the demo."""
    with reachable_folder() as folder:
        async with up(folder / "data", "--no-demo", jwt_secret=SECRET) as started:
            (folder / "data" / "jwt_secret").write_text(SECRET)
            yield started


@pytest.fixture(scope="module")
async def smoke(service: Up, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """The smoke over two processes."""
    out = tmp_path_factory.mktemp("smoke")
    async with loading(service, out, "--processes", "2") as process:
        return await ended(process, out)


async def test_the_smoke_is_true_and_every_behaviour_happened(smoke: Loaded) -> None:
    assert smoke.code == 0, smoke.said
    result = smoke.result
    assert result["true"] is True
    assert set(result["roles"]) == set(MIX)
    assert sum(result["roles"].values()) == 300
    assert {what for what in BEHAVIOURS if not result["behaviours"].get(what)} == set()
    assert set(result["verdicts"]) >= {"held", "sold_out", "not_eligible"}
    assert {"again", "member_limit", "held"} <= set(result["calls"]["hostile press"]["heard"])
    assert "idempotency_mismatch" in result["calls"]["replayed key"]["heard"]
    assert {"fcode_invalid", "rate_limited"} <= set(result["calls"]["forged code"]["heard"])
    assert all(check["true"] for check in result["audit"])
    assert len(result["audit"]) > 25
    assert "Everything is true." in smoke.said


async def test_more_holds_were_granted_than_there_are_units(smoke: Loaded) -> None:
    """What was given back was won by others: holds of the public allocation, over those that can be held at once."""
    lines = [json.loads(line) for line in (smoke.out / "journal.jsonl").read_text().splitlines()]
    held = {line["reservation"] for line in lines if line["status"] == 201 and line["in"] == "public"}
    assert len(held) > smoke.result["sale"]["units"]


async def test_processes_never_acted_as_the_same_member(smoke: Loaded) -> None:
    """Keys and members follow the arrival's number, and every other number is the other process's."""
    lines = [json.loads(line) for line in (smoke.out / "journal.jsonl").read_text().splitlines()]
    assert [line["sent_at"] for line in lines] == sorted(line["sent_at"] for line in lines)
    first = min(line["member"] for line in lines)
    numbers = {line["member"] - first for line in lines}
    assert len({number % 2 for number in numbers}) == 2
    owners: dict[str, set[int]] = {}
    for line in lines:
        if line.get("key"):
            owners.setdefault(line["key"], set()).add(line["member"])
    shared = [key for key, members in owners.items() if len(members) > 1]
    assert len(shared) <= smoke.result["roles"]["replayer"]  # whose trade that is


async def test_both_reports_are_there_and_locusts_has_the_same_calls(smoke: Loaded) -> None:
    """As many presses in its statistics as in ours, over both processes."""
    text = (smoke.out / "locust.html").read_text()
    rows, _ = json.JSONDecoder().raw_decode(text.split('"requests_statistics": ')[1])
    counted = {row["name"]: row["num_requests"] for row in rows}
    for name, call in smoke.result["calls"].items():
        assert counted[name] == call["times"], name
    assert "Everything is true" in (smoke.out / "index.html").read_text()


async def judged(service: Up, smoke: Loaded, folder: Path, plant: dict[str, Any]) -> Loaded:
    """The smoke's run, judged anew with one more line in its journal."""
    run = folder / "run"
    run.mkdir()
    heard = json.loads((smoke.out / "heard.json").read_text()) | {"processes": 1, "done": [0]}
    (run / "heard.json").write_text(json.dumps(heard))
    shutil.copyfile(smoke.out / "journal.jsonl", run / "journal-0.jsonl")
    if plant:
        with (run / "journal-0.jsonl").open("a") as journal:
            journal.write(json.dumps({"drop": heard["sale"]["drop"], "call": "reserve", "quantity": 1, **plant}) + "\n")
    options: dict[str, Any] = dict.fromkeys(Options.__dataclass_fields__, "")
    stores = {"redis_url": service.run["redis_url"], "database_url": service.run["database_url"]}
    given = options | stores | {"page": False, "settle_seconds": 20.0, "out": str(folder / "out")}
    Options(**given).write(folder / "options.json")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "loadtests.crowd.verdict", str(folder / "options.json"), str(run)),
        cwd=TOP,
        env=environ(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return Loaded(process.returncode or 0, said.decode(), folder / "out")


@pytest.mark.parametrize(
    ("plant", "invariant"),
    [
        ({}, ""),
        ({"status": 201, "member": 1, "key": "k", "reservation": "01a1ffb3-e7e2-734d-9fe1-ce2f17d1db98"}, "I3"),
        ({"status": 409, "member": 1, "code": "sold_out", "allocation": "public", "before_s": 3.0}, "I11"),
    ],
    ids=["nothing", "lost win", "sold out early"],
)
async def test_a_planted_contradiction_is_found(
    service: Up, smoke: Loaded, tmp_path: Path, plant: dict[str, Any], invariant: str
) -> None:
    """By the exit code and by its name; without one the same journal is true."""
    at = smoke.result["sale"]["opens_at_s"] - plant.pop("before_s", -1.0) if plant else 0.0
    planted = plant | {"sent_at": at, "heard_at": at + 0.01} if plant else {}
    again = await judged(service, smoke, tmp_path, planted)
    assert again.code == (1 if invariant else 0), again.said
    false = [check["line"] for check in again.result["audit"] if not check["true"]]
    assert [line.split()[0] for line in false] == ([invariant] if invariant else [])


async def test_a_run_that_is_broken_off_says_so_and_its_journal_is_whole(service: Up, tmp_path: Path) -> None:
    """Ctrl-C in the middle of the rush: whatever was under way is in the journal, and the stores agree with it."""
    async with loading(service, tmp_path, "--processes", "2", "--seconds", "60", "--seed", "7") as process:

        def is_on() -> bool:
            told = (tmp_path / "stderr").read_text()
            return " held" in told and " 0 held" not in told.splitlines()[-1]

        await until(is_on, "the rush is on", 120)
        process.send_signal(signal.SIGINT)
        loaded = await ended(process, tmp_path)
    assert loaded.code == 130, loaded.said
    assert "ended before its time" in loaded.result["contradiction"]
    assert [check["line"] for check in loaded.result["audit"] if not check["true"]] == []


async def test_with_the_page_each_start_is_a_sale_of_its_own(service: Up, tmp_path: Path) -> None:
    """Started twice over locust's own page; Ctrl-C is how it ends."""
    port = free_port()
    arguments = ("--page", "--page-port", str(port), "--shoppers", "40", "--seconds", "2", "--hold-seconds", "1")
    drops = set()
    async with loading(service, tmp_path, *arguments) as process, aiohttp.ClientSession() as session:

        def told() -> str:
            text = (tmp_path / "stderr").read_text()
            assert "NOT true" not in text, text
            return text

        async def start() -> None:
            """Until it is under way: for a moment after a run, locust takes it for one that still runs."""
            before = told().count("came,")
            async with asyncio.timeout(90):
                while told().count("came,") == before:
                    with contextlib.suppress(aiohttp.ClientConnectionError):
                        swarm = session.post(f"http://127.0.0.1:{port}/swarm", data={"user_count": 1, "spawn_rate": 1})
                        async with swarm as answer:
                            assert answer.status == 200
                    await asyncio.sleep(0.5)

        for times in (1, 2):
            await start()
            async with asyncio.timeout(90):
                while told().count("Everything is true.") < times:
                    await asyncio.sleep(0.1)
            drops.add(json.loads((tmp_path / "result.json").read_text())["sale"]["drop"])
        process.send_signal(signal.SIGINT)
        loaded = await ended(process, tmp_path)
    assert loaded.code == 0, loaded.said
    assert len(drops) == 2
