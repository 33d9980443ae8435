"""Spells every key of the gate; no other module and no script makes one.

One hash tag per drop and stripe, so that all keys of a stripe live in one slot of a cluster.
`LAYOUT` is in the prefix: a new layout never reads an old one's data.
"""

from typing import Final, NamedTuple

LAYOUT: Final = "fs2"


class StripeKeys(NamedTuple):
    """The keys of one stripe of one drop."""

    meta: str
    """Hash: `epoch`, `replid`, `paused`, `closed`, `limit`, `order`, `bound`, per allocation `a:<id>` and `n:<id>`."""
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
    arming: str
    """The lease of the process that rebuilds the gate (efficiency only)."""


def _tag(drop: str, stripe: int) -> str:
    return f"{LAYOUT}:{{{drop}:{stripe}}}"


def stripe(drop: str, stripe: int = 0) -> StripeKeys:
    """The mutable keys of a stripe."""
    tag = _tag(drop, stripe)
    return StripeKeys(f"{tag}:meta", f"{tag}:ent", f"{tag}:pend", f"{tag}:codes", f"{tag}:arming")


def staging(drop: str, stripe: int, name: str) -> str:
    """Where a rebuild collects what it will rename into place; `name` says for what (an epoch, a snapshot)."""
    return f"{_tag(drop, stripe)}:stg:{name}"


def eligible(drop: str, stripe: int, eligible_set: str) -> str:
    """The eligible members of a points rule, by the name of the ledger's list: immutable, renamed into place."""
    return f"{_tag(drop, stripe)}:elig:{eligible_set}"


def bound(drop: str, stripe: int, batch: int) -> str:
    """Whom each code of a bound batch belongs to: immutable, renamed into place."""
    return f"{_tag(drop, stripe)}:bound:{batch}"


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
