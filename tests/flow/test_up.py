"""`flashsale up`: one line when it serves, everything kept running, nothing left behind, and clear words otherwise."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from flashsale import up as flashsale_up
from flashsale.settings import load
from tests.flow.command import (
    SECRET,
    Up,
    alive,
    environ,
    family,
    get,
    post,
    reachable_folder,
    run,
    running,
    until,
    until_status,
    up,
)

Fault = Callable[[Path], tuple[list[str], dict[str, str], str]]
"""Plants a fault in a folder: the arguments and settings of a start that meets it, and what is said of it."""


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of its own for a test."""
    with reachable_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Up]:
    """Everything, with two web processes and the demo; its tests may kill what they like."""
    with reachable_folder() as folder:
        async with up(folder / "data", "--workers", "2") as started:
            yield started


async def test_ready_means_that_it_serves(service: Up) -> None:
    """After the ready line the probes answer, and run.json tells who runs where; only its owner can read it."""
    assert await until_status(f"{service.url}/readyz", 200)
    path = service.data_dir / "run.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(service.run) == {"url", "redis_url", "database_url", "pids"}
    assert service.run["url"] == service.url
    commands = {name: " ".join(psutil.Process(pid).cmdline()) for name, pid in service.run["pids"].items()}
    assert set(commands) == {"valkey", "postgres", "web", "worker"}
    for name, part in {"valkey": "valkey-server", "postgres": "postgres", "web": "serve", "worker": "worker"}.items():
        assert part in commands[name]
    assert len(psutil.Process(service.run["pids"]["web"]).children()) == 2


async def test_secret_is_made_once_and_kept_private(service: Up) -> None:
    """Without a setting the secret lies in the data directory; whoever can read it can make tokens."""
    path = service.data_dir / "jwt_secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_bytes()) >= 32
    code, token, _ = await run("token", "--member", "5", "--data-dir", str(service.data_dir))
    assert code == 0
    assert await get(f"{service.url}/v1/me/reservations", token.strip()) == {"items": [], "next": None}


def _unwritable_folder(home: Path) -> tuple[list[str], dict[str, str], str]:
    (home / "file").write_text("")
    return (
        ["--data-dir", str(home / "file" / "data")],
        {},
        r"The data directory \S+/file/data cannot be used: .*--data-dir\.",
    )


def _file_as_folder(home: Path) -> tuple[list[str], dict[str, str], str]:
    (home / "file").write_text("")
    return ["--data-dir", str(home / "file")], {}, r"The data directory \S+/file cannot be used: .*--data-dir\."


def _short_secret(home: Path) -> tuple[list[str], dict[str, str], str]:
    return ["--data-dir", str(home / "data")], {"jwt_secret": "short"}, r"FLASHSALE_JWT_SECRET is 5 bytes long;.* 32 .*"


def _short_kept_secret(home: Path) -> tuple[list[str], dict[str, str], str]:
    (home / "data").mkdir()
    (home / "data" / "jwt_secret").write_text("short")
    return ["--data-dir", str(home / "data")], {}, r"The secret in \S+/jwt_secret is too short\. Remove the file.*"


def _unreachable_redis(home: Path) -> tuple[list[str], dict[str, str], str]:
    url = "redis://:hidden@127.0.0.1:1/0"
    return ["--data-dir", str(home / "data"), "--redis-url", url], {}, r"Redis at 127\.0\.0\.1:1 cannot be reached: .*"


def _unreachable_database(home: Path) -> tuple[list[str], dict[str, str], str]:
    settings = {"database_url": "postgresql://me:hidden@127.0.0.1:1/x"}
    return ["--data-dir", str(home / "data")], settings, r"Postgres at 127\.0\.0\.1:1 cannot be reached: .*"


def _wrong_setting(home: Path) -> tuple[list[str], dict[str, str], str]:
    return ["--data-dir", str(home / "data")], {"workers": "0"}, r"A setting is wrong: .*workers.*"


def _unknown_setting(home: Path) -> tuple[list[str], dict[str, str], str]:
    return ["--data-dir", str(home / "data")], {"wrokers": "2"}, r"FLASHSALE_WROKERS is not a setting.*"


def _foreign_address(home: Path) -> tuple[list[str], dict[str, str], str]:
    return (
        ["--data-dir", str(home / "data"), "--host", "192.0.2.1"],
        {},
        r"Cannot listen on port \d+ of 192\.0\.2\.1: .*",
    )


@pytest.mark.parametrize(
    "fault",
    [
        _unwritable_folder,
        _file_as_folder,
        _short_secret,
        _short_kept_secret,
        _unreachable_redis,
        _unreachable_database,
        _wrong_setting,
        _unknown_setting,
        _foreign_address,
    ],
)
async def test_set_up_fault_is_one_clear_line(fault: Fault, home: Path) -> None:
    """What keeps it from starting is said in one line without secrets; exit code 2, nothing started or left."""
    arguments, settings, line = fault(home)
    code, out, err = await run("up", "--port", "0", *arguments, stdin=None, **settings)
    assert (code, out) == (2, ""), err
    assert re.fullmatch(rf"flashsale: {line}\n", err), err
    assert "hidden" not in err
    assert not (home / "data" / "run.json").exists()
    assert not (home / "data" / "postgres").exists()


async def test_taken_port_is_one_clear_line(home: Path) -> None:
    """Another program's port is left to it."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, out, err = await run("up", "--port", str(port), "--data-dir", str(home / "data"))
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"flashsale: Port {port} on 127\.0\.0\.1 is taken\. .*--port.*\n", err), err
    assert not (home / "data" / "postgres").exists()


async def test_too_old_server_is_one_clear_line(home: Path) -> None:
    """A Redis older than the gate needs is named with its version and the least that will do."""

    async def old_redis(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = b"# Server\r\nredis_version:6.2.14\r\nredis_mode:standalone\r\n"
        while command := await reader.readline():
            count = int(command[1:])
            words = []
            for _ in range(count):
                await reader.readline()
                words.append((await reader.readline()).strip().upper())
            writer.write(b"$%d\r\n%b\r\n" % (len(info), info) if words[0] == b"INFO" else b"-ERR unknown command\r\n")
        writer.close()

    server = await asyncio.start_server(old_redis, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        url = f"redis://127.0.0.1:{port}/0?protocol=2"
        code, out, err = await run("up", "--port", "0", "--data-dir", str(home / "data"), "--redis-url", url)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"flashsale: Redis at 127\.0\.0\.1:{port} is 6\.2\.14; at least 7\.0 is needed\.\n", err), err


async def test_demo_sells_its_units_to_the_crowd_and_keeps_some_for_visitors(service: Up) -> None:
    """300 press for 200 units; the lines that a visitor is shown work as they are printed."""
    told = await service.said(r"(?s)(TOKEN=\S+)\n(curl[^\n]*\"rush\"[^\n]*)\n.*?(curl[^\n]*\"visitors\"[^\n]*)\n")
    done = await service.said(r"Demo drop demo-1: 300 presses, (.*)\n")
    assert re.match(r"200 held, 100 sold_out; the last unit of the crowd went \d+\.\d\d s after the opening;", done[1])
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed, so its lines cannot be run")
    answers = []
    for line in (told[2], told[3], told[3]):
        shell = await asyncio.create_subprocess_exec(
            "sh", "-c", f"{told[1]}\n{line}", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        answers.append((await shell.communicate())[0].decode())
    assert answers[0].startswith("HTTP/1.1 409")
    assert '"code":"sold_out"' in answers[0]
    assert answers[1].startswith("HTTP/1.1 201")
    assert answers[2].startswith("HTTP/1.1 200")
    assert answers[2].splitlines()[-1] == answers[1].splitlines()[-1]


async def test_demo_has_a_page_in_both_languages(service: Up) -> None:
    """Where it is said to be, with its picture; whoever opens it may choose who they are."""
    told = await service.said(r"(http\S+/en/d/demo-1) +(http\S+/zh/d/demo-1)\n")
    async with aiohttp.ClientSession() as session:
        for url, words in ((told[1], "Noon phone"), (told[2], "正午手机")):
            async with session.get(url) as answer:
                page = await answer.text()
            assert words in page
            (picture,) = re.findall(r'src="(/pictures/[^"]+)"', page)
            async with session.get(f"{service.url}{picture}") as answer:
                assert answer.content_type == "image/webp"
        async with session.get(f"{service.url}/en/sign-in") as answer:
            assert 'name="who"' in await answer.text()


async def test_metrics_count_all_web_processes(service: Up) -> None:
    """Whichever process is asked, it tells what all of them did."""
    await service.said("Demo drop demo-1: 300 presses")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        for _ in range(4):
            async with session.get(f"{service.url}/metrics") as answer:
                found = re.search(
                    r'^flashsale_reservations_committed_total\{drop="demo-1"\} ([\d.]+)$',
                    await answer.text(),
                    re.MULTILINE,
                )
            assert found
            assert float(found[1]) >= 200


@pytest.mark.parametrize("name", ["web", "worker", "valkey", "postgres"])
async def test_killed_process_comes_back(name: str, service: Up) -> None:
    """Whatever is killed is started again, run.json names the new process, and the service serves."""
    before = service.run["pids"][name]
    os.kill(before, signal.SIGKILL)
    await until(lambda: service.run["pids"].get(name, before) != before, f"run.json names another {name}")
    await service.said(rf"{name} runs again \(process {service.run['pids'][name]}\)")
    await until_status(f"{service.url}/readyz", 200)
    assert psutil.pid_exists(service.run["pids"][name])
    code, told, _ = await run("drop", "balance", "demo-1", "--data-dir", str(service.data_dir))
    assert code == 0, told


async def test_killed_web_process_is_replaced(service: Up) -> None:
    """One of the web processes is killed: the others serve on, and another one takes its place."""
    web = psutil.Process(service.run["pids"]["web"])
    before = {each.pid for each in web.children()}
    os.kill(min(before), signal.SIGKILL)

    def replaced() -> bool:
        now = set(alive(web.children()))
        return len(now) == 2 and min(before) not in now

    await until(replaced, "there are two web processes again")
    assert service.run["pids"]["web"] == web.pid
    await until_status(f"{service.url}/readyz", 200)


async def test_data_directory_has_one_user(service: Up) -> None:
    """A second start on the same data directory is refused, and does not disturb the first."""
    before = service.run
    code, out, err = await run("up", "--port", "0", "--data-dir", str(service.data_dir))
    assert (code, out) == (2, "")
    assert re.fullmatch(r"flashsale: The data directory \S+ is in use by process \d+\. .*\n", err)
    assert service.run == before
    await until_status(f"{service.url}/readyz", 200)


@pytest.mark.long
async def test_stop_leaves_nothing_running_and_restart_finds_the_data(home: Path) -> None:
    """However it ends, all processes end; the next start has the same secret and every acknowledged reservation.

    A kill of the supervisor itself is the worst case, which only Linux lets it prepare for; then comes Ctrl-C.
    """
    data = home / "data"
    async with up(data) as first:
        told = await first.said(r"Demo drop (demo-\d+): 200 phones")
        _, token, _ = await run("token", "--member", "7", "--data-dir", str(data))
        body = {"allocation": "visitors"}
        _, held = await post(f"{first.url}/v1/drops/{told[1]}/reservations", token.strip(), body, wanted=201)
        processes = family(first.process.pid)
        assert len(processes) > 5
        first.process.send_signal(signal.SIGKILL if sys.platform == "linux" else signal.SIGTERM)
        await until(lambda: alive(processes) == [], "all that it started has ended")
    async with up(data) as second:
        found = await get(f"{second.url}/v1/me/reservations", token.strip())
        assert [item["id"] for item in found["items"]] == [held["id"]]
        assert (await second.said(r"Demo drop (demo-\d+): 200 phones"))[1] == "demo-2"
        assert ("did not end in order" in second.stderr) == (sys.platform == "linux")
        processes = family(second.process.pid)
        second.process.send_signal(signal.SIGINT)
        assert await second.ended() == (0, "")
        assert alive(processes) == []
        assert not (data / "run.json").exists()
        assert "could not" not in second.stderr
        assert second.stderr.splitlines()[-1] == "Stopped."


async def test_stop_before_ready_leaves_nothing_running(home: Path) -> None:
    """Ctrl-C while it starts ends what has started by then; it never was ready, so the exit code is 1."""
    async with running("up", "--port", "0", "--data-dir", str(home / "data")) as started:
        await until((home / "data" / "initdb.log").exists, "Postgres is being set up")
        processes = family(started.process.pid)
        started.process.send_signal(signal.SIGINT)
        assert await started.ended() == (1, "")
        assert alive(processes) == []


async def test_own_servers_are_used_and_get_no_demo(service: Up, home: Path) -> None:
    """With URLs given nothing is started but web and worker, and nobody's database gets a drop unasked."""
    urls = ("--redis-url", service.run["redis_url"], "--database-url", service.run["database_url"])
    await service.said("Demo drop demo-1: 200 phones")
    before = await _drops(service.url)
    data = ("--port", "0", "--data-dir", str(home / "data"))
    async with running("up", "--json", *data, *urls, jwt_secret=SECRET) as second:
        assert second.process.stdout is not None
        ready = json.loads(await asyncio.wait_for(second.process.stdout.readline(), 60))
        assert json.loads((home / "data" / "run.json").read_bytes())["pids"].keys() == {"web", "worker"}
        assert await _drops(ready["ready"]) == before
        assert not (home / "data" / "jwt_secret").exists()
        second.process.send_signal(signal.SIGINT)
        assert await second.ended() == (0, "")
        assert "Demo" not in second.stderr


async def test_log_lines_go_to_files_where_a_terminal_is_not_to_be_flooded(service: Up, home: Path) -> None:
    """With `log_files` (as on a terminal) web and worker write into the data directory, and a person is told so."""
    chosen = {"data_dir": str(home / "data"), "port": "0", "jwt_secret": SECRET, "workers": "1"}
    stores = {name: service.run[name] for name in ("redis_url", "database_url")}
    environment = environ(**chosen, **stores)
    said: list[str] = []
    async with flashsale_up.running(
        load(environment), flashsale_up.Options(environ=environment, log_files=True), said.append
    ) as url:
        await until_status(f"{url}/readyz", 200)
        assert said == [f"Log lines of web and worker: {home}/data/web.log, {home}/data/worker.log."]
        for name, event in (("web", "web.serving"), ("worker", "worker.started")):
            path = home / "data" / f"{name}.log"
            await until(lambda path=path, event=event: event in path.read_text(), f"{name} logs {event}")  # type: ignore[misc]
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not (home / "data" / "run.json").exists()


async def test_failing_demo_does_not_end_the_service() -> None:
    """What goes wrong in the show is said, and no more."""
    said: list[str] = []
    await flashsale_up._demo("http://127.0.0.1:1", SECRET, said.append)
    [line] = said
    assert line.startswith("The demo ended early: GET /v1/ops/drops")


async def _drops(url: str) -> list[str]:
    return [drop["id"] for drop in (await get(f"{url}/v1/drops", ""))["items"]]
