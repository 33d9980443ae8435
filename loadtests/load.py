"""Load: a sale with a crowd of shoppers, behaving and hostile, by locust; audited, with a report.

    python -m loadtests.load --shape noon --shoppers 3000 --units 600 [--processes 2] [--url http://…]

Without `--url` it starts a service of its own. Exit code 0: everything is true; 1: a contradiction or an error, spelled
out; 2: it could not be run.
"""

import argparse
import asyncio
import contextlib
import ipaddress
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from loadtests.crowd.guests import MIX
from loadtests.crowd.options import VARIABLE, Options
from loadtests.crowd.staging import read_tokens
from loadtests.crowd.verdict import RESULT, SUMMARY
from loadtests.errors import SetupError
from loadtests.http1 import Target
from loadtests.replay import allow_files
from loadtests.service import Service, found_or_started, free_port
from loadtests.shapes import SHAPES

HERE = Path(__file__).parent
OPERATOR_VARIABLE = "LOADTEST_OPERATOR_TOKEN"
LOOKS_A_SECOND = 500
"""So many look at the drop before the opening, in each second of the time for it."""
LEAD_S_MIN = 3.0
SHOPPERS_MIN = 2 * len(MIX)
CONNECTIONS_A_HAMMERER = 8
STOP_TIMEOUT_S = 120.0
"""So long after Ctrl-C for locust to end: the run is still judged."""
LOG_LINES = 15


def options_of(asked: argparse.Namespace, service: Service, folder: Path, environ: Mapping[str, str]) -> Options:
    """The whole of what was asked, what was not named coming from the shape. Errors: `SetupError`."""
    shape = SHAPES[asked.shape]
    shoppers = asked.shoppers or shape.shoppers
    if shoppers < SHOPPERS_MIN:
        raise SetupError(f"{shoppers} shoppers are too few for all roles: at least {SHOPPERS_MIN} (--shoppers).")
    seconds = asked.seconds or shape.seconds
    if seconds <= 1:
        raise SetupError(f"{seconds:g} s are too short: the rush alone takes one (--seconds).")
    operator = environ.get(OPERATOR_VARIABLE, "")
    if asked.tokens and not operator:
        raise SetupError(f"--tokens has the shoppers'; the operator's has to be in {OPERATOR_VARIABLE}.")
    if asked.tokens and len(read_tokens(asked.tokens)) < shoppers:
        raise SetupError(f"{asked.tokens} has fewer tokens than the {shoppers:,} shoppers need (--shoppers).")
    allow_files(shoppers + int(CONNECTIONS_A_HAMMERER * MIX["hammerer"] * shoppers))
    return Options(
        url=service.url.rstrip("/"),
        secret=service.secret,
        operator_token=operator,
        tokens=str(asked.tokens.resolve()) if asked.tokens else "",
        redis_url=asked.redis_url or service.redis_url or "",
        database_url=asked.database_url or service.database_url or "",
        shape=shape.name,
        shoppers=shoppers,
        units=asked.units or max(1, round(shape.units * shoppers / shape.shoppers)),
        seconds=seconds,
        hold_seconds=asked.hold_seconds or shape.hold_seconds,
        lead_seconds=asked.lead_seconds or max(LEAD_S_MIN, 0.6 * shoppers / LOOKS_A_SECOND),
        patience_seconds=asked.patience_seconds,
        settle_seconds=30.0,
        seed=asked.seed,
        processes=asked.processes,
        page=asked.page,
        folder=str(folder),
        out=str(asked.out.resolve()),
    )


def command_of(asked: argparse.Namespace, options: Options) -> list[str]:
    """How locust is started."""
    out = Path(options.out)
    command = [sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), "--host", options.url]
    command += ["--loglevel", "WARNING", "--logfile", str(out / "locust.log"), "--html", str(out / "locust.html")]
    if options.page:
        command += ["--web-host", "127.0.0.1", "--web-port", str(asked.page_port)]
        command += ["--autostart", "--autoquit", "0"] if asked.autostart else []
    else:
        command += ["--headless", "--only-summary"]
    if asked.expect_workers:
        command += ["--master", "--expect-workers", str(asked.expect_workers)]
        command += ["--master-bind-host", asked.master_host, "--master-bind-port", str(asked.master_port)]
    elif options.processes > 1:
        port = str(free_port())
        command += ["--processes", str(options.processes), "--master-bind-host", "127.0.0.1"]
        command += ["--master-bind-port", port, "--master-port", port]
    return command


async def worker(asked: argparse.Namespace) -> int:
    """A process, or several, that a master elsewhere leads: it tells them everything. Ends when the master does."""
    command = [sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), "--worker", "--loglevel", "WARNING"]
    command += ["--master-host", asked.master_host, "--master-port", str(asked.master_port)]
    if asked.processes > 1:
        command += ["--processes", str(asked.processes)]
    process = await asyncio.create_subprocess_exec(*command, env=_environ(os.environ), start_new_session=True)
    return await _ended(process)


def _environ(environ: Mapping[str, str]) -> dict[str, str]:
    """What locust's processes get: they find us wherever they are started."""
    path = [str(HERE.parent), *filter(None, [environ.get("PYTHONPATH")])]
    return {**environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}


def _resolver(url: str) -> dict[str, str]:
    """An address needs no looking up: without a thread for it, opening a connection costs the generator half.

    Every shopper opens one. A name is looked up beside the others' work, as is gevent's default.
    """
    try:
        ipaddress.ip_address(Target.parse(url).host)
    except ValueError:
        return {}
    return {"GEVENT_RESOLVER": "block"}


async def _ended(process: asyncio.subprocess.Process, *, by_ctrl_c: bool = False) -> int:
    """Wait for locust; a Ctrl-C is passed on, once, and waited for. `by_ctrl_c`: that is how it is meant to end."""
    try:
        return await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        if by_ctrl_c and process.returncode is not None:
            return process.returncode
        raise


async def run(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Find or start the service, let locust run, tell what came of it; the exit code. Errors: `SetupError`."""
    out: Path = asked.out
    _clear(out)
    folder = Path(tempfile.mkdtemp(prefix="flashsale-crowd-"))
    try:
        async with found_or_started(
            asked.url, asked.data_dir, secret=_secret(asked), workers=asked.workers, environ=environ
        ) as service:
            options = options_of(asked, service, folder, environ)
            options.write(folder / "options.json")
            if options.page:
                sys.stderr.write(
                    f"Locust's page: http://127.0.0.1:{asked.page_port} (Start there; Ctrl-C here ends it)\n"
                )
            process = await asyncio.create_subprocess_exec(
                *command_of(asked, options),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                env=_environ(environ) | {VARIABLE: str(folder / "options.json")} | _resolver(options.url),
                start_new_session=True,
            )
            code = await _ended(process, by_ctrl_c=asked.page)
    finally:
        shutil.rmtree(folder)
    return _told(code, out, page=asked.page)


def _clear(out: Path) -> None:
    """Make the report's folder; what an earlier run said there is not this one's."""
    out.mkdir(parents=True, exist_ok=True)
    for stale in (RESULT, SUMMARY):
        (out / stale).unlink(missing_ok=True)


def _secret(asked: argparse.Namespace) -> str | None:
    # With the shoppers' tokens at hand nothing is signed here; a service that is found is not asked for its secret.
    return asked.secret or ("-" if asked.tokens else None)


def _told(code: int, out: Path, *, page: bool) -> int:
    """The exit code, after saying where the report is."""
    if not (out / RESULT).exists():
        if page and code == 0:
            return 0  # nobody pressed Start
        log = out / "locust.log"
        tail = log.read_text(errors="replace").splitlines()[-LOG_LINES:] if log.exists() else []
        raise SetupError("\n".join([*tail, f"There is no result: locust ended with exit code {code} ({log})."]))
    sys.stdout.write((out / SUMMARY).read_text() if not page else "")
    sys.stdout.write(f"Report: {out / 'index.html'}\n")
    return code


def parser() -> argparse.ArgumentParser:
    """The command line."""
    shapes = "; ".join(f"{shape.name}: {shape.meaning}" for shape in SHAPES.values())
    made = argparse.ArgumentParser(
        prog="python -m loadtests.load", description="A crowd of shoppers, an audit, a report.", epilog=shapes
    )
    made.add_argument("--shape", choices=list(SHAPES), default="noon", help="how they arrive (%(default)s)")
    made.add_argument("--shoppers", type=_count, help="arrivals; else the shape's")
    made.add_argument("--units", type=_count, help="units for everybody; else in the shape's proportion")
    made.add_argument("--seconds", type=_seconds, help="length of the schedule of arrivals; else the shape's")
    made.add_argument("--hold-seconds", type=_count, help="how long a unit is held; else the shape's")
    made.add_argument(
        "--lead-seconds", type=_seconds, help="to look before the opening; else by the number of shoppers"
    )
    made.add_argument("--patience-seconds", type=_seconds, default=30.0, help="to a verdict (%(default)s)")
    made.add_argument("--seed", type=int, default=20120818, help="draws the schedule (%(default)s)")
    made.add_argument("--processes", type=_count, default=1, help="that generate the load (%(default)s)")
    made.add_argument("--url", help="the service; without it one is started")
    made.add_argument("--secret", help="HS256 secret; else FLASHSALE_JWT_SECRET, else the data directory's")
    made.add_argument("--tokens", type=Path, help=f"CSV member_id,token; the operator's token in {OPERATOR_VARIABLE}")
    made.add_argument("--data-dir", type=Path, help="data directory of `flashsale up`, running or to be started")
    made.add_argument("--workers", type=_count, help="web processes of the service that is started")
    made.add_argument("--redis-url", help="for the auditor; else the data directory's")
    made.add_argument("--database-url", help="for the auditor; else the data directory's")
    made.add_argument("--out", type=Path, default=Path("build/load"), help="where the report goes (%(default)s)")
    made.add_argument("--page", action="store_true", help="with locust's own page, where runs are started")
    made.add_argument("--page-port", type=int, default=8089, help="(%(default)s)")
    made.add_argument("--autostart", action="store_true", help="with --page: one run, at once, and end")
    made.add_argument("--expect-workers", type=_count, help="lead so many workers that are started elsewhere")
    made.add_argument("--worker", action="store_true", help="take part in the run of a master")
    made.add_argument("--master-host", default="127.0.0.1", help="where the master listens (%(default)s)")
    made.add_argument("--master-port", type=int, default=5557, help="(%(default)s)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    asked = parser().parse_args(argv)
    # Also where a shell has started this in the background, which ignores it: there is a service to be stopped.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with asyncio.Runner() as runner:
            return runner.run(worker(asked) if asked.worker else run(asked, os.environ))
    except SetupError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 130


def _count(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError
    return value


def _seconds(text: str) -> float:
    if not 0 < (value := float(text)) < float("inf"):
        raise ValueError
    return value


if __name__ == "__main__":
    sys.exit(main())
