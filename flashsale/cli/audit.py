"""`audit`: does every unit of a drop have its place, and who did what to it."""

import argparse
import asyncio
from typing import Any, Final

from flashsale.cli import client, drops, options, output

PAGE: Final = 500
SHOWN_MAX_CHARS: Final = 100


def add(commands: options.Commands) -> None:
    """Put this command on the command line."""
    audited = options.command(
        commands,
        "audit",
        _audit,
        "Show a drop's balance and its lines of the audit log; exit code 1 if a unit is missing",
    )
    audited.add_argument("drop", metavar="DROP", help="the drop's id")
    client.add_service(audited)


def _audit(args: argparse.Namespace) -> int:
    balance, lines = asyncio.run(_read(args))
    if args.json:
        output.document({"balance": balance, "audit": lines})
    else:
        drops.show_balance(balance)
        output.line("")
        columns = ("at", "actor", "action", "subject")
        rows = [[*(found[name] for name in columns), _detail(found["detail"])] for found in lines]
        output.table((*columns, "detail"), rows)
    return 0 if balance["balanced"] else 1


def _detail(detail: dict[str, Any]) -> str:
    text = client.encode(detail).decode() if detail else ""
    return text if len(text) <= SHOWN_MAX_CHARS else f"{text[:SHOWN_MAX_CHARS]}… (all of it: --json)"


async def _read(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The balance, and all lines, oldest first."""
    async with client.service(args) as service:
        balance = await service.call("GET", client.path("drops", args.drop, "balance"))
        lines: list[dict[str, Any]] = []
        params = {"subject": args.drop, "limit": str(PAGE)}
        while True:
            page = await service.call("GET", "/v1/ops/audit", params=params)
            lines += page["items"]
            if page["next"] is None:
                return balance, lines[::-1]
            params["after"] = page["next"]
