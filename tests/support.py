"""What tests build their world of: a process's parts, drops, allocations, presses of the button."""

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from flashsale import embedded
from flashsale.catalog import Catalog
from flashsale.domain import Access, Allocation, Claim, Drop, Everyone, Money, Texts, home_stripe
from flashsale.drops import Operations
from flashsale.gate import Gate, connect
from flashsale.ids import new_ids
from flashsale.ledger import Ledger, ReservationStore
from flashsale.reconcile import Arming, Reconciler
from flashsale.reservations import Limits, Reservations

TIMEOUT_S = 60.0
PATIENCE_S = 120.0
"""To an answer. Only what hangs takes so long, also where processes are not let run for seconds."""
PATIENT: dict[str, Any] = {"gate_timeout_s": 30.0, "ledger_timeout_s": 30.0, "answer_max_s": PATIENCE_S}
"""Settings of an application whose servers nobody kills."""
POLL_S = 0.02
_numbers = itertools.count(1)

NewDrop = Callable[..., Awaitable[Drop]]


async def until(condition: Callable[[], Awaitable[bool]], what: str, deadline_s: float = 30.0) -> None:
    """Return when the condition holds; fail, naming it, when it does not come true in time."""
    try:
        async with asyncio.timeout(deadline_s):
            while not await condition():
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        if await condition():  # who was not let run for so long has not looked in time
            return
        raise AssertionError(f"still not so after {deadline_s:g} s: {what}") from None


class Node(msgspec.Struct, frozen=True):
    """What one process of the product holds: two of them over the same servers are two processes."""

    gate: Gate
    ledger: Ledger
    catalog: Catalog
    arming: Arming
    reservations: Reservations
    operations: Operations
    reconciler: Reconciler

    async def aclose(self) -> None:
        """Close its stores."""
        await self.reservations.drain()
        await self.gate.aclose()
        await self.ledger.aclose()


async def make_node(
    servers: embedded.Servers,
    *,
    timeout_s: float = TIMEOUT_S,
    gate_timeout_s: float | None = None,
    redis_url: str | None = None,
    database_url: str | None = None,
    limits: Limits | None = None,
    make_gate: type[Gate] = Gate,
    make_store: type[ReservationStore] = ReservationStore,
) -> Node:
    """Put a process's parts together as `flashsale.web.app` does, some of them replaced."""
    gate_timeout_s = gate_timeout_s or timeout_s
    client = connect(redis_url or servers.redis_url, timeout_s=gate_timeout_s)
    gate = make_gate(client, timeout_s=gate_timeout_s, new_ids=new_ids)
    ledger = await Ledger.connect(database_url or servers.database_url, pool_max=6, timeout_s=timeout_s)
    ledger.reservations = make_store(*ledger._pools)
    catalog = Catalog(ledger.drops)
    arming = Arming(gate=gate, ledger=ledger, catalog=catalog, ttl_after_close_s=3600, now=lambda: datetime.now(UTC))

    async def arm(drop_id: str, force: bool) -> None:
        await arming.arm(drop_id, force)

    return Node(
        gate=gate,
        ledger=ledger,
        catalog=catalog,
        arming=arming,
        reservations=Reservations(
            gate=gate,
            ledger=ledger.reservations,
            orders=ledger.orders,
            catalog=catalog,
            arm=arm,
            new_ids=new_ids,
            now=time.monotonic,
            jitter=random.random,
            limits=limits or Limits(answer_max_s=PATIENCE_S),
        ),
        operations=Operations(ledger=ledger, gate=gate, catalog=catalog, arm=arming.arm, new_ids=new_ids),
        reconciler=Reconciler(gate=gate, ledger=ledger, arming=arming),
    )


def unique(prefix: str) -> str:
    """An id that no other test uses."""
    return f"{prefix}-{next(_numbers)}"


def allocation(
    name: str = "a",
    quantity: int = 10,
    *,
    access: Access | None = None,
    opens_in_s: float = -60,
    closes_in_s: float = 3600,
) -> Allocation:
    """An allocation that is open since a minute, to everyone, unless said otherwise."""
    now = datetime.now(UTC)
    return Allocation(
        id=name,
        quantity=quantity,
        opens_at=now + timedelta(seconds=opens_in_s),
        closes_at=now + timedelta(seconds=closes_in_s),
        access=access or Everyone(),
    )


def claim(
    member: int,
    name: str | None = None,
    *,
    key: str | None = None,
    quantity: int = 1,
    tier: int = 0,
    code: int | None = None,
) -> Claim:
    """One press of the button."""
    return Claim(member, name, quantity, key, tier, code)


def members_at(home: int, stripes: int, count: int, *, first: int = 1) -> list[int]:
    """The first members, from that one on, whose home is this stripe."""
    return list(itertools.islice((m for m in itertools.count(first) if home_stripe(m, stripes) == home), count))


def make_drop(
    *allocations: Allocation,
    per_member: int = 1,
    hold_seconds: int = 900,
    rebuy_after_return: bool = False,
    stripes: int = 1,
    texts: Texts | None = None,
    picture: str | None = None,
) -> Drop:
    """A drop with an id of its own, not yet set up."""
    return Drop(
        id=unique("drop"),
        title="Engineering edition",
        price=Money(169_900, "CNY"),
        list_price=Money(199_900, "CNY"),
        per_member=per_member,
        hold_seconds=hold_seconds,
        rebuy_after_return=rebuy_after_return,
        stripes=stripes,
        epoch=0,
        paused=False,
        closed=False,
        allocations=allocations or (allocation(),),
        created_at=datetime.now(UTC),
        texts=texts or Texts(),
        picture=picture,
    )
