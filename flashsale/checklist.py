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
from flashsale.said import Said, said

CLOCKS_APART_MAX_S: Final = 1.0


class Item(msgspec.Struct, frozen=True):
    """One line of the list; `blocking`: without it the drop is not released."""

    id: str
    blocking: bool
    ok: bool
    detail: Said
    allocation: str | None = None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the list is made of. `status` None: the gate is not armed, or away; `balanced` None: it could not be told.

    `eligible`: by allocation with a points rule, how many members it lets in; `cutoffs`: the snapshot's cut-off.
    `codes`: by allocation for F-codes, how many may still be spent. `fulfilment`: what is wrong with the endpoint, None
    for nothing. `gate_ahead_s`, `ledger_ahead_s`: of this machine's clock.
    """

    now: datetime
    status: Status | None
    balanced: bool | None
    eligible: dict[str, int]
    cutoffs: dict[str, datetime]
    codes: dict[str, int]
    codes_can_be_read: bool
    fulfilment: Said | None
    gate_ahead_s: float | None
    ledger_ahead_s: float


def checklist(drop: Drop, facts: Facts) -> list[Item]:
    """All lines, the drop's own first."""
    return [
        *_times(drop, facts.now),
        *_stock(drop),
        _price(drop),
        *(item for a in drop.allocations for item in _access(drop, a, facts)),
        _item("fulfilment", facts.fulfilment, said("Orders have somewhere to go, and it answers.")),
        *_stores(facts),
        _texts(drop),
    ]


def _item(name: str, problem: Said | None, good: Said, *, blocking: bool = True, allocation: str | None = None) -> Item:
    return Item(name, blocking, problem is None, problem or good, allocation)


def _advice(name: str, problem: Said, allocation: str | None = None) -> Item:
    """A line that is there only when it has something to say."""
    return Item(name, blocking=False, ok=False, detail=problem, allocation=allocation)


def _times(drop: Drop, now: datetime) -> list[Item]:
    coming = [a for a in drop.allocations if a.closes_at > now]
    over = None if coming else said("All windows are over: nothing can be sold. Move a window.")
    first = min((a.opens_at for a in coming), default=None)
    passed = None
    if first is not None and first <= now:
        passed = said("An opening has passed already: the sale begins in the moment of the release.")
    of = said("{n} of {all} windows are open or to come.", n=len(coming), all=len(drop.allocations))
    return [
        _item("windows", over, of),
        _item("opening", passed, said("The opening lies ahead."), blocking=False),
    ]


def _stock(drop: Drop) -> list[Item]:
    total = sum(a.quantity for a in drop.allocations)
    none = None if total else said("There is no unit in any allocation.")
    items = [_item("units", none, said("{n} units are set up.", n=total))]
    items += [_advice("units", said("It has no units."), a.id) for a in drop.allocations if total and not a.quantity]
    return items


def _price(drop: Drop) -> Item:
    problem = None
    if drop.price.amount == 0:
        problem = said("The price is 0: is it free?")
    elif drop.list_price is not None and drop.list_price.amount < drop.price.amount:
        problem = said("The list price is lower than the price.")
    return _item("price", problem, said("The price is set."), blocking=False)


def _texts(drop: Drop) -> Item:
    """A drop without any is sold by its title, perhaps on other pages; one that is half translated is not ready."""
    zh, en = drop.texts.zh, drop.texts.en
    lacks = (
        (en.title, zh.title, said("no title in Chinese")),
        (zh.title, en.title, said("no title in English")),
        (en.description, zh.description, said("no description in Chinese")),
        (zh.description, en.description, said("no description in English")),
    )
    missing = [lack for there, here, lack in lacks if there and not here]
    if not missing and not zh.title:
        return _advice("texts", said("There are no texts: pages show the drop's one title."))
    problem = said("Shoppers' texts: {missing}.", missing=missing) if missing else None
    return _item("texts", problem, said("The texts are there in both languages."))


def _access(drop: Drop, a: Allocation, facts: Facts) -> list[Item]:
    match a.access:
        case Points():
            return _points(a, a.access, facts)
        case Fcode():
            return _fcodes(drop, a, facts)
        case _:
            return []


def _points(a: Allocation, rule: Points, facts: Facts) -> list[Item]:
    members, nobody = facts.eligible.get(a.id), None
    if members is None:
        nobody = said("The points snapshot {name} is not there, or its list was not computed.", name=rule.snapshot)
    elif members == 0:
        nobody = said("Nobody has {n} points in snapshot {name}.", n=rule.at_least, name=rule.snapshot)
    items = [_item("snapshot", nobody, said("{n} members may buy.", n=members or 0), allocation=a.id)]
    cutoff = facts.cutoffs.get(a.id)
    if cutoff is not None and cutoff > facts.now:
        ahead = said("The snapshot's cut-off lies in the future: points may still change until then.")
        items.append(_advice("snapshot", ahead, a.id))
    return items


def _fcodes(drop: Drop, a: Allocation, facts: Facts) -> list[Item]:
    codes, few, keys, stopped = facts.codes.get(a.id, 0), None, None, None
    if codes == 0:
        few = said("No F-code was minted for it, or none can be spent any more.")
    if not facts.codes_can_be_read:
        keys = said("No F-code key is set (FLASHSALE_FCODE_KEYS): every code would be refused.")
    if drop.fcodes_stopped:
        stopped = said("F-codes are stopped: who shows one hears `paused`.")
    items = [
        _item("fcodes", few, said("{n} F-codes may be spent.", n=codes), allocation=a.id),
        _item("fcode_keys", keys, said("F-codes can be read."), allocation=a.id),
        _item("fcodes_stopped", stopped, said("F-codes are honoured."), allocation=a.id),
    ]
    if 0 < codes < a.quantity:
        bare = a.quantity - codes
        spare = said("{n} of its {all} units have no code, and nobody can buy them.", n=bare, all=a.quantity)
        items.append(_advice("fcodes", spare, a.id))
    return items


def _stores(facts: Facts) -> list[Item]:
    gate = said("The gate is not armed for this drop; ask again in a moment.") if facts.status is None else None
    balance = {
        True: None,
        False: said("Gate and ledger do not account for every unit: run `flashsale audit`."),
        None: said("The balance could not be read; ask again in a moment."),
    }[facts.balanced]
    apart = []
    if (ahead_s := facts.gate_ahead_s) is not None and abs(ahead_s) > CLOCKS_APART_MAX_S:
        apart.append(said("the gate's clock is {s} s from this machine's", s=f"{ahead_s:+.3f}"))
    if abs(ahead_s := facts.ledger_ahead_s) > CLOCKS_APART_MAX_S:
        apart.append(said("the ledger's clock is {s} s from this machine's", s=f"{ahead_s:+.3f}"))
    clocks = said("Set the clocks: {clocks}.", clocks=apart) if apart else None
    return [
        _item("gate", gate, said("The gate is armed.")),
        _item("balance", balance, said("Every unit has its place.")),
        _item("clock", clocks, said("The clocks agree within a second.")),
    ]


async def tried(connect: Callable[[], Awaitable[object]], shown: str) -> Said | None:
    """What is wrong with an endpoint, by connecting to it; None for nothing."""
    try:
        await connect()
    except (OSError, TimeoutError, Unavailable) as fault:
        why = type(fault).__name__
        return said("The endpoint {url} cannot be reached from here ({why}); orders would wait.", url=shown, why=why)
    return None


def shifted(drop: Drop, opens_at: datetime | None, now: datetime) -> timedelta:
    """By how much all windows of a drop move so that the first opens then; by default by whole days, to the future."""
    first = min(a.opens_at for a in drop.allocations)
    if opens_at is not None:
        return opens_at - first
    days = max(0, (now - first).days + 1) if first <= now else 0
    return timedelta(days=days)
