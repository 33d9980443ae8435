"""`token`: a token for a member."""

import argparse
import time
from datetime import UTC, datetime
from typing import Final

from flashsale.cli import options, output
from flashsale.web.auth import mint

HOURS: Final = 12.0


def add(commands: options.Commands) -> None:
    """Put this command on the command line."""
    made = options.command(
        commands,
        "token",
        _token,
        "Make a token for a member",
        "Signed with FLASHSALE_JWT_SECRET or, when that is unset, with the secret in the data directory.",
    )
    made.add_argument("--member", type=options.member, required=True, metavar="N", help="the member it speaks for")
    made.add_argument("--role", choices=("ops", "ops-read", "payments"), help="what it may do beside shopping")
    made.add_argument("--tier", type=options.tier, metavar="T", help="the member's tier (default: 0)")
    made.add_argument(
        "--hours", type=options.hours, default=HOURS, metavar="H", help=f"how long it is valid (default: {HOURS:g})"
    )
    options.add_data_dir(made)


def _token(args: argparse.Namespace) -> int:
    secret = options.secret_of(options.settings_of(args))
    expires_at = int(time.time() + args.hours * 3600)
    token = mint(secret, member=args.member, role=args.role, tier=args.tier, expires_at=expires_at)
    if args.json:
        output.document({"token": token, "expires_at": datetime.fromtimestamp(expires_at, UTC)})
    else:
        output.line(token)
    return 0
