"""`orders list|replay` and `reservation return`."""

import argparse
import asyncio
import sys
from typing import Any, Final

from flashsale.cli import client, options, output
from flashsale.domain import OrderState
from flashsale.errors import FlashsaleError, SetupError

PAGE: Final = 500


def add(commands: options.Commands) -> None:
    """Put these commands on the command line."""
    those = options.group(commands, "orders", "See orders on their way to the shop, and deliver them again")
    listed = options.command(those, "list", _list, "List orders, newest first, and the state of their queue")
    listed.add_argument("--state", choices=[s.value for s in OrderState], help="only those in this state")
    listed.add_argument("--limit", type=int, default=50, metavar="N", help="how many at most (default: 50)")
    client.add_service(listed)
    replayed = options.command(
        those,
        "replay",
        _replay,
        "Deliver orders again, or now, under their ids",
        "Who receives them tells a second delivery by its id. An endpoint that answered 410 is tried again.",
    )
    replayed.add_argument("order", nargs="*", metavar="ORDER", help="the order's id")
    replayed.add_argument("--dead", action="store_true", help="all orders that are dead")
    client.add_service(replayed)

    there = options.group(commands, "reservation", "Steer single reservations")
    returned = options.command(
        there, "return", _return, "Mark a confirmed reservation returned", "Its unit goes back to the sale."
    )
    returned.add_argument("reservation", metavar="RESERVATION", help="the reservation's id")
    returned.add_argument("--reason", required=True, help="why, for the audit log and the shop")
    where = returned.add_mutually_exclusive_group()
    where.add_argument("--to", metavar="ALLOCATION", help="put its unit into this allocation instead of its own")
    where.add_argument("--no-restock", action="store_true", help="take its unit out of the sale")
    client.add_service(returned)


def _list(args: argparse.Namespace) -> int:
    found = asyncio.run(_read(args, args.state, args.limit))
    if args.json:
        output.document(found)
        return 0
    queue = found["queue"]
    output.line(
        f"{queue['waiting']:,} waiting, the oldest for {queue['oldest_seconds']:.0f} s; {queue['dead']:,} dead"
        + ("; the endpoint answered 410 and is disabled" if queue["disabled"] else "")
    )
    columns = ("order", "event", "state", "drop", "allocation", "member", "tries", "due_at", "reason")
    output.table(columns, [[item[name] for name in columns] for item in found["items"]])
    return 0


async def _read(args: argparse.Namespace, state: str | None, limit: int) -> dict[str, Any]:
    async with client.service(args) as service:
        return await _pages(service, state, limit)


async def _pages(service: client.Service, state: str | None, limit: int) -> dict[str, Any]:
    found: dict[str, Any] = {"items": []}
    params = {"state": state} if state else {}
    while True:
        left = limit - len(found["items"])
        page = await service.call("GET", client.path("orders"), params={**params, "limit": str(min(PAGE, left))})
        found = {**page, "items": [*found["items"], *page["items"]]}
        if page["next"] is None or len(found["items"]) >= limit:
            return found
        params["after"] = page["next"]


def _replay(args: argparse.Namespace) -> int:
    if not args.order and not args.dead:
        raise SetupError("Name the orders to replay, or --dead for all that are dead; `orders list` shows them.")
    replayed = asyncio.run(_send(args))
    if args.json:
        output.document({"replayed": replayed})
    else:
        output.line(f"{len(replayed):,} orders are on their way again.")
    return 0


async def _send(args: argparse.Namespace) -> list[str]:
    async with client.service(args) as service:
        orders = list(args.order)
        if args.dead:
            orders += [item["order"] for item in (await _pages(service, OrderState.DEAD.value, sys.maxsize))["items"]]
        for number, order in enumerate(orders):
            try:
                await service.call("POST", client.path("orders", order, "replay"))
            except FlashsaleError:
                output.note(f"{number:,} of {len(orders):,} orders were replayed before this; it may be repeated.")
                raise
            if sys.stderr.isatty() and (number + 1) % PAGE == 0:
                output.note(f"{number + 1:,} of {len(orders):,}")
    return orders


def _return(args: argparse.Namespace) -> int:
    body = {"reason": args.reason, "restock": not args.no_restock, "to_allocation": args.to}
    found = asyncio.run(_call(args, client.path("reservations", args.reservation, "return"), client.encode(body)))
    if args.json:
        output.document(found)
    else:
        output.line(f"{found['id']}  {found['state']}  member {found['member']}  {found['drop']}/{found['allocation']}")
    return 0


async def _call(args: argparse.Namespace, path: str, body: bytes) -> dict[str, Any]:
    async with client.service(args) as service:
        return await service.call("POST", path, body=body)
