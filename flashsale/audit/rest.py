"""Whether anything is still under way (I16): before the stores are compared, and as a check of its own."""

from typing import Final

import msgspec

from flashsale.audit.facts import Head
from flashsale.audit.ledger import Rest
from flashsale.audit.report import US, Check, Look, clock, count, unjudged

LOOKED_AFTER_S: Final = 3600
"""So long after its last window a drop's gate is kept in order; its keys go later, by themselves."""


class Probe(msgspec.Struct, frozen=True):
    """One look at what is under way, in ledger and gate."""

    rest: Rest
    heads: dict[int, Head]

    @property
    def armed(self) -> bool:
        """Whether the gate is the one of the ledger's epoch."""
        return all(head.epoch == self.rest.epoch for head in self.heads.values())

    @property
    def pending(self) -> int:
        """Grants that the gate does not know to be in the ledger."""
        return sum(len(head.pending) for head in self.heads.values())

    @property
    def at_rest(self) -> bool:
        """Whether nothing is under way."""
        return self.armed and not (self.pending or self.rest.outbox or self.rest.overdue)

    def told(self) -> str:
        """What is under way, for people who wait."""
        parts = [
            *([] if self.armed else ["the gate is not armed for the ledger's epoch"]),
            *([f"{count(self.pending, 'grant')} pending"] if self.pending else []),
            *([f"{count(self.rest.outbox, 'unit')} on the way back"] if self.rest.outbox else []),
            *([f"{count(self.rest.overdue, 'hold')} overdue"] if self.rest.overdue else []),
        ]
        return ", ".join(parts) or "nothing is under way"


def settled(probe: Probe, ends: int, settle_s: float) -> Check:
    """I16: epochs equal, nothing pending, nothing to return, no hold overdue; for what is there, since when.

    `settle_s` is the time that was given for it; what is younger is in motion, and no contradiction.
    """
    line = "nothing is left under way"
    look, rest = Look("I16", line), probe.rest
    for stripe, head in probe.heads.items():
        if head.epoch == rest.epoch:
            continue
        if gone(head, rest.now, ends):
            return unjudged("I16", line, "the drop is over, and the gate has forgotten it")
        if head.epoch is None:
            missing = ", ".join(head.missing)
            what = f"lacks {missing}" if missing else "was armed on another server, or before a restart"
        else:
            what = f"is of epoch {head.epoch}, and the ledger's is {rest.epoch}"
        look.wrong(f"the gate, stripe {stripe}, {what}: it was not armed within {settle_s:g} s")
    old = settle_s * US
    for head in probe.heads.values():
        for grant in head.pending:
            if head.now - grant.since_ms * 1000 >= old:
                look.wrong(
                    f"{grant.id_text} of member {grant.member} is pending in the gate since "
                    f"{clock(grant.since_ms * 1000)}",
                    grant.since_ms * 1000,
                )
    for number, since, what in (
        (rest.outbox, rest.outbox_since, "ended reservation whose unit the gate may not have back"),
        (rest.overdue, rest.overdue_since, "hold that is over and has not expired"),
    ):
        if since is not None and rest.now - since >= old:
            many = f"{what.partition(' ')[0]}s {what.partition(' ')[2]}" if number > 1 else what
            look.wrong(f"{count(number, what, many)}, the oldest since {clock(since)}", since)
    if look.true and not probe.at_rest:
        return unjudged("I16", line, f"the sale is in motion: {probe.told()}")
    return look.done(f"epoch {rest.epoch} in both")


def gone(head: Head, now: int, ends: int) -> bool:
    """Whether the gate has nothing of a drop that is long over: nobody looks after it any more."""
    return "meta" in head.missing and now > ends + LOOKED_AFTER_S * US
