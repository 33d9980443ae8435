"""What goes over the wire: one struct per body, for reading, writing and `/openapi.json` alike."""

from typing import Annotated, Any, Literal

import msgspec

from flashsale.domain import (
    HOLD_MAX_S,
    LINE,
    PICTURE_PATTERN,
    STRIPES_MAX,
    Access,
    Currency,
    Event,
    Id,
    Minor,
    Money,
    OrderState,
    Quantity,
    State,
    Texts,
    Timestamp,
    whole,
)

DropState = Literal["upcoming", "open", "sold_out", "paused", "closed"]
Title = Annotated[str, msgspec.Meta(min_length=1, max_length=200), LINE]
Channel = Annotated[str, msgspec.Meta(min_length=1, max_length=63), LINE]
Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=1_000), LINE]
Picture = Annotated[str, whole(PICTURE_PATTERN, "Id of a picture, as `POST /v1/ops/pictures` answered it.")]
Units = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1, description="Units.")]
ShownState = Annotated[
    State, msgspec.Meta(extra_json_schema={"enum": sorted(s.value for s in State if s is not State.VOID)})
]
PerMember = Annotated[int, msgspec.Meta(ge=1, le=1_000)]
Stripes = Annotated[
    int,
    msgspec.Meta(
        ge=1,
        le=STRIPES_MAX,
        description="Over how many slots of a cluster the drop is spread, for good. Several units in one reservation "
        "come from one of them.",
    ),
]
HoldSeconds = Annotated[int, msgspec.Meta(ge=1, le=HOLD_MAX_S)]


class ReserveIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One press of the button."""

    allocation: (
        Annotated[str, msgspec.Meta(min_length=1, max_length=63, description="Which one; absent: the first that fits.")]
        | None
    ) = None
    quantity: Quantity = 1
    fcode: Annotated[str, msgspec.Meta(max_length=10_000)] | None = None


class ReservationOut(msgspec.Struct, frozen=True):
    """A reservation."""

    id: str
    drop: str
    allocation: str
    member: int
    quantity: int
    state: ShownState
    expires_at: Timestamp
    order: Annotated[str, msgspec.Meta(description="Once confirmed.")] | msgspec.UnsetType = msgspec.UNSET


class ConfirmIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Confirms a hold. By a member: nothing. By the payments service: what was paid, all three."""

    payment_id: Annotated[str, msgspec.Meta(min_length=1, max_length=255), LINE] | None = None
    amount: Minor | None = None
    currency: Currency | None = None


class ReturnIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Marks a confirmed reservation returned. The unit goes to its own allocation, to another, or leaves the sale."""

    reason: Reason
    restock: bool = True
    to_allocation: Id | None = None


class AllocationIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An allocation to set up."""

    id: Id
    quantity: Units
    opens_at: Timestamp
    closes_at: Timestamp
    access: Access
    channel: Channel | None = None


class AllocationPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may change while the drop runs; what is left out stays."""

    quantity: Units | msgspec.UnsetType = msgspec.UNSET
    opens_at: Timestamp | msgspec.UnsetType = msgspec.UNSET
    closes_at: Timestamp | msgspec.UnsetType = msgspec.UNSET
    channel: Channel | msgspec.UnsetType | None = msgspec.UNSET


class DropIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A drop to set up."""

    id: Id
    title: Title
    price: Money
    allocations: Annotated[tuple[AllocationIn, ...], msgspec.Meta(min_length=1, max_length=200)]
    list_price: Money | None = None
    per_member: PerMember = 1
    hold_seconds: HoldSeconds = 900
    rebuy_after_return: Annotated[bool, msgspec.Meta(description="Whether who returned a unit may buy again.")] = False
    stripes: Stripes = 1
    texts: Texts = Texts()
    picture: Picture | None = None
    hold: Annotated[bool, msgspec.Meta(description="Set up paused; it opens when it was released by `resume`.")] = False


class DropPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may change of a drop itself; what is left out stays."""

    title: Title | msgspec.UnsetType = msgspec.UNSET
    texts: Texts | msgspec.UnsetType = msgspec.UNSET
    picture: Picture | msgspec.UnsetType | None = msgspec.UNSET


class SwitchIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a drop is paused, resumed or closed: for the audit log."""

    reason: Reason | None = None


class AccessOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who may take, as a shopper sees it."""

    kind: Literal["everyone", "points", "tier", "fcode"]
    at_least: int | None = None


class AllocationOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """An allocation, as a shopper sees it."""

    id: str
    state: DropState
    opens_at: Timestamp
    closes_at: Timestamp
    access: AccessOut
    channel: str | None = None


class DropOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """A drop, as a shopper sees it."""

    id: str
    title: str
    price: Money
    per_member: int
    hold_seconds: int
    server_time: Timestamp
    allocations: tuple[AllocationOut, ...]
    list_price: Money | None = None
    texts: Texts = Texts()
    picture: str | None = None


class OpsAllocationOut(msgspec.Struct, frozen=True):
    """An allocation, as an operator sees it. `available` is the gate's; null while the gate cannot be asked."""

    id: str
    state: DropState
    opens_at: Timestamp
    closes_at: Timestamp
    access: Access
    channel: str | None
    quantity: int
    taken: int
    available: int | None


class OpsDropOut(msgspec.Struct, frozen=True):
    """A drop, as an operator sees it."""

    id: str
    title: str
    price: Money
    list_price: Money | None
    per_member: int
    hold_seconds: int
    rebuy_after_return: bool
    stripes: int
    paused: bool
    held: bool
    closed: bool
    hidden: bool
    fcodes_stopped: bool
    epoch: int
    created_at: Timestamp
    server_time: Timestamp
    allocations: tuple[OpsAllocationOut, ...]
    texts: Texts
    picture: str | None


class EligibilityItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether this member may take from an allocation, and if not, why not."""

    id: str
    eligible: bool
    code: str | None = None
    detail: str | None = None


class EligibilityOut(msgspec.Struct, frozen=True):
    """What this member may take from a drop."""

    drop: str
    allocations: tuple[EligibilityItem, ...]


class BalanceItem(msgspec.Struct, frozen=True):
    """Where an allocation's units are. `pending`: granted and not yet in the ledger, or ended and not yet back."""

    id: str
    quantity: int
    available: int
    pending: int
    held: int
    confirmed: int
    balanced: bool


class BalanceOut(msgspec.Struct, frozen=True):
    """Whether gate and ledger account for every unit (I1)."""

    drop: str
    balanced: bool
    allocations: tuple[BalanceItem, ...]


class SnapshotOut(msgspec.Struct, frozen=True):
    """A points snapshot."""

    snapshot: str
    cutoff: Timestamp
    members: int


class OrderOut(msgspec.Struct, frozen=True, kw_only=True):
    """What leaves for the shop: an order, its return, or money to give back. `order` is the webhook's id.

    `money` is the price of one unit, or the refund; `due_at` when the next try is; `reason` why the last one failed.
    """

    order: str
    event: Event
    state: OrderState
    reservation: str
    drop: str
    allocation: str
    member: int
    quantity: int
    money: Money
    payment_id: str | None
    created_at: Timestamp
    settled_at: Timestamp | None
    due_at: Timestamp | None
    tries: int
    reason: str | None


class QueueOut(msgspec.Struct, frozen=True):
    """How the order queue is. `disabled`: the endpoint answered 410; replaying an order tries it again."""

    waiting: int
    oldest_seconds: float
    tries_max: int
    dead: int
    disabled: bool


class ReplayOut(msgspec.Struct, frozen=True):
    """An order that is on its way again; `was` is the state that it was in."""

    order: str
    state: OrderState
    was: OrderState


class AuditOut(msgspec.Struct, frozen=True):
    """Who did what, when, on what, and why."""

    id: str
    at: Timestamp
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]


class DropList(msgspec.Struct, frozen=True):
    """A page of drops."""

    items: tuple[DropOut, ...]
    next: str | None


class OpsDropList(msgspec.Struct, frozen=True):
    """A page of drops."""

    items: tuple[OpsDropOut, ...]
    next: str | None


class ReservationList(msgspec.Struct, frozen=True):
    """A page of reservations."""

    items: tuple[ReservationOut, ...]
    next: str | None


class OrderList(msgspec.Struct, frozen=True):
    """A page of orders, newest first, and the state of the queue."""

    queue: QueueOut
    items: tuple[OrderOut, ...]
    next: str | None


class AuditList(msgspec.Struct, frozen=True):
    """A page of the audit log."""

    items: tuple[AuditOut, ...]
    next: str | None


class Problem(msgspec.Struct, frozen=True):
    """RFC 9457. `code` is stable; `detail` says what to do. The other members come with some codes only."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    opens_at: Annotated[Timestamp, msgspec.Meta(description="With `not_open`.")] | msgspec.UnsetType = msgspec.UNSET
    line: Annotated[int, msgspec.Meta(description="The line that is wrong.")] | msgspec.UnsetType = msgspec.UNSET
    taken: Annotated[int, msgspec.Meta(description="Units taken already.")] | msgspec.UnsetType = msgspec.UNSET
    free: Annotated[int, msgspec.Meta(description="Units without a code.")] | msgspec.UnsetType = msgspec.UNSET
    etag: Annotated[str, msgspec.Meta(description="The drop's present tag.")] | msgspec.UnsetType = msgspec.UNSET
    rehearsal: Annotated[str, msgspec.Meta(description="The one that is under way.")] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    missing: (
        Annotated[list[dict[str, str | None]], msgspec.Meta(description="What blocks the opening.")] | msgspec.UnsetType
    ) = msgspec.UNSET
    due: Annotated[Money, msgspec.Meta(description="What is to be paid.")] | msgspec.UnsetType = msgspec.UNSET
