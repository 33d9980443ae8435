"""`flashsale audit`: what it says to people and to programs, its exit codes, and what it cannot read."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from flashsale.cli import main
from flashsale.gate import keys
from tests.audit.world import World
from tests.gate.support import HOST, free_port

Answer = tuple[int, str, str]
Command = Callable[..., Coroutine[Any, Any, Answer]]


@pytest.fixture
def command(world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command for the world's stores, at once; arguments may name others."""
    monkeypatch.setenv("FLASHSALE_REDIS_URL", world.redis_url)
    monkeypatch.setenv("FLASHSALE_DATABASE_URL", world.database_url)

    async def run(*arguments: str, drop: str = world.drop.id) -> Answer:
        code = await asyncio.to_thread(main, ["audit", drop, "--settle-s", "0", *arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def journal(world: World, tmp_path: Path) -> Path:
    """The true journal, as a file."""
    path = tmp_path / "journal"
    path.write_text("".join(json.dumps(line) + "\n" for line in world.lines))
    return path


async def test_a_true_sale_ends_with_zero(command: Command, journal: Path, world: World) -> None:
    """The balance, the log, a line for each check; as a document the same."""
    code, out, err = await command("--journal", str(journal))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["allocation", "quantity", "available", "pending", "held", "confirmed", "balanced"]
    assert "Balanced." in lines
    assert any(line.split()[1:4] == ["member:1", "drop.pause", world.drop.id] for line in lines)
    assert "  true   I2  no more was held than there was, at any instant: 20 steps replayed" in lines
    assert lines[-1] == "The audit is true."
    code, out, err = await command("--journal", str(journal), "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    found = json.loads(out)
    assert (found["drop"], found["true"], found["contradiction"]) == (world.drop.id, True, None)
    assert (found["stores_read"], found["at_rest"], found["journal_lines"]) == (True, True, len(world.lines))
    assert found["balance"]["balanced"] is True
    assert {c["invariant"] for c in found["checks"]} == {f"I{n}" for n in range(1, 17)} - {"I12"}
    assert found["audit"][0]["action"] == "drop.create"


async def test_a_contradiction_ends_with_one(command: Command, journal: Path, world: World) -> None:
    """It is spelled out under its check, and first in the document; how many more there are is told."""
    await world.redis.hdel(keys.stripe(world.drop.id).ent, "14", "15")
    code, out, err = await command("--journal", str(journal))
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert "NOT balanced." not in lines, "the units are counted, and nobody has them"
    at = lines.index("  FALSE  I1  gate and ledger have the same reservations: 9 entries, 10 live rows")
    assert lines[at + 1].strip().startswith(f"{world.ids['r14']} of member 14 in public is held in the ledger, and")
    assert lines[at + 1].endswith("(and 1 more)")
    assert lines[-1] == "The audit is NOT true."
    code, out, _ = await command("--journal", str(journal), "--json")
    found = json.loads(out)
    assert (code, found["true"]) == (1, False)
    assert found["contradiction"].startswith("I1: what is left and what is held make the quantity: public: 0 left")


FINE = '{"call": "get", "status": 200, "sent_at": 1}'


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["{}"], "line 1: Object missing required field `call`"),
        ([FINE, "rubbish"], "line 2: JSON is malformed"),
        ([FINE, "", '{"call": "get", "status": "no"}'], "line 3: Expected `int`"),
        ([FINE, '{"call": "get", "status": 200}'], "line 2: it says 'get', and not when"),
        ([FINE, b"\xff\xfe"], "line 2: "),
        (None, "cannot be read: No such file"),
    ],
)
async def test_a_journal_that_cannot_be_read_ends_with_two(
    command: Command, tmp_path: Path, lines: list[str | bytes] | None, says: str
) -> None:
    """The sentence names the file and the line."""
    path = tmp_path / "journal"
    if lines is not None:
        path.write_bytes(b"\n".join(line.encode() if isinstance(line, str) else line for line in lines))
    code, out, err = await command("--journal", str(path))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"flashsale: The journal {path}")
    assert says in err
    code, out, _ = await command("--journal", str(path), "--json")
    assert (code, json.loads(out)["code"]) == (2, "setup")


async def test_an_unknown_drop_ends_with_one(command: Command) -> None:
    assert await command(drop="nowhere") == (1, "", "flashsale: not_found: There is no drop 'nowhere'.\n")


@pytest.mark.parametrize(
    ("option", "url", "says"),
    [
        ("--redis-url", "redis://{away}", "flashsale: unavailable: The gate could not be read (ConnectionError"),
        ("--redis-url", "http://{away}", "flashsale: unavailable: The gate could not be read (ValueError"),
        ("--database-url", "postgresql://nobody@{away}/none", "flashsale: unavailable: The ledger could not be read ("),
        ("--database-url", "nonsense", "flashsale: unavailable: The ledger could not be read ("),
    ],
)
async def test_a_store_that_is_away_ends_with_one(command: Command, option: str, url: str, says: str) -> None:
    """Which one is away is told in one line."""
    code, out, err = await command(option, url.format(away=f"{HOST}:{free_port()}"))
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(says)


async def test_a_database_that_is_none_of_ours_ends_with_one(command: Command, world: World) -> None:
    """A database without the tables says which one it lacks."""
    other = world.database_url.rpartition("/")[0] + "/postgres"
    code, out, err = await command("--database-url", other)
    assert (code, out) == (1, "")
    assert 'The ledger could not be read (UndefinedTableError: relation "' in err


async def test_stores_are_those_of_the_service_that_runs_there(
    command: Command, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What run.json tells counts for the service that it names, and for no other."""
    monkeypatch.delenv("FLASHSALE_REDIS_URL")
    monkeypatch.delenv("FLASHSALE_DATABASE_URL")
    run = {"url": "http://127.0.0.1:1", "redis_url": world.redis_url, "database_url": world.database_url}
    (tmp_path / "run.json").write_text(json.dumps(run))
    (tmp_path / "jwt_secret").write_text("a secret of at least thirty-two bytes")
    code, out, _ = await command("--data-dir", str(tmp_path))
    assert (code, out.splitlines()[-1]) == (0, "The audit is true. 3 of 23 checks could not be made.")
    other = f"http://{HOST}:{free_port()}"
    code, out, err = await command("--data-dir", str(tmp_path), "--url", other)
    assert (code, out) == (1, "")
    assert err.startswith(f"flashsale: unavailable: Nothing answers at {other}")
