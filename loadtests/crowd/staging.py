"""Sets a sale up through the operators' API, and draws who comes to it.

    python -m loadtests.crowd.staging OPTIONS RUN

Writes `RUN/sale.json` and `RUN/guests.json`. A program of its own: the processes of locust have their sockets patched.
"""

import asyncio
import csv
import dataclasses
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from loadtests.api import Api, api_at, rfc3339
from loadtests.crowd.guests import FAN_POINTS, Guest, Sale, arrivals, points_of
from loadtests.crowd.options import Options
from loadtests.errors import SetupError
from loadtests.shapes import Arrival
from loadtests.tokens import Minter

CUTOFF = "2011-08-16T00:00:00+08:00"
PRICE = 169900
FANS_SHARE = 5
"""One unit for fans to so many for everybody."""
CODES_SPARE = 10
"""More F-codes than guests who carry one: some stay in drawers."""
TOKENS_LIVE_S = 4 * 3600
STAGED_S = 2.0
"""What is to be done between creating the drop and the first guest: codes, and the way to the workers."""


def read_tokens(path: Path) -> dict[int, str]:
    """Member → token, from CSV with the header `member_id,token`. Errors: `SetupError` naming the line."""
    found: dict[int, str] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            if next(rows, []) != ["member_id", "token"]:
                raise SetupError(f"{path} does not begin with the header member_id,token.")
            for row in rows:
                try:
                    member, token = int(row[0]), row[1]
                except (ValueError, IndexError):
                    raise SetupError(f"{path}, line {rows.line_num}: not a member and a token.") from None
                if member in found:
                    raise SetupError(f"{path}, line {rows.line_num}: member {member} is there twice.")
                found[member] = token
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{path} cannot be read: {error}.") from None
    return found


def carried(options: Options, *, now_s: float) -> list[tuple[int, str]]:
    """(member, token) for each arrival: those of the file, or members that no earlier run has had."""
    if options.tokens:
        found = list(read_tokens(Path(options.tokens)).items())
        if len(found) < options.shoppers:
            raise SetupError(
                f"{options.tokens} has {len(found):,} tokens; {options.shoppers:,} shoppers need one each "
                "(--shoppers, or a longer file)."
            )
        return found[: options.shoppers]
    try:
        minter = Minter(options.secret, expires_at=int(now_s) + TOKENS_LIVE_S)
    except ValueError as error:
        raise SetupError(str(error)) from None
    first = int(now_s) * 1_000_000
    return [(member, minter.shopper(member)) for member in range(first, first + options.shoppers)]


def drop_document(options: Options, sale: Sale, snapshot: str, codes: int) -> dict[str, Any]:
    """The drop: a public allocation, one for fans with points, one for F-codes."""
    closes_s = sale.opens_at_s + sale.seconds + 2 * sale.patience_s + 10 * sale.hold_s
    window = {"opens_at": rfc3339(sale.opens_at_s), "closes_at": rfc3339(closes_s)}
    points = {"kind": "points", "snapshot": snapshot, "at_least": FAN_POINTS}
    return {
        "id": sale.drop,
        "title": f"Load test: {options.shape}",
        "price": {"amount": PRICE, "currency": "CNY"},
        "hold_seconds": options.hold_seconds,
        "allocations": [
            {"id": sale.public, "quantity": options.units, "access": {"kind": "everyone"}, **window},
            {"id": sale.fans, "quantity": max(1, options.units // FANS_SHARE), "access": points, **window},
            {"id": sale.friends, "quantity": codes, "access": {"kind": "fcode"}, **window},
        ],
    }


def seated(drawn: list[tuple[Arrival, str]], who: list[tuple[int, str]], codes: list[str]) -> list[Guest]:
    """Guests out of arrivals: each with a member of its own, each who is to have an F-code with one of its own."""
    guests, nth = [], Counter[str]()
    for (arrival, role), (member, token) in zip(drawn, who, strict=True):
        code = codes[nth[role]] if role == "coded" else None
        points = points_of(role, nth[role])
        nth[role] += 1
        number, look_at_s, press_at_s = arrival
        guests.append(Guest(number, role, look_at_s, press_at_s, member, token, points, code))
    return guests


async def stage(options: Options, operator: str, run: Path) -> None:
    """Everything before the first guest. Errors: `SetupError`."""
    random = Random()
    name = f"load-{options.shape}-{time.strftime('%Y%m%d%H%M%S', time.gmtime())}-{random.getrandbits(24):06x}"
    who = carried(options, now_s=time.time())
    drawn = arrivals(options.shape, options.shoppers, options.seconds, options.lead_seconds, options.seed)
    count = Counter(role for _, role in drawn)["coded"] + CODES_SPARE
    async with api_at(options.url, operator) as api:
        snapshot = await _import_points(api, name, run, drawn, who)
        # `Date` is cut to whole seconds: the server's clock may be up to one further.
        server_s = max(time.time(), api.date.timestamp() + 1.0 if api.date else 0.0)
        sale = Sale(
            run=name,
            drop=name,
            host=options.url,
            shape=options.shape,
            shoppers=options.shoppers,
            units=options.units,
            opens_at_s=server_s + STAGED_S + options.lead_seconds,
            seconds=options.seconds,
            hold_s=options.hold_seconds,
            patience_s=options.patience_seconds,
            seed=options.seed,
        )
        await api.create_drop(drop_document(options, sale, snapshot, count))
        codes = await api.codes(await api.mint_codes(name, sale.friends, count))
    if len(codes) != count:
        raise SetupError(f"{count} F-codes were minted, and {len(codes)} exported.")
    guests = seated(drawn, who, codes)
    _write(run / "sale.json", sale.to_dict())
    _write(run / "guests.json", [dataclasses.asdict(guest) for guest in guests])


async def _import_points(
    api: Api, name: str, run: Path, drawn: list[tuple[Arrival, str]], who: list[tuple[int, str]]
) -> str:
    """The snapshot of the fans' points."""
    file, nth, lines = run / "points.csv", Counter[str](), ["member_id,points"]
    for (_, role), (member, _token) in zip(drawn, who, strict=True):
        points = points_of(role, nth[role])
        nth[role] += 1
        if points is not None:
            lines.append(f"{member},{points}")
    await asyncio.to_thread(file.write_text, "\n".join(lines) + "\n")
    snapshot = await api.import_points(name, CUTOFF, file)
    if snapshot["members"] != len(lines) - 1:
        raise SetupError(f"{len(lines) - 1} fans have points; the service imported {snapshot['members']}.")
    return str(snapshot["snapshot"])


def operator_token(options: Options, now_s: float) -> str:
    """The token of who sets the sale up: given, or minted."""
    if options.operator_token:
        return options.operator_token
    return Minter(options.secret, expires_at=int(now_s) + TOKENS_LIVE_S).operator()


def _write(path: Path, document: object) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        json.dump(document, file)


def main(argv: list[str]) -> int:
    """The command line; the exit code is 2 when the sale cannot be set up."""
    options, run = Options.read(Path(argv[0])), Path(argv[1])
    try:
        asyncio.run(stage(options, operator_token(options, time.time()), run))
    except (SetupError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
