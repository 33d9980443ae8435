"""Spells every key of the gate; no other module and no script makes one.

One hash tag per drop and stripe, so that all keys of a stripe live in one slot of a cluster.
`LAYOUT` is in the prefix: a new layout never reads an old one's data.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from flashsale.domain import Drop

LAYOUT: Final = "fs3"


class StripeKeys(NamedTuple):
    """The keys of one stripe of one drop."""

    meta: str
    """Hash: `epoch`, `replid`, `paused`, `closed`, `limit`, `order`, `bound`, `lease`; for each allocation `a:`, `n:`.

    `lease`: until then, by the gate's clock, some process may refuse by itself (`flashsale.leases`).
    """
    ent: str
    """Hash: member → its entries, one a line, fields separated by tabs; field `#` is the sentinel.

    An entry without an allocation holds no unit: it is of a returned reservation, and counts under the limit only. Of a
    striped drop, a member's claims are at its home; one that ends in `@` has its unit on another stripe, which has an
    entry of it, too. Of the entries there, only those of members at home count under a limit: nobody else asks.
    """
    pend: str
    """Sorted set: `id|member` of grants not yet known to be in the ledger, by time in ms; `#` is the sentinel."""
    codes: str
    """Hash: the drop's batches of F-codes, and which codes are spent or revoked (`codes`); `#` is the sentinel."""
    late: str
    """List: a name of its own, then who was granted something since the first lease; it is the log of these."""
    arming: str
    """The lease of the process that rebuilds the gate (efficiency only)."""


def _tag(drop: str, stripe: int) -> str:
    return f"{LAYOUT}:{{{drop}:{stripe}}}"


def stripe(drop: str, stripe: int = 0) -> StripeKeys:
    """The mutable keys of a stripe."""
    tag = _tag(drop, stripe)
    return StripeKeys(f"{tag}:meta", f"{tag}:ent", f"{tag}:pend", f"{tag}:codes", f"{tag}:late", f"{tag}:arming")


def staging(drop: str, stripe: int, name: str) -> str:
    """Where a rebuild collects what it will rename into place; `name` says for what (an epoch, a snapshot)."""
    return f"{_tag(drop, stripe)}:stg:{name}"


def stagings(drop: str, stripe: int, epoch: int) -> tuple[str, str]:
    """Where a rebuild for this epoch collects entries and codes."""
    return staging(drop, stripe, str(epoch)), staging(drop, stripe, f"codes-{epoch}")


def eligible(drop: str, stripe: int, eligible_set: str) -> str:
    """The eligible members of a points rule, by the name of the ledger's list: immutable, renamed into place."""
    return f"{_tag(drop, stripe)}:elig:{eligible_set}"


def eligible_of(drop: Drop, stripe: int = 0) -> tuple[str, ...]:
    """The keys of the eligible sets that a drop's allocations name, each once, in listed order."""
    named = (a.eligible_set for a in drop.allocations if a.eligible_set is not None)
    return tuple(dict.fromkeys(eligible(drop.id, stripe, name) for name in named))


def bound(drop: str, stripe: int, batch: int) -> str:
    """Whom each code of a bound batch belongs to: immutable, renamed into place."""
    return f"{_tag(drop, stripe)}:bound:{batch}"


def bound_of(drop_id: str, stripe: int, batches: Iterable[int]) -> tuple[str, ...]:
    """The keys of the lists of whom the codes of these batches belong to."""
    return tuple(bound(drop_id, stripe, batch) for batch in batches)


def tries(subject: str) -> str:
    """The failed tries of F-codes of a member, an address or all within their window; all subjects in one slot."""
    return f"{LAYOUT}:{{tries}}:{subject}"


def counted(drop: str) -> tuple[str, str]:
    """What all processes have counted of a drop: sums, and by second what was refused. It decides nothing."""
    tag = _tag(drop, 0)
    return f"{tag}:counts", f"{tag}:refused"


def board(name: str) -> str:
    """Notes of the processes to each other, one board in one slot."""
    return f"{LAYOUT}:{{board}}:{name}"
