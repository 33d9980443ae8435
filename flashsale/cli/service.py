"""`up`, `serve`, `worker`, `migrate`: the service and its parts.

Each imports what it runs when it is called: no other command has to wait for that, and `serve` must set up the metrics
before anything imports them.
"""

import argparse
import asyncio
import os
import sys

from flashsale.cli import options, output
from flashsale.errors import SetupError


def add(commands: options.Commands) -> None:
    """Put these commands on the command line."""
    started = options.command(
        commands,
        "up",
        _up,
        "Start everything here: servers, web, worker and a demo drop",
        "Valkey and Postgres are brought along and started, unless their URLs are given. Standard output carries one "
        "line, `ready URL`, when it serves. Ctrl-C stops all it started; the data stays.",
    )
    options.add_listen(started)
    options.add_data_dir(started)
    options.add_stores(started, unset="unset: an embedded one")
    started.add_argument(
        "--no-demo", action="store_true", help="without the demo drop (there is none on your own servers)"
    )

    served = options.command(
        commands,
        "serve",
        _serve,
        "Run the web processes alone, on servers given by URL",
        "For production: run `flashsale migrate` before and `flashsale worker` beside it.",
    )
    options.add_listen(served)
    options.add_stores(served)

    worked = options.command(
        commands,
        "worker",
        _worker,
        "Run the worker alone: expire holds, return units, rebuild gates",
        "At least one must run; more do no harm. It waits for servers that are away.",
    )
    options.add_stores(worked)

    migrated = options.command(
        commands, "migrate", _migrate, "Bring the database to the schema of this version", "May be repeated."
    )
    options.add_stores(migrated, redis=False)


def _up(args: argparse.Namespace) -> int:
    from flashsale import up  # noqa: PLC0415 -- see the top

    environ, settings = options.environ_of(args), options.settings_of(args)
    on_terminal = sys.stderr.isatty()

    def announce(url: str) -> None:
        if args.json:
            output.document({"ready": url})
        else:
            output.line(f"ready {url}")

    chosen = up.Options(environ=environ, demo=not args.no_demo, log_files=on_terminal)
    was_ready = asyncio.run(up.up(settings, chosen, say=output.note, announce=announce))
    return 0 if was_ready else 1


def _as_json(args: argparse.Namespace) -> None:
    """For commands whose only output are log lines, `--json` is their form."""
    if args.json:
        os.environ["FLASHSALE_LOG_FORMAT"] = "json"


def _serve(args: argparse.Namespace) -> int:
    from flashsale import serve  # noqa: PLC0415 -- see the top

    _as_json(args)
    return serve.serve(options.settings_of(args))


def _worker(args: argparse.Namespace) -> int:
    from flashsale import worker  # noqa: PLC0415 -- see the top

    _as_json(args)
    return worker.run(options.settings_of(args))


def _migrate(args: argparse.Namespace) -> int:
    from flashsale.ledger import SCHEMA_VERSION  # noqa: PLC0415 -- see the top
    from flashsale.ledger.migrate import migrate  # noqa: PLC0415 -- see the top

    settings = options.settings_of(args)
    if settings.database_url is None:
        raise SetupError("FLASHSALE_DATABASE_URL is not set, so there is no database to migrate.")
    said = asyncio.run(migrate(settings.database_url))
    applied = [line.split()[1] for line in said.splitlines() if line.startswith("Applied: ")]
    if args.json:
        output.document({"schema": SCHEMA_VERSION, "applied": applied})
    else:
        for name in applied:
            output.line(f"applied {name}")
        output.line(f"The schema is at {SCHEMA_VERSION}.")
    return 0
