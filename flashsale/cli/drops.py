"""`drop create|show|pause|resume|close|balance`."""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

from flashsale.cli import client, options, output
from flashsale.errors import SetupError


def add(commands: options.Commands) -> None:
    """Put these commands on the command line."""
    those = options.group(commands, "drop", "Set up, see and steer a drop of a running service")
    created = options.command(
        those,
        "create",
        _create,
        "Set up a drop",
        "FILE holds what POST /v1/ops/drops takes: {id, title, price, allocations: [{id, quantity, opens_at, "
        "closes_at, access}], …}; /openapi.json of the service has the details.",
    )
    created.add_argument("file", metavar="FILE.json", help="the drop, as JSON; - reads standard input")
    client.add_service(created)
    _one(those, "show", _show, "Show a drop with everything an operator sees")
    for act, what in (
        ("pause", "Pause a drop: no grant once this is answered"),
        ("resume", "Resume a paused drop"),
        ("close", "Close a drop for good"),
    ):
        _one(those, act, _switch, what).add_argument("--reason", help="why, for the audit log")
        those.choices[act].set_defaults(act=act)
    _one(those, "balance", _balance, "Show where every unit is, in gate and ledger; exit code 1 if one is missing")


def _one(those: options.Commands, name: str, run: Any, summary: str) -> argparse.ArgumentParser:  # noqa: ANN401
    added = options.command(those, name, run, summary)
    added.add_argument("drop", metavar="DROP", help="the drop's id")
    client.add_service(added)
    return added


def _create(args: argparse.Namespace) -> int:
    try:
        body = sys.stdin.buffer.read() if args.file == "-" else Path(args.file).read_bytes()
    except OSError as error:
        raise SetupError(f"{args.file} cannot be read: {error.strerror}.") from None
    _show_drop(asyncio.run(_call(args, "POST", "/v1/ops/drops", body)), as_json=args.json)
    return 0


def _show(args: argparse.Namespace) -> int:
    _show_drop(asyncio.run(_call(args, "GET", client.path("drops", args.drop))), as_json=args.json)
    return 0


def _switch(args: argparse.Namespace) -> int:
    body = client.encode({"reason": args.reason} if args.reason else {})
    _show_drop(asyncio.run(_call(args, "POST", client.path("drops", args.drop, args.act), body)), as_json=args.json)
    return 0


def _balance(args: argparse.Namespace) -> int:
    found = asyncio.run(_call(args, "GET", client.path("drops", args.drop, "balance")))
    if args.json:
        output.document(found)
    else:
        show_balance(found)
    return 0 if found["balanced"] else 1


async def _call(args: argparse.Namespace, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
    async with client.service(args) as service:
        return await service.call(method, path, body=body)


def _show_drop(drop: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.document(drop)
        return
    state = "closed" if drop["closed"] else "paused" if drop["paused"] else "running"
    price = f"{drop['price']['amount']} {drop['price']['currency']} in minor units"
    output.line(f"{drop['id']}  {state}  {drop['title']}")
    striped = f"; striped over {drop['stripes']}" if drop["stripes"] > 1 else ""
    output.line(f"{price}; {drop['per_member']} a member; held for {drop['hold_seconds']} s{striped}")
    columns = ("id", "state", "quantity", "taken", "available", "opens_at", "closes_at")
    output.table(
        ("allocation", *columns[1:], "access", "channel"),
        [[*(a[name] for name in columns), _access(a["access"]), a["channel"]] for a in drop["allocations"]],
    )


def _access(access: dict[str, Any]) -> str:
    match access:
        case {"kind": "points"}:
            return f"{access['at_least']} points in {access['snapshot']}"
        case {"kind": "tier"}:
            return f"tier {access['at_least']}"
        case _:
            return str(access["kind"])


def show_balance(found: dict[str, Any]) -> None:
    """The balance as a table, and its verdict."""
    columns = ("id", "quantity", "available", "pending", "held", "confirmed", "balanced")
    output.table(("allocation", *columns[1:]), [[item[name] for name in columns] for item in found["allocations"]])
    output.line("Balanced." if found["balanced"] else "NOT balanced.")
