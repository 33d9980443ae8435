"""What the stores say, as plain facts: rows of the ledger, entries of the gate, and what was heard of a reservation.

Times are Unix time in whole microseconds by the ledger's clock, but for those of `Heard`: seconds, by the journal's.
"""

from typing import Any, Final

import msgspec

LIVE: Final = frozenset({"held", "confirmed"})
SPENDING: Final = frozenset({"held", "confirmed", "returned"})
ENDED: Final = frozenset({"cancelled", "expired", "returned"})
BATCH_SHIFT: Final = 22
"""A code's number is its batch and, in the lower 22 bits, its serial."""
SERIALS_A_FIELD: Final = 1_000
CODES_STRIPE: Final = 0
"""Where the gate keeps which F-codes are spent, and all units that are set aside for them."""


class Heard(msgspec.Struct, gc=False):
    """What the journal says of one reservation; None: nothing of that kind."""

    acknowledged: bool = False
    created_sent: float | None = None
    """Of the 201: the request and the answer."""
    created_heard: float | None = None
    created_times: int = 0
    held_sent: float | None = None
    """The latest request that was answered with `held`."""
    confirm_sent: float | None = None
    """The earliest request to confirm that may have had its effect."""
    confirmed_heard: float | None = None
    """The earliest answer that said `confirmed`."""
    confirmed_sent: float | None = None
    """The latest request that was answered with `confirmed`."""
    cancel_asked: bool = False
    ended: str | None = None
    ended_heard: float | None = None
    """The earliest answer that said that it had ended, and how."""


class Row(msgspec.Struct, gc=False):
    """A reservation in the ledger. Its claim is on the stripe `home` of the gate, its unit on `stripe`.

    `entries` counts what the gate has of it; `heard` is what the journal says.
    """

    id: bytes
    member: int
    allocation: str
    quantity: int
    slot: int
    state: str
    key: str | None
    payload: str
    code: int | None
    created: int
    expires: int
    ended: int | None
    released: bool | None
    keeps_slot: bool
    order: bytes | None
    home: int
    stripe: int
    entries: int = 0
    heard: Heard | None = None

    @property
    def live(self) -> bool:
        """Whether it holds units."""
        return self.state in LIVE

    @property
    def places(self) -> set[int]:
        """The stripes of the gate that have an entry of it: a place that is kept is at home, and has no unit."""
        return {self.home} if self.keeps_slot else {self.home, self.stripe}

    @property
    def until(self) -> int | None:
        """Until when it counts under its member's limit; None: it still does."""
        return None if self.keeps_slot else self.ended


class Allocation(msgspec.Struct, frozen=True):
    """A slice of the stock; `eligible_set` names the gate's list of who a points rule lets in."""

    id: str
    quantity: int
    taken: int
    opens: int
    closes: int
    kind: str
    snapshot: str | None
    at_least: int | None
    eligible_set: str | None


class Drop(msgspec.Struct, frozen=True):
    """The sale."""

    id: str
    epoch: int
    per_member: int
    hold_s: int
    paused: bool
    closed: bool
    price: int
    currency: str
    stripes: int
    own_codes_stopped: bool
    codes_stopped: bool
    created: int
    allocations: dict[str, Allocation]

    @property
    def ends(self) -> int:
        """When the last window closes."""
        return max((a.closes for a in self.allocations.values()), default=self.created)


class Order(msgspec.Struct, frozen=True, gc=False):
    """A message to the shop, with its job in the queue, if it has one there."""

    id: bytes
    reservation: bytes
    event: str
    state: str
    amount: int
    currency: str
    payment: str | None
    created: int
    queued: int
    settled: int | None
    tries: int
    jobs: int
    job_due: int | None
    job_taken: int | None
    """When the worker that has the job last said that it lives."""


class Payment(msgspec.Struct, frozen=True, gc=False):
    """Money that came in for a reservation."""

    id: str
    reservation: bytes
    amount: int
    currency: str
    applied: bool
    received: int


class Batch(msgspec.Struct, frozen=True):
    """F-codes minted together."""

    id: int
    allocation: str
    count: int
    bound: bool
    created: int
    expires: int | None
    revoked: int | None


class Act(msgspec.Struct, frozen=True):
    """A line of the audit log."""

    id: int
    at: int
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """All of a drop, read in one snapshot at `now`. `owners`: number of a spent bound code → its member."""

    now: int
    drop: Drop
    rows: dict[bytes, Row]
    orders: dict[bytes, Order]
    payments: list[Payment]
    batches: dict[int, Batch]
    revoked: dict[int, int]
    owners: dict[int, int]
    log: list[Act]
    twice_keyed: list[tuple[int, str, int]]
    jobs_without_order: list[str]


class Entry(msgspec.Struct, frozen=True):
    """One line of a stripe of the gate. `allocation` is empty where it only keeps a place under the limit.

    `elsewhere`: it is the claim of a reservation whose unit is on another stripe.
    """

    id: bytes | None
    id_text: str
    member: int
    allocation: str
    quantity: int
    slot: int
    key: str
    payload: str
    code: int | None
    stripe: int
    elsewhere: bool


class Pending(msgspec.Struct, frozen=True):
    """A grant that the gate does not know to be in the ledger, and since when, ms by the gate's clock."""

    id: bytes | None
    id_text: str
    member: int
    since_ms: int


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The small part of a gate's stripe: whether it is whole, what is left, what is pending; `now`: its clock."""

    now: int
    replid: str
    meta: dict[str, bytes]
    pending: list[Pending]
    missing: tuple[str, ...]
    """Keys without their sentinel."""

    @property
    def epoch(self) -> int | None:
        """The epoch it was armed for; None: it is not armed, or on another server."""
        if self.missing or self.meta.get("replid", b"").decode() != self.replid:
            return None
        return int(self.meta["epoch"])

    @property
    def moving(self) -> tuple[object, ...]:
        """What changes with whatever happens to an entry."""
        return self.meta, self.pending, self.missing, self.replid


class Gate(msgspec.Struct, kw_only=True):
    """The gate of a drop, stripe by stripe, read before and after the ledger.

    It is armed only for `epoch`, the ledger's. `pending_units`: units of entries that are no live row, by allocation;
    `entry_units`: of all entries.
    `codes`: batch facts and bitmaps of each stripe; `entry_codes`: codes that an entry without a live row has.
    """

    epoch: int
    before: dict[int, Head]
    after: dict[int, Head]
    entries: int = 0
    entry_units: dict[str, int] = {}
    pending_units: dict[str, int] = {}
    entry_codes: set[int] = set()
    codes: dict[int, dict[bytes, bytes]] = {}

    @property
    def moved(self) -> bool:
        """Whether anything happened between the two readings."""
        return {s: h.moving for s, h in self.before.items()} != {s: h.moving for s, h in self.after.items()}

    @property
    def armed(self) -> bool:
        """Whether every stripe is whole, on the server where it was armed, and of the ledger's epoch."""
        return all(head.epoch == self.epoch for head in self.after.values())
