"""What a caller of both ledgers knows, and what it does next."""

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec

from flashsale.domain import Event, Everyone, Grant, OrderState, Payment, State
from flashsale.ledger import Tried, Wish
from tests.ledger.commands import (
    BATCHES,
    CODES,
    DROPS,
    EVERYTHING,
    HOLD_S,
    MEMBERS,
    PRICE,
    START,
    URL,
    Acting,
    Arming,
    Call,
    Command,
    Tick,
    Working,
    allocation_of,
)
from tests.ledger.model import ModelLedger


class World:
    """Makes up commands, most of them about something that is there: what is there, the model knows."""

    def __init__(self, model: ModelLedger) -> None:
        self._model = model
        self._grants: list[tuple[str, Grant]] = []
        self._ids = 0

    def _new_id(self) -> str:
        """Ids whose order is not that of their making."""
        self._ids += 1
        return str(UUID(int=(self._ids * 0x9E3779B97F4A7C15 % 2**64) << 64 | self._ids))

    def next(self, dice: random.Random) -> Command:
        """Something to do: what there is nothing for, more seldom."""
        t = self._model.tables
        states = {r.state for r in t.reservations.values()}
        unreleased = any(r.released is False for r in t.reservations.values())
        held = State.HELD in states
        kinds: tuple[tuple[int, bool, Callable[[random.Random], Command]], ...] = (
            (24, True, self._commit),
            (6, True, self._void),
            (14, held, self._end),
            (14, held, self._confirm),
            (12, not states.isdisjoint({State.CONFIRMED, State.RETURNED}), self._take_back),
            (14, held, lambda dice: Tick(dice.choice((0.0004, *[HOLD_S / 2] * 6, HOLD_S, HOLD_S, 8_000)))),
            (7, unreleased, self._mark),
            (3, True, lambda dice: Call("drops", "bump", (self._drop(dice),))),
            (2, True, _switch),
            (8, True, self._act),
            (12, bool(self._model.queue.jobs), self._work),
            (10, bool(t.orders), self._try),
            (3, True, lambda dice: dice.choice(self.looks(dice))),
        )
        weights = [weight if useful else weight / 6 for weight, useful, _ in kinds]
        return dice.choices([kind for *_, kind in kinds], weights)[0](dice)

    def _drop(self, dice: random.Random) -> str:
        return dice.choice((*[DROPS[0]] * 12, *[DROPS[1]] * 3, "d-9"))

    def _epoch(self, drop_id: str, shift: int = 0) -> int:
        row = self._model.tables.drops.get(drop_id)
        return (1 if row is None else row.epoch) + shift

    def _rows(self, drop_id: str, *states: State) -> list[str]:
        rows = self._model.tables.reservations.values()
        return [r.id for r in rows if r.drop == drop_id and (not states or r.state in states)]

    def _ids_of(self, dice: random.Random, *states: State) -> tuple[str, list[str]]:
        """A drop and some reservations: of the drop and in these states, as a rule."""
        drop_id = dice.choice((*[DROPS[0]] * 6, DROPS[1]))
        fit, rest = self._rows(drop_id, *states), [*self._model.tables.reservations, self._new_id()]
        ids = [dice.choice(fit if fit and dice.random() < 0.75 else rest) for _ in range(dice.randrange(1, 5))]
        return drop_id, ids

    def _grant(self, dice: random.Random, drop_id: str) -> Grant:
        """As a gate could hand it over, now and then a wrong one."""
        row = self._model.tables.drops.get(drop_id)
        limit = 1 if row is None else row.per_member
        name, member = dice.choice("aaabbccccc" if drop_id == DROPS[0] else "abc"), dice.choice(MEMBERS)
        quantity, slot = dice.choice((1, 1, 1, min(2, limit), min(2, limit), 2)), dice.randrange(1, limit + 1)
        code = dice.choice(CODES) if dice.random() < (0.85 if name == "c" else 0.05) else None
        if (gone := self._rows(drop_id, State.RETURNED)) and dice.random() < 0.6:
            returned = self._model.tables.reservations[dice.choice(gone)]
            member, code = (returned.member, code) if returned.code is None else (member, returned.code)
        key = dice.choice((None, None, None, "k", "l", "a\\b\\n"))
        return Grant(
            id=self._new_id(),
            member=member,
            allocation=dice.choice((*[name] * 25, "ghost")),
            quantity=1 if code is not None else quantity,
            slot=dice.choice((*[slot] * 15, limit + 1)),
            key=key,
            payload=f"{name}|{quantity}",
            epoch=self._epoch(drop_id, dice.choice((*[0] * 30, -1, 1))),
            stripe=(home := dice.choice((0, 0, 1))),
            unit=(None, 2, 1 - home)[self._ids % 3],
            code=code,
        )

    def _commit(self, dice: random.Random) -> Command:
        drop_id, grants = self._drop(dice), list[Grant]()
        for _ in range(dice.randrange(2, 8)):
            if self._grants and dice.random() < 0.12:
                _, known = dice.choice(self._grants[-12:])
                grants.append(known if dice.random() < 0.7 else msgspec.structs.replace(known, id=self._new_id()))
            else:
                grants.append(self._grant(dice, drop_id))
        if dice.random() < 0.1:
            grants.append(dice.choice(grants))
        self._grants += [(drop_id, g) for g in grants]
        return Call("reservations", "commit", (drop_id, grants))

    def _void(self, dice: random.Random) -> Command:
        """Tombstones for grants that were committed, and for some that may be later."""
        drop_id = DROPS[dice.random() < 0.1]
        orphans = [self._grant(dice, drop_id) for _ in range(dice.randrange(3))]
        known = [g for at, g in self._grants[-8:] if at == drop_id and dice.random() < 0.4]
        self._grants += [(drop_id, g) for g in orphans]
        return Call("reservations", "void", (drop_id, [*orphans, *known]))

    def _end(self, dice: random.Random) -> Command:
        drop_id, ids = self._ids_of(dice, State.HELD)
        now, held = self._model.tables.now(), self._model.tables.reservations.values()
        due = [r for r in held if r.state is State.HELD and r.expires_at <= now]
        if due and dice.random() < 0.7:
            drop_id = dice.choice((due[0].drop, due[0].drop, due[0].drop, DROPS[1]))
            return Call("reservations", "expire", (drop_id, [*ids, *(r.id for r in due[:2])]))
        return Call("reservations", dice.choice(("cancel", "cancel", "expire")), (drop_id, ids))

    def _mark(self, dice: random.Random) -> Command:
        drop_id, ids = self._ids_of(dice, State.CANCELLED, State.EXPIRED, State.RETURNED)
        here, shift = dice.choice(((drop_id, 0), (drop_id, 0), (drop_id, -1), (DROPS[drop_id == DROPS[0]], 0)))
        return Call("reservations", "mark_released", (here, ids, self._epoch(here, shift)))

    def _confirm(self, dice: random.Random) -> Command:
        """When one payment is said to be for several holds, each of them is asked for once.

        Else a member's own confirm of such a hold, in the same call, may hear `expired`: a service confirms by its
        members or by payments, so that the two never meet in one call.
        """
        _, ids = self._ids_of(dice, *dice.choice(((State.HELD,), (State.HELD,), (State.CANCELLED, State.CONFIRMED))))
        wishes = [self._wish(dice, found) for found in ids]
        paid = {(w.payment.id, w.reservation) for w in wishes if w.payment is not None}
        if len(paid) > len({payment for payment, _ in paid}):
            wishes = [*{w.reservation: w for w in wishes}.values()]
        return Call("orders", "confirm", (wishes,))

    def _wish(self, dice: random.Random, reservation: str) -> Wish:
        row, payments = self._model.tables.reservations.get(reservation), [*self._model.tables.payments.values()]
        member, due = (1, 100) if row is None else (row.member, PRICE.amount * row.quantity)
        if payments and dice.random() < 0.25:
            known = dice.choice(payments)
            same = known.reservation if dice.random() < 0.7 else reservation
            return Wish(same, self._new_id(), member, Payment(known.id, known.amount, known.currency))
        paid = None
        if dice.random() < 0.5:
            amount, currency = dice.choice((*[due] * 5, 100, due + 1)), dice.choice(("CNY", "CNY", "CNY", "USD"))
            paid = Payment(f"p{dice.choice((1, 2, self._ids))}", amount, currency)
        return Wish(reservation, self._new_id(), member if dice.random() < 0.85 else 7, paid)

    def _take_back(self, dice: random.Random) -> Command:
        _, ids = self._ids_of(dice, State.CONFIRMED if dice.random() < 0.8 else State.RETURNED)
        to, restock = dice.choice((None, None, None, "a", "b", "ghost")), dice.random() < 0.6
        more = {"restock": restock, "to": to, "reason": "broken", "actor": "member:1"}
        return Call("orders", "take_back", (ids[0], self._new_id()), more)

    def _orders(self, dice: random.Random) -> list[str]:
        orders = self._model.tables.orders
        settled = [o.id for o in orders.values() if o.state is not OrderState.QUEUED]
        known = settled if settled and dice.random() < 0.4 else [*orders, self._new_id()]
        return [*dict.fromkeys(dice.choice(known) for _ in range(dice.randrange(1, 4)))]

    def _try(self, dice: random.Random) -> Command:
        """What came of deliveries."""
        orders = self._orders(dice)
        match dice.choice(("settle", "settle", "replay", "replay", "disable")):
            case "settle":
                states = (OrderState.DELIVERED, OrderState.QUEUED, OrderState.DEAD)
                tried = [Tried(o, dice.choice(states), dice.choice((None, "503"))) for o in orders]
                return Call("orders", "settle", (tried,))
            case "replay":
                return Call("orders", "replay", (orders[0],), {"actor": "member:1"})
            case _:
                return Call("orders", "disable", (URL,))

    def _work(self, dice: random.Random) -> Command:
        """What becomes of jobs."""
        match dice.choice(("take", "take", "place", "place", "lose", "lose", "requeue", "requeue", "prune")):
            case "take":
                return Working("take", (dice.randrange(1, 4),))
            case "place":
                method = dice.choice(("beat", "done", "done", "put_off"))
                delay = (dice.choice((1, HOLD_S)),) if method == "put_off" else ()
                return Working(method, (dice.randrange(10**6), *delay))
            case "lose":
                return Working("lose", (dice.choice([*self._model.queue.jobs, *self._orders(dice)]),))
            case "requeue":
                after = dice.choice((None, None, self._orders(dice)[0]))
                return Call("orders", "requeue_lost", (after, dice.choice((1, 2, EVERYTHING))))
            case _:
                return Call("orders", "prune_log", (float(HOLD_S), dice.choice((2, EVERYTHING))))

    def _act(self, dice: random.Random) -> Command:
        drop_id, name, other = self._drop(dice), dice.choice("aabc"), dice.choice("abbc")
        count = dice.choice((1, 1, 2, -1))
        row = self._model.tables.allocations.get((drop_id, name))
        taken = 0 if row is None else row.taken
        window = {"opens_at": START, "closes_at": START + timedelta(hours=dice.choice((1, 2, *[3] * 8, 0)))}
        change = {"quantity": taken + dice.choice((-1, 0, 1, 2, 3, 4)), **window, "channel": None}
        serials = dice.choice(([0], [0, 1], [2, 2], None, None, []))
        does: dict[str, tuple[tuple[str, tuple[Any, ...], dict[str, Any]], ...]] = {
            "look": (("lock_allocation", (name,), {}), ("lock_allocation", ("c",), {})),
            "change": (("update_allocation", (name,), change), ("lock_allocation", (name,), {})),
            "move": (("move_units", (name, other, count), {}), ("lock_allocation", (other,), {})),
            "current": (("move_units", (name, other, 1), {}), ("current", (), {})),
            "add": (("add_allocation", (allocation_of(dice.choice("ade"), 2, Everyone()),), {}),),
            "revoke": (("revoke", (dice.choice(BATCHES), serials), {}), ("lock_allocation", ("c",), {})),
        }
        if (what := dice.choice((*does, "change", "revoke", "revoke", "set", "set"))) == "set":
            title = ("title", dice.choice(("Another", "")))
            off = (("paused", True), ("closed", True))
            held = (("paused", True), ("held", True)), (("held", True),), (("held", False), ("paused", False))
            codes = ((("fcodes_stopped", True),), (("fcodes_stopped", False),))
            sets = dice.choice(((title,), off, off, off[:1], off[:1], off[1:], (("paused", False),), *held, *codes))
            return Acting(drop_id, sets=sets, given_up=dice.random() < 0.1)
        return Acting(drop_id, does[what], given_up=dice.random() < 0.2)

    def looks(self, dice: random.Random) -> list[Command]:
        """Some of all that can be asked, and what a rebuild reads."""
        drop_id, member, batch, other = self._drop(dice), dice.choice(MEMBERS), dice.choice(BATCHES), dice.choice(DROPS)
        few, order = dice.choice((1, 2, 3, EVERYTHING)), dice.choice((None, self._orders(dice)[0]))
        rows = [*self._model.tables.reservations.values()]
        row = dice.choice(rows) if rows else None
        after = None if row is None or dice.random() < 0.3 else (row.created_at, row.id)
        asked: tuple[tuple[str, str, tuple[Any, ...]], ...] = (
            ("drops", "get", (drop_id,)),
            ("drops", "page", (dice.choice((None, "d-1")), few)),
            ("drops", "epochs", ()),
            ("drops", "balance", (other, self._rows(drop_id))),
            ("drops", "taken", ([other, "d-9"],)),
            ("drops", "audit", (dice.choice((None, other, f"{other}/a", "d")), dice.choice((None, 4)), few)),
            ("reservations", "get", (self._new_id() if row is None else row.id,)),
            ("reservations", "list_of", (member if row is None else row.member, after, few)),
            ("orders", "page", (dice.choice((None, *OrderState)), dice.choice((None, None, *Event)), order, few)),
            ("orders", "load", ([*self._model.tables.orders],)),
            ("orders", "health", (dice.choice((URL, None)),)),
            ("orders", "disabled", (URL,)),
            ("fcodes", "get", (batch,)),
            ("fcodes", "page", (dice.choice((None, 2)), few)),
            ("fcodes", "of_drop", (drop_id,)),
            ("fcodes", "counts", (batch,)),
            ("fcodes", "spent", (batch, dice.choice((-1, 0)), few)),
            ("fcodes", "bound", (batch, dice.choice((-1, 0)))),
            ("fcodes", "revoked", (batch,)),
            ("fcodes", "stop", ()),
            ("fcodes", "lanes", ()),
            ("fcodes", "mine", (dice.choice((1, 2)), dice.choice((None, CODES[4])), few)),
        )
        always = (("reservations", "due", (few,)), ("reservations", "outbox", (other, EVERYTHING)))
        calls = [Call(*each) for each in (*dice.sample(asked, 10), *always)]
        return [*calls, Arming(DROPS[0], self._epoch(DROPS[0])), Arming(drop_id, self._epoch(drop_id, -1))]


def _switch(dice: random.Random) -> Command:
    """The F-codes of all drops are stopped, or honoured again."""
    return Call("fcodes", "switch", (), {"stopped": dice.random() < 0.5, "actor": "member:1", "reason": "leak"})
