"""What the tests of this folder share."""

import asyncio
import json
import os
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

AS_ROOT = os.geteuid() == 0


async def until(condition: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    """Wait for a named condition; its name is the failure."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"waited {timeout_s:g} s in vain until {what}") from None


def alive(pids: Iterable[int]) -> list[int]:
    """Those of the processes that run; one that has ended and waits to be reaped does not."""
    found = []
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
        except psutil.NoSuchProcess:
            continue
    return found


def family(pids: Iterable[int]) -> list[int]:
    """The processes and all their descendants."""
    return [one.pid for pid in pids for one in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))]


def modes(*tops: Path) -> dict[str, str]:
    """Mode and owner of each of these paths, of everything above them and of everything below."""
    paths = {path for top in tops for path in (top, *top.parents, *top.rglob("*"))}
    found = {str(path): path.lstat() for path in sorted(paths)}
    return {path: f"{stat.S_IMODE(one.st_mode):o} {one.st_uid}:{one.st_gid}" for path, one in found.items()}


async def up_in_another_process(data_dir: Path, state_root: Path) -> tuple[asyncio.subprocess.Process, dict[str, str]]:
    """Run the embedded servers under a Python of their own; gives it and its URLs and pids."""
    script = """
import asyncio, json, sys
from pathlib import Path
from flashsale import embedded

async def main():
    async with embedded.running(Path(sys.argv[1]), state_root=Path(sys.argv[2])) as servers:
        said = {"redis_url": servers.redis_url, "database_url": servers.database_url, **servers.supervisor.pids}
        print(json.dumps(said), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        str(data_dir),
        str(state_root),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 120)
    assert line, f"it ended with {await process.wait()}"
    return process, json.loads(line)
