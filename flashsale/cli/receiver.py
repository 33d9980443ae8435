"""`receiver`: a shop's endpoint to try webhooks with.

What it runs is imported when it is called: no other command has to wait for that.
"""

import argparse
import math
import os
import sys
import time
from typing import Final

import msgspec

from flashsale.cli import options, output
from flashsale.webhooks import parse_secret

SECRET_VARIABLE: Final = "FLASHSALE_FULFILMENT_SECRET"  # noqa: S105 -- a variable's name
PORT: Final = 9000
STATUS: Final = 500
PORT_MAX: Final = 65_535
DELAY_MAX_S: Final = 3_600.0


def add(commands: options.Commands) -> None:
    """Put this command on the command line."""
    received = options.command(
        commands,
        "receiver",
        _receive,
        "Receive and verify webhooks, to try them with",
        "Writes one line for each event that it accepts, before it answers; `again` marks one that was accepted "
        "before. What it refuses, and why, is said on standard error. Ctrl-C ends it.",
    )
    received.add_argument(
        "--secret", metavar="whsec_…", help=f"the secret that the worker signs with ({SECRET_VARIABLE})"
    )
    received.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    received.add_argument("--port", type=_port, default=PORT, help=f"port to listen on, 0 for any (default: {PORT})")
    received.add_argument(
        "--fail",
        type=_tries,
        default=0,
        metavar="N",
        help="fail the first N tries of each event, or `always` (default: 0)",
    )
    received.add_argument(
        "--status",
        type=_status,
        default=STATUS,
        metavar="S",
        help=f"the answer to a try that fails (default: {STATUS})",
    )
    received.add_argument(
        "--delay", type=_seconds, default=0.0, metavar="SECONDS", help="wait before each answer (default: 0)"
    )
    received.add_argument("--twice", action="store_true", help="answer every request twice")


def _receive(args: argparse.Namespace) -> int:
    import uvloop  # noqa: PLC0415 -- see the top

    from flashsale import receiver  # noqa: PLC0415 -- see the top

    encode = msgspec.json.Encoder().encode

    def as_json(one: receiver.Received) -> str:
        return encode(one).decode()

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    uvloop.run(
        receiver.receive(
            host=args.host,
            port=args.port,
            secret=parse_secret(args.secret or os.environ.get(SECRET_VARIABLE, "")),
            behaviour=receiver.Behaviour(fail=args.fail, status=args.status, delay_s=args.delay, twice=args.twice),
            write=write,
            as_line=as_json if args.json else receiver.line_of,
            note=output.note,
            now=time.time,
        )
    )
    return 0


def _port(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text[:6]) <= PORT_MAX:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port: give a whole number from 0 to {PORT_MAX}")


def _tries(text: str) -> float:
    if text == "always":
        return math.inf
    if text.isascii() and text.isdecimal():
        return int(text[:9])
    raise argparse.ArgumentTypeError(f"{text!r} is no number of tries: give a whole number, or `always`")


def _status(text: str) -> int:
    if text.isascii() and text.isdecimal() and 300 <= int(text[:4]) <= 599:  # noqa: PLR2004 -- those that fail
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no status of a failure: give one from 300 to 599")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if 0 <= value <= DELAY_MAX_S:
        return value
    raise argparse.ArgumentTypeError(f"{text!r} is no delay: give seconds, from 0 to {DELAY_MAX_S:g}")
