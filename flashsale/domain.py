"""The words of a flash sale: ids, drops, allocations, access rules, verdicts, reservations.

Pure: no client, no clock. Everything that crosses a boundary (HTTP, Redis, Postgres) is one of
these structs or is made out of one.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal
from zlib import crc32

import msgspec

ID_PATTERN: Final = "^[a-z0-9][a-z0-9-]{0,62}$"
MEMBER_MAX: Final = 2**63 - 1
QUANTITY_MAX: Final = 2**31 - 1
HOLD_MAX_S: Final = 30 * 86_400
IDEMPOTENCY_KEY_MAX_CHARS: Final = 255
STRIPES_MAX: Final = 64
CODES_STRIPE: Final = 0
"""Of a striped drop, the stripe on which F-codes are spent, and which has all units that are set aside for them."""


def whole(pattern: str, description: str) -> msgspec.Meta:
    """All of the text is so. Python's `$`, unlike that of JSON Schema, would let a line break pass at the end."""
    return msgspec.Meta(pattern=pattern.removesuffix("$") + r"\Z", description=description)


LINE: Final = whole("^[^\\u0000-\\u001f\\u007f]*$", "One line of text, without control characters.")
PROSE: Final = whole(
    "^[^\\u0000-\\u0009\\u000b-\\u001f\\u007f]*$", "Text of several lines, without other control characters."
)
PICTURE_PATTERN: Final = r"^[0-9a-f]{20}-[0-9]{1,5}x[0-9]{1,5}\.(png|jpg|webp)$"
Id = Annotated[str, whole(ID_PATTERN, "Id of a drop, an allocation or a snapshot.")]
Quantity = Annotated[int, msgspec.Meta(ge=1, le=QUANTITY_MAX)]
Timestamp = Annotated[datetime, msgspec.Meta(tz=True, description="RFC 3339 with zone.")]
Minor = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1, description="Amount in minor units (cents, fen).")]


def home_stripe(member: int, stripes: int) -> int:
    """The stripe that knows what a member has in a drop: the one place where this is spelled.

    A plain remainder would follow whatever pattern ids are handed out by (a shard's ids all even, a batch of robots a
    hundred apart), and one stripe would take their rush alone. So the id is mixed first: a checksum, which C computes
    in half the time that Python needs for a good mixer of 64 bits, and then Knuth's multiplier, because a checksum
    alone is linear: ids that differ in a few bits only could agree in the upper ones. Those are what counts here.
    """
    if stripes == 1:
        return 0
    mixed = crc32(member.to_bytes(8, "big")) * 0x9E3779B1 & 0xFFFF_FFFF
    return mixed * stripes >> 32


class Verdict(StrEnum):
    """The gate's answer, in order of precedence: of several that apply, the first is given."""

    AGAIN = "again"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    NOT_FOUND = "not_found"
    CLOSED = "closed"
    PAUSED = "paused"
    NOT_ELIGIBLE = "not_eligible"
    NOT_OPEN = "not_open"
    FCODE_INVALID = "fcode_invalid"
    FCODE_SPENT = "fcode_spent"
    MEMBER_LIMIT = "member_limit"
    SOLD_OUT = "sold_out"
    HELD = "held"


class State(StrEnum):
    """A reservation's states: `held → confirmed → returned`, or `held → cancelled | expired`.

    `void` marks an id that was granted and never committed: no reservation ever existed under it.
    """

    HELD = "held"
    CONFIRMED = "confirmed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    RETURNED = "returned"
    VOID = "void"


LIVE: Final = frozenset({State.HELD, State.CONFIRMED})
SPENDING: Final = LIVE | {State.RETURNED}
"""An F-code is spent while a reservation in one of these states names it: a confirmed one spends it for good."""


Currency = Annotated[str, whole("^[A-Z]{3}$", "ISO 4217 code.")]


class Money(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An amount in minor units of an ISO 4217 currency."""

    amount: Minor
    currency: Currency


class Everyone(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="everyone"):
    """Every member may take."""


class Points(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="points"):
    """Members with at least this many points in the snapshot may take."""

    snapshot: Id
    at_least: Annotated[int, msgspec.Meta(ge=0, le=MEMBER_MAX)]


class Tier(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="tier"):
    """Members whose token carries at least this tier may take."""

    at_least: Annotated[int, msgspec.Meta(ge=0, le=QUANTITY_MAX)]


class Fcode(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="fcode"):
    """Who presents a valid F-code may take the unit that was set aside for it."""


Access = Everyone | Points | Tier | Fcode


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """A slice of a drop's stock: units, window, who may take, through which channel.

    `eligible_set` names the ledger's list of who a points rule lets in; None with other rules.
    """

    id: str
    quantity: int
    opens_at: datetime
    closes_at: datetime
    access: Access
    channel: str | None = None
    eligible_set: str | None = None


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What pages say of a drop in one language. The description's paragraphs are parted by an empty line."""

    title: Annotated[str, msgspec.Meta(min_length=1, max_length=200), LINE] | None = None
    description: Annotated[str, msgspec.Meta(min_length=1, max_length=4_000), PROSE] | None = None
    notice: Annotated[str, msgspec.Meta(min_length=1, max_length=500), LINE] | None = None


class Texts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The same in every language that pages are written in. What is missing in one is told in the other."""

    zh: Text = Text()
    en: Text = Text()


class Drop(msgspec.Struct, frozen=True, kw_only=True):
    """One limited-quantity sale, as the ledger has it at `epoch`."""

    id: str
    title: str
    price: Money
    list_price: Money | None
    per_member: int
    hold_seconds: int
    epoch: int
    paused: bool
    closed: bool
    allocations: tuple[Allocation, ...]
    created_at: datetime
    rebuy_after_return: bool = False
    """Whether who returned a unit may buy again."""
    stripes: int = 1
    """Over how many parts of the gate, each with keys of its own, it is spread."""
    texts: Texts = Texts()
    picture: str | None = None
    """Id of the picture that pages show."""
    held: bool = False
    """It was set up to wait for its release, and is paused until then."""
    hidden: bool = False
    """It is a rehearsal's copy: in no list, and its orders go nowhere."""
    fcodes_stopped: bool = False
    """Its F-codes are not honoured just now, by its own switch or by that of all drops; they stay unspent."""

    def allocation(self, allocation_id: str) -> Allocation | None:
        """The allocation of that name, if this drop has one."""
        return next((a for a in self.allocations if a.id == allocation_id), None)

    @property
    def is_new(self) -> bool:
        """Whether no gate was ever armed for it: a rebuild begins with a new epoch, and the first is its birthday."""
        return self.epoch == round(self.created_at.timestamp() * 1000)

    @property
    def ends_at(self) -> datetime:
        """When the last window closes."""
        return max((a.closes_at for a in self.allocations), default=self.created_at)


class FcodeBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Codes minted together for one allocation: those with a serial from 0 to `count` - 1 exist.

    Each is honoured until `expires_at` (None: as long as its allocation sells) unless it, or all of them, is revoked.
    `bound`: each belongs to one member, who alone can spend it.
    """

    id: int
    allocation: str
    count: int
    expires_at: datetime | None
    revoked: bool
    bound: bool


class Claim(msgspec.Struct, frozen=True):
    """What one press of the button asks for; `code` is the number of the F-code it shows, which is known to be ours."""

    member: int
    allocation: str | None
    quantity: int
    key: str | None
    tier: int
    code: int | None = None

    @property
    def payload(self) -> str:
        """What the idempotency key stands for: two presses with one key must agree in this."""
        asked = f"{self.allocation or ''}|{self.quantity}"
        return asked if self.code is None else f"{asked}|{self.code}"


class Grant(msgspec.Struct, frozen=True):
    """A unit set aside in the gate under `epoch`, not yet a reservation; `code` is the F-code that it was given for.

    `again` tells that the gate had it already; `pending` that the gate has not yet seen it settled. `stripe` is the
    part of the gate that answered, for a claim the home of its member.
    """

    id: str
    member: int
    allocation: str
    quantity: int
    slot: int
    key: str | None
    payload: str
    epoch: int
    stripe: int = 0
    again: bool = False
    pending: bool = True
    code: int | None = None
    elsewhere: bool = False
    """Its unit is on another stripe: on `unit`, if that is known; it is not while the unit is still being fetched."""
    unit: int | None = None

    @property
    def unit_stripe(self) -> int:
        """The stripe of its unit."""
        return self.stripe if self.unit is None else self.unit

    @property
    def walking(self) -> bool:
        """The claim stands, and its unit is still to come."""
        return self.elsewhere and self.unit is None and self.pending


class Refusal(msgspec.Struct, frozen=True):
    """Why not. `opens_at_ms` comes with `not_open` (Unix time in milliseconds)."""

    verdict: Verdict
    opens_at_ms: int | None = None


SOLD_OUT: Final = Refusal(Verdict.SOLD_OUT)


class Withheld(msgspec.Struct, frozen=True):
    """There is a unit, and it is not given: what is given just now could not be written down."""


Decision = Grant | Refusal | Withheld
"""What the gate answers to a claim."""


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """A member's claim on units of an allocation, as the ledger has it."""

    id: str
    drop: str
    allocation: str
    member: int
    quantity: int
    state: State
    expires_at: datetime
    created_at: datetime
    key: str | None
    payload: str
    order: str | None = None
    """The order that it became when it was confirmed."""
    keeps_slot: bool = False
    """It was returned, and still counts under its member's limit."""
    code: int | None = None
    """The number of the F-code that it was given for."""
    home: int = 0
    unit: int = 0
    """The stripes of the gate that have its claim and its unit."""


class Payment(msgspec.Struct, frozen=True):
    """Money that the payments service has received for a reservation; `id` is its own name for it."""

    id: str
    amount: int
    currency: str


class Confirmation(StrEnum):
    """What came of asking to confirm a hold."""

    CONFIRMED = "confirmed"
    AGAIN = "again"
    EXPIRED = "expired"
    CONFLICT = "conflict"
    NOT_FOUND = "not_found"
    WRONG_AMOUNT = "wrong_amount"
    PAYMENT_TAKEN = "payment_taken"


class OrderState(StrEnum):
    """Where an order is on its way out: `queued → delivered | dead`, and back when it is replayed."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    DEAD = "dead"


class Event(StrEnum):
    """What an order tells the shop."""

    CONFIRMED = "order.confirmed"
    RETURNED = "order.returned"
    REFUND_DUE = "payment.refund_due"


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One message to the shop: a confirmed reservation, its return, or money to give back. `id` names it for ever.

    `money` is the price of one unit, or the refund. `confirmed_as` is the order that the reservation became. `tries`
    counts since it was queued, for the first time or to be replayed.
    """

    id: str
    event: Event
    state: OrderState
    tries: int
    created_at: datetime
    money: Money
    reservation: str
    drop: str
    allocation: str
    member: int
    quantity: int
    confirmed_as: str | None
    payment_id: str | None
    fcode_batch: int | None
    detail: dict[str, Any]
    sink: bool = False
    """It is of a rehearsal: it is taken for delivered, and never sent."""


Role = Literal["shopper", "ops", "ops-read", "payments"]
