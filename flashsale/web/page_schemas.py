"""What the pages' own calls send: small, and asked for by everybody at noon."""

from typing import Annotated, Literal

import msgspec

from flashsale.domain import Timestamp
from flashsale.web.schemas import AccessOut, DropState, ReservationOut


class ClockOut(msgspec.Struct, frozen=True):
    """The gate's clock, by which windows open and close."""

    now_ms: Annotated[int, msgspec.Meta(description="Unix time in milliseconds.")]


class StatusAllocation(msgspec.Struct, frozen=True, omit_defaults=True):
    """An allocation just now."""

    id: str
    state: DropState
    opens_at: Timestamp
    closes_at: Timestamp
    access: AccessOut
    channel: str | None = None
    back_by: (
        Annotated[Timestamp, msgspec.Meta(description="All are taken, and until then some may come back.")] | None
    ) = None


class NoticeOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the shop has to say just now, by language."""

    zh: str | None = None
    en: str | None = None


class StatusOut(msgspec.Struct, frozen=True):
    """A drop just now, and when to ask again: after `poll_s` and up to `spread_s` more, by chance."""

    drop: str
    epoch: Annotated[int, msgspec.Meta(description="Grows with every act of an operator.")]
    server_time: Timestamp
    allocations: tuple[StatusAllocation, ...]
    notice: NoticeOut
    poll_s: float
    spread_s: float
    streams: Annotated[bool, msgspec.Meta(description="Whether `…/events` has room for one more.")]


class MyAllocation(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether this member may take from an allocation; if not, why not, in a sentence and in figures."""

    id: str
    eligible: bool
    code: str | None = None
    detail: str | None = None
    have: Annotated[int, msgspec.Meta(description="Points, or tier, of the member.")] | None = None
    need: Annotated[int, msgspec.Meta(description="Points, or tier, that it takes.")] | None = None
    cutoff: Annotated[Timestamp, msgspec.Meta(description="As of when points count.")] | None = None


class MyDropOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is personal about a drop: may I, have I, and how long does my session last."""

    drop: str
    member: int
    role: Literal["shopper", "ops", "ops-read", "payments"]
    allocations: tuple[MyAllocation, ...]
    reservations: Annotated[
        tuple[ReservationOut, ...], msgspec.Meta(description="In this drop, live ones first, each kind newest first.")
    ]
    fcodes: Annotated[int, msgspec.Meta(description="F-codes of this drop that are bound to me and unspent.")]
    session_ends_at: Annotated[Timestamp, msgspec.Meta(description="With a session of the pages.")] | None = None


class SessionOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who is signed in, if anybody is."""

    signed_in: bool
    member: int | None = None
    role: Literal["shopper", "ops", "ops-read", "payments"] | None = None
    session_ends_at: Timestamp | None = None


class PictureOut(msgspec.Struct, frozen=True):
    """A picture that drops may show from now on."""

    picture: str
    width: int
    height: int
    bytes: int
