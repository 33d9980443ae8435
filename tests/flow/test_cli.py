"""The command line against a running service: what it does there, and what it says to people and to programs."""

import asyncio
import json
import os
import pty
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from flashsale.cli import main
from flashsale.gate import keys
from tests.flow.command import COMMAND, Up, environ, get, post, reachable_folder, run, up

POINTS = b"member_id,points\n1,250\n2,99\n3,100\n"


def drop(drop_id: str, **changes: object) -> dict[str, Any]:
    """A drop to set up: open, for everyone and for members with points."""
    window = {"opens_at": "2020-01-01T00:00:00Z", "closes_at": "2099-01-01T00:00:00Z"}
    return {
        "id": drop_id,
        "title": "A phone",
        "price": {"amount": 169900, "currency": "CNY"},
        "allocations": [{"id": "all", "quantity": 5, "access": {"kind": "everyone"}, **window}],
        **changes,
    }


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Up]:
    """A running service; each test has drops of its own."""
    with reachable_folder() as folder:
        async with up(folder / "data", "--no-demo") as started:
            yield started


class Call:
    """Runs commands in this process, for the running service."""

    def __init__(self, service: Up, capsys: pytest.CaptureFixture[str]) -> None:
        self.service = service
        self._capsys = capsys

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        code = await asyncio.to_thread(main, [*arguments, "--data-dir", str(self.service.data_dir)])
        out, err = self._capsys.readouterr()
        return code, out, err

    async def json(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Exit code and the one document on standard output; nothing else is said."""
        code, out, err = await self(*arguments, "--json")
        assert (out.count("\n"), err) == (1, "")
        found: dict[str, Any] = json.loads(out)
        return code, found


@pytest.fixture
def call(service: Up, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Commands for the running service."""
    monkeypatch.delenv("FLASHSALE_JWT_SECRET", raising=False)
    return Call(service, capsys)


@pytest.fixture
async def sale(call: Call, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A drop of this test's own, set up by the command line; its id."""
    drop_id = request.node.name.replace("_", "-").split("[")[0][:60].rstrip("-")
    (tmp_path / "sale.json").write_text(json.dumps(drop(drop_id)))
    code, _, err = await call("drop", "create", str(tmp_path / "sale.json"))
    assert code == 0, err
    return str(drop_id)


async def press(service: Up, call: Call, drop_id: str, member: int) -> dict[str, Any]:
    """Reserve a unit."""
    _, token, _ = await call("token", "--member", str(member))
    _, held = await post(f"{service.url}/v1/drops/{drop_id}/reservations", token.strip(), {}, wanted=201)
    return held


async def test_migrate_may_be_repeated(service: Up) -> None:
    """The schema of a served database is at its version already."""
    code, out, _ = await run("migrate", "--json", database_url=service.run["database_url"])
    assert code == 0
    found = json.loads(out)
    assert found["applied"] == []
    said = f"The schema is at {found['schema']}.\n"
    assert await run("migrate", database_url=service.run["database_url"]) == (0, said, "")


async def test_drop_is_created_and_shown(call: Call, service: Up, sale: str) -> None:
    """What was set up is what an operator, and a shopper, sees."""
    code, out, err = await call("drop", "show", sale)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{sale}  running  A phone",
        "169900 CNY in minor units; 1 a member; held for 900 s",
        "allocation  state  quantity  taken  available  opens_at              closes_at             access    channel",
        "all         open          5      0          5  2020-01-01T00:00:00Z  2099-01-01T00:00:00Z  everyone  -",
    ]
    code, shown = await call.json("drop", "show", sale)
    assert code == 0
    assert shown["id"] == (await get(f"{service.url}/v1/drops/{sale}", ""))["id"] == sale
    assert shown["allocations"][0]["available"] == 5


async def test_drop_is_read_from_standard_input(service: Up) -> None:
    """`-` stands for standard input, as in a shell's here-document."""
    body = json.dumps(drop("from-stdin")).encode()
    code, out, err = await run("drop", "create", "-", "--data-dir", str(service.data_dir), "--json", stdin=body)
    assert (code, err) == (0, "")
    assert json.loads(out)["id"] == "from-stdin"


async def test_refusal_ends_with_one(call: Call, sale: str, tmp_path: Path) -> None:
    """What the service refuses is told with its code and its sentence, on standard error or as the document."""
    assert await call("drop", "show", "nowhere") == (1, "", "flashsale: not_found: There is no drop 'nowhere'.\n")
    assert await call.json("drop", "show", "nowhere") == (
        1,
        {"code": "not_found", "detail": "There is no drop 'nowhere'."},
    )
    (tmp_path / "again.json").write_text(json.dumps(drop(sale)))
    code, refused = await call.json("drop", "create", str(tmp_path / "again.json"))
    assert (code, refused["code"]) == (1, "conflict")
    (tmp_path / "broken.json").write_text("{")
    code, refused = await call.json("drop", "create", str(tmp_path / "broken.json"))
    assert (code, refused["code"]) == (1, "invalid_request")
    code, refused = await call.json("drop", "show", sale, "--token", "wrong")
    assert (code, refused["code"]) == (1, "unauthenticated")


async def test_strange_name_reaches_no_other_call(call: Call) -> None:
    """A drop's name is one part of the path, whatever is in it."""
    for name in ("../drops", "a/pause", "a?x=1", "%2e%2e"):
        code, refused = await call.json("drop", "show", name)
        assert (code, refused["code"]) in {(1, "not_found"), (1, "invalid_request")}


async def test_missing_file_ends_with_two(call: Call, tmp_path: Path) -> None:
    """A file that cannot be read is a fault of the call."""
    code, out, err = await call("drop", "create", str(tmp_path / "none.json"))
    assert (code, out, err) == (2, "", f"flashsale: {tmp_path}/none.json cannot be read: No such file or directory.\n")
    code, _, err = await call("points", "import", str(tmp_path), "--name", "a", "--cutoff", "2020-01-01T00:00:00Z")
    assert (code, err) == (2, f"flashsale: {tmp_path} cannot be read: Is a directory.\n")


async def test_service_that_is_not_there_ends_with_one(call: Call) -> None:
    """No answer, or the answer of something else, is told with what to do."""
    code, failed = await call.json("drop", "show", "a", "--url", "http://127.0.0.1:1")
    assert (code, failed["code"]) == (1, "unavailable")
    assert "Nothing answers at http://127.0.0.1:1. Start `flashsale up`" in failed["detail"]
    code, failed = await call.json("drop", "show", "a", "--url", "127.0.0.1")
    assert (code, failed["code"]) == (1, "unavailable")
    assert "begins with http://" in failed["detail"]

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(other, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        code, failed = await call.json("drop", "show", "a", "--url", url)
    assert (code, failed["code"]) == (1, "unavailable")
    assert "is not this service" in failed["detail"]


async def test_reading_waits_for_a_service_that_is_away_for_a_moment(call: Call) -> None:
    """A read is repeated while it is answered `unavailable`; an act is not, its effect being unknown."""
    asked = []

    async def recovering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split()[0])
        away = len(asked) != 2
        body = b'{"code":"unavailable","detail":"Away."}' if away else b'{"balanced":true,"allocations":[]}'
        status = b"503 Service Unavailable" if away else b"200 OK"
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(recovering, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert (await call.json("drop", "balance", "a", "--url", url))[0] == 0
        assert asked == [b"GET", b"GET"]
        code, failed = await call.json("drop", "pause", "a", "--url", url)
    assert (code, failed) == (1, {"code": "unavailable", "detail": "Away."})
    assert asked == [b"GET", b"GET", b"POST"]


async def test_pause_resume_and_close_hold_and_are_on_record(call: Call, service: Up, sale: str) -> None:
    """Each act takes effect at once, and the audit tells who did it, in order, and why."""
    url = f"{service.url}/v1/drops/{sale}/reservations"
    heard = []
    for member, act in enumerate(("pause", "resume", "close"), 1):
        _, token, _ = await call("token", "--member", str(member))
        code, shown = await call.json("drop", act, sale, "--member", "42", "--reason", f"to {act}")
        assert code == 0
        assert (shown["paused"], shown["closed"]) == (act == "pause", act == "close")
        status, answer = await post(url, token.strip(), {})
        heard.append((status, answer.get("code", answer.get("state"))))
    assert heard == [(503, "paused"), (201, "held"), (410, "closed")]
    code, found = await call.json("audit", sale)
    assert code == 0
    assert found["balance"]["balanced"] is True
    assert [(a["action"], a["actor"], a["subject"]) for a in found["audit"]] == [
        ("drop.create", "member:1", sale),
        ("drop.pause", "member:42", sale),
        ("drop.resume", "member:42", sale),
        ("drop.close", "member:42", sale),
    ]
    assert [a["detail"] for a in found["audit"][1:]] == [{"reason": f"to {a}"} for a in ("pause", "resume", "close")]
    code, out, _ = await call("audit", sale)
    assert code == 0
    lines = out.splitlines()
    assert "Balanced." in lines
    assert ["member:42", "drop.close", sale, '{"reason":"to', 'close"}'] in [line.split()[1:] for line in lines]
    assert lines[-1] == "The audit is true. 3 of 23 checks could not be made."


async def test_audit_without_the_stores_asks_the_service(call: Call, service: Up, sale: str, tmp_path: Path) -> None:
    """Elsewhere than where the service runs it shows what the service tells, and says that it read no store."""
    _, token, _ = await call("token", "--member", "42", "--role", "ops")
    there = ("--url", service.url, "--token", token.strip(), "--data-dir", str(tmp_path))
    code, out, err = await run("audit", sale, *there)
    assert (code, err) == (0, "")
    assert "Balanced." in out.splitlines()
    assert f"the stores were not read: {tmp_path}/run.json does not tell where they are" in out
    code, out, _ = await run("audit", sale, *there, "--json")
    found = json.loads(out)
    assert (code, found["true"], found["stores_read"], found["checks"]) == (0, True, False, [])
    assert [line["action"] for line in found["audit"]] == ["drop.create"]
    code, out, err = await run("audit", sale, *there, "--journal", str(tmp_path / "journal"))
    assert (code, out) == (2, "")
    assert err.startswith("flashsale: A journal is held against the stores, and ")


async def test_balance_tells_where_units_are(call: Call, service: Up, sale: str) -> None:
    """Two held units are missing in the stock and nowhere else."""
    for member in (1, 2):
        await press(service, call, sale, member)
    code, found = await call.json("drop", "balance", sale)
    assert code == 0
    [item] = found["allocations"]
    assert (found["balanced"], item["available"], item["held"] + item["pending"]) == (True, 3, 2)
    code, out, _ = await call("drop", "balance", sale)
    assert code == 0
    assert out.splitlines()[0].split() == [
        "allocation", "quantity", "available", "pending", "held", "confirmed", "balanced",
    ]  # fmt: skip
    assert out.splitlines()[-1] == "Balanced."


async def test_missing_unit_ends_with_one(call: Call, sale: str, service: Up) -> None:
    """When the gate has lost a unit, balance and audit say so and fail."""
    async with Redis.from_url(service.run["redis_url"]) as redis:
        assert await redis.hincrby(keys.stripe(sale).meta, "n:all", -1) == 4
        for command in (("drop", "balance"), ("audit",)):
            code, out, _ = await call(*command, sale)
            assert code == 1
            assert "NOT balanced." in out.splitlines()


async def test_points_are_imported_and_decide(call: Call, service: Up, tmp_path: Path) -> None:
    """A file becomes a snapshot; an allocation that names it lets in who has enough."""
    path = tmp_path / "points.csv"
    path.write_bytes(POINTS)
    arguments = ("points", "import", str(path), "--name", "august", "--cutoff", "2011-08-16T00:00:00+08:00")
    code, found = await call.json(*arguments)
    assert code == 0
    assert (found["snapshot"], found["members"]) == ("august", 3)
    code, refused = await call.json(*arguments)
    assert (code, refused["code"]) == (1, "conflict")
    access = {"kind": "points", "snapshot": "august", "at_least": 100}
    body = drop("by-points")
    body["allocations"][0]["access"] = access
    (tmp_path / "drop.json").write_text(json.dumps(body))
    code, out, err = await call("drop", "create", str(tmp_path / "drop.json"))
    assert code == 0, err
    assert "100 points in august" in out
    heard = []
    for member in ("1", "2", "3", "4"):
        _, token, _ = await call("token", "--member", member)
        heard.append((await post(f"{service.url}/v1/drops/by-points/reservations", token.strip(), {}))[0])
    assert heard == [201, 403, 201, 403]


async def test_bad_line_is_named_and_nothing_imported(service: Up, tmp_path: Path) -> None:
    """Also when the file is long: the refusal is read although not all of the file has been sent."""
    path = tmp_path / "points.csv"
    path.write_bytes(POINTS + b"4,x\n" + b"".join(b"%d,1\n" % n for n in range(5, 2_000_000)))
    arguments = ("points", "import", str(path), "--name", "bad", "--cutoff", "2020-01-01T00:00:00Z")
    code, out, err = await run(*arguments, "--data-dir", str(service.data_dir), "--json")
    refused = json.loads(out)
    assert (code, refused["code"], refused["line"], err) == (1, "invalid_request", 5, "")
    path.write_bytes(POINTS)
    code, out, _ = await run(*arguments, "--data-dir", str(service.data_dir))
    assert code == 0
    assert out.startswith("Snapshot bad: 3 members as of 2020-01-01T00:00:00Z, in ")


async def test_points_are_read_from_standard_input_with_progress(service: Up) -> None:
    """`-` reads a pipe; on a terminal the progress goes to standard error."""
    terminal, inside = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("points", "import", "-", "--name", "piped", "--cutoff", "2020-01-01T00:00:00Z"),
        *("--data-dir", str(service.data_dir)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=inside,
        env=environ(),
    )
    out, _ = await asyncio.wait_for(process.communicate(POINTS), 30)
    assert process.returncode == 0
    assert out.startswith(b"Snapshot piped: 3 members")
    assert b"0.0 MiB sent; the service stores them" in os.read(terminal, 10_000)
    os.close(inside)
    os.close(terminal)


async def test_interrupted_import_leaves_nothing(service: Up) -> None:
    """Ctrl-C in the middle of a file ends with 1, also while it waits for more; the name stays free."""
    arguments = ("points", "import", "-", "--name", "cut", "--cutoff", "2020-01-01T00:00:00Z")
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        *("--data-dir", str(service.data_dir)),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environ(),
        # What a terminal would give it, also where the tests run in the background, where Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(POINTS + b"".join(b"%d,1\n" % n for n in range(4, 200_000)))
    await process.stdin.drain()  # more than a pipe holds, so it reads
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(60):
        assert (await process.stderr.read()).decode().splitlines()[-1:] == ["Interrupted."]
        assert await process.wait() == 1
    process.stdin.close()
    code, _, err = await run(*arguments, "--data-dir", str(service.data_dir), stdin=POINTS)
    async with asyncio.timeout(60):
        while "is being imported just now" in err:  # until the service has noticed that the rest will not come
            code, _, err = await run(*arguments, "--data-dir", str(service.data_dir), stdin=POINTS)
    assert code == 0, err
