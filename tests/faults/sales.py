"""What is sold in a round: small drops that open one after the other and sell out in seconds, and a large one."""

import time
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

import msgspec

from fcodes import CODES_PER_BATCH_MAX, Code, parse
from tests.faults.client import Client

OPENS_EVERY_S: Final = 7.0
LARGE_UNITS: Final = 50_000
LARGE_MEMBERS: Final = 5_000_000
OPEN_FOR_S: Final = 3_600.0


class SoldCode(msgspec.Struct, frozen=True):
    """An F-code as its holder has it, and its number."""

    text: str
    number: int


class Sale(msgspec.Struct, frozen=True, kw_only=True):
    """One drop as its shoppers know it. `members`: who may come, first and how many. Times are Unix seconds."""

    drop: str
    large: bool
    per_member: int
    hold_s: int
    opens_at: float
    units: dict[str, int]
    lane: str | None
    members: tuple[int, int]
    codes: list[SoldCode]
    stripes: int = 1

    @property
    def batch(self) -> int:
        """The batch of its codes."""
        return self.codes[0].number // CODES_PER_BATCH_MAX


def draw(random: Random, name: str, first_member: int, opens_at: float) -> Sale:
    """A small drop: some tens of units in one or two allocations, at times a lane for F-codes, a short hold.

    Two in five are spread over several stripes.
    """
    units = {"main": random.randint(25, 70)}
    if random.random() < 0.5:
        units["second"] = random.randint(5, 25)
    lane = "lane" if random.random() < 0.6 else None
    if lane is not None:
        units[lane] = random.randint(10, 20)
    return Sale(
        drop=name,
        large=False,
        per_member=2 if random.random() < 0.3 else 1,
        hold_s=random.randint(4, 7),
        opens_at=opens_at,
        units=units,
        lane=lane,
        members=(first_member, random.randint(250, 500)),
        codes=[],
        stripes=random.choice((1, 1, 1, 2, 4)),
    )


def large(name: str, opens_at: float) -> Sale:
    """The drop that never sells out: somebody can always be granted a unit."""
    return Sale(
        drop=name,
        large=True,
        per_member=1,
        hold_s=6,
        opens_at=opens_at,
        units={"main": LARGE_UNITS},
        lane=None,
        members=(1_000_000_000, LARGE_MEMBERS),
        codes=[],
    )


def round_of(random: Random, name: str, length_s: float) -> list[Sale]:
    """The drops of a round, the large one first. It opens at once, the others every few seconds."""
    now = time.time() + 1.0
    sales = [large(f"{name}-large", now - 60)]
    count = max(2, int(length_s / OPENS_EVERY_S))
    for number in range(count):
        opens_at = now + number * OPENS_EVERY_S * random.uniform(0.8, 1.0)
        sales.append(draw(random, f"{name}-{number + 1}", 10_000 * (number + 1), opens_at))
    return sales


def document(sale: Sale) -> dict[str, Any]:
    """The drop as an operator creates it."""
    return {
        "id": sale.drop,
        "title": sale.drop,
        "price": {"amount": 169_900, "currency": "CNY"},
        "per_member": sale.per_member,
        "hold_seconds": sale.hold_s,
        "stripes": sale.stripes,
        "allocations": [
            {
                "id": name,
                "quantity": quantity,
                "opens_at": _rfc3339(sale.opens_at),
                "closes_at": _rfc3339(sale.opens_at + OPEN_FOR_S),
                "access": {"kind": "fcode" if name == sale.lane else "everyone"},
            }
            for name, quantity in sale.units.items()
        ],
    }


async def set_up(client: Client, sales: list[Sale]) -> list[Sale]:
    """Create the drops and mint a code for each unit of a lane."""
    ready = []
    for sale in sales:
        await client.plain("POST", "/v1/ops/drops", document(sale))
        if sale.lane is None:
            ready.append(sale)
            continue
        path = f"/v1/ops/drops/{sale.drop}/allocations/{sale.lane}/fcodes"
        minted = await client.plain("POST", path, {"count": sale.units[sale.lane]})
        exported = await client.plain("GET", f"/v1/ops/fcodes/{minted['batch']}.csv")
        codes = [SoldCode(text, _number(text)) for text in exported["text"].split()[1:]]
        ready.append(msgspec.structs.replace(sale, codes=codes))
    return ready


def _number(text: str) -> int:
    code = parse(text)
    assert isinstance(code, Code), text
    return code.number


def _rfc3339(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat()
