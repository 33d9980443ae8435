"""Options that several commands have, and the settings that come out of them."""

import argparse
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from flashsale.domain import MEMBER_MAX
from flashsale.errors import SetupError
from flashsale.process import SECRET_FILE, kept_secret
from flashsale.settings import PREFIX, Settings, load

OVERRIDES: Final = ("host", "port", "workers", "data_dir", "redis_url", "database_url")

Commands = Any
"""What `add_subparsers` returns; argparse keeps its type to itself."""


def command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], summary: str, more: str = ""
) -> argparse.ArgumentParser:
    """A command with the options that all have."""
    added: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary}. {more}".strip(), allow_abbrev=False
    )
    added.set_defaults(run=run)
    added.add_argument("--json", action="store_true", help="write the result as one JSON document")
    return added


def group(commands: Commands, name: str, summary: str) -> Commands:
    """A command that only holds others."""
    added = commands.add_parser(name, help=summary, description=f"{summary}.")
    return added.add_subparsers(title="commands", metavar="COMMAND", required=True)


def add_data_dir(to: argparse.ArgumentParser) -> None:
    """`--data-dir`."""
    to.add_argument(
        "--data-dir", metavar="DIR", help="where `flashsale up` keeps its data (FLASHSALE_DATA_DIR; default .flashsale)"
    )


def add_stores(to: argparse.ArgumentParser, *, redis: bool = True, unset: str = "required") -> None:
    """`--redis-url`, `--database-url`."""
    if redis:
        to.add_argument("--redis-url", metavar="URL", help=f"Redis or Valkey (FLASHSALE_REDIS_URL; {unset})")
    to.add_argument("--database-url", metavar="URL", help=f"Postgres (FLASHSALE_DATABASE_URL; {unset})")


def add_listen(to: argparse.ArgumentParser) -> None:
    """`--host`, `--port`, `--workers`."""
    to.add_argument("--host", help="address to listen on (FLASHSALE_HOST; default 127.0.0.1)")
    to.add_argument("--port", type=int, help="port to listen on, 0 for any (FLASHSALE_PORT; default 8080)")
    to.add_argument("--workers", type=int, metavar="N", help="web processes (FLASHSALE_WORKERS; default 1)")


def environ_of(args: argparse.Namespace) -> dict[str, str]:
    """The environment, with the options of this call over it."""
    given = {name: getattr(args, name, None) for name in OVERRIDES}
    return {**os.environ, **{PREFIX + name.upper(): str(value) for name, value in given.items() if value is not None}}


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings of this call."""
    return load(environ_of(args))


def secret_of(settings: Settings) -> str:
    """The secret that tokens are signed with: the setting, or else the one that `flashsale up` keeps."""
    secret = settings.jwt_secret or kept_secret(Path(settings.data_dir))
    if secret is None:
        raise SetupError(
            f"There is no secret to sign a token with: {Path(settings.data_dir) / SECRET_FILE} does not exist. Start "
            "`flashsale up` first, name its folder with --data-dir, or set FLASHSALE_JWT_SECRET."
        )
    return secret


def member(text: str) -> int:
    """A member's id."""
    if text.isascii() and text.isdecimal() and 1 <= int(text[:20]) <= MEMBER_MAX:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no member: give a whole number from 1 to {MEMBER_MAX}")


def tier(text: str) -> int:
    """A member's tier."""
    if text.isascii() and text.isdecimal() and int(text[:20]) <= MEMBER_MAX:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no tier: give a whole number of at least 0")


def hours(text: str) -> float:
    """A token's life."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if 0 < value <= 24 * 366 * 10:
        return value
    raise argparse.ArgumentTypeError(f"{text!r} is no life of a token: give hours, more than 0 and at most ten years")


def time_with_zone(text: str) -> str:
    """A time in RFC 3339 with its zone."""
    try:
        if datetime.fromisoformat(text).tzinfo is not None:
            return text
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no time with its zone: write it like 2011-08-16T00:00:00+08:00")
