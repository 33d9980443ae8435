"""Real servers from their wheels: up in seconds, private, durable, back after any kill, gone when told."""

import asyncio
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest
import redis.asyncio as redis

from flashsale import embedded
from flashsale.embedded.servers import HOST, PORTS
from flashsale.errors import SetupError
from flashsale.supervise import Account, Event, spawn
from tests.embedded.support import AS_ROOT, alive, family, modes, up_in_another_process
from tests.gate.support import free_port


async def query(url: str, statement: str) -> object:
    """The first value of a statement's answer."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def config(url: str, name: str) -> str:
    """A setting of the running Valkey."""
    async with redis.Redis.from_url(url, decode_responses=True) as client:
        return str((await client.config_get(name))[name])


async def test_valkey_writes_no_file_and_evicts_nothing(servers: embedded.Servers) -> None:
    """The settings of the running server, not those of the file."""
    url = servers.redis_url
    wanted = {
        "appendonly": "no",
        "save": "",
        "maxmemory-policy": "noeviction",
        "bind": HOST,
    }
    assert {name: await config(url, name) for name in wanted} == wanted


async def test_postgres_is_durable(servers: embedded.Servers) -> None:
    """The promise "Postgres remembers before anyone hears yes" stands on these three; encoding and locale are fixed."""
    for name in ("fsync", "full_page_writes", "synchronous_commit"):
        assert await query(servers.database_url, f"SHOW {name}") == "on"
    assert await query(servers.database_url, "SHOW server_encoding") == "UTF8"
    assert (
        await query(servers.database_url, "SELECT datcollate FROM pg_database WHERE datname = current_database()")
        == "C"
    )
    assert (
        await query(servers.database_url, "SELECT current_user || '@' || current_database()") == "flashsale@flashsale"
    )


async def test_both_listen_on_the_loopback_only_and_ask_for_a_password(servers: embedded.Servers) -> None:
    """No other address, no port that an outgoing connection can be given, and nobody without the password."""
    for name, url in (("valkey", servers.redis_url), ("postgres", servers.database_url)):
        process = psutil.Process(servers.supervisor.pids[name])
        listens = {c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        port = urlsplit(url).port
        assert listens == {(HOST, port)}
        assert port in PORTS
    with pytest.raises(redis.AuthenticationError):
        async with redis.Redis(host=HOST, port=urlsplit(servers.redis_url).port or 0) as client:
            await client.get("anything")
    password = urlsplit(servers.database_url).password or ""
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(servers.database_url.replace(password, "guessed"))


async def test_a_killed_valkey_is_back_in_a_moment(servers: embedded.Servers) -> None:
    """Same URL; the first start anew has no delay, as the supervisor's own tests show."""
    pid = servers.supervisor.pids["valkey"]
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        await servers.supervisor.ready("valkey", other_than=pid)
    async with redis.Redis.from_url(servers.redis_url) as client:
        assert await client.ping()


async def test_a_killed_postgres_is_back_with_all_that_was_committed(servers: embedded.Servers) -> None:
    """Same URL, every committed row, although a session was busy and would have outlived the postmaster."""
    url = servers.database_url
    await query(url, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    busy = await asyncpg.connect(url)
    session = busy.get_server_pid()
    work = asyncio.create_task(busy.fetchval("SELECT count(*) FROM generate_series(1, 1000000000) AS a"))
    watcher = await asyncpg.connect(url)
    async with asyncio.timeout(60):
        while await watcher.fetchval("SELECT state FROM pg_stat_activity WHERE pid = $1", session) != "active":
            await asyncio.sleep(0.01)
    pid = servers.supervisor.pids["postgres"]
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        await servers.supervisor.ready("postgres", other_than=pid)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await work
    busy.terminate()
    watcher.terminate()
    assert not alive([session])
    assert await query(url, "SELECT count(*) FROM kept") == 1000
    await query(url, "DROP TABLE kept")


async def test_data_is_found_again_and_nothing_is_left_running(home: Path, state_root: Path) -> None:
    """Rows live over an orderly stop and start, which leave no process and no postmaster.pid."""
    async with embedded.running(home / "data", state_root=state_root) as first:
        await query(first.database_url, "CREATE TABLE kept AS SELECT 42 AS n")
        pids = family(first.supervisor.pids.values())
        assert len(pids) > 2
    assert not alive(pids)
    assert not list((home / "data").rglob("postmaster.pid"))
    async with embedded.running(home / "data", state_root=state_root) as second:
        assert await query(second.database_url, "SELECT n FROM kept") == 42


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent died")
async def test_when_the_supervisor_is_killed_nothing_stays_and_the_data_opens_again(
    home: Path, state_root: Path
) -> None:
    """With kill -9 of the process that runs them: both servers end, with every session; the next start has the rows.

    The next start comes at once, while the servers may still be ending: it waits for them.
    """
    process, said = await up_in_another_process(home / "data", state_root)
    pids = family((int(said["valkey"]), int(said["postgres"])))
    await query(said["database_url"], "CREATE TABLE kept AS SELECT 42 AS n")
    process.kill()
    await process.wait()
    async with embedded.running(home / "data", state_root=state_root) as servers:
        assert not alive(pids)
        assert await query(servers.database_url, "SELECT n FROM kept") == 42
        last = family(servers.supervisor.pids.values())
    assert not alive(last)


async def test_a_server_left_over_is_ended_before_another_starts_on_its_files(home: Path, state_root: Path) -> None:
    """Where the kernel does not stop orphans, or one hangs (SIGSTOP), the next start does."""
    process, said = await up_in_another_process(home / "data", state_root)
    left = [int(said["valkey"])]
    os.kill(left[0], signal.SIGSTOP)
    process.kill()
    await process.wait()
    assert alive(left)
    async with asyncio.timeout(120), embedded.running(home / "data", state_root=state_root):
        assert not alive(left)


async def test_a_stale_pid_file_that_names_a_living_process_does_not_matter(home: Path, state_root: Path) -> None:
    """After a reboot or in a new container some other process of the account has the old postmaster's number."""
    async with embedded.running(home / "data", state_root=state_root):
        pass
    data = home / "data" / "postgres" / "data"
    owner = data.stat()
    account = Account("owner", owner.st_uid, owner.st_gid) if AS_ROOT else None
    other = await spawn(("/bin/sleep", "100"), env={}, cwd=Path("/"), account=account, log=home / "log")
    try:
        (data / "postmaster.pid").write_text(f"{other.pid}\n{data}\n0\n{PORTS.start}\n\n{HOST}\n0 0\nready\n")
        os.chown(data / "postmaster.pid", owner.st_uid, owner.st_gid)
        async with embedded.running(home / "data", state_root=state_root) as servers:
            assert await query(servers.database_url, "SELECT 1") == 1
        assert alive([other.pid])
    finally:
        other.kill()
        await other.wait()


@pytest.mark.skipif(not AS_ROOT, reason="only root's servers run under an account that may be shut out")
async def test_no_permission_is_changed_on_the_way(tmp_path: Path, home: Path) -> None:
    """Data below a folder that is closed: both servers run, and every mode above and beside is what it was."""
    closed = tmp_path / "closed"
    (closed / "beside").mkdir(parents=True)
    closed.chmod(0o700)
    before, said = modes(closed, home), list[str]()
    umask = os.umask(0o077)
    try:
        async with embedded.running(closed / "data", state_root=home / "state", notice=said.append) as servers:
            assert await query(servers.database_url, "SELECT 1") == 1
            for pid in family(servers.supervisor.pids.values()):
                assert psutil.Process(pid).username() == "nobody"
    finally:
        os.umask(umask)
    after = modes(closed, home)
    assert {path: after[path] for path in before} == before
    assert "/" in before
    assert any(str(closed / "data") in line and str(home / "state") in line for line in said)
    secrets = [
        path for path in home.rglob("*") if path.suffix in {".password", ".conf", ".log"} and path.parent != home
    ]
    own = [path for path in secrets if path.name.startswith(("valkey.", "postgres."))]
    assert len(own) == 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in own} == {0o600}


async def test_a_taken_port_is_one_clear_line(home: Path, state_root: Path) -> None:
    """Nothing is started, and the port's holder is left alone."""
    with socket.create_server((HOST, 0)) as holder:
        port = holder.getsockname()[1]
        for server, ports in (("Valkey", {"redis_port": port}), ("Postgres", {"database_port": port})):
            seen: list[Event] = []
            with pytest.raises(SetupError, match=rf"^Port {port}, wanted for {server}, is taken\."):
                async with embedded.running(home / "data", state_root=state_root, on_event=seen.append, **ports):
                    pass
            assert not seen


async def test_a_wanted_port_is_used(home: Path, state_root: Path) -> None:
    """Free ones, given by the caller, are in the URLs."""
    redis_port, database_port = free_port(), free_port()
    async with embedded.running(
        home / "data", state_root=state_root, redis_port=redis_port, database_port=database_port
    ) as servers:
        assert urlsplit(servers.redis_url).port == redis_port
        assert urlsplit(servers.database_url).port == database_port


async def test_when_one_server_cannot_start_the_other_is_stopped(home: Path, state_root: Path) -> None:
    """Data of another Postgres: its own words reach the operator, and nothing stays behind."""
    async with embedded.running(home / "data", state_root=state_root):
        pass
    (home / "data" / "postgres" / "data" / "PG_VERSION").write_text("9\n")
    seen: list[int] = []
    with pytest.raises(SetupError, match=r"^postgres ended .*incompatible with server") as refused:
        async with embedded.running(
            home / "data", state_root=state_root, on_event=lambda event: seen.append(event.pid or 0)
        ):
            pass
    assert "\n" not in str(refused.value)
    assert len(set(seen)) == 2
    assert not alive(seen)


async def test_a_cluster_that_was_cut_short_is_made_again(home: Path, state_root: Path) -> None:
    """A kill -9 in the middle of initdb leaves a folder that is not taken for a database."""
    with (
        embedded.lock_data_dir(home / "data") as data_dir,
        embedded.open_place(data_dir, state_root=state_root, notice=lambda _: None) as place,
    ):
        half = place.files / "postgres" / "data.new"
        half.mkdir()
        (half / "PG_VERSION").write_text("18\n")
    async with embedded.running(home / "data", state_root=state_root) as servers:
        assert await query(servers.database_url, "SELECT 1") == 1
    assert not half.exists()


async def test_operators_own_servers_are_checked_and_not_started(servers: embedded.Servers, home: Path) -> None:
    """With both URLs given nothing is started and no folder for servers is made; with a wrong one it is refused."""
    urls = {"redis_url": servers.redis_url, "database_url": servers.database_url}
    async with embedded.running(home / "data", state_root=home / "state", **urls) as own:  # type: ignore[arg-type]
        assert (own.redis_url, own.database_url, own.supervisor.pids) == (*urls.values(), {})
        assert [entry.name for entry in (home / "data").iterdir()] == ["lock"]
    async with embedded.running(home / "data", state_root=home / "state", redis_url=servers.redis_url) as mixed:
        assert list(mixed.supervisor.pids) == ["postgres"]
    with pytest.raises(SetupError, match=f"Redis at {HOST}:1 cannot be reached: nothing listens there"):
        async with embedded.running(home / "data", state_root=home / "state", redis_url=f"redis://{HOST}:1"):
            pass


def plain_python() -> str:
    """A Python of this version that every account can run, or a skip that says there is none."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        try:
            command = (candidate, "-c", "import asyncio")
            subprocess.run(command, check=True, capture_output=True, cwd="/", user="nobody", group=65534, env={})
        except (OSError, subprocess.SubprocessError):
            continue
        return candidate
    pytest.skip(f"no {version} that the account nobody can run")


@pytest.mark.skipif(not AS_ROOT, reason="this is a plain user already")
@pytest.mark.timeout(300)
async def test_as_a_plain_user_all_of_this_works_too() -> None:
    """The tests that accounts matter to, run by one without any right."""
    python, here = plain_python(), Path(__file__).parent
    top = here.parent.parent
    life = "found_again or killed or left_over or stale_pid or unwritable or plain or another_accounts"
    tests = ("-k", life, str(here / "test_places.py"), str(here / "test_servers.py"))
    packages = [path for path in sys.path if path.endswith("site-packages")]
    with tempfile.TemporaryDirectory(prefix="flashsale-plain-") as folder:
        shutil.chown(folder, "nobody")
        environ = {"HOME": folder, "TMPDIR": folder, "PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1"}
        environ["PYTHONPATH"] = os.pathsep.join([str(top), *packages])
        who = pwd.getpwnam("nobody")

        async def run(*arguments: str) -> tuple[int | None, str]:
            process = await asyncio.create_subprocess_exec(
                python,
                *arguments,
                cwd=top,
                env=environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                user=who.pw_uid,
                group=who.pw_gid,
                extra_groups=(),
            )
            output, _ = await process.communicate()
            return process.returncode, output.decode().strip()

        code, output = await run("-c", "import pytest, flashsale.embedded")
        if code != 0:
            pytest.skip(f"{python} as nobody cannot import what it needs: {output.splitlines()[-1]}")
        code, output = await run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs", *tests)
        assert code == 0, output
        assert " passed" in output
