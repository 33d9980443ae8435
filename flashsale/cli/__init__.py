"""The command line. Exit codes: 0 done, 1 refused or failed, 2 usage or set-up.

Standard output carries the result and nothing else: for a person, or with `--json` as one JSON document, also when
the result is a refusal (`{"code": …, "detail": …}`). Everything else goes to standard error.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

from flashsale.cli import audit, drops, fcodes, orders, output, points, receiver, service, token
from flashsale.errors import FlashsaleError, Refused, SetupError, Unauthenticated

DONE: Final = 0
FAILED: Final = 1
SETUP: Final = 2


def parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    top = argparse.ArgumentParser(
        prog="flashsale",
        description="Sells limited quantities fairly, fast, and without ever losing or overselling a unit.",
        epilog="Settings are FLASHSALE_* environment variables; options override them. "
        "Exit codes: 0 done, 1 refused or failed, 2 usage or set-up.",
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in (service, token, drops, points, fcodes, orders, receiver, audit):
        group.add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command; the exit code."""
    args = parser().parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except FlashsaleError as error:
        return _failed(error, as_json=args.json)
    except KeyboardInterrupt:
        output.note("Interrupted.")
        return FAILED
    except BrokenPipeError:  # whoever read our output has gone; nothing more can be said there
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


def _failed(error: FlashsaleError, *, as_json: bool) -> int:
    code, extra = "unavailable", {}
    match error:
        case SetupError():
            code = "setup"
        case Refused():
            code, extra = error.code, error.extra
        case Unauthenticated():
            code = "unauthenticated"
    if as_json:
        output.document({"code": code, "detail": error.detail, **extra})
    else:
        output.note(f"flashsale: {error.detail}" if code == "setup" else f"flashsale: {code}: {error.detail}")
    return SETUP if code == "setup" else FAILED
