"""The pre-flight list of a drop: what is missing before it can open.

Why a list blocks anything, and how. A drop opens by itself, by the gate's clock: nobody presses a button at noon. So
what is to be blocked must be blocked beforehand, by the one means that already holds in every store: a pause. A drop
that is set up to be held (`hold`) begins paused, and stays so past its opening until it is released; the release
(`resume`) goes through this list first, and is refused while something that blocks is missing. An operator may know
better: with `force` and a reason it is released all the same, and both are in the audit log with what was missing.
A sale that was under way and was paused is another thing: it must go on at once, and is not asked for anything.

Missing blocks where members would hear something wrong, or money or orders would go astray; the rest is advice.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

import msgspec

from flashsale.domain import Allocation, Drop, Fcode, Points
from flashsale.errors import Unavailable
from flashsale.gate import Status

CLOCKS_APART_MAX_S: Final = 1.0


class Item(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the list; `blocking`: without it the drop is not released."""

    id: str
    blocking: bool
    ok: bool
    detail: str
    allocation: str | None = None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the list is made of. `status` None: the gate is not armed, or away; `balanced` None: it could not be told.

    `eligible`: by allocation with a points rule, how many members it lets in; `cutoffs`: the snapshot's cut-off.
    `codes`: by allocation for F-codes, how many may still be spent. `fulfilment`: None: no endpoint is set; else what
    is wrong with it, "" for nothing. `gate_ahead_s`, `ledger_ahead_s`: of this machine's clock.
    """

    now: datetime
    status: Status | None
    balanced: bool | None
    eligible: dict[str, int]
    cutoffs: dict[str, datetime]
    codes: dict[str, int]
    codes_can_be_read: bool
    fulfilment: str | None
    gate_ahead_s: float | None
    ledger_ahead_s: float


def checklist(drop: Drop, facts: Facts) -> list[Item]:
    """All lines, the drop's own first."""
    return [
        *_times(drop, facts.now),
        *_stock(drop),
        _price(drop),
        *(item for a in drop.allocations for item in _access(drop, a, facts)),
        _fulfilment(facts.fulfilment),
        *_stores(facts),
        _texts(drop),
    ]


def _item(name: str, problem: str, good: str, *, blocking: bool = True, allocation: str | None = None) -> Item:
    return Item(name, blocking, not problem, problem or good, allocation)


def _times(drop: Drop, now: datetime) -> list[Item]:
    coming = [a for a in drop.allocations if a.closes_at > now]
    over = "" if coming else "All windows are over: nothing can be sold. Move a window."
    first = min((a.opens_at for a in coming), default=None)
    passed = ""
    if first is not None and first <= now:
        passed = "An opening has passed already: the sale begins in the moment of the release."
    return [
        _item("windows", over, f"{len(coming)} of {len(drop.allocations)} windows are open or to come."),
        _item("opening", passed, "The opening lies ahead.", blocking=False),
    ]


def _stock(drop: Drop) -> list[Item]:
    total = sum(a.quantity for a in drop.allocations)
    items = [_item("units", "" if total else "There is no unit in any allocation.", f"{total} units are set up.")]
    items += [
        _item("units", "It has no units.", "", blocking=False, allocation=a.id)
        for a in drop.allocations
        if total and not a.quantity
    ]
    return items


def _price(drop: Drop) -> Item:
    problem = ""
    if drop.price.amount == 0:
        problem = "The price is 0: is it free?"
    elif drop.list_price is not None and drop.list_price.amount < drop.price.amount:
        problem = "The list price is lower than the price."
    return _item("price", problem, "The price is set.", blocking=False)


def _texts(drop: Drop) -> Item:
    """A drop without any is sold by its title, perhaps on other pages; one that is half translated is not ready."""
    zh, en = drop.texts.zh, drop.texts.en
    missing = [
        f"no {name} in {tag}"
        for name in ("title", "description")
        for tag, here, there in (("Chinese", zh, en), ("English", en, zh))
        if getattr(there, name) and not getattr(here, name)
    ]
    if not missing and not zh.title:
        return _item("texts", "There are no texts: pages show the drop's one title.", "", blocking=False)
    problem = f"Shoppers' texts: {', '.join(missing)}." if missing else ""
    return _item("texts", problem, "The texts are there in both languages.")


def _access(drop: Drop, a: Allocation, facts: Facts) -> list[Item]:
    match a.access:
        case Points(snapshot=snapshot, at_least=at_least):
            members = facts.eligible.get(a.id)
            nobody = ""
            if members is None:
                nobody = f"The points snapshot {snapshot!r} is not there, or its list was not computed."
            elif members == 0:
                nobody = f"Nobody has {at_least} points in snapshot {snapshot!r}."
            items = [_item("snapshot", nobody, f"{members} members may buy.", allocation=a.id)]
            cutoff = facts.cutoffs.get(a.id)
            if cutoff is not None and cutoff > facts.now:
                ahead = "The snapshot's cut-off lies in the future: points may still change until then."
                items.append(_item("snapshot", ahead, "", blocking=False, allocation=a.id))
            return items
        case Fcode():
            codes, keys = facts.codes.get(a.id, 0), ""
            if not facts.codes_can_be_read:
                keys = "No F-code key is set (FLASHSALE_FCODE_KEYS): every code would be refused."
            few = ""
            if codes == 0:
                few = "No F-code was minted for it, or none can be spent any more."
            stopped = "F-codes are stopped: who shows one hears `paused`." if drop.fcodes_stopped else ""
            items = [
                _item("fcodes", few, f"{codes} F-codes may be spent.", allocation=a.id),
                _item("fcode_keys", keys, "F-codes can be read.", allocation=a.id),
                _item("fcodes_stopped", stopped, "F-codes are honoured.", allocation=a.id),
            ]
            if 0 < codes < a.quantity:
                spare = f"{a.quantity - codes} of its {a.quantity} units have no code, and nobody can buy them."
                items.append(_item("fcodes", spare, "", blocking=False, allocation=a.id))
            return items
        case _:
            return []


def _fulfilment(problem: str | None) -> Item:
    unset = "No endpoint is set (FLASHSALE_FULFILMENT_URL): orders would wait in the queue."
    return _item("fulfilment", unset if problem is None else problem, "Orders have somewhere to go, and it answers.")


def _stores(facts: Facts) -> list[Item]:
    gate = "" if facts.status is not None else "The gate is not armed for this drop; ask again in a moment."
    balance = {
        True: "",
        False: "Gate and ledger do not account for every unit: run `flashsale audit`.",
        None: "The balance could not be read; ask again in a moment.",
    }[facts.balanced]
    apart = [
        f"the {name}'s clock is {seconds:+.3f} s from this machine's"
        for name, seconds in (("gate", facts.gate_ahead_s), ("ledger", facts.ledger_ahead_s))
        if seconds is not None and abs(seconds) > CLOCKS_APART_MAX_S
    ]
    clocks = f"Set the clocks: {', '.join(apart)}." if apart else ""
    return [
        _item("gate", gate, "The gate is armed."),
        _item("balance", balance, "Every unit has its place."),
        _item("clock", clocks, "The clocks agree within a second."),
    ]


async def tried(connect: Callable[[], Awaitable[object]], shown: str) -> str:
    """What is wrong with an endpoint, by connecting to it; "" for nothing."""
    try:
        await connect()
    except (OSError, TimeoutError, Unavailable) as fault:
        return f"The endpoint {shown} cannot be reached from here ({type(fault).__name__}); orders would wait."
    return ""


def shifted(drop: Drop, opens_at: datetime | None, now: datetime) -> timedelta:
    """By how much all windows of a drop move so that the first opens then; by default by whole days, to the future."""
    first = min(a.opens_at for a in drop.allocations)
    if opens_at is not None:
        return opens_at - first
    days = max(0, (now - first).days + 1) if first <= now else 0
    return timedelta(days=days)
