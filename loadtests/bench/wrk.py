"""wrk, the load generator: one thread, 64 connections unless told otherwise, each request out of a file.

It sends for a time, or, told how many answers to wait for, until each request of the file has had its answer.
"""

import asyncio
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

from loadtests.bench.table import Failed
from loadtests.bench.tokenfile import Requests
from loadtests.errors import SetupError

CONNECTIONS = 64
ANSWER_TIMEOUT_S = 10
PATIENCE_S = 60.0
ANSWERS_WITHIN_S = 240
"""A run that ends with its last answer is given up after this."""
SCRIPT = Path(__file__).with_name("press.lua")


class Silent(Failed):
    """Nobody answered anything while the run lasted."""


class Expected(NamedTuple):
    """What every answer must be: this status, and this word in its body; or else those of `second`."""

    status: int
    word: str
    second: tuple[int, str] | None = None


class Load(NamedTuple):
    """What wrk measured; every answer was an expected one, so many of them of the second kind.

    `first_s` is when the last answer of the first kind came, after the first request. Latencies are wrk's: an answer
    that took more than twice its connection's average stands for the requests that it held up, too.
    """

    requests: int
    second: int
    seconds: float
    first_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    command: str

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    @property
    def first(self) -> int:
        """How many answers were of the first kind."""
        return self.requests - self.second


def find_wrk() -> str:
    """Where wrk is; `SetupError` says how to get it."""
    found = shutil.which("wrk")
    if found is None:
        raise SetupError("wrk is missing: install it (Debian: apt install wrk; macOS: brew install wrk).")
    return found


async def load(
    url: str, requests: Requests, expected: Expected, duration_s: int, *, connections: int = CONNECTIONS
) -> Load:
    """Press for `duration_s`. `Failed` when any answer is not an expected one, or the file was too short."""
    return await _run(url, requests, expected, duration_s, connections=connections, answers=0)


async def load_all(url: str, requests: Requests, expected: Expected, *, connections: int) -> Load:
    """Press until each request but the first, which wrk never sends, has had its answer. `Failed` as above."""
    answers = requests.number - 1
    return await _run(url, requests, expected, ANSWERS_WITHIN_S, connections=connections, answers=answers)


async def _run(
    url: str, requests: Requests, expected: Expected, duration_s: int, *, connections: int, answers: int
) -> Load:
    second = expected.second or (("", "") if answers else ())
    command = [
        find_wrk(), "-t1", f"-c{connections}", f"-d{duration_s}s", f"--timeout={ANSWER_TIMEOUT_S}s", f"-s{SCRIPT}", url,
        "--", str(requests.path), str(requests.length_bytes), str(expected.status), expected.word,
        *map(str, second), *([str(answers)] if answers else []),
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(duration_s + PATIENCE_S):
            output, _ = await process.communicate()
    except TimeoutError:
        raise Failed(f"wrk did not end within {duration_s + PATIENCE_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return read_output(output.decode(errors="replace"), shlex.join(command))


def read_output(output: str, command: str) -> Load:
    """What the script wrote. `Failed` when it says that the measurement is void."""
    said = dict(line[2:].split(" ", 1) for line in output.splitlines() if line.startswith("= "))
    if "exhausted" not in said:
        raise Failed(f"wrk failed: {output.strip()[-500:]}")
    requests, unexpected = int(said["requests"]), int(said["unexpected"])
    if said["exhausted"] != "false":
        raise Failed("the file of requests was too short: the server is faster than expected")
    if unexpected or int(said["broken"]):
        raise Failed(
            f"{unexpected} of {requests} answers were not the expected one (the first: {said['first_unexpected']}), "
            f"{said['broken']} connections broke or answers took over {ANSWER_TIMEOUT_S} s"
        )
    if requests == 0:
        raise Silent("not one request was answered")
    answers = int(said["expected"]) + int(said["second"]) + unexpected
    if int(said.get("answers_wanted", answers)) != answers:
        raise Failed(f"of {said['answers_wanted']} answers {answers} came within {ANSWERS_WITHIN_S} s")
    # Percentiles of wrk's come as numbers with a fraction, or without one.
    took = {name: float(said[f"{name}_us"]) / 1e3 for name in ("p50", "p99", "p999", "max")}
    seconds, first_s = float(said["duration_us"]) / 1e6, float(said["first_us"]) / 1e6
    return Load(
        requests, int(said["second"]), seconds, first_s, took["p50"], took["p99"], took["p999"], took["max"], command
    )
