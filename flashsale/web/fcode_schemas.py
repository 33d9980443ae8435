"""What goes over the wire about F-codes."""

from typing import Annotated

import msgspec

from fcodes import CODES_PER_BATCH_MAX
from flashsale.batches import CodeState
from flashsale.domain import LINE, Id, Timestamp
from flashsale.web.schemas import Reason, ShownState

SERIALS_PER_CALL_MAX = 1_000

Note = Annotated[str, msgspec.Meta(min_length=1, max_length=1_000), LINE]
Serial = Annotated[int, msgspec.Meta(ge=0, le=CODES_PER_BATCH_MAX - 1)]


class FcodesIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A batch of F-codes to mint; codes for certain members come as CSV instead."""

    count: Annotated[int, msgspec.Meta(ge=1, le=CODES_PER_BATCH_MAX)]
    expires_at: Timestamp | None = None
    note: Note | None = None


class RevokeIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which codes are honoured no more (absent: the whole batch), why, and where their units go."""

    reason: Reason
    serials: Annotated[tuple[Serial, ...], msgspec.Meta(min_length=1, max_length=SERIALS_PER_CALL_MAX)] | None = None
    to_allocation: Id | None = None


class BatchOut(msgspec.Struct, frozen=True, kw_only=True):
    """A batch of F-codes. `key` names the key that signs them."""

    batch: str
    drop: str
    allocation: str
    count: int
    bound: bool
    key: str
    created_at: Timestamp
    expires_at: Timestamp | None
    revoked_at: Timestamp | None
    note: str | None


class CountsOut(msgspec.Struct, frozen=True):
    """A batch's codes by state; `confirmed` and `returned` are spent for good."""

    unspent: int
    held: int
    confirmed: int
    returned: int
    revoked: int


class SpentOut(msgspec.Struct, frozen=True):
    """Who spent a code, and when."""

    serial: int
    reservation: str
    member: int
    state: ShownState
    at: Timestamp


class BatchDetailOut(BatchOut, frozen=True, kw_only=True):
    """A batch with its counts, and who spent its codes, by serial."""

    counts: CountsOut
    spent: tuple[SpentOut, ...]
    next: str | None


class BatchList(msgspec.Struct, frozen=True):
    """A page of batches, newest first."""

    items: tuple[BatchOut, ...]
    next: str | None


class RevokedOut(msgspec.Struct, frozen=True):
    """What a revocation did: how many codes may no longer be spent because of it, and the counts now."""

    batch: str
    revoked: int
    counts: CountsOut


class OwnCodeOut(msgspec.Struct, frozen=True, kw_only=True):
    """An F-code that belongs to me; `reservation` it was spent on."""

    code: str
    drop: str
    allocation: str
    state: CodeState
    expires_at: Timestamp | None
    note: str | None
    reservation: str | None


class OwnCodeList(msgspec.Struct, frozen=True):
    """A page of my F-codes, newest first."""

    items: tuple[OwnCodeOut, ...]
    next: str | None
