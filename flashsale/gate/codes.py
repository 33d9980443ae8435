"""F-codes as the gate holds them: fields of hashes, and the MessagePack in which a rebuild hands them over.

The hash `codes` of a drop has, next to its sentinel,

- `b:<batch>`: MessagePack [allocation, expires, revoked 0|1, count, bound 0|1]; `expires` is Unix time in ms, 0 never;
- `s:<batch>:<thousand>`: which codes of that thousand of serials are spent: serial is bit `1 << (lo % 8)` of byte
  `lo // 8`, with `lo` its last three digits; zero bytes at the end may be left out, and so may the field;
- `r:<batch>:<thousand>`: which are revoked, in the same form.

A bound batch has a hash of its own: field `<thousand>` → the members, 8 bytes each, highest byte first, in the order
of the serials; 0 is nobody. Its field `#` holds the number of the other fields.

A code that can be spent by whoever shows it costs about a bit and a half; one that is bound about eight bytes more.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec

from fcodes import CODES_PER_BATCH_MAX
from flashsale.domain import FcodeBatch
from flashsale.gate.clock import unix_ms

SERIALS_PER_FIELD: Final = 1_000
MEMBER_BYTES: Final = 8

Field = str | bytes

_pack: Final = msgspec.msgpack.Encoder().encode


def _expires_ms(moment: datetime | None) -> int:
    """Rounded down, as a closing is: nothing is honoured after its time. 0 is taken: it says never."""
    return 0 if moment is None else max(1, unix_ms(moment, up=False))


def batch_field(batch: FcodeBatch) -> list[Field]:
    """[name, value] of a batch in `codes`."""
    facts = (batch.allocation, _expires_ms(batch.expires_at), int(batch.revoked), batch.count, int(batch.bound))
    return [f"b:{batch.id}", _pack(facts)]


def bit_fields(kind: Literal["s", "r"], numbers: Iterable[int]) -> list[Field]:
    """[name, value, …] in `codes` of all that are spent (`s`) or revoked (`r`), given by their numbers.

    In any order, over any batches; but a thousand of serials must come whole, as its field is written once.
    """
    bitmaps: dict[tuple[int, int], bytearray] = {}
    for number in numbers:
        batch, serial = divmod(number, CODES_PER_BATCH_MAX)
        thousand, lo = divmod(serial, SERIALS_PER_FIELD)
        bitmap = bitmaps.get((batch, thousand))
        if bitmap is None:
            bitmap = bitmaps[batch, thousand] = bytearray(SERIALS_PER_FIELD // 8)
        bitmap[lo >> 3] |= 1 << (lo & 7)
    fields: list[Field] = []
    for (batch, thousand), bitmap in bitmaps.items():
        fields += (f"{kind}:{batch}:{thousand}", bytes(bitmap.rstrip(b"\0")))
    return fields


def bound_fields(members: Iterable[tuple[int, int]]) -> list[Field]:
    """[name, value, …] of a bound batch out of (serial, member); a thousand of serials must come whole."""
    thousands: dict[int, bytearray] = {}
    for serial, member in members:
        thousand, lo = divmod(serial, SERIALS_PER_FIELD)
        listed = thousands.setdefault(thousand, bytearray())
        at = lo * MEMBER_BYTES
        if len(listed) < at:
            listed.extend(bytes(at - len(listed)))
        listed[at : at + MEMBER_BYTES] = member.to_bytes(MEMBER_BYTES, "big")
    fields: list[Field] = []
    for thousand, listed in thousands.items():
        fields += (str(thousand), bytes(listed))
    return fields


def pack_fields(fields: Sequence[Field]) -> bytes:
    """One MessagePack array of strings, whatever bytes they hold: Lua's cmsgpack knows no binary type."""
    packed = [b"\xdd" + len(fields).to_bytes(4, "big")]
    for field in fields:
        text = field.encode() if isinstance(field, str) else field
        size = len(text)
        packed += (b"\xd9" + size.to_bytes(1, "big") if size < 2**8 else b"\xdb" + size.to_bytes(4, "big"), text)
    return b"".join(packed)
