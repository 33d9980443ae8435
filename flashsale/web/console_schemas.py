"""What goes over the wire between the console and the service, beside what everybody uses."""

from typing import Annotated, Any

import msgspec

from flashsale.domain import QUANTITY_MAX, Access, Id, Timestamp, Verdict
from flashsale.web.schemas import DropState, Reason


class ResumeIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a drop is resumed. `force`: release a held one although something is missing; then `reason` is needed."""

    reason: Reason | None = None
    force: bool = False


class MoveIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Free units change their allocation."""

    from_: Annotated[Id, msgspec.Meta(description="Whose units they are.")] = msgspec.field(name="from")
    to: Id
    count: Annotated[int, msgspec.Meta(ge=1, le=QUANTITY_MAX)]
    reason: Reason | None = None


class MovedOut(msgspec.Struct, frozen=True):
    """An allocation before or after a move; `free`: neither taken nor set aside for an F-code."""

    id: str
    quantity: int
    taken: int
    free: int


class MoveOut(msgspec.Struct, frozen=True):
    """What a move did; first the allocation that gave, then the one that took."""

    drop: str
    from_: str = msgspec.field(name="from")
    to: str
    count: int
    before: tuple[MovedOut, ...]
    after: tuple[MovedOut, ...]


class PreflightItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the list; `blocking`: without it the drop is not released."""

    id: str
    blocking: bool
    ok: bool
    detail: str
    allocation: str | None = None


class PreflightOut(msgspec.Struct, frozen=True):
    """What is missing before a drop can open. `held`: it waits for its release; `ready`: nothing that blocks it."""

    drop: str
    ready: bool
    held: bool
    checked_at: Timestamp
    items: tuple[PreflightItem, ...]


class PreviewItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a press for this allocation would hear, and why; its state as the page would show it."""

    id: str
    state: DropState
    verdict: Verdict
    detail: str
    opens_at: Timestamp | None = None


class PreviewOut(msgspec.Struct, frozen=True):
    """A drop as a member finds it at some moment; stock and what the member has (`used`) are those of now."""

    drop: str
    member: int
    at: Timestamp
    tier: int
    per_member: int
    used: int
    allocations: tuple[PreviewItem, ...]


class Span(msgspec.Struct, frozen=True):
    """An allocation on the timeline."""

    id: str
    quantity: int
    opens_at: Timestamp
    closes_at: Timestamp
    access: Access
    channel: str | None


class Mark(msgspec.Struct, frozen=True):
    """An act on the timeline."""

    at: Timestamp
    action: str
    actor: str
    subject: str
    detail: dict[str, Any]


class TimelineOut(msgspec.Struct, frozen=True):
    """A drop in time: its windows, and what operators did to it, oldest first."""

    drop: str
    server_time: Timestamp
    starts_at: Timestamp
    ends_at: Timestamp
    allocations: tuple[Span, ...]
    marks: tuple[Mark, ...]


class FcodeSwitchIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether F-codes are stopped from now on, and why."""

    stopped: bool
    reason: Reason


class FcodeSwitchOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether the F-codes of all drops are stopped: since when, why, by whom; and drops that have stopped their own."""

    stopped: bool
    drops: tuple[str, ...]
    since: Timestamp | None = None
    reason: str | None = None
    by: str | None = None
