"""F-codes (I6): each spent once, by whom it belongs to, while it was valid; and the gate's bits say the same."""

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from flashsale.audit.facts import BATCH_SHIFT, CODES_STRIPE, SERIALS_A_FIELD, SPENDING, Batch, Gate, Ledger, Row
from flashsale.audit.report import Check, Look, clock, count, unjudged
from flashsale.audit.units import named

_BITS: Final = "the gate knows what is spent, revoked and whose it is"
_ALPHABET: Final = {sign: value for value, sign in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}
_ALIKE: Final = {"O": "0", "I": "1", "L": "1"}
SYMBOLS: Final = 20
Owners = tuple[dict[int, bytes], list[dict[bytes, bytes]]]
"""Whose the codes of a batch are, by the ledger and by each stripe: thousand of the serial → members, 8 bytes each."""
NUMBER_SHIFT: Final = 58
"""Of the hundred bits of a code, those above are its number: batch and serial."""


def number_of(fcode: int | str | None) -> int | None:
    """A code's number, whether the journal has it as that or as it was typed; None: it is no code."""
    if fcode is None or isinstance(fcode, int):
        return fcode
    signs = [_ALIKE.get(sign, sign) for sign in fcode.upper() if sign not in " -"]
    if fcode.isascii() and fcode.isdecimal() and len(fcode) < SYMBOLS:
        return int(fcode)
    if len(signs) != SYMBOLS or any(sign not in _ALPHABET for sign in signs):
        return None
    word = 0
    for sign in signs:
        word = word << 5 | _ALPHABET[sign]
    return word >> NUMBER_SHIFT


def serial_of(code: int) -> int:
    """A code's number within its batch."""
    return code & ((1 << BATCH_SHIFT) - 1)


def text(code: int) -> str:
    """A code in a sentence, which tells nobody the code."""
    return f"code {serial_of(code)} of batch {code >> BATCH_SHIFT}"


def revoked_at(ledger: Ledger, code: int) -> int | None:
    """Since when a code is honoured no more."""
    batch = ledger.batches.get(code >> BATCH_SHIFT)
    found = [t for t in (ledger.revoked.get(code), batch.revoked if batch is not None else None) if t is not None]
    return min(found, default=None)


def by_code(ledger: Ledger) -> dict[int, list[Row]]:
    """The reservations that name each code, in the order in which they came."""
    found: dict[int, list[Row]] = {}
    for row in ledger.rows.values():
        if row.code is not None and row.state != "void":
            found.setdefault(row.code, []).append(row)
    for rows in found.values():
        rows.sort(key=lambda row: row.created)
    return found


def spent_until(row: Row) -> int | None:
    """Until when a reservation spends its code; None: for good, or still."""
    return None if row.state in SPENDING else row.ended


def spent_once(ledger: Ledger, rows: Mapping[int, list[Row]], apart_us: int) -> Check:
    """Each code at most once at any instant, by its member, in its allocation, before it ended or was revoked."""
    look = Look("I6", "a code is spent once, by its member, while it is valid")
    for code, named_by in rows.items():
        batch, last = ledger.batches.get(code >> BATCH_SHIFT), None
        until = revoked_at(ledger, code)
        for row in named_by:
            why = None
            if last is not None and (end := spent_until(last)) is not None and end > row.created:
                why = f"{text(code)} was spent by {named(last)} until {clock(end)}"
            elif last is not None and spent_until(last) is None:
                why = f"{text(code)} is spent by {named(last)}"
            elif batch is None or serial_of(code) >= batch.count:
                why = f"{text(code)} was never minted for this drop"
            elif batch.allocation != row.allocation:
                why = f"{text(code)} is for {batch.allocation}"
            elif batch.bound and ledger.owners.get(code) != row.member:
                why = f"{text(code)} belongs to member {ledger.owners.get(code)}"
            elif until is not None and row.created > until:
                why = f"{text(code)} was revoked at {clock(until)}"
            elif batch.expires is not None and row.created > batch.expires + apart_us:
                why = f"{text(code)} was valid until {clock(batch.expires)}"
            elif row.quantity != 1:
                why = f"{text(code)} buys one unit, not {row.quantity}"
            if why is not None:
                look.wrong(f"{named(row)} was made at {clock(row.created)}, and {why}", row.created)
            last = row
    spent = sum(any(spent_until(row) is None for row in named_by) for named_by in rows.values())
    return look.done(f"{count(len(rows), 'code')} shown, {spent:,} of them spent")


def _bits(codes: Mapping[bytes, bytes], kind: bytes) -> Iterator[int]:
    for name, bitmap in codes.items():
        if not name.startswith(kind):
            continue
        batch, thousand = (int(part) for part in name[len(kind) :].split(b":"))
        first = batch << BATCH_SHIFT | thousand * SERIALS_A_FIELD
        for at, byte in enumerate(bitmap):
            if byte:
                yield from (first + at * 8 + bit for bit in range(8) if byte & 1 << bit)


def _on(stripe: int, gate: Gate) -> str:
    return f" (stripe {stripe})" if len(gate.codes) > 1 else ""


def _compare_batch(look: Look, batch: Batch, known: Mapping[bytes, bytes], where: str) -> None:
    ends = 0 if batch.expires is None else max(1, batch.expires // 1000)
    wanted = [batch.allocation, ends, int(batch.revoked is not None), batch.count, int(batch.bound)]
    packed = known.get(b"b:%d" % batch.id)
    found = None if packed is None else msgspec.msgpack.decode(packed)
    if found != wanted:
        look.wrong(f"batch {batch.id} is {found!r} in the gate{where}, and by the ledger it is {wanted!r}", batch.id)


def _compare_owners(look: Look, number: int, in_ledger: dict[int, bytes], in_gate: Mapping[bytes, bytes]) -> None:
    found = {int(name): value for name, value in in_gate.items() if name != b"#"}
    for thousand in sorted(found.keys() | in_ledger.keys()):
        if found.get(thousand) != in_ledger.get(thousand):
            first = thousand * SERIALS_A_FIELD
            look.wrong(
                f"whose the codes of batch {number} from serial {first} on are, differs in the gate",
                number << BATCH_SHIFT | first,
            )


def gate_bits(ledger: Ledger, gate: Gate, rows: Mapping[int, list[Row]], bound: Mapping[int, Owners]) -> Check:
    """Spent and revoked bits, the batches' facts, and whose the codes of the batches `bound` are."""
    if not gate.armed:
        return unjudged("I6", _BITS, "the gate is not armed for the ledger's epoch")
    look = Look("I6", _BITS)
    live = {code for code, named_by in rows.items() if spent_until(named_by[-1]) is None}
    spent, revoked = set(_bits(gate.codes[CODES_STRIPE], b"s:")), set[int]()
    for code in sorted(spent ^ (live | gate.entry_codes)):
        says = "spent in the gate, and no reservation names it" if code in spent else "free in the gate, and spent"
        by = f" by {named(rows[code][-1])}" if code not in spent and code in rows else ""
        look.wrong(f"{text(code)} is {says}{by}", code)
    for stripe, known in gate.codes.items():
        if stripe != CODES_STRIPE:
            for code in sorted(set(_bits(known, b"s:"))):
                look.wrong(f"{text(code)} is spent on stripe {stripe} of the gate, where no code can be", code)
        revoked = set(_bits(known, b"r:"))
        for code in sorted(revoked ^ ledger.revoked.keys()):
            says = ("revoked in the gate, and not", "not revoked in the gate, and it is")[code not in revoked]
            look.wrong(f"{text(code)} is {says} in the ledger{_on(stripe, gate)}", code)
        for batch in ledger.batches.values():
            _compare_batch(look, batch, known, _on(stripe, gate))
    owners = 0
    for number, (in_ledger, stripes) in bound.items():
        owners += sum(len(listed) // 8 for listed in in_ledger.values())
        for in_gate in stripes:
            _compare_owners(look, number, in_ledger, in_gate)
    if gate.moved and not look.true:
        return unjudged("I6", _BITS, "the sale is in motion: codes were spent while the stores were read")
    return look.done(
        f"{count(len(ledger.batches), 'batch', 'batches')}, {len(spent):,} spent, {len(revoked):,} revoked, "
        f"{count(owners, 'owner')}"
    )
