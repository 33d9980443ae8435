"""Programs are started, watched, started again and stopped; nothing is left running, however it ends."""

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from flashsale.errors import SetupError
from flashsale.supervise import RESTART_MAX_S, Account, Event, Program, Supervisor, restart_delay_s, spawn
from tests.embedded.support import alive, until

ENV = {"PATH": os.environ.get("PATH", "/usr/bin:/bin")}


def written(path: Path) -> Callable[[], Awaitable[bool]]:
    """A program is ready when it has written this file."""

    async def ready() -> bool:
        return path.exists()

    return ready


def shell(folder: Path, script: str, name: str = "one", **more: object) -> Program:
    """A program that runs a shell script in `folder` and is ready when it has written a file of its own name."""
    values: dict[str, object] = {"ready": written(folder / name), "log": folder / f"{name}.log"}
    return Program(name=name, argv=("/bin/sh", "-c", script), env=ENV, cwd=folder, **{**values, **more})  # type: ignore[arg-type]


async def test_start_waits_until_the_program_is_ready(tmp_path: Path) -> None:
    """`start` returns when `ready` says so, not before, and tells the listener both steps under one pid."""
    events: list[Event] = []
    async with Supervisor(events.append) as supervisor:
        await supervisor.start(shell(tmp_path, "touch one; exec sleep 100"))
        assert (tmp_path / "one").exists()
        (pid,) = supervisor.pids.values()
        assert alive([pid])
    assert [(event.what, event.pid) for event in events] == [("started", pid), ("ready", pid), ("stopped", pid)]
    assert not alive([pid])


async def test_a_program_that_ends_at_once_is_a_setup_error_with_its_last_words(tmp_path: Path) -> None:
    """The one line names program, exit code, its last output and the log; nobody waits for the time-out."""
    async with Supervisor() as supervisor, asyncio.timeout(60):
        with pytest.raises(
            SetupError, match=r"^one ended before it was ready \(exit code 3\); .*one\.log ends: bad port"
        ):
            await supervisor.start(shell(tmp_path, "echo bad port; exit 3", ready_timeout_s=60.0))
        assert supervisor.pids == {}


async def test_last_words_are_those_of_this_start_only(tmp_path: Path) -> None:
    """What an earlier run wrote to the log explains nothing about this one."""
    (tmp_path / "one.log").write_text("an old complaint\n")
    async with Supervisor() as supervisor:
        with pytest.raises(SetupError) as refused:
            await supervisor.start(shell(tmp_path, "echo a new one; exit 1"))
    assert "a new one" in str(refused.value)
    assert "old" not in str(refused.value)


async def test_a_program_that_never_gets_ready_is_ended(tmp_path: Path) -> None:
    """After `ready_timeout_s` it is a SetupError, and the process is gone."""
    events: list[Event] = []
    async with Supervisor(events.append) as supervisor:
        with pytest.raises(SetupError, match=r"one was not ready within 0\.3 s"):
            await supervisor.start(shell(tmp_path, "exec sleep 100", ready_timeout_s=0.3))
    pids = {event.pid for event in events if event.pid}
    assert pids
    assert not alive(pids)


async def test_what_cannot_be_run_is_a_setup_error(tmp_path: Path) -> None:
    """A missing binary, a missing folder and an impossible account are told in one line."""
    program = Program(name="one", argv=("/no/such/program",), env={}, cwd=tmp_path, ready=written(tmp_path / "one"))
    async with Supervisor() as supervisor:
        with pytest.raises(SetupError, match="Cannot run /no/such/program"):
            await supervisor.start(program)
        with pytest.raises(SetupError, match="Cannot run"):
            await supervisor.start(shell(tmp_path / "missing", "true", log=None))
        if os.geteuid() != 0:
            with pytest.raises(SetupError, match="Cannot run /bin/sh as other"):
                await supervisor.start(shell(tmp_path, "true", account=Account("other", os.geteuid() + 1, 1)))


async def test_if_one_cannot_start_the_others_of_the_call_are_ended(tmp_path: Path) -> None:
    """Programs start side by side; what had started before the fault does not outlive the call."""
    events: list[Event] = []
    async with Supervisor(events.append) as supervisor:
        with pytest.raises(SetupError, match="two ended"):
            await supervisor.start(shell(tmp_path, "exec sleep 100"), shell(tmp_path, "sleep 0.2; exit 1", "two"))
        assert supervisor.pids == {}
        assert not alive({event.pid for event in events if event.pid})
        assert {event.name for event in events} == {"one", "two"}


async def test_what_dies_is_started_again_at_once(tmp_path: Path) -> None:
    """After kill -9 it is back under another pid; the listener hears how it died."""
    events: list[Event] = []
    async with Supervisor(events.append) as supervisor:
        await supervisor.start(shell(tmp_path, "touch one; exec sleep 100"))
        first = supervisor.pids["one"]
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(60):
            second = await supervisor.ready("one", other_than=first)
        assert alive([first, second]) == [second]
    assert Event("one", first, "died", "killed by SIGKILL") in events


async def test_it_is_tried_again_until_it_starts(tmp_path: Path) -> None:
    """Failed restarts are told, one by one, and end with the first that succeeds."""
    events: list[Event] = []
    async with Supervisor(events.append, jitter=lambda: 0.999) as supervisor:
        await supervisor.start(shell(tmp_path, "[ ! -e broken ] || exit 9; touch one; exec sleep 100"))
        first = supervisor.pids["one"]
        (tmp_path / "broken").touch()
        (tmp_path / "one").unlink()
        os.kill(first, signal.SIGKILL)
        await until(lambda: [e.what for e in events].count("failed") == 2, "two restarts have failed")
        assert supervisor.pids == {}
        (tmp_path / "broken").unlink()
        async with asyncio.timeout(60):
            await supervisor.ready("one", other_than=first)
    assert "exit code 9" in next(event.detail for event in events if event.what == "failed")


def test_restart_delays_grow_up_to_a_cap_and_are_spread() -> None:
    """None, then doubling, capped, and by chance down to a half."""
    assert [restart_delay_s(failures, 0) for failures in range(5)] == [0, 0.25, 0.5, 1, 2]
    assert restart_delay_s(10_000, 0) == RESTART_MAX_S
    assert restart_delay_s(0, 0.9) == 0
    assert RESTART_MAX_S / 2 < restart_delay_s(100, 0.999) < RESTART_MAX_S * 0.51


async def test_stopping_goes_backwards_and_leaves_nothing(tmp_path: Path) -> None:
    """The last started stops first, and each has ended before the next is asked to."""
    events: list[Event] = []
    script = "trap 'sleep 0.1; echo {0} >> order; exit 0' TERM; touch {0}; while :; do sleep 0.01; done"
    async with Supervisor(events.append) as supervisor:
        for name in ("first", "second", "third"):
            await supervisor.start(shell(tmp_path, script.format(name), name))
        pids = list(supervisor.pids.values())
    assert (tmp_path / "order").read_text().split() == ["third", "second", "first"]
    assert not alive(pids)


async def test_what_ignores_the_stop_signal_is_killed(tmp_path: Path) -> None:
    """After `stop_timeout_s` there is no asking any more; a stopped (SIGSTOP) process goes, too."""
    async with Supervisor() as supervisor:
        deaf = "trap '' TERM; touch one; while :; do sleep 0.05; done"
        await supervisor.start(shell(tmp_path, deaf, stop_timeout_s=0.2))
        await supervisor.start(shell(tmp_path, "touch two; exec sleep 100", "two", stop_timeout_s=0.2))
        pids = supervisor.pids
        os.kill(pids["two"], signal.SIGSTOP)
    assert not alive(pids.values())


async def test_what_a_program_leaves_in_its_group_is_ended(tmp_path: Path) -> None:
    """A child that outlives its killed parent would hold its port against the restart."""
    async with Supervisor() as supervisor:
        await supervisor.start(shell(tmp_path, "sleep 100 & echo $! > child; touch one; wait"))
        first, child = supervisor.pids["one"], int((tmp_path / "child").read_text())
        assert alive([child])
        os.kill(first, signal.SIGKILL)
        await until(lambda: not alive([child]), "the killed program's child has ended")


async def test_a_stop_while_restarts_fail_leaves_nothing(tmp_path: Path) -> None:
    """A program between two tries has no process, and gets none after `stop`."""
    events: list[Event] = []
    supervisor = Supervisor(events.append)
    await supervisor.start(shell(tmp_path, "[ ! -e broken ] || exit 1; touch one; exec sleep 100"))
    (tmp_path / "broken").touch()
    (tmp_path / "one").unlink()
    os.kill(supervisor.pids["one"], signal.SIGKILL)
    await until(lambda: [e.what for e in events].count("failed") >= 2, "two restarts have failed")
    await supervisor.stop()
    assert supervisor.pids == {}
    assert not alive({event.pid for event in events if event.pid})


async def test_a_cancelled_stop_ends_the_rest_by_force(tmp_path: Path) -> None:
    """A second Ctrl-C means now."""
    supervisor = Supervisor()
    deaf = "trap '' TERM; touch {0}; while :; do sleep 0.05; done"
    for name in ("one", "two"):
        await supervisor.start(shell(tmp_path, deaf.format(name), name, stop_timeout_s=60.0))
    pids = supervisor.pids
    stopping = asyncio.create_task(supervisor.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    async with asyncio.timeout(30):
        await asyncio.gather(stopping, return_exceptions=True)
    await until(lambda: not alive(pids.values()), "both have ended")
    await supervisor.stop()


async def test_a_listener_that_fails_ends_nothing(tmp_path: Path) -> None:
    """Its fault goes to the loop's exception handler; the restart takes place all the same."""
    faults: list[str] = []
    loop = asyncio.get_running_loop()

    def note(_: object, context: dict[str, object]) -> None:
        faults.append(str(context["exception"]))

    loop.set_exception_handler(note)

    def listener(event: Event) -> None:
        raise OSError(f"disk full at {event.what}")

    try:
        async with Supervisor(listener) as supervisor:
            await supervisor.start(shell(tmp_path, "touch one; exec sleep 100"))
            first = supervisor.pids["one"]
            os.kill(first, signal.SIGKILL)
            async with asyncio.timeout(60):
                await supervisor.ready("one", other_than=first)
    finally:
        loop.set_exception_handler(None)
    assert "disk full at died" in faults


async def test_an_interrupt_of_the_terminal_does_not_reach_the_programs(tmp_path: Path) -> None:
    """Each program leads a group and a session of its own: Ctrl-C reaches the supervisor, which stops in order."""
    async with Supervisor() as supervisor:
        await supervisor.start(shell(tmp_path, "touch one; exec sleep 100"))
        pid = supervisor.pids["one"]
        assert os.getpgid(pid) == pid != os.getpgid(0)
        assert os.getsid(pid) == pid


async def test_a_large_log_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start of its program, under one other name; the last words come from the new one."""
    monkeypatch.setattr("flashsale.supervise.LOG_MAX_BYTES", 10)
    (tmp_path / "one.log").write_text("a long old log\n")
    async with Supervisor() as supervisor:
        with pytest.raises(SetupError, match="ends: new"):
            await supervisor.start(shell(tmp_path, "echo new; exit 1"))
    assert (tmp_path / "one.log.1").read_text() == "a long old log\n"
    assert (tmp_path / "one.log").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent died")
async def test_when_the_supervisor_is_killed_its_programs_get_their_stop_signal(tmp_path: Path) -> None:
    """Its kill -9 leaves nothing running, and each program had its chance of an orderly end."""
    script = textwrap.dedent("""
        import asyncio, sys
        from pathlib import Path
        from flashsale.supervise import Program, Supervisor
        async def main():
            folder = Path(sys.argv[1])
            async def ready():
                return (folder / "pid").exists()
            work = "trap 'touch orderly; exit' TERM; echo $$ > new; mv new pid; while :; do sleep 0.01; done"
            program = Program(name="one", argv=("/bin/sh", "-c", work), env={}, cwd=folder, ready=ready)
            async with Supervisor() as supervisor:
                await supervisor.start(program)
                (folder / "up").touch()
                await asyncio.Event().wait()
        asyncio.run(main())
    """)
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    supervisor = await asyncio.create_subprocess_exec(sys.executable, "-c", script, str(tmp_path), env=environ)
    await until((tmp_path / "up").exists, "the other supervisor is up")
    pid = int((tmp_path / "pid").read_text())
    assert psutil.Process(pid).ppid() == supervisor.pid
    supervisor.kill()
    await supervisor.wait()
    await until(lambda: not alive([pid]), "the orphan has ended")
    assert (tmp_path / "orderly").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change account")
async def test_an_account_is_taken_with_its_group_and_no_others(home: Path) -> None:
    """User, group and supplementary groups are all given up before the program runs."""
    log = home / "log"
    process = await spawn(
        ("/bin/sh", "-c", "id -u; id -g; id -G"), env=ENV, cwd=home, account=Account("some", 54321, 54322), log=log
    )
    assert await process.wait() == 0
    assert log.read_text().split() == ["54321", "54322", "54322"]
